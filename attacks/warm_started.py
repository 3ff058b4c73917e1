"""`WarmStarted`: a perturbation that is known already, and an attack on what it does not turn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .core.attack import Attack
from .core.gain import gain_of
from .core.per_sample import wide
from .core.sample_rng import SampleRng
from .core.wrapping import Wrapping


@dataclass(frozen=True, kw_only=True, eq=False)
class WarmStarted(Wrapping):
    """Tries a given perturbation of each sample first, and attacks those that it does not turn.

    The attack sees of those what it would see alone, so that whatever it turns alone is turned here too. A trial
    costs one forward, or as many as the attack takes in expectation (`num_eot_samples`); a sample whose perturbation is
    0 is not tried.

    Args:
        attack: what the others are attacked with; threat, objective and kind are those of this attack.
        perturbation: what is added to each sample, and then projected into the threat: float, shaped like the samples
            `(N, ...)`, or `(1, ...)` for all of them.

    Raises:
        ValueError: `attack` is no attack, or one that learns from samples first; `perturbation` holds no finite
            numbers; or, when called, other samples than these are given.

    Example:
        >>> pgd = PGD(threat=Linf(eps=8 / 255))
        >>> x_adv = pgd(model, x, y)
        >>> again = WarmStarted(attack=pgd, perturbation=x_adv - x)(model_after_an_epoch, x, y)
    """

    attack: Attack
    perturbation: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.perturbation
        if not isinstance(given, Tensor) or not given.is_floating_point() or not bool(given.isfinite().all()):
            kind = f"{given.dtype}, not all of it finite" if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"WarmStarted(perturbation=...) must be a tensor of finite floats, got {kind}")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        points, turned = self._try_out(model, x, y)
        rows = torch.arange(len(x), device=x.device) if self.attack.pools else (~turned).nonzero()[:, 0]
        found = points.clone()
        if len(rows):
            found[rows] = self.attack.take(rows).perturb(model, x[rows], y[rows], rng.take(rows))
        return torch.where(wide(turned, x), points, found)

    @torch.no_grad()
    def _try_out(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The samples with their perturbations, and which of them have reached the objective so."""
        if self.perturbation.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"WarmStarted(perturbation=...) must be shaped like the samples, {tuple(x.shape)}, "
                f"got {tuple(self.perturbation.shape)}"
            )
        change = self.perturbation.to(x).expand_as(x)
        points = self.threat.project(x + change, x)
        turned = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        rows = change.flatten(1).any(1).nonzero()[:, 0]
        if len(rows):
            # One lucky draw of a model that draws must not keep the attack from a sample.
            measure = gain_of(model, self.objective, y, num_eot_samples=self.num_eot_samples)
            _, turned[rows] = measure(points[rows], rows)
        return points, turned
