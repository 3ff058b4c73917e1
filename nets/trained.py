"""`Trained`: a net with weights from a file, as a config can name it."""

from __future__ import annotations

import pickle

import torch
from torch import Tensor, nn


class Trained(nn.Module):
    """A net that begins with the weights of a checkpoint.

    Nothing but tensors and plain values is read from the file, so that a strange one can run no code.

    Args:
        net: built like the one that was trained; it takes the weights.
        checkpoint: a file with a state dict, or a checkpoint of Lightning's; the net's weights may stand behind a
            prefix, as `net.` in a checkpoint of `Classifier`.

    Raises:
        ValueError: the file holds no weights for this net.
        FileNotFoundError: there is no such file.

    Example:
        >>> Trained(SmallCNN(), "logs/digits/version_0/checkpoints/best.ckpt")
    """

    def __init__(self, net: nn.Module, checkpoint: str) -> None:
        super().__init__()
        try:
            stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"Trained(checkpoint={checkpoint!r}) is no file of weights alone: {reason}") from error
        state = stored.get("state_dict", stored) if isinstance(stored, dict) else {}
        wanted = net.state_dict()
        prefix = _prefix(list(wanted), list(state))
        if prefix is None:
            raise ValueError(
                f"Trained(checkpoint={checkpoint!r}) must hold the weights {', '.join(list(wanted)[:3])}, ... of "
                f"{type(net).__name__}, got {', '.join(map(str, list(state)[:3])) or 'none'}, ..."
            )
        try:
            net.load_state_dict({key: state[prefix + key] for key in wanted})
        except RuntimeError as error:
            raise ValueError(
                f"Trained(checkpoint={checkpoint!r}) does not fit {type(net).__name__}: {error}"
            ) from error
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _prefix(wanted: list[str], given: list[str]) -> str | None:
    """The shortest text that turns every wanted key into a given one; None where there is none."""
    first = wanted[0] if wanted else ""
    prefixes = sorted((key.removesuffix(first) for key in given if key.endswith(first)), key=len)
    return next((prefix for prefix in prefixes if {prefix + key for key in wanted} <= set(given)), None)
