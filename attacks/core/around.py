"""`Around`: a module around a model, through which an attack sees the model's own layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


class Around(nn.Module):
    """A module whose layers have the names and the modes that they have in the model itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # not self.train(mode): that would set the model too

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """Those of the model: an attack that asks for a layer knows it by its name there."""
        return self.model.named_modules(*args, **kwargs)
