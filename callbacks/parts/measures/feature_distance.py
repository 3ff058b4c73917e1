"""`feature_distance`: how different two pictures are to a net, by what its layers answer.

Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018 (LPIPS), equation 1
with every weight 1, on the net at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from touchstone.attacks.dreaming.layers import channels_first, select, stopping_after


def feature_distance(net: nn.Module, layers: Sequence[str], x: Tensor, other: Tensor) -> Tensor:
    """The squared distance of the layers' activations, scaled to length 1 at each position; averaged over positions.

    Args:
        net: any net that runs these layers; in the mode and the gradient context of the caller.
        layers: by their names in `net.named_modules()`, or the ends of them; each gives `(N, C, ...)`, or
            tokens `(N, T, C)`.
        x: pictures, float `(N, C, H, W)`.
        other: as many others.

    Returns:
        The sum over the layers, each in [0, 4]: float `(N,)`; 0 for equal pictures.

    Raises:
        ValueError: there is no such layer, and the message lists those that there are; or what a layer gives does not
            begin with an axis of the pictures.
    """
    names = [select(net, layer, option="feature_distance(layer=...)").name for layer in layers]
    with stopping_after(net, names, call="feature_distance") as run:
        one, two = run(x), run(other)
    distances = [(_directions(one[name]) - _directions(two[name])).square().sum(1) for name in names]
    return torch.stack([each.flatten(1).mean(1) for each in distances]).sum(0)


def _directions(activations: Tensor) -> Tensor:
    """Activations as `(N, C, positions)`, scaled to length 1 over the channels; 0 stays 0."""
    activations = channels_first(activations if activations.dtype == torch.float64 else activations.float())
    activations = activations.flatten(2) if activations.ndim > 2 else activations[:, :, None]
    length = torch.linalg.vector_norm(activations, dim=1, keepdim=True)
    return activations / length.clamp_min(torch.finfo(activations.dtype).tiny)
