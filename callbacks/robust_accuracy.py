"""`RobustAccuracy`: accuracy before and after attack, at every validation and test."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from touchstone.attacks import Attack, Report, SampleRng, Targeted, evaluate
from touchstone.attacks.core.checks import check_batch
from touchstone.attacks.judge.running import check_names, naming

from .parts.attack_picture import Attacked, attack_picture
from .parts.gathered_report import gathered_report
from .parts.loaders import loader_suffix
from .parts.preparation import Preparation
from .parts.publish import lay_out_charts, publish_picture, publish_text, run_folder
from .parts.report_files import attack_success, write_report
from .parts.samples import Samples, images_and_labels
from .parts.warm_starts import WarmStarts
from .probe import Probe, measuring


class RobustAccuracy(Probe):
    """Attacks the samples of each validation and test pass and logs accuracy before and after.

    With S for val or test and A for an attack's name: `S/clean_accuracy`, `S/robust_accuracy/A`,
    `S/robust_accuracy/worst_case`, `S/attack_success/A`, the pictures `attack/A`, and signs of gradient masking as
    the text `S/warnings`. `report.json` and `verdicts.npz` of the last pass lie in the run folder. Several entries
    of one trainer form one pass over the same samples, by the options of the first: the others leave theirs at the
    default, or repeat them.

    Args:
        attacks: attacks by name; the names become tags.
        every_n_epochs: during `fit`, attack at the validations of every n-th epoch, >= 1.
        max_samples: attack only the first samples of the dataset, >= 1; None for all.
        batch_size: samples attacked at a time, >= 1, whatever the loader's batch size.
        seed: seeds the random starts, together with each sample's position in the dataset.
        num_images: samples shown in the pictures, 0 for no pictures.
        images_every_n_epochs: during `fit`, pictures at the first measured validation, at the first one of every n
            epochs, >= 1, and in the last epoch that is measured; at a validation or test by itself always. At the
            same times short attacks on a few samples look for gradient masking.
        num_prepare_samples: attacks that learn from samples before they attack (`Attack.needs_samples`) do so at
            every measured validation, from so many of the first samples of the training data, >= 1. What that costs
            stands in their cost.
        warm_start: during `fit`, try what each gradient attack found of a sample last time before attacking it anew:
            one forward more for each sample, and no attack on those that it turns. Accuracy is never higher for it,
            and a validation or test by itself never uses it. Memory and checkpoints: `WarmStarts`.
        normalization: mean and standard deviation per channel, if the batches come normalized; the attacks then
            work in pixels all the same, so that eps keeps its meaning.
        batch_keys: the keys of images and labels, if the batches are dicts.

    Raises:
        ValueError: a value is outside its range; names collide between entries, or entries disagree on an option.

    Example:
        >>> RobustAccuracy(attacks={"pgd": PGD(threat=Linf(eps=8 / 255))}, max_samples=1000)
    """

    depends_on_ids = True

    def __init__(
        self,
        attacks: dict[str, Attack],
        *,
        every_n_epochs: int = 1,
        max_samples: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
        num_images: int = 8,
        images_every_n_epochs: int = 5,
        num_prepare_samples: int = 512,
        warm_start: bool = False,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
        batch_keys: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(
            every_n_epochs=every_n_epochs,
            max_samples=max_samples,
            normalization=normalization,
            batch_keys=batch_keys,
        )
        check_names(attacks)
        if not attacks:
            raise ValueError("RobustAccuracy(attacks=...) must name at least one attack")
        for name, attack in attacks.items():
            try:
                attack.check_rows(1)
            except ValueError as error:
                raise ValueError(
                    f"RobustAccuracy(attacks=...): attack {name!r} must hold for every sample of every batch, so "
                    "that its fields are numbers, or tensors of one row; for one value per sample call "
                    f"`touchstone.attacks.evaluate` ({error})"
                ) from error
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_images", num_images, 0),
            ("images_every_n_epochs", images_every_n_epochs, 1),
            ("num_prepare_samples", num_prepare_samples, 1),
        ):
            if value < least:
                raise ValueError(f"RobustAccuracy({name}=...) must be >= {least}, got {value}")
        self.attacks = attacks
        self.batch_size = batch_size
        self.seed = seed
        self.num_images = num_images
        self.images_every_n_epochs = images_every_n_epochs
        self.num_prepare_samples = num_prepare_samples
        self.warm_start = warm_start
        self._warm_starts = WarmStarts({})
        self._suite: dict[str, Attack] = {}  # the attacks of all entries; empty where another entry measures
        self._waiting: dict[int, list[Samples]] = {}
        self._reports: dict[int, list[Report]] = {}
        self._pictured: dict[int, dict[str, list[Attacked]]] = {}
        self._warned = False
        self._round_of_last_look: int | None = None
        self._has_checked = False  # whether samples of this fit have been looked at before its first validation
        self._preparation = Preparation({}, num_prepare_samples, seed, None)

    # One pass of several entries.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        entries = [callback for callback in trainer.callbacks if isinstance(callback, RobustAccuracy)]  # type: ignore[attr-defined]
        self._suite, self._has_checked, self._round_of_last_look = {}, False, None
        self._warm_starts = WarmStarts({})
        if entries[0] is not self:
            return  # the first entry measures for all
        for entry in entries:
            for name, default in DEFAULTS.items():
                ours, theirs = getattr(self, name), getattr(entry, name)
                if theirs not in (ours, default):
                    raise ValueError(
                        f"RobustAccuracy({name}=...) must be the same for all entries of a trainer, or given to the "
                        f"first alone, since they form one pass; the first has {ours}, another {theirs}"
                    )
            taken = sorted(set(entry.attacks) & set(self._suite))
            if taken:
                raise ValueError(f"two RobustAccuracy entries name an attack {taken[0]!r}: names must be unique")
            self._suite.update(entry.attacks)
        self._preparation = Preparation(self._suite, self.num_prepare_samples, self.seed, self.batch_keys)
        self._warm_starts = WarmStarts(self._suite if self.warm_start and stage == "fit" else {})
        lay_out_charts(trainer, list(self._suite))

    def is_due(self, trainer: pl.Trainer) -> bool:
        return bool(self._suite) and super().is_due(trainer)

    def logs(self, tag: str) -> bool:
        return bool(self._suite) and tag.startswith(
            ("val/clean_accuracy", "val/robust_accuracy/", "val/attack_success/")
        )

    # The pass.

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        if not self._suite:
            return
        self._check_input(samples.x)
        evaluate(model, samples.x, samples.y, {}, batch_size=self.batch_size)  # checks the labels and the logits
        self._has_checked = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._suite:
            self._preparation.draw(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._has_checked or not self._suite:
            return
        self._has_checked = True
        try:
            x, y = images_and_labels(batch, self.batch_keys)
            check_batch(x, y)
        except ValueError:
            return  # batches that are only for training
        try:
            self._check_input(self._in_pixels(pl_module, Samples(x, y, y))[1].x)
        except ValueError as error:  # a warning, since validation samples may be others
            rank_zero_warn(f"RobustAccuracy could not attack the training samples, nor any that are like them: {error}")

    def _check_input(self, x: Tensor) -> None:
        for name, attack in self._suite.items():
            naming(name, attack.threat.check_input, x)

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        waiting = self._waiting.setdefault(loader_index, [])
        waiting.append(samples)
        if any(attack.pools for attack in self._suite.values()):
            return  # such an attack wants to see them all at once
        if sum(len(part) for part in waiting) >= self.batch_size:
            self._attack_waiting(model, loader_index)

    def _attack_waiting(self, model: nn.Module, loader_index: int) -> None:
        waiting = self._waiting.pop(loader_index, [])
        if not waiting:
            return
        samples = Samples.join(waiting)
        report = evaluate(
            model,
            samples.x,
            samples.y,
            self._warm_starts.applied(self._preparation.attacks, samples, loader_index),
            seed=self.seed,
            sample_ids=samples.ids,
            batch_size=self.batch_size,
            keep_adversarial=self._pictures_left(loader_index) > 0 or bool(self._warm_starts),
            probe_masking=self._looks_closer and loader_index not in self._reports,
        )
        if self._warm_starts:
            self._warm_starts.take_in(samples, report, loader_index)
        if self._pictures_left(loader_index) > 0:
            self._keep_for_pictures(model, samples, report, loader_index)
        report = self._preparation.with_overlap(replace(report, x_adv={}), samples.x)
        self._reports.setdefault(loader_index, []).append(report)

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        model: nn.Module = module if self.normalize is None else nn.Sequential(self.normalize, module)
        self._attack_waiting(model, loader_index)
        self._warm_starts.conclude(loader_index)
        report = self._preparation.with_cost(gathered_report(self._reports.pop(loader_index, []), self._suite))
        if not len(report.sample_id):
            return
        figures = {
            "clean_accuracy": float(report.clean_correct.double().mean()),
            "robust_accuracy/worst_case": float(report.worst_case.double().mean()),
            **{f"robust_accuracy/{name}": float(v.double().mean()) for name, v in report.robust.items()},
            **{f"attack_success/{name}": attack_success(report, name) for name in self._suite},
        }
        for name, value in figures.items():
            in_bar = name in ("clean_accuracy", "robust_accuracy/worst_case")
            self.log_figure(trainer, module, f"{stage}/{name}", value, loader_index, prog_bar=in_bar)
        self._publish(trainer, stage, loader_index, report)

    def _publish(self, trainer: pl.Trainer, stage: str, loader_index: int, report: Report) -> None:
        """Writes report, warnings and pictures, on rank zero."""
        folder, suffix = run_folder(trainer), loader_suffix(trainer, loader_index)
        pictured = self._pictured.pop(loader_index, {})
        if not trainer.is_global_zero:
            return
        warnings = report.warnings
        publish_text(trainer, f"{stage}/warnings{suffix}", "\n".join(f"- {w}" for w in warnings) or "none")
        if warnings and not self._warned:
            self._warned = True
            rank_zero_warn(f"signs of gradient masking at {stage}: " + "; ".join(warnings))
        if folder is not None:
            write_report(report, stage, folder, loader_index)
        class_names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
        for name, parts in pictured.items():
            attacked = Attacked(*(torch.cat([getattr(p, f) for p in parts]) for f in Attacked.__dataclass_fields__))
            title = f"{name}, {_place(trainer)}: {self._suite[name].threat!r}"
            figure = attack_picture(attacked, title=title, class_names=class_names)
            publish_picture(trainer, folder, f"attack/{name}{suffix}", figure)

    def forget(self) -> None:
        super().forget()
        self._waiting.clear()
        self._reports.clear()
        self._pictured.clear()
        self._warm_starts.forget_pass()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._warm_starts.save(checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._warm_starts.load(checkpoint)

    # Pictures.

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        if self.is_due(trainer):
            self._preparation.prepare(trainer, pl_module, self._in_pixels)
        self._looks_closer = self.is_due(trainer) and trainer.is_global_zero and self._is_due_for_a_closer_look(trainer)

    on_test_epoch_start = on_validation_epoch_start

    def _is_due_for_a_closer_look(self, trainer: pl.Trainer) -> bool:
        """Whether a measured pass is the first, the first of n epochs, or the last as far as is known."""
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        epoch, round_number = trainer.current_epoch + 1, (trainer.current_epoch + 1) // self.images_every_n_epochs
        every = math.lcm(self.every_n_epochs, trainer.check_val_every_n_epoch or 1)
        is_last = trainer.max_epochs is not None and epoch + every > trainer.max_epochs > 0
        is_due = is_last or round_number != self._round_of_last_look
        self._round_of_last_look = round_number
        return is_due

    def _pictures_left(self, loader_index: int) -> int:
        drawn = self._pictured.get(loader_index, {})
        num_drawn = max((sum(len(part.label) for part in parts) for parts in drawn.values()), default=0)
        return self.num_images - num_drawn if self._looks_closer else 0

    def _keep_for_pictures(self, model: nn.Module, samples: Samples, report: Report, loader_index: int) -> None:
        """Keeps the first samples, where they are images, with the model's logits before and after."""
        if samples.x.ndim != 4 or samples.x.shape[1] not in (1, 3):
            return
        shown = samples.take(slice(0, self._pictures_left(loader_index)))
        kept = self._pictured.setdefault(loader_index, {})
        with measuring(model, shown) as (before, label), torch.no_grad():
            logits_before = model(before)
            for name, x_adv in report.x_adv.items():
                after = x_adv[: len(shown)]
                # Chosen again, as the judge has chosen: by the sample's own noise and the same logits.
                objective = self._suite[name].objective.aim(
                    lambda: logits_before, label, SampleRng(self.seed, shown.ids)
                )
                wanted = torch.as_tensor(objective.target if isinstance(objective, Targeted) else -1)
                tensors = (before, after, logits_before, model(after), label, wanted.expand(len(shown)))
                kept.setdefault(name, []).append(Attacked(*(tensor.detach().cpu() for tensor in tensors)))


def _place(trainer: pl.Trainer) -> str:
    """Where in a run a picture is taken."""
    if trainer.state.fn == TrainerFn.FITTING:
        return f"validation in epoch {trainer.current_epoch + 1}"
    return "test" if trainer.testing else "validation"


DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(RobustAccuracy).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
"""The options of an entry, which one that follows another leaves as they are."""
