"""`AutoAttack`: its parts and their parameters as published, and what running attacks in turn means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import APGD, L1, L2, Attack, AutoAttack, Linf, SampleRng, Threat, Untargeted, evaluate
from touchstone.attacks.core.attack_sequence import attack_in_sequence
from touchstone.attacks.core.gain import gain_of
from touchstone.attacks.threats.ball import Ball

from .oracles import LinearModel, images, own_labels, small_net

LINF = Linf(eps=0.05)
APGD_CE = ("APGD", {"num_steps": 100, "num_restarts": 1, "num_targets": 0, "rho": 0.75, "num_eot_samples": 1})
APGD_T = ("APGD", {"num_steps": 100, "num_restarts": 1, "num_targets": 9, "loss": "DLR"})
APGD_DLR_5 = ("APGD", {"num_steps": 100, "num_restarts": 5, "num_targets": 0, "loss": "DLR"})
FAB_T = ("FAB", {"num_steps": 100, "num_targets": 9, "num_restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9})
SQUARE = ("Square", {"num_queries": 5000, "num_restarts": 1, "initial_share": 0.8, "schedule_queries": 10_000})


@pytest.mark.parametrize(
    ("threat", "version", "parts"),
    [
        (LINF, "standard", [APGD_CE, APGD_T, FAB_T, SQUARE]),
        (L2(eps=0.5), "standard", [APGD_CE, APGD_T, FAB_T, SQUARE]),
        (
            L1(eps=12),
            "standard",
            [("APGD", {"num_restarts": 5}), ("APGD", {"num_targets": 5, "num_restarts": 1}), FAB_T, SQUARE],
        ),
        (
            LINF,
            "plus",
            [
                ("APGD", {"num_restarts": 5, "loss": "CrossEntropy"}),
                APGD_DLR_5,
                ("FAB", {"num_restarts": 5, "num_targets": 0}),
                SQUARE,
                APGD_T,
                FAB_T,
            ],
        ),
        (LINF, "rand", [("APGD", {"num_eot_samples": 20}), ("APGD", {"num_eot_samples": 20, "loss": "DLR"})]),
    ],
)
def test_the_parts_have_the_parameters_of_the_original(
    threat: Ball, version: Any, parts: list[tuple[str, dict[str, Any]]]
) -> None:
    attacks = AutoAttack(threat=threat, version=version).attacks()
    assert [type(attack).__name__ for attack in attacks] == [name for name, _ in parts]
    for attack, (_, options) in zip(attacks, parts, strict=True):
        assert attack.threat is threat
        for option, value in options.items():
            if option == "loss":
                assert isinstance(attack.objective, Untargeted)
                assert type(attack.objective.loss).__name__ == value
            else:
                assert getattr(attack, option) == value


@pytest.mark.parametrize("threat", [LINF, L2(eps=0.2), L1(eps=0.7)], ids=["linf", "l2", "l1"])
def test_leaves_no_sample_that_its_first_attack_turns(threat: Ball) -> None:
    net, x = small_net().eval(), images(48)
    y, auto = own_labels(net, x), AutoAttack(threat=threat, num_steps=6, num_queries=20)
    report = evaluate(net, x, y, {"auto": auto, "first": auto.attacks()[0]})
    assert report.robust["first"].any()
    assert not (report.robust["auto"] & ~report.robust["first"]).any()


@dataclass(frozen=True, kw_only=True)
class Turns(Attack):
    """Returns images of grey, or the sample itself, by a list; and notes which samples it was given."""

    threat: Threat
    grey: Tensor
    seen: list[int] = field(default_factory=list)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        self.seen.extend(rng.sample_ids.tolist())
        return torch.where(self.grey[:, None], torch.full_like(x, 0.5), x)


def test_each_attack_sees_what_still_stands_and_the_point_that_fell_is_kept() -> None:
    class Bright(nn.Module):
        """Class 1 exactly for grey."""

        def forward(self, x: Tensor) -> Tensor:
            is_grey = (x == 0.5).all(1).float()
            return torch.stack([1 - is_grey, is_grey + 0 * x.sum(1)], 1)

    x, y, threat = torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64), Linf(eps=1)
    first = Turns(threat=threat, grey=torch.tensor([False, True, False, True, False]))
    second = Turns(threat=threat, grey=torch.tensor([True, False, False, False, False]))
    third = Turns(threat=threat, grey=torch.tensor([True, True, True, True, True]))
    model, rng = Bright(), SampleRng.numbered(5)
    points = attack_in_sequence([first, second, third], gain_of(model, Untargeted(), y), model, x, y, rng)
    assert first.seen == [0, 1, 2, 3, 4]
    assert second.seen == [0, 2, 4]
    assert third.seen == [2, 4]
    assert (points == 0.5).all()


def test_what_reaches_the_goal_is_kept_whatever_its_gain_and_the_first_noise_is_that_of_the_attack_alone() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Fills(Attack):
        threat: Threat
        value: float
        seeds: list[int] = field(default_factory=list)

        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
            self.seeds.append(rng.seed)
            return torch.full_like(x, self.value)

    def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return -points[:, 0], points[:, 0] == 0.5

    attacks = [Fills(threat=LINF, value=value) for value in (0.2, 0.1, 0.5)]
    x, rng = torch.zeros(2, 3), SampleRng.numbered(2, seed=7)
    assert (attack_in_sequence(attacks, measure, nn.Identity(), x, torch.zeros(2), rng) == 0.5).all()
    assert (attack_in_sequence(attacks[:2], measure, nn.Identity(), x, torch.zeros(2), rng) == 0.1).all()
    assert attacks[0].seeds == [7, 7]
    assert len({7, *attacks[1].seeds, *attacks[2].seeds}) == 3


def test_where_gradients_vanish_the_black_box_still_turns_samples() -> None:
    class Rounded(nn.Module):
        """The gradient of rounding is zero."""

        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net((x * 50).round() / 50)

    net, x = Rounded().eval(), images(24)
    attacks = {
        "apgd": APGD(threat=LINF, num_steps=10),
        "auto": AutoAttack(threat=LINF, num_steps=10, num_queries=100),
    }
    report = evaluate(net, x, own_labels(net, x), attacks)
    assert report.success["auto"].sum() > report.success["apgd"].sum()
    assert any("exactly zero" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("version", "num_classes", "least"), [("standard", 3, 4), ("standard", 2, 4), ("plus", 3, 4), ("rand", 2, 3)]
)
def test_too_few_classes_are_an_error(version: Any, num_classes: int, least: int) -> None:
    net, x = LinearModel(num_features=36, num_classes=num_classes, dtype=torch.float32), images(4)
    message = f"attack 'aa': AutoAttack.* needs a model of {least} classes or more.*Strongest works for any"
    with pytest.raises(ValueError, match=message):
        evaluate(net, x, net(x).argmax(1), {"aa": AutoAttack(threat=LINF, version=version)})


def test_an_unknown_version_is_an_error_that_names_the_others() -> None:
    message = r"AutoAttack\(version=...\) must be one of 'standard', 'plus', 'rand', got "
    with pytest.raises(ValueError, match=message + "'fast'$"):
        AutoAttack(threat=LINF, version="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message + r"'Standart'; did you mean 'standard'\?$"):
        AutoAttack(threat=LINF, version="Standart")  # type: ignore[arg-type]


@pytest.mark.parametrize("eps", [0.9, 0.001])
def test_samples_that_are_no_images_are_refused_whether_one_stands_or_none(eps: float) -> None:
    net, x = LinearModel(num_features=36, num_classes=4, dtype=torch.float32), images(4).flatten(1)
    message = r"attack 'aa': AutoAttack\(version='standard'\) needs images `\(N, C, H, W\)`, .* got the shape \(4, 36\)"
    with pytest.raises(ValueError, match=message):
        evaluate(net, x, net(x).argmax(1), {"aa": AutoAttack(threat=Linf(eps=eps))})
