"""`NextToken`: the attacker of a language model wants it to say one particular token next."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from touchstone.options import is_whole_number

from ..core.logits import predicted
from ..core.objective import Objective


@dataclass(frozen=True)
class NextToken(Objective):
    """The attacker wants a language model to take one token for the most likely one after the text.

    For `evaluate_language`: logits `(N, T, V)`, and as `y` the tokens that follow, int64 `(N, T)`. Where the target is
    the token that follows anyway, the objective is never reached.

    Args:
        target: the token, >= 0.

    Raises:
        ValueError: the target is no token.
    """

    of_texts = True
    target: int

    def __post_init__(self) -> None:
        if not is_whole_number(self.target) or self.target < 0:
            raise ValueError(f"NextToken(target=...) must be a token id >= 0, got {self.target!r}")
        object.__setattr__(self, "target", int(self.target))

    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        self._check(logits)
        return logits[:, -1].log_softmax(1)[:, self.target]

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        self._check(logits)
        return (predicted(logits[:, -1]) == self.target) & (y[:, -1] != self.target)

    def _check(self, logits: Tensor) -> None:
        if self.target >= logits.shape[2]:
            raise ValueError(f"NextToken(target={self.target}): the model has {logits.shape[2]} tokens")
