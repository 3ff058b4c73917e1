"""`AttackRunner`: what all attacks of an evaluation are run with, on images and on texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.attack import Attack
from ..core.frozen_eval import seed_random_state
from ..core.sample_rng import SampleRng
from .forwards import Forwards
from .halving import Halving
from .meter import Cost, metered
from .running import naming, run_attack
from .untouched import Untouched

Measure = Callable[[Attack, Tensor, Tensor, Tensor], None]
"""`measure(attack, rows, x_adv, logits)`: takes in what the attack of some rows `(M,)` returned, and the model's logits
for that."""


@dataclass(frozen=True, eq=False)
class AttackRunner:
    """Runs one attack after another on the samples of an evaluation.

    Attributes:
        model: samples to logits, in the judge's context.
        rng: noise per sample.
        look: the judge's own forwards.
        halving: samples attacked at a time.
        untouched: what proves that attacks leave the model alone.
    """

    model: nn.Module
    rng: SampleRng
    look: Forwards
    halving: Halving
    untouched: Untouched

    def run(
        self,
        name: str,
        attack: Attack,
        x: Tensor,
        y: Tensor,
        *,
        rows: Tensor,
        measure: Measure,
        aim: Callable[[Attack, Tensor], Attack] = lambda attack, rows: attack,
    ) -> tuple[Tensor, Cost]:
        """Attacks some of the samples, in batches that fit into memory.

        Args:
            name: of the attack, for messages.
            attack: as it was given.
            x: all samples, `(N, ...)`.
            y: their classes, int64 `(N,)`, or the tokens that follow, `(N, T)`.
            rows: which are attacked, int64 `(M,)`.
            measure: takes in the results; where memory did not suffice it is called again for less.
            aim: the attack of some rows, with every choice made that depends on them.

        Returns:
            All samples where the attacker meets them, those attacked as they became, and what it cost.

        Raises:
            ValueError: the attack is none that `run_attack` lets pass, or changed the model.
            RuntimeError: it failed; the message names it.
        """
        seed_random_state(self.rng.seed, x.device, purpose="measure again")
        with torch.no_grad(), metered(self.model) as meter:
            attack, model, x = naming(name, attack.enter, self.model, x)
        self.look.count(meter.num_forwards)  # whether the model is one for the threat is asked by the judge
        look, x_adv, cost = self.look.at(model), x.clone(), Cost()

        def run_some(part_of: slice) -> None:
            nonlocal cost
            some = rows[part_of]
            part, rng = aim(attack.take(some), some), self.rng.take(some)
            x_adv[some], spent = run_attack(name, part, model, x[some], y[some], rng)
            measure(part, some, x_adv[some], look.elsewhere(x_adv[some], rng.sample_ids, f"after attack {name!r}"))
            cost += spent  # last: where memory did not suffice, all this is done again for less

        if not attack.pools:
            self.halving.run(len(rows), run_some)
        elif len(rows):
            run_some(slice(None))
        self.untouched.check(name)
        return x_adv, cost
