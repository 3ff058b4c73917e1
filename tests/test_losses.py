"""Losses against their formulas in numpy, and what too few classes say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks import (
    APGD,
    DLR,
    PGD,
    AnyOf,
    Attack,
    CrossEntropy,
    Linf,
    Loss,
    Margin,
    Objective,
    ProbabilityMargin,
    SampleRng,
    Square,
    Targeted,
    Threat,
    Towards,
    Untargeted,
    evaluate,
)
from touchstone.attacks.objectives.towards import towards_nearest

from .oracles import LinearModel, images, small_net


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum()


@pytest.fixture
def logits() -> Tensor:
    return 5 * torch.randn(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def label() -> Tensor:
    return torch.arange(200) % 6


def test_dlr_is_equation_6(logits: Tensor, label: Tensor) -> None:
    for z, y, got in zip(logits.numpy(), label.tolist(), DLR()(logits, label).tolist(), strict=True):
        ranked = np.sort(z)[::-1]
        assert got == pytest.approx(-(z[y] - np.delete(z, y).max()) / (ranked[0] - ranked[2]))


def test_dlr_towards_a_class_is_equation_7(logits: Tensor, label: Tensor) -> None:
    target = (label + 2) % 6
    got = DLR().towards(logits, label, target)
    for z, y, t, value in zip(logits.numpy(), label.tolist(), target.tolist(), got.tolist(), strict=True):
        ranked = np.sort(z)[::-1]
        assert value == pytest.approx(-(z[y] - z[t]) / (ranked[0] - (ranked[2] + ranked[3]) / 2))


def test_dlr_does_not_change_where_logits_are_scaled_or_shifted(logits: Tensor, label: Tensor) -> None:
    target = (label + 1) % 6
    assert torch.allclose(DLR()(logits, label), DLR()(100 * logits + 7, label))
    assert torch.allclose(DLR().towards(logits, label, target), DLR().towards(100 * logits + 7, label, target))


def test_dlr_is_finite_where_all_logits_are_equal() -> None:
    flat = torch.zeros(3, 5, requires_grad=True)
    DLR()(flat, torch.tensor([0, 1, 2])).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_the_probability_margin_is_that_of_the_softmax(logits: Tensor, label: Tensor) -> None:
    for z, y, got in zip(logits.numpy(), label.tolist(), ProbabilityMargin()(logits, label).tolist(), strict=True):
        p = softmax(z)
        assert got == pytest.approx(np.delete(p, y).max() - p[y])


@pytest.mark.parametrize("loss", [DLR(), Margin(), ProbabilityMargin()])
def test_a_margin_is_positive_exactly_where_another_class_wins(
    loss: DLR | Margin | ProbabilityMargin, logits: Tensor, label: Tensor
) -> None:
    assert torch.equal(loss(logits, label) > 0, logits.argmax(1) != label)


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (CrossEntropy(), lambda z: z[3] - np.log(np.exp(z).sum())),
        (Margin(), lambda z: z[3] - np.delete(z, 3).max()),
        (ProbabilityMargin(), lambda z: softmax(z)[3] - np.delete(softmax(z), 3).max()),
    ],
)
def test_the_way_towards_a_class_is_how_far_that_class_is_ahead(
    loss: Loss, formula: Callable[[np.ndarray], float], logits: Tensor, label: Tensor
) -> None:
    gain = Targeted(target=3, loss=loss).gain(logits, label)
    np.testing.assert_allclose(gain.numpy(), [formula(z) for z in logits.numpy()], atol=1e-12)


@pytest.mark.parametrize(
    ("objective", "num_classes", "message"),
    [
        (Untargeted(loss=DLR()), 2, r"DLR\(\) needs a model of 3 classes or more, this one has 2"),
        (Targeted(target=1, loss=DLR()), 3, r"DLR\(\) towards a class needs a model of 4 classes or more"),
        (AnyOf([1, 5]), 4, r"AnyOf\(targets=\(1, 5\)\): the model has 4 classes, 0 to 3"),
        (Towards(target="runner_up", loss=DLR()), 3, r"towards a class needs a model of 4"),
    ],
)
def test_too_few_classes_are_an_error(objective: Untargeted | Targeted | AnyOf, num_classes: int, message: str) -> None:
    net, x = LinearModel(num_features=36, num_classes=num_classes), images(4, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        evaluate(net, x, net(x).argmax(1), {"a": APGD(threat=Linf(eps=0.1), objective=objective)})


@pytest.mark.parametrize("num_classes", [2, 3])
def test_towards_several_classes_it_is_said_at_once_how_many_there_must_be(num_classes: int) -> None:
    net, x = LinearModel(num_features=36, num_classes=num_classes), images(4, dtype=torch.float64)
    attack = APGD(threat=Linf(eps=0.1), objective=Untargeted(loss=DLR()), num_targets=3)
    with pytest.raises(ValueError, match=f"towards a class needs a model of 4 classes or more, .* has {num_classes};"):
        evaluate(net, x, net(x).argmax(1), {"a": attack})


def test_towards_counts_any_wrong_class() -> None:
    logits = torch.tensor([[9.0, 1, 2, 3], [1, 9, 2, 3], [1, 2, 9, 3], [1, 2, 3, 9], [1, 2, 3, 9]])
    label = torch.tensor([0, 0, 0, 0, 3])
    aimed = Towards(target=3).aim(lambda: logits, label, SampleRng.numbered(5))
    assert aimed.reached(logits, label).tolist() == [False, True, True, True, False]


def test_any_of_several_classes_is_the_easiest_of_the_others(logits: Tensor, label: Tensor) -> None:
    objective = AnyOf([4, 1, 3], loss=Margin())
    for z, y, gain, reached in zip(
        logits.numpy(), label.tolist(), objective.gain(logits, label), objective.reached(logits, label), strict=True
    ):
        wanted = [t for t in (1, 3, 4) if t != y]
        assert float(gain) == pytest.approx(max(z[t] - np.delete(z, t).max() for t in wanted))
        assert bool(reached) is (z.argmax() in wanted)


def test_several_classes_may_be_numbers_of_numpy(logits: Tensor, label: Tensor) -> None:
    of_numpy, plain = AnyOf(list(np.array([4, 1, 3]))), AnyOf([4, 1, 3])
    assert of_numpy.targets == plain.targets
    assert all(type(target) is int for target in of_numpy.targets)
    assert torch.equal(of_numpy.gain(logits, label), plain.gain(logits, label))


@pytest.mark.parametrize("targets", [[], [3], [3, 3], [1, -1], [1, 2.5], [True, 2], 3, "12", np.array([1, 2])])
def test_several_classes_are_a_list_of_two_or_more(targets: Any) -> None:
    with pytest.raises(ValueError, match=r"AnyOf\(targets=...\) must be a list of two or more different classes"):
        AnyOf(targets)


def test_the_nearest_classes_are_those_with_the_largest_other_logits(logits: Tensor, label: Tensor) -> None:
    parts = towards_nearest(Untargeted(), 9, torch.nn.Identity(), logits, label)
    assert len(parts) == 5
    for row, (z, y) in enumerate(zip(logits.numpy(), label.tolist(), strict=True)):
        assert [int(part.target[row]) for part in parts] == [c for c in np.argsort(-z) if c != y]  # type: ignore[attr-defined]


class Mean(Loss):
    """The mean over the batch, as torch's losses give it by themselves."""

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(logits, label)


class Whole(Loss):
    """One for each class."""

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return -logits.log_softmax(1)

    def towards(self, logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
        return logits.argmax(1)


class AnyWrong(Untargeted):
    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        return (logits.argmax(1) != y).any()


class Counted(Untargeted):
    def correct(self, logits: Tensor, y: Tensor) -> Tensor:
        return (logits.argmax(1) == y).long()


class Numbered(Untargeted):
    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        return 1.5  # type: ignore[return-value]


@dataclass(frozen=True)
class ByHand(Attack):
    """Asks its objective itself, as the README's attack does."""

    threat: Threat
    objective: Objective

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        self.objective.gain(model(x), y)
        return x


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Untargeted(loss=Mean()), r"Mean\(\) must .*, float \(12,\), got float \(\); for torch's .* reduction='none'"),
        (Targeted(target=1, loss=Mean()), r"Mean\(\) must give one value per sample, float \(12,\), got float \(\)"),
        (AnyOf([1, 2], loss=Mean()), r"Mean\(\) must give one value per sample, float \(12,\), got float \(\)"),
        (Untargeted(loss=Whole()), r"Whole\(\) must give one value per sample, float \(12,\), got float \(12, 4\)$"),
        (Targeted(target=1, loss=Whole()), r"Whole\.towards must give .*, float \(12,\), got int64 \(12,\)$"),
        (AnyWrong(), r"AnyWrong\.reached must give one value per sample, bool \(12,\), got bool \(\)$"),
        (Counted(), r"Counted\.correct must give one value per sample, bool \(12,\), got int64 \(12,\)$"),
        (Numbered(), r"Numbered\.gain must give one value per sample, float \(12,\), got a float$"),
    ],
)
@pytest.mark.parametrize(
    "attack",
    [partial(PGD, num_steps=2), partial(Square, num_queries=5), ByHand],
    ids=["pgd", "square", "by hand"],
)
def test_a_loss_or_objective_of_another_shape_is_named_by_every_attack_that_asks_it(
    objective: Objective, message: str, attack: Callable[..., Attack]
) -> None:
    net, x = small_net().eval(), images(12)
    with pytest.raises(ValueError, match=f"^attack 'a': {message}"):
        evaluate(net, x, net(x).argmax(1), {"a": attack(threat=Linf(eps=0.1), objective=objective)}, batch_size=16)


def test_the_arguments_of_a_loss_may_be_named() -> None:
    logits, label = torch.randn(5, 3), torch.zeros(5, dtype=torch.int64)
    assert torch.equal(Margin()(label=label, logits=logits), Margin()(logits, label))
    with pytest.raises(ValueError, match=r"Mean\(\) must give one value per sample, float \(5,\), got float \(\)"):
        Mean()(label=label, logits=logits)


def test_methods_of_a_loss_or_objective_may_be_static_or_of_the_class() -> None:
    class Static(Loss):
        @staticmethod
        def __call__(logits: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(logits, y, reduction="none")

        @classmethod
        def towards(cls, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
            return -F.cross_entropy(logits, target, reduction="none")

    logits, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(Static()(logits, y), CrossEntropy()(logits, y))
    torch.testing.assert_close(Static().towards(logits, y, y), -CrossEntropy()(logits, y))


@pytest.mark.parametrize(
    ("objective", "reached"),
    [(Untargeted(), True), (Towards(target=1), True), (Targeted(target=1), False), (AnyOf([1, 2]), False)],
    ids=repr,
)
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_where_a_logit_is_nan_no_class_is_answered(objective: Objective, reached: bool, broken: int) -> None:
    logits, label = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, -torch.inf]]), torch.tensor([0, 0])
    logits[0, broken] = torch.nan
    assert objective.reached(logits, label).tolist() == [reached, True]
    assert objective.correct(logits, torch.full_like(label, broken))[0].item() is False
