"""`RobustAccuracy`: accuracy before and after attack, at every validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from touchstone.attacks import Attack, Report
from touchstone.options import check_counts, check_flags
from touchstone.runs.of_trainer import callbacks_of
from touchstone.runs.run_folder import run_folder

from .attacked_probe import AttackedProbe
from .parts.passes.attacked_pass import AttackedPass
from .parts.passes.before_training import refuse_language_labels
from .parts.passes.closer_look import CloserLook
from .parts.passes.entries import common_suite
from .parts.passes.in_words import named
from .parts.passes.loaders import loader_suffix
from .parts.passes.preparation import Preparation
from .parts.passes.recalls import recalls_after_attacks
from .parts.passes.samples import Samples
from .parts.passes.warm_starts import WarmStarts
from .parts.pictures.attack_pictures import AttackPictures
from .parts.records.origin import origin, samples_fingerprint
from .parts.records.publish import lay_out_charts, publish_text
from .parts.records.report_files import ReportNumbers, attack_success, summary, write_report


class RobustAccuracy(AttackedProbe):
    """Attacks the samples of each validation and test pass and logs accuracy before and after.

    With S for val or test and A for an attack's name: `S/clean_accuracy`, `S/robust_accuracy/A`,
    `S/robust_accuracy/worst_case`, `S/attack_success/A`, the pictures `attack/A`, and signs of gradient masking as
    the text `S/warnings`. `report.json` and `verdicts.npz` of the last pass lie in the run folder. Several entries
    of one trainer form one pass over the same samples, by the options of the first: the others leave theirs at the
    default, or repeat them.

    Args:
        attacks: attacks by name; the names become tags, of letters, digits, `_`, `-` and `.`, and neither `worst_case`
            nor `clean`.
        every_n_epochs: during `fit`, attack at the validations of every n-th epoch, >= 1.
        max_samples: attack only the first samples of the dataset, >= 1; None for all.
        batch_size: samples attacked at a time, >= 1, whatever the loader's batch size. Where so many do not fit into
            memory it is halved for good, as one warning at the end of the pass says.
        seed: seeds the random starts, together with each sample's position in the dataset.
        num_images: samples shown in the pictures, 0 for no pictures: those that were right before the attacks first,
            and of as many classes as there are.
        images_every_n_epochs: during `fit`, pictures at the first measured validation, at the first one of every n
            epochs, >= 1, and in the last epoch that is measured; at a validation or test by itself always. At the
            same times short attacks on a few samples look for gradient masking.
        num_prepare_samples: attacks that learn from samples before they attack (`Attack.needs_samples`) do so at
            every measured validation, from so many of the first samples of the training data, >= 1. What that costs
            stands in their cost.
        warm_start: during `fit`, try what each gradient attack found of a sample last time before attacking it anew:
            a forward more for each sample (as many as the attack averages over), and no attack on those that it turns.
            Accuracy is never higher for it, and a validation or test by itself never uses it. Memory and checkpoints:
            `WarmStarts`.
        per_class: log `S/robust_recall/A/NAME` too, the accuracy after attack A, or in the `worst_case`, of each class.
        normalization: mean and standard deviation per channel, as in `Probe`, if the batches come normalized; the
            attacks then work in pixels all the same, so that eps keeps its meaning.
        batch_keys: the keys of images and labels, if the batches are dicts or named tuples; of others their places.

    Attributes:
        num_attacked: samples of the first loader that has some, behind the last figures of this entry; 0 where another
            one measures.
        last_summary: what `report.json` holds of the last pass, also where no run folder has one; None before, where
            another entry measures, and on every process but the first.

    Raises:
        ValueError: a value is outside its range; names collide between entries, or entries disagree on an option; or it
            is to measure a language model, which `RobustLanguage` does.

    Example:
        >>> RobustAccuracy(attacks={"pgd": PGD(threat=Linf(eps=8 / 255))}, max_samples=1000)
    """

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
        batch_keys: tuple[str | int, str | int] | None = None,
    ) -> None:
        super().__init__(
            attacks,
            batch_size=batch_size,
            seed=seed,
            every_n_epochs=every_n_epochs,
            max_samples=max_samples,
            normalization=normalization,
            batch_keys=batch_keys,
        )
        _check(attacks)
        check_counts(self, num_prepare_samples=num_prepare_samples, images_every_n_epochs=images_every_n_epochs)
        check_counts(self, num_images=num_images, least=0)
        check_flags(self, warm_start=warm_start, per_class=per_class)
        self.attacks = attacks
        self.num_images = num_images
        self.images_every_n_epochs = images_every_n_epochs
        self.num_prepare_samples = num_prepare_samples
        self.warm_start, self.per_class = warm_start, per_class
        self.num_attacked = 0
        self.last_summary: dict[str, Any] | None = None
        self._warned = self._is_to_prepare = False
        self._fingerprints = Counter[int]()  # by loader
        self._numbers = ReportNumbers()
        self._set_up({}, warm_start=False)

    # One pass of several entries.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        entries = callbacks_of(trainer, RobustAccuracy)
        suite = common_suite(entries) if entries[0] is self else {}  # the first entry measures for all
        self._set_up(suite, warm_start=self.warm_start and stage == "fit")
        if suite:
            lay_out_charts(trainer, list(suite))

    def _set_up(self, suite: dict[str, Attack], *, warm_start: bool) -> None:
        self._suite = suite  # the attacks of all entries; empty where another entry measures
        self._closer_look = CloserLook(self.images_every_n_epochs, self.every_n_epochs)
        self._preparation = Preparation(suite, self.num_prepare_samples, self.seed, self.batch_keys)
        self._warm_starts = WarmStarts(suite if warm_start else {})
        self._pictures = AttackPictures(suite, self.num_images, self.seed)
        self._pass = AttackedPass(
            suite,
            batch_size=self.batch_size,
            halving=self._halving,
            seed=self.seed,
            preparation=self._preparation,
            warm_starts=self._warm_starts,
            pictures=self._pictures,
        )

    def takes_part(self) -> bool:
        return bool(self._suite)

    def logs(self, tag: str) -> bool:
        return bool(self._suite) and tag.startswith(
            ("val/clean_accuracy", "val/robust_accuracy/", "val/robust_recall/", "val/attack_success/")
        )

    def tags(self) -> list[str]:
        if not self._suite:
            return []
        after = [f"val/robust_accuracy/{name}" for name in (*self._suite, "worst_case")]
        return ["val/clean_accuracy", *after, *(f"val/attack_success/{name}" for name in self._suite)]

    # Before a training.

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._preparation.draw(trainer)

    def try_input(self, samples: Samples) -> None:
        refuse_language_labels(samples.y)
        super().try_input(samples)

    # The pass.

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        is_due = self.is_due(trainer)
        looks_closer = is_due and self._closer_look.is_due(trainer)
        self._fingerprints.clear()
        self._numbers = ReportNumbers()
        self._pass.begin(looks_closer=looks_closer, draws=looks_closer and trainer.is_global_zero)
        self._is_to_prepare = is_due
        if is_due:
            self.num_attacked = 0

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """By now averages of the weights have taken their place: a callback that is asked after this one sees to it."""
        if self._is_to_prepare:
            self._is_to_prepare = False
            with named(type(self).__name__):
                self._preparation.prepare(trainer, pl_module, self.as_measured)
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    on_test_batch_start = on_validation_batch_start

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        refuse_language_labels(samples.y)
        self._fingerprints[loader_index] += samples_fingerprint(samples)
        self._pass.see(model, samples, loader_index)

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        report = self._pass.conclude(loader_index, device=module.device, probes=trainer.is_global_zero)
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
        where_from = origin(trainer, module, seed=self.seed, fingerprint=self._fingerprints.pop(loader_index, 0))
        self._publish(trainer, stage, loader_index, report, where_from)

    def _publish(
        self, trainer: pl.Trainer, stage: str, loader_index: int, report: Report, where_from: dict[str, Any]
    ) -> None:
        """Writes report, warnings and pictures, on rank zero."""
        folder, suffix = run_folder(trainer), loader_suffix(trainer, loader_index)
        number = self._numbers.of(loader_index)
        if number == 0:
            self.num_attacked = len(report.sample_id)
        if not trainer.is_global_zero:
            return
        warnings = report.warnings
        publish_text(trainer, f"{stage}/warnings{suffix}", "\n".join(f"- {w}" for w in warnings) or "none")
        if warnings and not self._warned:
            self._warned = True
            rank_zero_warn(f"signs of gradient masking at {stage}: " + "; ".join(warnings))
        figures = summary(report, stage, where_from)
        if number == 0:
            self.last_summary = figures
        if folder is not None:
            write_report(trainer, report, figures, folder, number)
        self._pictures.publish(trainer, folder, loader_index)

    # What a resumed fit goes on with.

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


def _check(attacks: dict[str, Attack]) -> None:
    """Raises ValueError where these are no attacks of classifiers that hold for every batch, by name."""
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
