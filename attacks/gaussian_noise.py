"""`GaussianNoise`: the control beside `RandomNoise` whose changes are normal."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from touchstone.options import check_positive

from .core.sample_rng import SampleRng
from .random_noise import RandomNoise
from .threats.ball import Ball


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(RandomNoise):
    """Normal noise of the same deviation in every pixel, projected; of several tries, the first that succeeds.

    In many dimensions its length hardly varies, so that in L2 nearly every point lies on the surface of the ball.

    Args:
        threat: what the attacker may do, a ball.
        objective: what the attacker wants.
        num_tries: random points for each sample, >= 1.
        rel_sigma: the standard deviation of a pixel before the projection, as a share of eps, > 0.

    Raises:
        ValueError: a value is outside its range.
    """

    supports = (Ball,)
    threat: Ball
    rel_sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "rel_sigma")

    def draw(self, x: Tensor, rng: SampleRng) -> Tensor:
        return self.threat.project(x + self.rel_sigma * self.threat.radius(x) * rng.normal(x), x)
