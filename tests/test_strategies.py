"""Strategies of adversarial training against the formulas of their papers, written out: loss, gradient, BatchNorm."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks import L2, Linf, RandomNoise, SampleRng
from touchstone.lightning_modules import (
    AWP,
    FGSMRS,
    MART,
    PGDAT,
    TRADES,
    EpsWarmup,
    Free,
    Mixed,
    Strategy,
)
from touchstone.lightning_modules.adversarial_training import Criterion
from touchstone.lightning_modules.parts.classifier_loss import ClassifierLoss

from .strategies_setting import EPS, LINF, NEARBY_3, PGD_3, RNG, STEP, net_and_batch


def gradients(net: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters())))


def climbed(net: nn.Module, x: Tensor, start: Tensor, loss: Callable[[Tensor], Tensor], num_steps: int = 3) -> Tensor:
    """Steps along the sign of the gradient, inside the ball and the box, in evaluation mode, written out."""
    net.eval()
    x_adv = start
    for _ in range(num_steps):
        x_adv = x_adv.detach().requires_grad_()
        (grad,) = torch.autograd.grad(loss(net(x_adv)), x_adv)
        x_adv = torch.max(torch.min(x_adv.detach() + STEP * grad.sign(), x + EPS), x - EPS).clamp(0, 1)
    net.train()
    return x_adv


def uniform_start(x: Tensor) -> Tensor:
    return (x + EPS * (2 * RNG.fold(0).uniform(x) - 1)).clamp(0, 1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum(1)


def worst_by_hand(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return climbed(net, x, uniform_start(x), lambda z: F.cross_entropy(z, y, reduction="sum"))


def trades_by_hand(net: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor | None = None) -> tuple[Tensor, Tensor]:
    clean = net(x).softmax(1)
    if x_adv is None:
        start = (x + 0.001 * RNG.fold(0).normal(x)).clamp(0, 1)
        x_adv = climbed(net, x, start, lambda z: kl(clean.detach(), z.softmax(1)).sum())
    of_clean = -clean[torch.arange(8), y].log().mean()
    return of_clean + 2.5 * kl(clean, net(x_adv).softmax(1)).mean(), x_adv


def mart_by_hand(net: nn.Module, x: Tensor, y: Tensor, class_weights: tuple[float, ...] = (1, 1, 1, 1)) -> Tensor:
    x_adv = worst_by_hand(net, x, y)
    p, q, rows = net(x_adv).softmax(1), net(x).softmax(1), torch.arange(8)
    others = torch.stack([torch.cat([row[:c], row[c + 1 :]]) for row, c in zip(p, y.tolist(), strict=True)])
    bce = -p[rows, y].log() - (1 - others.max(1).values).log()
    counts = torch.tensor([class_weights[c] for c in y.tolist()], dtype=p.dtype)
    return (counts / counts.sum() * (bce + 5 * kl(q, p) * (1 - q[rows, y]))).sum()


def fgsm_rs_by_hand(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    start = uniform_start(x).requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(net.eval()(start), y), start)
    x_adv = torch.max(torch.min(start + 1.25 * EPS * grad.sign(), x + EPS), x - EPS).clamp(0, 1).detach()
    return F.cross_entropy(net.train()(x_adv), y)


def pgd_at_by_hand(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(worst_by_hand(net, x, y)), y)


def mixed_by_hand(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    of_clean = F.cross_entropy(net(x), y)  # moves the statistics that the net is attacked with
    return 0.3 * of_clean + 0.7 * pgd_at_by_hand(net, x, y)


BY_HAND: dict[str, tuple[Strategy, Callable[..., Tensor]]] = {
    "pgd-at": (PGDAT(PGD_3), pgd_at_by_hand),
    "trades": (TRADES(NEARBY_3, beta=2.5), lambda *batch: trades_by_hand(*batch)[0]),
    "mart": (MART(PGD_3), mart_by_hand),
    "fgsm-rs": (FGSMRS(LINF), fgsm_rs_by_hand),
    "mixed": (Mixed(PGDAT(PGD_3), clean_share=0.3), mixed_by_hand),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_loss_and_gradient_are_those_of_the_paper(name: str) -> None:
    strategy, by_hand = BY_HAND[name]
    net, x, y = net_and_batch()
    loss = strategy.learn(net, x, y, Criterion(), RNG).loss
    expected = by_hand(other := net_and_batch()[0], x, y)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(gradients(net, loss), gradients(other, expected), rtol=1e-7, atol=1e-12)


def test_mart_counts_both_terms_of_a_sample_by_the_weight_of_its_class() -> None:
    net, x, _ = net_and_batch()
    y, class_weights = torch.tensor([0, 1, 2, 3, 0, 0, 1, 3]), (0.5, 3.0, 0.0, 1.0)
    own = ClassifierLoss(class_weights=class_weights).double()
    criterion = Criterion(lambda logits, y: own(logits, y, x=x), own.mean)
    loss = MART(PGD_3).learn(net, x, y, criterion, RNG).loss
    expected = mart_by_hand(other := net_and_batch()[0], x, y, class_weights)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(gradients(net, loss), gradients(other, expected), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", ["pgd-at", "trades"])
def test_awp_takes_the_gradient_at_the_worst_weights_and_gives_the_weights_back(name: str) -> None:
    """The step of each kernel and matrix is gamma times its norm, along the gradient of the same images."""
    net, x, y = net_and_batch()
    strategy = AWP(BY_HAND[name][0], gamma=0.05)
    before = {key: value.clone() for key, value in net.named_parameters()}
    learned = strategy.learn(net, x, y, Criterion(), RNG)
    moved = {key for key, value in net.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {"0.weight", "5.weight"}
    learned.loss.backward()
    strategy.after_backward(net)
    assert all(torch.equal(value, before[key]) for key, value in net.named_parameters())

    other = net_and_batch()[0]
    if name == "trades":
        loss, x_adv = trades_by_hand(other, x, y)
    else:
        x_adv = worst_by_hand(other, x, y)
        loss = F.cross_entropy(other(x_adv), y)
    of_kernel, of_matrix = torch.autograd.grad(loss, [other[0].weight, other[5].weight])
    with torch.no_grad():
        other[0].weight += 0.05 * other[0].weight.norm() * of_kernel / of_kernel.norm()
        other[5].weight += 0.05 * other[5].weight.norm() * of_matrix / of_matrix.norm()
    worse = trades_by_hand(other, x, y, x_adv)[0] if name == "trades" else F.cross_entropy(other(x_adv), y)
    assert worse > loss
    torch.testing.assert_close([p.grad for p in net.parameters()], gradients(other, worse), rtol=1e-6, atol=1e-12)


def test_the_clean_part_of_a_mixture_is_learned_at_the_weights_as_they_are_and_the_other_at_the_worst() -> None:
    net, x, y = net_and_batch()
    mixed = Mixed(AWP(PGDAT(PGD_3), gamma=0.05), clean_share=0.3)
    mixed.learn(net, x, y, Criterion(), RNG).loss.backward()
    mixed.after_backward(net)

    other, part = net_and_batch()[0], AWP(PGDAT(PGD_3), gamma=0.05)
    of_clean = gradients(other, F.cross_entropy(other(x), y))
    part.learn(other, x, y, Criterion(), RNG).loss.backward()
    part.after_backward(other)
    expected = [0.3 * clean + 0.7 * p.grad for clean, p in zip(of_clean, other.parameters(), strict=True)]
    torch.testing.assert_close([p.grad for p in net.parameters()], expected, rtol=1e-7, atol=1e-12)
    assert all(torch.equal(mine, its) for mine, its in zip(net.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("threat", [LINF, L2(eps=0.5)])
def test_free_trains_and_attacks_by_one_gradient(threat: Any) -> None:
    """Algorithm 1 written out, over three batches of which the second is smaller."""
    net, x, y = net_and_batch()
    other = copy.deepcopy(net)
    strategy, change = Free(threat, num_repeats=2), torch.zeros_like(x)
    batches = [(x, y)] * 2 + [(x[:5].flip(0), y[:5])] * 2 + [(x.flip(0), y)] * 2
    for inputs, labels in batches:
        n = len(inputs)
        strategy.learn(net, inputs, labels, Criterion(), RNG).loss.backward()
        strategy.after_backward(net)
        delta = change[:n].clone().requires_grad_()
        F.cross_entropy(other((inputs + delta).clamp(0, 1)), labels).backward()
        if isinstance(threat, Linf):
            change[:n] = (delta.detach() + EPS * delta.grad.sign()).clamp(-EPS, EPS)
        else:
            moved = delta.detach() + 0.5 * delta.grad / delta.grad.flatten(1).norm(dim=1)[:, None, None, None]
            change[:n] = moved / (moved.flatten(1).norm(dim=1) / 0.5).clamp_min(1)[:, None, None, None]
        torch.testing.assert_close(strategy.memory["change"], change, rtol=1e-9, atol=1e-12)
        for model in (net, other):
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
    torch.testing.assert_close(list(net.parameters()), list(other.parameters()), rtol=1e-7, atol=1e-12)


def test_eps_grows_to_its_size_in_equal_steps() -> None:
    net, x, y = net_and_batch()
    strategy = EpsWarmup(PGDAT(RandomNoise(threat=LINF)), num_batches=4)
    seen = []
    for _ in range(6):
        strategy.learn(net, x, y, Criterion(), RNG)
        seen.append(strategy.strategy.attack.threat.eps)
    assert seen == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("strategy", [PGDAT(PGD_3), TRADES(PGD_3), MART(PGD_3), FGSMRS(LINF), Free(LINF)])
def test_any_threat_can_be_warmed_up(strategy: Strategy) -> None:
    net, x, y = net_and_batch()
    warm = EpsWarmup(strategy, num_batches=10**6)
    loss = warm.learn(net, x, y, Criterion(), RNG).loss
    if not isinstance(strategy, MART):
        assert loss.item() == pytest.approx(F.cross_entropy(net(x), y).item(), rel=1e-3)
    strategy.scale_eps(1.0)


UPDATES = [
    (Strategy(), 1),
    (PGDAT(PGD_3), 1),
    (PGDAT(PGD_3, mode="train"), 4),
    (TRADES(NEARBY_3), 2),
    (TRADES(NEARBY_3, mode="train"), 5),
    (MART(PGD_3), 2),
    (MART(PGD_3, mode="train"), 5),
    (FGSMRS(LINF), 1),
    (FGSMRS(LINF, mode="train"), 2),
    (Free(LINF), 1),
    (Mixed(PGDAT(PGD_3)), 2),
    (EpsWarmup(PGDAT(PGD_3), num_batches=3), 1),
    (AWP(PGDAT(PGD_3)), 1),
    (AWP(TRADES(NEARBY_3)), 2),
    (AWP(TRADES(NEARBY_3, mode="train")), 2),
]

FORWARDS = [  # as the table of docs/training.md says, for an attack of three steps
    (PGDAT(PGD_3), 4),
    (TRADES(NEARBY_3), 6),
    (MART(PGD_3), 6),
    (FGSMRS(LINF), 2),
    (Free(LINF), 1),
    (Mixed(PGDAT(PGD_3)), 6),
    (AWP(PGDAT(PGD_3)), 5),
    (AWP(TRADES(NEARBY_3)), 9),
    (AWP(MART(PGD_3)), 9),
    (AWP(Mixed(PGDAT(PGD_3))), 9),
]


@pytest.mark.parametrize(("strategy", "num_updates"), UPDATES)
def test_a_step_updates_running_statistics_as_often_as_is_said(strategy: Strategy, num_updates: int) -> None:
    net, x, y = net_and_batch()
    strategy.learn(net, x, y, Criterion(), RNG).loss.backward()
    strategy.after_backward(net)
    assert int(net[1].num_batches_tracked) == num_updates
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize(("strategy", "num_forwards"), FORWARDS)
def test_a_step_takes_as_many_forward_passes_as_is_said(strategy: Strategy, num_forwards: int) -> None:
    net, x, y = net_and_batch()
    passed: list[int] = []
    net[0].register_forward_hook(lambda *args: passed.append(1))
    strategy.learn(net, x, y, Criterion(), RNG).loss.backward()
    strategy.after_backward(net)
    assert len(passed) == num_forwards


def test_awp_leaves_the_running_statistics_of_the_second_pass_alone() -> None:
    net, x, y = net_and_batch()
    other = copy.deepcopy(net)
    AWP(Strategy(), gamma=1e-9).learn(net, x, y, Criterion(), RNG)
    other(x)
    torch.testing.assert_close(net[1].running_mean, other[1].running_mean, rtol=1e-6, atol=1e-9)


def test_trades_passes_the_clean_images_once_before_the_backward_pass() -> None:
    net, x, y = net_and_batch()
    passed: list[bool] = []
    net.register_forward_pre_hook(lambda _, args: passed.append(torch.equal(args[0], x)))
    TRADES(NEARBY_3).learn(net, x, y, Criterion(), RNG)
    assert passed == [True, False, False, False, False]  # three steps, and what they found


def test_the_boosted_cross_entropy_is_finite_where_the_net_is_sure_of_the_wrong_class() -> None:
    logits = torch.tensor([[200.0, 0, -5], [0, 200, 0]], requires_grad=True)
    net = nn.Identity()
    learned = MART(RandomNoise(threat=Linf(eps=1e-3, box=None))).learn(
        net, logits, torch.tensor([1, 1]), Criterion(), SampleRng.numbered(2)
    )
    assert learned.loss.isfinite()


def test_fgsm_rs_falls_back_once_and_knows_it_after_a_checkpoint() -> None:
    strategy = FGSMRS(LINF, fallback=PGD_3)
    assert strategy.fall_back()
    assert not strategy.fall_back()
    assert strategy.attack is PGD_3
    assert not FGSMRS(LINF).fall_back()
    assert not PGDAT(PGD_3).fall_back()
    resumed = FGSMRS(LINF, fallback=PGD_3)
    resumed.load_state_dict(strategy.state_dict())
    assert resumed.attack is PGD_3
