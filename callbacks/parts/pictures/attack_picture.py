"""The picture of an attack: samples before and after it, and the difference enlarged."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_LETTERS = 15  # of a line that fits below a small picture, with a gap to the next one, whatever letters they are
TITLE_LETTERS = 8  # of a title that an inch holds, even where many are wide ones
SHORT = 18  # letters of a name that is cut off
SMALL, LARGE, LARGE_FROM = 1.17, 1.9, 65  # inches of a picture, and from how many pixels on it is a large one
SHARE = 0.998  # of the values that changed: so many are shown as large as they are beside each other
LINE = 0.19  # height of a line of text, in inches


@dataclass(frozen=True)
class Attacked:
    """Samples before and after an attack, on the CPU.

    Attributes:
        before, after: pixels in [0, 1], float `(N, C, H, W)`, C 1 or 3; signals in [0, 1], float `(N, C, L)`; or
            tokens, int64 `(N, T)`.
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


def attack_picture(
    attacked: Attacked,
    *,
    title: str,
    class_names: Sequence[str] | None = None,
    label_is: str = "true",
    notes: Sequence[str] | None = None,
) -> Figure:
    """Draws one column per sample: before, after, and the difference enlarged around grey, as by `enlarged`.

    Above it stands its class, and the one that a targeted attack wants; below each picture the predicted class and its
    probability, in red where it is not the first. Long names go on below. Signals are drawn as lines.

    Args:
        attacked: at least one sample.
        title: above everything.
        class_names: what the classes are called; None for numbers.
        label_is: what the class of a sample is, `"true"` or for a sample without one what it was taken for.
        notes: a line below each difference.
    """
    from matplotlib.figure import Figure

    num_samples = len(attacked.label)
    are_signals = attacked.before.ndim == 3
    neutral = "middle" if are_signals else "grey"
    inches = LARGE if are_signals or attacked.before.shape[-1] >= LARGE_FROM else SMALL
    num_letters, line = int(NUM_LETTERS * inches / SMALL), LINE / inches
    difference = attacked.after - attacked.before
    sizes = [_enlargement(each, num_letters) for each in difference]
    if notes is not None:
        sizes = [f"{size}\n{note}" for size, note in zip(sizes, notes, strict=True)]
    rows = (
        ("before", attacked.before, wrapped_captions(attacked.logits_before, attacked.label, class_names, num_letters)),
        ("after", attacked.after, wrapped_captions(attacked.logits_after, attacked.label, class_names, num_letters)),
        (f"difference\n({neutral}: none)", enlarged(difference), [(size, "dimgrey") for size in sizes]),
    )
    headings = [f"{label_is}\n\N{RIGHTWARDS ARROW} wanted", *_headings(attacked, class_names, num_letters)]
    above = line * _num_lines(headings)
    heights = [1.12 + line * _num_lines([text for text, _ in said]) for _, _, said in rows]
    width, height = 1.15 * num_samples + 0.75, above + sum(heights)
    title = wrapped_title(title, inches * width)
    above_all = 0.35 + LINE * title.count("\n")
    figure = Figure(figsize=(inches * width, inches * height + above_all), dpi=100, layout="constrained")
    axes = figure.add_subplot()  # one axes for all pictures: 24 of them would take six times as long
    for column, heading in enumerate(headings, start=-1):
        left, side = (1.15 * column + 0.5, "center") if column >= 0 else (-0.12, "right")
        axes.text(left, 0.06, heading, ha=side, va="bottom", fontsize=9)
    for row, (name, images, said) in enumerate(rows):
        top = -sum(heights[:row])
        axes.text(-0.12, top - 0.5, name, ha="right", va="center", fontsize=11)
        for column, (image, (caption, color)) in enumerate(zip(images, said, strict=True)):
            left = 1.15 * column
            if are_signals:
                _draw_signal(axes, image, left, top)
            else:
                axes.imshow(
                    for_display(image),
                    extent=(left, left + 1, top - 1, top),
                    cmap="gray",
                    vmin=0,
                    vmax=1,
                    interpolation="nearest" if inches == SMALL else None,  # whose name differs: "auto", "antialiased"
                )
            axes.text(left + 0.5, top - 1.06, caption, ha="center", va="top", fontsize=9, color=color)
    axes.set_xlim(-0.75, 1.15 * num_samples)
    axes.set_ylim(above - height, above)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.suptitle(title, fontsize=12)
    return figure


def _draw_signal(axes: Axes, signal: Tensor, left: float, top: float) -> None:
    """A line for each channel of `(C, L)` in a frame of one unit, whose lower edge is 0 and whose upper edge is 1."""
    axes.plot([left, left + 1, left + 1, left, left], [top, top, top - 1, top - 1, top], color="lightgrey", linewidth=1)
    for number, channel in enumerate(signal):
        places = np.linspace(left, left + 1, len(channel))
        axes.plot(places, top - 1 + channel.numpy(), color=f"C{number}", linewidth=1)


def captions(logits: Tensor, label: Tensor, class_names: Sequence[str] | None) -> list[tuple[str, str]]:
    """The predicted class of each sample and its probability, and a colour that says whether it is the label."""
    probability, predicted = torch.softmax(logits.double(), 1).max(1)
    return [
        (f"{_name(index, class_names)} ({p:.0%})", "darkgreen" if right else "crimson")
        for index, p, right in zip(predicted.tolist(), probability.tolist(), (predicted == label).tolist(), strict=True)
    ]


def wrapped_captions(
    logits: Tensor, label: Tensor, class_names: Sequence[str] | None, num_letters: int = NUM_LETTERS
) -> list[tuple[str, str]]:
    """The captions in lines that are no wider than a picture."""
    return [(_wrapped(text, num_letters), colour) for text, colour in captions(logits, label, class_names)]


def wrapped_title(title: str, inches: float) -> str:
    """A title in lines that are no wider than a figure, at 12 points."""
    return "\n".join(textwrap.wrap(title, int(TITLE_LETTERS * inches)))


def class_name(index: int, class_names: Sequence[str] | None) -> str:
    """What a class is called, in a few letters."""
    return _name(index, class_names)[:SHORT]


def _name(index: int, class_names: Sequence[str] | None) -> str:
    return str(index) if class_names is None else str(class_names[index])


def _wrapped(text: str, num_letters: int) -> str:
    """In lines that end at spaces, hyphens and underscores."""
    filled = textwrap.fill(text.replace("_", "_ "), num_letters, max_lines=3, placeholder=" ...")
    return filled.replace("_ ", "_")


def _num_lines(texts: Sequence[str]) -> int:
    return max(text.count("\n") + 1 for text in texts)


def _headings(attacked: Attacked, class_names: Sequence[str] | None, num_letters: int) -> list[str]:
    wanted = [_name(target, class_names) if target >= 0 else "any other" for target in attacked.target.tolist()]
    pairs = zip(attacked.label.tolist(), wanted, strict=True)
    arrow = "\N{RIGHTWARDS ARROW}"
    return [
        f"{_wrapped(_name(label, class_names), num_letters)}\n{_wrapped(f'{arrow} {name}', num_letters)}"
        for label, name in pairs
    ]


def _enlargement(of_image: Tensor, num_letters: int) -> str:
    full = float(_full_range(of_image))
    if full == 0:
        return "left as it was"
    is_cut = 1.01 * full < float(of_image.abs().max())  # steps of equal length differ by rounding
    return _wrapped(f"x {0.5 / full:.3g}{f', {1 - SHARE:.1%} cut off' if is_cut else ''}", num_letters)


def enlarged(difference: Tensor) -> Tensor:
    """Each difference, `(N, ...)`, enlarged around grey until 99.8 % of the values that changed fill the range.

    The others, which may be far larger, are cut off at black and white.
    """
    full = torch.stack([_full_range(each) for each in difference]).clamp_min(torch.finfo(difference.dtype).tiny)
    return (0.5 + difference / (2 * full.reshape(-1, *[1] * (difference.ndim - 1)))).clamp(0, 1)


def _full_range(difference: Tensor) -> Tensor:
    """The size that no more than `SHARE` of the values that changed stay below: of few values, the largest."""
    sizes = difference[difference != 0].abs()
    return sizes.kthvalue(math.ceil(SHARE * len(sizes))).values if len(sizes) else difference.new_zeros(())


def for_display(image: Tensor) -> np.ndarray:
    """Pixels `(C, H, W)` in [0, 1] as matplotlib takes them."""
    pixels = image.float().clamp(0, 1).permute(1, 2, 0).numpy()  # which knows no bfloat16
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
