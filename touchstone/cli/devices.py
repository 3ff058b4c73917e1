"""`read_devices`: an option that is a `torch.device`, as that of `StochasticWeightAveraging`."""

from __future__ import annotations

import torch
from jsonargparse.typing import register_type


def read_devices() -> None:
    """From now on a config holds a device by its name; jsonargparse would save words that it cannot read again."""
    register_type(torch.device, str, torch.device, (RuntimeError,), fail_already_registered=False)
