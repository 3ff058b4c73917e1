"""`FindLearningRate`: a range test that suggests a learning rate, and shows what it saw."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.tuner.lr_finder import _lr_find, _LRFinder
from lightning.pytorch.utilities.exceptions import _TunerExitException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib.figure import Figure

from touchstone.options import check_counts, check_numbers, check_positive
from touchstone.runs.run_folder import run_folder

from .parts.records.publish import publish_picture

TAG = "learning_rate"
SMOOTHING = 0.98  # Lightning's


class FindLearningRate(LearningRateFinder):
    """Trains some steps with a growing learning rate, suggests one, and ends the run there.

    The suggestion is where the loss falls fastest over the logarithm of the rate; write it into the config. The picture
    `learning_rate` shows the loss against the rate. The net is restored afterwards.

    Lightning's `LearningRateFinder` does the same for modules that keep their learning rate as an attribute.

    Source: Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3.

    Args:
        min_lr: the first learning rate, > 0.
        max_lr: the last one, > `min_lr`.
        num_training_steps: steps, >= 13: the first ten and the last are left out of the search, a slope needs two.
        early_stop_threshold: ends when the loss is so many times the lowest, > 0; None for never.

    Raises:
        ValueError: a value is outside its range.

    Example:
        python train.py fit --config configs/cifar10.yaml --trainer.callbacks+=touchstone.callbacks.FindLearningRate
    """

    def __init__(
        self,
        *,
        min_lr: float = 1e-6,
        max_lr: float = 10.0,
        num_training_steps: int = 100,
        early_stop_threshold: float | None = 4.0,
    ) -> None:
        check_numbers(self, min_lr=min_lr, max_lr=max_lr)
        if not 0 < min_lr < max_lr:
            raise ValueError(
                f"FindLearningRate(min_lr=..., max_lr=...) must be > 0 and more than that, got {min_lr} and {max_lr}"
            )
        check_counts(self, num_training_steps=num_training_steps, least=13)
        check_positive(self, early_stop_threshold=early_stop_threshold, or_infinite=True, none_means="never")
        super().__init__(min_lr, max_lr, num_training_steps, early_stop_threshold=early_stop_threshold)
        self.suggestion: float | None = None

    def lr_find(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures, publishes and ends the run."""
        trainer.fit_loop.max_epochs = -1  # as many epochs as the steps need; the run ends behind them
        with isolate_rng():
            found = _lr_find(
                trainer,
                pl_module,
                min_lr=self._min_lr,
                max_lr=self._max_lr,
                num_training=self._num_training_steps,
                early_stop_threshold=self._early_stop_threshold,
                update_attr=False,
            )
        folder = run_folder(trainer)
        self.optimal_lr = found
        if found is None:  # a fast development run has none
            return
        found.results["loss"] = self._without_bias(found.results, trainer.accumulate_grad_batches)
        self.suggestion = _steepest(found.results["lr"], found.results["loss"])
        if trainer.is_global_zero:
            publish_picture(trainer, folder, TAG, _picture(found, self.suggestion))
        rank_zero_info(
            "FindLearningRate: the loss falls too little to suggest a learning rate"
            if self.suggestion is None
            else f"FindLearningRate: the loss falls fastest at a learning rate of {self.suggestion:.2g}"
        )
        raise _TunerExitException

    def _without_bias(self, results: dict[str, list[float]], num_batches: int) -> list[float]:
        """Lightning's means of the losses so far, each over the sum of its weights.

        Lightning divides by the sum that the mean after one step more has, so that a loss that stays begins at half of
        itself; and it takes the loss of a step's last batch, divided by the batches of a step, where an epoch does not
        end before they have all come.
        """
        num_seen, losses = 0, []
        for rate, loss in zip(results["lr"], results["loss"], strict=True):
            share = math.log(rate / self._min_lr) / math.log(self._max_lr / self._min_lr)
            num_steps = max(1, round(share * self._num_training_steps))  # the first step has the lowest rate itself
            num_seen += not math.isnan(loss)  # NaN is also what a batch that is left out has
            losses.append(num_batches * loss * (1 - SMOOTHING ** (num_steps + 1)) / (1 - SMOOTHING ** max(num_seen, 1)))
        return losses


def _steepest(rates: list[float], losses: list[float]) -> float | None:
    """The rate at which the loss falls fastest over the logarithm of the rate; None where it falls nowhere.

    Lightning takes the slope over the rate itself, which is steepest where rates are closest: always at the lowest.
    The first losses are of few batches, and the last one has risen; as Lightning, it leaves them out.
    """
    seen = [(math.log(rate), loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)][10:-1]
    if len(seen) < 2:
        return None
    logs, kept = np.array(seen).T
    slopes = np.gradient(kept, logs)
    return math.exp(logs[slopes.argmin()]) if slopes.min() < 0 else None


def _picture(found: _LRFinder, suggestion: float | None) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.results["lr"], found.results["loss"])
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed", title="Learning rate range test")
    if suggestion is not None:
        axes.axvline(suggestion, color="crimson", linestyle="--", label=f"falls fastest: {suggestion:.2g}")
        axes.legend()
    return figure
