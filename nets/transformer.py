"""`TransformerBlock`: attention and a position-wise feed-forward net, each with a residual and a norm; from scratch.

Vaswani et al., "Attention is all you need", 2017, section 3. Post-norm is the paper's, `norm(x + f(x))`; pre-norm,
`x + f(norm(x))`, is that of Xiong et al., "On layer normalization in the transformer architecture", 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.options import check_between, check_choice, check_counts, check_flags

from .attention import Attention, KeysValues
from .parts.made import check_made

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
KINDS = ("linear", "conv")


class FeedForward(nn.Module):
    """The same two-layer net at every position, as linear maps or as convolutions with a kernel of 1.

    Args:
        dim: features D of a token.
        hidden: units of the hidden layer, >= 1.
        activation: `"relu"` or `"gelu"`.
        kind: `"linear"`, or `"conv"` for the same net as `nn.Conv1d` with a kernel of 1.
        dropout: share of the hidden units that training sets to zero, in [0, 1).
        bias: whether both layers have one.
        device: see `Attention`, as is the next.
        dtype: of the parameters.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(B, T, D)` to the same.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        activation: Literal["relu", "gelu"] = "relu",
        kind: Literal["linear", "conv"] = "linear",
        dropout: float = 0.0,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_counts(self, dim=dim, hidden=hidden)
        check_choice("FeedForward(activation=...)", activation, tuple(ACTIVATIONS))
        check_choice("FeedForward(kind=...)", kind, KINDS)
        check_flags(self, bias=bias)
        check_made(self, device=device, dtype=dtype)
        check_between("FeedForward(dropout=...)", dropout, 0, 1, "[)")
        self.activation, self.kind, self.dropout = activation, kind, dropout
        made: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.first: nn.Module
        self.second: nn.Module
        if kind == "linear":
            self.first, self.second = nn.Linear(dim, hidden, **made), nn.Linear(hidden, dim, **made)
        else:
            self.first, self.second = nn.Conv1d(dim, hidden, 1, **made), nn.Conv1d(hidden, dim, 1, **made)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT if self.kind == "conv" else x
        x = self.second(F.dropout(ACTIVATIONS[self.activation](self.first(x)), self.dropout, self.training))
        return x.mT if self.kind == "conv" else x


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward net, as `nn.TransformerEncoderLayer` computes them (batch first).

    Args:
        dim: features D of a token.
        num_heads: heads, a divisor of D.
        hidden: units of the feed-forward net, >= 1; None for 4 D.
        norm: `"pre"` or `"post"`.
        activation: of the feed-forward net, `"relu"` or `"gelu"`.
        feed_forward: `"linear"` or `"conv"`, see `FeedForward`.
        dropout: share of the attention weights, of the hidden units and of what either part adds that training sets
            to zero, in [0, 1).
        bias: whether linear maps and norms have one.
        alpha: see `Attention`, as are the next four.
        causal: whether a token looks only at itself and at earlier ones.
        rotary: whether queries and keys are turned by their positions.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: a value is outside its range.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        hidden: int | None = None,
        norm: Literal["pre", "post"] = "pre",
        activation: Literal["relu", "gelu"] = "relu",
        feed_forward: Literal["linear", "conv"] = "linear",
        dropout: float = 0.0,
        bias: bool = True,
        alpha: float | None = None,
        causal: bool = False,
        rotary: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("TransformerBlock(norm=...)", norm, ("pre", "post"))
        check_choice("TransformerBlock(feed_forward=...)", feed_forward, KINDS)
        check_made(self, device=device, dtype=dtype)
        made: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.attention = Attention(dim, num_heads, alpha=alpha, causal=causal, rotary=rotary, dropout=dropout, **made)
        hidden = 4 * dim if hidden is None else hidden
        self.feed_forward = FeedForward(dim, hidden, activation=activation, kind=feed_forward, dropout=dropout, **made)
        self.norm_1, self.norm_2 = nn.LayerNorm(dim, **made), nn.LayerNorm(dim, **made)
        self.norm, self.dropout = norm, dropout

    def forward(
        self, x: Tensor, *, padding: Tensor | None = None, mask: Tensor | None = None, return_maps: bool = False
    ) -> Any:
        """Transforms tokens.

        Args:
            x: tokens, float `(B, T, D)`.
            padding: see `Attention`, as is the next.
            mask: where a token may be looked at.
            return_maps: whether to return the attention weights `(B, N, T, T)` as well.

        Returns:
            Tokens `(B, T, D)`; with `return_maps`, tokens and weights.
        """
        x, seen = self._run(x, padding=padding, mask=mask, return_maps=return_maps)
        return (x, seen) if return_maps else x

    def extend(self, x: Tensor, cache: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """Transforms tokens that follow those of a cache, in the time of the new ones.

        Args:
            x: the next tokens, float `(B, T, D)`.
            cache: what the last call returned; None at the start.

        Returns:
            The transformed tokens `(B, T, D)`, and the cache with theirs.
        """
        return self._run(x, cache=cache)

    def _run(self, x: Tensor, **options: Any) -> tuple[Tensor, Any]:
        if self.norm == "pre":
            mixed, seen = self.attention(self.norm_1(x), **options)
            x = x + F.dropout(mixed, self.dropout, self.training)
            return x + F.dropout(self.feed_forward(self.norm_2(x)), self.dropout, self.training), seen
        mixed, seen = self.attention(x, **options)
        x = self.norm_1(x + F.dropout(mixed, self.dropout, self.training))
        return self.norm_2(x + F.dropout(self.feed_forward(x), self.dropout, self.training)), seen
