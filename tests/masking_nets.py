"""Nets that mask their gradients on purpose, or seem to, each around an honest one; and what the judge says of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.attacks import Attack, evaluate

from .oracles import images, own_labels


class Before(nn.Module):
    """Something done to the images, or to the logits, of an honest net."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class Quantised(Before):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * 16).round() / 16)


class Tempered(Before):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 3000


class Faint(Before):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 1e-8


class Shattered(Before):
    """High-frequency waves on top of the image: too small to change an answer, with gradients that drown all others."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 1e-3 * torch.sin(5e5 * x))


class Randomised(Before):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x + 0.1 * torch.randn_like(x)).clamp(0, 1))


class Clamped(Before):
    """Where two classes share the largest logit, the margin is flat; cross-entropy still sees the others."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).clamp(max=0.1)


class Squashed(Before):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).sigmoid()


class Crowded(Before):
    """Every image is seen against the mean of its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - 0.5 * x.mean(0))


class Counting(Before):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.register_buffer("num_calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        return self.inner(x)


class Exploding(Before):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + (x - x.detach()) * 1e12)


class Rippled(Before):
    """Waves as short as eps: gradients that agree nearby, and point elsewhere half an eps on."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.05 * torch.sin(120 * x))


class Standardised(Before):
    """What is plain grey has no deviation to divide by."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True))


def warnings_of(model: nn.Module, attacks: dict[str, Attack], num_samples: int = 48, **options: int) -> list[str]:
    model.eval()
    x = images(num_samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = own_labels(model, x)
    return evaluate(model, x, y, attacks, **options).warnings
