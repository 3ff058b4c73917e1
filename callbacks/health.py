"""`Health`: reads the curves of a training, and says in plain words what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from touchstone.options import check_between
from touchstone.runs.logs import may_be_lost
from touchstone.runs.of_trainer import callbacks_of
from touchstone.runs.run_folder import run_folder
from touchstone.runs.whole_files import write_whole

from .not_finite import NotFinite
from .parts.measures import verdicts
from .parts.measures.activations import Activations
from .parts.pictures.health_picture import health_picture
from .parts.records.publish import publish_picture, publish_text
from .robust_accuracy import RobustAccuracy

_CURVES = {
    "train": ("train/loss", "train/accuracy"),
    "val": ("val/loss", "val/accuracy", "val/robust_accuracy/worst_case"),
}
_NO_LAYERS = (
    "no layer was looked at: the net has no module that can die or saturate, such as nn.ReLU or nn.Tanh, or it is "
    "compiled, which hides them"
)


class Health(pl.Callback):
    """Says in words after every epoch of a fit what is wrong: learning rate, over- and underfitting, layers, the loss.

    It reads `train/loss`, `train/accuracy`, `val/loss`, `val/accuracy` and `val/robust_accuracy/worst_case`, as far as
    they are logged; without a curve its verdicts are left out. Robust overfitting is one of a module whose
    `strategy` learns from attacked images, as the `Classifier`'s may. Of the layers, it looks at the activations of the
    first batch of the training and of each validation, of the main process. A verdict is a warning when it is first
    passed; all that hold at the end, or where an error or a signal ends the training, are the text `health` in
    TensorBoard and `health.txt` in the run folder, the curves beside them the picture `health`. Test samples take no
    part.

    Args:
        min_accuracy: below which training and validation accuracy count as underfitting, in [0, 1].

    Raises:
        ValueError: `min_accuracy` is outside its range.
    """

    def __init__(self, *, min_accuracy: float = 0.5) -> None:
        check_between("Health(min_accuracy=...)", min_accuracy, 0, 1)
        self.min_accuracy = min_accuracy
        self.verdicts: list[str] = []
        self._curves: dict[str, dict[int, float]] = {tag: {} for tags in _CURVES.values() for tag in tags}
        self._first_loss: float | None = None
        self._num_steps, self._num_finite = 0, torch.tensor(0)
        self._loss_now: Tensor | None = None  # of a step that has not ended
        self._has_begun = False
        self._folder: Path | None = None  # of the run that has begun
        self._num_attacked, self._learns_from_attacks = 0, False
        self._highest_loss = torch.tensor(0.0)  # of any batch; counted as the finite ones are
        self._layers: dict[str, str] = {}  # what is wrong with them, by their names
        self._idle_at_first: list[str] | None = None
        self._activations: Activations | None = None
        self._sees_layers = True
        self._said: set[str] = set()

    # What is read.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._has_begun = False
        self._learns_from_attacks = getattr(getattr(pl_module, "strategy", None), "learns_from_attacks", False)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Known before it is needed: where one process fails, the others cannot be asked for it.
        self._has_begun, self._folder = True, run_folder(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._idle_at_first is None:
            self._activations = Activations(pl_module)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._loss_now = loss.detach()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss_now = None
        if self._activations is not None:
            self._idle_at_first, self._activations = list(self._activations.verdicts()), None
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs  # {} where the step gave none
        if not isinstance(loss, Tensor):
            return
        loss = loss.detach()
        if self._first_loss is None:
            self._first_loss = float(loss) * trainer.accumulate_grad_batches
        highest = self._highest_loss.to(loss.device)
        self._highest_loss = torch.fmax(highest, loss.float() * trainer.accumulate_grad_batches)
        so_far = self._num_finite.to(loss.device)  # counted there, so that nothing waits for an accelerator
        self._num_finite = so_far + ((so_far == self._num_steps) & loss.isfinite())
        self._num_steps += 1

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == dataloader_idx == 0 and not trainer.sanity_checking:
            self._activations = Activations(pl_module)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self._activations is not None:
            self._sees_layers = self._activations.has_seen
            self._layers, self._activations = self._activations.verdicts(), None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._read(trainer, "val")
            self._num_attacked = max([c.num_attacked for c in callbacks_of(trainer, RobustAccuracy)], default=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read(trainer, "train")
        self._judge(trainer)

    def _read(self, trainer: pl.Trainer, stage: str) -> None:
        for tag in _CURVES[stage]:
            if tag in trainer.callback_metrics:
                self._curves[tag][trainer.current_epoch] = float(trainer.callback_metrics[tag])

    # What is said.

    def _judge(self, trainer: pl.Trainer, what: str = "the loss", *, has_ended: bool = False) -> None:
        robust = "val/robust_accuracy/worst_case"
        first_loss = self._first_loss or 0.0
        (train_losses,), (train_accuracies,) = self._together("train/loss"), self._together("train/accuracy")
        too_high = verdicts.learning_rate_too_high(first_loss, train_losses) or verdicts.stuck_at_chance(
            first_loss,
            float(self._highest_loss),
            train_losses,
            train_accuracies,
            min_accuracy=self.min_accuracy,
            went_idle=next((name for name in self._layers if name not in (self._idle_at_first or [])), None),
        )
        found = [
            verdicts.not_finite(int(self._num_finite), self._num_steps, what),
            too_high,
            verdicts.overfitting(*self._together("train/loss", "val/loss")),
            *self._layers.values(),
        ]
        if too_high is None:  # else that is why nothing is learned
            curves = self._together("train/accuracy", "val/accuracy")
            found.append(verdicts.underfitting(*curves, min_accuracy=self.min_accuracy, has_ended=has_ended))
        if self._learns_from_attacks:
            curves = self._together(robust, "train/loss")
            found.append(verdicts.robust_overfitting(*curves, num_samples=self._num_attacked))
        self.verdicts = [sentence for sentence in found if sentence is not None]
        for sentence in self.verdicts:
            kind = sentence.partition(":")[0].partition(" from ")[0]  # said once, whatever its figures become
            if kind not in self._said:
                self._said.add(kind)
                when = "at the end" if has_ended else f"epoch {trainer.current_epoch + 1}"
                rank_zero_warn(f"health, {when}: {sentence}")

    def _together(self, *tags: str) -> list[list[float]]:
        """The curves over the epochs that all of them have."""
        epochs = sorted(set.intersection(*(set(self._curves[tag]) for tag in tags)))
        return [[self._curves[tag][epoch] for epoch in epochs] for tag in tags]

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = run_folder(trainer)
        self._judge(trainer, has_ended=True)
        if trainer.is_global_zero:
            self._publish(trainer, folder)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if not (self._has_begun and trainer.is_global_zero):
            return
        try:
            self._judge(trainer, self._count_broken_step(trainer))
            if self.verdicts:
                self._publish(trainer, self._folder)
        except Exception as error:  # it must not hide what ends the training
            vars(exception).setdefault("__notes__", []).append(f"Health could not say what it had found: {error}")

    def _count_broken_step(self, trainer: pl.Trainer) -> str:
        """Counts a step that its loss or gradients have ended; says which of them they were."""
        is_finite = self._loss_now is None or bool(self._loss_now.isfinite().all())
        has_stopped = any(c.policy == "stop" and c.num_found for c in callbacks_of(trainer, NotFinite))
        what = "the loss" if not is_finite or self._num_finite < self._num_steps else "the loss or a gradient"
        self._num_steps += not is_finite or has_stopped
        return what

    def _publish(self, trainer: pl.Trainer, folder: Path | None) -> None:
        lines = self.verdicts or ["nothing found"]
        lines = lines if self._sees_layers else [*lines, _NO_LAYERS]
        publish_text(trainer, "health", "\n".join(f"- {line}" for line in lines))
        if any(self._curves.values()):
            publish_picture(trainer, folder, "health", health_picture(self._curves, lines))
        if folder is not None:
            with may_be_lost(trainer):
                write_whole(folder / "health.txt", "".join(f"{line}\n" for line in lines))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._activations is not None:  # a validation that broke off
            self._activations.verdicts()
            self._activations = None

    # The checkpoint.

    def state_dict(self) -> dict[str, Any]:
        return {
            "curves": {tag: dict(curve) for tag, curve in self._curves.items()},
            "first_loss": self._first_loss,
            "steps": (self._num_steps, int(self._num_finite)),
            "num_attacked": self._num_attacked,
            "highest_loss": float(self._highest_loss),
            "idle_layers": dict(self._layers),
            "idle_at_first": self._idle_at_first,
            "verdicts": list(self.verdicts),
            "said": sorted(self._said),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._curves = {tag: dict(curve) for tag, curve in state_dict["curves"].items()}
        self._first_loss = state_dict["first_loss"]
        self._num_steps, num_finite = state_dict["steps"]
        self._num_finite = torch.tensor(num_finite)
        self._num_attacked = state_dict.get("num_attacked", 0)
        self._highest_loss = torch.tensor(state_dict.get("highest_loss", 0.0))
        self._layers = dict(state_dict.get("idle_layers", {}))
        self._idle_at_first = state_dict.get("idle_at_first", [])
        self.verdicts = list(state_dict.get("verdicts", []))
        self._said = set(state_dict.get("said", []))
