"""The picture of a dream: what it began from and what it became, with the layer's response to both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .attack_picture import for_display, wrapped_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Dreamt:
    """Pictures before and after a dream, on the CPU.

    Attributes:
        layer: what was made to respond.
        start, result: pixels in [0, 1], float `(N, C, H, W)`, C 1 or 3.
        value_at_start, value: the layer's response, float `(N,)`.
        class_name: of a unit that is a class's logit; None of others, or where classes have no names.
    """

    layer: str
    start: Tensor
    result: Tensor
    value_at_start: Tensor
    value: Tensor
    class_name: str | None = None


def dream_picture(dreamt: Dreamt) -> Figure:
    """Draws one column per picture: the start above, the result below, each with the response."""
    from matplotlib.figure import Figure

    num_pictures = len(dreamt.value)
    width = max(2.6 * num_pictures, 3.2)
    figure = Figure(figsize=(width, 6.2), dpi=100, layout="constrained")
    axes = figure.subplots(2, num_pictures, squeeze=False)
    rows = (("start", dreamt.start, dreamt.value_at_start), ("result", dreamt.result, dreamt.value))
    for row, (name, pictures, values) in zip(axes, rows, strict=True):
        for panel, picture, value in zip(row, pictures, values.tolist(), strict=True):
            panel.imshow(for_display(picture), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            panel.set_title(f"{name}: {value:.4g}", fontsize=11)
            panel.axis("off")
    lines = [f"what {dreamt.layer} responds to", *([f"class {dreamt.class_name}"] if dreamt.class_name else [])]
    figure.suptitle("\n".join(wrapped_title(line, width) for line in lines), fontsize=12)
    return figure
