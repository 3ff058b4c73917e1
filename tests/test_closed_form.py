"""On a linear model the worst case has a closed form: attacks must reach it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from touchstone.attacks import FGSM, L2, PGD, Linf, Margin, Targeted, Untargeted, evaluate

from .oracles import LinearModel


def two_class_margin(model: LinearModel, x: Tensor, y: Tensor) -> np.ndarray:
    """The other logit minus the label's, by numpy."""
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    logits = x.flatten(1).numpy() @ weight.T + bias
    rows = np.arange(len(y))
    return logits[rows, 1 - y.numpy()] - logits[rows, y.numpy()]


def gradient(model: LinearModel, y: Tensor) -> np.ndarray:
    weight = model.linear.weight.detach().numpy()
    return weight[1 - y.numpy()] - weight[y.numpy()]


@pytest.fixture
def model() -> LinearModel:
    return LinearModel(num_classes=2)


@pytest.fixture
def x() -> Tensor:
    return 0.2 + 0.6 * torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def y(model: LinearModel, x: Tensor) -> Tensor:
    return model(x).argmax(1)


@pytest.mark.parametrize("objective", [Untargeted(), Untargeted(loss=Margin())])
@pytest.mark.parametrize("threat", [Linf(eps=0.04), L2(eps=0.15)])
@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_reaches_the_worst_case_inside_the_box(
    model: LinearModel, x: Tensor, y: Tensor, threat: Linf | L2, objective: Untargeted, kind: str
) -> None:
    attack = (
        FGSM(threat=threat, objective=objective)
        if kind == "fgsm"
        else PGD(threat=threat, objective=objective, num_steps=40, early_stop=False)
    )
    dual = np.abs(gradient(model, y)).sum(1) if isinstance(threat, Linf) else np.linalg.norm(gradient(model, y), axis=1)
    worst = two_class_margin(model, x, y) + float(threat.eps) * dual
    report = evaluate(model, x, y, {"a": attack}, keep_adversarial=True)
    assert np.array_equal(report.robust["a"].numpy(), worst < 0)
    standing = report.robust["a"].numpy()
    assert standing.any()
    assert not standing.all()
    got = two_class_margin(model, report.x_adv["a"], y)
    assert np.allclose(got[standing], worst[standing], atol=1e-5)


@pytest.mark.parametrize("threat", [Linf(eps=0.3), L2(eps=0.8)])
def test_pgd_reaches_the_worst_case_where_the_box_cuts_the_ball(threat: Linf | L2) -> None:
    """The worst case over ball and box together, found coordinate-wise (Linf) or by scipy (L2)."""
    from scipy.optimize import minimize

    model = LinearModel(num_classes=2, seed=3)
    with torch.no_grad():
        model.linear.bias.copy_(torch.tensor([30.0, -30.0]))  # nothing falls, so that every gain is climbed to its end
    x = torch.rand(6, 1, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = model(x).argmax(1)
    x_adv = PGD(threat=threat, num_steps=300, rel_step_size=0.05, objective=Untargeted(loss=Margin()))(model, x, y)
    for row in range(len(x)):
        start, slope = x[row].flatten().numpy(), gradient(model, y)[row]
        if isinstance(threat, Linf):
            best = np.where(slope > 0, np.minimum(start + 0.3, 1), np.maximum(start - 0.3, 0))
        else:
            ball = {"type": "ineq", "fun": lambda z, s=start: 0.64 - ((z - s) ** 2).sum()}
            best = minimize(lambda z, g=slope: -(g @ z), start, bounds=[(0, 1)] * 12, constraints=ball).x
        assert slope @ x_adv[row].flatten().numpy() == pytest.approx(slope @ best, abs=1e-4)


def test_targeted_reaches_only_reachable_targets_and_nearly_all_of_them() -> None:
    """With three classes and the margin of a class against each other one, reachability is a linear program."""
    from scipy.optimize import linprog

    model = LinearModel(num_classes=3, seed=5)
    x = torch.rand(30, 1, 3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y, eps, target = model(x).argmax(1), 0.15, 2
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    attack = PGD(
        threat=Linf(eps=eps), objective=Targeted(target=target, loss=Margin()), num_steps=200, rel_step_size=0.03
    )
    success = evaluate(model, x, y, {"a": attack}).success["a"].numpy()
    reachable = np.zeros(len(x), dtype=bool)
    for row in range(len(x)):
        if int(y[row]) == target:
            assert not success[row]
            continue
        start = x[row].flatten().numpy()
        others = [c for c in range(3) if c != target]
        # maximise t subject to (w_target - w_other) z + b >= t for all others, z in ball and box
        result = linprog(
            c=np.r_[np.zeros(12), -1],
            A_ub=np.array([np.r_[weight[c] - weight[target], 1] for c in others]),
            b_ub=np.array([bias[target] - bias[c] for c in others]),
            bounds=[(max(0, s - eps), min(1, s + eps)) for s in start] + [(None, None)],
        )
        reachable[row] = -result.fun > 0
    assert reachable.any()
    assert not (success & ~reachable).any()
    assert success.sum() >= 0.9 * reachable.sum()


def test_the_random_target_is_never_the_true_class_and_uses_the_others() -> None:
    from touchstone.attacks import SampleRng

    logits, y = torch.zeros(3000, 5), torch.arange(3000) % 5
    aimed = Targeted(target="random").aim(lambda: logits, y, SampleRng.numbered(3000))
    assert isinstance(aimed.target, Tensor)
    assert (aimed.target != y).all()
    shares = np.array([[((aimed.target == t) & (y == c)).float().mean() * 5 for t in range(5)] for c in range(5)])
    assert np.allclose(shares, (1 - np.eye(5)) / 4, atol=0.05)


def test_runner_up_and_least_likely_are_what_their_names_say() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    y = torch.tensor([0, 0])
    from touchstone.attacks import SampleRng

    rng = SampleRng.numbered(2)
    assert Targeted(target="runner_up").aim(lambda: logits, y, rng).target.tolist() == [1, 3]  # type: ignore[union-attr]
    assert Targeted(target="least_likely").aim(lambda: logits, y, rng).target.tolist() == [3, 1]  # type: ignore[union-attr]
