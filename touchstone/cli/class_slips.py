"""What a class of one's own may lack so that no config can make it: a method, `@dataclass`, or a type of a field."""

from __future__ import annotations

import inspect


def undefined(found: type) -> str | None:
    """Which methods a class must define that it only inherits as abstract ones; None where it lacks none."""
    if not inspect.isabstract(found):
        return None
    missing = sorted(found.__abstractmethods__)  # type: ignore[attr-defined]
    return f"{found.__name__} must define {', '.join(missing)}"


def no_field(found: object, name: str) -> str | None:
    """Why what stands under a name in the body of a class is no parameter of it; None where nothing does."""
    if not inspect.isclass(found):
        return None
    is_dataclass = "__dataclass_fields__" in vars(found)
    if not is_dataclass and name in inspect.get_annotations(found):
        return f"its fields become parameters by @dataclass(frozen=True, kw_only=True) above class {found.__name__}"
    value = vars(found).get(name)
    if is_dataclass and value is not None and not callable(value):
        return f"a field of a dataclass needs a type, {name}: {type(value).__name__} = {value!r:.40}"
    return None
