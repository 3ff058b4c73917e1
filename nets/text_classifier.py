"""`TextClassifier`: classes of texts, by a recurrent net or transformer blocks and a read-out that ignores padding."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from touchstone.options import check_between, check_choice, check_counts

from .parts.embed import embed
from .positions import SinusoidalPositions
from .recurrent import GRU, LSTM, RNN
from .transformer import TransformerBlock

RECURRENT = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


class TextClassifier(nn.Module):
    """Embeds tokens, lets them look at one another, and reads out the mean over those that are no padding.

    Args:
        vocab_size: tokens V, >= 2.
        num_classes: classes, >= 2.
        body: `"rnn"`, `"lstm"`, `"gru"`, or `"transformer"`, with sinusoidal positions.
        dim: features of a token, and units of a recurrent body; even for a transformer, whose positions take pairs.
        num_layers: layers or blocks, >= 1.
        num_heads: heads of each block, a divisor of `dim`.
        padding: the id that stands behind texts shorter than others of their batch; its embedding is 0.
        dropout: of the embedding and inside the body, in [0, 1).

    Raises:
        ValueError: a value is outside its range.

    Shape:
        Token ids, int64 `(N, T)`, to logits `(N, num_classes)`. What stands behind a text has no influence; a text of
        padding alone is read out as zeros.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        *,
        body: Literal["rnn", "lstm", "gru", "transformer"] = "gru",
        dim: int = 64,
        num_layers: int = 1,
        num_heads: int = 4,
        padding: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_counts("TextClassifier", vocab_size=vocab_size, num_classes=num_classes, least=2)
        check_counts("TextClassifier", dim=dim, num_layers=num_layers, num_heads=num_heads)
        check_counts("TextClassifier", padding=padding, least=0)
        if not padding < vocab_size:
            raise ValueError(f"TextClassifier(padding=...) must be a token, 0 to {vocab_size - 1}, got {padding}")
        check_choice("TextClassifier(body=...)", body, (*RECURRENT, "transformer"))
        check_between("TextClassifier(dropout=...)", dropout, 0, 1, "[)")
        self.vocab_size, self.padding = vocab_size, padding
        self.embedding = nn.Embedding(vocab_size, dim, padding_idx=padding)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = RECURRENT[body](dim, dim, num_layers, dropout=dropout) if body in RECURRENT else None
        self.positions = SinusoidalPositions(dim) if body == "transformer" else nn.Identity()
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, num_heads, dropout=dropout) for _ in range(num_layers if body == "transformer" else 0)
        )
        self.norm = nn.LayerNorm(dim)
        self.read_out = nn.Linear(dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids, int64 `(N, T)`, to logits `(N, num_classes)`."""
        padding, x = tokens == self.padding, embed(self, tokens)
        x = self.dropout(self.positions(x))
        if self.recurrent is not None:
            x, _ = self.recurrent(x)  # runs forwards: no token feels the padding behind it
        for block in self.blocks:
            x = block(x, padding=padding)
        counts = ~padding[..., None]
        return self.read_out(torch.where(counts, self.norm(x), 0).sum(1) / counts.sum(1).clamp(min=1))
