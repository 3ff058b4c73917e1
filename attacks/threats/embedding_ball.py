"""`EmbeddingBall`: the vector of every token may move a little, where the model's embedding gives it.

Source: Miyato, Dai, Goodfellow, "Adversarial training methods for semi-supervised text classification", 2017,
section 3; here each token has a ball of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..core.embedding import FromEmbedding, find_embedding
from ..core.eps import read_eps, write_eps
from ..core.per_sample import per_sample, widest
from ..core.sample_rng import SampleRng
from ..core.threat import Threat
from .ball import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE
from .free_tokens import FreeTokens


@dataclass(frozen=True, eq=False, repr=False)
class EmbeddingBall(FreeTokens):
    """The vector of every token may move by a Euclidean length of at most eps.

    Samples are token ids, int64 `(N, T)`; what an attack returns, and what is measured, are vectors `(N, T, D)`. The
    embedding's padding, if it has one, never moves, and a model that masks padding goes on masking it. One that reads
    more of its tokens is refused, which is asked of every text before it is attacked, by two forwards.

    Args:
        eps: radius in the unit of the embedding: > 0, or one per text, float `(N,)`.
        embedding: the name of the `nn.Embedding` in the model, such as `"net.embedding"`; None for the only one.
        protected: ids whose vectors do not move.
        mask: the tokens that may move, bool `(N, T)` or `(1, T)`; None for all.

    Raises:
        ValueError: eps is not > 0; or the model has no such embedding, or reads more of its tokens than that.

    Example:
        >>> evaluate(model, tokens, y, {"pgd": PGD(threat=EmbeddingBall(eps=0.5))})
    """

    eps: float | str | Tensor  # type: ignore[assignment]
    embedding: str | None = field(default=None, kw_only=True)
    protected: tuple[int, ...] = field(default=(), kw_only=True)
    mask: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "eps", read_eps(self.eps, "EmbeddingBall(eps=...)"))

    def __repr__(self) -> str:
        embedding = "" if self.embedding is None else f", embedding={self.embedding!r}"
        return f"EmbeddingBall(eps={write_eps(self.eps)}{embedding}{self._shown()})"

    def check_model(self, model: nn.Module) -> None:
        find_embedding(model, self.embedding, type(self).__name__)

    def enter(self, model: nn.Module, x: Tensor) -> tuple[Threat, nn.Module, Tensor]:
        rest = FromEmbedding(model, find_embedding(model, self.embedding, type(self).__name__))
        vectors = rest.vectors(x)
        rest.compare(x)
        return TokenBalls(self.eps, free=self.free(x) & ~rest.is_padding(vectors)), rest, vectors

    def start(self, x: Tensor, rng: SampleRng) -> Tensor:
        raise TypeError("an EmbeddingBall is entered first: it moves vectors, not tokens")

    direction = project = distance = contains = start  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class TokenBalls(Threat):
    """`EmbeddingBall` at the embedding: each of the vectors `(N, T, D)` has a ball of its own.

    Args:
        eps: the radius, > 0, or one per text, float `(N,)`.
        free: which vectors may move, bool `(N, T)`.
    """

    eps: float | str | Tensor  # type: ignore[assignment]
    free: Tensor = field(kw_only=True)

    def start(self, x: Tensor, rng: SampleRng) -> Tensor:
        # Uniform in each ball: a uniform direction, and a radius whose D-th power is uniform.
        radius = rng.fold(1).uniform(x[..., :1]) ** (1 / x.shape[-1])
        return self.project(x + self._eps(x) * radius * self.direction(rng.normal(x)), x)

    def direction(self, grad: Tensor) -> Tensor:
        tiny = torch.finfo(grad.dtype).tiny
        grad = grad / grad.abs().amax(-1, keepdim=True).clamp_min(tiny)  # so that no square is too small
        return grad.mul_(self.free[..., None] / _lengths(grad).clamp_min(tiny))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        change = x_adv - x
        scale = (self._eps(x) / _lengths(change).clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(1)
        into = None if torch.is_grad_enabled() else change  # in its memory, where nobody differentiates
        return torch.addcmul(x, scale * self.free[..., None], change, out=into)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The length of the longest change of a vector, float `(N,)`; infinite where a vector moved that may not."""
        moved = _lengths(x_adv.to(widest(x.device)) - x)[..., 0]
        return torch.where(self.free | (moved == 0), moved, torch.inf).amax(1)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        distance = self.distance(x_adv, x)
        eps = torch.as_tensor(self.eps, dtype=distance.dtype, device=distance.device)
        # Vectors have no scale of their own: rounding goes by theirs.
        scale = x.abs().flatten(1).amax(1).to(distance).clamp_min(1)
        return distance <= eps * (1 + RELATIVE_TOLERANCE) + ABSOLUTE_TOLERANCE * scale

    def check_input(self, x: Tensor) -> None:
        if not x.is_floating_point() or x.shape[:2] != (len(x), self.free.shape[1]):
            raise ValueError(f"vectors must be float `(N, {self.free.shape[1]}, D)`, got {x.dtype} {tuple(x.shape)}")

    def _eps(self, x: Tensor) -> float | Tensor:
        assert not isinstance(self.eps, str)  # read by EmbeddingBall
        return per_sample(self.eps, x)


def _lengths(vectors: Tensor) -> Tensor:
    """The length of each vector, `(N, T, 1)`."""
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
