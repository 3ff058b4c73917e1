"""Who ranks by a figure whose tag seems misspelt hears of it before a training, not after its first validation."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from touchstone.runs.of_trainer import callbacks_of

A_SLIP = 0.94  # of a letter or two: `robust_acuracy`; `robust_acc` may well be a figure of the module itself


def check_monitors(trainer: pl.Trainer, tags: Sequence[str]) -> None:
    """Warns where a monitor seems to be meant as one of the measured figures, and is none.

    It does where it stands in a group of theirs, as `val/robust_accuracy/`, or differs from one of them by a slip. What
    it may be besides, a figure of the module or of a probe of one's own, nobody knows before it is logged.
    """
    groups = {tag.rpartition("/")[0] for tag in tags if tag.count("/") > 1}
    for who, monitor in _monitors(trainer):
        tag = re.sub(r"/dataloader_idx_\d+$", "", monitor)
        if tag in tags:
            continue
        stage, *_ = tag.split("/")
        alike = [other for other in tags if other.startswith(f"{stage}/") and other.count("/") == tag.count("/")]
        if tag.rpartition("/")[0] in groups or difflib.get_close_matches(tag, alike, 1, A_SLIP):
            near = " or ".join(map(repr, difflib.get_close_matches(tag, tags, 2, 0)))
            rank_zero_warn(
                f"{who}(monitor={monitor!r}): no callback of Touchstone is known to measure this figure; did you mean "
                f"{near}?"
            )


def _monitors(trainer: pl.Trainer) -> Iterator[tuple[str, str]]:
    """The classes that look for a figure, each with its tag."""
    for callback in callbacks_of(trainer, pl.Callback):
        if isinstance(callback, (ModelCheckpoint, EarlyStopping)) and callback.monitor is not None:
            yield type(callback).__name__, callback.monitor
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau:
            yield type(config.scheduler).__name__, str(config.monitor)
