"""`TargetedPictures`: pictures changed until a net takes them for a class of one's choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from touchstone.attacks import Attack, SampleRng, Targeted
from touchstone.attacks.core.checks import as_computed
from touchstone.attacks.core.logits import logits_as_float
from touchstone.attacks.dreaming.layers import select
from touchstone.options import check_count
from touchstone.runs.of_trainer import of_data
from touchstone.runs.run_folder import run_folder
from touchstone.runs.shown import shown

from .parts.measures.feature_distance import feature_distance
from .parts.names.class_by_name import ALREADY, check_class, class_by_name
from .parts.passes.picture_data import check_picture_data
from .parts.passes.processes import gather
from .parts.pictures.answered import check_answered
from .parts.pictures.attack_picture import Attacked, attack_picture
from .parts.pictures.top_classes import top_classes
from .parts.records.begun import say_begun
from .parts.records.publish import publish_picture
from .parts.records.table_file import TableFile

COLUMNS = ("reached", "largest_change", "l2_change", "feature_distance", "probability_before")
TABLE = ("file", "attack", *COLUMNS, "before", "after")


@dataclass(frozen=True)
class Went:
    """How far an attack went with a picture.

    Attributes:
        was: whether it was the class before: it is left as it is.
        reached: whether it is now the class.
        largest, l2: of the change, in pixels of [0, 1].
        features: `feature_distance`; NaN where it was not measured.
        probability_before: of the class, in [0, 1].
    """

    was: bool
    reached: bool
    largest: float
    l2: float
    features: float
    probability_before: float

    def cells(self) -> list[str]:
        """The values of `COLUMNS`."""
        features = "" if math.isnan(self.features) else f"{self.features:.4f}"
        reached = ALREADY if self.was else str(self.reached)
        return [reached, f"{self.largest:.4f}", f"{self.l2:.3f}", features, f"{self.probability_before:.2e}"]


class TargetedPictures(pl.Callback):
    """At `predict`, climbs the log-probability of one class from every picture, by each of some attacks.

    Says in the terminal how many pictures reached the class, and how far they went; writes `targeted.csv` (a row for
    each picture and attack: the largest and the L2 change, the distance of features, the probability of the class
    before, and the five most probable classes before and after), and the picture `attack/NAME` of the first pictures:
    before, after, and the difference enlarged. A picture that is the class already is left so, and counts nowhere.
    For the batches of `PicturesDataModule`.

    Args:
        target: the class, by its number, its name or a part of its name.
        attacks: by name; their objective becomes `Targeted(target)`. Plain gradient ascent is PGD without a random
            start inside the threat `touchstone.attacks.dreaming.canvas.Canvas`, which allows every picture.
        num_images: pictures in the figure, >= 1.
        feature_layers: the layers of the net by whose answers pictures before and after are compared, as in
            `feature_distance`; None for no comparison.

    Raises:
        ValueError: a value is outside its range, the name fits no class or several, the net has no such layer, or it
            puts out NaN for a picture.
    """

    def __init__(
        self,
        target: str | int,
        *,
        attacks: Mapping[str, Attack],
        num_images: int = 6,
        feature_layers: Sequence[str] | None = None,
    ) -> None:
        check_class("TargetedPictures(target=...)", target)
        check_count("TargetedPictures(num_images=...)", num_images)
        if not attacks:
            raise ValueError("TargetedPictures(attacks=...) must name at least one attack, got none")
        self.target, self.attacks, self.num_images = target, dict(attacks), num_images
        self.feature_layers = list(feature_layers or ())
        self._folder: Path | None = None
        self._table: TableFile | None = None
        self._number = 0
        self._went: dict[str, list[Went]] = {}
        self._drawn: dict[str, list[Attacked]] = {}

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_picture_data(trainer, "TargetedPictures")
        self._folder = folder = run_folder(trainer)
        if folder is not None:
            self._table = TableFile(folder / "targeted.csv", trainer.global_rank, trainer.world_size)
        names = of_data(trainer, "class_names")
        self._number = class_by_name(self.target, names, "TargetedPictures(target=...)")
        for layer in self.feature_layers:
            select(pl_module, layer, option="TargetedPictures(feature_layers=...)")
        self._went = {name: [] for name in self.attacks}
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
        x, class_names = as_computed(x, pl_module), of_data(trainer, "class_names")
        rows: list[list[list[str]]] = [[] for _ in x]
        files = [of_data(trainer, "files")[position] for position in positions.tolist()]
        before = _logits(pl_module, x)
        check_answered("TargetedPictures", before, files)
        predicted, target = before.argmax(1), torch.full((len(x),), self._number)
        for name, attack in self.attacks.items():
            if trainer.is_global_zero and (number := int((predicted != self._number).sum())):
                say_begun(name, number)
            x_adv = self._climbed(attack, pl_module, x, predicted, positions)
            after = _logits(pl_module, x_adv)
            check_answered("TargetedPictures", after, files, when=f" after the attack {name}")
            attacked = Attacked(x.cpu(), x_adv.cpu(), before.cpu(), after.cpu(), predicted.cpu(), target)
            features = self._feature_distance(pl_module, x, x_adv)
            for row in range(len(x)):
                change = (x_adv[row] - x[row]).flatten()
                went = Went(
                    was=int(predicted[row]) == self._number,
                    reached=int(after[row].argmax()) == self._number,
                    largest=float(change.abs().max()),
                    l2=float(change.norm()),
                    features=float(features[row]),
                    probability_before=float(before[row].softmax(0)[self._number]),
                )
                texts = [top_classes(logits[row], class_names) for logits in (before, after)]
                rows[row].append([name, *went.cells(), *texts])
                self._went[name].append(went)
            if sum(len(part.label) for part in self._drawn[name]) < self.num_images:
                self._drawn[name].append(attacked)
        if self._table is not None:
            for position, file, of_picture in zip(positions.tolist(), files, rows, strict=True):
                for cells in of_picture:
                    self._table.write(position, [shown(file), *cells], TABLE)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        names = of_data(trainer, "class_names")
        label = str(self._number) if names is None else shown(names[self._number])
        of_all = gather(self._went)
        if self._table is not None:
            self._table.join()
        if not trainer.is_global_zero:
            return
        for name in self.attacks:
            of_name = [each for of_process in of_all for each in of_process[name]]
            went = [each for each in of_name if not each.was]
            num_reached, num_were = sum(each.reached for each in went), len(of_name) - len(went)
            already = f"; {num_were} {'is' if num_were == 1 else 'are'} one already" if num_were else ""
            print(f"{name}: {num_reached} of {len(went)} pictures are now {label}{_average(went)}{already}", flush=True)
            if self._drawn[name]:
                drawn = _joined(self._drawn[name], self.num_images)
                figure = attack_picture(drawn, title=f"{name}: towards {label}", class_names=names, label_is="seen as")
                publish_picture(trainer, self._folder, f"attack/{name}", figure)

    def _climbed(
        self, attack: Attack, module: pl.LightningModule, x: Tensor, predicted: Tensor, positions: Tensor
    ) -> Tensor:
        """The pictures after the attack."""
        x_adv, others = x.clone(), predicted != self._number
        if bool(others.any()):
            aimed = attack.with_objective(Targeted(self._number))
            x_adv[others] = aimed(module, x[others], predicted[others], SampleRng(0, positions[others]))
        return x_adv

    def _feature_distance(self, module: pl.LightningModule, x: Tensor, x_adv: Tensor) -> Tensor:
        if not self.feature_layers:
            return torch.full((len(x),), torch.nan)
        with torch.no_grad(), logits_as_float(module):
            return feature_distance(module, self.feature_layers, x, x_adv)


def _logits(module: pl.LightningModule, x: Tensor) -> Tensor:
    with torch.no_grad(), logits_as_float(module):
        return module(x)


def _average(went: Sequence[Went]) -> str:
    """How far the pictures went on average, in words."""
    if not went:
        return ""
    l2, features = (math.fsum(values) / len(went) for values in zip(*((w.l2, w.features) for w in went), strict=True))
    return f"; on average L2 {l2:.2f}" + ("" if math.isnan(features) else f", features {features:.3f}")


def _joined(parts: Sequence[Attacked], num_images: int) -> Attacked:
    fields = ("before", "after", "logits_before", "logits_after", "label", "target")
    return Attacked(*(torch.cat([getattr(part, name) for part in parts])[:num_images] for name in fields))
