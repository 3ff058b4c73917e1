"""Samples that are whole numbers, and threats somewhere inside a model: the judge and the callback measure both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import PGD, Attack, Linf, Margin, SampleRng, Threat, Untargeted, evaluate
from touchstone.attacks.threats.embedding_ball import TokenBalls
from touchstone.callbacks import RobustAccuracy
from touchstone.lightning_modules import Classifier

from .lightning_programs import trainer

NUM_TOKENS, LENGTH, DIM = 11, 5, 3


def test_starts_are_as_many_in_any_part_of_a_vectors_ball_as_it_has_volume() -> None:
    x, free = torch.zeros(8000, 2, 3, dtype=torch.float64), torch.tensor([[True, False]]).expand(8000, 2)
    start = TokenBalls(0.4, free=free).start(x, SampleRng.numbered(8000))
    lengths = (start.norm(dim=2) / 0.4).T
    assert (lengths[1] == 0).all()
    within = [float((lengths[0] <= radius).double().mean()) for radius in (0.5, 0.8, 0.95)]
    assert within == pytest.approx([0.5**3, 0.8**3, 0.95**3], abs=0.02)


@dataclass(frozen=True, repr=False)
class AtTheEmbedding(Linf):
    """What the first layer gives may change by eps."""

    def enter(self, model: nn.Module, x: Tensor) -> tuple[Threat, nn.Module, Tensor]:
        embedding, rest = parts(model)
        return Linf(eps=self.eps, box=None), rest, embedding(x)

    def check_input(self, x: Tensor) -> None:
        if x.is_floating_point():
            raise ValueError(f"tokens must be whole numbers, got {x.dtype}")


@dataclass(frozen=True)
class OneToken(Threat):
    """Any one token may become any other."""

    eps: float = 1.0

    def start(self, x: Tensor, rng: SampleRng) -> Tensor:
        return x

    direction = project = start  # type: ignore[assignment]

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (x_adv != x).sum(1).float()

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return self.distance(x_adv, x) <= self.eps

    def check_input(self, x: Tensor) -> None:
        if x.is_floating_point():
            raise ValueError(f"tokens must be whole numbers, got {x.dtype}")


@dataclass(frozen=True)
class EveryOne(Attack):
    """Tries every token at every place."""

    threat: Threat = OneToken()
    kind = "black box"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        best, least = x.clone(), torch.full((len(x),), torch.inf)
        for place in range(LENGTH):
            for token in range(NUM_TOKENS):
                tried = x.clone()
                tried[:, place] = token
                margin = -Margin()(model(tried), y)
                best[margin < least], least = tried[margin < least], least.minimum(margin)
        return best


def parts(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    net = model.net if isinstance(model, Classifier) else model
    assert isinstance(net, nn.Sequential)
    return net[0], net[1:]


def text_net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Embedding(NUM_TOKENS, DIM), nn.Flatten(), nn.Linear(LENGTH * DIM, 3)).double()


@pytest.fixture
def net() -> nn.Sequential:
    return text_net()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(NUM_TOKENS, (60, LENGTH), generator=torch.Generator().manual_seed(0))


def test_verdicts_inside_a_model_are_those_of_the_closed_form(net: nn.Sequential, tokens: Tensor) -> None:
    """Behind the embedding the net is linear: the margin towards class j falls by at most eps * |w_y - w_j|_1."""
    logits, weight, eps = net(tokens).detach(), net[2].weight.detach(), 0.15
    y = logits.argmax(1)
    falls = eps * (weight[y][:, None] - weight[None]).abs().sum(2)
    gaps = logits.gather(1, y[:, None]) - logits - falls
    expected = (gaps > 0).scatter(1, y[:, None], True).all(1)
    attack = PGD(threat=AtTheEmbedding(eps=eps), objective=Untargeted(loss=Margin()), num_restarts=3)
    report = evaluate(net, tokens, y, {"pgd": attack}, keep_adversarial=True)
    assert 10 < int(expected.sum()) < 50
    assert torch.equal(report.robust["pgd"], expected)
    assert report.x_adv["pgd"].shape == (60, LENGTH, DIM)
    assert float((report.x_adv["pgd"] - net[0](tokens).detach()).abs().max()) == pytest.approx(eps)
    assert report.cost["pgd"].num_backwards > 0


def test_an_attack_inside_a_model_can_be_called_by_itself(net: nn.Sequential, tokens: Tensor) -> None:
    y = net(tokens).argmax(1)
    x_adv = PGD(threat=AtTheEmbedding(eps=0.15))(net, tokens, y)
    alone = PGD(threat=Linf(eps=0.15, box=None))(net[1:], net[0](tokens), y)
    assert torch.equal(x_adv, alone)


def test_tokens_stay_whole_numbers_and_are_measured_again(net: nn.Sequential, tokens: Tensor) -> None:
    y = net(tokens).argmax(1)
    report = evaluate(net, tokens, y, {"flip": EveryOne()}, keep_adversarial=True)
    assert report.x_adv["flip"].dtype == torch.int64
    again = net(report.x_adv["flip"]).argmax(1) == y
    assert torch.equal(report.robust["flip"], again)
    assert 0 < int(again.sum()) < 60


def test_float_samples_for_tokens_name_the_attack(net: nn.Sequential, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="attack 'flip': tokens must be whole numbers, got torch.float32"):
        evaluate(net, tokens.float(), torch.zeros(60, dtype=torch.int64), {"flip": EveryOne()})


def test_the_callback_measures_what_the_judge_measures(tokens: Tensor, tmp_path: Path) -> None:
    y = text_net()(tokens).argmax(1)
    attacks = {"pgd": PGD(threat=AtTheEmbedding(eps=0.15)), "flip": EveryOne()}
    run = trainer(tmp_path, RobustAccuracy(attacks))
    run.validate(Classifier(text_net()), DataLoader(TensorDataset(tokens, y), 16), verbose=False)
    report = evaluate(text_net(), tokens, y, attacks)
    assert run.callback_metrics["val/robust_accuracy/worst_case"] == pytest.approx(report.accuracy())
    assert json.loads(next(tmp_path.rglob("report.json")).read_text())["num_samples"] == 60
