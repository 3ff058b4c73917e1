"""`LanguageReport`: what attacks did to a language model, text by text, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..core.attack import Attack
from .meter import Cost


@dataclass(frozen=True, eq=False)
class LanguageReport:
    """The figures of one evaluation. All tensors have one row per text, in the order of the call.

    What an attack did is measured on the tokens that it left: a flipped token is no longer what is to be said.

    Attributes:
        attacks: the attacks by name.
        sample_id: int64 `(N,)`.
        characters_per_token: of each text, what turns its bits per token into bits per character, float `(N,)`.
        clean: bits per character before any attack, over the whole text, float `(N,)`.
        before: by attack, bits per character before it, over the tokens that it left, float `(N,)`.
        after: by attack, the same after it.
        success: by attack, whether its objective was reached and was not before, bool `(N,)`.
        num_changed: by attack, how many tokens it changed, int64 `(N,)`; inside an embedding, 0.
        cost: by attack, the texts it passed through the model.
        x_adv: by attack, what the judge measured, where it was asked to keep it.
        judge_cost: what the judge itself passed through the model.
    """

    attacks: dict[str, Attack]
    sample_id: Tensor
    characters_per_token: Tensor
    clean: Tensor
    before: dict[str, Tensor] = field(default_factory=dict)
    after: dict[str, Tensor] = field(default_factory=dict)
    success: dict[str, Tensor] = field(default_factory=dict)
    num_changed: dict[str, Tensor] = field(default_factory=dict)
    cost: dict[str, Cost] = field(default_factory=dict)
    x_adv: dict[str, Tensor] = field(default_factory=dict)
    judge_cost: Cost = Cost()

    def __str__(self) -> str:
        """A line for each attack: mean bits per character before and after it, over the tokens that it left."""
        if not len(self.sample_id):
            return "no texts"
        width = max(map(len, (*self.after, "clean")))
        lines = [f"{'clean':{width}}  {float(self.clean.mean()):.3f} bits per character"]
        for name, after in self.after.items():
            figures = f"{float(self.before[name].mean()):.3f} -> {float(after.mean()):.3f}"
            reached = f"{int(self.success[name].sum())} of {len(after)} texts reached"
            cost = f"{self.cost[name].num_forwards} forwards, {self.cost[name].num_backwards} backwards"
            lines.append(f"{name:{width}}  {figures}, {reached}  ({cost})")
        return "\n".join(lines)
