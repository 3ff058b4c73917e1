"""The picture of predictions: pictures, and below each the most probable classes as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from touchstone.runs.shown import shown

from .attack_picture import for_display

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Named:
    """A picture and what nets see in it.

    Attributes:
        title: above it.
        pixels: in [0, 1], float `(C, H, W)`, on the CPU.
        found: by the name of a net, which is empty for the one at hand, classes and probabilities, the best first.
    """

    title: str
    pixels: Tensor
    found: Mapping[str, Sequence[tuple[str, float]]]


def named_picture(pictures: Sequence[Named]) -> Figure:
    """Draws one column per picture, at least one: the picture above, and a panel of bars for each net."""
    from matplotlib.figure import Figure

    nets = list(pictures[0].found)
    num_rows = 1 + len(nets)
    size = (3.2 * len(pictures), 3.2 + 1.7 * len(nets))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    grid = figure.subplots(num_rows, len(pictures), squeeze=False, height_ratios=[2] + [1] * len(nets))
    for column, picture in zip(grid.T, pictures, strict=True):
        column[0].imshow(for_display(picture.pixels), cmap="gray", vmin=0, vmax=1)
        column[0].set_title(shown(picture.title, 28), fontsize=10)
        column[0].axis("off")
        for panel, name in zip(column[1:], nets, strict=True):
            found = picture.found[name]
            panel.barh(range(len(found)), [share for _, share in found], color="#bcd4ea")
            for row, (label, share) in enumerate(found):
                text = panel.text(0.01, row, f"{share:.1%} {shown(label, 32)}", va="center", fontsize=9)
                text.set_in_layout(False)  # for which all panels would give way
            panel.set_title(name or "the net", fontsize=9, loc="left")
            panel.set_xlim(0, 1)
            panel.invert_yaxis()
            panel.axis("off")
    return figure
