"""The picture of a comparison: the same done to the same images on several nets, each net a block of columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .attack_picture import enlarged, for_display, wrapped_captions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In widths of an image: between two nets, left of the first, and from one row to the next.
GAP, MARGIN, ROW = 0.6, 1.5, 1.32


@dataclass(frozen=True)
class DoneTo:
    """What was done to one net's images, on the CPU.

    Attributes:
        layer: the one that was dreamt of.
        label: the true classes, int64 `(N,)`.
        before, ascended, dreamt: pixels in [0, 1], float `(N, C, H, W)`, C 1 or 3.
        gradient: of the loss with respect to the pixels, the same shape.
        logits_before, logits_after: before and after the ascent, float `(N, classes)`.
        low: the low-frequency share of each change, float `(N,)`, by its kind: `ascent`, `dream`, `gradient`; on any
            device.
    """

    layer: str
    label: Tensor
    before: Tensor
    ascended: Tensor
    dreamt: Tensor
    gradient: Tensor
    logits_before: Tensor
    logits_after: Tensor
    low: Mapping[str, Tensor]


def side_by_side(
    nets: Mapping[str, DoneTo],
    *,
    title: str,
    target: str,
    headings: Mapping[str, str],
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draws the images, what became of them, and the changes enlarged around grey with their low-frequency share.

    Changes are enlarged as by `enlarged`; below each stands how far its farthest pixel went.

    Args:
        nets: by name; at least one, all with the same images.
        title: above everything.
        target: what the ascended class is called.
        headings: what stands above each net, by its name.
        class_names: what the classes are called; None for numbers.
    """
    from matplotlib.figure import Figure

    one_layer = len({done.layer for done in nets.values()}) == 1
    num_images, num_nets = len(next(iter(nets.values())).label), len(nets)
    width = num_nets * (1.1 * num_images + GAP)
    height = ROW * 6 + 0.65
    figure = Figure(figsize=(1.2 * (width + MARGIN), 1.2 * height + 0.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()  # one axes for all pictures: as many axes would take several times as long
    for number, (name, done) in enumerate(nets.items()):
        left = number * (1.1 * num_images + GAP)
        axes.text(left, 0.12, f"{name}\n{headings[name]}", va="bottom", fontsize=10)
        for row, (label, images, texts) in enumerate(_rows(done, target, class_names)):
            top = -ROW * row
            if number == 0 or "DeepDream" in label and not one_layer:
                axes.text(
                    left - 0.08, top - 0.5, label, ha="right", va="center", fontsize=9, rotation=90 * bool(number)
                )
            for column, (image, (text, colour)) in enumerate(zip(images, texts, strict=True)):
                corner = left + 1.1 * column
                axes.imshow(
                    for_display(image),
                    extent=(corner, corner + 1, top - 1, top),
                    cmap="gray",
                    vmin=0,
                    vmax=1,
                    interpolation="nearest",
                )
                axes.text(corner + 0.5, top - 1.04, text, ha="center", va="top", fontsize=8, color=colour)
    axes.set_xlim(-MARGIN, width - GAP)
    axes.set_ylim(0.65 - height, 0.65)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.suptitle(title, fontsize=11)
    return figure


def _rows(
    done: DoneTo, target: str, class_names: Sequence[str] | None
) -> list[tuple[str, Tensor, list[tuple[str, str]]]]:
    """The name of each row, its images, and the text below each with its colour."""
    nothing = [("", "black")] * len(done.label)

    def low(kind: str) -> list[tuple[str, str]]:
        return [("unchanged" if math.isnan(s) else f"{s:.0%} low", "dimgrey") for s in done.low[kind].tolist()]

    def change(images: Tensor, kind: str) -> tuple[str, Tensor, list[tuple[str, str]]]:
        difference = images - done.before
        largest = difference.flatten(1).abs().amax(1).tolist()
        texts = [(f"up to {most:.2g}, {text}", colour) for most, (text, colour) in zip(largest, low(kind), strict=True)]
        return "its change,\nenlarged", enlarged(difference), texts

    return [
        ("image", done.before, wrapped_captions(done.logits_before, done.label, class_names)),
        (f"ascent towards\n{target}", done.ascended, wrapped_captions(done.logits_after, done.label, class_names)),
        change(done.ascended, "ascent"),
        (f"DeepDream of\n{done.layer}", done.dreamt, nothing),
        change(done.dreamt, "dream"),
        ("input gradient\nof the loss", enlarged(done.gradient), low("gradient")),
    ]


def first(parts: Sequence[DoneTo], num_images: int) -> DoneTo:
    """The first images of several batches."""
    tensors = ("label", "before", "ascended", "dreamt", "gradient", "logits_before", "logits_after")
    joined = {name: torch.cat([getattr(part, name) for part in parts])[:num_images] for name in tensors}
    low = {kind: torch.cat([part.low[kind] for part in parts])[:num_images] for kind in parts[0].low}
    return DoneTo(parts[0].layer, **joined, low=low)
