"""`Wrapping`: an attack that runs another one, and is known by what that one is."""

# No `from __future__ import annotations` here, for the same reason as in attack.py.
from dataclasses import replace
from typing import ClassVar, TypeVar

from torch import nn

from .attack import Attack
from .objective import Objective
from .threat import Threat

Self = TypeVar("Self", bound="Wrapping")


class Wrapping(Attack):
    """An attack with a field `attack`, which it runs in its own way; a subclass is a frozen dataclass."""

    attack: Attack
    of_the_attack: ClassVar[tuple[str, ...]] = (
        "threat",
        "objective",
        "num_eot_samples",
        "kind",
        "pools",
        "flat_when_reached",
        "climbs_several_losses",
        "begins_at_the_sample",
    )
    """What it takes over from the attack that it runs."""
    lets_learn: ClassVar[bool] = False
    """Whether it knows what to do with an attack that needs samples first."""

    def __post_init__(self) -> None:
        call = f"{type(self).__name__}(attack=...)"
        if not isinstance(self.attack, Attack):
            raise ValueError(f"{call} must be an attack such as PGD(...), got {self.attack!r:.80}")
        if self.attack.needs_samples and not self.lets_learn:
            raise ValueError(
                f"{call} must be an attack that needs no samples, got {self.attack!r:.80}: give what its `.prepare` "
                "returns"
            )
        for name in (*self.of_the_attack, "needs_samples"):
            object.__setattr__(self, name, getattr(self.attack, name))
        super().__post_init__()

    def check_classes(self, num_classes: int) -> None:
        self.attack.check_classes(num_classes)

    def check_model(self, model: nn.Module) -> None:
        self.attack.check_model(model)

    def inside(self: Self, threat: Threat) -> Self:
        return replace(self, attack=self.attack.inside(threat))  # type: ignore[type-var]

    def with_objective(self: Self, objective: Objective) -> Self:
        return replace(self, attack=self.attack.with_objective(objective))  # type: ignore[type-var]
