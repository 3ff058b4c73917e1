"""`FeatureDistance`: moves what a layer answers as far as it can from what it answered before.

Source: the objective of Sabour et al., "Adversarial manipulation of deep representations", 2016, equation 1, turned
round: away from the features of the sample itself, and not towards those of another one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from touchstone.options import check_counts, check_kind

from .core.ascend import ascend, cosine_steps
from .core.attack import Attack
from .core.objective import Objective
from .core.per_sample import norms
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.untargeted import Untargeted


@dataclass(frozen=True, kw_only=True)
class FeatureDistance(Attack):
    """Climbs the Euclidean distance of a layer's features from those of the unchanged sample.

    An objective sees logits alone, so that this is an attack of its own. It asks for no class and no loss at the end
    of the model: where that is masked, the layers before it need not be. A sample stops where it has fallen.

    Args:
        threat: what the attacker may do.
        layer: the name of the layer, as in `model.named_modules()`; it must give a tensor `(N, ...)`.
        objective: what the attacker wants; of its loss nothing is used.
        num_steps: gradient steps, >= 1.

    Raises:
        ValueError: a value is outside its range; or, when it meets the model, that has no such layer.

    Example:
        >>> attack = FeatureDistance(threat=Linf(eps="8/255"), layer="layer4")
    """

    threat: Threat
    layer: str
    objective: Objective = Untargeted()
    num_steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("FeatureDistance(layer=...)", self.layer, str)
        check_counts(self, "num_steps")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        with self._watched(model) as seen:
            with torch.no_grad():
                model(x)
                before = self._features(seen, len(x))

            def measure(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
                reached = self.objective.take(rows).reached(model(points).detach(), y[rows])
                return norms(self._features(seen, len(rows)) - before[rows]), reached

            points, _ = ascend(
                measure,
                x,
                start=self.threat.start(x, rng),  # at the sample itself the distance has no gradient
                threat=self.threat,
                num_steps=self.num_steps,
                step_size=cosine_steps(self.num_steps),
            )
        return points

    @contextmanager
    def _watched(self, model: nn.Module) -> Iterator[list[object]]:
        """Inside, the list holds what the layer gave last."""
        layers, seen = dict(model.named_modules()), list[object]()
        if self.layer not in layers:
            nearest = difflib.get_close_matches(self.layer, layers, n=3, cutoff=0)
            raise ValueError(
                f"FeatureDistance(layer=...) must be a layer of the model, got {self.layer!r}; did you mean "
                f"{' or '.join(map(repr, nearest))}?"
            )
        handle = layers[self.layer].register_forward_hook(lambda module, args, output: seen.append(_kept(output)))
        try:
            yield seen
        finally:
            handle.remove()

    def _features(self, seen: list[object], num_samples: int) -> Tensor:
        """What the layer gave in the last forward, `(N, D)`; forgets it."""
        features = seen[-1] if seen else None
        seen.clear()
        if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != num_samples:
            given = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"FeatureDistance(layer={self.layer!r}) must be a layer that gives a tensor ({num_samples}, ...), "
                f"got {given}"
            )
        return features.flatten(1)


def _kept(output: object) -> object:
    """What a layer gave: the next one may write into it."""
    return output.clone() if isinstance(output, Tensor) else output
