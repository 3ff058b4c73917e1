"""`smallest_eps`: how far each sample is from falling, and from it the whole robustness curve in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from touchstone.options import check_count

from .core.attack import Attack
from .core.checks import check_batch, plain, read_sample_ids
from .core.eps import check_width, parse_number
from .core.per_sample import widest
from .judge.evaluate import evaluate
from .judge.halving import Halving
from .threats.ball import Ball
from .threats.linf import Linf

_ROUNDING = 1e-6  # of an eps in float32, as `torch.linspace` gives it


def smallest_eps(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    *,
    largest: float | str,
    num_rounds: int = 10,
    seed: int = 0,
    sample_ids: Tensor | Sequence[int] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """The smallest eps at which an attack turns each sample, by bisection, each sample its own.

    Every value is the measured distance of a point with which the judge has seen the attack succeed: an upper bound
    of the true one, whatever the attack is, and within `largest / 2**(num_rounds - 1)` of an eps at which it failed;
    inside `L0`, whose eps are rounded up to whole pixels, within a pixel more. A sample's value depends on its id and
    not on its batch, and can only fall with more rounds.

    Args:
        model: any module from images to logits `(N, C)`.
        x: images, float `(N, ...)`, inside the box of the attack's threat.
        y: the true classes, int64 `(N,)`.
        attack: any attack in a ball; its own eps is not used. One that is `minimal` needs few rounds.
        largest: the largest eps of interest, > 0, a number or a string such as `"16/255"`.
        num_rounds: attacks on each sample at most, >= 1, the first with the largest eps.
        seed: seeds the attack's noise, together with the sample's id.
        sample_ids: int64 `(N,)`; None numbers the rows.
        batch_size: samples attacked at a time, >= 1; halved, with a warning, where they do not fit into memory.

    Returns:
        float64 `(N,)` (float32 where a device has no float64): 0 for a sample that is wrong before any attack,
        infinite for one that stands at `largest`.

    Raises:
        ValueError: a value is outside its range, or the judge refuses the batch or what the attack returns.

    Example:
        >>> eps = smallest_eps(model, x, y, PGD(threat=Linf(eps=1)), largest=16 / 255)
        >>> robustness_curve(eps, torch.linspace(0, 16 / 255, 17))
    """
    check_batch(x, y)
    largest = parse_number(largest, "smallest_eps(largest=...)")
    check_count("smallest_eps(num_rounds=...)", num_rounds)
    threat = _ball_of(attack)
    if isinstance(threat, Linf) and threat.box is not None:
        check_width(largest, threat.width, "smallest_eps(largest=...)")
    ids = read_sample_ids(sample_ids, y)
    rows = torch.arange(len(x), device=x.device)
    eps = torch.full((len(x),), largest, dtype=widest(x.device), device=x.device)
    stands, falls = torch.zeros_like(eps), torch.full_like(eps, torch.inf)
    halving = Halving(batch_size)
    for number in range(num_rounds):
        part = attack.take(rows)
        part = part.inside(replace(part.threat, eps=eps[rows]))  # type: ignore[type-var]
        report = evaluate(
            model,
            x[rows],
            y[rows],
            {"attack": part},
            seed=seed,
            sample_ids=ids[rows],
            batch_size=halving,
            keep_adversarial=True,
            probe_masking=False,
        )
        turned, x_adv = report.success["attack"], report.x_adv["attack"]
        distance = part.threat.distance(x_adv, plain(x[rows]).to(x_adv)).to(eps)
        falls[rows] = torch.where(turned, falls[rows].minimum(distance).minimum(eps[rows]), falls[rows])
        stands[rows] = torch.where(turned, stands[rows], eps[rows])
        if not number:
            falls[~report.clean_correct] = 0
        rows = rows[(falls[rows] > stands[rows] + threat.whole_eps) & falls[rows].isfinite()]
        if not len(rows):
            break
        eps = (stands + falls) / 2
        eps = eps.ceil() if threat.whole_eps else eps
    halving.say()
    return falls


def _ball_of(attack: Attack) -> Ball:
    """The threat of an attack that is ready; raises ValueError where it is no ball, whose eps could be another."""
    if not isinstance(attack, Attack) or not isinstance(attack.threat, Ball):
        raise ValueError(f"smallest_eps(attack=...) must be an attack in a ball such as Linf, got {attack!r:.80}")
    if attack.needs_samples:
        raise ValueError(
            f"smallest_eps(attack=...): {type(attack).__name__} learns from samples before it attacks: give the attack "
            "that its `.prepare(model, x, y)` returns, with other samples than these"
        )
    return attack.threat


def robustness_curve(smallest: Tensor, eps_values: Tensor | Sequence[float]) -> Tensor:
    """The share of samples that stand at each eps.

    Args:
        smallest: the smallest eps at which each sample falls, `(N,)`, from `smallest_eps`.
        eps_values: where to read the curve, >= 0, `(E,)`; beyond `largest` nothing was measured.

    Returns:
        float64 `(E,)`, never rising with eps; at 0 the clean accuracy.
    """
    values = torch.as_tensor(eps_values, dtype=smallest.dtype, device=smallest.device)
    return (smallest[:, None] > values * (1 + _ROUNDING)).to(smallest).mean(0)
