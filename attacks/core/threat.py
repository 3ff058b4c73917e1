"""`Threat`: what the attacker may do."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from .per_sample import PerSample
from .sample_rng import SampleRng


class Threat(PerSample, ABC):
    """What the attacker may do to each sample; a subclass is a frozen dataclass.

    All methods work per sample: no result depends on the other samples of the batch. The judge believes `contains`, the
    range of pixels included; a ball around images is a `Ball`, which keeps it.
    """

    eps: float | Tensor

    def check_model(self, model: nn.Module) -> None:
        """Raises ValueError where the model is not one that it can be used on, as far as that is known without samples.

        Here all are. Whoever attacks later asks it first, so that a training does not end with what was wrong before.
        """

    def check_model_on(self, model: nn.Module, x: Tensor) -> None:
        """Raises ValueError where the model does not take what may become of these samples; here it takes all."""

    def enter(self, model: nn.Module, x: Tensor) -> tuple[Threat, nn.Module, Tensor]:
        """The threat, the model and the samples as the attacker meets them.

        Here they are what they are. A threat somewhere inside the model gives the model from there on, the samples as
        they arrive there, and what the attacker may do to those; the judge measures again there.

        Args:
            model: samples to logits, frozen and in the modes in which it is attacked.
            x: samples that have passed `check_input`, `(N, ...)`.
        """
        return self, model, x

    @abstractmethod
    def start(self, x: Tensor, rng: SampleRng) -> Tensor:
        """A random point of the threat around `x`, `(N, ...)`."""

    @abstractmethod
    def direction(self, grad: Tensor) -> Tensor:
        """The steepest direction of unit length, in this threat's norm, for a gradient `(N, ...)`; 0 for 0.

        A threat may have steps of another shape and length (`L1(pixels_per_eps=None)`).
        """

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The point of the threat around `x` nearest to `x_adv`, both `(N, ...)`."""

    @abstractmethod
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """How far `x_adv` is from `x` in the unit of eps: float `(N,)`."""

    @abstractmethod
    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whether `x_adv` is inside the threat around `x`, to float tolerance: bool `(N,)`."""

    @abstractmethod
    def check_input(self, x: Tensor) -> None:
        """Raises ValueError where `x` is not a batch that this threat can start from."""
