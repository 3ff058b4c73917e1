"""How often a property is tried on drawn cases: a few in the fast tests, hundreds in the slow ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy


def fuzzed(fast: int, slow: int) -> pytest.MarkDecorator:
    """Gives a test the argument `num_cases`, twice: the second time marked slow."""
    sizes = [pytest.param(fast, id=f"{fast} cases")]
    sizes += [pytest.param(slow, id=f"{slow} cases", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
    return pytest.mark.parametrize("num_cases", sizes)


def for_each(
    strategy: SearchStrategy[Any], num_cases: int, holds: Callable[[Any], None], *, shrinks: bool = True
) -> None:
    """Draws cases and checks each, the same ones whenever as many are asked for; one that fails is made small."""

    phases = (Phase.generate, *([Phase.shrink] if shrinks else []))

    @settings(
        max_examples=num_cases, deadline=None, derandomize=True, phases=phases, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def check(case: Any) -> None:
        holds(case)

    check()


@dataclass(frozen=True)
class Answer:
    """What a call gave, or in what words it refused."""

    value: Any = None
    refusal: str | None = None


def ask(call: Callable[[], Any], refuses_by: type[Exception] | tuple[type[Exception], ...] = ValueError) -> Answer:
    """Calls it; an error of another kind, is one of ours."""
    try:
        return Answer(call())
    except refuses_by as error:
        return Answer(refusal=str(error))
