"""`FGSMRS`: adversarial training by one long step from a random start."""

from __future__ import annotations

from typing import Literal

import torch

from touchstone.attacks import PGD, Attack, Threat
from touchstone.options import check_positive

from .parts.remembering import Remembering
from .pgd_at import PGDAT


class FGSMRS(Remembering, PGDAT):
    """Learns from images one FGSM step away from a random point of the threat; a batch costs two passes.

    Source: Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training", 2020, algorithm 3.

    It can overfit catastrophically: within an epoch the net becomes robust against this step and against nothing else.
    The callback `CatastrophicOverfitting` sees it, and stops the run or lets it fall back.

    Args:
        threat: what the attacker may do.
        rel_step_size: length of the step as a share of eps, > 0; 1.25 in the paper.
        fallback: the attack to learn from after `fall_back`; PGD of two steps and more does not overfit so. None for
            none.
        mode: as in `InnerAttack`; the paper's code has `"train"`.

    Raises:
        ValueError: `rel_step_size` is not > 0, or a threat, `fallback` or `mode` is none that `InnerAttack` takes.
    """

    always = frozenset({"fell_back"})

    def __init__(
        self,
        threat: Threat,
        *,
        rel_step_size: float = 1.25,
        fallback: Attack | None = None,
        mode: Literal["eval", "train"] = "eval",
    ) -> None:
        check_positive(self, rel_step_size=rel_step_size)
        super().__init__(PGD(threat=threat, num_steps=1, rel_step_size=rel_step_size, to_the_end=True), mode=mode)
        if fallback is not None:
            PGDAT(fallback)  # checks it
        self.fallback = fallback
        self.memory = {"fell_back": torch.tensor(False)}

    def fall_back(self) -> bool:
        if self.fallback is None or self.memory["fell_back"]:
            return False
        self.memory = {"fell_back": torch.tensor(True)}
        self.attack = self._full = self.fallback
        return True

    def remember(self) -> None:
        if self.fallback is not None and self.memory["fell_back"]:
            self.attack = self._full = self.fallback
