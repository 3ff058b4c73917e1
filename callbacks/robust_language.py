"""`RobustLanguage`: bits per character before and after attack, at every validation and test of a language model."""

from __future__ import annotations

from collections import Counter
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from touchstone.attacks import Attack, Cost, LanguageReport, evaluate_language
from touchstone.options import check_counts
from touchstone.runs.of_trainer import of_data
from touchstone.runs.run_folder import run_folder

from .attacked_probe import AttackedProbe
from .parts.passes.loaders import loader_suffix
from .parts.passes.processes import gather_costs
from .parts.passes.samples import Samples
from .parts.passes.waiting import Waiting
from .parts.pictures.shown_tokens import token_names
from .parts.pictures.text_picture import FlippedText, text_picture
from .parts.records.origin import origin, samples_fingerprint
from .parts.records.publish import publish_picture
from .parts.records.report_files import ReportNumbers, as_json, write_numbered


class RobustLanguage(AttackedProbe):
    """Attacks the texts of each validation and test pass and logs how well they are predicted before and after.

    With S for val or test and A for an attack's name, means over texts: `S/bits_per_character/clean`, over all tokens;
    `S/bits_per_character/A_before` and `S/bits_per_character/A`, before and after it, over the tokens that it left;
    `S/attack_success/A`, the share of the texts where its objective was reached and was not before; the pictures
    `attack/A` of flipped texts; and `language_report.json` in the run folder. The characters of each text are counted
    where the `vocabulary` of the data module has `num_characters`; else they are its mean `characters_per_token`, and
    where it knows none the figures are bits per token.

    Args:
        attacks: attacks by name, with the objective `Surprise` or `NextToken`; the names become tags, of
            letters, digits, `_`, `-` and `.`, and neither `worst_case` nor `clean`.
        batch_size: texts attacked at a time, >= 1, whatever the loader's batch size; halved for good, with a warning,
            where they do not fit into memory.
        seed: seeds the random starts, together with each text's position in the dataset.
        num_texts: texts shown in the pictures, 0 for no pictures.
        every_n_epochs, max_samples, batch_keys: as in `Probe`.

    Raises:
        ValueError: a value is outside its range.

    Example:
        >>> threat = TokenFlips(2, vocab_size=256)
        >>> RobustLanguage({"hot_flip": HotFlip(threat=threat, objective=Surprise())}, max_samples=64)
    """

    def __init__(
        self,
        attacks: dict[str, Attack],
        *,
        batch_size: int = 64,
        seed: int = 0,
        num_texts: int = 4,
        every_n_epochs: int = 1,
        max_samples: int | None = None,
        batch_keys: tuple[str | int, str | int] | None = None,
    ) -> None:
        super().__init__(
            attacks,
            batch_size=batch_size,
            seed=seed,
            every_n_epochs=every_n_epochs,
            max_samples=max_samples,
            batch_keys=batch_keys,
        )
        check_counts(self, num_texts=num_texts, least=0)
        for name, attack in attacks.items():
            if not attack.objective.of_texts:
                raise ValueError(
                    f"RobustLanguage(attacks=...): attack {name!r} must have the objective Surprise() or "
                    f"NextToken(target=...), got {attack.objective!r}"
                )
        self.attacks, self.num_texts = attacks, num_texts
        self._waiting = Waiting(batch_size, attacks)
        self._model: nn.Module | None = None  # the one that the waiting texts are for
        self._characters_per_token: dict[str, float] = {}
        self._num_characters: Tensor | None = None  # of each token
        self._names: tuple[str, ...] = ()
        self._stage = "val"
        self._cost: dict[int, dict[str, Cost]] = {}
        self._shown: dict[int, dict[str, list[FlippedText]]] = {}
        self._fingerprints = Counter[int]()  # by loader
        self._numbers = ReportNumbers()

    # Before a training.

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        self.try_input(samples)
        evaluate_language(model, samples.x, samples.y, {}, batch_size=self._halving)  # checks the texts and the logits

    def try_output(self, model: nn.Module, samples: Samples) -> None:
        """What is asked of a classifier's logits is not asked here."""

    # The pass.

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._stage = "test" if trainer.testing else "val"
        self._characters_per_token = of_data(trainer, "characters_per_token", {})
        self._names = token_names(trainer) or ()
        counted = getattr(of_data(trainer, "vocabulary"), "num_characters", None)  # by now that of a checkpoint
        self._num_characters = None if counted is None else torch.as_tensor(counted)

    on_test_epoch_start = on_validation_epoch_start

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        self._model = model
        for ready in self._waiting.add(samples, loader_index):
            self._attack(model, ready, loader_index)

    def _attack(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        shown = self._shown.setdefault(loader_index, {})
        num_wanted = self.num_texts - max(map(len, shown.values()), default=0) if self._names else 0
        per_token = self._characters_per_token.get(self._stage, 1.0)
        report = evaluate_language(
            model,
            samples.x,
            samples.y,
            self.attacks,
            characters_per_token=per_token if self._num_characters is None else self._num_characters,
            seed=self.seed,
            sample_ids=samples.ids,
            batch_size=self._halving,
            keep_adversarial=num_wanted > 0,
        )
        self._fingerprints[loader_index] += samples_fingerprint(samples)
        self.keep(samples, _rows(report), loader_index)
        cost = self._cost.setdefault(loader_index, dict.fromkeys(self.attacks, Cost()))
        for name, spent in report.cost.items():
            cost[name] += spent
        for name, x_adv in report.x_adv.items():
            if not x_adv.is_floating_point():  # attacked as a text
                shown.setdefault(name, []).extend(self._flipped(report, name, samples.x, x_adv)[:num_wanted])

    def _flipped(self, report: LanguageReport, name: str, x: Tensor, x_adv: Tensor) -> list[FlippedText]:
        return [
            FlippedText(
                [self._names[token] for token in before],
                [self._names[token] for token in after],
                f"{bits[0]:.2f} -> {bits[1]:.2f} bits per character" + (", reached" if reached else ""),
            )
            for before, after, reached, *bits in zip(
                x.tolist(),
                x_adv.tolist(),
                report.success[name].tolist(),
                report.before[name].tolist(),
                report.after[name].tolist(),
                strict=True,
            )
        ]

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        for left in self._waiting.rest(loader_index):
            assert self._model is not None  # they were seen with it
            self._attack(self._model, left, loader_index)
        values = self.gathered(loader_index)
        cost = gather_costs(self._cost.pop(loader_index, dict.fromkeys(self.attacks, Cost())))
        shown, folder = self._shown.pop(loader_index, {}), run_folder(trainer)
        self._halving.say()
        where_from = origin(trainer, module, seed=self.seed, fingerprint=self._fingerprints.pop(loader_index, 0))
        if not values:
            return
        number = self._numbers.of(loader_index)
        means = {key: float(value.double().mean()) for key, value in values.items() if key != "_id"}
        for key, mean in means.items():
            self.log_figure(trainer, module, f"{stage}/{key}", mean, loader_index)
        if not trainer.is_global_zero:
            return
        if folder is not None:
            figures = {
                "stage": stage,
                "num_texts": len(values["_id"]),
                **means,
                "attacks": {name: _described(attack, cost[name]) for name, attack in self.attacks.items()},
                **where_from,
                "texts": {key: value.tolist() for key, value in values.items()},
            }
            write_numbered(trainer, {folder / "language_report.json": as_json(figures)}, number)
        for name, texts in shown.items():
            attack = self.attacks[name]
            picture = text_picture(texts, title=f"{name}: {attack.threat!r}, {attack.objective!r}")
            publish_picture(trainer, folder, f"attack/{name}{loader_suffix(trainer, loader_index)}", picture)

    def logs(self, tag: str) -> bool:
        return tag.startswith(("val/bits_per_character/", "val/attack_success/"))

    def tags(self) -> list[str]:
        ends = ("bits_per_character/{}_before", "bits_per_character/{}", "attack_success/{}")
        return ["val/bits_per_character/clean", *(f"val/{end.format(name)}" for name in self.attacks for end in ends)]

    def forget(self) -> None:
        super().forget()
        self._waiting.forget()
        self._cost.clear()
        self._shown.clear()
        self._fingerprints.clear()
        self._numbers = ReportNumbers()


def _described(attack: Attack, cost: Cost) -> dict[str, Any]:
    """What the report says of an attack."""
    return {
        "threat": repr(attack.threat),
        "objective": repr(attack.objective),
        "num_forwards": cost.num_forwards,
        "num_backwards": cost.num_backwards,
        "seconds": cost.seconds,
    }


def _rows(report: LanguageReport) -> dict[str, Tensor]:
    """The figures of every text, by the end of their tags."""
    rows = {"bits_per_character/clean": report.clean}
    for name in report.attacks:
        rows[f"bits_per_character/{name}_before"] = report.before[name]
        rows[f"bits_per_character/{name}"] = report.after[name]
        rows[f"attack_success/{name}"] = report.success[name]
    return rows
