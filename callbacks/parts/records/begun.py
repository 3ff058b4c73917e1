"""`say_begun`: what is done now and takes a while, so that a long run is not silent."""

from __future__ import annotations


def say_begun(name: str, num_pictures: int) -> None:
    """Prints a line where the results of a run are printed too. For rank zero."""
    print(f"{name}: {num_pictures} picture{'s' * (num_pictures > 1)} ...", flush=True)
