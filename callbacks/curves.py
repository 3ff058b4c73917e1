"""`RobustnessCurves`: robust accuracy against eps and against steps, and loss against steps, in one figure of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from touchstone.attacks import Attack, Report, evaluate
from touchstone.attacks.core.eps import parse_number
from touchstone.attacks.core.wrapping import Wrapping
from touchstone.attacks.objectives.endless import Endless
from touchstone.options import check_count
from touchstone.runs.run_folder import run_folder

from .attacked_probe import AttackedProbe
from .parts.passes.loaders import loader_suffix
from .parts.passes.measuring import measuring
from .parts.passes.processes import gather
from .parts.passes.samples import Samples
from .parts.pictures.curves_picture import curves_picture
from .parts.records.curves_file import Curves, read_curves, write_curves
from .parts.records.publish import publish_picture


class RobustnessCurves(AttackedProbe):
    """Draws robust accuracy against eps and steps, and loss against steps, for this run and for earlier ones.

    Three curves: the share of samples that are right before the attack and after it inside every eps up to this one;
    the same for every number of steps up to this one, inside the attack's own eps; and the mean cross-entropy of the
    samples that are right before, after so many steps of a climb that does not stop where a sample falls (Madry et
    al., "Towards deep learning models resistant to adversarial attacks", 2018, figure 1). The accuracies cannot rise:
    what falls inside a small eps, or in few steps, falls inside a larger one too, and is not attacked again. Where
    nothing is right before the attack, they are 0, and the loss is NaN.

    Written as `curves.json` and `figures/curves.png` in the run folder; with S for val or test logged as the picture
    `curves` and as `S/curves/eps_E`, `S/curves/steps_K` and `S/curves/loss_K`.

    Args:
        attack: what attacks; its threat gives the norm, and the eps of the curves against steps.
        eps: the radii, each > 0, a number or a string such as `"8/255"`.
        steps: the numbers of steps, each >= 1; they replace the attack's `num_steps`. None for no such curves.
        levels: accuracies in (0, 1); for each the run says at which eps the first curve passes it, by straight lines
            between the radii, and logs it as `S/curves/eps_at_LEVEL`.
        compare_with: run folders whose `curves.json` are drawn in the same figure.
        batch_size: samples attacked at a time, >= 1; halved for good, with a warning, where they do not fit into
            memory.
        seed: seeds the random starts, together with each sample's position in the dataset.
        every_n_epochs, max_samples, normalization, batch_keys: as in `Probe`.

    Raises:
        ValueError: a value is outside its range; the attack's threat has no eps, or it learns from samples first; or,
            with `steps`, it does not climb its objective to the end; or a folder holds no curves inside a threat of
            the same kind.

    Example:
        >>> RobustnessCurves(attack=PGD(threat=Linf(eps=0.15)), eps=[0.05, 0.1, 0.15, 0.3], steps=[1, 5, 20, 50])
    """

    def __init__(
        self,
        *,
        attack: Attack,
        eps: Sequence[float | str],
        steps: Sequence[int] = (),
        levels: Sequence[float] = (),
        compare_with: Sequence[str] = (),
        batch_size: int = 256,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        _check_eps(attack, eps)
        if steps:
            _check_steps(attack, steps)
        super().__init__({type(attack).__name__: attack}, batch_size=batch_size, seed=seed, **kwargs)
        for level in levels:
            if not 0 < level < 1:
                raise ValueError(f"RobustnessCurves(levels=...) must be in (0, 1), got {level}")
        self.attack = attack
        self.eps = sorted({parse_number(value, "RobustnessCurves(eps=...)") for value in eps})
        self.steps, self.levels = sorted(set(steps)), tuple(levels)
        self.compare_with = [read_curves(folder, type(attack.threat).__name__) for folder in compare_with]
        self._inside = [_with_eps(attack, value) for value in self.eps]
        self._within = [replace(attack, num_steps=number) for number in self.steps]  # type: ignore[type-var]
        self._endless = {f"{number}_steps": _to_the_end(attack, number) for number in self.steps}
        self._num_classes = 0

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        clean = self._evaluated(model, samples, {}).clean_correct
        columns = {"clean": clean}
        for curve, attacks in (("eps", self._inside), ("steps", self._within)):
            standing = clean.clone()
            for number, attack in enumerate(attacks):
                rows = standing.nonzero()[:, 0]
                standing = standing.clone()
                standing[rows] = self._evaluated(model, samples.take(rows), {curve: attack}).robust[curve]
                columns[f"{curve}/{number}"] = standing
        climbed = self._evaluated(model, samples, self._endless).x_adv
        with measuring(model, samples) as (x, y), torch.no_grad():
            _, from_there, x = self.attack.enter(model, x)  # the points lie where the threat is
            for number, points in enumerate([x, *climbed.values()]):
                logits = from_there(points)
                columns[f"loss/{number}"] = F.cross_entropy(logits, y, reduction="none")
        self._num_classes = logits.shape[1]
        self.keep(samples, columns, loader_index)

    def _evaluated(self, model: nn.Module, samples: Samples, attacks: dict[str, Attack]) -> Report:
        return evaluate(
            model,
            samples.x,
            samples.y,
            attacks,
            seed=self.seed,
            sample_ids=samples.ids,
            batch_size=self._halving,
            keep_adversarial=attacks is self._endless,
            probe_masking=False,
        )

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        values, folder = self.gathered(loader_index), run_folder(trainer)
        num_classes = max(gather(self._num_classes))
        self._halving.say()
        clean = values.get("clean", torch.zeros(0, dtype=torch.bool))
        if not len(clean):
            return
        after = [values[f"loss/{number}"][clean] for number in range(len(self.steps) + 1)] if clean.any() else []
        losses = [float(loss.double().mean()) for loss in after]
        found = Curves(
            run="this run" if folder is None else "/".join(folder.parts[-2:]),
            stage=stage,
            attack=repr(self.attack),
            threat=type(self.attack.threat).__name__,
            threat_eps=float(self.attack.threat.eps),
            num_samples=len(clean),
            num_classes=num_classes,
            eps=[0.0, *self.eps],
            accuracy_at_eps=[_share(clean), *(_share(values[f"eps/{n}"]) for n in range(len(self.eps)))],
            steps=[0, *self.steps],
            accuracy_after_steps=[_share(clean), *(_share(values[f"steps/{n}"]) for n in range(len(self.steps)))],
            loss_after_steps=losses,
        )
        for name, value in found.by_name().items():
            self.log_figure(trainer, module, f"{stage}/curves/{name}", value, loader_index)
        for level in self.levels:
            eps = found.eps_at(level)
            if eps is not None:
                self.log_figure(trainer, module, f"{stage}/curves/eps_at_{level:g}", eps, loader_index)
            rank_zero_info(f"RobustnessCurves: {found.in_words(level)}")
        if not trainer.is_global_zero:
            return
        if folder is not None:
            write_curves(trainer, found, folder, loader_index)
        others = self.compare_with if loader_index == 0 else []
        figure = curves_picture([found, *others], self.levels)
        publish_picture(trainer, folder, f"curves{loader_suffix(trainer, loader_index)}", figure)


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())


def _with_eps(attack: Attack, eps: float) -> Attack:
    try:
        return attack.inside(replace(attack.threat, eps=eps))  # type: ignore[type-var]
    except ValueError as error:
        raise ValueError(f"RobustnessCurves(eps=...): {error}") from error


def _to_the_end(attack: Attack, num_steps: int) -> Attack:
    return replace(attack, num_steps=num_steps, objective=Endless(attack.objective))  # type: ignore[type-var]


def _check_eps(attack: Attack, eps: Sequence[float | str]) -> None:
    """Raises ValueError where an attack cannot be had inside several eps."""
    option = "RobustnessCurves(attack=...)"
    if not isinstance(attack, Attack) or not is_dataclass(attack):
        raise ValueError(f"{option} must be an attack such as PGD(...), got {attack!r:.80}")
    attack.check_rows(1)
    if attack.needs_samples:
        raise ValueError(
            f"{option} must be an attack that needs no samples, got {attack!r:.80}: give what its `.prepare` returns"
        )
    threat = attack.threat
    if not is_dataclass(threat) or "eps" not in {field.name for field in fields(threat)}:
        raise ValueError(f"{option} must have a threat with an eps, such as Linf or EmbeddingBall, got {threat!r:.80}")
    inner = attack
    while isinstance(inner, Wrapping):
        inner = inner.attack
    step_size = getattr(inner, "step_size", None)
    if step_size is not None:
        advice = "give its rel_step_size" if hasattr(inner, "rel_step_size") else f"{type(inner).__name__} has none"
        raise ValueError(
            f"{option} must go steps that grow with eps, since a larger ball would be left half searched: {advice}, "
            f"got step_size={step_size}"
        )
    if not eps:
        raise ValueError("RobustnessCurves(eps=...) must name at least one radius, got none")


def _check_steps(attack: Attack, steps: Sequence[int]) -> None:
    """Raises ValueError where an attack cannot go several numbers of steps, or its loss after them is none."""
    missing = {"num_steps", "objective"} - {field.name for field in fields(attack)}  # type: ignore[arg-type]
    if missing:
        raise ValueError(
            f"RobustnessCurves(steps=...) must be empty for {type(attack).__name__}, which has no field "
            f"{min(missing)}, got {list(steps)}"
        )
    for number in steps:
        check_count("RobustnessCurves(steps=...)", number)
    try:
        _to_the_end(attack, 1)
    except ValueError as error:
        raise ValueError(
            f"RobustnessCurves(steps=...) must be empty for {attack!r:.80}: the loss after steps takes an attack that "
            f"climbs its objective to the end, as PGD and APGD(num_targets=0) do, got {list(steps)}"
        ) from error
