"""`scaled`: a threat with a share of its eps."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

from touchstone.attacks import Threat
from touchstone.attacks.threats.ball import Ball

AnyThreat = TypeVar("AnyThreat", bound=Threat)


def scaled(threat: AnyThreat, share: float) -> AnyThreat:
    """The same threat inside a share of its eps, in (0, 1].

    Raises:
        ValueError: its eps counts something, as pixels or tokens, or it has none.
    """
    counts = isinstance(threat, Ball) and threat.whole_eps
    if counts or "eps" not in {field.name for field in fields(threat)}:  # type: ignore[arg-type]
        raise ValueError(
            "EpsWarmup(strategy=...) must learn inside a threat whose eps can grow by degrees, such as "
            f"Linf(eps=8 / 255), got {threat!r:.80}"
        )
    return replace(threat, eps=share * threat.eps)  # type: ignore[type-var]
