"""`Classifier`: trains any net that turns images into logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from touchstone.attacks import SampleRng
from touchstone.attacks.core.checks import is_whole
from touchstone.attacks.core.logits import logits_of
from touchstone.options import check_choice, check_kind
from touchstone.runs.of_trainer import callbacks_of

from .adversarial_training import Criterion, Learned, Strategy
from .adversarial_training.parts.check_learned import check_learned
from .adversarial_training.parts.remembering import without_memories
from .every_sample_once import EverySampleOnce
from .parameter_groups import weight_decay_groups
from .parts.classifier_loss import ClassifierLoss
from .parts.full_mean import FullMean
from .parts.own_precision import in_own_precision
from .parts.trained_parameters import trained_parameters
from .parts.with_schedule import with_schedule
from .parts.wrong_shape import wrong_shape_is_said
from .repeated_batches import RepeatedBatches

Batch = tuple[Tensor, Tensor]
REMEDY = "bring them to it, as `size` of ImageTree does, or take a net for theirs"


class Classifier(pl.LightningModule):
    """Minimises the cross-entropy of a net's logits.

    Logs `train/loss`, `train/accuracy`, and `S/loss`, `S/accuracy` for S val and test, each over every sample of the
    epoch. `train/...` is measured on what the net learns from: attacked images, if the strategy attacks them. Labels
    may be shares of classes, float `(N, classes)`, as MixUp and CutMix make them, for ordinary training and `Free`;
    accuracy then counts the largest share. One logit that is NaN makes the loss and the accuracy of the epoch NaN.

    Args:
        net: pixels in [0, 1], float `(N, C, H, W)`, to logits `(N, classes)`, or to an output that has them as
            `.logits`; normalization belongs inside it. Float64 images are passed in float32, if its weights are.
        optimizer: makes the optimizer from the parameters, or from groups of them (`decay`).
        lr_scheduler: makes the scheduler from the optimizer; None for none. One that waits for a plateau is
            `lightning.pytorch.cli.ReduceLROnPlateau`, with `monitor: val/loss`.
        schedule: whether the scheduler steps after every `"epoch"`, or after every optimizer `"step"`, as one-cycle and
            a warm-up need.
        decay: whether the optimizer's weight decay shrinks `"all"` parameters, or `"weights"` alone, and leaves
            normalizations and biases as they are (`weight_decay_groups`).
        label_smoothing: share of the target spread over all classes, in [0, 1).
        class_weights: how much a sample of each class counts in the training loss, one number >= 0 a class, against
            imbalance; the loss is the weighted mean, as torch's, and the same for one-hot labels; it is 0 for a
            batch whose classes all have the weight 0. Validation and test count every sample once.
        strategy: how the net learns from a batch, such as `PGDAT`; None for ordinary training.

    Raises:
        ValueError: a value is outside its range; or, at the first batch that is passed, there are more or fewer weights
            than classes.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        *,
        schedule: Literal["epoch", "step"] = "epoch",
        decay: Literal["all", "weights"] = "all",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        super().__init__()
        check_kind("Classifier(net=...)", net, nn.Module)
        check_choice("Classifier(schedule=...)", schedule, ("epoch", "step"))
        check_choice("Classifier(decay=...)", decay, ("all", "weights"))
        if not callable(optimizer):
            raise ValueError(f"Classifier(optimizer=...) must be a function of parameters, got {optimizer!r}")
        self.net = net
        self.make_optimizer, self.make_scheduler = optimizer, lr_scheduler
        self.schedule, self.decay = schedule, decay
        self.train_loss = ClassifierLoss(label_smoothing=label_smoothing, class_weights=class_weights)
        self.loss = ClassifierLoss()
        self.strategy = Strategy() if strategy is None else strategy
        check_kind("Classifier(strategy=...)", self.strategy, Strategy)
        if "_modules" not in vars(self.strategy):
            name = type(self.strategy).__name__
            raise ValueError(f"{name}.__init__ must call super().__init__(), as that of every Strategy")
        self.register_load_state_dict_post_hook(without_memories)
        self._every_sample_once: list[EverySampleOnce] = []
        # By stage and loader; nn.ModuleDict has a method train.
        self.metrics = nn.ModuleDict({stage: _metrics() for stage in ("of_train", "of_val_0", "of_test_0")})

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1], `(N, C, H, W)`, to logits `(N, classes)`."""
        try:
            logits = logits_of(self.net(in_own_precision(self.net, x)))
        except RuntimeError as error:
            if x.ndim == 4 and not x.is_floating_point():  # some nets take them
                raise ValueError(
                    f"images must be floating point, got {x.dtype}; for uint8 use `x.float() / 255` ({error})"
                ) from error
            raise
        self.train_loss.check_classes(logits)  # here, since a strategy need not ask for the loss
        return logits

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.strategy.num_repeats > 1:
            source = self.trainer.fit_loop._data_source
            source.instance = RepeatedBatches(self.trainer, self.strategy.num_repeats)  # until the next fit

    def on_fit_start(self) -> None:
        # A validation or test before it has left tensors of inference mode, which nothing outside it may change.
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        x, y = self.strategy.samples(*_images_and_labels(batch), batch_idx % self.strategy.num_repeats)
        learned = None
        if len(x):
            noise = self._noise(len(x), batch_idx)
            criterion = Criterion(partial(self.train_loss, x=x), self.train_loss.mean)
            with wrong_shape_is_said(self.net, x, remedy=REMEDY):
                learned = self.strategy.learn(self, x, y, criterion, noise)
            check_learned(self.strategy, learned, len(x))
        self._log("train", "of_train", learned, y)
        return None if learned is None else learned.loss

    def on_after_backward(self) -> None:
        self.strategy.after_backward(self)

    def on_train_batch_end(self, *_: Any) -> None:
        self.strategy.restore_weights()  # no backward pass where weights are averaged, and their statistics measured

    def on_validation_epoch_start(self) -> None:
        combined = self.trainer._evaluation_loop._combined_loader
        assert combined is not None
        self._every_sample_once = [EverySampleOnce(loader) for loader in combined.flattened]
        stage = "test" if self.trainer.testing else "val"
        for loader in range(1, len(combined.flattened)):
            if f"of_{stage}_{loader}" not in self.metrics:
                self.metrics[f"of_{stage}_{loader}"] = _metrics().to(self.device)
                self._metric_attributes = None  # Lightning keeps the names of all metrics from the first that is logged
        for loader in range(len(combined.flattened)):  # a pass before this one may have broken off
            for metric in self.metrics[f"of_{stage}_{loader}"].values():  # type: ignore[operator]
                metric.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, "val", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, "test", dataloader_idx)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """The probabilities of the classes, `(N, classes)`; of a batch without samples `(0, 0)`."""
        x: Tensor = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not len(x):  # of damaged files alone; not every net takes none
            return x.new_zeros(0, 0)
        with wrong_shape_is_said(self.net, x, remedy="--data.image_size {side}"):
            logits = self(x)
        return logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        by_name = self._trainer is not None and bool(callbacks_of(self._trainer, BaseFinetuning))
        trained = trained_parameters(self.net, self, by_name=by_name)
        optimizer = self.make_optimizer(trained if self.decay == "all" else weight_decay_groups(self))
        if self.make_scheduler is None:
            return optimizer
        return with_schedule(optimizer, self.make_scheduler(optimizer), self.schedule)

    def _noise(self, num_samples: int, batch_idx: int) -> SampleRng:
        """Noise of their own for the samples of every batch of every run; nothing is drawn from the global state."""
        rng = SampleRng.numbered(num_samples, seed=torch.initial_seed())  # the run's seed
        for number in (self.trainer.global_rank, self.global_step, batch_idx):
            rng = rng.fold(number)
        return rng

    def _evaluate(self, batch: Batch, stage: str, loader: int) -> None:
        x, y = self._every_sample_once[loader].take(*_images_and_labels(batch))
        measured = None
        if len(x):
            with wrong_shape_is_said(self.net, x, remedy=REMEDY):
                logits = self(x)
            measured = Learned(self.loss(logits, y, x=x), logits)
        self._log(stage, f"of_{stage}_{loader}", measured, y)

    def _log(self, stage: str, metrics: str, measured: Learned | None, y: Tensor) -> None:
        """Logs a batch; one without samples takes part, since processes log together."""
        kept: dict[str, Metric] = self.metrics[metrics]  # type: ignore[assignment]
        if measured is not None:
            kept["loss"].update(measured.loss.detach(), weight=len(y))
            kept["accuracy"].update(_correct(measured.logits.detach(), y))
        self.log_dict(
            {f"{stage}/{name}": metric for name, metric in kept.items()},
            on_step=False,
            on_epoch=True,
            prog_bar=stage == "train",
        )


def _metrics() -> nn.ModuleDict:
    return nn.ModuleDict({name: FullMean() for name in ("loss", "accuracy")})


def _correct(logits: Tensor, y: Tensor) -> Tensor:
    """Which samples are right, 0 or 1, `(N,)`; NaN where a logit is: no class is the largest there."""
    correct = logits.argmax(1) == (y if y.ndim == 1 else y.argmax(1))
    return correct.float().masked_fill(logits.isnan().any(1), torch.nan)


def _images_and_labels(batch: Batch) -> Batch:
    """The batch, if it is a pair; labels that are class numbers, of whatever width, in int64.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        kind = f"a dict with the keys {list(batch)}" if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(f"Classifier: a batch must be (images, labels), got {kind}; let the data module make pairs")
    x, y = batch
    return x, y.long() if isinstance(y, Tensor) and is_whole(y) else y
