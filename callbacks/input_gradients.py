"""`InputGradients`: pictures of where in an image the loss is sensitive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks.core.ascend import unmasked_gradient_of
from touchstone.attacks.core.checks import check_labels, check_not_probabilities, check_shape_of_logits
from touchstone.options import check_count
from touchstone.runs.run_folder import run_folder

from .parts.names.class_names import class_names
from .parts.passes.measuring import measuring
from .parts.passes.samples import Samples
from .parts.pictures.attack_picture import captions, class_name, enlarged, for_display
from .parts.records.publish import publish_picture
from .probe import Probe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAG = "input_gradients"
NO_CLASS = -100  # a label that torch's cross-entropy passes over, and so the gradient is 0


class InputGradients(Probe):
    """Draws the gradient of the loss with respect to the pixels, as the picture `input_gradients`.

    Below each of the first samples stand its gradient, with the channels as colours around a grey of 0, and the size of
    the gradient of each pixel; both are enlarged to the full range, image by image, of the gradient 99.8 % of its
    values. The gradient of an ordinary net looks like noise, that of a robust one like the image (Tsipras et al.,
    "Robustness may be at odds with accuracy", 2019, figure 2).

    Args:
        num_images: samples shown, of the first data loader, >= 1.
        every_n_epochs, normalization, batch_keys: as in `Probe`.

    Raises:
        ValueError: a value is outside its range, or the samples are no images `(N, C, H, W)` of one or three channels.
    """

    tried_by_measuring = True

    def __init__(
        self,
        *,
        num_images: int = 8,
        every_n_epochs: int = 1,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
        batch_keys: tuple[str | int, str | int] | None = None,
    ) -> None:
        check_count("InputGradients(num_images=...)", num_images)
        super().__init__(
            every_n_epochs=every_n_epochs,
            max_samples=num_images,
            normalization=normalization,
            batch_keys=batch_keys,
        )
        self.num_images = num_images
        self._shown: list[tuple[Tensor, ...]] = []

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        if loader_index:
            return
        if samples.x.ndim != 4 or samples.x.shape[1] not in (1, 3):
            raise ValueError(f"InputGradients draws images (N, 1 or 3, H, W), got {tuple(samples.x.shape)}")
        if self._shown and self._shown[0][0].shape[1:] != samples.x.shape[1:]:
            return  # they stand in one picture
        with measuring(model, samples) as (x, y):
            logits = model(x.requires_grad_().clone())  # which a first layer may change in place
            check_shape_of_logits(logits, len(y))
            check_not_probabilities(logits)
            check_labels(y.where(y != NO_CLASS, 0), logits.shape[1], samples.ids)
            gradient = unmasked_gradient_of(F.cross_entropy(logits, y, reduction="none", ignore_index=NO_CLASS), x)
        self._shown.append(tuple(part.detach().cpu() for part in (x, gradient, logits, y)))

    def forget(self) -> None:
        super().forget()
        self._shown.clear()

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        folder = run_folder(trainer)
        if loader_index or not self._shown or not trainer.is_global_zero:
            return
        x, gradient, logits, y = (torch.cat(parts) for parts in zip(*self._shown, strict=True))
        names = class_names(trainer, logits.shape[1])
        publish_picture(trainer, folder, TAG, _picture(x, gradient, logits, y, names))


def _picture(x: Tensor, gradient: Tensor, logits: Tensor, y: Tensor, names: Sequence[str] | None) -> Figure:
    from matplotlib.figure import Figure

    largest = gradient.flatten(1).abs().amax(1).tolist()
    size = gradient.norm(dim=1, keepdim=True)
    size = size / size.flatten(1).amax(1).clamp_min(torch.finfo(size.dtype).tiny)[:, None, None, None]
    rows = (("image", x), ("gradient", enlarged(gradient)), ("its size", size))
    figure = Figure(figsize=(1.35 * len(x) + 0.7, 5.0), dpi=100, layout="constrained")
    grid = figure.subplots(len(rows), len(x), squeeze=False)
    said = captions(logits, y, names)
    for row, (name, images) in zip(grid, rows, strict=True):
        for column, (axes, image) in enumerate(zip(row, images, strict=True)):
            axes.imshow(for_display(image), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if name == "image":
                axes.set_title(class_name(int(y[column]), names), fontsize=9)
                axes.set_xlabel(said[column][0], color=said[column][1], fontsize=8)
            elif name == "gradient":
                axes.set_xlabel(f"largest {largest[column]:.2g}", fontsize=8, color="dimgrey")
        row[0].set_ylabel(name, fontsize=10)
    figure.suptitle("gradient of the loss with respect to the pixels", fontsize=11)
    return figure
