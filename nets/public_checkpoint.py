"""`PublicCheckpoint`: a net with the weights that others have published, read without running their code.

Formats: checkpoints of MadryLab/robustness (a dict whose `model` is the state dict of their `AttackerModel`, with the
normalizer inside and mostly behind `module.`), state dicts as RobustBench has them, and plain ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .normalize import Normalize
from .parts.fill import fill
from .parts.published_state import published_state
from .parts.stored_weights import stored_weights

NORMALIZATIONS = (("new_mean", "new_std"), ("mean", "std"), ("mu", "sigma"))
"""How the two halves of a normalization are called, at the top or behind `normalizer.`, `normalize.` or the `0.` of an
`nn.Sequential` with the net."""


class PublicCheckpoint(nn.Module):
    """A net with published weights, behind the normalization that was published with them.

    Args:
        net: built like the one that was trained, without normalization: a torchvision ResNet for ImageNet, a
            `CifarResNet` for CIFAR; it takes the weights.
        checkpoint: the file. Nothing but tensors and plain values is read from it, so that it can run no code.
        mean: of the normalization, for a file that holds none; None for the one in the file, or none at all. Where it
            takes the place of another one in the file, a warning says so.
        std: of the normalization, likewise.
        key: of the file behind which the state dict lies, as `"ema"`, where it holds several, empty for the one behind
            no key; None for the only one that fits, alone or behind `model`, `state_dict`, `net` or `model_state_dict`.

    Raises:
        ValueError: the file needs more than weights, or holds those of another architecture, others beside them, or
            half a normalization, or several state dicts fit; the message says how to convert it, or names its keys, or
            the first that are missing, unexpected or of another shape.
        FileNotFoundError: there is no such file.

    Shape:
        as that of `net`, from pixels in [0, 1].

    Example:
        >>> net = PublicCheckpoint(torchvision.models.resnet50(), "imagenet_l2_3_0.pt")
    """

    def __init__(
        self,
        net: nn.Module,
        checkpoint: str,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__()
        call = f"PublicCheckpoint(checkpoint={checkpoint!r})"
        state = published_state(stored_weights(checkpoint, call), net, key, call)
        if (mean is None) != (std is None):
            raise ValueError("PublicCheckpoint(mean=..., std=...): give both or none")
        stored = _normalization(state, set(net.state_dict()), call)
        given = None if mean is None or std is None else Normalize(mean, std)
        if stored is not None and given is not None and not _are_equal(stored, given):
            warnings.warn(
                f"{call} holds a normalization, by mean {_listed(stored.mean)} and std {_listed(stored.std)}; "
                "what is given as mean and std takes its place",
                stacklevel=2,
            )
        self.normalize: nn.Module = given or stored or nn.Identity()
        fill(net, state, call)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.normalize(x))


def _normalization(state: dict[str, Tensor], wanted: set[str], call: str) -> Normalize | None:
    """Takes the normalization out of the state; None where there is none. What the net itself wants is left there.

    Raises:
        ValueError: there is only one half of it, or it is none.
    """
    for place in ("normalizer.", "normalize.", "0.", ""):
        for names in NORMALIZATIONS:
            keys = [place + name for name in names if place + name not in wanted]
            found = [key for key in keys if key in state]
            if len(found) == 1:
                raise ValueError(f"{call} must hold both of {place + names[0]} and {place + names[1]}, got {found[0]}")
            if found:
                mean, std = (state.pop(key).flatten().tolist() for key in found)
                try:
                    return Normalize(mean, std)
                except ValueError as error:
                    raise ValueError(f"{call} holds a normalization that is none: {error}") from error
    return None


def _are_equal(one: Normalize, other: Normalize) -> bool:
    return all(
        a.shape == b.shape and torch.allclose(a, b, atol=1e-6)
        for a, b in ((one.mean, other.mean), (one.std, other.std))
    )


def _listed(values: Tensor) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values.flatten().tolist())}]"
