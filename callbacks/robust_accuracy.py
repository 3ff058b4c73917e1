"""`RobustAccuracy`: accuracy before and after attack, at every validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from touchstone.attacks import Attack, Report, evaluate
from touchstone.attacks.judge.halving import Halving
from touchstone.attacks.judge.probed import probed
from touchstone.attacks.judge.running import check_names

from .parts.passes.before_training import check_input, check_model, check_output, try_out_training_samples
from .parts.passes.closer_look import CloserLook
from .parts.passes.entries import common_suite
from .parts.passes.first_samples import FirstSamples
from .parts.passes.gathered_report import gathered_report
from .parts.passes.loaders import loader_suffix
from .parts.passes.preparation import Preparation
from .parts.passes.recalls import recalls_after_attacks
from .parts.passes.samples import Samples
from .parts.passes.waiting import Waiting
from .parts.passes.warm_starts import WarmStarts
from .parts.pictures.attack_pictures import AttackPictures
from .parts.records.origin import origin, samples_fingerprint
from .parts.records.publish import lay_out_charts, publish_text, run_folder
from .parts.records.report_files import attack_success, write_report
from .probe import Probe


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
        batch_size: samples attacked at a time, >= 1, whatever the loader's batch size. Where so many do not fit into
            memory it is halved for good, as one warning at the end of the pass says.
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
        per_class: log `S/robust_recall/A/NAME` too, the accuracy after attack A, or in the `worst_case`, of each class.
        normalization: mean and standard deviation per channel, if the batches come normalized; the attacks then
            work in pixels all the same, so that eps keeps its meaning.
        batch_keys: the keys of images and labels, if the batches are dicts.

    Attributes:
        num_attacked: samples of the first loader behind the last figures of this entry; 0 where another one measures.

    Raises:
        ValueError: a value is outside its range; names collide between entries, or entries disagree on an option; or it
            is to measure a language model, which `RobustLanguage` does.

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
        per_class: bool = False,
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
            if attack.objective.of_texts:
                raise ValueError(
                    f"RobustAccuracy(attacks=...): attack {name!r} has the objective {attack.objective!r}, which is "
                    "for language models: RobustLanguage measures these"
                )
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
        self.warm_start, self.per_class = warm_start, per_class
        self.num_attacked = 0
        self._warm_starts = WarmStarts({})
        self._suite: dict[str, Attack] = {}  # the attacks of all entries; empty where another entry measures
        self._model: nn.Module | None = None  # the one that the waiting samples are for
        self._halving = Halving(batch_size)  # kept from batch to batch: what does not fit is tried once
        self._waiting = Waiting(batch_size, {})
        self._reports: dict[int, list[Report]] = {}
        self._fingerprints: dict[int, int] = {}
        self._pictures = AttackPictures({}, num_images, seed)
        self._closer_look = CloserLook(images_every_n_epochs, every_n_epochs)
        self._looks_closer = self._draws = False  # all processes look closer at some passes, and the first one draws
        self._first_samples = FirstSamples(batch_size)  # probed for gradient masking
        self._warned = False
        self._has_checked = False  # whether samples of this fit have been looked at before its first validation
        self._tried: tuple[nn.Module, Samples] | None = None  # whose output has not been looked at
        self._preparation = Preparation({}, num_prepare_samples, seed, None)

    # One pass of several entries.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        entries = [callback for callback in trainer.callbacks if isinstance(callback, RobustAccuracy)]  # type: ignore[attr-defined]
        self._suite, self._has_checked = {}, False
        self._closer_look = CloserLook(self.images_every_n_epochs, self.every_n_epochs)
        self._warm_starts = WarmStarts({})
        if entries[0] is not self:
            return  # the first entry measures for all
        self._suite = common_suite(entries)
        self._waiting = Waiting(self.batch_size, self._suite)
        self._pictures = AttackPictures(self._suite, self.num_images, self.seed)
        self._preparation = Preparation(self._suite, self.num_prepare_samples, self.seed, self.batch_keys)
        self._warm_starts = WarmStarts(self._suite if self.warm_start and stage == "fit" else {})
        lay_out_charts(trainer, list(self._suite))

    def is_due(self, trainer: pl.Trainer) -> bool:
        return bool(self._suite) and super().is_due(trainer)

    def logs(self, tag: str) -> bool:
        return bool(self._suite) and tag.startswith(
            ("val/clean_accuracy", "val/robust_accuracy/", "val/robust_recall/", "val/attack_success/")
        )

    # The pass.

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        if not self._suite:
            return
        self._check_input(samples)
        evaluate(model, samples.x, samples.y, {}, batch_size=self._halving)  # checks the labels and the logits
        check_output(self._suite, model, samples)
        self._has_checked = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._suite:
            check_model(self._suite, pl_module)
            self._preparation.draw(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._has_checked or not self._suite:
            return
        self._has_checked = True
        self._tried = try_out_training_samples(self, pl_module, batch, self._check_input)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._tried is not None:  # not before the first step, which a net may learn its scales from
            check_output(self._suite, *self._tried)
            self._tried = None

    def _check_input(self, samples: Samples) -> None:
        self._check_classes(samples.y)
        check_input(self._suite, samples.x)

    @staticmethod
    def _check_classes(y: Tensor) -> None:
        if y.ndim != 1:
            raise ValueError(
                "RobustAccuracy measures classifiers, with labels `(N,)`; a language model, with the tokens that "
                f"follow as labels, here {tuple(y.shape)}, is measured by RobustLanguage"
            )

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        self._check_classes(samples.y)
        self._model = model
        for ready in self._waiting.add(samples, loader_index):
            self._attack(model, ready, loader_index)

    def _attack(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        fingerprint = self._fingerprints.get(loader_index, 0) + samples_fingerprint(samples)
        self._fingerprints[loader_index] = fingerprint
        is_pictured = self._draws and self._pictures.num_wanted(loader_index) > 0
        if self._looks_closer:
            self._first_samples.keep(samples, loader_index)
        report = evaluate(
            model,
            samples.x,
            samples.y,
            self._warm_starts.applied(self._preparation.attacks, samples, loader_index),
            seed=self.seed,
            sample_ids=samples.ids,
            batch_size=self._halving,
            keep_adversarial=is_pictured or bool(self._warm_starts),
            probe_masking=False,
        )
        if self._warm_starts:
            self._warm_starts.take_in(samples, report, loader_index)
        if is_pictured:
            self._pictures.keep(model, samples, report, loader_index)
        report = self._preparation.with_overlap(replace(report, x_adv={}), samples.x)
        self._reports.setdefault(loader_index, []).append(report)

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        for left in self._waiting.rest(loader_index):
            assert self._model is not None  # they were seen with it
            self._attack(self._model, left, loader_index)
        self._halving.say()
        report = self._preparation.with_cost(gathered_report(self._reports.pop(loader_index, []), self._suite))
        first = self._first_samples.gather(loader_index)
        if first is not None and self._model is not None and trainer.is_global_zero:
            attacks = self._warm_starts.applied(self._preparation.attacks, first, loader_index)
            x, y, ids = (tensor.to(module.device) for tensor in (first.x, first.y, first.ids))
            report = probed(
                report, self._model, x, y, attacks, sample_ids=ids, seed=self.seed, batch_size=self._halving
            )
        self._warm_starts.conclude(loader_index)
        if loader_index == 0:
            self.num_attacked = len(report.sample_id)
        if not len(report.sample_id):
            return
        figures = {
            "clean_accuracy": float(report.clean_correct.double().mean()),
            "robust_accuracy/worst_case": float(report.worst_case.double().mean()),
            **{f"robust_accuracy/{name}": float(v.double().mean()) for name, v in report.robust.items()},
            **{f"attack_success/{name}": attack_success(report, name) for name in self._suite},
            **(recalls_after_attacks(trainer, report) if self.per_class else {}),
        }
        for name, value in figures.items():
            in_bar = name in ("clean_accuracy", "robust_accuracy/worst_case")
            self.log_figure(trainer, module, f"{stage}/{name}", value, loader_index, prog_bar=in_bar)
        fingerprint = self._fingerprints.pop(loader_index, 0)
        where_from = origin(trainer, module, seed=self.seed, fingerprint=fingerprint)
        self._publish(trainer, stage, loader_index, report, where_from)

    def _publish(
        self, trainer: pl.Trainer, stage: str, loader_index: int, report: Report, where_from: dict[str, Any]
    ) -> None:
        """Writes report, warnings and pictures, on rank zero."""
        folder, suffix = run_folder(trainer), loader_suffix(trainer, loader_index)
        if not trainer.is_global_zero:
            return
        warnings = report.warnings
        publish_text(trainer, f"{stage}/warnings{suffix}", "\n".join(f"- {w}" for w in warnings) or "none")
        if warnings and not self._warned:
            self._warned = True
            rank_zero_warn(f"signs of gradient masking at {stage}: " + "; ".join(warnings))
        if folder is not None:
            write_report(trainer, report, stage, folder, loader_index, where_from)
        self._pictures.publish(trainer, folder, loader_index)

    def forget(self) -> None:
        super().forget()
        self._waiting.forget()
        self._reports.clear()
        self._fingerprints.clear()
        self._pictures.forget()
        self._first_samples.forget()
        self._warm_starts.forget_pass()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._warm_starts.save(checkpoint)
        if self._suite:
            self._closer_look.save(checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._warm_starts.load(checkpoint)
        self._closer_look.load(checkpoint)

    # When.

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        if self.is_due(trainer):
            self._preparation.prepare(trainer, pl_module, self.as_measured)
        self._looks_closer = self.is_due(trainer) and self._closer_look.is_due(trainer)
        self._draws = self._looks_closer and trainer.is_global_zero

    on_test_epoch_start = on_validation_epoch_start
