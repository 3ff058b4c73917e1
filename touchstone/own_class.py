"""`put_before`: an object that is given a class of its own, and stays an instance of the one that it had."""

from __future__ import annotations

from typing import Any


def put_before(thing: object, own: type, kind: type | None = None, **attributes: Any) -> None:
    """Puts a class before the class of one object, whose methods it may override; the name stays.

    What makes another object like this one, as Lightning does of data loaders, makes it of this class too.

    Args:
        thing: changed in place.
        own: the class, with whatever `thing` is to do otherwise.
        kind: the class before which it is put; None for that of `thing`.
        attributes: of the class.
    """
    kind = type(thing) if kind is None else kind
    thing.__class__ = type(kind.__name__, (own, kind), {"__module__": kind.__module__, **attributes})
