"""`PublicCheckpoint`: a net with the weights that others have published, read without running their code.

Formats: checkpoints of MadryLab/robustness (a dict whose `model` is the state dict of their `AttackerModel`, with the
normalizer inside and mostly behind `module.`), state dicts as RobustBench has them, and plain ones.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .normalize import Normalize

WRAPPERS = ("model", "state_dict", "net")
"""Keys of a checkpoint behind which the state dict may lie."""
MEANS = ("normalizer.new_mean", "normalize.mean", "normalizer.mean", "mu", "mean")
STDS = ("normalizer.new_std", "normalize.std", "normalizer.std", "sigma", "std")
NUM_NAMED = 3  # keys that a message names of each kind


class PublicCheckpoint(nn.Module):
    """A net with published weights, behind the normalization that was published with them.

    Args:
        net: built like the one that was trained, without normalization: a torchvision ResNet for ImageNet, a
            `CifarResNet` for CIFAR; it takes the weights.
        checkpoint: the file. Nothing but tensors and plain values is read from it, so that it can run no code.
        mean: of the normalization, for a file that holds none; None for the one in the file, or none at all.
        std: of the normalization, likewise.

    Raises:
        ValueError: the file needs more than weights, or holds those of another architecture; the message says how to
            convert it, or names the first keys that are missing, unexpected or of another shape.
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
    ) -> None:
        super().__init__()
        call = f"PublicCheckpoint(checkpoint={checkpoint!r})"
        state = _state_dict(_load(checkpoint, call), call)
        if (mean is None) != (std is None):
            raise ValueError("PublicCheckpoint(mean=..., std=...): give both or none")
        stored_mean, stored_std = _buffer(state, MEANS), _buffer(state, STDS)
        if mean is not None and std is not None:
            self.normalize: nn.Module = Normalize(mean, std)
        elif stored_mean is not None and stored_std is not None:
            self.normalize = Normalize(stored_mean, stored_std)
        else:
            self.normalize = nn.Identity()
        _fill(net, state, call)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.normalize(x))


def _load(checkpoint: str, call: str) -> Any:
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{call} holds more than weights, which loading could run as code. If you trust who made it, convert it "
            "once, where nothing is at stake: `stored = torch.load(FILE, weights_only=False)`, then "
            "`torch.save({'model': stored['model']}, NEW_FILE)`"
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{call} is no file of torch.save, or a damaged one: {reason}") from error


def _state_dict(stored: Any, call: str) -> dict[str, Tensor]:
    """The tensors by name, without the copy of the net that robustness keeps for its attacker."""
    for key in WRAPPERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
            break
    tensors = {str(k): v for k, v in stored.items() if isinstance(v, Tensor)} if isinstance(stored, Mapping) else {}
    if not tensors:
        raise ValueError(f"{call} must hold a state dict, alone or behind one of {', '.join(WRAPPERS)}")
    while all(key.startswith("module.") for key in tensors):  # of DataParallel
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return {key: value for key, value in tensors.items() if not key.startswith("attacker.")}


def _buffer(state: dict[str, Tensor], names: Sequence[str]) -> list[float] | None:
    """Takes the first of these buffers out of the state, one number per channel; None where there is none."""
    key = next((name for name in names if name in state), None)
    return None if key is None else state.pop(key).flatten().tolist()


def _fill(net: nn.Module, state: Mapping[str, Tensor], call: str) -> None:
    """Loads a state dict whose keys may all stand behind one prefix, as `model.`."""
    wanted = net.state_dict()
    prefixes = {"", "model.", "module.", "net."}
    prefix = max(sorted(prefixes, key=len), key=lambda p: sum(p + key in state for key in wanted))
    given = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    # Counters that old checkpoints do not have, and that no prediction depends on.
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted]
    misshapen = [
        f"{key} {tuple(given[key].shape)} for {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if any(wrong.values()):
        parts = [f"{kind} {_some(keys)}" for kind, keys in wrong.items() if keys]
        raise ValueError(f"{call} does not fit {type(net).__name__}: {'; '.join(parts)}")
    net.load_state_dict(given, strict=False)


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - NUM_NAMED} more" if len(keys) > NUM_NAMED else ""
    return ", ".join(keys[:NUM_NAMED]) + more
