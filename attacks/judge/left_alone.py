"""`left_alone`: proof that an attack left its threat, its objective and torch's settings as it found them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..core.attack import Attack


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)  # "cpu" would slow down every call of torch
    # At the None that this leaves, get_default_device of torch 2.6 to 2.8 fails, which Lightning calls as well.
    context = getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None)
    if device.type == "cpu" and context is not None:
        vars(context).pop("device_context", None)


_SETTINGS: dict[str, tuple[Any, Any]] = {
    "set_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "set_default_device": (torch.get_default_device, _set_default_device),
    "use_deterministic_algorithms": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "set_num_threads": (torch.get_num_threads, torch.set_num_threads),
}
"""What `torch.<name>` sets for the whole process: how to read it, and how to put it back."""


@contextmanager
def left_alone(name: str, attack: Attack) -> Iterator[None]:
    """Raises ValueError where the block changed what an attack is measured by; torch's settings are put back anyway."""
    kept = {"threat": attack.threat.copied(), "objective": attack.objective.copied()}
    before = {setting: read() for setting, (read, _) in _SETTINGS.items()}
    try:
        yield
    finally:
        changed = [setting for setting, (read, _) in _SETTINGS.items() if read() != before[setting]]
        for setting in changed:
            _SETTINGS[setting][1](before[setting])
    if changed:
        raise ValueError(
            f"attack {name!r} changed a setting of the whole process by `torch.{changed[0]}`, and would change what "
            "is measured after it; it has been put back"
        )
    for field, was in kept.items():
        now = getattr(attack, field)
        if not was.still_is(now):
            raise ValueError(
                f"attack {name!r} changed its {field}, by which it is measured: {was!r:.100} has become {now!r:.100}; "
                "work on copies, as by `eps = 2 * eps` in place of `eps *= 2`"
            )
