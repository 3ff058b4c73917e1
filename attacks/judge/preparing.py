"""Lets attacks learn from samples before they attack, counts what it costs, and holds the samples apart."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..core.attack import Attack
from ..core.sample_rng import SampleRng
from .left_alone import left_alone
from .meter import Cost, metered
from .running import naming
from .untouched import Untouched


def prepare_attacks(
    attacks: Mapping[str, Attack],
    model: nn.Module,
    samples: tuple[Tensor, Tensor] | None,
    *,
    seed: int,
    untouched: Untouched,
) -> tuple[dict[str, Attack], dict[str, Cost]]:
    """All attacks, ready, and what those that learn have cost for it.

    Raises:
        ValueError: an attack needs samples and there are none; it changed the model, its threat or objective, or
            torch's settings.
        RuntimeError: it failed; the message names it.
    """
    ready, costs = dict(attacks), dict[str, Cost]()
    for name, attack in attacks.items():
        if not attack.needs_samples:
            continue
        if samples is None:
            raise ValueError(
                f"attack {name!r}: {type(attack).__name__} learns from samples before it attacks: give "
                "`evaluate(prepare_on=(x, y))` images and classes that are not among those evaluated"
            )
        x, y = samples
        start, rng = time.perf_counter(), SampleRng.numbered(len(x), seed).fold(-1)
        with left_alone(name, attack), metered(model) as meter:
            learned = naming(name, attack.prepare, model, x, y, rng)
        costs[name] = meter.cost(time.perf_counter() - start)
        if learned.needs_samples or learned.threat is not attack.threat or learned.objective is not attack.objective:
            raise ValueError(
                f"attack {name!r}: {type(attack).__name__}.learn must return an attack that is ready, with the threat "
                f"and the objective of the one that learned, got {learned!r:.200}"
            )
        untouched.check(name)
        ready[name] = learned
    return ready, costs


def check_prepare_on(samples: object) -> None:
    """Raises ValueError where what attacks are to learn from is not `(x, y)`, two tensors, or None."""
    if samples is None:
        return
    if not isinstance(samples, tuple | list) or [isinstance(part, Tensor) for part in samples] != [True, True]:
        given = f" of {', '.join(type(part).__name__ for part in samples)}" if isinstance(samples, tuple | list) else ""
        raise ValueError(
            "evaluate(prepare_on=...) must be (x, y), images and their classes as two tensors, got "
            f"{type(samples).__name__}{given:.80}"
        )


def coincide(x: Tensor, others: Tensor) -> Tensor:
    """Which of the images `x`, `(N, ...)`, equal one of `others`, `(M, ...)`, in float32: bool `(N,)`, on the CPU."""
    rows, known = (images.detach().to("cpu", torch.float32).contiguous().numpy() for images in (x, others))
    bits = {image.tobytes() for image in known}
    return torch.tensor([image.tobytes() in bits for image in rows], dtype=torch.bool)


def check_disjoint(x: Tensor, ids: Tensor, others: Tensor) -> None:
    """Raises ValueError where images of the evaluation are among those that attacks have learned from."""
    same = coincide(x, others)
    if bool(same.any()):
        raise ValueError(
            f"evaluate(prepare_on=...) must be other samples than those evaluated, got {int(same.sum())} of "
            f"{len(x)} again, first sample id {int(ids.cpu()[same][0])}: an attack that knows a sample is stronger on "
            "it than on others"
        )
