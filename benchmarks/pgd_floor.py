"""What PGD costs beyond its gradients, beside foolbox and torchattacks: `python benchmarks/pgd_floor.py`.

The floor is as many forwards with a gradient with respect to the input, of the same frozen net in evaluation mode, on
the same batch, and nothing else. All candidates attack the same batch with frozen weights and a random start. The
column "to its own gradients" compares a candidate with the gradient calls inside the same run of itself, which other
work on the machine slows down as much as the rest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F
from digits_net import digits_images, digits_net
from timing import RATIO_HEADERS, ratio_cells, set_up, show, take_turns, version_of
from torch import Tensor, nn

from touchstone.attacks import L2, PGD, Linf, Threat
from touchstone.attacks.judge.meter import metered
from touchstone.nets import PreActResNet

Candidate = Callable[[], Tensor]
IN_PIXELS = (Linf(eps="8/255"), L2(eps=0.5))


def resnet18(batch_size: int = 32) -> tuple[nn.Module, Tensor, Tensor]:
    """Torchvision's ResNet-18 with random weights, random images of 32 x 32, and the labels it gives them."""
    from torchvision.models import resnet18

    net = resnet18(num_classes=10).eval().requires_grad_(False)
    x = torch.rand(batch_size, 3, 32, 32)
    return net, x, net(x).argmax(1)


def preact_resnet(batch_size: int = 32) -> tuple[nn.Module, Tensor, Tensor]:
    """The ResNet-18 for small images that adversarial training is measured on, of which a step takes ten times as long.

    Random weights, random images of 32 x 32, and the labels it gives them.
    """
    net = PreActResNet().eval().requires_grad_(False)
    x = torch.rand(batch_size, 3, 32, 32)
    return net, x, net(x).argmax(1)


def digits(num_epochs: int = 20) -> tuple[nn.Module, Tensor, Tensor]:
    """The net of configs/digits.yaml, trained as there, and the 300 test images."""
    return digits_net(num_epochs).requires_grad_(False), *digits_images()


def floor(net: nn.Module, x: Tensor, y: Tensor, num_steps: int) -> Tensor:
    """The gradient calls of an attack without the attack."""
    for _ in range(num_steps):
        points = x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(net(points), y, reduction="sum"), points)
    return x


def peers(net: nn.Module, x: Tensor, y: Tensor, threat: Threat, num_steps: int) -> dict[str, Candidate | None]:
    """The same attack in other libraries; None for one that is not installed."""
    eps, rel_step = float(threat.eps), 2.5 / num_steps
    found: dict[str, Candidate | None] = {"foolbox": None, "torchattacks": None}
    if version_of("foolbox"):
        import foolbox

        wrapped = foolbox.PyTorchModel(net, bounds=(0, 1))
        make = foolbox.attacks.LinfPGD if isinstance(threat, Linf) else foolbox.attacks.L2PGD
        of_foolbox = make(rel_stepsize=rel_step, steps=num_steps)
        found["foolbox"] = lambda: of_foolbox(wrapped, x, y, epsilons=eps)[1]
    if version_of("torchattacks"):
        import torchattacks

        make = torchattacks.PGD if isinstance(threat, Linf) else torchattacks.PGDL2
        of_torchattacks = make(net, eps=eps, alpha=rel_step * eps, steps=num_steps, random_start=True)
        found["torchattacks"] = lambda: of_torchattacks(x, y)
    return found


@contextmanager
def gradient_calls(net: nn.Module, clock: Callable[[], float]) -> Iterator[list[float]]:
    """The seconds of every call inside, from the forward to the gradient of the input."""
    seconds: list[float] = []

    def see(_: nn.Module, args: tuple[Tensor]) -> None:
        start = clock()
        if args[0].requires_grad:
            args[0].register_hook(lambda _: seconds.append(clock() - start))

    handle = net.register_forward_pre_hook(see)
    try:
        yield seconds
    finally:
        handle.remove()


def compare(
    title: str, net: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, num_steps: int, num_turns: int, clock: Callable
) -> None:
    """Measures and prints one table: one net, one threat."""
    whole = PGD(threat=threat, num_steps=num_steps, early_stop=False)
    leaving = PGD(threat=threat, num_steps=num_steps)
    candidates: dict[str, Candidate | None] = {
        "floor": lambda: floor(net, x, y, num_steps),
        "touchstone, early_stop=False": lambda: whole(net, x, y),
        "touchstone": lambda: leaving(net, x, y),
        **peers(net, x, y, threat, num_steps),
    }
    installed = {name: work for name, work in candidates.items() if work is not None}
    beyond: dict[str, list[float]] = {name: [] for name in installed}

    def timed(name: str) -> float:
        with gradient_calls(net, clock) as calls:
            start = clock()
            installed[name]()
            total = clock() - start
        beyond[name].append(total / sum(calls))
        return total

    seconds = take_turns({name: lambda name=name: timed(name) for name in installed}, num_turns, clock)
    rows = []
    for name, work in candidates.items():
        if work is None:
            rows.append((name, "not installed"))
            continue
        with metered(net) as meter:
            x_adv = work()
        samples = meter.num_backwards / (num_steps * len(x))
        right = float((net(x_adv).argmax(1) == y).float().mean())
        own = f"{median(beyond[name]):.3f}"
        rows.append((name, *ratio_cells(seconds, name, "floor"), own, f"{samples:.2f}", f"{right:.1%}"))
    show(
        f"PGD-{num_steps}, {title}, {threat}",
        ("", *RATIO_HEADERS, "to its own gradients", "samples", "still right"),
        rows,
    )


def main(
    num_turns: int = 15,
    num_steps: int = 20,
    num_threads: int | None = None,
    nets: tuple[Literal["resnet18", "preact_resnet", "digits"], ...] = ("resnet18", "digits"),
    small: bool = False,
) -> None:
    """Measures nets inside both threats.

    Args:
        num_turns: how often each candidate is measured.
        num_steps: gradient steps of every attack.
        num_threads: threads of torch; None for its choice, 1 for CPU seconds on a machine with other work.
        nets: which ones.
        small: whether to shrink everything, to see that it runs.
    """
    clock = set_up(num_threads)
    warnings.filterwarnings("ignore", module="foolbox|eagerpy|torchattacks")
    settings = {"num_steps": num_steps, "num_turns": num_turns, "clock": clock}
    torch.manual_seed(0)
    if "resnet18" in nets:
        net, x, y = resnet18(4 if small else 32)
        for threat in IN_PIXELS:
            compare(f"ResNet-18, {len(x)} images of 3 x 32 x 32", net, x, y, threat, **settings)
    if "preact_resnet" in nets:
        net, x, y = preact_resnet(2 if small else 32)
        for threat in IN_PIXELS:
            compare(f"PreActResNet-18, {len(x)} images of 3 x 32 x 32", net, x, y, threat, **settings)
    if "digits" in nets:
        net, x, y = digits(1 if small else 20)
        for threat in (Linf(eps=0.15), L2(eps=0.75)):
            compare(f"SmallCNN(width=64), {len(x)} digits of 8 x 8", net, x, y, threat, **settings)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
