"""The figures of a report, against the same by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import FGSM, PGD, Linf, RandomFlips, RandomNoise, Report, TokenFlips, evaluate
from touchstone.nets import TextClassifier

from .judged import LINF, PGD_5, Called, Custom
from .oracles import images, own_labels


def test_worst_case_needs_every_attack_and_the_clean_image(net: nn.Module, x: Tensor, y: Tensor) -> None:
    y = y.clone()
    y[0] = (y[0] + 1) % 4
    report = evaluate(net, x, y, {"noise": RandomNoise(threat=LINF), "pgd": PGD_5, "fgsm": FGSM(threat=LINF)})
    by_hand = [
        bool(report.clean_correct[i]) and all(bool(verdict[i]) for verdict in report.robust.values()) for i in range(12)
    ]
    assert report.worst_case.tolist() == by_hand
    assert not report.worst_case[0]


def test_a_leaf_that_an_attack_uses_again_is_counted_once_for_each_gradient(
    net: nn.Module, x: Tensor, y: Tensor
) -> None:
    def climb(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x_adv = x.clone().requires_grad_()
        for _ in range(4):
            (grad,) = torch.autograd.grad(model(x_adv).sum(), x_adv)
            x_adv.data = LINF.project(x_adv.data + 0.01 * grad.sign(), x)
        return x_adv

    cost = evaluate(net, x, y, {"a": Custom(climb)}).cost["a"]
    assert (cost.num_forwards, cost.num_backwards) == (48, 48)


@pytest.mark.parametrize(("levels", "change", "survives"), [(0.25, 0.45, False), (3.0, 3.8, True)])
def test_success_that_rounding_to_a_picture_file_undoes_is_told_apart(
    levels: float, change: float, survives: bool
) -> None:
    """A model that turns where the images are that many of 255 levels lighter."""
    x, y = torch.full((6, 1, 4, 4), 100 / 255), torch.zeros(6, dtype=torch.int64)

    def logits(points: Tensor) -> Tensor:
        excess = points.flatten(1).mean(1) - (100 + levels) / 255
        return torch.stack([-excess, excess], 1)

    attack = Custom(lambda m, x, y: x + change / 255)
    report = evaluate(Called(logits), x, y, {"a": attack}, check_8bit=True)
    assert not report.robust["a"].any()
    assert report.survives_8bit["a"].all() == survives


@pytest.mark.parametrize("box", [(-1, 1), None])
def test_rounding_to_a_picture_needs_pixels_of_0_to_1(box: tuple[int, int] | None, net: nn.Module) -> None:
    x, attack = images(2), PGD(threat=Linf(eps=0.1, box=box))
    with pytest.raises(ValueError, match=r"attack 'a': check_8bit=True rounds pixels of \[0, 1\]"):
        evaluate(net, x, own_labels(net, x), {"a": attack}, check_8bit=True)


def test_tokens_are_no_pictures_to_round() -> None:
    net = TextClassifier(vocab_size=12, num_classes=2, body="gru", dim=8)
    attack, x = RandomFlips(threat=TokenFlips(1, vocab_size=12)), torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"attack 'a': check_8bit=True rounds pixels of \[0, 1\]"):
        evaluate(net, x, torch.zeros(2, dtype=torch.int64), {"a": attack}, check_8bit=True)


def test_a_report_says_its_figures(net: nn.Module, x: Tensor, y: Tensor) -> None:
    report = evaluate(net, x, y, {"pgd": PGD_5})
    num_robust = int(report.robust["pgd"].sum())
    assert report.accuracy("pgd") == report.accuracy() == pytest.approx(num_robust / 12)
    assert report.accuracy("clean") == 1
    assert f"{num_robust} of 12" in str(report)
    assert str(evaluate(net, x[:0], y[:0], {"pgd": PGD_5})) == "no samples"
    with pytest.raises(ValueError, match=r"Report.accuracy\('fgsm'\): there is pgd, "):
        report.accuracy("fgsm")
    with pytest.raises(ValueError, match=r"Report.outlook\('pdg'\): there is pgd$"):
        report.outlook("pdg")


@pytest.mark.parametrize(
    ("raises_another", "left", "outlook"),
    [(False, 0.0, "3 have less than 5 % of their margin left"), (True, -0.25, "no sample stands")],
)
def test_of_a_tie_no_margin_is_left(raises_another: bool, left: float, outlook: str) -> None:
    """Right before, since the first of equal classes counts; the attack raises all by a quarter, or another one."""

    class Tied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rises = torch.tensor([0.0, 1.0, 0.0] if raises_another else [1.0, 1.0, 1.0])
            return torch.tensor([2.0, 2.0, 1.0]) + x.flatten(1)[:, :1] * rises

    x, y = torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    report = evaluate(Tied(), x, y, {"fgsm": FGSM(threat=Linf(eps=0.25))}, probe_masking=False)
    assert report.margin_left["fgsm"].tolist() == [left] * 3
    assert outlook in report.outlook("fgsm")


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ([0.04, 0.19, 0.9], "1 have less than 5 % of their margin left, 2 less than 20 %: more effort is likely to"),
        (
            [0.06, 0.19, 0.9],
            "0 have less than 5 % of their margin left, 2 less than 20 %: more of the same is unlikely",
        ),
    ],
)
def test_more_effort_is_advised_where_a_survivor_nearly_fell(left: list[float], said: str) -> None:
    labels, stands = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool)
    report = Report({"pgd": PGD_5}, torch.arange(3), labels, labels, stands, robust={"pgd": stands})
    report.margin_left["pgd"] = torch.tensor(left)
    assert f"pgd: of 3 samples that stand, {said}" in report.outlook("pgd")


def test_a_report_says_how_near_the_survivors_came(net: nn.Module, x: Tensor, y: Tensor) -> None:
    report = evaluate(net, x, y, {"pgd": PGD_5}, keep_adversarial=True)
    net.eval()
    with torch.no_grad():
        before, after = net(x).double(), net(report.x_adv["pgd"]).double()

    def margin(logits: Tensor) -> list[float]:
        return [float(row[c] - torch.cat([row[:c], row[c + 1 :]]).max()) for row, c in zip(logits, y, strict=True)]

    expected = [late / early for late, early in zip(margin(after), margin(before), strict=True)]
    assert report.margin_left["pgd"].tolist() == pytest.approx(expected, abs=1e-4)
    num_standing = int(report.robust["pgd"].sum())
    assert f"pgd: of {num_standing} samples that stand" in report.outlook("pgd")
    assert (report.margin_left["pgd"] > 0).equal(report.robust["pgd"])


def test_reports_of_other_attacks_are_not_joined(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """The worst case would be that of fewer attacks."""
    both, one = (evaluate(net, x, y, dict.fromkeys(names, PGD_5)) for names in (("a", "b"), ("a",)))
    with pytest.raises(ValueError, match=r"Report.join.*must be of the same attacks, got \[\['a', 'b'\], \['a'\]\]"):
        Report.join([both, one])
