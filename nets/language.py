"""`TransformerLM`, `RecurrentLM`: nets that say what token follows, at every place of a text.

Both take token ids, int64 `(B, T)`, to logits `(B, T, V)`; `extend` does the same for tokens that follow a state, so
that a text can be continued token by token without computing what was before again.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from touchstone.options import check_between, check_choice, check_counts, check_flags

from .attention import KeysValues
from .parts.embed import embed
from .positions import LearnedPositions, SinusoidalPositions
from .recurrent import GRU, LSTM, RNN
from .transformer import TransformerBlock

CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


class TransformerLM(nn.Module):
    """Causal transformer blocks between an embedding and logits, pre-norm, as GPT-2 (Radford et al., 2019).

    Args:
        vocab_size: tokens V, >= 2.
        dim: features of a token.
        num_heads: heads of each block, a divisor of `dim`.
        num_layers: blocks, >= 1.
        context: tokens that generation looks back at, >= 1; with learnt positions, the most there can be.
        positions: `"learned"`, `"sinusoidal"` or `"rotary"`.
        dropout: of embedding and blocks, in [0, 1).
        bias: whether linear maps and norms have one.
        tie_weights: whether the logits are products with the embedding (Press and Wolf, 2017).

    Raises:
        ValueError: a value is outside its range.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        dim: int = 128,
        num_heads: int = 4,
        num_layers: int = 4,
        context: int = 64,
        positions: Literal["learned", "sinusoidal", "rotary"] = "learned",
        dropout: float = 0.0,
        bias: bool = True,
        tie_weights: bool = True,
    ) -> None:
        super().__init__()
        check_counts("TransformerLM", vocab_size=vocab_size, least=2)
        check_counts("TransformerLM", num_layers=num_layers, context=context, dim=dim, num_heads=num_heads)
        check_choice("TransformerLM(positions=...)", positions, ("learned", "sinusoidal", "rotary"))
        check_between("TransformerLM(dropout=...)", dropout, 0, 1, "[)")
        check_flags("TransformerLM", bias=bias, tie_weights=tie_weights)
        self.vocab_size, self.context = vocab_size, context
        self.embedding = nn.Embedding(vocab_size, dim)
        if positions == "learned":
            self.positions: nn.Module | None = LearnedPositions(dim, context)
        elif positions == "sinusoidal":
            self.positions = SinusoidalPositions(dim)
        else:
            self.positions = None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim, num_heads, activation="gelu", dropout=dropout, bias=bias, causal=True, rotary=positions == "rotary"
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim, bias=bias)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        if tie_weights:
            self.head.weight = self.embedding.weight
        self.apply(_begin_small)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "feed_forward.second.weight")):  # what is added 2 L times
                nn.init.normal_(parameter, std=0.02 * (2 * num_layers) ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids `(B, T)` to logits `(B, T, V)`."""
        x = self._embedded(tokens, 0)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def extend(self, tokens: Tensor, state: list[KeysValues] | None = None) -> tuple[Tensor, list[KeysValues]]:
        """The logits of tokens that follow those of a state, and the state after them.

        Args:
            tokens: the next ids, `(B, T)`.
            state: what the last call returned, keys and values of every block; None at the start.
        """
        x = self._embedded(tokens, state[0][0].shape[2] if state else 0)
        after = []
        for number, block in enumerate(self.blocks):
            x, cache = block.extend(x, state[number] if state else None)  # type: ignore[operator]
            after.append(cache)
        return self.head(self.norm(x)), after

    def _embedded(self, tokens: Tensor, start: int) -> Tensor:
        x = embed(self, tokens)
        try:
            return self.dropout(x if self.positions is None else self.positions(x, start))
        except ValueError as error:
            raise ValueError(
                f"TransformerLM(context={self.context}): {error}; no text, and no `context` of the data, may be longer"
            ) from None


class RecurrentLM(nn.Module):
    """A recurrent net between an embedding and logits.

    Args:
        vocab_size: tokens V, >= 2.
        cell: `"rnn"`, `"lstm"` or `"gru"`.
        dim: features of a token.
        hidden: units of every layer.
        num_layers: layers.
        dropout: of the embedding, between layers, and of the outputs, in [0, 1).
        tie_weights: whether the logits are products with the embedding; `hidden` must then be `dim`.

    Raises:
        ValueError: a value is outside its range.
    """

    context = None
    """How far generation looks back at: as far as there is text."""

    def __init__(
        self,
        vocab_size: int,
        *,
        cell: Literal["rnn", "lstm", "gru"] = "lstm",
        dim: int = 128,
        hidden: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        tie_weights: bool = False,
    ) -> None:
        super().__init__()
        check_counts("RecurrentLM", vocab_size=vocab_size, least=2)
        check_counts("RecurrentLM", dim=dim, hidden=hidden, num_layers=num_layers)
        check_choice("RecurrentLM(cell=...)", cell, tuple(CELLS))
        check_between("RecurrentLM(dropout=...)", dropout, 0, 1, "[)")
        check_flags("RecurrentLM", tie_weights=tie_weights)
        if tie_weights and dim != hidden:
            raise ValueError(f"RecurrentLM(tie_weights=True): hidden must be dim, got {hidden} and {dim}")
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, dim)
        self.recurrent = CELLS[cell](dim, hidden, num_layers, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, vocab_size)
        if tie_weights:
            nn.init.normal_(self.embedding.weight, std=dim**-0.5)
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids `(B, T)` to logits `(B, T, V)`."""
        return self.extend(tokens)[0]

    def extend(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """The logits of tokens that follow those of a state, and the state after them.

        Args:
            tokens: the next ids, `(B, T)`.
            state: of the recurrent net; None at the start.
        """
        x, state = self.recurrent(self.dropout(embed(self, tokens)), state)
        return self.head(self.dropout(x)), state


def _begin_small(module: nn.Module) -> None:
    """The initial weights of GPT-2."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
