"""The picture of a training: its curves over the epochs, and what was found in them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {
    "loss": ("train/loss", "val/loss"),
    "accuracy": ("train/accuracy", "val/accuracy", "val/robust_accuracy/worst_case"),
}


def health_picture(curves: Mapping[str, Mapping[int, float]], verdicts: Sequence[str]) -> Figure:
    """Draws losses and accuracies, as far as there are any."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = {name: [tag for tag in tags if curves.get(tag)] for name, tags in _PANELS.items()}
    panels = {name: tags for name, tags in panels.items() if tags}
    figure = Figure(figsize=(5.5 * max(1, len(panels)), 4), dpi=100, layout="constrained")
    for number, (name, tags) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for tag in tags:
            epochs, values = zip(*sorted(curves[tag].items()), strict=True)
            axes.plot([epoch + 1 for epoch in epochs], values, marker="o", markersize=3, label=tag)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylim(*((0, 1.02) if name == "accuracy" else (None, None)))
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    text = textwrap.fill("health: " + "; ".join(verdicts), 80 * max(1, len(panels)))
    figure.suptitle(text, fontsize=9, x=0.01, ha="left")
    return figure
