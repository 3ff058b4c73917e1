"""Strategies of adversarial training inside a Trainer: clipping, accumulation, checkpoints, averages, augmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import Tensor, nn

from touchstone.attacks import PGD, Linf
from touchstone.callbacks import ExactResume, GradientNorm, RecurrentJacobian, RobustAccuracy
from touchstone.lightning_modules import (
    AWP,
    FGSMRS,
    MART,
    PGDAT,
    TRADES,
    Classifier,
    EpsWarmup,
    Free,
    Mixed,
    Strategy,
)
from touchstone.lightning_modules.adversarial_training.parts.remembering import Remembering

from .lightning_programs import sgd, train_loader, trainer, val_loader, weights
from .oracles import small_net

LINF = Linf(eps=0.1)
PGD_3 = PGD(threat=LINF, num_steps=3, step_size=0.03, to_the_end=True)
NEARBY_3 = PGD(threat=LINF, num_steps=3, step_size=0.03, start_std=0.001)

IN_A_TRAINER: dict[str, Callable[[], Strategy]] = {
    "plain": Strategy,
    "pgd-at": lambda: PGDAT(PGD_3),
    "trades": lambda: TRADES(NEARBY_3),
    "mart": lambda: MART(PGD_3),
    "fgsm-rs": lambda: FGSMRS(LINF),
    "free": lambda: Free(LINF, num_repeats=3),
    "mixed": lambda: Mixed(PGDAT(PGD_3)),
    "awp": lambda: AWP(EpsWarmup(PGDAT(PGD_3), num_batches=3)),
}


class StepLengths(pl.Callback):
    """Keeps how far each optimizer step moves the weights."""

    def __init__(self) -> None:
        self.last: Tensor | None = None
        self.moved: list[float] = []

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        self.last = nn.utils.parameters_to_vector(module.net.parameters()).detach().clone()

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        now = nn.utils.parameters_to_vector(module.net.parameters()).detach()
        assert self.last is not None
        self.moved.append(float((now - self.last).norm()))


@pytest.mark.parametrize("name", IN_A_TRAINER)
def test_under_every_strategy_a_clipped_step_is_as_long_as_the_clip_and_comes_after_so_many_batches(
    name: str, tmp_path: Path
) -> None:
    """Plain SGD moves by the learning rate times the norm of the gradient, which the clip cuts to 0.02."""
    steps, module = StepLengths(), Classifier(small_net(7), sgd, strategy=IN_A_TRAINER[name]())
    options: dict[str, Any] = {"gradient_clip_val": 0.02, "accumulate_grad_batches": 2, "num_sanity_val_steps": 0}
    trainer(tmp_path, steps, max_epochs=1, **options).fit(module, train_loader(), val_loader())
    num_batches = 15 if name == "free" else 5
    expected = [0.05 * 0.02 if batch % 2 or batch == num_batches - 1 else 0.0 for batch in range(num_batches)]
    assert steps.moved == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", IN_A_TRAINER)
def test_every_strategy_works_with_clipping_and_accumulation_and_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    """Two epochs in one go, and two with a checkpoint, a new module and a new trainer between them."""

    def fit(folder: str, num_epochs: int, checkpoint: Path | None = None) -> Classifier:
        torch.manual_seed(0)
        module = Classifier(small_net(7), sgd, strategy=IN_A_TRAINER[name]())
        options: dict[str, Any] = {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2, "num_sanity_val_steps": 0}
        run = trainer(tmp_path / folder, ExactResume(), max_epochs=num_epochs, **options)
        run.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
        run.save_checkpoint(tmp_path / f"{folder}.ckpt")
        return module

    whole = weights(fit("whole", 2).net)
    fit("half", 1)
    resumed = weights(fit("resumed", 2, tmp_path / "half.ckpt").net)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert all(value.isfinite().all() for value in whole.values())


def test_stochastic_averages_are_left_alone_by_the_pass_that_measures_their_statistics(tmp_path: Path) -> None:
    """Lightning's callback passes the training data once more behind the last epoch, without a backward pass."""
    average = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)
    module = Classifier(small_net(7), sgd, strategy=AWP(PGDAT(PGD_3), gamma=0.1))
    trainer(tmp_path, average, max_epochs=3, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
    expected = dict(average._average_model.named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in module.named_parameters())


@pytest.mark.parametrize("name", ["awp", "free"])
def test_robust_accuracy_is_that_of_the_averaged_weights(name: str, tmp_path: Path) -> None:
    """EMA by Lightning's callback, listed behind the measuring ones: they measure, and the checkpoint has, the average.

    The average is kept again by hand, step by step, of what the optimizer left.
    """
    averages: dict[str, Tensor] = {}

    class ByHand(RobustAccuracy):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            for key, value in pl_module.net.named_parameters():
                kept = averages.setdefault(key, value.detach().clone())
                if trainer.global_step > 1:
                    kept.mul_(0.8).add_(0.2 * value.detach())

        def see(self, model: nn.Module, *rest: Any) -> None:
            measured.append({key: value.detach().clone() for key, value in model.net.named_parameters()})
            super().see(model, *rest)

        def conclude(self, trainer: Any, module: Any, *rest: Any) -> None:
            measured.append({key: value.detach().clone() for key, value in module.net.named_parameters()})
            super().conclude(trainer, module, *rest)

    measured: list[dict[str, Tensor]] = []
    module = Classifier(small_net(7), sgd, strategy=IN_A_TRAINER[name]())
    callbacks = [ByHand(attacks={"pgd": PGD_3}, num_images=0), EMAWeightAveraging(decay=0.8)]
    run = trainer(tmp_path, *callbacks, max_epochs=1, num_sanity_val_steps=0)
    run.fit(module, train_loader(), val_loader())
    run.save_checkpoint(tmp_path / "run.ckpt")
    stored = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    assert len(measured) == 4  # three batches, and the end, where the waiting samples are attacked
    for key, value in averages.items():
        for seen in measured:
            torch.testing.assert_close(seen[key], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stored[f"net.{key}"], value, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.* begins anew")
@pytest.mark.parametrize("before", IN_A_TRAINER)
def test_a_checkpoint_of_another_strategy_loads_and_its_memory_begins_anew(before: str, tmp_path: Path) -> None:
    """What a strategy remembers is no part of the model."""
    module = Classifier(small_net(7), sgd, strategy=IN_A_TRAINER[before]())
    options: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 2, "num_sanity_val_steps": 0}
    first = trainer(tmp_path, **options)
    first.fit(module, train_loader(), val_loader())
    first.save_checkpoint(tmp_path / "run.ckpt")
    trained = weights(module.net)
    for name, make in IN_A_TRAINER.items():
        other = Classifier(small_net(8), sgd, strategy=make())
        memory = {key: part.memory for key, part in other.named_modules() if isinstance(part, Remembering)}
        trainer(tmp_path, **options).validate(other, val_loader(), ckpt_path=tmp_path / "run.ckpt", verbose=False)
        assert all(torch.equal(value, trained[key]) for key, value in weights(other.net).items())
        kept = {key: part.memory for key, part in module.named_modules() if isinstance(part, Remembering)}
        for key, was in memory.items():
            now = other.get_submodule(key).memory
            assert now is was if name != before else all(torch.equal(now[item], kept[key][item]) for item in now)
        further = trainer(tmp_path, **options | {"max_epochs": 2})
        further.fit(other, train_loader(), val_loader(), ckpt_path=tmp_path / "run.ckpt")


def test_a_memory_that_begins_anew_is_said_to() -> None:
    """What has fallen back to another attack would go on with the one that overfitted."""
    before = Classifier(small_net(7), strategy=FGSMRS(LINF)).state_dict()
    for strategy in (AWP(FGSMRS(LINF)), Free(LINF), AWP(EpsWarmup(PGDAT(PGD_3), num_batches=3))):
        name = type(getattr(strategy, "strategy", strategy)).__name__
        with pytest.warns(UserWarning, match=f"{name} begins anew: the checkpoint is of another strategy"):
            Classifier(small_net(7), strategy=strategy).load_state_dict(before)
    for strategy in (None, FGSMRS(LINF), AWP(PGDAT(PGD_3))):
        Classifier(small_net(7), strategy=strategy).load_state_dict(before)  # a warning would be an error


@pytest.mark.parametrize("probe", [RobustAccuracy({"pgd": PGD_3}), GradientNorm(), RecurrentJacobian()])
def test_what_would_end_its_pass_on_weights_before_averaging_is_refused(probe: pl.Callback, tmp_path: Path) -> None:
    """An average that is listed in front takes itself back before the others end their pass."""
    run = trainer(tmp_path, EMAWeightAveraging(decay=0.8), probe, max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match=f"{type(probe).__name__} must stand before EMAWeightAveraging"):
        run.fit(Classifier(small_net(7), sgd), train_loader(), val_loader())
