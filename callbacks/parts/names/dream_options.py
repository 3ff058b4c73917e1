"""`check_dream_options` and `try_dream`: options of `dream` that a config gives by name, before they are needed."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from touchstone.attacks import dream
from touchstone.attacks.dreaming.options import ALLOWED, check_options


def check_dream_options(call: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where `dream` has no such option or does not take the value; the message begins with `call`."""
    for name in options:
        if name not in ALLOWED:
            near = difflib.get_close_matches(name, ALLOWED, len(ALLOWED), 0)
            raise ValueError(f"{call} must be options of dream: {', '.join(near)}; got {name!r}")
    try:
        check_options(options)
    except ValueError as error:
        raise ValueError(f"{call}: {error}") from None


def try_dream(model: nn.Module, layer: str, x: Tensor, options: Mapping[str, Any]) -> None:
    """Takes a single step of a dream from the first of some pictures.

    Raises:
        ValueError: there is no such layer, channel or unit, or the model does not take the size of an octave.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a layer may be silent there
        dream(model, layer, x[:1].clone(), **{**options, "num_steps": 1})
