"""`Figures`: what is logged of a whole pass: under a tag of its own, and for as long as the weights are the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from torch import Tensor


class Figures:
    """The figures of the last pass of somebody who measures.

    Args:
        who: the class that measures, for messages.

    Attributes:
        tags: under which they are logged; none once a training has gone on.
    """

    def __init__(self, who: str) -> None:
        self.who, self.tags = who, set[str]()

    def log(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        tag: str,
        value: float | Tensor,
        *,
        beside: Iterable[Figures],
        **options: Any,
    ) -> None:
        """Logs a figure, equal on all processes.

        Raises:
            ValueError: another callback has logged one under this tag, of which Lightning would log the mean, or the
                module has, which this one would replace.
        """
        for other in beside:
            if other is not self and tag in other.tags:
                raise ValueError(
                    f"two callbacks, {other.who} and {self.who}, log {tag!r}, which would be the mean of both: leave "
                    "one out"
                )
        self._refuse_logged(trainer, tag)
        self.tags.add(tag)
        module.log(tag, value, add_dataloader_idx=False, sync_dist=True, **options)

    def last(self, trainer: pl.Trainer) -> dict[str, float]:
        """The figures by tag."""
        metrics = trainer.callback_metrics
        return {tag: float(metrics[tag]) for tag in sorted(self.tags) if tag in metrics}

    def take_back(self, trainer: pl.Trainer) -> None:
        """Takes them away before the weights change: who ranks new weights by a figure must wait for a fresh one."""
        while self.tags:
            trainer.callback_metrics.pop(self.tags.pop(), None)

    def _refuse_logged(self, trainer: pl.Trainer, tag: str) -> None:
        """Raises ValueError where the running pass has a figure under this tag by now, from the module or a callback.

        At the end of an epoch callbacks come first: what the module logs there is not known yet. Two that are logged in
        one hook, Lightning refuses itself, or takes the mean of.
        """
        results = trainer._results
        assert results is not None
        for figure in results.values():
            # Those of earlier passes stay, reset.
            if not figure.has_reset and tag in results._forked_name(figure, on_step=False):
                raise ValueError(
                    f"{self.who} would log {tag!r}, which {figure.meta.fx.split('.')[0]} has logged: one would replace "
                    "the other, and weights be ranked by it; give the measurement another name"
                )
