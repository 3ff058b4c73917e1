"""Where in a batch its images and labels lie: the option `batch_keys`, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def read_batch_keys(given: object, option: str) -> tuple[str | int, ...] | None:
    """The keys of images and labels in a batch, as they were given.

    Args:
        given: two keys or places; None for the first two of a tuple or list.
        option: what it was given as, as in `Probe(batch_keys=...)`; the message begins with it.

    Raises:
        ValueError: it is neither.
    """
    if given is None:
        return None
    if not isinstance(given, (tuple, list)) or [_is_key(key) for key in given] != [True, True]:
        raise ValueError(f"{option} must be two keys, (images, labels), got {given!r}")
    return tuple(given)


def _is_key(key: object) -> bool:
    return isinstance(key, str | int) and not isinstance(key, bool)


def images_and_labels(batch: Any, keys: Sequence[str | int] | None) -> tuple[Tensor, Tensor]:
    """The images and labels in a batch: the first two of a tuple or list, or those of a dict with the given keys.

    Of a named tuple the keys, where they are given, are the names of its fields, and of other tuples and lists places.

    Raises:
        ValueError: the batch is something else, or lacks a key or place.
    """
    if keys is not None and hasattr(batch, "_fields"):
        batch = batch._asdict()
    if isinstance(batch, Mapping):
        if keys is None:
            raise ValueError(
                f"the batch is a dict with the keys {list(batch)}: say which are the samples and which their "
                "labels, `batch_keys=(samples, labels)`"
            )
        missing = [key for key in keys if key not in batch]
        if missing:
            raise ValueError(f"batch_keys: the batch has no {missing[0]!r}, its keys are {list(batch)}")
        return batch[keys[0]], batch[keys[1]]
    if isinstance(batch, (tuple, list)) and keys is not None:
        places = [key for key in keys if isinstance(key, int) and 0 <= key < len(batch)]
        if len(places) < len(keys):
            raise ValueError(
                f"batch_keys={tuple(keys)} must be keys of a dict, fields of a named tuple, or places from 0 to "
                f"{len(batch) - 1}, and the batch is a {type(batch).__name__} of {len(batch)} without names: leave the "
                "option out if its first two are the images and the labels"
            )
        return batch[places[0]], batch[places[1]]
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch[0], batch[1]
    raise ValueError(f"the batch must be (images, labels) or a dict of them, got {type(batch).__name__}")
