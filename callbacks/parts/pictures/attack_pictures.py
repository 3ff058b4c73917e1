"""`AttackPictures`: collects some samples of a pass, before and after each attack, and shows them."""

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
from .choice import Choice
from .shown_tokens import token_names
from .text_picture import flipped_texts, text_picture

MOST_CHANNELS = 4  # of a signal, whose lines can still be told apart


class AttackPictures:
    """One picture for each attack and data loader of a pass."""

    def __init__(self, suite: Mapping[str, Attack], num_samples: int, seed: int) -> None:
        self._suite, self._num_samples, self._seed = suite, num_samples, seed
        self._choices: dict[int, Choice[dict[str, Attacked]]] = {}
        self._shapes: dict[int, torch.Size] = {}

    def wants(self, loader_index: int) -> bool:
        """Whether samples of this loader that are still to come may be shown."""
        return not self._choice(loader_index).is_final

    def keep(self, model: nn.Module, samples: Samples, report: Report, loader_index: int) -> None:
        """Keeps what `Choice` takes of samples that can be drawn, with the model's logits before and after.

        Of samples of several shapes, those that are shaped as the first.
        """
        if not (_is_text(samples.x) or _is_signal(samples.x) or samples.x.ndim == 4 and samples.x.shape[1] in (1, 3)):
            return
        shape = samples.x.shape[1:]
        if self._shapes.setdefault(loader_index, shape) == shape:
            self._keep(model, samples, report, self._choice(loader_index))

    def _choice(self, loader_index: int) -> Choice[dict[str, Attacked]]:
        return self._choices.setdefault(loader_index, Choice(self._num_samples))

    def _keep(self, model: nn.Module, samples: Samples, report: Report, choice: Choice[dict[str, Attacked]]) -> None:
        taken = choice.take_in(report.clean_correct.tolist(), samples.y.tolist())
        if not taken:
            return
        rows = torch.tensor([*taken])
        shown = samples.take(rows.to(samples.x.device))
        attacked: dict[str, Attacked] = {}
        with measuring(model, shown) as (before, label), torch.no_grad():
            logits_before = model(before)
            for name, x_adv in report.x_adv.items():
                after = x_adv[rows.to(x_adv.device)]
                if after.shape != before.shape:
                    continue  # attacked somewhere inside the model
                # Chosen again, as the judge has chosen: by the sample's own noise and the same logits.
                objective = self._suite[name].objective.aim(
                    lambda: logits_before, label, SampleRng(self._seed, shown.ids)
                )
                wanted = torch.as_tensor(objective.target if isinstance(objective, Targeted) else -1)
                tensors = (before, after, logits_before, model(after), label, wanted.expand(len(shown)))
                attacked[name] = Attacked(*(tensor.detach().cpu() for tensor in tensors))
        for number, rank in enumerate(taken.values()):
            choice.keep(rank, {name: _one(of_all, number) for name, of_all in attacked.items()})

    def publish(self, trainer: pl.Trainer, folder: Path | None, loader_index: int) -> None:
        """Shows what was kept of a loader, and drops it. For rank zero."""
        names = token_names(trainer)
        self._shapes.pop(loader_index, None)
        kept = self._choices.pop(loader_index, Choice(0)).in_order()
        for name in self._suite:
            parts = [of_sample[name] for of_sample in kept if name in of_sample]
            if not parts:
                continue
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
        self._choices.clear()
        self._shapes.clear()


def _one(attacked: Attacked, number: int) -> Attacked:
    """One of the samples, without the memory of the others."""
    return Attacked(*(getattr(attacked, f.name)[number : number + 1].clone() for f in fields(Attacked)))


def _is_text(x: Tensor) -> bool:
    return x.ndim == 2 and not x.is_floating_point()


def _is_signal(x: Tensor) -> bool:
    return x.ndim == 3 and x.is_floating_point() and x.shape[1] <= MOST_CHANNELS and x.shape[2] > 1


def _place(trainer: pl.Trainer) -> str:
    """Where in a run a picture is taken."""
    if trainer.state.fn == TrainerFn.FITTING:
        return f"validation in epoch {trainer.current_epoch + 1}"
    return "test" if trainer.testing else "validation"
