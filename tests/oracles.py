"""Models whose answers are known without the code under test, and batches to try them on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearModel(nn.Module):
    """Logits `flatten(x) @ weight.T + bias`: the worst case inside a ball has a closed form."""

    def __init__(
        self, num_features: int = 12, num_classes: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.linear = nn.Linear(num_features, num_classes, dtype=dtype)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(self.linear.weight.shape, generator=generator, dtype=dtype))
            self.linear.bias.copy_(torch.randn(self.linear.bias.shape, generator=generator, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))

    def centred(self) -> LinearModel:
        """The same with all logits equal at plain grey, so that it uses all its classes."""
        with torch.no_grad():
            self.linear.bias.copy_(-0.5 * self.linear.weight.sum(1))
        return self


def small_net(seed: int = 0, dtype: torch.dtype = torch.float32, num_classes: int = 4) -> nn.Sequential:
    """A random net with convolution, BatchNorm and dropout, for 1 x 6 x 6 images, that uses all its classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(8 * 36, num_classes),
        )
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2)
        with torch.no_grad():
            logits = net.eval()(images(200, seed=9))
            net[5].bias -= logits.mean(0)
        net.train()
    return net.to(dtype)


def images(
    num_samples: int = 16, seed: int = 0, shape: tuple[int, ...] = (1, 6, 6), dtype: torch.dtype = torch.float32
) -> Tensor:
    """Pixels in [0.05, 0.95]."""
    generator = torch.Generator().manual_seed(seed)
    return 0.05 + 0.9 * torch.rand(num_samples, *shape, generator=generator, dtype=dtype)


def own_labels(net: nn.Module, x: Tensor) -> Tensor:
    """The classes that the net gives: so that every sample is right before any attack."""
    was_training = [(m, m.training) for m in net.modules()]
    net.eval()
    with torch.no_grad():
        y = net(x).argmax(1)
    for module, training in was_training:
        module.training = training
    return y


def seen_by_gradient(net: nn.Module, name: str, input_size: tuple[int, ...]) -> list[tuple[int, int] | None]:
    """Where the gradient of a layer's centre unit is not 0, counted from 1; all weights are made positive first."""
    net = net.double().eval()
    for parameter in net.parameters():
        parameter.data = parameter.data.abs() + 0.1
    outputs: list[Tensor] = []
    handle = net.get_submodule(name).register_forward_hook(lambda m, args, output: outputs.append(output))
    x = torch.rand(1, *input_size, dtype=torch.float64, requires_grad=True)
    net(x)
    handle.remove()
    centre = outputs[0]
    for size in reversed(outputs[0].shape[2:]):
        centre = centre.select(-1, max(1, size // 2) - 1)
    (grad,) = torch.autograd.grad(centre.sum(), x, allow_unused=True)
    found: list[tuple[int, int] | None] = []
    for axis in range(2, x.ndim):
        others = [dim for dim in range(x.ndim) if dim != axis]
        places = torch.zeros(0) if grad is None else grad.abs().sum(others).nonzero()[:, 0] + 1
        found.append((int(places[0]), int(places[-1])) if len(places) else None)
    return found
