"""What a step of `dream` costs beyond its gradient: `python benchmarks/dream_cost.py`.

The floor is as many forwards to the layer, no further, each with the gradient of the L2 norm with respect to the
picture, of the same frozen net in evaluation mode. The second table says what a picture costs alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import RATIO_HEADERS, ratio_cells, set_up, show, take_turns
from torch import nn

from touchstone.attacks import dream
from touchstone.attacks.dream import start_of
from touchstone.nets import SmallCNN


def nets(small: bool) -> dict[str, tuple[nn.Module, nn.Module, str, tuple[int, int, int]]]:
    """By name: a net, its part up to a layer, the layer, and the shape of a picture."""
    from torchvision.models import alexnet, resnet18, vgg11

    net, deep = alexnet(weights=None).eval(), resnet18(weights=None).eval()
    upto = nn.Sequential(deep.conv1, deep.bn1, deep.relu, deep.maxpool, deep.layer1, deep.layer2)
    digits, side = SmallCNN().eval(), 64 if small else 224
    found = {
        "SmallCNN, features.2": (digits, digits.features[:3], "features.2", (1, 8, 8)),
        "AlexNet, features.7": (net, net.features[:8], "features.7", (3, side, side)),
        "ResNet-18, layer2": (deep, upto, "layer2", (3, side, side)),
    }
    if not small:
        vgg = vgg11(weights=None).eval()
        found["VGG-11, features.8"] = (vgg, vgg.features[:9], "features.8", (3, side, side))
    return found


def floor(upto: nn.Module, x: torch.Tensor, num_steps: int) -> None:
    """The gradient calls of a dream without the dream."""
    for _ in range(num_steps):
        points = x.clone().requires_grad_()
        torch.autograd.grad(torch.linalg.vector_norm(upto(points).flatten(1), dim=1).sum(), points)


def main(num_turns: int = 9, num_steps: int = 10, num_threads: int | None = None, small: bool = False) -> None:
    """Measures the ratio to the floor, and pictures alone against pictures in a batch.

    Args:
        num_turns: how often each candidate is measured.
        num_steps: gradient steps of every dream.
        num_threads: threads of torch; None for its choice, 1 for CPU seconds on a machine with other work.
        small: whether to shrink everything, to see that it runs.
    """
    clock = set_up(num_threads)
    torch.manual_seed(0)
    rows, batch_rows = [], []
    for name, (net, upto, layer, shape) in nets(small).items():
        net.requires_grad_(False)
        x = start_of(net, (1, *shape))
        candidates: dict[str, Callable[[], object]] = {
            "floor": lambda upto=upto, x=x: floor(upto, x, num_steps),
            "dream": lambda net=net, layer=layer, x=x: dream(net, layer, x, num_steps=num_steps),
        }
        seconds = take_turns(candidates, num_turns, clock)
        rows.append((name, *ratio_cells(seconds, "dream", "floor")))
        sizes = {str(n): start_of(net, (n, *shape)) for n in (1, 4, 16)}
        each = take_turns(
            {n: lambda net=net, layer=layer, x=x: dream(net, layer, x, num_steps=num_steps) for n, x in sizes.items()},
            max(num_turns // 3, 1),
            clock,
        )
        batch_rows.append((name, *(f"{1000 * min(each[n]) / int(n) / num_steps:.3g}" for n in sizes)))
    show(f"{num_steps} steps on one picture, to the floor", ("", *RATIO_HEADERS), rows)
    show("Milliseconds for a step of one picture, in batches of", ("", "1", "4", "16"), batch_rows)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
