"""`Attention`: self-attention from scratch, `S(X) = softmax(X W_q W_k^T X^T / alpha) X W_v`, of several heads.

Vaswani et al., "Attention is all you need", 2017, equation 1, with alpha free. Rotary positions: Su et al.,
"RoFormer", 2021, equation 34. Shapes: B sequences, T tokens, S tokens that are looked at, N heads of width K each,
N K = D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.options import check_between, check_counts, check_flags, check_positive

from .parts.made import check_made
from .parts.turns import turns

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of the tokens so far, each `(B, N, S, K)`."""


class Attention(nn.Module):
    """Every token looks at the others.

    The fast path is torch's `scaled_dot_product_attention`; with `return_maps=True` the equation is computed as it is
    written, and gives the attention maps as well.

    Args:
        dim: features D of a token.
        num_heads: heads N, a divisor of D.
        alpha: what the scores are divided by, > 0; None for sqrt(K).
        causal: whether a token looks only at itself and at earlier ones.
        rotary: whether queries and keys are turned by their positions; K must be even.
        dropout: share of the attention weights that training sets to zero, in [0, 1).
        bias: whether the four linear maps have one.
        device: where the parameters are made, as for torch's layers; None for torch's default.
        dtype: of the parameters, floating point; None for torch's default.

    Raises:
        ValueError: a value is outside its range.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        alpha: float | None = None,
        causal: bool = False,
        rotary: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_counts(self, dim=dim, num_heads=num_heads)
        check_flags(self, causal=causal, rotary=rotary, bias=bias)
        check_made(self, device=device, dtype=dtype)
        if dim % num_heads:
            raise ValueError(f"Attention(num_heads=...) must divide dim, got {num_heads} and dim {dim}")
        check_positive(self, alpha=alpha, none_means="the root of dim / num_heads")
        check_between("Attention(dropout=...)", dropout, 0, 1, "[)")
        head_dim = dim // num_heads
        if rotary and head_dim % 2:
            raise ValueError(f"Attention(rotary=True): dim / num_heads must be even, got {head_dim}")
        self.dim, self.num_heads, self.dropout = dim, num_heads, dropout
        self.alpha = head_dim**0.5 if alpha is None else alpha
        self.causal, self.rotary = causal, rotary
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias, device=device, dtype=dtype)
        self.out = nn.Linear(dim, dim, bias=bias, device=device, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        *,
        padding: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KeysValues | None = None,
        return_maps: bool = False,
    ) -> tuple[Tensor, KeysValues | Tensor]:
        """Mixes tokens.

        Args:
            x: tokens, float `(B, T, D)`.
            padding: True where a token is none and is not to be looked at, bool `(B, S)`.
            mask: True where a token may be looked at by another, bool, `(T, S)`, or `(B, 1, T, S)`, `(1, N, T, S)`,
                `(B, N, T, S)`; three dimensions could be meant either way.
            cache: keys and values of the tokens before these, S - T of them; None for none.
            return_maps: whether to return the attention weights.

        Returns:
            The mixed tokens `(B, T, D)`, 0 before the last linear map for a token that may look at nothing; and the
            keys and values so far, or with `return_maps` the weights `(B, N, T, S)`.

        Raises:
            ValueError: a shape is wrong.
        """
        if x.ndim != 3 or x.shape[2] != self.dim:
            raise ValueError(f"Attention: the tokens must be (batch, tokens, {self.dim}), got {tuple(x.shape)}")
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        num_before = 0 if cache is None else cache[0].shape[2]
        if self.rotary:
            positions = torch.arange(num_before, num_before + x.shape[1], device=x.device)
            q, k = rotate(q, positions), rotate(k, positions)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        allowed = self._allowed(q, k, padding, mask)
        dropout, maps = self.dropout if self.training else 0.0, None
        if return_maps:
            mixed, maps = attend(q, k, v, self.alpha, self._with_causal(q, k, allowed), dropout)
        else:
            mixed = self._attend_fast(q, k, v, num_before, allowed, dropout)
        mixed = self.out(mixed.transpose(1, 2).flatten(2))
        return mixed, (k, v) if maps is None else maps

    def _attend_fast(
        self, q: Tensor, k: Tensor, v: Tensor, num_before: int, allowed: Tensor | None, dropout: float
    ) -> Tensor:
        """What `attend` mixes, by torch's kernels."""
        # One token alone is the last: it may look at all.
        causal = bool(self.causal and q.shape[2] > 1)  # torch.jit.trace makes a tensor of it
        if causal and (allowed is not None or num_before):
            allowed, causal = self._with_causal(q, k, allowed), False
        sees = None if allowed is None else allowed.any(-1, keepdim=True)
        if allowed is not None and sees is not None:
            allowed = allowed | ~sees  # for a token that sees nothing, some of torch's kernels give NaN
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, dropout_p=dropout, is_causal=causal, scale=1 / self.alpha
        )
        return mixed if sees is None else mixed.where(sees, 0)

    def _allowed(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Where a query may look at a key, padding and mask together; None for everywhere."""
        (num_batch, _, num_queries, _), num_keys = q.shape, k.shape[2]
        if padding is not None:
            if padding.dtype != torch.bool or padding.shape != (num_batch, num_keys):
                raise ValueError(
                    f"Attention: padding must be bool {(num_batch, num_keys)}, True where there is no token, "
                    f"got {padding.dtype} {tuple(padding.shape)}"
                )
            padding = ~padding[:, None, None]
        if mask is None:
            return padding
        if mask.dtype != torch.bool:
            raise ValueError(f"Attention: mask must be bool, True where a token may be looked at, got {mask.dtype}")
        shape = (num_batch, self.num_heads, num_queries, num_keys)
        if mask.ndim == 3:
            raise ValueError(
                f"Attention: mask must have 2 or 4 dimensions and broadcast to {shape}, got {tuple(mask.shape)}; give "
                "`mask[:, None]` for one of each sequence, `mask[None]` for one of each head"
            )
        try:
            mask = mask.expand(shape)
        except RuntimeError:
            raise ValueError(f"Attention: mask must broadcast to {shape}, got {tuple(mask.shape)}") from None
        return mask if padding is None else mask & padding

    def _with_causal(self, q: Tensor, k: Tensor, allowed: Tensor | None) -> Tensor | None:
        if not self.causal:
            return allowed
        num_queries, num_keys = q.shape[2], k.shape[2]
        earlier = torch.ones(num_queries, num_keys, dtype=torch.bool, device=q.device).tril(num_keys - num_queries)
        return earlier if allowed is None else earlier & allowed


def attend(
    q: Tensor, k: Tensor, v: Tensor, alpha: float, allowed: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The equation as it is written: `softmax(Q K^T / alpha) V`.

    Args:
        q: queries, `(B, N, T, K)`.
        k: keys, `(B, N, S, K)`.
        v: values, `(B, N, S, K)`.
        alpha: what the scores are divided by.
        allowed: True where a query may look at a key, bool, broadcast to `(B, N, T, S)`; None for everywhere.
        dropout: share of the weights that is set to zero.

    Returns:
        The mixed values `(B, N, T, K)`, and the weights `(B, N, T, S)` before dropout. The weights of a query that
        may look at nothing are 0.
    """
    scores = q @ k.mT / alpha
    if allowed is not None:
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)  # finite: a row of -inf would be NaN
    maps = scores.softmax(-1)
    if allowed is not None:
        maps = maps.where(allowed, 0)
    return F.dropout(maps, dropout) @ v, maps


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Turns each pair of features (i, i + K/2) by `position * 10000^(-2i/K)`, so that products see only distances.

    Args:
        x: queries or keys, `(..., T, K)`, K even.
        positions: of the T tokens, integers `(T,)`.
    """
    half = x.shape[-1] // 2
    cos, sin = turns(positions, half, x)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)
