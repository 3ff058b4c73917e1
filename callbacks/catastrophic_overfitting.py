"""`CatastrophicOverfitting`: whether a net stands against one step only, seen at each validation, and acted on.

A callback, and no part of a strategy: it measures validation samples, as a `Probe` does, and decides over the run. Of
the strategy it asks one thing, to fall back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from touchstone.attacks import FGSM, PGD, Attack, Threat
from touchstone.attacks.core.logits import predicted
from touchstone.options import check_between, check_choice, check_count

from .parts.passes.before_training import check_output
from .parts.passes.measuring import measuring
from .parts.passes.samples import Samples
from .probe import Probe


def is_overfitted(after_fgsm: Sequence[float], after_pgd: Sequence[float], max_gap: float) -> bool:
    """Whether, at the last of these validations, PGD breaks what FGSM does not, and did not break before.

    Source: Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training", 2020, section 5.4: the
    accuracy after PGD falls to 0 within an epoch, while that after FGSM rises.

    Args:
        after_fgsm: accuracy after FGSM at each validation, shares in [0, 1].
        after_pgd: accuracy after PGD at the same ones.
        max_gap: how far the first may be above the second. A young net may have such a gap, which is why accuracy
            after PGD must also be below half of the best so far.
    """
    return after_fgsm[-1] - after_pgd[-1] > max_gap and after_pgd[-1] < max(after_pgd) / 2


class CatastrophicOverfitting(Probe):
    """Compares FGSM with PGD at each validation of a fit; stops the run, or lets it fall back, when they part.

    Logs accuracy after each as `val/after_one_step` and `val/after_many_steps`.

    Args:
        threat: what the attacks may do: that of the training.
        action: `"stop"` ends the run after this validation; `"fall_back"` asks the module's strategy for another
            attack (`FGSMRS(fallback=...)`), and ends the run where it has none, or has fallen back already.
        num_steps: of PGD, >= 2.
        max_gap: as in `is_overfitted`, in (0, 1).
        every_n_epochs, max_samples, normalization, batch_keys: as in `Probe`.

    Raises:
        ValueError: a value is outside its range; or, at the start of a fit with `"fall_back"`, the module has no
            strategy to ask. One that is asked and has no other attack, such as ordinary training, ends the run.

    Example:
        >>> CatastrophicOverfitting(threat=Linf(eps="8/255"), max_samples=500)
    """

    def __init__(
        self,
        threat: Threat,
        *,
        action: Literal["stop", "fall_back"] = "stop",
        num_steps: int = 10,
        max_gap: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        check_choice(f"{name}(action=...)", action, ("stop", "fall_back"))
        check_count(f"{name}(num_steps=...)", num_steps, least=2)
        check_between(f"{name}(max_gap=...)", max_gap, 0, 1, "()")
        self.action, self.max_gap = action, max_gap
        # Both from the sample itself, so that no draw of a start is between them.
        self._attacks: dict[str, Attack] = {
            "after_one_step": FGSM(threat=threat),
            "after_many_steps": PGD(threat=threat, num_steps=num_steps, random_start=False),
        }
        self._curves: dict[str, list[float]] = {name: [] for name in self._attacks}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        strategy = getattr(pl_module, "strategy", None)
        if stage == "fit" and self.action == "fall_back" and not hasattr(strategy, "fall_back"):
            raise ValueError(
                f"{type(self).__name__}(action='fall_back') needs a module with a strategy that can, such as "
                f"Classifier(strategy=FGSMRS(fallback=...)), got {type(pl_module).__name__}"
            )

    def is_due(self, trainer: pl.Trainer) -> bool:
        return super().is_due(trainer) and trainer.state.fn == TrainerFn.FITTING

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        check_output(self._attacks, model, samples)
        with measuring(model, samples) as (x, y):
            self._attacks["after_one_step"](model, x, y)  # checks samples and labels

    def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        measured = {}
        for name, attack in self._attacks.items():
            x_adv = attack(model, x, y)
            with torch.no_grad():
                measured[name] = (predicted(model(x_adv)) == y).float()
        return measured

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        values = self.gathered(loader_index)
        if not values:
            return
        means = {name: float(values[name].double().mean()) for name in self._attacks}
        for name, value in means.items():
            self.log_figure(trainer, module, f"{stage}/{name}", value, loader_index)
        if loader_index:
            return  # the first loader decides
        for name, value in means.items():
            self._curves[name].append(value)
        one, many = self._curves.values()
        if is_overfitted(one, many, self.max_gap):
            self._act(trainer, module, f"{one[-1]:.1%} right after one step and {many[-1]:.1%} after many")

    def _act(self, trainer: pl.Trainer, module: pl.LightningModule, seen: str) -> None:
        falls_back = self.action == "fall_back" and module.strategy.fall_back()  # type: ignore[union-attr,operator]
        for curve in self._curves.values():
            curve.clear()  # what follows is judged by itself
        trainer.should_stop = trainer.should_stop or not falls_back
        then = "the strategy falls back to its other attack" if falls_back else "the run ends here"
        rank_zero_warn(f"catastrophic overfitting in epoch {trainer.current_epoch}: {seen}; {then}")

    def state_dict(self) -> dict[str, Any]:
        return {"curves": {name: list(curve) for name, curve in self._curves.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._curves = {name: list(state_dict["curves"][name]) for name in self._attacks}
