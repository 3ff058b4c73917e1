"""`FAB` and its projections against solvers: on a linear model the nearest adversarial point is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from touchstone.attacks import FAB, L1, L2, Linf, Margin, SampleRng, Targeted, Towards, Untargeted, evaluate
from touchstone.attacks.parts.hyperplane import to_hyperplane
from touchstone.attacks.threats.ball import Ball

from .oracles import LinearModel, images

NORMS = [1, 2, float("inf")]


def shortest(x: np.ndarray, gap: float, slope: np.ndarray, p: float) -> float | None:
    """The length of the shortest move onto the hyperplane inside [0, 1], by a general solver; None: there is none."""
    size, bounds = len(x), list(zip(-x, 1 - x, strict=True))
    at_corners = np.stack([slope * -x, slope * (1 - x)])
    if not gap + at_corners.min(0).sum() <= 0 <= gap + at_corners.max(0).sum():
        return None
    if p == 2:
        plane = {"type": "eq", "fun": lambda m: gap + slope @ m, "jac": lambda m: slope}
        found = minimize(
            lambda m: m @ m, np.zeros(size), jac=lambda m: 2 * m, bounds=bounds, constraints=plane, method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 1000},
        )  # fmt: skip
        return float(np.linalg.norm(found.x))
    # Variables m and t with |m_i| <= t_i; minimise the sum of t, or a t for all.
    eye = np.eye(size)
    t = -eye if p == 1 else -np.ones((size, 1))
    num_t = t.shape[1]
    found = linprog(
        c=np.r_[np.zeros(size), np.ones(num_t)],
        A_ub=np.block([[eye, t], [-eye, t]]),
        b_ub=np.zeros(2 * size),
        A_eq=np.r_[slope, np.zeros(num_t)][None],
        b_eq=[-gap],
        bounds=bounds + [(0, None)] * num_t,
    )
    return float(found.fun)


@st.composite
def planes(draw: st.DrawFn) -> tuple[np.ndarray, float, np.ndarray]:
    size = draw(st.integers(1, 6))
    x = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=size, max_size=size))
    slope = draw(st.lists(st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.5, 1.0, 1.7]), min_size=size, max_size=size))
    return np.array(x), draw(st.floats(-3, 3).filter(lambda gap: abs(gap) > 1e-3)), np.array(slope)


@given(planes(), st.sampled_from(NORMS))
@settings(deadline=None, max_examples=300)
def test_the_move_to_a_hyperplane_is_the_shortest_in_the_box(
    plane: tuple[np.ndarray, float, np.ndarray], p: float
) -> None:
    x, gap, slope = plane
    got = to_hyperplane(
        torch.tensor(x)[None], torch.tensor([gap], dtype=torch.float64), torch.tensor(slope)[None], p=p, box=(0, 1)
    )
    move = got[0].numpy()
    assert (x + move >= -1e-12).all()
    assert (x + move <= 1 + 1e-12).all()
    length = shortest(x, gap, slope, p)
    if length is None:  # as far as the box allows
        toward = -np.sign(gap) * slope
        assert np.allclose(move, np.where(toward > 0, 1 - x, np.where(toward < 0, -x, 0)))
    else:
        assert gap + slope @ move == pytest.approx(0, abs=1e-9)
        assert np.linalg.norm(move, p) == pytest.approx(length, abs=2e-6)


@pytest.mark.parametrize("p", NORMS)
def test_without_a_box_the_move_has_the_length_of_the_dual_norm(p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, slope = (torch.randn(20, 1, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    slope[:, :, 0] = 0
    gap = torch.randn(20, generator=generator, dtype=torch.float64)
    move = to_hyperplane(x, gap, slope, p=p, box=None).flatten(1).numpy()
    dual = {1: np.inf, 2: 2, np.inf: 1}[p]
    expected = np.abs(gap.numpy()) / np.linalg.norm(slope.flatten(1).numpy(), dual, axis=1)
    assert np.allclose(np.linalg.norm(move, p, axis=1), expected)
    assert np.allclose(gap.numpy() + (slope.flatten(1).numpy() * move).sum(1), 0)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_move_does_not_depend_on_the_scale_of_the_function_in_float32(p: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, slope, gap = torch.rand(20, 12, generator=generator), torch.randn(20, 12, generator=generator), torch.ones(20)
    expected = to_hyperplane(x, gap, slope, p=p, box=(0, 1))
    assert (expected != 0).any(1).all()
    assert torch.allclose(to_hyperplane(x, scale * gap, scale * slope, p=p, box=(0, 1)), expected, atol=1e-5)


def test_where_nothing_slopes_nothing_moves() -> None:
    x = torch.full((2, 3), 0.5)
    for p in NORMS:
        assert (to_hyperplane(x, torch.tensor([1.0, -1.0]), torch.zeros(2, 3), p=p, box=(0, 1)) == 0).all()


def minimal_distances(model: LinearModel, x: Tensor, y: Tensor, p: float) -> np.ndarray:
    """To the nearest boundary of each sample's class inside the box."""
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    distances = []
    for pixels, own in zip(x.flatten(1).numpy(), y.tolist(), strict=True):
        others = [c for c in range(len(bias)) if c != own]
        gaps = [(weight[c] - weight[own]) @ pixels + bias[c] - bias[own] for c in others]
        lengths = [shortest(pixels, g, weight[c] - weight[own], p) for g, c in zip(gaps, others, strict=True)]
        distances.append(min(np.inf if length is None else length for length in lengths))
    return np.array(distances)


def found_distances(attack: FAB, model: LinearModel, x: Tensor, y: Tensor) -> np.ndarray:
    report = evaluate(model, x, y, {"a": attack}, keep_adversarial=True)
    assert report.success["a"].all()
    return attack.threat.distance(report.x_adv["a"], x).numpy()


# One step arrives, beyond the boundary by a millionth.
AT_ONCE = {"num_steps": 3, "early_stop": False, "eta": 1 + 1e-6}


@pytest.mark.parametrize("threat", [Linf(eps=1), L2(eps=4), L1(eps=12)], ids=["linf", "l2", "l1"])
@pytest.mark.parametrize("num_targets", [0, 9])
def test_fab_finds_the_minimal_distance_on_a_linear_model(threat: Ball, num_targets: int) -> None:
    model = LinearModel(num_classes=2)
    x = torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = model(x).argmax(1)
    found = found_distances(FAB(threat=threat, num_targets=num_targets, **AT_ONCE), model, x, y)
    assert np.allclose(found, minimal_distances(model, x, y, threat.p), rtol=1e-5)


@pytest.mark.parametrize("threat", [Linf(eps=1), L2(eps=4), L1(eps=12)], ids=["linf", "l2", "l1"])
@pytest.mark.parametrize("objective", [Untargeted(), Targeted(target=1)], ids=["untargeted", "targeted"])
def test_inside_a_mask_fab_finds_the_minimal_distance_of_the_free_pixels(
    threat: Ball, objective: Untargeted | Targeted
) -> None:
    """Of the samples that they can turn; the steepest pixels lie outside the mask."""
    model, free = LinearModel(num_classes=2), torch.arange(12) % 2 == 0
    with torch.no_grad():
        model.linear.weight[:, ~free] *= 10
        model.linear.bias.zero_()
    x = torch.rand(400, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight, pixels = (model.linear.weight[1] - model.linear.weight[0]).detach().numpy(), x.flatten(1).numpy()
    gaps = pixels @ weight
    right = [row for row, gap in enumerate(gaps) if gap < 0]
    mine = free.numpy()
    wanted = {row: shortest(pixels[row][mine], gaps[row], weight[mine], threat.p) for row in right}
    rows = [row for row, length in wanted.items() if length is not None]
    assert len(rows) > 40
    masked = replace(threat, mask=free.reshape(1, 1, 3, 4))  # type: ignore[type-var]
    y = torch.zeros(len(rows), dtype=torch.int64)
    found = found_distances(FAB(threat=masked, objective=objective, **AT_ONCE), model, x[rows], y)
    assert np.allclose(found, [wanted[row] for row in rows], rtol=1e-5)


@pytest.mark.parametrize("threat", [Linf(eps=9, box=None), L2(eps=9, box=None), L1(eps=99, box=None)])
def test_fab_finds_the_nearest_of_several_boundaries(threat: Ball) -> None:
    """Without a box, where the nearest boundary is the one with the smallest gap over the dual norm of its slope."""
    model = LinearModel(num_classes=5)
    x = torch.rand(60, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = model(x).argmax(1)
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    dual = {1: np.inf, 2: 2, np.inf: 1}[threat.p]
    minimal = [
        min(
            abs((weight[c] - weight[own]) @ pixels + bias[c] - bias[own])
            / np.linalg.norm(weight[c] - weight[own], dual)
            for c in range(5)
            if c != own
        )
        for pixels, own in zip(x.flatten(1).numpy(), y.tolist(), strict=True)
    ]
    assert np.allclose(found_distances(FAB(threat=threat, **AT_ONCE), model, x, y), minimal, rtol=1e-5)


@pytest.mark.parametrize("threat", [Linf(eps=0.05), L2(eps=0.15), L1(eps=0.4)], ids=["linf", "l2", "l1"])
@pytest.mark.parametrize("num_targets", [0, 2])
def test_fab_turns_exactly_the_samples_whose_boundary_is_inside_the_threat(threat: Ball, num_targets: int) -> None:
    model = LinearModel(num_classes=3)
    x = torch.rand(80, 1, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = model(x).argmax(1)
    distances = minimal_distances(model, x, y, threat.p)
    success = evaluate(model, x, y, {"a": FAB(threat=threat, num_steps=20, num_targets=num_targets)}).success["a"]
    sure = np.abs(distances / float(threat.eps) - 1) > 0.02  # type: ignore[arg-type]  # steps overshoot by eta
    assert (success.numpy() == (distances < float(threat.eps)))[sure].all()  # type: ignore[arg-type]
    assert success.any()
    assert not success.all()


def test_fab_towards_a_class_finds_the_distance_of_its_boundary() -> None:
    """With two classes a targeted attack is the untargeted one."""
    model = LinearModel(num_classes=2)
    x = torch.rand(30, 1, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = x[model(x).argmax(1) == 0]
    y = torch.zeros(len(x), dtype=torch.int64)
    found = found_distances(FAB(threat=L2(eps=4), objective=Targeted(target=1), **AT_ONCE), model, x, y)
    assert np.allclose(found, minimal_distances(model, x, y, 2), rtol=1e-5)


def test_towards_a_class_a_third_one_does_not_lead_astray() -> None:
    """From anywhere, to the nearest point of the boundary between the two classes, though it may lie in a third."""
    model = LinearModel(num_classes=3)
    x = torch.rand(60, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    own, target = (model(x).topk(3, dim=1).indices[:, rank] for rank in (0, 2))
    attack = FAB(
        threat=L2(eps=9, box=None), objective=Towards(target=target), num_steps=30, random_start=True, early_stop=False,
        alpha_max=1, eta=1 + 1e-6,
    )  # fmt: skip
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    slope = weight[target] - weight[own]
    gaps = (slope * x.flatten(1).numpy()).sum(1) + bias[target] - bias[own]
    expected = np.abs(gaps) / np.linalg.norm(slope, axis=1)
    assert np.allclose(found_distances(attack, model, x, own), expected, rtol=2e-3)


def test_a_target_is_reached_through_a_third_class() -> None:
    """The farthest of the three, where the other one is in the way and does not count."""
    model = LinearModel(num_classes=3)
    x = torch.rand(60, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y, target = (model(x).topk(3, dim=1).indices[:, rank] for rank in (0, 2))
    attack = FAB(threat=L2(eps=9, box=None), objective=Targeted(target=target), num_steps=20)
    assert (model(attack(model, x, y)).argmax(1) == target).all()


@pytest.mark.parametrize(("alpha_max", "across"), [(1, 0.6), (0.1, 0.68)])
def test_a_step_is_blended_with_the_step_from_the_sample(alpha_max: float, across: float) -> None:
    """Both are 0.1 from the boundary, so that half of each is taken, or as much as alpha_max allows."""
    x, here = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.7]])
    attack = FAB(threat=L2(eps=1), alpha_max=alpha_max, eta=1.5)
    step = attack._step(here, x, gap=torch.tensor([-0.1]), slope=torch.tensor([[1.0, 0.0]]))
    assert torch.allclose(step, torch.tensor([[0.65, across]]))


def test_a_fallen_sample_goes_back_towards_the_sample_by_beta() -> None:
    model, looked_at = LinearModel(num_classes=2), []
    x = torch.rand(1, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    handle = model.register_forward_hook(lambda module, args, output: looked_at.append(args[0].detach()))
    FAB(threat=L2(eps=1e-6), num_steps=2, beta=0.75)(model, x, model(x).argmax(1))
    handle.remove()
    fallen, back = looked_at[-3], looked_at[-2]  # measured after the first step, and where the second begins
    assert torch.allclose(back - x, 0.75 * (fallen - x))


class Folded(nn.Module):
    """Logits `|x @ first| @ second`: each class in many parts, so that searches end at different points."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.first).abs() @ self.second


def test_without_early_stop_the_nearest_point_of_all_restarts_and_targets_is_kept() -> None:
    """As by hand, in a threat that leaves none standing and in one that leaves some; alone as in the batch."""
    generator, x = torch.Generator().manual_seed(0), images(24)
    first, second = (torch.randn(shape, generator=generator) for shape in ((36, 64), (64, 4)))
    model = Folded(first, second)
    y, rng = model(x).argmax(1), SampleRng.numbered(24, 3)
    targets = model(x).topk(3, dim=1).indices[:, 1:]
    for eps in (0.8, 0.5):
        one = FAB(threat=L2(eps=eps), num_steps=15, early_stop=False)
        several = replace(one, num_restarts=2, num_targets=2)
        points = []
        for number in range(4):
            goal = Towards(target=targets[:, number // 2])
            search = replace(one, objective=goal, random_start=number % 2 > 0)
            points.append(search(model, x, y, rng.fold(number) if number else rng))
        sizes = torch.stack(
            [(p - x).flatten(1).norm(dim=1).masked_fill(model(p).argmax(1) == y, torch.inf) for p in points]
        )
        got = several(model, x, y, rng)
        fell = model(got).argmax(1) != y
        assert bool(fell.all()) == (eps == 0.8)
        assert torch.equal(fell, sizes.amin(0).isfinite())
        assert eps == 0.5 or set(sizes.argmin(0).tolist()) == {0, 1, 2, 3}
        assert torch.allclose((got - x).flatten(1).norm(dim=1)[fell], sizes.amin(0)[fell])
        part = torch.tensor([3, 17])
        assert torch.allclose(several(model, x[part], y[part], rng.take(part)), got[part], atol=1e-5)


@pytest.mark.parametrize("scale", [1e6, 1e200, 1e-200])
def test_fab_does_not_depend_on_the_scale_of_the_logits(scale: float) -> None:
    model = LinearModel(num_classes=3)
    x = torch.rand(30, 1, 3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y, attack = model(x).argmax(1), FAB(threat=L2(eps=0.2), num_steps=10)
    plain = attack(model, x, y)
    with torch.no_grad():
        model.linear.weight.mul_(scale)
        model.linear.bias.mul_(scale)
    assert torch.allclose(attack(model, x, y), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 0.9}, r"FAB\(eta=...\) must be >= 1, got 0.9"),
        ({"beta": 1}, r"FAB\(beta=...\) must be in \(0, 1\)"),
        ({"alpha_max": 1.5}, r"FAB\(alpha_max=...\) must be in \[0, 1\]"),
        ({"eta": "1"}, r"FAB\(eta=...\) must be a number, got '1'"),
        ({"beta": None}, r"FAB\(beta=...\) must be a number, got None"),
        ({"alpha_max": True}, r"FAB\(alpha_max=...\) must be a number, got True"),
        ({"random_start": "no"}, r"FAB\(random_start=...\) must be True or False, got 'no'"),
        ({"early_stop": "no"}, r"FAB\(early_stop=...\) must be True or False, got 'no'"),
        ({"num_steps": 0}, r"FAB\(num_steps=...\) must be >= 1"),
        ({"num_targets": -1}, r"FAB\(num_targets=...\) must be >= 0"),
        ({"num_targets": 3, "objective": Targeted(target=1)}, r"needs an Untargeted objective"),
    ],
)
def test_what_is_outside_its_range_is_an_error(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FAB(threat=Linf(eps=0.1), **options)


def test_the_loss_of_the_objective_is_not_used() -> None:
    model = LinearModel(num_classes=3)
    x = torch.rand(10, 1, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y = model(x).argmax(1)
    plain = FAB(threat=L2(eps=0.2), num_steps=4, num_targets=2)
    assert torch.equal(plain(model, x, y), replace(plain, objective=Untargeted(loss=Margin()))(model, x, y))
