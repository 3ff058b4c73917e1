"""When a probe is tried out before a training, and on what: real trainers, and a probe that writes it down."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from touchstone.attacks import FGSM
from touchstone.callbacks import GradientNorm, InputGradients, Probe, RobustAccuracy
from touchstone.callbacks.parts.passes.samples import Samples
from touchstone.callbacks.parts.passes.try_out import GreyPicture, StandIn, TrainingSamples, TryOut

from .lightning_programs import OrdinaryModule, samples, train_loader, trainer, val_loader
from .measured_runs import LINF, wrong_batches


class Watched(Probe):
    """Writes down what it is tried out on: the moment, the step, and the number of samples."""

    def __init__(self, stand_in: StandIn | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.stand_in = stand_in  # type: ignore[misc]
        self.seen: list[tuple[str, int, int]] = []
        self.step = 0

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        self.step = trainer.global_step
        super().on_train_batch_end(trainer, *rest)

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        self.seen.append(("samples", self.step, len(samples)))

    def try_input(self, samples: Samples) -> None:
        self.seen.append(("input", self.step, len(samples)))

    def try_output(self, model: nn.Module, samples: Samples) -> None:
        self.seen.append(("output", self.step, len(samples)))

    def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"mean": x.flatten(1).mean(1)}


@pytest.mark.parametrize("stand_in", [None, GreyPicture(), TrainingSamples()])
def test_a_sanity_check_tries_it_on_the_first_samples_of_each_loader_and_no_step_does(
    tmp_path: Path, stand_in: StandIn | None
) -> None:
    probe = Watched(stand_in, max_samples=5)
    loaders = [val_loader(), DataLoader(samples(7, seed=5), 4)]
    trainer(tmp_path, probe, num_sanity_val_steps=2).fit(OrdinaryModule(), train_loader(), loaders)
    assert probe.seen == [("samples", 0, 5), ("samples", 0, 4)]


@pytest.mark.parametrize(
    ("stand_in", "seen"),
    [
        (None, []),
        (GreyPicture(), [("samples", 0, 1), ("output", 1, 1)]),
        (TrainingSamples(), [("input", 0, 8), ("output", 1, 8)]),
    ],
)
def test_without_a_sanity_check_the_first_step_tries_it_on_what_stands_in(
    tmp_path: Path, stand_in: StandIn | None, seen: list[Any]
) -> None:
    probe = Watched(stand_in)
    run = trainer(tmp_path, probe, num_sanity_val_steps=0)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert probe.seen == seen
    run.validate(OrdinaryModule(), val_loader(), verbose=False)
    assert probe.seen == seen


@pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:You're resuming from a checkpoint")
def test_a_fit_that_goes_on_inside_an_epoch_has_no_sanity_check_and_is_tried_by_its_first_step(tmp_path: Path) -> None:
    every, probe = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3), Watched(TrainingSamples())
    saving: dict[str, Any] = {"enable_checkpointing": True, "max_epochs": 1}
    trainer(tmp_path, every, **saving).fit(OrdinaryModule(), train_loader(), val_loader())
    saved = tmp_path / "step=3.ckpt"
    run = trainer(tmp_path, probe, every, **saving)
    run.fit(OrdinaryModule(), train_loader(), val_loader(), ckpt_path=saved, weights_only=True)
    assert probe.seen == [("input", 0, 8), ("output", 4, 8)]


def test_a_process_without_samples_goes_on_as_those_that_had_some() -> None:
    probe = Watched(GreyPicture())
    batch, module = (torch.rand(4, 1, 6, 6), torch.zeros(4, dtype=torch.int64)), OrdinaryModule()

    def after_sanity_check(tried_elsewhere: bool) -> list[Any]:
        strategy = SimpleNamespace(reduce_boolean_decision=lambda mine, all: mine or tried_elsewhere)
        trying = TryOut(probe)
        trying.end_sanity_check(SimpleNamespace(strategy=strategy))  # type: ignore[arg-type]
        trying.before_step(module, batch)
        return probe.seen

    assert after_sanity_check(tried_elsewhere=True) == []
    assert after_sanity_check(tried_elsewhere=False) == [("samples", 0, 1)]


def test_the_entry_that_measures_for_all_speaks_for_all(tmp_path: Path) -> None:
    entries = [RobustAccuracy({name: FGSM(threat=LINF)}) for name in "ab"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer(tmp_path, *entries, num_sanity_val_steps=0, max_epochs=1).fit(
            OrdinaryModule(), wrong_batches(lambda x, y: (255 * x, y)), val_loader()
        )
    assert ["attack 'a'" in str(one.message) for one in said if "could not attack" in str(one.message)] == [True]


class Counting(Probe):
    """Keeps what it sees on its own, and forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        self.seen.append((len(samples), loader_index))


def test_what_a_sanity_check_tries_of_a_measurement_of_ones_own_is_the_model_alone(tmp_path: Path) -> None:
    probe = Counting()
    trainer(tmp_path, probe, max_epochs=1).fit(OrdinaryModule(), train_loader(), [val_loader(), val_loader()])
    assert probe.seen == [(num, index) for index in (0, 1) for num in (10, 10, 3)]


class OfThree(OrdinaryModule):
    def forward(self, x: Tensor, y: Any = None, z: Any = None) -> Any:
        return x, self.net(x)

    def _loss(self, batch: Any) -> Tensor:
        return self(batch[0])[1].sum()


def test_whose_model_may_give_anything_and_must_take_the_samples_alone(tmp_path: Path) -> None:
    class Needing(OfThree):
        def forward(self, x: Tensor, y: Any = None, z: Any = None) -> Any:
            return super().forward(x + z)

        def _loss(self, batch: Any) -> Tensor:
            return self(batch[0], z=0)[1].sum()

    trainer(tmp_path, Counting(), max_epochs=1).fit(OfThree(), train_loader(), val_loader())
    message = r"^Counting: the model cannot be called with the samples alone, torch.float32 \(10, 1, 6, 6\): TypeError"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, Counting()).fit(Needing(), train_loader(), val_loader())


def test_a_probe_that_prepares_itself_later_is_not_measured_before(tmp_path: Path) -> None:
    class Prepared(Probe):
        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"moved": (x - self.reference).flatten(1).mean(1)}

    class OutsideTheCheck(Prepared):
        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            if not trainer.sanity_checking:
                self.reference = torch.zeros(())

    class OfTests(Prepared):
        def is_due(self, trainer: Any) -> bool:
            return bool(trainer.testing)

        def on_test_start(self, trainer: Any, pl_module: Any) -> None:
            self.reference = torch.zeros(())

    run = trainer(tmp_path, OutsideTheCheck(), OfTests(), max_epochs=1)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert "val/moved" in run.callback_metrics


def test_a_loader_that_is_not_measured_is_not_tried(tmp_path: Path) -> None:
    foreign = DataLoader([(x, y + 99) for x, y in samples(4)], 4)
    run = trainer(tmp_path, InputGradients(), max_epochs=1)
    run.fit(OfForeign(), train_loader(), [val_loader(), foreign])
    with pytest.raises(ValueError, match="^GradientNorm: labels must be classes of the model"):
        trainer(tmp_path, GradientNorm()).fit(OfForeign(), train_loader(), [val_loader(), foreign])


class OfForeign(OrdinaryModule):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        pass
