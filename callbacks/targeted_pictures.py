"""`TargetedPictures`: pictures changed until a net takes them for a class of one's choice."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from touchstone.attacks import Attack, SampleRng, Targeted

from .parts.attack_picture import Attacked, attack_picture
from .parts.class_by_name import class_by_name
from .parts.publish import publish_picture, run_folder
from .parts.top_classes import top_classes


class TargetedPictures(pl.Callback):
    """At `predict`, climbs the log-probability of one class from every picture, by each of some attacks.

    Says in the terminal which pictures reached the class; writes `targeted.csv` (a row for each picture and attack:
    the five most probable classes before and after, the largest and the L2 change), and the picture `attack/NAME` of
    the first pictures: before, after, and the difference enlarged. For the batches of `PicturesDataModule`.

    Args:
        target: the class, by its number, its name or a part of its name.
        attacks: by name; their objective becomes `Targeted(target)`. Plain gradient ascent is PGD without a random
            start inside the threat `touchstone.attacks.dreaming.canvas.Canvas`, which allows every picture.
        num_images: pictures in the figure, >= 1.

    Raises:
        ValueError: a value is outside its range, or the name fits no class or several.
    """

    def __init__(self, target: str | int, *, attacks: Mapping[str, Attack], num_images: int = 6) -> None:
        if num_images < 1:
            raise ValueError(f"TargetedPictures(num_images=...) must be >= 1, got {num_images}")
        if not attacks:
            raise ValueError("TargetedPictures(attacks=...) must name at least one attack, got none")
        self.target, self.attacks, self.num_images = target, dict(attacks), num_images
        self._number = 0
        self._reached: dict[str, list[bool]] = {}
        self._drawn: dict[str, list[Attacked]] = {}

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        names = getattr(trainer.datamodule, "class_names", None)  # type: ignore[attr-defined]
        self._number = class_by_name(self.target, names, "TargetedPictures(target=...)")
        self._reached = {name: [] for name in self.attacks}
        self._drawn = {name: [] for name in self.attacks}

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        x, positions, _ = batch
        if not len(x):
            return
        folder, data = run_folder(trainer), trainer.datamodule  # type: ignore[attr-defined]
        before = _logits(pl_module, x)
        predicted, target = before.argmax(1), torch.full((len(x),), self._number)
        for name, attack in self.attacks.items():
            aimed = attack.with_objective(Targeted(self._number))
            x_adv = aimed(pl_module, x, predicted, SampleRng(0, positions))
            after = _logits(pl_module, x_adv)
            attacked = Attacked(x.cpu(), x_adv.cpu(), before.cpu(), after.cpu(), predicted.cpu(), target)
            for row, position in enumerate(positions.tolist()):
                reached = int(after[row].argmax()) == self._number
                change = (x_adv[row] - x[row]).flatten()
                if folder is not None:
                    texts = [top_classes(logits[row], data.class_names) for logits in (before, after)]
                    sizes = [f"{float(change.abs().max()):.4f}", f"{float(change.norm()):.3f}"]
                    self._write(folder, [data.files[position], name, reached, *sizes, *texts])
                self._reached[name].append(reached)
            if sum(len(part.label) for part in self._drawn[name]) < self.num_images:
                self._drawn[name].append(attacked)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        names, folder = trainer.datamodule.class_names, run_folder(trainer)  # type: ignore[attr-defined]
        label = str(self._number) if names is None else names[self._number]
        for name, reached in self._reached.items():
            print(f"{name}: {sum(reached)} of {len(reached)} pictures are now {label}", flush=True)
            if trainer.is_global_zero and self._drawn[name]:
                drawn = _joined(self._drawn[name], self.num_images)
                figure = attack_picture(drawn, title=f"{name}: towards {label}", class_names=names, label_is="seen as")
                publish_picture(trainer, folder, f"attack/{name}", figure)

    def _write(self, folder: Path, row: Sequence[Any]) -> None:
        has_begun = any(self._reached.values())
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "targeted.csv").open("a" if has_begun else "w", newline="") as file:
            table = csv.writer(file)
            if not has_begun:
                table.writerow(["file", "attack", "reached", "largest_change", "l2_change", "before", "after"])
            table.writerow(row)


def _logits(module: pl.LightningModule, x: Tensor) -> Tensor:
    with torch.no_grad():
        return module(x).float()


def _joined(parts: Sequence[Attacked], num_images: int) -> Attacked:
    fields = ("before", "after", "logits_before", "logits_after", "label", "target")
    return Attacked(*(torch.cat([getattr(part, name) for part in parts])[:num_images] for name in fields))
