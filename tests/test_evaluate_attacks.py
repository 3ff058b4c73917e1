"""The judge and attacks that break their word, fail, or are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    PGD,
    Attack,
    CrossEntropy,
    Linf,
    Margin,
    Objective,
    SampleRng,
    Targeted,
    Threat,
    Universal,
    Untargeted,
    evaluate,
)

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


@dataclass(frozen=True, eq=False)
class Widening(Attack):
    """Widens what it is measured by, and then goes by that."""

    widen: Callable[[Any], object]
    threat: Threat
    objective: Objective = Untargeted()

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        self.widen(self)
        return self.threat.project(x + 0.08, x)


@pytest.mark.parametrize(
    ("threat", "widen"),
    [
        (Linf(eps=torch.full((12,), 0.05)), lambda own: own.threat.eps.mul_(2)),
        (Linf(eps=torch.full((1,), 0.05)), lambda own: own.threat.eps.mul_(2)),
        (Linf(eps=0.1, mask=torch.arange(6).expand(1, 1, 6, 6) < 3), lambda own: own.threat.mask.fill_(True)),
        (Linf(eps=0.1, box=(0.3, 0.7)), lambda own: object.__setattr__(own.threat, "box", (0.0, 1.0))),
        (Linf(eps=0.05), lambda own: object.__setattr__(own, "threat", LINF)),
    ],
)
def test_an_attack_that_widens_its_threat_is_named(
    net: nn.Module, x: Tensor, y: Tensor, threat: Linf, widen: Callable[[Any], object]
) -> None:
    with pytest.raises(ValueError, match=r"attack 'a' changed its threat.*Linf\(eps=.*has become Linf\(eps="):
        evaluate(net, x.clamp(0.3, 0.7), y, {"a": Widening(widen, threat)})


class Counted(Linf):
    """Keeps something of its own, which is no part of what it allows."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        object.__setattr__(self, "num_calls", getattr(self, "num_calls", 0) + 1)
        return super().project(x_adv, x)


def test_a_threat_may_keep_what_is_none_of_its_fields(net: nn.Module, x: Tensor, y: Tensor) -> None:
    attack = PGD(threat=Counted(eps=0.05), num_steps=2)
    assert len(evaluate(net, x, y, {"a": attack}, batch_size=2, probe_masking=False).robust["a"]) == len(x)
    assert attack.threat.num_calls > 0  # type: ignore[attr-defined]


def test_an_attack_that_changes_its_objective_is_named(net: nn.Module, x: Tensor, y: Tensor) -> None:
    easier = Widening(lambda own: own.objective.target.copy_(y), LINF, Targeted(target=(y + 1) % 4))
    with pytest.raises(ValueError, match=r"attack 'a' changed its objective"):
        evaluate(net, x, y, {"a": easier})


class Plain(Objective):
    """One of a user's own that is no dataclass, and holds a tensor: no class but its own will do."""

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        return logits[:, int(self.target)]

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        return logits.argmax(1) == self.target


def test_an_objective_may_be_no_dataclass_and_is_watched_all_the_same(net: nn.Module, x: Tensor, y: Tensor) -> None:
    plain = Plain(torch.tensor(2))
    report = evaluate(net, x, y, {"a": PGD(threat=LINF, objective=plain)}, keep_adversarial=True)
    attacked = y == net.eval()(x).argmax(1)
    assert report.success["a"].any()
    assert torch.equal(report.success["a"], attacked & (net(report.x_adv["a"]).argmax(1) == 2))
    with pytest.raises(ValueError, match=r"attack 'a' changed its objective"):
        evaluate(net, x, y, {"a": Widening(lambda own: own.objective.target.fill_(1), LINF, plain)})


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


def test_an_uncertain_attack_is_not_believed(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """An attack that returns the clean image has turned nothing, whatever it says of itself."""
    report = evaluate(net, x, y, {"lazy": Custom(lambda m, x, y: x)})
    assert report.robust["lazy"].all()
    assert not report.success["lazy"].any()
    assert report.cost["lazy"].num_forwards == 0


def test_an_attack_called_by_hand_checks_its_labels(net: nn.Module, x: Tensor, y: Tensor) -> None:
    assert torch.equal(PGD_5(net, x, y.int()), PGD_5(net, x, y))
    for attack in (PGD_5, PGD(threat=LINF, objective=Untargeted(loss=Margin()))):
        with pytest.raises(ValueError, match="labels must be classes of the model, 0 to 3; sample 0 has the label"):
            attack(net, x, y + 4)


def test_an_attack_called_by_hand_checks_its_targets_and_negative_labels(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """torch's cross-entropy passes over -100, so that the gradient would be 0 and noise come back."""
    with pytest.raises(ValueError, match="labels must be classes of the model, 0 or more, got -100"):
        PGD_5(net, x, torch.full_like(y, -100))
    for loss in (CrossEntropy(), Margin()):
        beyond = PGD(threat=LINF, objective=Targeted(torch.full_like(y, 9), loss=loss))
        with pytest.raises(ValueError, match=r"Targeted\(target=9\): the model has 4 classes"):
            beyond(net, x, y)
    assert Targeted(np.int64(3)).target == 3


@pytest.mark.parametrize(
    ("rng", "message"),
    [
        (0, r"rng must be SampleRng\(seed, sample_ids\), such as SampleRng.numbered\(12, seed=0\), or None, got 0"),
        (torch.Generator(), r"rng must be SampleRng\(seed, sample_ids\)"),
        (SampleRng.numbered(5), "rng must have one id for each of 12 samples, got 5"),
    ],
)
def test_an_attack_called_by_hand_checks_its_noise(
    net: nn.Module, x: Tensor, y: Tensor, rng: Any, message: str
) -> None:
    for call in (PGD_5, Universal(threat=LINF).prepare):
        with pytest.raises(ValueError, match=message):
            call(net, x, y, rng=rng)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 2.5}, r"evaluate\(batch_size=...\) must be a whole number >= 1, got 2.5"),
        ({"batch_size": 0}, r"evaluate\(batch_size=...\) must be >= 1, got 0"),
        ({"batch_size": True}, r"evaluate\(batch_size=...\) must be a whole number >= 1, got True"),
        ({"keep_adversarial": "no"}, r"evaluate\(keep_adversarial=...\) must be True or False, got 'no'"),
        ({"check_8bit": "no"}, r"evaluate\(check_8bit=...\) must be True or False, got 'no'"),
        ({"probe_masking": 0}, r"evaluate\(probe_masking=...\) must be True or False, got 0"),
        ({"seed": 1.5}, r"evaluate\(seed=...\) must be a whole number, got 1.5"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(
    options: dict, message: str, net: nn.Module, x: Tensor, y: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(net, x, y, {"pgd": PGD_5}, **options)


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
