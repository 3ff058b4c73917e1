"""`Objective`: what the attacker wants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from .logits import predicted
from .one_each import check_one_each
from .per_sample import PerSample
from .sample_rng import SampleRng

Self = TypeVar("Self", bound="Objective")


class Objective(PerSample, ABC):
    """What the attacker wants of each sample; a subclass is a frozen dataclass.

    Everywhere: `logits` float `(N, C)`, `y` the true class, int64 `(N,)`.
    """

    of_texts = False  # without an annotation, which jsonargparse would read in the subclass's module
    """Whether it is one for language models: logits `(N, T, V)`, and as `y` the tokens that follow, `(N, T)`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_one_each(cls, gain="float", reached="bool", correct="bool")

    @abstractmethod
    def gain(self, logits: Tensor, y: Tensor) -> Tensor:
        """What the attacker climbs, larger is better for the attacker: float `(N,)`."""

    @abstractmethod
    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        """Whether the attacker has what it wants: bool `(N,)`; of a class `predicted` says what NaN counts as."""

    def correct(self, logits: Tensor, y: Tensor) -> Tensor:
        """Whether the model is right: bool `(N,)`."""
        return predicted(logits) == y

    def aim(self: Self, clean_logits: Callable[[], Tensor], y: Tensor, rng: SampleRng) -> Self:
        """The same objective with every choice made that depends on the unattacked samples.

        Args:
            clean_logits: gives the logits of the unattacked samples, `(N, C)`; one forward where it is called.
            y: the true class, int64 `(N,)`.
            rng: for choices at random.
        """
        return self

    def check_classes(self, num_classes: int) -> None:
        """Raises ValueError where this objective cannot be had of a model with so many classes."""
        if self.of_texts:
            raise ValueError(f"{self!r} is for language models, which `evaluate_language` measures")
