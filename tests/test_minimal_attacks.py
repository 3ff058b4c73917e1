"""Attacks that look for the nearest point: on linear models its distance has a closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    EAD,
    L1,
    L2,
    Attack,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    L1Adam,
    Linf,
    Margin,
    Targeted,
    Untargeted,
    evaluate,
)
from touchstone.attacks.parts.minimal import Adam, Nearest
from touchstone.attacks.parts.weighed import WeightSearch

from .oracles import LinearModel, images, own_labels, small_net

NUM_SAMPLES = 20
DUAL = {1: np.inf, 2: 2, np.inf: 1}


def batch(model: LinearModel) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 0.35 + 0.3 * torch.rand(200, 1, 3, 4, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        model.linear.bias -= model(x).mean(0)  # every class has samples, and no boundary is far
        largest = model(x).topk(2).values
    x = x[largest[:, 0] - largest[:, 1] > 0.3][:NUM_SAMPLES]  # nor nearer than a step
    return x, model(x).argmax(1)


def smallest_distance(model: LinearModel, x: Tensor, y: Tensor, p: float) -> np.ndarray:
    """Of the hyperplanes to the other classes the nearest: margin over the dual norm of the difference of weights."""
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    logits = x.flatten(1).numpy() @ weight.T + bias
    distances = []
    for row, own in enumerate(y.tolist()):
        to_class = [
            (logits[row, own] - logits[row, other]) / np.linalg.norm(weight[own] - weight[other], ord=DUAL[p])
            for other in range(len(weight))
            if other != own
        ]
        distances.append(min(to_class))
    return np.array(distances)


@pytest.mark.parametrize(
    ("attack", "num_classes", "worst", "median"),
    [
        (DeepFool(threat=L2(eps=9), overshoot=0), 4, 1.005, 1.001),
        (DeepFool(threat=Linf(eps=1), overshoot=0), 4, 1.005, 1.001),
        (CarliniWagner(threat=L2(eps=9), num_steps=150, minimal=True), 2, 1.03, 1.01),
        (CarliniWagner(threat=L2(eps=9, box=None), num_steps=150, minimal=True), 4, 1.1, 1.01),
        (EAD(threat=L1(eps=30, box=None), num_steps=300, minimal=True), 2, 1.1, 1.05),
        (HopSkipJump(threat=L2(eps=9), num_queries=4000, minimal=True), 2, 1.06, 1.01),
        (HopSkipJump(threat=Linf(eps=1), num_queries=4000, minimal=True), 2, 1.06, 1.01),
    ],
    ids=["deepfool l2", "deepfool linf", "cw", "cw without box", "ead", "hop skip jump l2", "hop skip jump linf"],
)
def test_finds_the_nearest_point_of_a_linear_model(
    attack: Attack, num_classes: int, worst: float, median: float
) -> None:
    model = LinearModel(num_classes=num_classes, seed=2)
    x, y = batch(model)
    report = evaluate(model, x, y, {"a": attack}, keep_adversarial=True)
    assert report.success["a"].all()
    p = attack.threat.p  # type: ignore[attr-defined]
    change = (report.x_adv["a"] - x).flatten(1).numpy()
    ratio = np.linalg.norm(change, ord=p, axis=1) / smallest_distance(model, x, y, p)
    assert ratio.min() >= 1 - 1e-9
    assert ratio.max() <= worst
    assert np.median(ratio) <= median


@pytest.mark.parametrize("num_features", [1, 2, 8])
@pytest.mark.parametrize("threat", [L2(eps=3), Linf(eps=1)])
def test_the_boundary_is_met_from_few_features_too(num_features: int, threat: L2 | Linf) -> None:
    """Of a sum of features that may be half of the largest the distance is that to it over the dual norm of ones."""

    class Sum(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            gap = x.sum(1) - num_features / 2
            return torch.stack([-gap, gap], 1)

    x = 0.2 + 0.25 * torch.rand(20, num_features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    attack = HopSkipJump(threat=threat, minimal=True)
    x_adv = attack(Sum().double(), x, torch.zeros(20, dtype=torch.int64))
    gap = num_features / 2 - x.sum(1).numpy()
    distance = gap / (num_features if isinstance(threat, Linf) else num_features**0.5)
    ratio = np.linalg.norm((x_adv - x).numpy(), ord=threat.p, axis=1) / distance
    assert ratio.min() >= 1 - 1e-6
    assert ratio.max() <= 1.02


def test_deepfool_follows_the_box() -> None:
    """Where pixels meet the box the others must make up for them: the nearest point by scipy."""
    from scipy.optimize import minimize

    model = LinearModel(num_classes=2, seed=3)
    x = torch.rand(10, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round()
    y = model(x).argmax(1)
    found = DeepFool(threat=L2(eps=9), overshoot=0)(model, x, y)
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    for row in range(len(x)):
        start, own = x[row].flatten().numpy(), int(y[row])
        slope, offset = weight[1 - own] - weight[own], bias[1 - own] - bias[own]
        across = {"type": "ineq", "fun": lambda z, g=slope, b=offset: g @ z + b}
        solved = minimize(lambda z, s=start: ((z - s) ** 2).sum(), start, bounds=[(0, 1)] * 12, constraints=across)
        if solved.success:  # the hyperplane may not meet the box
            distance = float((found[row] - x[row]).norm())
            assert distance == pytest.approx(solved.fun**0.5, rel=2e-3)


@pytest.mark.parametrize(
    "attack",
    [
        CarliniWagner(threat=L2(eps=0.8), num_steps=40, num_rounds=4, first_weight=0.3),
        EAD(threat=L1(eps=3), num_steps=40, num_rounds=4, first_weight=0.3),
        HopSkipJump(threat=L2(eps=0.8), num_queries=1500),
    ],
    ids=["cw", "ead", "hop skip jump"],
)
def test_a_sample_found_inside_eps_is_done_unless_the_smallest_is_asked_for(attack: Attack) -> None:
    net, x = small_net().eval(), images(24)
    y = own_labels(net, x)
    smallest = replace(attack, minimal=True)  # type: ignore[call-arg, type-var]
    report = evaluate(net, x, y, {"done": attack, "smallest": smallest}, keep_adversarial=True)
    assert torch.equal(report.success["done"], report.success["smallest"])
    both = report.success["done"] & report.success["smallest"]
    assert both.sum() > 5
    assert report.cost["done"].num_forwards < 0.7 * report.cost["smallest"].num_forwards
    distance = {name: attack.threat.distance(x_adv, x)[both] for name, x_adv in report.x_adv.items()}
    assert (distance["smallest"] <= distance["done"] + 1e-6).all()
    assert distance["smallest"].mean() < 0.9 * distance["done"].mean()


def test_targets_are_reached_at_the_distance_of_their_boundary() -> None:
    model = LinearModel(num_classes=2, seed=2)
    x, y = batch(model)
    aimed = Targeted(target=1)
    attack = CarliniWagner(threat=L2(eps=9), objective=aimed, num_steps=100, minimal=True)
    report = evaluate(model, x, y, {"a": attack}, keep_adversarial=True)
    turned = y == 0
    assert 5 < turned.sum() < NUM_SAMPLES - 5
    assert torch.equal(report.success["a"], turned)
    distance = attack.threat.distance(report.x_adv["a"], x)[turned]
    assert np.allclose(distance, smallest_distance(model, x, y, 2)[turned.numpy()], rtol=0.03)


def test_pixels_of_black_and_white_leave_the_box() -> None:
    """Where tanh is flat no step would move them."""
    model, threat = LinearModel(num_classes=3, seed=3), L2(eps=0.5)
    x = torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round()
    attacks = {"cw": CarliniWagner(threat=threat, num_steps=200), "deepfool": DeepFool(threat=threat)}
    report = evaluate(model, x, model(x).argmax(1), attacks)
    assert 10 < report.success["deepfool"].sum() < 30
    assert torch.equal(report.success["cw"], report.success["deepfool"])


@pytest.mark.parametrize("threat", [L2(eps=9), Linf(eps=1)])
def test_hop_skip_jump_needs_decisions_only_and_keeps_to_its_queries(threat: L2 | Linf) -> None:
    class Decisions(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            assert not torch.is_grad_enabled() or not x.requires_grad
            return 3.0 * nn.functional.one_hot(self.net(x).argmax(1), 4)

    net, x = small_net().eval(), images(12)
    y = own_labels(net, x)
    attack = HopSkipJump(threat=threat, num_queries=331, minimal=True)
    by_logits = evaluate(net, x, y, {"a": attack}, keep_adversarial=True)
    by_decisions = evaluate(Decisions(net), x, y, {"a": attack}, keep_adversarial=True)
    assert by_logits.success["a"].all()
    assert torch.equal(by_logits.x_adv["a"], by_decisions.x_adv["a"])
    assert by_logits.cost["a"].num_backwards == 0
    for row in range(4):
        one = evaluate(net, x[row : row + 1], y[row : row + 1], {"a": attack}, sample_ids=torch.tensor([row]))
        assert 150 < one.cost["a"].num_forwards <= 331


def test_a_sample_that_no_random_image_turns_comes_back_as_it_was() -> None:
    model = LinearModel(num_classes=2)
    with torch.no_grad():
        model.linear.bias[0] += 1000
    x = images(5, shape=(1, 3, 4), dtype=torch.float64)
    assert torch.equal(HopSkipJump(threat=L2(eps=1), num_queries=200)(model, x, model(x).argmax(1)), x)


def test_a_price_on_the_change_makes_it_shorter_and_stops_where_the_class_switches() -> None:
    net, x = small_net().eval(), images(48)
    y = own_labels(net, x)
    threat = L1(eps=9)
    attacks = {
        str(p): L1Adam(threat=threat, step_size=0.002, penalty=p, objective=Untargeted(loss=Margin()))
        for p in (0.0, 0.05)
    }
    report = evaluate(net, x, y, attacks, keep_adversarial=True)
    both = report.success["0.0"] & report.success["0.05"]
    assert both.sum() > 10
    free, priced = (threat.distance(report.x_adv[name], x)[both].mean() for name in attacks)
    assert priced < 0.8 * free
    assert report.cost["0.0"].num_forwards < 0.7 * 48 * 100


def test_adam_steps_as_torch_does_with_some_rows_gone() -> None:
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([expected], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        expected.pow(4).sum().backward()
        optimizer.step()
    points, adam, rows = start.clone(), Adam(start, 0.1), torch.arange(5)
    for number in range(20):
        if number == 10:
            rows = rows[rows != 2]
        points[rows] += adam.step(4 * points[rows] ** 3, rows)
    stays = torch.arange(5) != 2
    assert torch.allclose(points[stays], expected[stays], atol=1e-7)


def test_weights_grow_tenfold_until_one_succeeds_and_are_bisected_then() -> None:
    search, tried = WeightSearch(torch.zeros(2, 1), 0.01), []
    for _ in range(6):
        tried.append(search.weight.tolist())
        search.learn(search.weight >= torch.tensor([0.5, 0.001]))
    first, second = np.array(tried).T
    assert np.allclose(first, [0.01, 0.1, 1, 0.55, 0.325, 0.4375])
    assert np.allclose(second, [0.01, 0.005, 0.0025, 0.00125, 0.000625, 0.0009375])


def test_the_nearest_point_is_kept_but_one_inside_the_threat_comes_first() -> None:
    x = torch.zeros(1, 4)
    nearest, row, yes = Nearest(L1(eps=1, box=None), x), torch.tensor([0]), torch.tensor([True])

    def see(values: list[float], reached: bool = True) -> list[float]:
        points = torch.tensor([values], dtype=x.dtype)
        nearest.see(row, points, yes & reached, points.square().sum(1))
        return nearest.points[0].tolist()

    assert see([0.1, 0, 0, 0], reached=False) == [0, 0, 0, 0]
    assert see([1.5, 0, 0, 0]) == [1.5, 0, 0, 0]
    assert see([0.5, 0.5, 0.5, 0.5]) == [0.5, 0.5, 0.5, 0.5]  # smaller, outside
    assert not nearest.inside.any()
    assert nearest.result()[0].tolist() == [0.25, 0.25, 0.25, 0.25]
    assert see([0, 0, 0, 1]) == [0, 0, 0, 1]  # inside
    assert see([0.3, 0.3, 0.3, 0.3]) == [0, 0, 0, 1]  # smaller by its size, but outside
    assert nearest.inside.all()
    assert nearest.result()[0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DeepFool(threat=L1(eps=1)), r"DeepFool\(threat=...\) must be Linf or L2, got L1"),  # type: ignore[arg-type]
        (lambda: DeepFool(threat=L2(eps=1), num_classes=1), r"DeepFool\(num_classes=...\) must be >= 2, got 1"),
        (
            lambda: DeepFool(threat=L2(eps=1), overshoot=-1),
            r"DeepFool\(overshoot=...\) must be >= 0 and finite, got -1",
        ),
        (lambda: CarliniWagner(threat=Linf(eps=0.1)), r"CarliniWagner\(threat=...\) must be L2, got Linf"),  # type: ignore[arg-type]
        (lambda: CarliniWagner(threat=L2(eps=1), step_size=0), r"CarliniWagner\(step_size=...\) must be > 0"),
        (lambda: CarliniWagner(threat=L2(eps=1), minimal="no"), r"CarliniWagner\(minimal=...\) must be True or False"),  # type: ignore[arg-type]
        (lambda: EAD(threat=L1(eps=1), minimal=1), r"EAD\(minimal=...\) must be True or False, got 1"),  # type: ignore[arg-type]
        (lambda: HopSkipJump(threat=L2(eps=1), minimal="no"), r"HopSkipJump\(minimal=...\) must be True or False"),  # type: ignore[arg-type]
        (lambda: EAD(threat=L2(eps=1)), r"EAD\(threat=...\) must be L1, got L2"),  # type: ignore[arg-type]
        (lambda: EAD(threat=L1(eps=1), rule="en"), r"EAD\(rule=...\) must be one of 'l1', 'elastic net', got 'en'$"),  # type: ignore[arg-type]
        (lambda: L1Adam(threat=L1(eps=1), penalty=-0.1), r"L1Adam\(penalty=...\) must be >= 0"),
        (lambda: HopSkipJump(threat=L2(eps=1, box=None)), r"HopSkipJump\(threat=...\) must have a box"),
        (lambda: HopSkipJump(threat=L2(eps=1), num_directions=1), r"HopSkipJump\(num_directions=...\) must be >= 2"),
    ],
)
def test_what_cannot_be_is_an_error_of_the_constructor(make: type, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
