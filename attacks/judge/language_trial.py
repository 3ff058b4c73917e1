"""`LanguageTrial`: the judge of language models at work: texts before any attack, and after each attack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.attack import Attack
from ..core.checks import check_labels, check_token_logits
from ..core.frozen_eval import seed_random_state
from ..core.same_answer import same_in_equal_batches
from ..core.sample_rng import SampleRng
from ..objectives.surprise import token_losses
from .attack_runner import AttackRunner
from .forwards import Forwards
from .halving import Halving
from .language_report import LanguageReport
from .meter import Cost
from .running import naming
from .untouched import Untouched


class LanguageTrial:
    """Measures texts before any attack, in the judge's context.

    The arguments are those of `evaluate_language`; `ids` are its sample ids, and `halving` has its batch size.

    Raises:
        ValueError: the labels or the logits are not what they must be, or the model looks ahead.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        ids: Tensor,
        attacks: Mapping[str, Attack],
        *,
        characters_per_token: float | Tensor,
        seed: int,
        halving: Halving,
    ) -> None:
        self._x, self._y, self._attacks, self._characters_per_token = x, y, attacks, characters_per_token
        self._look = Forwards(model, halving, check=check_token_logits)
        self._runner = AttackRunner(model, SampleRng(seed, ids), self._look, halving, Untouched(model))
        seed_random_state(seed, x.device)
        self._bits, self._characters = torch.zeros(2, *y.shape, device=x.device)  # of each token
        self._reached = {name: torch.zeros(len(x), dtype=torch.bool, device=x.device) for name in attacks}
        halving.run(len(x), self._foretell)
        self._check_causal()
        self._runner.untouched.ignore_changes()
        everywhere = torch.ones_like(self._bits)
        clean = _per_character(self._bits, self._characters, everywhere)
        self._report = LanguageReport(dict(attacks), ids, _per_token(self._characters, everywhere), clean)

    def _foretell(self, rows: slice) -> None:
        """Measures some of the texts."""
        x, y, ids = self._x[rows], self._y[rows], self._runner.rng.sample_ids[rows]
        try:
            logits = self._look(x, ids, "before any attack")
        except IndexError as error:
            raise ValueError(
                f"the model fails on texts with ids from {int(self._x.min())} to {int(self._x.max())}: are they all in "
                f"its vocabulary? ({error})"
            ) from error
        check_labels(y, logits.shape[2], ids)
        self._bits[rows] = token_losses(logits, y).float() / math.log(2)
        self._characters[rows] = _characters(self._characters_per_token, y, logits.shape[2])
        part = torch.arange(len(self._x), device=x.device)[rows]
        for name, attack in self._attacks.items():
            self._reached[name][rows] = naming(name, attack.take(part).objective.reached, logits, y)

    def attack(self, name: str, *, keep: bool) -> None:
        """Attacks every text, and enters figures and cost into the report; `keep` the attacked texts, too."""
        report, x, y, bits, characters = self._report, self._x, self._y, self._bits, self._characters
        before, after = bits.new_zeros(len(x)), bits.new_zeros(len(x))
        success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        changed = torch.zeros_like(y, dtype=torch.bool)

        def measure(part: Attack, rows: Tensor, x_adv: Tensor, logits: Tensor) -> None:
            if not x_adv.is_floating_point():
                changed[rows] = x_adv != x[rows]
            left = torch.ones_like(changed[rows])
            left[:, :-1] = ~changed[rows, 1:]
            now = token_losses(logits, y[rows]).float() / math.log(2)
            before[rows] = _per_character(bits[rows], characters[rows], left)
            after[rows] = _per_character(now, characters[rows], left)
            success[rows] = naming(name, part.objective.reached, logits, y[rows]) & ~self._reached[name][rows]

        everyone = torch.arange(len(x), device=x.device)
        x_adv, cost = self._runner.run(name, self._attacks[name], x, y, rows=everyone, measure=measure)
        report.before[name], report.after[name], report.success[name] = before, after, success
        report.num_changed[name], report.cost[name] = changed.sum(1), cost
        if keep:
            report.x_adv[name] = x_adv

    def report(self) -> LanguageReport:
        """Everything that was measured."""
        return replace(self._report, judge_cost=Cost(self._look.num_forwards))

    def _check_causal(self) -> None:
        """Raises ValueError where logits change with tokens behind them, in a model that gives the same ones twice."""
        x, ids, half = self._x, self._runner.rng.sample_ids, self._x.shape[1] // 2
        mixed = (x != x[:, :1]).any(1).nonzero()[:1, 0]
        if not len(mixed):
            return
        x, ids = x[mixed], ids[mixed]
        others = x.clone()  # of the text itself, since a model need not take every number below that of its logits
        others[:, half:] = torch.where(x == x.min(), x.max(), x.min())[:, half:]
        before, after = (self._look(text, ids, "before any attack")[:, :half] for text in (x, others))
        if same_in_equal_batches(before, after):
            return
        if not same_in_equal_batches(before, self._look(x, ids, "before any attack")[:, :half]):
            return
        raise ValueError(
            "a language model's logits must depend on none of the tokens behind them, or it would only have to look: "
            f"those of the first {half} tokens change with the rest; is it causal?"
        )


def _per_character(bits: Tensor, characters: Tensor, left: Tensor) -> Tensor:
    """Bits per character of each text over the tokens that were left, `(N,)`."""
    return (bits * left).sum(1) / left.sum(1) / _per_token(characters, left)


def _per_token(characters: Tensor, left: Tensor) -> Tensor:
    """Characters of a token, of each text, over those that were left: never none, since the last `y` is beyond it."""
    total = (characters * left).sum(1)
    return total.masked_fill(total == 0, 1) / left.sum(1)  # tokens in which none begins are a part of one


def _characters(given: float | Tensor, y: Tensor, vocab_size: int) -> Tensor:
    """How many characters each of the tokens has, float `(N, T)`."""
    if not isinstance(given, Tensor):
        return torch.full(y.shape, float(given), device=y.device)
    if len(given) != vocab_size:
        raise ValueError(
            f"evaluate_language(characters_per_token=...) must be a number, or one for each of the {vocab_size} tokens "
            f"of the model, got {len(given)}"
        )
    return given.to(y.device, torch.float32)[y]
