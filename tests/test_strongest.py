"""`Strongest` where gradients inside the threat do not show the boundary, and the climb that shrinks its ball."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks import APGD, L1, L2, PGD, Linf, Margin, SampleRng, Strongest, TokenFlips, Untargeted, evaluate
from touchstone.attacks.cascade.shrinking import climb_shrinking
from touchstone.attacks.cascade.survivors import Survivors
from touchstone.attacks.core.gain import gain_of
from touchstone.attacks.threats.ball import Ball

from .oracles import LinearModel, images, small_net


class Threshold(nn.Module):
    """Class 1 as soon as one pixel is above 0.7; below 0.5 no pixel has a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        above = 5 * (x.flatten(1) - 0.5).clamp_min(0).amax(1)
        return torch.stack([1 - above, above - 1], 1)


@pytest.mark.parametrize("threat", [L2(eps=0.8), L1(eps=0.65)], ids=["l2", "l1"])
def test_it_finds_a_boundary_that_no_gradient_near_the_sample_shows(threat: Ball) -> None:
    """Pixels of 0.1: one that rises by 0.6 is enough, and random points of the ball hardly ever raise one by 0.4."""
    x, y = torch.full((100, 1, 6, 6), 0.1), torch.zeros(100, dtype=torch.int64)
    pgd = PGD(threat=threat, num_steps=40, objective=Untargeted(loss=Margin()))
    attacks = {"strongest": Strongest(threat=threat), "pgd": pgd}
    report = evaluate(Threshold(), x, y, attacks, probe_masking=False)
    assert report.robust["pgd"].float().mean() >= 0.75
    assert report.success["strongest"].float().mean() > 0.9


class HiddenPixel(nn.Module):
    """All pixels but the first lead not quite to the boundary; the first leads beyond it, without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        first, others = x.flatten(1).tensor_split([1], dim=1)
        gain = 0.95 * (others - 0.5).mean(1) / 0.3 - 1 + 0.1 * (first[:, 0] > 0.79).to(x)
        return torch.stack([-gain, gain], 1)


def test_windows_go_on_where_a_climb_has_ended_near_the_boundary() -> None:
    """Of random starts one in sixty has the first pixel that high, and no step moves it."""
    x, y = torch.full((64, 1, 6, 6), 0.5), torch.zeros(64, dtype=torch.int64)
    threat = Linf(eps=0.3)
    pgd = PGD(threat=threat, num_steps=20, num_restarts=6, objective=Untargeted(loss=Margin()))
    attacks = {"strongest": Strongest(threat=threat), "pgd": pgd}
    report = evaluate(HiddenPixel(), x, y, attacks, probe_masking=False)
    assert report.success["pgd"].float().mean() <= 0.25
    assert report.success["strongest"].float().mean() >= 0.6


class HiddenWindow(nn.Module):
    """All pixels lead half of the way as they rise; where a window has fallen, the class turns, without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        has_fallen = (x[:, 0, 1:4, 1:4] < 0.21).flatten(1).all(1)
        gain = 0.5 * (x - 0.5).mean((1, 2, 3)) / 0.3 - 1 + 2 * has_fallen.to(x)
        return torch.stack([-gain, gain], 1)


def test_with_patience_a_black_box_searches_where_gradients_look_honest() -> None:
    x, y = torch.full((32, 1, 6, 6), 0.5), torch.zeros(32, dtype=torch.int64)
    threat = Linf(eps=0.3)
    attacks = {str(budget): Strongest(threat=threat, max_passes=budget) for budget in (500, 2000)}
    report = evaluate(HiddenWindow(), x, y, attacks, probe_masking=False)
    assert not report.success["500"].any()
    assert report.success["2000"].all()


@pytest.mark.parametrize("threat", [Linf(eps=0.03), L2(eps=0.2), L1(eps=0.4)], ids=["linf", "l2", "l1"])
def test_the_scale_of_the_logits_does_not_matter(threat: Ball) -> None:
    net, x = small_net(dtype=torch.float64).eval(), images(40, dtype=torch.float64)
    y, by_scale = net(x).argmax(1), []
    for scale in (1.0, 1e-14, 1e-40, 1e14):
        model = Scaled(net, scale)
        by_scale.append(evaluate(model, x, y, {"s": Strongest(threat=threat)}, probe_masking=False).robust["s"])
    assert 0 < by_scale[0].sum() < 40
    assert all(torch.equal(robust, by_scale[0]) for robust in by_scale)


class Scaled(nn.Module):
    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.net(x)


class Reversed(nn.Module):
    """An honest net whose input gradients have the wrong sign."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(2 * x.detach() - x)


def test_a_black_box_searches_where_every_step_leads_away_from_the_boundary() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval(), images(40, shape=(1, 6, 6))
    model[1].bias.data -= model(x).mean(0).detach()  # so that both classes occur
    y, threat = model(x).argmax(1), Linf(eps=0.03)
    honest = evaluate(model, x, y, {"s": Strongest(threat=threat)}).success["s"]
    attacks = {"s": Strongest(threat=threat), "pgd": PGD(threat=threat, num_steps=20)}
    report = evaluate(Reversed(model), x, y, attacks, probe_masking=False)
    assert report.success["pgd"].sum() <= 0.2 * honest.sum()
    assert report.success["s"].sum() >= 0.9 * honest.sum() > 0


@pytest.mark.parametrize(("num_classes", "slope", "mask"), [(2, 0.0, None), (2, 1e-6, "half"), (10, -1e-3, None)])
def test_a_black_box_searches_where_no_gradient_leads_however_near_random_starts_have_come(
    num_classes: int, slope: float, mask: str | None
) -> None:
    may_change = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    if mask:
        may_change[..., 2:] = False

    class Counted(nn.Module):
        """By the share of bright pixels; its gradient, if any, misleads, or is where nothing may change."""

        def forward(self, x: Tensor) -> Tensor:
            share = (x > 0.5).float().flatten(1).mean(1)
            share = share + slope * (x.masked_fill(may_change, 0) if mask else x).flatten(1).sum(1)
            limit = 0.35 if mask else 0.7
            return torch.stack([limit - share, *[share - limit] * (num_classes - 1)], 1)

    threat = Linf(eps=0.07, mask=may_change)
    x, y = torch.full((32, 1, 4, 4), 0.45), torch.zeros(32, dtype=torch.int64)
    report = evaluate(Counted(), x, y, {"strongest": Strongest(threat=threat)}, probe_masking=False)
    assert not report.worst_case.any()


def test_ties_count_as_argmax_breaks_them_and_clamped_margins_are_left_for_the_likelihood() -> None:
    """Of logits that nothing raises above 1 several are equal, and margins have no gradient there."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Hardtanh(-1, 1)).eval()
    net[1].weight.data *= 8
    x = images(200, shape=(1, 6, 6))
    net[1].bias.data -= net[1](x.flatten(1)).mean(0).detach()
    y, threat = net(x).argmax(1), Linf(eps=0.06)
    attacks = {"s": Strongest(threat=threat), "pgd": PGD(threat=threat, num_steps=40)}
    report = evaluate(net, x, y, attacks, probe_masking=False)
    assert 20 < int(report.robust["s"].sum()) <= int(report.robust["pgd"].sum())


def test_what_is_tried_on_a_sample_does_not_depend_on_who_else_is_in_the_batch() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 4)).double().eval()
    x = images(60, shape=(1, 8, 8), dtype=torch.float64)
    y = net(x).argmax(1)
    attack = {"s": Strongest(threat=Linf(eps=0.02), max_passes=450)}
    whole, parts = (
        evaluate(net, x, y, attack, batch_size=size, probe_masking=False, keep_adversarial=True) for size in (60, 7)
    )
    assert 10 < int(whole.robust["s"].sum()) < 50
    assert torch.equal(whole.robust["s"], parts.robust["s"])
    assert torch.allclose(whole.x_adv["s"], parts.x_adv["s"], atol=1e-9)


def test_a_shrinking_ball_ends_near_the_distance_of_a_flat_boundary() -> None:
    model, x = LinearModel(num_classes=2).centred(), images(32, shape=(12,), dtype=torch.float64)
    y = model(x).argmax(1)
    weight = model.linear.weight.detach()
    flat = (model(x).detach() @ torch.tensor([1.0, -1.0], dtype=x.dtype)).abs() / (weight[0] - weight[1]).norm()
    threat = L2(eps=1e-3, box=None)
    far = torch.full((32,), 3.0, dtype=x.dtype)
    start = L2(eps=3.0, box=None).start(x, SampleRng.numbered(32))
    measure = gain_of(model, Untargeted(loss=Margin()), y)
    points, nearest, distance = climb_shrinking(measure, x, start=start, radius=far, threat=threat, num_steps=60)
    assert threat.contains(points, x).all()
    assert (model(nearest).argmax(1) != y).all()
    assert torch.allclose((nearest - x).norm(dim=1), distance)
    assert (distance >= flat).all()
    assert (distance <= 1.1 * flat).double().mean() > 0.9


@pytest.mark.parametrize(
    ("left", "softness"),
    [(1.0, 0.4), (0.5, 0.4), (0.1, 0.24), (0.01, 0.1)],
    ids=["far", "half way", "near", "nearest"],
)
def test_the_nearer_a_sample_has_come_the_less_soft_is_its_margin(left: float, softness: float) -> None:
    """Of the first margin, 2: the softness of what is climbed, which is T log sum exp((z_j - z_y) / T)."""
    gaps = torch.tensor([[-2.0, -2.5, -3.0]])
    survivors = Survivors(
        Linf(eps=1), 100, FromGaps(), gaps, torch.zeros(1, dtype=torch.int64), SampleRng.numbered(1, 0)
    )
    rows = survivors.everyone
    first, _ = survivors.measure(rows)(gaps.clone().requires_grad_(), rows)
    torch.testing.assert_close(first.detach(), soft(gaps, 2 * 0.4))
    survivors.finish(rows, gaps + 2 * (1 - left))
    gain, _ = survivors.measure(rows)(gaps, rows)
    torch.testing.assert_close(gain, soft(gaps, 2 * softness))


def soft(gaps: Tensor, softness: float) -> Tensor:
    return softness * (gaps / softness).exp().sum(1).log()


def test_a_climb_brings_on_whom_it_wins_half_a_percent_of_the_first_margin() -> None:
    """From 2 below the boundary: by 0.4 % and 0.6 %, by nothing, and beyond it, where nothing more is to be won."""
    gaps, rows = torch.full((4, 1), -2.0), torch.arange(4)
    labels = torch.zeros(4, dtype=torch.int64)
    survivors = Survivors(Linf(eps=1), 100, FromGaps(), gaps, labels, SampleRng.numbered(4, 0))
    survivors.measure(rows)(gaps.clone().requires_grad_(), rows)
    survivors.finish(rows, gaps)
    assert survivors.finish(rows, gaps + torch.tensor([[0.008], [0.012], [0.0], [3.0]])).tolist() == [1]


class FromGaps(nn.Module):
    """Pixels are what the other classes' logits are above that of the first."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (1, 0))


def test_a_threat_that_is_no_ball_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Strongest\(threat=...\) must be a ball such as Linf, got TokenFlips"):
        Strongest(threat=TokenFlips(num_flips=1, vocab_size=5))


def test_it_falls_to_the_class_that_is_reached_by_its_own_way_alone() -> None:
    """Clouds of points around random centres: climbs towards any class end before those towards the right one do."""
    num_turned = num_left = 0
    for seed in range(2):
        torch.manual_seed(seed)
        centres, y = torch.rand(10, 200), torch.randint(10, (600,))
        x = (centres[y] + 0.2 * torch.randn(600, 200)).clamp(0, 1)
        net = nn.Sequential(nn.Linear(200, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
        optimizer = torch.optim.Adam(net.parameters(), 0.005)
        for _ in range(200):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        threat = Linf(eps=0.16)
        each = APGD(threat=threat, objective=Untargeted(loss=Margin()), num_steps=40, num_targets=9)
        attacks = {"strongest": Strongest(threat=threat), "each": each}
        report = evaluate(net, x[:150], y[:150], attacks, probe_masking=False)
        num_turned += int(report.success["each"].sum())
        num_left += int((report.success["each"] & report.robust["strongest"]).sum())
    assert 100 < num_turned < 290
    assert num_left <= 0.03 * num_turned


class OneStandsOut(nn.Module):
    """Class 0 gives 2 and all others 0. What lowers class 0 by a little leads away from all others, each in reach."""

    def __init__(self, threat: Ball) -> None:
        super().__init__()
        length = {1: 1, 2: 64**0.5, torch.inf: 64}[threat.p]
        ways = torch.randint(2, (9, 64), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        if threat.p == 1:
            ways = torch.block_diag(*[torch.ones(7)] * 9)
        self.ways = F.pad(ways, (0, 64 - ways.shape[1])) / (threat.eps * length)

    def forward(self, x: Tensor) -> Tensor:
        others = (x.flatten(1) - 0.5) @ self.ways.T  # at most 1 within the threat
        away = (-4 * others.mean(1)).clamp_min(0)
        own = 1 - 0.6 * away / (1 + away)
        return 2 * torch.cat([own[:, None], 0.02 * others + 3 * (others - 0.5).clamp(0, 0.5)], 1)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.8), L1(eps=2)], ids=repr)
def test_where_no_class_is_nearer_than_another_each_is_tried(threat: Ball) -> None:
    x, y = torch.full((8, 1, 8, 8), 0.5), torch.zeros(8, dtype=torch.int64)
    report = evaluate(OneStandsOut(threat), x, y, {"strongest": Strongest(threat=threat)}, probe_masking=False)
    assert not report.worst_case.any()
