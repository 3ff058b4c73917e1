"""`TokenFlips`: a few tokens of a text may become others."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from touchstone.options import check_counts

from ..core.embedding import check_tokens, sizes_of_tables
from ..core.sample_rng import SampleRng
from .free_tokens import FreeTokens


@dataclass(frozen=True, eq=False, repr=False)
class TokenFlips(FreeTokens):
    """At most `num_flips` tokens of each text may become others of the vocabulary.

    Samples are token ids, int64 `(N, T)`. There is no direction in which a token could be moved by degrees: attacks
    that climb along gradients need an `EmbeddingBall`, and `HotFlip` works here.

    Args:
        num_flips: how many tokens may change, a whole number >= 1; at most as many as a text has, T. It is a bound: of
            a text with fewer that may change, such as one of two words and padding that is protected, all of them may.
        vocab_size: tokens V: ids are 0 to V - 1.
        protected: ids that are neither changed nor written, such as that of padding.
        mask: the tokens that may change, bool `(N, T)` or `(1, T)`; None for all.

    Raises:
        ValueError: a value is outside its range, or the budget is larger than the text.
    """

    num_flips: int
    vocab_size: int = field(kw_only=True)
    protected: tuple[int, ...] = field(default=(), kw_only=True)
    mask: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_flips")
        check_counts(self, "vocab_size", least=2)
        beyond = [token for token in self.protected if token >= self.vocab_size]
        if beyond:
            raise ValueError(f"TokenFlips(protected=...) must be ids below {self.vocab_size}, got {beyond[0]}")
        if self.vocab_size - len(set(self.protected)) < 2:
            raise ValueError(
                f"TokenFlips(protected=...) must leave at least two of {self.vocab_size} tokens, got {self.protected}"
            )

    @property
    def eps(self) -> float:  # type: ignore[override]
        """The budget as a number."""
        return float(self.num_flips)

    def __repr__(self) -> str:
        return f"TokenFlips({self.num_flips}, vocab_size={self.vocab_size}{self._shown()})"

    def may_be_written(self, device: torch.device) -> Tensor:
        """Which tokens may stand where another stood: bool `(V,)`."""
        written = torch.ones(self.vocab_size, dtype=torch.bool, device=device)
        written[list(self.protected)] = False
        return written

    def start(self, x: Tensor, rng: SampleRng) -> Tensor:
        """Other tokens, drawn evenly from the vocabulary, at `num_flips` places, or at all that may change."""
        draw = x.new_empty(x.shape, dtype=torch.float32)
        places = torch.where(self.free(x), rng.uniform(draw), 2.0)
        rank = places.argsort(dim=1).argsort(dim=1)
        return torch.where((rank < self.num_flips) & (places < 2), self.another(x, rng.fold(1).uniform(draw)), x)

    def another(self, tokens: Tensor, noise: Tensor) -> Tensor:
        """A token that may be written in place of each of these, every other one as likely.

        Args:
            tokens: ids that may change, whole numbers.
            noise: uniform in [0, 1), of the same shape.
        """
        allowed = self.may_be_written(tokens.device).nonzero()[:, 0]
        drawn = (noise * (len(allowed) - 1)).long().clamp(max=len(allowed) - 2)  # the product may round up
        place = torch.searchsorted(allowed, tokens.long().contiguous())
        return allowed[drawn + (drawn >= place).long()].to(tokens.dtype)

    def direction(self, grad: Tensor) -> Tensor:
        raise ValueError("tokens cannot be moved along a gradient: attack with HotFlip, or inside an EmbeddingBall")

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The first `num_flips` changes that are allowed, and no others."""
        changed = (x_adv != x) & self._allowed(x_adv, x)
        return torch.where(changed & (changed.cumsum(1) <= self.num_flips), x_adv, x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """How many tokens have changed, float `(N,)`; infinite where one changed that may not, or into what may not."""
        changed = x_adv != x
        allowed = (~changed | self._allowed(x_adv, x)).all(1)
        return torch.where(allowed, changed.sum(1).float(), torch.inf)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return self.distance(x_adv, x) <= self.num_flips

    def check_model_on(self, model: nn.Module, x: Tensor) -> None:
        tables = [module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)]
        if len(x) and tables and max(tables) < self.vocab_size:  # unless these are of positions alone
            size = min(sizes_of_tables(model, x[:2]), default=self.vocab_size)
            if size < self.vocab_size:
                raise ValueError(f"TokenFlips(vocab_size={self.vocab_size}): the model's embedding has {size}")

    def check_input(self, x: Tensor) -> None:
        super().check_input(x)
        check_tokens(x, self.vocab_size)
        if self.num_flips > x.shape[1]:
            raise ValueError(f"TokenFlips(num_flips={self.num_flips}): the texts have only {x.shape[1]} tokens")

    def _allowed(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Where a token may change, and into what it has: bool `(N, T)`."""
        inside = (x_adv >= 0) & (x_adv < self.vocab_size)
        return self.free(x) & inside & self.may_be_written(x.device)[x_adv.clamp(0, self.vocab_size - 1)]
