"""The judge: what it refuses, in which words, and what it leaves as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    FGSM,
    PGD,
    Attack,
    Linf,
    Margin,
    Objective,
    RandomNoise,
    SampleRng,
    Square,
    Strongest,
    Targeted,
    Threat,
    Untargeted,
    evaluate,
    frozen_eval,
)
from touchstone.attacks.judge.halving import Halving

from .oracles import images, own_labels, small_net

LINF = Linf(eps=0.1)
PGD_5 = PGD(threat=LINF, num_steps=5)


@pytest.fixture
def net() -> nn.Module:
    return small_net()


@pytest.fixture
def x() -> Tensor:
    return images(12)


@pytest.fixture
def y(net: nn.Module, x: Tensor) -> Tensor:
    return own_labels(net, x)


@dataclass(frozen=True, eq=False)
class Custom(Attack):
    """An attack that does what the test wants."""

    perturbation: Callable[..., Any]
    threat: Threat = LINF
    objective: Objective = Untargeted()

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Any:
        return self.perturbation(model, x, y)


class Called(nn.Module):
    """A model that is a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def write_in_place(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return x.add_(0.01)


def train_and_run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model.train()
    model(x)
    model.eval()
    return x


def swap_weights(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    weight = model[5].weight.data  # type: ignore[index,union-attr]
    weight[0, 5], weight[2, 9] = weight[2, 9].item(), weight[0, 5].item()
    return x


def scale_weights(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model[5].weight.data.mul_(1.0001)  # type: ignore[index,union-attr]
    return x


def unfreeze(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model[5].weight.requires_grad_(True)  # type: ignore[index,union-attr]
    return x


def hook_on(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model.register_forward_hook(lambda module, args, output: output)
    return x


def one_pixel_nan(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone()
    x[3, 0, 0, 0] = torch.nan
    return x


@pytest.mark.parametrize(
    ("perturbation", "message"),
    [
        (lambda m, x, y: x + 0.11, r"'bad' left its threat Linf\(eps=0.1.*sample id 100: distance 0.11"),
        (lambda m, x, y: x - 0.06, r"'bad' left its threat"),  # inside the ball, outside the box
        (one_pixel_nan, r"'bad' returned NaN or infinite values, first at sample id 103"),
        (lambda m, x, y: x[:, :, :3], r"'bad' must return torch.float32 \(12, 1, 6, 6\)"),
        (lambda m, x, y: x[:5], r"'bad' must return torch.float32 \(12, 1, 6, 6\)"),
        (lambda m, x, y: x.double(), r"'bad' must return torch.float32 .* got torch.float64"),
        (lambda m, x, y: x.half(), r"'bad' must return torch.float32 .* got torch.float16"),
        (train_and_run, r"'bad' changed the model: 1.running_mean"),
        (scale_weights, r"'bad' changed the model: 5.weight"),
        (swap_weights, r"'bad' changed the model: 5.weight"),
    ],
)
@pytest.mark.filterwarnings("ignore:Custom.perturb draws from torch's global")  # by the dropout of a net in training
def test_an_attack_that_breaks_its_word_is_named(
    net: nn.Module, x: Tensor, y: Tensor, perturbation: Callable[..., Any], message: str
) -> None:
    x = x - 0.05 if "0.06" in message else x
    x[0, 0, 0, 0] = 0.05
    y = own_labels(net, x)
    with pytest.raises(ValueError, match=message):
        evaluate(net, x, y, {"good": PGD_5, "bad": Custom(perturbation)}, sample_ids=torch.arange(100, 112))


def test_an_attack_that_overrides_the_call_is_judged_as_well(net: nn.Module, x: Tensor, y: Tensor) -> None:
    class Own(Attack):
        threat = LINF

        def __init__(self, function: Callable[..., Any]) -> None:
            self.function = function

        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, rng: Any = None) -> Any:
            return self.function(x)

    assert evaluate(net, x, y, {"a": Own(lambda x: x)}).robust["a"].all()
    with pytest.raises(ValueError, match="'a' left its threat"):
        evaluate(net, x, y, {"a": Own(lambda x: (x + 0.2).clamp(0, 1))})
    with pytest.raises(ValueError, match="'a' changed its input in place"):
        evaluate(net, x, y, {"a": Own(lambda x: x.mul_(0.99))})
    with pytest.raises(ValueError, match="'a' must return a tensor, got NoneType"):
        evaluate(net, x, y, {"a": Own(lambda x: None)})
    with pytest.raises(ValueError, match="'a' changed the model: requires_grad of 5.weight"):
        evaluate(net, x, y, {"a": Own(lambda x: unfreeze(net, x, y))})
    assert net[5].weight.requires_grad


def test_an_attack_that_changes_its_input_is_named(net: nn.Module, x: Tensor, y: Tensor) -> None:
    class InPlace(Attack):
        threat = LINF

        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, rng: Any = None) -> Tensor:
            y[0] = (y[0] + 1) % 4
            return x

    with pytest.raises(ValueError, match="attack 'a' changed its input in place"):
        evaluate(net, x, y, {"a": InPlace()})


def test_a_perturb_that_changes_its_input_is_named(net: nn.Module, x: Tensor, y: Tensor) -> None:
    class Nudge(Attack):
        threat = LINF

        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: Any) -> Tensor:
            before = x.clone()
            return self.threat.project(x.add_(0.01), before)

    with pytest.raises(ValueError, match=r"attack 'a': Nudge.perturb changed its input in place"):
        evaluate(net, x, y, {"a": Nudge()})


@pytest.mark.parametrize(
    ("change_x", "message"),
    [
        (lambda x: x * 2, r"images must lie in \[0, 1\], got values from .*normalization=\(mean, std\)"),
        (lambda x: x - 1, r"images must lie in \[0, 1\]"),
        (lambda x: x.where(x < 0.9, 1.0000001), r"got values from .* to 1.00000012; .*clip them by `x.clamp\(0, 1\)`$"),
        (lambda x: (x * 255).to(torch.uint8), r"images must be floating point, got torch.uint8; for uint8 use"),
        (lambda x: x.where(x < 0.9, torch.nan), r"images must lie in \[0, 1\], got values from nan"),
        (lambda x: torch.cat([x[:5], x[5:7] / 0 * 0, x[7:]]), "to nan; 2 of 12 images hold NaN, the first is row 5$"),
        (lambda x: x[0, 0, 0], r"images must be a batch"),
        (lambda x: x.numpy(), r"images must be a tensor, got ndarray"),
    ],
)
def test_images_that_are_none_are_refused(
    net: nn.Module, x: Tensor, y: Tensor, change_x: Callable[[Tensor], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(net, change_x(x), y, {"pgd": PGD_5})


@pytest.mark.parametrize(
    ("change_y", "message"),
    [
        (lambda y: y.float(), r"labels must be class numbers.*got torch.float32"),
        (lambda y: nn.functional.one_hot(y, 4), r"labels must be class numbers.*one-hot\?"),
        (lambda y: y[:, None], r"labels must be `\(N,\)`, got a column \(12, 1\)"),
        (lambda y: y[:-1], r"one label per image, got 12 images and 11 labels"),
        (lambda y: y + 4, r"labels must be classes of the model, 0 to 3; sample \d+ has the label \d"),
        (lambda y: y - 9, r"labels must be classes of the model, 0 to 3; sample 0 has the label -"),
        (lambda y: y > 1, r"got torch.bool"),
    ],
)
def test_labels_that_are_none_are_refused(
    net: nn.Module, x: Tensor, y: Tensor, change_y: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(net, x, change_y(y), {"pgd": PGD_5})


def nan_for_the_eighth(x: Tensor) -> Tensor:
    logits = x.flatten(1)[:, :4] * 3
    return torch.where(x.flatten(1).sum(1, keepdim=True) == images(12)[7].sum(), torch.nan, logits)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.flatten(1)[:, :4].softmax(1), "probabilities where logits are due"),
        (lambda x: (x.flatten(1)[:, :4], x), "it returned a tuple: wrap it"),
        (lambda x: {"scores": x.flatten(1)[:, :4]}, r"it returned a dict with the keys \['scores'\]"),
        (lambda x: x.flatten(1)[:, 0], r"logits of shape \(5, classes\) with 2 classes or more, got \(5,\)"),
        (lambda x: x.flatten(1)[:, :1], r"got \(5, 1\)"),
        (lambda x: x.flatten(1)[:3, :4], r"logits of shape \(5, classes\)"),
        (lambda x: x[:, :, :2, :2], r"got \(5, 1, 2, 2\)"),
        (
            lambda x: x.flatten(1)[:, :4] * torch.inf,
            "NaN or infinite logits for 5 of 5 samples .*batch 0 of samples 100 to 104, first sample id 100",
        ),
        (
            nan_for_the_eighth,
            r"NaN or infinite logits for 1 of 5 samples \(.*, batch 1 of samples 105 to 109, first sample id 107",
        ),
        (lambda x: x.flatten(1)[:, :4].argmax(1, keepdim=True).expand(-1, 4), "must return floating point logits"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(x: Tensor, function: Callable[[Tensor], Any], message: str) -> None:
    ids, y = torch.arange(100, 112), torch.zeros(12, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        evaluate(Called(function), x, y, {"pgd": PGD_5}, sample_ids=ids, batch_size=5)


def test_nan_logits_after_an_attack_name_the_attack(x: Tensor) -> None:
    def fragile(x: Tensor) -> Tensor:
        logits = x.flatten(1)[:, :4]
        return torch.where(x.flatten(1).amax(1, keepdim=True) > 0.96, logits / 0, logits)

    y = fragile(x).argmax(1)
    with pytest.raises(ValueError, match="NaN or infinite logits.*after attack 'noise'"):
        evaluate(Called(fragile), x, y, {"noise": RandomNoise(threat=Linf(eps=0.3))})


@pytest.mark.parametrize("target", [4, torch.full((12,), 7)])
def test_a_target_class_that_does_not_exist_is_refused(net: nn.Module, x: Tensor, y: Tensor, target: Any) -> None:
    attack = PGD(threat=LINF, objective=Targeted(target=target))
    with pytest.raises(ValueError, match=r"attack 't': Targeted\(target=\d\): the model has 4 classes, 0 to 3"):
        evaluate(net, x, y, {"t": attack})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (-1, "must be >= 0, got -1"),
        ("runnerup", "did you mean 'runner_up'"),
        (1.5, "must be a class, a tensor of classes or a choice"),
        (torch.tensor([0.5]), "integers"),
    ],
)
def test_a_target_that_is_no_class_is_refused(target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Targeted(target=target)


@pytest.mark.parametrize("field", ["threat", "objective"])
def test_per_sample_values_must_fit_the_batch(net: nn.Module, x: Tensor, y: Tensor, field: str) -> None:
    values: dict[str, Any] = {
        "threat": Linf(eps=torch.full((5,), 0.1)),
        "objective": Targeted(target=torch.zeros(5).long()),
    }
    attack = PGD(**{"threat": LINF, field: values[field]})
    with pytest.raises(ValueError, match=r"must hold one row per sample \(12\) or a single one, got 5"):
        evaluate(net, x, y, {"a": attack})


@pytest.mark.parametrize("name", ["worst_case", "clean", "a/b", "", "pgd 20", "pgd\n"])
def test_a_name_that_cannot_be_a_tag_is_refused(net: nn.Module, x: Tensor, y: Tensor, name: str) -> None:
    with pytest.raises(ValueError, match="an attack's name must be"):
        evaluate(net, x, y, {name: PGD_5})


def test_what_is_no_attack_is_refused(net: nn.Module, x: Tensor, y: Tensor) -> None:
    with pytest.raises(ValueError, match="attack 'a' must be an Attack with a threat"):
        evaluate(net, x, y, {"a": lambda model, x, y: x})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="attacks must be given by name"):
        evaluate(net, x, y, [PGD_5])  # type: ignore[arg-type]


def test_an_attack_without_perturb_says_what_to_define(net: nn.Module, x: Tensor, y: Tensor) -> None:
    class Nothing(Attack):
        threat = LINF

    with pytest.raises(
        RuntimeError, match=r"attack 'a': TypeError: Nothing must define perturb\(self, model, x, y, rng\)"
    ):
        evaluate(net, x, y, {"a": Nothing()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, r"PGD\(num_steps=...\) must be >= 1, got 0"),
        ({"num_steps": 2.5}, r"PGD\(num_steps=...\) must be a whole number >= 1, got 2.5"),
        ({"num_steps": True}, r"PGD\(num_steps=...\) must be >= 1, got True"),
        ({"threat": 0.1}, r"PGD\(threat=...\) must be a threat such as Linf\(eps=8 / 255\), got 0.1"),
        ({"objective": 7}, r"PGD\(objective=...\) must be an objective such as Untargeted\(\)"),
        ({"num_eot_samples": 0}, r"PGD\(num_eot_samples=...\) must be >= 1, got 0"),
        ({"num_restarts": 0}, r"PGD\(num_restarts=...\) must be >= 1, got 0"),
        ({"step_size": 0}, r"PGD\(step_size=...\) must be > 0"),
        ({"step_size": "two"}, r"PGD\(step_size=...\) must be a number"),
        ({"rel_step_size": -1.0}, r"PGD\(rel_step_size=...\) must be > 0"),
        ({"step_size": 0.1, "rel_step_size": 0.1}, "give one of the two"),
        ({"num_restarts": 2, "random_start": False}, "needs random_start=True"),
    ],
)
def test_pgd_refuses_values_outside_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGD(**{"threat": LINF, **options})


def test_a_model_without_a_gradient_is_an_error_that_says_where_to_look(x: Tensor) -> None:
    free = torch.ones(4, requires_grad=True)  # a weight that no module knows, so that it is not frozen
    for function in (lambda x: x.detach().flatten(1)[:, :4] * 3, lambda x: x.detach().flatten(1)[:, :4] * free):
        model = Called(function)
        with pytest.raises(ValueError, match="attack 'pgd': the model's output does not depend on its input by a diff"):
            evaluate(model, x, model(x).argmax(1), {"pgd": PGD_5})


def test_a_model_that_leaves_torch_is_told_of_the_black_boxes(x: Tensor) -> None:
    model = Called(lambda x: torch.from_numpy(x.numpy().reshape(len(x), -1)[:, :4] * 3))
    y = model(x).argmax(1)
    with pytest.raises(RuntimeError, match=r"attack 'pgd': Can't call numpy\(\).*attack by a black box \(Square"):
        evaluate(model, x, y, {"pgd": PGD_5})
    report = evaluate(model, x, y, {"square": Square(threat=LINF, num_queries=20)})
    assert report.success["square"].any()


# What must work, with the same verdicts.


@pytest.fixture
def expected(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    robust = evaluate(net, x, y, {"pgd": PGD_5}).robust["pgd"]
    assert robust.any()
    assert not robust.all()
    return robust


def test_channels_last_and_non_contiguous_batches(net: nn.Module, x: Tensor, y: Tensor, expected: Tensor) -> None:
    for form in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(evaluate(net, form, y, {"pgd": PGD_5}).robust["pgd"], expected)


def test_a_double_batch_for_a_float_model(net: nn.Module, x: Tensor, y: Tensor, expected: Tensor) -> None:
    report = evaluate(net, x.double(), y, {"pgd": PGD_5}, keep_adversarial=True)
    assert torch.equal(report.robust["pgd"], expected)
    assert report.x_adv["pgd"].dtype == torch.float32


def test_a_half_batch_is_computed_in_float32(net: nn.Module, x: Tensor, y: Tensor) -> None:
    half = x.half()
    report = evaluate(net, half, y, {"pgd": PGD_5}, keep_adversarial=True)
    assert report.x_adv["pgd"].dtype == torch.float32
    assert torch.equal(report.robust["pgd"], evaluate(net, half.float(), y, {"pgd": PGD_5}).robust["pgd"])


def test_a_model_of_bfloat16_weights_keeps_x_in_float32(net: nn.Module, x: Tensor, y: Tensor) -> None:
    report = evaluate(net.bfloat16(), x, y, {"pgd": PGD_5}, keep_adversarial=True)
    assert report.x_adv["pgd"].dtype == torch.float32
    assert LINF.contains(report.x_adv["pgd"], x).all()


def test_a_model_without_parameters(x: Tensor) -> None:
    model = Called(lambda x: x.flatten(1)[:, :4] * 9)
    report = evaluate(model, x, model(x).argmax(1), {"pgd": PGD_5})
    assert not report.worst_case.all()


def test_an_output_with_logits(net: nn.Module, x: Tensor, y: Tensor, expected: Tensor) -> None:
    @dataclass
    class Output:
        logits: Tensor

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: Tensor) -> Output:
            return Output(self.inner(x))

    assert torch.equal(evaluate(Wrapped(), x, y, {"pgd": PGD_5}).robust["pgd"], expected)


def test_any_batch_size_gives_the_same_verdicts(net: nn.Module, x: Tensor, y: Tensor, expected: Tensor) -> None:
    for batch_size in (1, 5, 12, 1000):
        assert torch.equal(evaluate(net, x, y, {"pgd": PGD_5}, batch_size=batch_size).robust["pgd"], expected)


def test_worst_case_needs_every_attack_and_the_clean_image(net: nn.Module, x: Tensor, y: Tensor) -> None:
    y = y.clone()
    y[0] = (y[0] + 1) % 4
    report = evaluate(net, x, y, {"noise": RandomNoise(threat=LINF), "pgd": PGD_5, "fgsm": FGSM(threat=LINF)})
    by_hand = [
        bool(report.clean_correct[i]) and all(bool(verdict[i]) for verdict in report.robust.values()) for i in range(12)
    ]
    assert report.worst_case.tolist() == by_hand
    assert not report.worst_case[0]


def test_an_uncertain_attack_is_not_believed(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """An attack that returns the clean image has turned nothing, whatever it says of itself."""
    report = evaluate(net, x, y, {"lazy": Custom(lambda m, x, y: x)})
    assert report.robust["lazy"].all()
    assert not report.success["lazy"].any()
    assert report.cost["lazy"].num_forwards == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_active_autocast_changes_nothing(net: nn.Module, x: Tensor, y: Tensor, dtype: torch.dtype) -> None:
    attacks = {"fgsm": FGSM(threat=LINF), "pgd": PGD_5, "strongest": Strongest(threat=LINF)}
    plain = evaluate(net, x, y, attacks, keep_adversarial=True)
    with torch.autocast("cpu", dtype=dtype):
        inside = evaluate(net, x, y, attacks, keep_adversarial=True)
        assert net.eval()(x).dtype == dtype
    assert torch.equal(inside.clean_prediction, plain.clean_prediction)
    for name in attacks:
        assert torch.equal(inside.x_adv[name], plain.x_adv[name])
        assert torch.equal(inside.robust[name], plain.robust[name])


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


def test_a_report_says_its_figures(net: nn.Module, x: Tensor, y: Tensor) -> None:
    report = evaluate(net, x, y, {"pgd": PGD_5})
    num_robust = int(report.robust["pgd"].sum())
    assert report.accuracy("pgd") == report.accuracy() == pytest.approx(num_robust / 12)
    assert report.accuracy("clean") == 1
    assert f"{num_robust} of 12" in str(report)
    assert str(evaluate(net, x[:0], y[:0], {"pgd": PGD_5})) == "no samples"
    with pytest.raises(ValueError, match=r"Report.accuracy\('fgsm'\): there is pgd, clean, worst_case"):
        report.accuracy("fgsm")


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


def test_sample_ids_may_be_a_list(net: nn.Module, x: Tensor, y: Tensor) -> None:
    assert evaluate(net, x, y, {"pgd": PGD_5}, sample_ids=list(range(5, 17))).sample_id.tolist() == list(range(5, 17))
    with pytest.raises(ValueError, match=r"sample_ids must be integers \(12,\), got torch.int64 \(3,\)"):
        evaluate(net, x, y, {"pgd": PGD_5}, sample_ids=[1, 2, 3])
    with pytest.raises(ValueError, match="sample_ids must be integers"):
        evaluate(net, x, y, {"pgd": PGD_5}, sample_ids=["a"] * 12)  # type: ignore[list-item]


def test_a_model_that_is_no_module_is_refused(net: nn.Module, x: Tensor, y: Tensor) -> None:
    for call in (lambda: evaluate(lambda x: x, x, y, {"pgd": PGD_5}), lambda: PGD_5(lambda x: x, x, y)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"the model must be a torch.nn.Module .* got function: put a function"):
            call()


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
def test_models_of_every_make(net: nn.Module, x: Tensor, y: Tensor) -> None:
    expected = evaluate(net, x, y, {"pgd": PGD_5}).robust["pgd"]
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and people have its files
        made = {"scripted": torch.jit.script(net), "traced": torch.jit.trace(net, x)}
    made |= {"compiled": torch.compile(net, backend="eager"), "parallel": nn.DataParallel(net)}
    for name, model in made.items():
        assert torch.equal(evaluate(model, x, y, {"pgd": PGD_5}).robust["pgd"], expected), name
        assert PGD_5(model, x, y).shape == x.shape, name


def test_a_model_in_several_precisions_that_does_not_convert_says_so(net: nn.Module, x: Tensor, y: Tensor) -> None:
    net[5].bfloat16()
    with pytest.raises(ValueError, match=r"several precisions \(bfloat16, float32\) .* use `model.float\(\)`"):
        evaluate(net, x, y, {"pgd": PGD_5})


def test_an_attack_called_by_hand_checks_its_labels(net: nn.Module, x: Tensor, y: Tensor) -> None:
    assert torch.equal(PGD_5(net, x, y.int()), PGD_5(net, x, y))
    for attack in (PGD_5, PGD(threat=LINF, objective=Untargeted(loss=Margin()))):
        with pytest.raises(ValueError, match="labels must be classes of the model, 0 to 3; sample 0 has the label"):
            attack(net, x, y + 4)


def test_an_error_inside_an_attack_names_it_and_leaves_everything_as_it_was(
    net: nn.Module, x: Tensor, y: Tensor
) -> None:
    def fail(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    net.train()
    with pytest.raises(RuntimeError, match="attack 'a': shapes cannot be multiplied"):
        evaluate(net, x, y, {"a": Custom(fail)})
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


@pytest.mark.parametrize(
    ("perturbation", "kind", "message"),
    [
        (lambda m, x, y: None, ValueError, r"'a': Custom.perturb must return a tensor, got NoneType; does it end with"),
        (lambda m, x, y: (x, y), ValueError, r"'a': Custom.perturb must return a tensor, got tuple"),
        (lambda m, x, y: 1 / 0, RuntimeError, r"'a': ZeroDivisionError: division by zero"),
        (lambda m, x, y: {}["k"], RuntimeError, r"'a': KeyError: 'k'"),
        (
            lambda m, x, y: (m.register_forward_hook(lambda a, b, o: o), x)[1],
            ValueError,
            "changed the model: the hooks",
        ),
    ],
)
def test_slips_in_an_attack_of_ones_own_are_named(
    net: nn.Module, x: Tensor, y: Tensor, perturbation: Callable[..., Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        evaluate(net, x, y, {"a": Custom(perturbation)})


@pytest.mark.parametrize("loss", [Margin, nn.CrossEntropyLoss()])
@pytest.mark.parametrize("make", [lambda loss: Untargeted(loss=loss), lambda loss: Targeted(1, loss=loss)])
def test_a_loss_that_is_none_is_refused(make: Callable[..., Any], loss: Any) -> None:
    with pytest.raises(ValueError, match=r"argeted\(loss=...\) must be a loss such as Margin\(\), got"):
        make(loss)


def test_one_image_without_its_batch_is_told_how(net: nn.Module, x: Tensor, y: Tensor) -> None:
    with pytest.raises(ValueError, match=r"for one image give `x\[None\], y\[None\]`"):
        evaluate(net, x[0], y[0], {"pgd": PGD_5})


def test_a_model_that_keeps_inference_tensors_is_told_what_to_do(x: Tensor) -> None:
    class Caching(nn.Module):
        scale: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = torch.ones(1, 1, 1, 1) * 3
            return (x * self.scale).flatten(1)[:, :4]

    model = Caching()
    with torch.inference_mode():
        y = model(x).argmax(1)
        with pytest.raises(RuntimeError, match=r"attack 'pgd': .*use `Trainer\(inference_mode=False\)`"):
            evaluate(model, x, y, {"pgd": PGD_5})


class InPlace(nn.Module):
    """Normalizes its input where it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.sub_(0.5).div_(0.25).flatten(1))


@pytest.mark.parametrize("attack", [RandomNoise(threat=LINF), PGD_5])
def test_a_model_that_changes_its_input_in_place_is_named(attack: Attack) -> None:
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with pytest.raises(
        ValueError, match=r"the model changes its input in place.*first at sample id 100.*`x = x - mean`"
    ):
        evaluate(InPlace(), x, torch.zeros(12, dtype=torch.int64), {"a": attack}, sample_ids=torch.arange(100, 112))
    assert torch.equal(x, before)


def test_a_first_layer_that_works_in_place_is_told_to_gradient_attacks(x: Tensor, y: Tensor) -> None:
    """On pixels a relu changes nothing, so that an attack without gradients is measured as ever."""
    torch.manual_seed(0)
    last = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 4))
    noise = {"noise": RandomNoise(threat=LINF)}
    in_place = nn.Sequential(nn.ReLU(inplace=True), last)
    assert torch.equal(evaluate(in_place, x, y, noise).robust["noise"], evaluate(last, x, y, noise).robust["noise"])
    with pytest.raises(RuntimeError, match=r"attack 'pgd': .*the model changes its input in place, as .*ReLU\(inplace"):
        evaluate(in_place, x, last(x).argmax(1), {"pgd": PGD_5})


# frozen_eval.


def test_frozen_eval_restores_module_by_module_even_after_an_error(net: nn.Module) -> None:
    net.train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    modes, needs = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]

    def run() -> None:
        with frozen_eval(net):
            assert not any(m.training for m in net.modules())
            assert not any(p.requires_grad for p in net.parameters())
            torch.rand(1)
            raise KeyError

    state = torch.get_rng_state()
    with pytest.raises(KeyError):
        run()
    assert modes == [m.training for m in net.modules()]
    assert needs == [p.requires_grad for p in net.parameters()]
    assert torch.equal(state, torch.get_rng_state())


def test_frozen_eval_restores_what_was_unfrozen_inside(net: nn.Module) -> None:
    net[0].weight.requires_grad_(False)
    with frozen_eval(net):
        net[0].weight.requires_grad_(True)
    assert not net[0].weight.requires_grad


def test_gradients_flow_inside_frozen_eval_under_inference_mode(net: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        made_there = x + 0
        with frozen_eval(net):
            inside = made_there.clone().requires_grad_()
            (grad,) = torch.autograd.grad(net(inside).sum(), inside)
    assert grad.abs().sum() > 0


def test_a_training_net_with_dropout_is_judged_as_in_evaluation(net: nn.Module, x: Tensor, y: Tensor) -> None:
    training = evaluate(net.train(), x, y, {"pgd": PGD_5}).robust["pgd"]
    assert net.training
    assert torch.equal(training, evaluate(net.eval(), x, y, {"pgd": PGD_5}).robust["pgd"])


SIGNS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError("no room"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
]


class Small(nn.Module):
    """A net on a device with room for a few samples, with gradients for fewer."""

    def __init__(self, room: int, error: Exception = SIGNS[0]) -> None:
        super().__init__()
        self.net, self.room, self.error = small_net(), room, error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room / (2 if x.requires_grad else 1):
            raise self.error
        return self.net(x)


@pytest.mark.parametrize("error", SIGNS, ids=lambda error: str(error)[-20:])
def test_a_batch_that_does_not_fit_is_halved_with_the_same_verdicts(error: Exception) -> None:
    x, pgd = images(40), PGD(threat=Linf(eps=0.05), num_steps=5)
    y = own_labels(small_net(), x)
    expected = evaluate(small_net(), x, y, {"pgd": pgd})
    with pytest.warns(UserWarning, match="fit into memory") as warned:
        report = evaluate(Small(10, error), x, y, {"pgd": pgd})
    assert torch.equal(report.robust["pgd"], expected.robust["pgd"])
    assert report.cost["pgd"].num_backwards == expected.cost["pgd"].num_backwards
    assert 0 < int(report.robust["pgd"].sum()) < 40
    assert [str(item.message) for item in warned] == [
        "a batch of 40 samples does not fit into memory: going on with 5 at a time, which changes no verdict"
    ]


def test_calls_that_share_a_halving_try_once_what_does_not_fit() -> None:
    x, halving, tried = images(40), Halving(40), list[int]()
    y, model = own_labels(small_net(), x), Small(10)
    model.register_forward_pre_hook(lambda _, args: tried.append(len(args[0])))
    for largest in (40, 5):
        evaluate(model, x, y, {"pgd": PGD(threat=Linf(eps=0.05), num_steps=2)}, batch_size=halving)
        assert max(tried) == largest
        tried.clear()
    with pytest.warns(UserWarning, match="a batch of 40 .* going on with 5 at a time"):
        halving.say()
    halving.say()  # nothing new


def test_two_logits_that_look_like_probabilities_by_chance_are_none() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[0.3, 0.7]]).expand(len(x), -1) + 0 * x.flatten(1)[:, :1]

    assert evaluate(Fixed(), images(1), torch.tensor([1]), {}).clean_correct.all()
    with pytest.raises(ValueError, match="returned probabilities"):
        evaluate(Fixed(), images(4), torch.ones(4, dtype=torch.int64), {})


def test_what_a_library_cannot_do_is_no_lack_of_memory() -> None:
    x, error = images(4), RuntimeError("could not create a primitive descriptor for a convolution forward propagation")
    with pytest.raises(RuntimeError, match="primitive descriptor"):  # and no warning of a smaller batch
        evaluate(Small(0, error), x, own_labels(small_net(), x), {})


def test_one_sample_that_does_not_fit_is_an_error() -> None:
    x = images(4)
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(Small(0), x, own_labels(small_net(), x), {})
