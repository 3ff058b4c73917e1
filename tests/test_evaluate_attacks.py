"""The judge and attacks that break their word: outside the threat, or with the model, the input or torch changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import Attack, Linf, RandomNoise, SampleRng, evaluate

from .judged import LINF, PGD_5, Custom
from .oracles import own_labels


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


def swap_layer(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model[2] = nn.Tanh()  # type: ignore[operator]
    return x


def swap_class(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model[2].__class__ = nn.Tanh  # type: ignore[index,union-attr]
    return x


def unfreeze(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model[5].weight.requires_grad_(True)  # type: ignore[index,union-attr]
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
        (swap_layer, r"'bad' changed the model: the module 2"),
        (swap_class, r"'bad' changed the model: the module 2"),
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


class Wide(Linf):
    """Projects anything into the box alone."""

    def start(self, x: Tensor, rng: SampleRng) -> Tensor:
        return self.project(x + 0.3, x)

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return self.clip(x_adv)


class Beside(Linf):
    """Begins outside."""

    def start(self, x: Tensor, rng: SampleRng) -> Tensor:
        return x + 0.3


@pytest.mark.parametrize(
    ("threat", "message"),
    [
        (Wide(eps=0.1), r"; `Wide.contains` refuses what `Wide.project` gives"),
        (Beside(eps=0.1), r"; `Beside.contains` refuses what `Beside.start` gives"),
    ],
)
def test_a_threat_that_contradicts_itself_is_named_and_not_the_attack(
    net: nn.Module, x: Tensor, y: Tensor, threat: Linf, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"'a' left its threat .*{message}$"):
        evaluate(net, x, own_labels(net, x), attacks={"a": RandomNoise(threat=threat)})


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


def test_a_perturb_that_changes_the_labels_is_named(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """It would climb away from a class that the sample does not have, and leave it standing."""

    class Relabelling(Attack):
        threat = LINF

        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: Any) -> Tensor:
            y += 1
            return PGD_5.perturb(model, x, y % 4, rng)

    with pytest.raises(ValueError, match=r"attack 'a': Relabelling.perturb changed its labels in place: .*y.clone\(\)"):
        evaluate(net, x, y, {"a": Relabelling()})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("set_default_dtype", torch.float64),
        ("set_default_device", "meta"),
        ("use_deterministic_algorithms", True),
        ("set_num_threads", 3),
    ],
)
def test_an_attack_that_changes_a_setting_of_torch_is_named_and_it_is_put_back(
    net: nn.Module, x: Tensor, y: Tensor, setting: str, value: Any
) -> None:
    def settings() -> tuple[object, ...]:
        deterministic = torch.are_deterministic_algorithms_enabled()
        return torch.get_default_dtype(), torch.get_default_device(), deterministic, torch.get_num_threads()

    def change(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        getattr(torch, setting)(value)
        return x.clone()

    before = settings()
    with pytest.raises(ValueError, match=f"attack 'a' changed a setting of the whole process by `torch.{setting}`"):
        evaluate(net, x, y, {"a": Custom(change)})
    assert settings() == before


def test_an_uncertain_attack_is_not_believed(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """An attack that returns the clean image has turned nothing, whatever it says of itself."""
    report = evaluate(net, x, y, {"lazy": Custom(lambda m, x, y: x)})
    assert report.robust["lazy"].all()
    assert not report.success["lazy"].any()
    assert report.cost["lazy"].num_forwards == 0
