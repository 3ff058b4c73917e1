"""Strategies of adversarial training: what they minimise, from which images, and what they do to BatchNorm."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from touchstone.attacks import PGD, Linf, RandomNoise, SampleRng, Targeted
from touchstone.lightning_modules import PGDAT, Classifier
from touchstone.lightning_modules.adversarial_training import Criterion, Learned, Strategy

from .lightning_programs import samples, train_loader, trainer, val_loader
from .oracles import small_net

PGD_3 = PGD(threat=Linf(eps=0.1), num_steps=3)


@pytest.mark.parametrize(("mode", "updates_per_step"), [("eval", 1), ("train", 4)])
def test_the_mode_of_the_training_attack_decides_over_running_statistics(
    tmp_path: Path, mode: Any, updates_per_step: int
) -> None:
    attack = PGD(threat=Linf(eps=0.1), num_steps=3, early_stop=False)
    module = Classifier(small_net(7), strategy=PGDAT(attack, mode=mode))
    trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
    assert int(module.net[1].num_batches_tracked) == 5 * updates_per_step  # type: ignore[index,union-attr,arg-type]


def test_a_training_step_learns_from_the_attacked_images() -> None:
    """The loss of one step on PGD examples, taken again by hand."""

    by_lightning = Classifier(small_net(7), torch.optim.SGD, strategy=PGDAT(PGD_3))
    batch = next(iter(train_loader()))
    by_lightning.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    rng = SampleRng.numbered(8, seed=5).fold(0).fold(0).fold(0)  # the run's seed; rank, step and batch
    x_adv = PGD_3(small_net(7), *batch, rng)
    torch.manual_seed(5)
    expected = F.cross_entropy(small_net(7).train()(x_adv), batch[1])
    torch.manual_seed(5)
    by_lightning.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    got = by_lightning.training_step(tuple(batch), 0)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    assert not torch.equal(x_adv, batch[0])


class Remembering(PGDAT):
    """Keeps the attacked images of training."""

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Any, rng: SampleRng) -> Learned:
        attack = self.attack

        def remember(*args: Any, **kwargs: Any) -> Tensor:
            self.__dict__.setdefault("seen", []).append(attack(*args, **kwargs))
            return self.seen[-1]

        with patch.object(self, "attack", remember):
            return super().learn(model, x, y, criterion, rng)


def attacked_in_a_fit(folder: Path, seed: int, **options: Any) -> list[Tensor]:
    """The same four images in every batch, as a training attack changes them."""
    loader = DataLoader(ConcatDataset([samples(4)] * 4), 4)
    pl.seed_everything(seed)
    strategy = Remembering(RandomNoise(threat=Linf(eps=0.1)))
    run = trainer(folder, max_epochs=2, num_sanity_val_steps=0, **options)
    run.fit(Classifier(small_net(7), strategy=strategy), loader, val_loader())
    return strategy.seen


def test_every_batch_of_an_accumulation_has_noise_of_its_own(tmp_path: Path) -> None:
    seen = attacked_in_a_fit(tmp_path, 0, accumulate_grad_batches=4)
    assert len(seen) == 8
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(seen, 2))


def test_the_seed_of_the_run_decides_the_noise_of_the_training_attack(tmp_path: Path) -> None:
    first, again, other = (attacked_in_a_fit(tmp_path / str(i), seed) for i, seed in enumerate((0, 0, 1)))
    assert all(torch.equal(one, same) for one, same in zip(first, again, strict=True))
    assert all(not torch.equal(one, different) for one, different in zip(first, other, strict=True))


def test_the_training_attack_draws_nothing_from_the_global_random_state() -> None:
    net, strategy = small_net(7).eval(), PGDAT(RandomNoise(threat=Linf(eps=0.1)))
    before = torch.get_rng_state()
    strategy.learn(net, *samples(4).tensors, Criterion(), SampleRng.numbered(4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("target", ["random", "runner_up", 2])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_any_objective_can_be_trained_on(tmp_path: Path, mode: Any, target: Any) -> None:
    attack = PGD(threat=Linf(eps=0.1), num_steps=2, objective=Targeted(target=target))
    module = Classifier(small_net(7), strategy=PGDAT(attack, mode=mode))
    trainer(tmp_path, max_epochs=1).fit(module, train_loader(), val_loader())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_training_images_outside_the_box_are_an_error_in_every_mode(tmp_path: Path, mode: Any) -> None:
    module = Classifier(small_net(7), strategy=PGDAT(PGD_3, mode=mode))
    x, y = samples(8).tensors
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got values from .* to 2"):
        trainer(tmp_path).fit(module, DataLoader(TensorDataset(255 * x, y), 8), val_loader())


def test_a_training_attack_with_one_value_per_sample_is_refused() -> None:
    attack = PGD(threat=Linf(eps=torch.rand(8)))
    with pytest.raises(ValueError, match=r"PGDAT\(attack=...\) must hold for every sample of every batch"):
        PGDAT(attack)
    with pytest.raises(ValueError, match=r"PGDAT\(mode=...\) must be one of 'eval', 'train', got 'both'"):
        PGDAT(PGD_3, mode="both")  # type: ignore[arg-type]


class PullTowardsTheMean(Strategy):
    """A strategy with a state, and with something to do after the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("num_batches", torch.tensor(0))
        self.lengths: list[float] = []

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Any, rng: SampleRng) -> Learned:
        self.num_batches += 1
        return super().learn(model, x, y, criterion, rng)

    def after_backward(self, model: nn.Module) -> None:
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        self.lengths.append(float(torch.cat(gradients).norm()))


def test_a_strategy_keeps_its_state_in_the_checkpoint_and_sees_the_gradients(tmp_path: Path) -> None:
    strategy = PullTowardsTheMean()
    run = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0, gradient_clip_val=1e-3)
    run.fit(Classifier(small_net(7), strategy=strategy), train_loader(), val_loader())
    run.save_checkpoint(tmp_path / "run.ckpt")
    stored = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    assert int(stored["strategy.num_batches"]) == len(strategy.lengths) == 5
    assert min(strategy.lengths) > 1e-3  # before clipping
