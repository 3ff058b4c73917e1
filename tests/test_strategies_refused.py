"""What strategies refuse, and which labels they take."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks import (
    APGD,
    FAB,
    FGSM,
    L0,
    PGD,
    EmbeddingBall,
    HotFlip,
    InBfloat16,
    L1Adam,
    Linf,
    SampleRng,
    Strongest,
    TokenFlips,
    Universal,
)
from touchstone.lightning_modules import (
    AWP,
    FGSMRS,
    MART,
    PGDAT,
    TRADES,
    Classifier,
    EpsWarmup,
    Free,
    InnerAttack,
    Mixed,
    Strategy,
)
from touchstone.lightning_modules.adversarial_training import Criterion, Learned

from .lightning_programs import train_loader, trainer, val_loader
from .oracles import small_net
from .strategies_setting import LINF, NEARBY_3, PGD_3, RNG, net_and_batch

AT_THE_EMBEDDING = PGD(threat=EmbeddingBall(eps=0.5))
PIXELS, TOKENS = L0(eps=10), TokenFlips(2, vocab_size=9)

BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: TRADES(PGD_3, beta=-1), r"TRADES\(beta=...\) must be >= 0 and finite, got -1"),
    (lambda: TRADES(PGD_3, beta=math.nan), r"TRADES\(beta=...\) must be >= 0 and finite, got nan"),
    (lambda: TRADES(PGD(threat=Linf(eps=torch.rand(4)))), r"TRADES\(attack=...\) must hold for every sample"),
    (lambda: TRADES(Strongest(threat=LINF)), r"TRADES\(attack=...\) must climb what it is told to, .* got Strongest"),
    (lambda: TRADES(FGSM(threat=LINF)), r"TRADES\(attack=...\) must begin beside the images, .* got FGSM"),
    (lambda: TRADES(InBfloat16(attack=FGSM(threat=LINF))), r"TRADES\(attack=...\) must begin beside the images"),
    (lambda: TRADES(L1Adam(threat=LINF)), r"TRADES\(attack=...\) must begin beside the images, .* got L1Adam"),
    (lambda: TRADES(PGD(threat=LINF, random_start=False)), r"TRADES\(attack=...\) must begin beside the images"),
    (lambda: TRADES(APGD(threat=LINF, num_targets=3)), r" as PGD, and APGD without num_targets, do, got APGD, which"),
    (lambda: TRADES(FAB(threat=LINF)), r"TRADES\(attack=...\) must climb what it is told to, .* got FAB"),
    (lambda: PGDAT(Universal(threat=LINF)), r"PGDAT\(attack=...\) must be ready, .* got Universal, which learns"),
    (lambda: PGDAT(AT_THE_EMBEDDING), r"PGDAT learns from attacked samples, .* got EmbeddingBall\(eps=0.5\)"),
    (lambda: TRADES(AT_THE_EMBEDDING), r"TRADES learns from attacked samples, .* got EmbeddingBall"),
    (lambda: MART(InBfloat16(attack=AT_THE_EMBEDDING)), r"MART learns from attacked samples, .* got EmbeddingBall"),
    (lambda: FGSMRS(AT_THE_EMBEDDING.threat), r"FGSMRS learns from attacked samples, .* got EmbeddingBall"),
    (lambda: FGSMRS(LINF, fallback=AT_THE_EMBEDDING), r"learns from attacked samples, .* got EmbeddingBall"),
    (lambda: MART(PGD_3, weight=-0.5), r"MART\(weight=...\) must be >= 0 and finite, got -0.5"),
    (lambda: MART(PGD_3, mode="both"), r"MART\(mode=...\) must be one of 'eval', 'train', got 'both'"),  # type: ignore[arg-type]
    (lambda: FGSMRS(LINF, rel_step_size=0), r"FGSMRS\(rel_step_size=...\) must be > 0 and finite, got 0"),
    (lambda: Free(LINF, num_repeats=0), r"Free\(num_repeats=...\) must be >= 1, got 0"),
    (lambda: Free(LINF, rel_step_size=-1), r"Free\(rel_step_size=...\) must be > 0 and finite, got -1"),
    (lambda: Free(PGD_3), r"Free\(threat=...\) must be a ball such as Linf\(eps=8 / 255\), got PGD"),  # type: ignore[arg-type]
    (lambda: Free(Linf(eps=torch.rand(4))), r"Free\(threat=...\) must hold for every sample of every batch"),
    (lambda: AWP(PGDAT(PGD_3), gamma=0), r"AWP\(gamma=...\) must be > 0 and finite, got 0"),
    (lambda: AWP(AWP(PGDAT(PGD_3))), r"AWP\(strategy=...\) must have no other AWP inside, got AWP"),
    (lambda: AWP(EpsWarmup(AWP(PGDAT(PGD_3)), num_batches=2)), r"must have no other AWP inside, got EpsWarmup"),
    (lambda: Mixed(PGDAT(PGD_3), clean_share=2), r"Mixed\(clean_share=...\) must be in \[0, 1\], got 2"),
    (lambda: EpsWarmup(PGDAT(PGD_3), num_batches=0), r"EpsWarmup\(num_batches=...\) must be >= 1, got 0"),
    (lambda: EpsWarmup(Strategy(), num_batches=5), r"Strategy has no eps that could grow"),
    (
        lambda: EpsWarmup(PGDAT(PGD(threat=PIXELS)), num_batches=5),
        r"can grow by degrees, .* got L0\(eps=10.0\)",
    ),
    (lambda: EpsWarmup(Free(PIXELS), num_batches=3), r"can grow by degrees, .* got L0\(eps=10.0\)"),
    (lambda: EpsWarmup(MART(HotFlip(threat=TOKENS)), num_batches=2), r"can grow by degrees, .* got TokenFlips"),
    (lambda: PGD(threat=LINF, start_std=0), r"PGD\(start_std=...\) must be > 0 and finite, got 0"),
    (lambda: PGD(threat=LINF, start_std="0.1"), r"PGD\(start_std=...\) must be a number > 0 and finite, got '0.1'"),
    (lambda: PGD(threat=LINF, start_std=1, random_start=False), r"PGD\(start_std=...\) needs random_start=True"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_a_wrong_value_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


class Forgetful(Strategy):
    """Cannot learn from the same images again."""

    def learn(self, *args: Any) -> Learned:
        learned = super().learn(*args)
        return Learned(learned.loss, learned.logits)


def test_a_strategy_that_forgets_the_constructor_of_its_base_is_told() -> None:
    class Bare(Strategy):
        def __init__(self) -> None:
            self.weight = 0.1

    with pytest.raises(ValueError, match=r"Bare.__init__ must call super\(\).__init__\(\), as that of every Strategy"):
        Classifier(small_net(), strategy=Bare())


@pytest.mark.parametrize(
    "strategy", [PGDAT(PGD_3), TRADES(NEARBY_3), MART(PGD_3), FGSMRS(LINF), Mixed(PGDAT(PGD_3)), AWP(TRADES(PGD_3))]
)
def test_shares_of_classes_are_refused_by_what_attacks_a_class(strategy: Strategy) -> None:
    net, x, y = net_and_batch()
    shares = (F.one_hot(y, 4) + F.one_hot(y.roll(1), 4)).double() / 2
    name = type(getattr(strategy, "strategy", strategy)).__name__
    message = (
        rf"{name} needs class numbers as labels, int64 `\(N,\)`, which its attack aims at, got shares of classes of "
        r"the shape \(8, 4\): train without MixUp and CutMix, or with Free or no strategy"
    )
    with pytest.raises(ValueError, match=message):
        strategy.learn(net, x, shares, Criterion(), RNG)


@pytest.mark.parametrize("strategy", [Strategy(), Free(LINF), Mixed(Free(LINF)), AWP(Strategy())])
def test_shares_of_classes_are_learned_from_where_nothing_attacks_a_class(strategy: Strategy) -> None:
    net, x, y = net_and_batch()
    learned = [
        strategy.learn(net_and_batch()[0], x, labels, Criterion(), RNG).loss for labels in (y, F.one_hot(y, 4).double())
    ]
    torch.testing.assert_close(*learned)


def test_awp_around_a_strategy_that_cannot_learn_again_is_refused() -> None:
    net, x, y = net_and_batch()
    with pytest.raises(ValueError, match=r"AWP\(strategy=...\): Forgetful must give `Learned\(again=...\)`"):
        AWP(Forgetful()).learn(net, x, y, Criterion(), RNG)


@pytest.mark.parametrize(
    ("learned", "problem"),
    [
        (lambda loss, logits: loss, r"Learned\(loss, logits\), got a Tensor"),
        (lambda loss, logits: Learned(loss.item(), logits), "a tensor as loss, got a float"),
        (lambda loss, logits: Learned(loss * torch.ones(8), logits), r"a loss of shape \(\), .*, got \(8,\)"),
        (lambda loss, logits: Learned(loss, logits[:3]), r"logits of shape \(8, classes\), .*, got \(3, 4\)"),
        (lambda loss, logits: Learned(loss, logits[:, 0]), r"logits of shape \(8, classes\), .*, got \(8,\)"),
    ],
)
def test_a_strategy_of_one_s_own_that_returns_something_else_is_named(
    tmp_path: Path, learned: Callable[..., Any], problem: str
) -> None:
    class Own(Strategy):
        def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Any:
            logits = model(x)
            return learned(criterion(logits, y), logits)

    for strategy in (Own(), AWP(Own()), Mixed(Own())):
        classifier = Classifier(small_net(7), strategy=strategy)
        with pytest.raises(ValueError, match=f"Own.learn must return {problem}"):
            trainer(tmp_path, max_epochs=1).fit(classifier, train_loader(), val_loader())


@pytest.mark.parametrize("again", [lambda: 3, lambda: 1 / 0, lambda: None])
def test_weights_are_back_where_learning_once_more_gives_nothing(again: Callable[[], Any]) -> None:
    class Own(Strategy):
        def learn(self, *args: Any) -> Learned:
            learned = super().learn(*args)
            return Learned(learned.loss, learned.logits, again)

    net, x, y = net_and_batch()
    before = copy.deepcopy(net.state_dict())
    with suppress(ValueError, ZeroDivisionError):
        assert AWP(Own()).learn(net, x, y, Criterion(), RNG) is None
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("around", [lambda own: own, AWP, Mixed])
def test_a_batch_may_be_left_out_and_a_loss_have_one_axis(tmp_path: Path, around: Callable[..., Strategy]) -> None:
    class Own(Strategy):
        num_seen = 0

        def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Any:
            self.num_seen += 1

            def take() -> Learned:
                logits = model(x)
                return Learned(criterion(logits, y)[None], logits, again=take)

            return None if self.num_seen == 2 else take()

    run = trainer(tmp_path, max_epochs=1, limit_train_batches=3)
    run.fit(Classifier(small_net(7), strategy=around(Own())), train_loader(), val_loader())
    assert run.callback_metrics["train/loss"].isfinite()
    assert run.global_step == 3  # Lightning steps, without a gradient


def test_a_base_that_attacks_and_does_not_learn_is_refused() -> None:
    class Forgetful(InnerAttack):
        def lern(self) -> None: ...

    with pytest.raises(TypeError, match=r"Forgetful must define learn\(self, model, x, y, criterion, rng\)"):
        Forgetful(PGD_3)
