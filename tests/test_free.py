"""`Free` inside a Trainer: each batch several times in a row, and nothing of it left for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader

from touchstone.attacks import Linf
from touchstone.callbacks import ExactResume
from touchstone.lightning_modules import Classifier, Free
from touchstone.lightning_modules.adversarial_training import Learned

from .lightning_programs import Loaders, OrdinaryModule, samples, sgd, train_loader, trainer, val_loader, weights
from .oracles import small_net

LINF = Linf(eps=0.1)


class Watching(Free):
    """Keeps the images that it learns from."""

    def __init__(self, seen: list[Tensor]) -> None:
        super().__init__(LINF, num_repeats=3)
        self.seen = seen

    def learn(self, model: nn.Module, x: Tensor, *rest: Any) -> Learned:
        self.seen.append(x.clone())
        return super().learn(model, x, *rest)


def test_free_gets_each_batch_several_times_in_a_row(tmp_path: Path) -> None:
    seen: list[Tensor] = []
    module = Classifier(small_net(7), sgd, strategy=Watching(seen))
    run = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    run.fit(module, train_loader(), val_loader())
    assert run.global_step == len(seen) == 15
    assert all(torch.equal(seen[i], seen[i - i % 3]) for i in range(15))
    assert sorted(torch.cat(seen[::3]).flatten(1).sum(1).tolist()) == pytest.approx(
        sorted(samples(40, seed=1).tensors[0].flatten(1).sum(1).tolist())
    )


@pytest.mark.parametrize("combine", [lambda loader: loader, lambda loader: CombinedLoader(loader, "min_size")])
def test_the_loader_that_free_was_given_repeats_nothing_for_others(combine: Any, tmp_path: Path) -> None:
    """A loader that a program makes, and gives to one run after another."""
    loader, num_steps = combine(train_loader()), []
    for strategy in (None, Free(LINF, num_repeats=3), Free(LINF, num_repeats=2), None):
        run = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
        run.fit(Classifier(small_net(7), sgd, strategy=strategy), loader, val_loader())
        num_steps.append(run.global_step)
    assert num_steps == [5, 15, 10, 5]


class BringsData(Classifier):
    """A module that has its data itself."""

    def train_dataloader(self) -> DataLoader:
        return train_loader()

    def val_dataloader(self) -> DataLoader:
        return val_loader()


@pytest.mark.parametrize("brings_data", [False, True])
def test_a_trainer_goes_on_with_free_and_then_without_it(brings_data: bool, tmp_path: Path) -> None:
    """Lightning says anew for each fit whose training data it takes, but not by which method."""
    make, data = (BringsData, None) if brings_data else (Classifier, Loaders())
    module = make(small_net(7), sgd, strategy=Free(LINF, num_repeats=3))
    run, num_steps = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0, limit_val_batches=1), []
    for model in (module, module, make(small_net(7), sgd)):
        before = run.global_step
        run.fit(model, datamodule=data)
        num_steps.append(run.global_step - before)
        run.test(model, val_loader(), verbose=False)
        run.fit_loop.max_epochs += 1  # type: ignore[operator]
    assert num_steps == [15, 15, 5]


def test_a_trainer_whose_fit_with_free_broke_off_fits_a_module_of_another_program(tmp_path: Path) -> None:
    class Breaks(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            raise RuntimeError("broken off")

    run = trainer(tmp_path, Breaks(), max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(RuntimeError, match="broken off"):
        run.fit(Classifier(small_net(7), sgd, strategy=Free(LINF, num_repeats=3)), datamodule=Loaders())
    run.callbacks.clear()  # type: ignore[attr-defined]
    begun = run.global_step
    run.fit(OrdinaryModule(), datamodule=Loaders())
    assert run.global_step - begun == 5


class Noisy(pl.LightningDataModule):
    """Adds noise of its own to each training image wherever it comes, as augmentation on the device does."""

    def train_dataloader(self) -> DataLoader:
        return train_loader()

    def val_dataloader(self) -> DataLoader:
        return val_loader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return ((x + 0.05 * torch.rand_like(x)).clamp(0, 1), y) if self.trainer.training else (x, y)  # type: ignore[union-attr]


def test_free_learns_from_the_same_augmented_batch_each_time_and_after_a_stop_between(tmp_path: Path) -> None:
    """Its images are those of the first time, bit for bit, also where a checkpoint lies between two times."""
    seen: list[Tensor] = []

    class Saving(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "between.ckpt")

    def fit(checkpoint: Path | None = None) -> dict[str, Tensor]:
        seen.clear()
        torch.manual_seed(0)
        module = Classifier(small_net(7), sgd, strategy=Watching(seen))
        run = trainer(tmp_path, ExactResume(), Saving(), max_epochs=1, num_sanity_val_steps=0)
        run.fit(module, Noisy(), ckpt_path=checkpoint)
        return weights(module.net)

    whole, seen_in_whole = fit(), list(seen)
    assert all(torch.equal(seen[i], seen[i - i % 3]) for i in range(15))
    assert not torch.equal(seen[0], seen[3])
    resumed = fit(tmp_path / "between.ckpt")
    assert [torch.equal(one, other) for one, other in zip(seen_in_whole[5:], seen, strict=True)] == [True] * 10
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
