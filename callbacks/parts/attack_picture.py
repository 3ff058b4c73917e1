"""The picture of an attack: samples before and after it, and the difference enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .shown import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Attacked:
    """Samples before and after an attack, on the CPU.

    Attributes:
        before, after: pixels in [0, 1], float `(N, C, H, W)`, C 1 or 3; or tokens, int64 `(N, T)`.
        logits_before, logits_after: float `(N, classes)`.
        label: the true classes, int64 `(N,)`.
        target: the classes that the attack wants, int64 `(N,)`; -1 where any other will do.
    """

    before: Tensor
    after: Tensor
    logits_before: Tensor
    logits_after: Tensor
    label: Tensor
    target: Tensor


def attack_picture(attacked: Attacked, *, title: str, class_names: Sequence[str] | None = None) -> Figure:
    """Draws one column per sample: before, after, and the difference enlarged to the full range around grey.

    Above it stands the true class, and the one that a targeted attack wants; below each picture the predicted class
    and its probability, in red where it is wrong.
    """
    from matplotlib.figure import Figure

    num_samples = len(attacked.label)
    figure = Figure(figsize=(1.35 * num_samples + 1.0, 5.9), dpi=100, layout="constrained")
    axes = figure.add_subplot()  # one axes for all pictures: 24 of them would take six times as long
    difference = attacked.after - attacked.before
    largest = difference.flatten(1).abs().amax(1)
    enlarged = 0.5 + difference / (2 * largest.clamp_min(1e-12)[:, None, None, None])
    rows = (
        ("before", attacked.before, captions(attacked.logits_before, attacked.label, class_names)),
        ("after", attacked.after, captions(attacked.logits_after, attacked.label, class_names)),
        ("difference\n(grey: none)", enlarged, [(_enlargement(size), "dimgrey") for size in largest.tolist()]),
    )
    for column, heading in enumerate(
        ("true\n\N{RIGHTWARDS ARROW} wanted", *_headings(attacked, class_names)), start=-1
    ):
        left, side = (1.15 * column + 0.5, "center") if column >= 0 else (-0.12, "right")
        axes.text(left, 0.06, heading, ha=side, va="bottom", fontsize=9, parse_math=False)
    for row, (name, images, said) in enumerate(rows):
        top = -1.45 * row
        axes.text(-0.12, top - 0.5, name, ha="right", va="center", fontsize=11)
        for column, (image, (caption, color)) in enumerate(zip(images, said, strict=True)):
            left = 1.15 * column
            axes.imshow(
                _for_display(image),
                extent=(left, left + 1, top - 1, top),
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            axes.text(left + 0.5, top - 1.06, caption, ha="center", va="top", fontsize=9, color=color, parse_math=False)
    axes.set_xlim(-0.75, 1.15 * num_samples)
    axes.set_ylim(-1.45 * 2 - 1.35, 0.45)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.suptitle(title, fontsize=12)
    return figure


def _headings(attacked: Attacked, class_names: Sequence[str] | None) -> list[str]:
    wanted = [
        f"\N{RIGHTWARDS ARROW} {class_name(target, class_names)}" if target >= 0 else "\N{RIGHTWARDS ARROW} any other"
        for target in attacked.target.tolist()
    ]
    true = [class_name(label, class_names) for label in attacked.label.tolist()]
    return [f"{one}\n{other}" for one, other in zip(true, wanted, strict=True)]


def captions(logits: Tensor, label: Tensor, class_names: Sequence[str] | None) -> list[tuple[str, str]]:
    """The predicted class of each sample and its probability, and a colour that says whether it is right."""
    probability, predicted = torch.softmax(logits.double(), 1).max(1)
    return [
        (f"{class_name(index, class_names)} ({p:.0%})", "darkgreen" if right else "crimson")
        for index, p, right in zip(predicted.tolist(), probability.tolist(), (predicted == label).tolist(), strict=True)
    ]


def _enlargement(largest: float) -> str:
    return f"x {0.5 / largest:.3g}" if largest > 0 else "left as it was"


def class_name(index: int, class_names: Sequence[str] | None) -> str:
    """What a class is called, in a few letters."""
    return str(index) if class_names is None else shown(class_names[index], 18)


def _for_display(image: Tensor) -> np.ndarray:
    pixels = image.clamp(0, 1).permute(1, 2, 0).numpy()
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
