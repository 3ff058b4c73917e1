"""`SetClassifier`: classes of unordered sets, by attention without positions and an invariant read-out.

Attention without positions is equivariant, `P S(X) = S(P X)` for every permutation P of the elements; a read-out W that
treats all elements alike is then invariant, `W S(P X) = W S(X)`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.options import check_between, check_counts, check_flags

from .transformer import TransformerBlock


class SetClassifier(nn.Module):
    """Embeds each element, lets them look at one another, and reads out their mean.

    Args:
        num_features: features of an element, >= 1.
        num_classes: classes, >= 2.
        dim: features inside.
        num_heads: heads of each block, a divisor of `dim`.
        num_blocks: transformer blocks, >= 1.
        dropout: of the blocks, in [0, 1).
        zeros_pad: whether an element of zeros alone is none, so that sets of several sizes stand in one batch where
            there is no place for `padding`, as in `Classifier`.

    Raises:
        ValueError: a value is outside its range.

    Shape:
        float `(N, elements, num_features)` to logits `(N, num_classes)`.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        dim: int = 64,
        num_heads: int = 4,
        num_blocks: int = 2,
        dropout: float = 0.0,
        zeros_pad: bool = False,
    ) -> None:
        super().__init__()
        check_counts("SetClassifier", num_classes=num_classes, least=2)
        check_counts("SetClassifier", num_features=num_features, num_blocks=num_blocks)
        check_counts("SetClassifier", dim=dim, num_heads=num_heads)
        check_between("SetClassifier(dropout=...)", dropout, 0, 1, "[)")
        check_flags("SetClassifier", zeros_pad=zeros_pad)
        self.num_features, self.zeros_pad = num_features, zeros_pad
        self.embedding = nn.Linear(num_features, dim)
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads, dropout=dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(dim)
        self.read_out = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Classifies sets.

        Args:
            x: elements, float `(N, elements, num_features)`, in any order.
            padding: True where an element is none, bool `(N, elements)`; None where all count. A set of none at all is
                read out as zeros.

        Returns:
            Logits `(N, num_classes)`.

        Raises:
            ValueError: a shape is wrong.
        """
        if x.ndim != 3 or x.shape[2] != self.num_features:
            raise ValueError(
                f"SetClassifier: the elements must be (sets, elements, {self.num_features}), got {tuple(x.shape)}"
            )
        if self.zeros_pad:
            none = (x == 0).all(2)
            padding = none if padding is None else padding | none
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x, padding=padding)
        x = self.norm(x)
        if padding is None:
            return self.read_out(x.sum(1) / max(1, x.shape[1]))
        counts = ~padding[..., None]
        return self.read_out(torch.where(counts, x, 0).sum(1) / counts.sum(1).clamp(min=1))
