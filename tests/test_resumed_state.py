"""What callbacks, strategies and modules keep for themselves is in the checkpoint: a resumed run goes on with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import FGSM, PGD, Linf
from touchstone.callbacks import (
    AugmentationGallery,
    CatastrophicOverfitting,
    ExactResume,
    Health,
    NotFinite,
    RobustAccuracy,
)
from touchstone.datamodules import TextDataModule
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.lightning_modules.adversarial_training import AWP, PGDAT, EpsWarmup, Free, Strategy
from touchstone.nets import RecurrentLM

from .lightning_programs import OrdinaryModule, events, train_loader, trainer, val_loader, weights
from .oracles import small_net

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed from")  # a resumed run has a folder of its own

LINF = Linf(eps=0.03)
NUM_EPOCHS, NUM_BATCHES = 4, 5


def fitted(
    folder: Path, module: pl.LightningModule, *callbacks: pl.Callback, ckpt_path: Path | None = None, **options: Any
) -> pl.Trainer:
    """A fit of four epochs of five batches, which leaves a checkpoint at every step."""
    every = ModelCheckpoint(dirpath=folder / "kept", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    torch.manual_seed(0)
    settings: dict[str, Any] = {"max_epochs": NUM_EPOCHS, "num_sanity_val_steps": 0, "enable_checkpointing": True}
    data = options.pop("datamodule", None)
    run = trainer(folder, *callbacks, ExactResume(), every, **{**settings, **options})
    loaders = {} if data else {"train_dataloaders": train_loader(), "val_dataloaders": val_loader()}
    run.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True, **loaders)
    return run


def kept(folder: Path, step: int) -> Path:
    return folder / "kept" / f"step={step}.ckpt"


# Bit for bit from the middle of an epoch.


def classifier(strategy: Strategy | None = None) -> Classifier:
    return Classifier(small_net(7), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), strategy=strategy)


IN_MID_EPOCH: dict[str, Callable[[], tuple[Classifier, list[pl.Callback]]]] = {
    "an average of the weights": lambda: (classifier(), [EMAWeightAveraging(decay=0.9)]),
    "the changes of free training": lambda: (classifier(Free(LINF, num_repeats=2)), []),
    "an eps that grows": lambda: (classifier(EpsWarmup(PGDAT(PGD(threat=LINF, num_steps=2)), num_batches=12)), []),
    "weights that are perturbed": lambda: (classifier(AWP(PGDAT(FGSM(threat=LINF)))), []),
}


@pytest.mark.parametrize("name", IN_MID_EPOCH)
def test_a_training_goes_on_from_the_middle_of_an_epoch(name: str, tmp_path: Path) -> None:
    ends = []
    for folder, ckpt_path in (("whole", None), ("resumed", kept(tmp_path / "whole", 7))):
        module, callbacks = IN_MID_EPOCH[name]()
        fitted(tmp_path / folder, module, *callbacks, ckpt_path=ckpt_path, max_epochs=2)
        ends.append(weights(module.net))
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 4}, {"check_val_every_n_epoch": 2}])
def test_a_training_goes_on_from_the_last_batch_of_an_epoch(options: dict[str, Any], tmp_path: Path) -> None:
    """Also where the epoch does not end with a validation."""
    whole, resumed = classifier(), classifier()
    fitted(tmp_path / "whole", whole, max_epochs=2, **options)
    fitted(tmp_path / "resumed", resumed, ckpt_path=kept(tmp_path / "whole", NUM_BATCHES), max_epochs=2, **options)
    assert all(torch.equal(value, weights(resumed.net)[key]) for key, value in weights(whole.net).items())


@pytest.mark.parametrize("options", [{"max_epochs": -1, "max_steps": 3 * NUM_BATCHES}, {"max_epochs": 3}])
@pytest.mark.parametrize("step", [3, NUM_BATCHES + 2])
def test_a_fit_that_ended_inside_an_epoch_goes_on_there(step: int, options: dict[str, Any], tmp_path: Path) -> None:
    """From what it saved at its end, and from what is saved after it."""

    def run(name: str, ckpt_path: Path | None = None, **others: Any) -> tuple[pl.Trainer, dict[str, torch.Tensor]]:
        module = classifier()
        last = ModelCheckpoint(dirpath=tmp_path / name / "ends", filename="last", enable_version_counter=False)
        ran = fitted(tmp_path / name, module, last, ckpt_path=ckpt_path, **{**options, **others})
        return ran, weights(module.net)

    _, whole = run("whole")
    ends = tmp_path / "ended" / "ends"
    run("ended", max_steps=step)[0].save_checkpoint(ends / "after.ckpt")
    for name in ("last", "after"):
        resumed, found = run(f"resumed {name}", ends / f"{name}.ckpt")
        assert (resumed.current_epoch, resumed.global_step) == (3, 3 * NUM_BATCHES)
        assert all(torch.equal(value, found[key]) for key, value in whole.items())


def test_an_average_that_does_not_go_on_exactly_is_warned_of(tmp_path: Path) -> None:
    def averaging() -> StochasticWeightAveraging:
        return StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2)

    fitted(tmp_path / "whole", classifier(), averaging(), max_epochs=2)
    with pytest.raises(UserWarning, match="with StochasticWeightAveraging, .* with EMAWeightAveraging it would be"):
        fitted(tmp_path / "resumed", classifier(), averaging(), ckpt_path=kept(tmp_path / "whole", 3), max_epochs=2)


class Plateau(OrdinaryModule):
    """Lowers its learning rate after every second epoch that does not halve the loss."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss", "frequency": 2}}


@pytest.mark.parametrize("options", [{}, {"max_epochs": -1, "max_steps": NUM_EPOCHS * NUM_BATCHES}])
@pytest.mark.parametrize("saved", ["in mid-epoch", "after a validation", "at the end of an epoch"])
def test_a_scheduler_that_waits_for_a_plateau_steps_in_the_epoch_that_is_resumed(
    tmp_path: Path, saved: str, options: dict[str, Any]
) -> None:
    ckpt_path = (
        kept(tmp_path / "whole", NUM_BATCHES + 2)
        if saved == "in mid-epoch"
        else tmp_path / "whole" / "each" / "epoch=1.ckpt"
    )
    at_end = saved == "at the end of an epoch"
    ends = []
    for folder, is_resumed in (("whole", False), ("resumed", True)):
        module = Plateau()
        each = ModelCheckpoint(tmp_path / folder / "each", "{epoch}", save_top_k=-1, save_on_train_epoch_end=at_end)
        run = fitted(tmp_path / folder, module, each, ckpt_path=ckpt_path if is_resumed else None, **options)
        ends.append((weights(module.net), run.optimizers[0].param_groups[0]["lr"]))
    assert ends[0][1] == ends[1][1] == pytest.approx(5e-3)
    assert all(torch.equal(ends[0][0][key], ends[1][0][key]) for key in ends[0][0])


def test_a_language_model_goes_on_with_the_state_that_it_carries(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("".join(f"{n} is one\nmore than {n - 1}. " for n in range(200)), encoding="utf-8")
    ends = []
    for folder, ckpt_path in (("whole", None), ("resumed", kept(tmp_path / "whole", 2))):
        data = TextDataModule(
            files=[str(tmp_path / "text")], tokens="bytes", context=64, batch_size=8, order="streams",
            token_folder=str(tmp_path),
        )  # fmt: skip
        torch.manual_seed(0)
        net = RecurrentLM(256, cell="lstm", dim=8, hidden=16)
        module = LanguageModel(net, lambda p: torch.optim.SGD(p, lr=1.0), carry_state=True, sample_tokens=0)
        fitted(tmp_path / folder, module, ckpt_path=ckpt_path, max_epochs=1, datamodule=data)
        ends.append(weights(net))
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


# What is shown and said when.


@pytest.mark.filterwarnings("ignore:signs of gradient masking")  # the net is a random one
def test_pictures_and_probes_for_masking_come_when_they_would_have_come(tmp_path: Path) -> None:
    def shown(folder: str, ckpt_path: Path | None = None) -> list[tuple[str, int]]:
        attacked = RobustAccuracy({"fgsm": FGSM(threat=LINF)}, images_every_n_epochs=10, num_images=2)
        gallery = AugmentationGallery({"nothing": nn.Identity()})
        fitted(tmp_path / folder, classifier(), attacked, gallery, ckpt_path=ckpt_path)
        found = events(tmp_path / folder)
        return [(tag, event.step) for tag in found.Tags()["images"] for event in found.Images(tag)]

    at_first = [("augmentations", NUM_BATCHES - 1), ("attack/fgsm", NUM_BATCHES - 1)]
    last = [("attack/fgsm", NUM_EPOCHS * NUM_BATCHES - 1)]
    assert sorted(shown("whole")) == sorted(at_first + last)
    assert shown("resumed", kept(tmp_path / "whole", 2 * NUM_BATCHES + 1)) == last


class Scripted(CatastrophicOverfitting):
    """Sees what it is told: in the third epoch PGD breaks what FGSM does not."""

    epoch = 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self.epoch = trainer.current_epoch

    def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        after_many = 0.1 if self.epoch == 2 else 0.5
        return {"after_one_step": torch.full((len(x),), 0.9), "after_many_steps": torch.full((len(x),), after_many)}


@pytest.mark.filterwarnings("ignore:catastrophic overfitting in epoch 2")
def test_catastrophic_overfitting_is_seen_against_what_was_measured_before_the_stop(tmp_path: Path) -> None:
    before = kept(tmp_path / "whole", 2 * NUM_BATCHES + 1)
    for folder, ckpt_path in (("whole", None), ("resumed", before)):
        assert fitted(tmp_path / folder, classifier(), Scripted(LINF), ckpt_path=ckpt_path).current_epoch == 3


def with_a_dead_layer() -> Classifier:
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        net[1].bias -= 100  # type: ignore[operator]
    return Classifier(net)


@pytest.mark.filterwarnings("ignore:health, epoch")
def test_health_knows_what_it_saw_before_the_stop(tmp_path: Path) -> None:
    def verdicts(folder: str, ckpt_path: Path | None = None) -> str:
        """Of an epoch whose only validation is after its third step."""
        run = fitted(
            tmp_path / folder, with_a_dead_layer(), Health(), ckpt_path=ckpt_path, max_epochs=1, val_check_interval=3
        )
        run.save_checkpoint(tmp_path / folder / "end.ckpt")
        return next((tmp_path / folder).rglob("health.txt")).read_text()

    whole = verdicts("whole")
    assert "layer 'net.2' is dead" in whole
    assert verdicts("resumed", kept(tmp_path / "whole", 4)) == whole
    assert verdicts("nothing left to train", tmp_path / "whole" / "end.ckpt") == whole


def test_steps_that_were_not_finite_are_counted_over_the_whole_run(tmp_path: Path) -> None:
    broken = TensorDataset(torch.full((40, 1, 6, 6), float("nan")), torch.zeros(40, dtype=torch.int64))
    counts = []
    for folder, ckpt_path in (("whole", None), ("resumed", kept(tmp_path / "whole", 2))):
        found = NotFinite(policy="skip")
        every = ModelCheckpoint(
            dirpath=tmp_path / folder / "kept", filename="{step}", every_n_train_steps=1, save_top_k=-1
        )
        run = trainer(tmp_path / folder, found, ExactResume(), every, max_epochs=1, enable_checkpointing=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            run.fit(classifier(), DataLoader(broken, 8), ckpt_path=ckpt_path, weights_only=True)
        counts.append(found.num_found)
    assert counts == [NUM_BATCHES, NUM_BATCHES]


def test_averages_of_weights_in_float64_are_the_same_wherever_the_callback_stands(tmp_path: Path) -> None:
    found = []
    for number, order in enumerate((1, -1)):
        module, callbacks = Classifier(small_net(0)), [EMAWeightAveraging(decay=0.9), ExactResume()][::order]
        torch.manual_seed(0)
        trainer(tmp_path / str(number), *callbacks, precision="64-true").fit(module, train_loader(), val_loader())
        found.append(weights(module))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_the_sums_of_an_older_checkpoint_in_half_precision_go_on_in_float32(tmp_path: Path) -> None:
    fitted(tmp_path / "whole", Classifier(small_net(0)))
    older = torch.load(kept(tmp_path / "whole", 2), weights_only=True)
    (state,) = older["touchstone/exact_resume"]["of_ranks"]
    for metric in state["metrics"].values():
        metric["parts"] = {name: value.bfloat16() for name, value in metric["parts"].items()}
    torch.save(older, tmp_path / "older.ckpt")

    class Looking(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            found.extend(
                p.dtype for name in state["metrics"] for p in pl_module.get_submodule(name).metric_state.values()
            )

    found: list[torch.dtype] = []
    fitted(tmp_path / "resumed", Classifier(small_net(0)), Looking(), ckpt_path=tmp_path / "older.ckpt", max_epochs=1)
    assert set(found) == {torch.float32}
