"""`evaluate`: runs attacks and trusts none of them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..core.attack import Attack
from ..core.checks import (
    check_batch,
    check_device,
    check_labels,
    check_logits,
    check_not_probabilities,
    computing_dtype,
)
from ..core.frozen_eval import frozen_eval
from ..core.logits import logits_as_float
from ..core.sample_rng import SampleRng
from ..core.threat import Threat
from .meter import Cost, metered
from .report import Report
from .untouched import Untouched

RESERVED_NAMES = ("worst_case",)


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    *,
    seed: int = 0,
    sample_ids: Tensor | None = None,
    batch_size: int = 256,
    keep_adversarial: bool = False,
) -> Report:
    """Measures on which samples a model is right before and after each attack.

    A sample is robust against an attack only if the model is right before it and on what it returned, measured again
    here. Samples that are wrong before any attack are not attacked. The model, the batch and all random states are
    left as they were.

    Args:
        model: any module from images to logits `(N, C)`, in any mode.
        x: images, float `(N, ...)`, inside the box of the attacks' threats; half precision is computed in float32.
        y: the true classes, int64 `(N,)`.
        attacks: attacks by name.
        seed: seeds the random starts, together with the sample's id.
        sample_ids: int64 `(N,)`; None numbers the rows. A sample's verdict depends on its id, not on its batch.
        batch_size: samples attacked at a time, >= 1.
        keep_adversarial: whether the report keeps the attacked images.

    Returns:
        The verdicts, `(N,)` each, and the costs; an empty batch gives an empty report.

    Raises:
        ValueError: the batch, the labels or the logits are not what they must be; or an attack left its threat,
            returned something that is no batch of finite images like `x`, or changed its input or the model.

    Example:
        >>> report = evaluate(model, x, y, {"pgd": PGD(threat=Linf(eps=8 / 255))})
        >>> report.worst_case.float().mean()
    """
    check_names(attacks)
    if batch_size < 1:
        raise ValueError(f"evaluate(batch_size=...) must be >= 1, got {batch_size}")
    check_batch(x, y)
    check_device(model, x)
    if sample_ids is None:
        sample_ids = torch.arange(len(x), device=x.device)
    elif sample_ids.shape != y.shape or sample_ids.is_floating_point():
        raise ValueError(f"sample_ids must be integers `(N,)`, got {sample_ids.dtype} {tuple(sample_ids.shape)}")
    for name, attack in attacks.items():
        _naming(name, attack.threat.check_input, x)
        _naming(name, attack.check_rows, len(x))

    with frozen_eval(model), logits_as_float(model):
        # Clones made here can carry gradients even where the caller's tensors come from inference mode.
        x = x.detach().to(computing_dtype(model)).clone()
        y, ids = y.to(torch.int64).clone(), sample_ids.to(x.device, torch.int64).clone()
        rng = SampleRng(seed, ids)
        logits = _logits(model, x, ids, batch_size, "before any attack")
        if len(x):
            check_not_probabilities(logits)
            check_labels(y, logits.shape[1])
        clean_correct = logits.argmax(1) == y
        report = Report(
            attacks=dict(attacks),
            sample_id=ids,
            label=y,
            clean_prediction=logits.argmax(1),
            clean_correct=clean_correct,
            robust={},
            success={},
            cost={},
            x_adv={},
        )
        untouched = Untouched(model)
        for name, attack in attacks.items():
            if len(x):
                _naming(name, attack.check_classes, logits.shape[1])
            robust, success = clean_correct.clone(), torch.zeros_like(clean_correct)
            x_adv, cost = (x.clone() if keep_adversarial else x), Cost()
            for rows in clean_correct.nonzero()[:, 0].split(batch_size):
                if not len(rows):
                    continue  # an empty tensor splits into one empty part
                part = attack.take(rows)
                objective = part.objective.aim(partial(logits.__getitem__, rows), y[rows], rng.take(rows))
                if objective is not part.objective:
                    part = replace(part, objective=objective)  # type: ignore[type-var]
                attacked, spent = _run(name, part, model, x[rows], y[rows], rng.take(rows))
                cost += spent
                after = _logits_elsewhere(model, attacked, ids[rows], f"after attack {name!r}")
                robust[rows] = objective.correct(after, y[rows])
                success[rows] = objective.reached(after, y[rows])
                if keep_adversarial:
                    x_adv[rows] = attacked
            changed = untouched.change()
            if changed is not None:
                raise ValueError(f"attack {name!r} changed the model: {changed} is not what it was before")
            report.robust[name], report.success[name], report.cost[name] = robust, success, cost
            if keep_adversarial:
                report.x_adv[name] = x_adv
    return report


def check_names(attacks: Mapping[str, Attack]) -> None:
    """Raises ValueError where attacks are not given by names that can be tags, or are no attacks."""
    if not isinstance(attacks, Mapping):
        raise ValueError(f"attacks must be given by name, {{'pgd': PGD(...)}}, got {type(attacks).__name__}")
    for name, attack in attacks.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name in RESERVED_NAMES:
            raise ValueError(
                f"an attack's name must be letters, digits, '_', '-' and '.', since it becomes a tag, "
                f"and not {' or '.join(RESERVED_NAMES)!r}, got {name!r}"
            )
        if not isinstance(attack, Attack) or not isinstance(getattr(attack, "threat", None), Threat):
            raise ValueError(
                f"attack {name!r} must be an Attack with a threat, got {attack!r:.80}; "
                "see `touchstone.attacks.Attack` for what to define"
            )


def _run(name: str, attack: Attack, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> tuple[Tensor, Cost]:
    """Runs one attack on one batch and checks what it returned."""
    given_x, given_y, start = x.clone(), y.clone(), time.perf_counter()
    with metered(model) as meter:
        x_adv = _naming(name, attack, model, given_x, given_y, rng=rng)
    cost = meter.cost(time.perf_counter() - start)
    if not (torch.equal(given_x, x) and torch.equal(given_y, y)):
        raise ValueError(f"attack {name!r} changed its input in place: work on `x.clone()`")
    if not isinstance(x_adv, Tensor):
        raise ValueError(f"attack {name!r} must return a tensor, got {type(x_adv).__name__}")
    if (x_adv.shape, x_adv.dtype, x_adv.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            f"attack {name!r} must return {x.dtype} {tuple(x.shape)} on {x.device} like its input, "
            f"got {x_adv.dtype} {tuple(x_adv.shape)} on {x_adv.device}"
        )
    x_adv = x_adv.detach().clone()  # an attack may hand out a view of something that it goes on changing
    broken = ~x_adv.isfinite().flatten(1).all(1)
    if bool(broken.any()):
        raise ValueError(f"attack {name!r} returned NaN or infinite values, first at {_first(broken, rng)}")
    outside = ~attack.threat.contains(x_adv, x)
    if bool(outside.any()):
        distance = float(attack.threat.distance(x_adv, x)[outside][0])
        raise ValueError(
            f"attack {name!r} left its threat {attack.threat!r}, first at {_first(outside, rng)}: distance "
            f"{distance:.6g}, values from {float(x_adv[outside][0].min()):.6g} to {float(x_adv[outside][0].max()):.6g}"
            "; return `self.threat.project(x_adv, x)`"
        )
    return x_adv, cost


def _first(flags: Tensor, rng: SampleRng) -> str:
    return f"sample id {int(rng.sample_ids[flags][0])}"


def _naming(name: str, function, *args, **kwargs):  # type: ignore[no-untyped-def]
    """Calls `function` so that a ValueError says which attack it belongs to."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"attack {name!r}: {error}") from error


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor, ids: Tensor, batch_size: int, where: str) -> Tensor:
    """The logits of all samples, `(N, C)`, without autocast, checked batch by batch."""
    with torch.autocast(x.device.type, enabled=False):
        return _checked_logits(model, x, ids, batch_size, where)


def _checked_logits(model: nn.Module, x: Tensor, ids: Tensor, batch_size: int, where: str) -> Tensor:
    parts = []
    for number, (rows, row_ids) in enumerate(zip(x.split(batch_size), ids.split(batch_size), strict=True)):
        if not len(rows):
            return torch.empty(0, 2, dtype=x.dtype, device=x.device)
        logits = model(rows)
        check_logits(logits, row_ids, f"{where}, batch {number}")
        parts.append(logits)
    return torch.cat(parts)


def _logits_elsewhere(model: nn.Module, x: Tensor, ids: Tensor, where: str) -> Tensor:
    """The logits of `x` in another order and another batch size than an attack has seen it in."""
    size = max(1, (2 * len(x)) // 3)
    return _logits(model, x.flip(0), ids.flip(0), size, where).flip(0)
