"""Pictures and texts of a run: in TensorBoard, and as files in the run folder for people who only have that."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger

from touchstone.runs.logs import may_be_lost
from touchstone.runs.run_folder import logged_step, tensorboard_writers
from touchstone.runs.shown import shown
from touchstone.runs.whole_files import write_whole

from ..pictures.shown_tokens import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USUAL = re.compile(r"[\w.-]+(/[\w.-]+(:\d+(,\d+)*)?(/[\w.-]+)?)?(/dataloader_idx_\d+)?")
"""Tags whose signs become `_`: a kind and a name, as `attack/pgd`, with a unit, as `deepdream/fc:76`, and what else it
is called, as `deepdream/fc:76/wide`; and a loader."""


def publish_picture(
    trainer: pl.Trainer, folder: Path | None, tag: str, figure: Figure, *, as_text: bool = True
) -> None:
    """Shows a figure under `tag` and keeps it in the run folder, in `figures/`, named by `file_name`. For rank zero.

    Args:
        trainer: whose TensorBoard shows it.
        folder: the run folder; None for no file.
        tag: what it is called.
        figure: of matplotlib.
        as_text: whether dollars in it are dollars, and no mathematics, as in the names of classes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    if as_text:
        _take_names_as_text(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)  # a third faster, and hardly larger
    height, width, channels = pixels.shape
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=file.getvalue())
    for writer in tensorboard_writers(trainer):  # `writer.add_image` would encode it again
        values = [Summary.Value(tag=shown(tag), image=image)]
        writer._get_file_writer().add_summary(Summary(value=values), logged_step(trainer))
    if folder is not None:
        with may_be_lost(trainer):
            write_whole(folder / "figures" / f"{file_name(tag)}.png", file.getvalue())


def _take_names_as_text(figure: Figure) -> None:
    """Lets nothing in a figure be read as mathematics, which the name of a class may break, but for its scales.

    What a font has no sign for is written as its escape.
    """
    from matplotlib.axis import Tick
    from matplotlib.text import Text

    parts = figure.findobj()  # once: every walk lays out the ticks of each axis anew
    scales = {label for tick in parts if isinstance(tick, Tick) for label in (tick.label1, tick.label2)}
    for text in parts:
        if isinstance(text, Text) and text not in scales:
            text.set_parse_math(False)
            (family, *_) = text.get_fontfamily()
            lines = (visible(shown(line), family=family, spaces=False) for line in text.get_text().split("\n"))
            text.set_text("\n".join(lines))


def plain_name(text: str) -> str:
    """A text as part of the name of a file: letters, digits, `_`, `-` and `.`, at most 180 bytes."""
    return re.sub(r"[^\w.-]+", "_", text).encode()[:180].decode(errors="ignore")


def file_name(tag: str) -> str:
    """A tag as the name of a file, at most 200 bytes.

    Where another sign had to go than those of a usual tag, a hash tells it from tags that look the same without.
    """
    name = plain_name(tag)
    if USUAL.fullmatch(tag) and len(name) == len(tag):
        return name
    return name + "_" + hashlib.sha256(tag.encode(errors="surrogatepass")).hexdigest()[:16]


def publish_text(trainer: pl.Trainer, tag: str, text: str) -> None:
    """Shows a text (Markdown) under `tag`. For rank zero."""
    for writer in tensorboard_writers(trainer):
        writer.add_text(tag, text, logged_step(trainer))


def publish_figures(trainer: pl.Trainer, figures: dict[str, float]) -> None:
    """Logs many figures of one step at once, in TensorBoard as one event: one for each takes several times as long."""
    if not trainer.is_global_zero:
        return
    from tensorboard.compat.proto.summary_pb2 import Summary

    step = logged_step(trainer)
    for logger in trainer.loggers:
        # Another class may log by rules of its own.
        is_plain = type(logger).log_metrics is TensorBoardLogger.log_metrics
        if is_plain and isinstance(logger, TensorBoardLogger) and not logger._prefix:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
            logger.experiment._get_file_writer().add_summary(Summary(value=values), step)
        else:
            logger.log_metrics(figures, step=step)


def lay_out_charts(trainer: pl.Trainer, attacks: Sequence[str]) -> None:
    """Overlays the curves before and after these attacks in charts of TensorBoard's custom scalars."""
    if not trainer.is_global_zero:
        return
    charts = {}
    for stage in ("val", "test"):
        before, worst = f"{stage}/clean_accuracy", f"{stage}/robust_accuracy/worst_case"
        each = [f"{stage}/robust_accuracy/{name}" for name in attacks]
        charts[f"{stage}: before attack, and in the worst case"] = ["Multiline", [before, worst]]
        charts[f"{stage}: before and after each attack"] = ["Multiline", [before, *each]]
    for writer in tensorboard_writers(trainer):
        writer.add_custom_scalars({"accuracy before and after attack": charts})
