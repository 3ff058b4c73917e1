"""`check_sizes`: how many classes, channels and units a net has at least."""

from __future__ import annotations


def check_sizes(net: str, **sizes: tuple[int, int]) -> None:
    """Raises ValueError where an option of a net is smaller than it may be.

    Args:
        net: the name of the class.
        sizes: by the names of the options, what is given and the least that is allowed. Of classes that is 2: a net
            that knows one is always right.
    """
    for name, (given, least) in sizes.items():
        if given < least:
            raise ValueError(f"{net}({name}=...) must be >= {least}, got {given}")
