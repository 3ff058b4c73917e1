"""`Drawn`: the figures that a probe of one's own draws in a pass, until they are shown."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from touchstone.runs.run_folder import run_folder

from ..passes.loaders import loader_suffix
from ..records.publish import publish_picture


class Drawn:
    """The figures of a pass, by loader and name."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._figures: dict[int, dict[str, Any]] = {}

    def forget(self) -> None:
        """Before a pass: an interrupted one may have left something."""
        self._figures.clear()

    def keep(self, figures: Any, loader_index: int) -> None:
        """Keeps what was drawn of a loader.

        Raises:
            ValueError: it is not figures by name.
        """
        from matplotlib.figure import Figure

        named = isinstance(figures, Mapping) and all(isinstance(name, str) for name in figures)
        if not named or not all(isinstance(figure, Figure) for figure in figures.values()):
            raise ValueError(
                f'{self._who}.draw: it must return figures of matplotlib by name, such as {{"histogram": Figure()}}, '
                f"got {figures!r:.80}"
            )
        self._figures[loader_index] = dict(figures)

    def publish(self, trainer: pl.Trainer, stage: str, loader_index: int) -> None:
        """Shows those of a loader as `NAME/val` or `NAME/test`; a collective."""
        folder, suffix = run_folder(trainer), loader_suffix(trainer, loader_index)
        for name, figure in self._figures.pop(loader_index, {}).items():
            publish_picture(trainer, folder, f"{name}/{stage}{suffix}", figure, as_text=False)
            if "matplotlib.pyplot" in sys.modules:  # which keeps what it has made
                sys.modules["matplotlib.pyplot"].close(figure)
