"""`Transfer`: examples made on another net.

Source: Papernot, McDaniel, Goodfellow, "Transferability in machine learning: from phenomena to black-box attacks using
adversarial samples", 2016, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from torch import Tensor, nn

from .core.attack import Attack
from .core.prefixed_errors import prefixed_errors
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .core.wrapping import Wrapping


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer(Wrapping):
    """Runs an attack on another net, for an attacker who gets neither gradients nor answers of the model.

    It costs the model nothing; what passes through the source is not counted. Threat and objective are those of the
    attack, as is whether it learns from samples first: then it learns on the source.

    Args:
        attack: what is run on the source; not inside an `EmbeddingBall`, whose vectors are those of one net.
        source: images to logits of the same classes, in any mode; on another device it is moved to that of the
            images for each call, and moved back. `touchstone.nets.Trained` is one with weights from a file.

    Raises:
        ValueError: `attack` is no attack, or inside an `EmbeddingBall`, or `source` no module; or, when called, the
            source fails.

    Example:
        >>> transfer = Transfer(attack=PGD(threat=Linf(eps="8/255")), source=another_net)
    """

    kind = "black box"
    of_the_attack = ("threat", "objective", "pools", "begins_at_the_sample")
    lets_learn = True
    attack: Attack
    source: nn.Module = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.threat).enter is not Threat.enter:
            raise ValueError(
                "Transfer(attack=...) must be inside a threat to the samples themselves, such as Linf or TokenFlips, "
                f"not `{type(self.threat).__name__}`, whose vectors another net does not take, got {self.attack!r:.80}"
            )
        if not isinstance(self.source, nn.Module):
            raise ValueError(f"Transfer(source=...) must be a torch.nn.Module, got {self.source!r:.80}")

    def check_model(self, model: nn.Module) -> None:
        self.threat.check_model(model)
        self.attack.check_model(self.source)

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Transfer:
        with self._source_at(x.device):
            return replace(self, attack=self.attack.prepare(self.source, x, y, rng))

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        with self._source_at(x.device):
            points = self.attack(self.source, x, y, rng)
        return points if points.dtype == x.dtype else self.threat.project(points.to(x.dtype), x)

    @contextmanager
    def _source_at(self, device: torch.device) -> Iterator[None]:
        tensors = chain(self.source.parameters(), self.source.buffers())
        home = next((tensor.device for tensor in tensors), device)
        try:
            if home != device:
                self.source.to(device)
            with prefixed_errors("Transfer(source=...): on the source"):
                yield
        finally:
            if home != device:
                self.source.to(home)
