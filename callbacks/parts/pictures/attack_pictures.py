"""`AttackPictures`: collects the first samples of a pass, before and after each attack, and shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from touchstone.attacks import Attack, Report, SampleRng, Targeted

from ..names.class_names import class_names
from ..passes.loaders import loader_suffix
from ..passes.measuring import measuring
from ..passes.samples import Samples
from ..records.publish import publish_picture
from .attack_picture import Attacked, attack_picture
from .shown_tokens import token_names
from .text_picture import flipped_texts, text_picture

MOST_CHANNELS = 4  # of a signal, whose lines can still be told apart


class AttackPictures:
    """One picture for each attack and data loader of a pass.

    Args:
        suite: attacks by name.
        num_samples: samples in a picture, >= 0.
        seed: the one that the judge was given.
    """

    def __init__(self, suite: Mapping[str, Attack], num_samples: int, seed: int) -> None:
        self._suite, self._num_samples, self._seed = suite, num_samples, seed
        self._kept: dict[int, dict[str, list[Attacked]]] = {}

    def num_wanted(self, loader_index: int) -> int:
        """How many samples of this loader are still to come."""
        kept = self._kept.get(loader_index, {})
        return self._num_samples - max((sum(len(p.label) for p in parts) for parts in kept.values()), default=0)

    def keep(self, model: nn.Module, samples: Samples, report: Report, loader_index: int) -> None:
        """Keeps the first samples, where they can be drawn, with the model's logits before and after.

        Of samples of several shapes, those that are shaped as the first.
        """
        kept = next(iter(self._kept.get(loader_index, {}).values()), None)
        if kept and kept[0].before.shape[1:] != samples.x.shape[1:]:
            return
        if _is_text(samples.x) or _is_signal(samples.x) or samples.x.ndim == 4 and samples.x.shape[1] in (1, 3):
            self._keep(model, samples, report, loader_index)

    def _keep(self, model: nn.Module, samples: Samples, report: Report, loader_index: int) -> None:
        shown = samples.take(slice(0, self.num_wanted(loader_index)))
        kept = self._kept.setdefault(loader_index, {})
        with measuring(model, shown) as (before, label), torch.no_grad():
            logits_before = model(before)
            for name, x_adv in report.x_adv.items():
                after = x_adv[: len(shown)]
                if after.shape != before.shape:
                    continue  # attacked somewhere inside the model
                # Chosen again, as the judge has chosen: by the sample's own noise and the same logits.
                objective = self._suite[name].objective.aim(
                    lambda: logits_before, label, SampleRng(self._seed, shown.ids)
                )
                wanted = torch.as_tensor(objective.target if isinstance(objective, Targeted) else -1)
                tensors = (before, after, logits_before, model(after), label, wanted.expand(len(shown)))
                kept.setdefault(name, []).append(Attacked(*(tensor.detach().cpu() for tensor in tensors)))

    def publish(self, trainer: pl.Trainer, folder: Path | None, loader_index: int) -> None:
        """Shows what was kept of a loader, and drops it. For rank zero."""
        names = token_names(trainer)
        for name, parts in self._kept.pop(loader_index, {}).items():
            attacked = Attacked(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Attacked)))
            called = class_names(trainer, attacked.logits_before.shape[1])
            title = f"{name}, {_place(trainer)}: {self._suite[name].threat!r}"
            if _is_text(attacked.before):
                figure = text_picture(flipped_texts(attacked, names, called), title=title)
            else:
                figure = attack_picture(attacked, title=title, class_names=called)
            publish_picture(trainer, folder, f"attack/{name}{loader_suffix(trainer, loader_index)}", figure)

    def forget(self) -> None:
        """Drops what an interrupted pass has left."""
        self._kept.clear()


def _is_text(x: Tensor) -> bool:
    return x.ndim == 2 and not x.is_floating_point()


def _is_signal(x: Tensor) -> bool:
    return x.ndim == 3 and x.is_floating_point() and x.shape[1] <= MOST_CHANNELS and x.shape[2] > 1


def _place(trainer: pl.Trainer) -> str:
    """Where in a run a picture is taken."""
    if trainer.state.fn == TrainerFn.FITTING:
        return f"validation in epoch {trainer.current_epoch + 1}"
    return "test" if trainer.testing else "validation"
