"""`Classifier`: trains any net that turns images into logits, on the images or on attacked ones."""

from __future__ import annotations

from typing import Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from touchstone.attacks import Attack, SampleRng
from touchstone.attacks.core.checks import check_batch, check_labels
from touchstone.attacks.core.logits import logits_of

from .every_sample_once import EverySampleOnce

Batch = tuple[Tensor, Tensor]


class Classifier(pl.LightningModule):
    """Minimises the cross-entropy of a net's logits.

    Logs `train/loss`, `train/accuracy`, and `S/loss`, `S/accuracy` for S val and test, each over every sample of the
    epoch. With a training attack, `train/...` is measured on the attacked images that the net learns from.

    Args:
        net: pixels in [0, 1], float `(N, C, H, W)`, to logits `(N, classes)`, or to an output that has them as
            `.logits`; normalization belongs inside it.
        optimizer: makes the optimizer from the parameters.
        lr_scheduler: makes the scheduler from the optimizer, stepped after every epoch; None for none.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        train_attack: attack whose examples replace the images in training; None for ordinary training.
        train_attack_mode: `"eval"` makes the examples in evaluation mode, so that they leave the running statistics
            of BatchNorm alone; `"train"` makes them in the modes of training, as Madry et al. (2018) do, where each
            step updates the statistics.

    Raises:
        ValueError: `label_smoothing` is outside its range, or `train_attack` holds one value per sample.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        *,
        label_smoothing: float = 0.0,
        train_attack: Attack | None = None,
        train_attack_mode: Literal["eval", "train"] = "eval",
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"Classifier(label_smoothing=...) must be in [0, 1), got {label_smoothing}")
        if train_attack is not None:
            try:
                train_attack.check_rows(1)
            except ValueError as error:
                raise ValueError(
                    f"Classifier(train_attack=...) must hold for every sample of every batch: {error}"
                ) from error
        self.net = net
        self.make_optimizer, self.make_scheduler = optimizer, lr_scheduler
        self.label_smoothing = label_smoothing
        self.train_attack, self.train_attack_mode = train_attack, train_attack_mode
        self._every_sample_once: list[EverySampleOnce] = []
        # By stage and loader; nn.ModuleDict has a method train.
        self.metrics = nn.ModuleDict({stage: _metrics() for stage in ("of_train", "of_val_0", "of_test_0")})

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1], `(N, C, H, W)`, to logits `(N, classes)`."""
        return logits_of(self.net(x))

    def on_fit_start(self) -> None:
        # A validation or test before it has left tensors of inference mode, which nothing outside it may change.
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        x, y = _images_and_labels(batch)
        if self.train_attack is not None:
            x = self._attacked(x, y, batch_idx)
        return self._step(x, y, "train")

    def on_validation_epoch_start(self) -> None:
        combined = self.trainer._evaluation_loop._combined_loader
        assert combined is not None
        self._every_sample_once = [EverySampleOnce(loader) for loader in combined.flattened]
        stage = "test" if self.trainer.testing else "val"
        for loader in range(1, len(combined.flattened)):
            if f"of_{stage}_{loader}" not in self.metrics:
                self.metrics[f"of_{stage}_{loader}"] = _metrics().to(self.device)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, "val", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, "test", dataloader_idx)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """The probabilities of the classes, `(N, classes)`."""
        return self(batch[0] if isinstance(batch, (tuple, list)) else batch).softmax(1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(p for p in self.parameters() if p.requires_grad)
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    def _attacked(self, x: Tensor, y: Tensor, batch_idx: int) -> Tensor:
        """The images as the training attack changes them, with noise of their own in every batch of every run."""
        assert self.train_attack is not None
        rng = SampleRng.numbered(len(x), seed=torch.initial_seed())  # the run's seed; nothing is drawn
        for number in (self.trainer.global_rank, self.global_step, batch_idx):
            rng = rng.fold(number)
        return self.train_attack(self, x, y, rng, training=self.train_attack_mode == "train").to(x.dtype)

    def _evaluate(self, batch: Batch, stage: str, loader: int) -> None:
        x, y = self._every_sample_once[loader].take(*_images_and_labels(batch))
        self._step(x, y, stage, f"of_{stage}_{loader}")

    def _step(self, x: Tensor, y: Tensor, stage: str, metrics: str | None = None) -> Tensor | None:
        """Measures a batch and returns its loss; None for a batch without samples, which takes part in logging."""
        measured: dict[str, Metric] = self.metrics[metrics or f"of_{stage}"]  # type: ignore[assignment]
        loss = None
        if len(x):
            logits = self(x)
            loss = self._loss(logits, x, y, self.label_smoothing if stage == "train" else 0.0)
            measured["loss"].update(loss.detach(), weight=len(x))
            measured["accuracy"].update(logits.detach(), y)
        self.log_dict(
            {f"{stage}/{name}": metric for name, metric in measured.items()},
            on_step=False,
            on_epoch=True,
            prog_bar=stage == "train",
        )
        return loss

    @staticmethod
    def _loss(logits: Tensor, x: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
        try:
            return F.cross_entropy(logits, y, label_smoothing=label_smoothing)
        except (IndexError, RuntimeError):
            check_batch(x, y)  # says in words what is wrong, where it is the batch
            check_labels(y, logits.shape[1])
            raise


def _metrics() -> nn.ModuleDict:
    return nn.ModuleDict({"loss": MeanMetric(), "accuracy": MulticlassAccuracy(average="micro")})


def _images_and_labels(batch: Batch) -> Batch:
    """The batch, if it is a pair.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        kind = f"a dict with the keys {list(batch)}" if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(f"Classifier: a batch must be (images, labels), got {kind}; let the data module make pairs")
    x, y = batch
    return x, y
