"""`last_layer`: which layer of a net comes last, and how many features enter it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .parts.evaluating import evaluating


def last_layer(net: nn.Module, x: Tensor) -> tuple[str, int]:
    """The name of the last layer with a weight matrix that a forward runs, and the features of a unit of its input.

    Args:
        net: any net; it is left as it was.
        x: a batch that it takes, N >= 1.

    Raises:
        ValueError: the net runs no such layer, or a program of TorchScript, which shows no layer's input.

    Example:
        >>> last_layer(torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224))
        ('fc', 2048)
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in net.modules()):
        raise ValueError(
            f"last_layer: TorchScript has compiled layers of {type(net).__name__}: their inputs are hidden"
        )
    found: list[tuple[str, int]] = []

    def see(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
            features = next((value for value in (*args, *options.values()) if isinstance(value, Tensor)), None)
            if features is not None:
                found.append((name, features.shape[-1 if isinstance(module, nn.Linear) else 1]))

        return hook

    with evaluating(net), torch.no_grad():
        # A weight that is computed may change what it is computed from where the net trains, as by `spectral_norm`.
        weighted = {name: m for name, m in net.named_modules() if getattr(getattr(m, "weight", None), "ndim", 0) >= 2}
        handles = [module.register_forward_hook(see(name), with_kwargs=True) for name, module in weighted.items()]
        try:
            net(x)
        finally:
            for handle in handles:
                handle.remove()
    if not found:
        raise ValueError(f"last_layer: {type(net).__name__} runs no layer with a weight matrix")
    return found[-1]
