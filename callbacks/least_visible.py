"""`LeastVisible`: the smallest changes, by their L1 length, that turn pictures into classes of one's choice."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from touchstone.attacks import L1Adam, SampleRng, Targeted
from touchstone.attacks.core.checks import as_computed
from touchstone.attacks.core.logits import logits_as_float
from touchstone.options import check_counts, check_kind
from touchstone.runs.of_trainer import of_data
from touchstone.runs.run_folder import run_folder
from touchstone.runs.shown import shown

from .parts.measures.change_size import ChangeSize
from .parts.measures.price_search import price_search
from .parts.names.class_by_name import ALREADY, check_class, class_by_name
from .parts.passes.picture_data import check_picture_data
from .parts.passes.processes import gather
from .parts.pictures.answered import check_answered
from .parts.pictures.attack_picture import Attacked, attack_picture
from .parts.pictures.top_classes import top_classes
from .parts.records.begun import say_begun
from .parts.records.publish import publish_picture

NAME = "least_visible"


class LeastVisible(pl.Callback):
    """At `predict`, minimises `alpha * ||r||_1 + CE(f(x + r), target)` for each picture and each of some classes.

    Each picture stops where it switches. The price alpha is searched for each picture and class: doubled while the
    class is reached and halved while it is not, then by bisection; of what reached the class, the smallest change by
    its L1 length is kept; a picture that is the class already is left as it is. Says in the terminal, and in
    `least_visible.csv`, alpha, how large the change is and how many values it leaves alone, and of those that not even
    the last alpha leads to the class, what to try; the picture `attack/least_visible` shows all. For batches of
    `PicturesDataModule`.

    Source: the L1 penalty of Chen et al., "EAD: elastic-net attacks to deep neural networks", 2018, equation 7, without
    its L2 term, by Adam.

    Args:
        targets: the classes, by number, name or a part of their name.
        attack: the descent; its `penalty` is the alpha to begin with, above 0.
        num_rounds: values of alpha that are tried for each, >= 1.
        num_pictures: the first so many pictures are taken, >= 1.

    Raises:
        ValueError: a value is outside its range, a name fits no class or several, or the net puts out NaN for a
            picture.
    """

    def __init__(
        self, targets: Sequence[str | int], *, attack: L1Adam, num_rounds: int = 5, num_pictures: int = 2
    ) -> None:
        if isinstance(targets, str) or not targets:
            raise ValueError(f"LeastVisible(targets=...) must be a list of classes, at least one, got {targets!r}")
        for target in targets:
            check_class("LeastVisible(targets=...)", target)
        check_kind("LeastVisible(attack=...)", attack, L1Adam)
        check_counts(self, num_rounds=num_rounds, num_pictures=num_pictures)
        if isinstance(attack.penalty, Tensor) or not attack.penalty > 0:
            raise ValueError(f"LeastVisible(attack=...) must have a penalty > 0, got {attack.penalty}")
        self.targets, self.attack = list(targets), attack
        self.num_rounds, self.num_pictures = num_rounds, num_pictures
        self._numbers: list[int] = []
        self._taken: list[tuple[Tensor, Tensor]] = []

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_picture_data(trainer, "LeastVisible")
        names = of_data(trainer, "class_names")
        self._numbers = [class_by_name(each, names, "LeastVisible(targets=...)") for each in self.targets]
        self._taken = []

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
        num_wanted = self.num_pictures - sum(len(x) for x, _ in self._taken)
        if num_wanted > 0 and len(x):
            if not self._taken:
                self._check_classes(pl_module, x[:1])
            self._taken.append((as_computed(x[:num_wanted], pl_module).cpu(), positions[:num_wanted].cpu()))

    def _check_classes(self, module: pl.LightningModule, x: Tensor) -> None:
        """Before all pictures have been predicted, where the data module has no names to know the classes by."""
        with torch.no_grad():
            num_classes = module(x).shape[-1]
        wrong = [number for number in self._numbers if number >= num_classes]
        if wrong:
            raise ValueError(f"LeastVisible(targets=...) must be classes, 0 to {num_classes - 1}, got {wrong[0]}")

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = run_folder(trainer)
        taken = [part for of_process in gather(self._taken) for part in of_process]
        if not taken or not trainer.is_global_zero:
            return
        num_targets = len(self._numbers)
        x, positions = map(torch.cat, zip(*taken, strict=True))
        first = positions.argsort()[: self.num_pictures]  # of all processes
        x, positions = (of_each[first].repeat_interleave(num_targets, 0) for of_each in (x, positions))
        x = x.to(pl_module.device)
        all_files = of_data(trainer, "files")
        files = [all_files[position] for position in positions.tolist()]
        with logits_as_float(pl_module):
            with torch.no_grad():
                before = pl_module(x)
            check_answered("LeastVisible", before, files)
            y = before.argmax(1)
            with torch.inference_mode(False):  # whose tensors cannot be kept for a gradient
                target = torch.tensor(self._numbers, device=x.device).repeat(len(x) // num_targets)
                others = (target != y).nonzero()[:, 0]
                x_adv, alpha = x.clone(), torch.full((len(x),), torch.nan, device=x.device)
                if len(others):
                    say_begun(NAME, len(others))
                    attack, rng = self.attack.with_objective(Targeted(target[others])), SampleRng(0, others.cpu())
                    found = price_search(attack, pl_module, x[others], y[others], rng, self.num_rounds)
                    x_adv[others], alpha[others] = found.x_adv, found.alpha
            with torch.no_grad():
                after = pl_module(x_adv)
            check_answered("LeastVisible", after, files, when=" after the attack")
        attacked = Attacked(*(tensor.cpu() for tensor in (x, x_adv, before, after, y, target)))
        self._say(trainer, folder, attacked, files, alpha.cpu())
        self._taken = []

    def _say(
        self, trainer: pl.Trainer, folder: Path | None, attacked: Attacked, files: Sequence[Path], alpha: Tensor
    ) -> None:
        names, rows, notes, num_reached = of_data(trainer, "class_names"), [], [], 0
        change = (attacked.after - attacked.before).flatten(1)
        is_another = attacked.target != attacked.label
        for row, file in enumerate(files):
            size = ChangeSize.of(change[row])
            reached = bool((attacked.logits_after[row].argmax() == attacked.target[row]) & is_another[row])
            num_reached += reached
            price = f"alpha {float(alpha[row]):.3g}" if reached else "not reached" if is_another[row] else ALREADY
            wanted = str(int(attacked.target[row])) if names is None else shown(names[int(attacked.target[row])])
            texts = [top_classes(logits[row], names) for logits in (attacked.logits_before, attacked.logits_after)]
            said = [reached, f"{float(alpha[row]):.4g}"] if is_another[row] else [ALREADY, ""]
            rows.append([shown(file), wanted, *said, *size.cells(), *texts])
            notes.append(f"{price}, L1 {size.l1:.0f},\n{size.unchanged:.0%} unchanged")
            print(f"{shown(file.name)} to {wanted}: {price}, {size}", flush=True)
        reached_of_all = f"{num_reached} of {int(is_another.sum())} reached"
        print(reached_of_all, flush=True)
        failed = alpha[is_another & (attacked.logits_after.argmax(1) != attacked.target)].tolist()
        if failed:
            print(
                f"{len(failed)} not reached at the last alpha, {min(failed):.3g}: try more num_rounds, each of which "
                "halves it, or more num_steps of the attack",
                flush=True,
            )
        if folder is not None:
            _write(folder, rows)
        figure = attack_picture(
            attacked,
            title=f"the least visible change: {reached_of_all}",
            class_names=names,
            label_is="seen as",
            notes=notes,
        )
        publish_picture(trainer, folder, f"attack/{NAME}", figure)


def _write(folder: Path, rows: Sequence[Sequence[Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{NAME}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "target", "reached", "alpha", "l1", "l2", "largest", "unchanged", "before", "after"])
        table.writerows(rows)
