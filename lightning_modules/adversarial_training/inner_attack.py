"""`InnerAttack`: what the strategies have in common that make their images by an attack of `attacks/`."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from touchstone.attacks import Attack, SampleRng, Threat
from touchstone.options import check_choice, check_kind

from .parts.scaled import scaled
from .strategy import Strategy


class InnerAttack(Strategy):
    """A strategy with an attack; a subclass calls `attacked` in `learn`. Labels must be class numbers.

    Args:
        attack: makes the images.
        mode: `"eval"` makes them in evaluation mode, so that they leave the running statistics of BatchNorm alone;
            `"train"` makes them in the modes of training, where each step updates the statistics. The net learns from
            them in the modes of training.

    Raises:
        TypeError: a subclass does not define `learn`.
        ValueError: `attack` holds one value per sample, is not ready (`Attack.prepare`), or changes samples inside
            the model (`EmbeddingBall`); or `mode` is neither.
    """

    learns_from_attacks = True

    def __init__(self, attack: Attack, *, mode: Literal["eval", "train"] = "eval") -> None:
        super().__init__()
        name = type(self).__name__
        if type(self).learn is Strategy.learn:
            raise TypeError(f"{name} must define learn(self, model, x, y, criterion, rng)")
        check_kind(f"{name}(attack=...)", attack, Attack)
        if attack.needs_samples:
            raise ValueError(
                f"{name}(attack=...) must be ready, as the net changes with every batch, got "
                f"{type(attack).__name__}, which learns from samples before it attacks"
            )
        if type(attack.threat).enter is not Threat.enter:
            raise ValueError(
                f"{name} learns from attacked samples, which the model must take as it takes others: inside a threat "
                f"such as Linf or TokenFlips, got {attack.threat!r:.80}, which changes them inside the model"
            )
        try:
            attack.check_rows(1)
        except ValueError as error:
            raise ValueError(f"{name}(attack=...) must hold for every sample of every batch: {error}") from error
        check_choice(f"{name}(mode=...)", mode, ("eval", "train"))
        self.attack, self.mode, self._full = attack, mode, attack

    def attacked(self, attack: Attack, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        """The images that an attack, `self.attack` or one made of it, finds in the mode that was asked for.

        Raises:
            ValueError: labels are shares of classes, which no attack aims at.
        """
        if y.is_floating_point() and y.ndim == 2:
            raise ValueError(
                f"{type(self).__name__} needs class numbers as labels, int64 `(N,)`, which its attack aims at, got "
                f"shares of classes of the shape {tuple(y.shape)}: train without MixUp and CutMix, or with Free or no "
                "strategy; for one-hot labels give `y.argmax(1)`"
            )
        return attack(model, x, y, rng, training=self.mode == "train").to(x.dtype)

    def scale_eps(self, share: float) -> None:
        self.attack = self._full.inside(scaled(self._full.threat, share))
