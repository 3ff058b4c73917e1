"""`smallest_eps`: the bisected distance against the closed form, and the curve against evaluations one by one."""

from __future__ import annotations

import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from touchstone.attacks import (
    L0,
    L2,
    PGD,
    Attack,
    DeepFool,
    InBfloat16,
    Linf,
    Margin,
    Transfer,
    Universal,
    Untargeted,
    WarmStarted,
    evaluate,
    robustness_curve,
    smallest_eps,
)

from .oracles import LinearModel, images, own_labels, small_net


@pytest.fixture
def model() -> LinearModel:
    return LinearModel(num_classes=2, seed=2)


@pytest.fixture
def x() -> Tensor:
    return 0.3 + 0.4 * torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_images_that_need_a_gradient_are_bisected_without_a_warning(model: LinearModel, x: Tensor) -> None:
    y, attack = model(x).argmax(1), PGD(threat=Linf(eps=0.1), num_steps=2)
    expected = smallest_eps(model, x, y, attack, largest=0.15, num_rounds=3)
    found = smallest_eps(model, x.clone().requires_grad_(), y, attack, largest=0.15, num_rounds=3)
    assert torch.equal(found, expected)
    assert not found.requires_grad


@pytest.mark.parametrize(("threat", "largest", "dual"), [(Linf(eps=0.1), 0.15, 1), (L2(eps=0.1), 0.4, 2)])
def test_is_the_closed_form_within_the_resolution(
    model: LinearModel, x: Tensor, threat: Linf | L2, largest: float, dual: int
) -> None:
    y = model(x).argmax(1)
    y[:3] = 1 - y[:3]  # wrong before any attack
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    logits = x.flatten(1).numpy() @ weight.T + bias
    exact = np.abs(logits[:, 0] - logits[:, 1]) / np.linalg.norm(weight[0] - weight[1], ord=dual)
    exact[:3] = 0
    attack = PGD(threat=threat, num_steps=30, random_start=False)
    got = smallest_eps(model, x, y, attack, largest=largest, num_rounds=12).numpy()
    stands = exact > largest
    assert 5 < stands.sum() < 30
    assert np.array_equal(np.isinf(got), stands)
    assert (got[:3] == 0).all()
    assert (got >= exact - 1e-9)[~stands].all()
    assert (got <= exact + largest / 2**11 + 1e-6)[~stands].all()


def test_counts_the_pixels_that_a_linear_model_needs(model: LinearModel, x: Tensor) -> None:
    with torch.no_grad():
        model.linear.weight *= 0.5
    y = model(x).argmax(1)
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    logits, at = x.flatten(1).numpy() @ weight.T + bias, x.flatten(1).numpy()
    rows, own = np.arange(40), y.numpy()
    slope = weight[1 - own] - weight[own]
    worth = np.where(slope > 0, slope * (1 - at), -slope * at)
    margin = logits[rows, 1 - own] - logits[rows, own]
    needed = [
        next(k for k in range(1, 13) if max(sum(w[list(c)]) for c in combinations(range(12), k)) + m > 0)
        for w, m in zip(worth, margin, strict=True)
    ]
    attack = PGD(threat=L0(eps=1), num_steps=40, objective=Untargeted(loss=Margin()))
    got = smallest_eps(model, x, y, attack, largest=12).numpy()
    assert len(set(needed)) > 1
    assert (got >= needed).all()
    assert (got == needed).mean() >= 0.9


@pytest.mark.parametrize("attack", [PGD(threat=Linf(eps=1), num_steps=5), DeepFool(threat=L2(eps=1))])
def test_is_monotone_in_rounds_and_independent_of_the_batch(attack: PGD | DeepFool) -> None:
    net, x = small_net(dtype=torch.float64), images(30, dtype=torch.float64)
    y, ids = own_labels(net, x), torch.arange(50, 80)
    y[0] = (y[0] + 1) % 4
    found = [
        smallest_eps(net, x, y, attack, largest=0.5, num_rounds=rounds, sample_ids=ids, seed=3) for rounds in (1, 3, 8)
    ]
    assert found[2].dtype == torch.float64
    assert (found[1] <= found[0]).all()
    assert (found[2] <= found[1]).all()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    shuffled = smallest_eps(
        net, x[order], y[order], attack, largest=0.5, num_rounds=8, sample_ids=ids[order], seed=3, batch_size=7
    )
    assert torch.allclose(shuffled, found[2][order], atol=1e-9)


def test_every_value_is_an_eps_at_which_the_sample_falls() -> None:
    net, x = small_net().eval(), images(40)
    y = own_labels(net, x)
    attack = PGD(threat=Linf(eps=1), num_steps=10)
    found = smallest_eps(net, x, y, attack, largest="0.1", num_rounds=6)
    fell = found.isfinite()
    assert fell.any()
    assert not fell.all()
    wider = PGD(threat=Linf(eps=found[fell] * 1.001), num_steps=50, objective=Untargeted(loss=Margin()))
    assert evaluate(net, x[fell], y[fell], {"a": wider}).success["a"].float().mean() > 0.9


def test_nothing_is_asked_but_what_decides() -> None:
    """Before the attack, at each of its steps, and again; signs of masking, which nobody would read, cost nothing."""
    net, x, num_forwards = small_net().eval(), images(40), 0

    def count(module: torch.nn.Module, args: tuple[Tensor]) -> None:
        nonlocal num_forwards
        num_forwards += len(args[0])

    y = own_labels(net, x)
    net.register_forward_pre_hook(count)
    smallest_eps(net, x, y, PGD(threat=Linf(eps=1), num_steps=4, early_stop=False), largest=0.1, num_rounds=1)
    assert num_forwards == (1 + 4 + 1) * 40


def test_the_curve_is_the_accuracy_at_each_eps(model: LinearModel, x: Tensor) -> None:
    y = model(x).argmax(1)
    y[:3] = 1 - y[:3]
    found = smallest_eps(model, x, y, PGD(threat=Linf(eps=1), num_steps=30), largest=0.2)
    values = torch.tensor([0, 0.013, 0.051, 0.122, 0.2])
    curve = robustness_curve(found, values)
    each = {str(i): PGD(threat=Linf(eps=float(eps)), num_steps=30) for i, eps in enumerate(values[1:])}
    report = evaluate(model, x, y, each)
    expected = [report.clean_correct, *report.robust.values()]
    assert np.allclose(curve.numpy(), [float(verdict.double().mean()) for verdict in expected])
    assert curve[0] == 37 / 40
    assert (curve.diff() <= 0).all()


def test_an_eps_in_float32_is_that_eps_on_the_curve() -> None:
    """0.7 in float32 lies below 0.7 in float64, at which these samples have fallen."""
    fell_at = torch.full((5,), 0.7, dtype=torch.float64)
    assert robustness_curve(fell_at, torch.tensor([0.69, 0.7])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("wrap", ["transfer", "bfloat16", "warm"])
def test_an_attack_that_runs_another_one_has_distances_too(wrap: str, model: LinearModel, x: Tensor) -> None:
    pgd = PGD(threat=Linf(eps=1), num_steps=10, random_start=False)
    wrapped: Attack = {
        "transfer": Transfer(attack=pgd, source=copy.deepcopy(model)),
        "bfloat16": InBfloat16(attack=pgd),
        "warm": WarmStarted(attack=pgd, perturbation=torch.zeros_like(x)),
    }[wrap]
    y = model(x).argmax(1)
    expected = smallest_eps(model, x, y, pgd, largest=0.2, num_rounds=3)
    assert torch.allclose(smallest_eps(model, x, y, wrapped, largest=0.2, num_rounds=3), expected, rtol=0.05)


def test_an_empty_batch_has_no_distances(model: LinearModel, x: Tensor) -> None:
    y = model(x).argmax(1)
    assert smallest_eps(model, x[:0], y[:0], PGD(threat=Linf(eps=1)), largest=0.1).shape == (0,)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"largest": "much"}, r"smallest_eps\(largest=...\) must be a number such as"),
        ({"largest": 0}, r"Linf\(eps=...\) must be > 0"),
        ({"largest": 16}, r"smallest_eps\(largest=...\) must be <= 1, .*did you mean 16/255"),
        ({"largest": 0.1, "num_rounds": 0}, r"smallest_eps\(num_rounds=...\) must be >= 1, got 0"),
        ({"largest": 0.1, "num_rounds": 2.5}, r"smallest_eps\(num_rounds=...\) must be a whole number >= 1, got 2.5"),
        ({"largest": 0.1, "num_rounds": True}, r"smallest_eps\(num_rounds=...\) must be a whole number >= 1, got True"),
        (
            {"largest": 0.1, "attack": Universal(threat=Linf(eps=0.1))},
            r"smallest_eps\(attack=...\): Universal learns from samples.* give the attack that its `.prepare",
        ),
        ({"largest": 0.1, "x": np.zeros((4, 12))}, "images must be a tensor, got ndarray"),
        ({"largest": 0.1, "attack": "pgd"}, r"smallest_eps\(attack=...\) must be an attack in a ball"),
    ],
)
def test_what_cannot_be_is_an_error(model: LinearModel, x: Tensor, options: dict, said: str) -> None:
    given = {"x": x, "y": model(x).argmax(1), "attack": PGD(threat=Linf(eps=0.1)), **options}
    with pytest.raises(ValueError, match=said):
        smallest_eps(model, **given)
