"""`PGDAT`: adversarial training, learning from attacked images in place of the images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from touchstone.attacks import Attack, SampleRng

from .strategy import Criterion, Learned, Strategy


class PGDAT(Strategy):
    """Minimises the loss of the worst images that an attack finds.

    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018, equation 2.1.

    Args:
        attack: makes the images; one that climbs to the end (`PGD(to_the_end=True)`), as in the paper, finds worse
            ones than one that stops where the class changes.
        mode: `"eval"` makes them in evaluation mode, so that they leave the running statistics of BatchNorm alone;
            `"train"` makes them in the modes of training, as the paper does, where each step updates the statistics.
            The net learns from them in the modes of training.

    Raises:
        ValueError: `attack` holds one value per sample, or `mode` is another.
    """

    def __init__(self, attack: Attack, *, mode: Literal["eval", "train"] = "eval") -> None:
        super().__init__()
        try:
            attack.check_rows(1)
        except ValueError as error:
            raise ValueError(f"PGDAT(attack=...) must hold for every sample of every batch: {error}") from error
        if mode not in ("eval", "train"):
            raise ValueError(f"PGDAT(mode=...) must be 'eval' or 'train', got {mode!r}")
        self.attack, self.mode = attack, mode

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned:
        x_adv = self.attack(model, x, y, rng, training=self.mode == "train").to(x.dtype)
        logits = model(x_adv)
        return Learned(criterion(logits, y), logits)
