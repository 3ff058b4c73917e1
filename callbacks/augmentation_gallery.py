"""`AugmentationGallery`: one picture under each of some augmentations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from touchstone.options import check_count
from touchstone.runs.run_folder import run_folder

from .parts.passes.batch_keys import images_and_labels
from .parts.records.publish import publish_picture

TAG = "augmentations"
NUM_COLUMNS = 5
TRIES = 3  # one augmentation goes either way, and another not always


class AugmentationGallery(pl.Callback):
    """Shows an image of the first validation under each augmentation, as the picture `augmentations`.

    Args:
        augmentations: modules by name, of images `(N, C, H, W)` in [0, 1] to others, each shown a few times.
        sample: which image of the first batch, >= 0.

    Raises:
        ValueError: there is no augmentation, or a value is outside its range.
    """

    def __init__(self, augmentations: Mapping[str, nn.Module], *, sample: int = 0) -> None:
        if not augmentations:
            raise ValueError("AugmentationGallery(augmentations=...) must name one at least")
        check_count("AugmentationGallery(sample=...)", sample, least=0)
        self.augmentations, self.sample = dict(augmentations), sample
        self._is_shown = False

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._is_shown or trainer.sanity_checking:
            return
        self._is_shown = True
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            x, _ = images_and_labels(batch, None)
            row = min(self.sample, len(x) - 1)
            publish_picture(trainer, folder, TAG, self.picture(x[row].float().cpu()))

    def state_dict(self) -> dict[str, Any]:
        return {"is_shown": self._is_shown}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._is_shown = state_dict["is_shown"]

    def picture(self, image: Tensor) -> Figure:
        """The image, `(C, H, W)` in [0, 1], and what each augmentation makes of it; draws nothing from the run."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            shown = {"as it is": image[None]}
            for name, change in self.augmentations.items():
                shown[name] = change(image[None].repeat(TRIES, 1, 1, 1))
        num_rows = -(-len(shown) // NUM_COLUMNS)
        figure = Figure(figsize=(2.6 * NUM_COLUMNS, 1.25 * num_rows), layout="constrained")
        grid = figure.subplots(num_rows, NUM_COLUMNS, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, (name, images) in zip(grid.flat, shown.items(), strict=False):
            side_by_side = np.concatenate([one.permute(1, 2, 0).numpy() for one in images], axis=1)
            axes.imshow(side_by_side.clip(0, 1), cmap="gray" if image.shape[0] == 1 else None, vmin=0, vmax=1)
            axes.set_title(name, fontsize=9)
        return figure
