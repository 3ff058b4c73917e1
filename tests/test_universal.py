"""`Universal`: one perturbation for all samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from touchstone.attacks import L2, Attack, Linf, Margin, RandomNoise, Targeted, Universal, Untargeted, evaluate

from .oracles import LinearModel, images, own_labels, small_net


def perturbation_of(attack: Attack) -> Tensor:
    assert isinstance(attack, Universal)
    assert attack.perturbation is not None
    return attack.perturbation


def skewed(model: LinearModel, num_of_0: int, num_of_1: int) -> tuple[Tensor, Tensor]:
    """Samples around grey, so many of each class, on which the model is right."""
    x = 0.3 + 0.4 * images(400, shape=(12,), dtype=torch.float64)
    y = own_labels(model, x)
    rows = torch.cat([(y == 0).nonzero()[:num_of_0, 0], (y == 1).nonzero()[:num_of_1, 0]])
    assert len(rows) == num_of_0 + num_of_1
    return x[rows], y[rows]


@pytest.mark.parametrize("loss", [None, Margin()])
@pytest.mark.parametrize(("num_of_0", "num_of_1"), [(40, 10), (10, 40)])
def test_on_a_linear_model_of_two_classes_it_is_eps_times_the_sign_of_the_weights(
    num_of_0: int, num_of_1: int, loss: Any
) -> None:
    model = LinearModel(12, 2).centred()
    x, y = skewed(model, num_of_0, num_of_1)
    objective = Untargeted() if loss is None else Untargeted(loss=loss)
    attack = Universal(threat=Linf(eps=0.05), objective=objective, num_epochs=10, batch_size=20)
    found = perturbation_of(attack.prepare(model, x, y)).numpy()[0]

    # The mean loss depends on the perturbation by w @ perturbation alone, and is convex: one of the two ends is best.
    weight = np.subtract(*model.linear.weight.detach().numpy()[::-1])
    bias = float(np.subtract(*model.linear.bias.detach().numpy()[::-1]))

    def mean_loss(added: np.ndarray) -> float:
        margin = (x.numpy() + added) @ weight + bias  # of class 1
        signed = np.where(y.numpy() == 1, margin, -margin)
        return float(np.log1p(np.exp(-signed)).mean()) if loss is None else float(-signed.mean())

    ends = [0.05 * np.sign(weight), -0.05 * np.sign(weight)]
    assert found == pytest.approx(max(ends, key=mean_loss), abs=1e-12)


def test_inside_l2_it_lies_along_the_weights() -> None:
    model = LinearModel(12, 2).centred()
    x, y = skewed(model, 30, 0)
    found = perturbation_of(Universal(threat=L2(eps=0.1)).prepare(model, x, y))[0]
    weight = (model.linear.weight[1] - model.linear.weight[0]).detach()
    assert torch.allclose(found, 0.1 * weight / weight.norm(), atol=1e-9)


def test_a_targeted_one_leads_to_the_target() -> None:
    model = LinearModel(12, 3).centred()
    x = 0.3 + 0.4 * images(100, shape=(12,), dtype=torch.float64)
    attack = Universal(threat=Linf(eps=0.3), objective=Targeted(target=2, loss=Margin()))
    report = evaluate(
        model, x[:40], own_labels(model, x)[:40], {"a": attack}, prepare_on=(x[40:], own_labels(model, x)[40:])
    )
    may_fall = report.clean_correct & (report.label != 2)
    assert report.success["a"].sum() > 0.8 * may_fall.sum()


def test_every_sample_gets_the_same_cut_to_its_own_threat_and_box() -> None:
    net, x, others = small_net(), images(20), images(60, seed=5)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0.0, 1.0
    eps = torch.linspace(0.05, 0.1, 20)
    attack = Universal(threat=Linf(eps=eps)).prepare(net, others, own_labels(net, others))
    added = perturbation_of(attack)
    assert float(added.abs().max()) == pytest.approx(0.1)
    expected = np.clip(
        x.numpy() + np.clip(added.numpy(), -eps.numpy()[:, None, None, None], eps.numpy()[:, None, None, None]), 0, 1
    )
    assert attack(net, x, own_labels(net, x)).numpy() == pytest.approx(expected, abs=1e-6)


def test_pixels_outside_the_mask_stay() -> None:
    net, x = small_net(), images(20)
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    mask[..., :3, :] = True
    attack = Universal(threat=Linf(eps=0.2, mask=mask)).prepare(
        net, images(60, seed=5), own_labels(net, images(60, seed=5))
    )
    added = perturbation_of(attack)
    assert bool((added[~mask] == 0).all())
    assert bool((added[mask] != 0).any())
    assert torch.equal(attack(net, x, own_labels(net, x))[..., 3:, :], x[..., 3:, :])


def test_it_turns_samples_that_it_has_not_seen() -> None:
    net, x, others = small_net(), images(200), images(200, seed=5)
    suite = {"universal": Universal(threat=Linf(eps=0.1)), "noise": RandomNoise(threat=Linf(eps=0.1))}
    report = evaluate(net, x, own_labels(net, x), suite, prepare_on=(others, own_labels(net, others)))
    assert report.success["universal"].sum() > 2 * report.success["noise"].sum() > 0
    assert report.cost["universal"].num_backwards == 5 * 200


def test_a_known_perturbation_is_added_without_learning() -> None:
    net, x = small_net(), images(5)
    attack = Universal(threat=Linf(eps=0.01), perturbation=torch.full((1, 1, 6, 6), 0.5))
    assert not attack.needs_samples
    assert torch.allclose(attack(net, x, own_labels(net, x)), x + 0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 0}, r"Universal\(num_epochs=...\) must be >= 1, got 0"),
        ({"batch_size": 0}, r"Universal\(batch_size=...\) must be >= 1, got 0"),
        ({"perturbation": torch.zeros(2, 1, 6, 6)}, r"must be one for all samples, `\(1, ...\)`, got \(2, 1, 6, 6\)"),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Universal(threat=Linf(eps=0.1), **options)


def test_one_target_per_sample_has_no_one_perturbation() -> None:
    net, x = small_net(), images(5)
    attack = Universal(threat=Linf(eps=0.1), objective=Targeted(target=torch.arange(4)))
    with pytest.raises(ValueError, match=r"Targeted\(target=...\) must hold one row per sample"):
        attack.prepare(net, x, own_labels(net, x))
