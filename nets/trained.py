"""`Trained`: a net with weights from a file, as a config can name it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .parts.fill import fill
from .parts.stored_weights import stored_weights

OF_LIGHTNING = "pytorch-lightning_version"
"""A key of Lightning's checkpoints."""


class Trained(nn.Module):
    """A net that begins with the weights of a checkpoint.

    Nothing but tensors and plain values is read from the file, so that a strange one can run no code.

    Args:
        net: built like the one that was trained; it takes the weights.
        checkpoint: a file with a state dict, or a checkpoint of Lightning's; the net's weights may stand behind a
            prefix, as `net.` in a checkpoint of `Classifier`.
        prefix: what stands before the names of the net's weights; None for the only text that makes them fit.

    Raises:
        ValueError: the file holds other weights than those of this net; the message names the first keys.
        FileNotFoundError: there is no such file.

    Example:
        >>> Trained(SmallCNN(), "logs/digits/version_0/checkpoints/best.ckpt")
    """

    def __init__(self, net: nn.Module, checkpoint: str, *, prefix: str | None = None) -> None:
        super().__init__()
        call = f"Trained(checkpoint={checkpoint!r})"
        stored = stored_weights(checkpoint, call)
        is_of_lightning = isinstance(stored, Mapping) and OF_LIGHTNING in stored
        state = stored.get("state_dict", stored) if isinstance(stored, Mapping) else None
        tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
        if not tensors:
            raise ValueError(f"{call} must hold a state dict, alone or behind state_dict")
        # A module of Lightning's may have weights beside those of its net.
        fill(net, tensors, call, prefix=prefix, has_others=is_of_lightning)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
