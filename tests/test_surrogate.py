"""`Surrogate`: a net trained on the model's answers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import Attack, Linf, RandomNoise, SampleRng, Surrogate, Transfer, evaluate

from .oracles import LinearModel, images, own_labels, small_net

LINF = Linf(eps=0.1)


def source_of(attack: Attack) -> nn.Module:
    assert isinstance(attack, Transfer)
    return attack.source


class Watched(nn.Module):
    """Keeps what it was asked."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.asked = net, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad
        self.asked.append(x.detach().clone())
        return self.net(x).detach()


@pytest.mark.parametrize("answers", ["labels", "logits"])
def test_of_a_linear_model_it_learns_nearly_every_answer(answers: Any) -> None:
    model, net = LinearModel(12, 3).centred(), LinearModel(12, 3, seed=5)
    x = images(300, shape=(12,), dtype=torch.float64)
    surrogate = Surrogate(threat=LINF, net=net, answers=answers, num_queries=2000, num_epochs=30, lr=0.1)
    learned = source_of(surrogate.prepare(model, x, torch.zeros(300, dtype=torch.int64)))
    unseen = images(1000, seed=7, shape=(12,), dtype=torch.float64)
    before = (own_labels(net, unseen) == own_labels(model, unseen)).double().mean()
    after = (own_labels(learned, unseen) == own_labels(model, unseen)).double().mean()
    assert before < 0.7
    assert after > 0.95


def test_the_examples_of_a_linear_surrogate_turn_the_linear_model() -> None:
    model, net = LinearModel(36, 2).centred(), LinearModel(36, 2, seed=5)
    x = images(500, dtype=torch.float64)
    y = own_labels(model, x)
    surrogate = Surrogate(threat=LINF, net=net, num_queries=1000, num_epochs=30, lr=0.03)
    suite = {"surrogate": surrogate, "noise": RandomNoise(threat=LINF)}
    report = evaluate(model, x[:200], y[:200], suite, prepare_on=(x[200:], y[200:]))
    # The largest margin that any attack inside Linf can overcome: eps times the L1 norm of the difference of weights.
    weight = np.subtract(*model.linear.weight.detach().numpy())
    margin = np.abs(x[:200].flatten(1).numpy() @ weight + float(np.subtract(*model.linear.bias.detach().numpy())))
    may_fall = margin < 0.1 * np.abs(weight).sum()
    assert not report.success["surrogate"].numpy()[~may_fall].any()
    assert report.success["surrogate"].sum() > 0.9 * may_fall.sum()
    assert report.success["surrogate"].sum() > 2 * report.success["noise"].sum()


@pytest.mark.parametrize(("num_queries", "expected"), [(10, 10), (50, 50), (130, 130), (200, 200), (333, 333)])
def test_it_asks_for_labels_alone_and_never_more_than_it_may(num_queries: int, expected: int) -> None:
    model = Watched(small_net())
    x, others = images(20), images(50, seed=5)
    y = own_labels(model.net, x)
    surrogate = Surrogate(threat=LINF, net=small_net(seed=1), num_queries=num_queries, num_epochs=1)
    report = evaluate(
        model, x, y, {"a": surrogate}, prepare_on=(others, own_labels(model.net, others)), probe_masking=False
    )
    assert report.cost["a"].num_forwards == expected
    assert report.cost["a"].num_backwards == 0
    assert sum(map(len, model.asked)) == expected + report.judge_cost.num_forwards


def test_new_points_lie_a_step_from_old_ones_towards_the_told_label() -> None:
    """Equation 5 on a linear net, whose Jacobian is known: the sign of the gradient of the label's probability."""
    model, net = Watched(LinearModel(12, 2).centred()), LinearModel(12, 2, seed=5)
    x = 0.3 + 0.4 * images(30, shape=(12,), dtype=torch.float64)
    surrogate = Surrogate(threat=LINF, net=net, num_queries=60, num_epochs=1, lr=1e-9, augment_step=0.07)
    surrogate.prepare(model, x, torch.zeros(30, dtype=torch.int64))
    asked = torch.cat(model.asked)
    told = own_labels(model.net, x)
    weight = net.linear.weight.detach()
    assert torch.allclose(asked[:30], x)
    assert torch.allclose(asked[30:], x + 0.07 * torch.sign(weight[told] - weight[1 - told]))


def test_new_points_stay_inside_the_box() -> None:
    model = Watched(small_net())
    surrogate = Surrogate(threat=LINF, net=small_net(seed=1), num_queries=160, augment_step=0.9)
    surrogate.prepare(model, images(20), torch.zeros(20, dtype=torch.int64))
    asked = torch.cat(model.asked)
    assert float(asked.min()) == 0
    assert float(asked.max()) == 1


def test_it_does_not_know_the_true_classes() -> None:
    x = images(50)
    learned = [
        source_of(Surrogate(threat=LINF, net=small_net(seed=1)).prepare(small_net(), x, labels)).state_dict()
        for labels in (torch.zeros(50, dtype=torch.int64), torch.arange(50) % 4)
    ]
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[0])


def test_the_net_of_the_caller_stays_untrained_and_the_noise_is_the_seed_s() -> None:
    net, x = small_net(seed=1), images(50)
    y, before = own_labels(small_net(), x), copy.deepcopy(net.state_dict())
    surrogate = Surrogate(threat=LINF, net=net)

    def learned(seed: int) -> dict[str, Tensor]:
        return source_of(surrogate.prepare(small_net(), x, y, SampleRng.numbered(50, seed=seed))).state_dict()

    first = learned(1)
    torch.manual_seed(99)  # the net drops out at random
    again, other = learned(1), learned(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_queries": 0}, r"Surrogate\(num_queries=...\) must be >= 1, got 0"),
        ({"num_steps": 0}, r"Surrogate\(num_steps=...\) must be >= 1"),
        ({"num_epochs": 0}, r"Surrogate\(num_epochs=...\) must be >= 1"),
        ({"batch_size": 0}, r"Surrogate\(batch_size=...\) must be >= 1"),
        ({"lr": 0.0}, r"Surrogate\(lr=...\) must be > 0 and finite, got 0"),
        ({"lr": "1e-3"}, r"Surrogate\(lr=...\) must be a number > 0 and finite, got '1e-3'"),
        ({"augment_step": float("inf")}, r"Surrogate\(augment_step=...\) must be > 0 and finite, got inf"),
        ({"answers": "hints"}, r"Surrogate\(answers=...\) must be one of 'labels', 'logits', got 'hints'$"),
        ({"net": "net"}, r"Surrogate\(net=...\) must be a torch.nn.Module, got 'net'"),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Surrogate(**{"threat": LINF, "net": small_net(), **options})


def test_a_net_that_does_not_fit_or_diverges_is_named() -> None:
    x, y = images(50), torch.zeros(50, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=r"Surrogate\(net=...\) must give logits of the model's shape \(1, 4\), got \(1, 3\)"
    ):
        Surrogate(threat=LINF, net=small_net(num_classes=3)).prepare(small_net(), x, y)
    other_channels = Surrogate(threat=LINF, net=nn.Conv2d(7, 4, 3))
    with pytest.raises(ValueError, match=r"Surrogate\(net=...\): on the model's images, .* 7 channels"):
        other_channels.prepare(small_net(), x, y)
    twice_linear = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 8), nn.Linear(8, 4))
    with pytest.raises(ValueError, match=r"Surrogate\(lr=1e\+30\) is too large"):
        Surrogate(threat=LINF, net=twice_linear, lr=1e30).prepare(small_net(), x, y)
