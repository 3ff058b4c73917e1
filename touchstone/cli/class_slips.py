"""What a class of one's own may lack so that no config can make it: a method, `@dataclass`, or a type of a field."""

from __future__ import annotations

import inspect

from touchstone.attacks import Attack, Objective, Threat


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
    is_own, value = "__dataclass_fields__" in vars(found), vars(found).get(name)
    is_to_be_one = not is_own and "__init__" not in vars(found) and issubclass(found, (Attack, Objective, Threat))
    if is_to_be_one and name in inspect.get_annotations(found):
        return f"its fields become parameters by @dataclass(frozen=True, kw_only=True) above class {found.__name__}"
    is_inherited = any(name in vars(base) for base in found.__mro__[1:])  # as `supports`, which is no field
    if is_own and isinstance(value, (bool, int, float, str, tuple)) and not is_inherited:
        return f"a field of a dataclass needs a type, {name}: {type(value).__name__} = {value!r:.40}"
    return None
