"""`Classifier`: trains any net that turns images into logits."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from touchstone.attacks import SampleRng
from touchstone.attacks.core.checks import check_batch, check_labels
from touchstone.attacks.core.logits import logits_of

from .adversarial_training import Learned, Strategy
from .every_sample_once import EverySampleOnce
from .repeated_batches import RepeatedBatches

Batch = tuple[Tensor, Tensor]


class Classifier(pl.LightningModule):
    """Minimises the cross-entropy of a net's logits.

    Logs `train/loss`, `train/accuracy`, and `S/loss`, `S/accuracy` for S val and test, each over every sample of the
    epoch. `train/...` is measured as the net learns: where that is from attacked images, on these.

    Args:
        net: pixels in [0, 1], float `(N, C, H, W)`, to logits `(N, classes)`, or to an output that has them as
            `.logits`; normalization belongs inside it.
        optimizer: makes the optimizer from the parameters.
        lr_scheduler: makes the scheduler from the optimizer, stepped after every epoch; None for none.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        strategy: how the net learns from a batch, such as `PGDAT`; None for ordinary training.

    Raises:
        ValueError: `label_smoothing` is outside its range.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        *,
        label_smoothing: float = 0.0,
        strategy: Strategy | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"Classifier(label_smoothing=...) must be in [0, 1), got {label_smoothing}")
        self.net = net
        self.make_optimizer, self.make_scheduler = optimizer, lr_scheduler
        self.label_smoothing = label_smoothing
        self.strategy = Strategy() if strategy is None else strategy
        self._every_sample_once: list[EverySampleOnce] = []
        # By stage and loader; nn.ModuleDict has a method train.
        self.metrics = nn.ModuleDict({stage: _metrics() for stage in ("of_train", "of_val_0", "of_test_0")})

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1], `(N, C, H, W)`, to logits `(N, classes)`."""
        return logits_of(self.net(x))

    def setup(self, stage: str) -> None:
        if stage != "fit" or self.strategy.num_repeats == 1:
            return
        # As a hook of this module, so that others who look after the data, such as `ExactResume`, get what it gives.
        self._repeated = RepeatedBatches(self.trainer, self.strategy.num_repeats)
        source = self.trainer.fit_loop._data_source
        source.instance, source.name = self, "repeated_batches"

    def repeated_batches(self) -> Any:
        """The training data, for a strategy that wants each batch several times."""
        return self._repeated.loaders()

    def on_fit_start(self) -> None:
        # A validation or test before it has left tensors of inference mode, which nothing outside it may change.
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        x, y = _images_and_labels(batch)
        learned = None
        if len(x):
            criterion = partial(self._loss, x=x, label_smoothing=self.label_smoothing)
            learned = self.strategy.learn(self, x, y, criterion, self._noise(len(x), batch_idx))
        self._log("train", "of_train", learned, y)
        return None if learned is None else learned.loss

    def on_after_backward(self) -> None:
        self.strategy.after_backward(self)

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
            logits = self(x)
            measured = Learned(self._loss(logits, y, x=x), logits)
        self._log(stage, f"of_{stage}_{loader}", measured, y)

    def _log(self, stage: str, metrics: str, measured: Learned | None, y: Tensor) -> None:
        """Logs a batch; one without samples takes part, since processes log together."""
        kept: dict[str, Metric] = self.metrics[metrics]  # type: ignore[assignment]
        if measured is not None:
            kept["loss"].update(measured.loss.detach(), weight=len(y))
            kept["accuracy"].update(measured.logits.detach(), y)
        self.log_dict(
            {f"{stage}/{name}": metric for name, metric in kept.items()},
            on_step=False,
            on_epoch=True,
            prog_bar=stage == "train",
        )

    @staticmethod
    def _loss(logits: Tensor, y: Tensor, *, x: Tensor, label_smoothing: float = 0.0) -> Tensor:
        try:
            return F.cross_entropy(logits, y, label_smoothing=label_smoothing)
        except (IndexError, RuntimeError):
            check_batch(x, y)  # says in words what is wrong, where it is the batch
            check_labels(y, logits.shape[1])
            raise


def _metrics() -> nn.ModuleDict:
    # A loss that is NaN makes the mean NaN: torchmetrics would leave it out.
    return nn.ModuleDict(
        {"loss": MeanMetric(nan_strategy=float("nan")), "accuracy": MulticlassAccuracy(average="micro")}
    )


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
