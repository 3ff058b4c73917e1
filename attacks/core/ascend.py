"""`ascend`: projected steepest ascent in one fixed threat, by steps chosen beforehand.

Climbs whose ball or step adapts are in `parts/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .per_sample import answers_at_once, leave_every, norms, per_sample, wide
from .threat import Threat

Measure = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`measure(x, rows) -> (gain, reached)`: x `(M, ...)` and its rows in the whole batch, int64 `(M,)`, to float and bool
`(M,)`."""

StepSize = Callable[[int, Threat], "float | Tensor"]
"""`step_size(step, threat)`: the size of a step, a number or one per sample `(M,)` of the threat's samples."""


def cosine_steps(num_steps: int) -> StepSize:
    """Steps that fall from twice eps to nothing along half a cosine: first far, then near the worst case."""
    return lambda step, threat: (1 + math.cos(math.pi * step / num_steps)) * threat.eps


def ascend(
    measure: Measure,
    x: Tensor,
    *,
    start: Tensor,
    threat: Threat,
    num_steps: int,
    step_size: StepSize,
    momentum: float = 0.0,
    decay: float = 0.0,
    early_stop: bool = True,
) -> tuple[Tensor, Tensor]:
    """Climbs `measure`'s gain from `start` by projected steepest ascent.

    A sample that has reached its goal stays where it reached it, with early stopping and without. With it, such
    samples leave the batch, so that the work shrinks. The point after the last step is not measured.

    Args:
        measure: the gain to climb, and whether the goal is reached, for a batch of points.
        x: the unchanged samples, float `(N, ...)`.
        start: where to begin, inside the threat, `(N, ...)`.
        threat: what the points must stay inside.
        num_steps: how many gradient steps, at least 1.
        step_size: the size of each step in the unit of eps.
        momentum: share of the previous move in each move, in [0, 1), as in Croce and Hein, "Reliable evaluation of
            adversarial robustness with an ensemble of diverse parameter-free attacks", 2020, equation 1, whose
            alpha is 1 - momentum.
        decay: share of the gradients so far in each gradient, all scaled to the same L1 length, >= 0, as in Dong et
            al., "Boosting adversarial attacks with momentum", 2018, equation 6, whose mu it is.
        early_stop: whether finished samples leave the batch; False keeps computing them, which changes no result.

    Returns:
        The points, `(N, ...)`, and which of them are known to have reached the goal, bool `(N,)`.

    Raises:
        ValueError: the samples are whole numbers, or the gain does not depend on the points by a differentiable path.
    """
    if not x.is_floating_point():
        raise ValueError(
            f"whole numbers ({x.dtype}) cannot be moved along a gradient: attack tokens with HotFlip, or inside an "
            "EmbeddingBall"
        )
    points, reached = start.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    rows, here, settled = torch.arange(len(x), device=x.device), start, reached.clone()
    previous, gathered = start, torch.zeros_like(start)
    for step in range(num_steps):
        here = here.detach().requires_grad_()
        gain, now_reached = measure(here, rows)
        grad = gradient_of(gain, here)
        with torch.no_grad():
            if decay:
                length = norms(grad, 1).clamp_min(torch.finfo(grad.dtype).tiny)
                grad = gathered = decay * gathered + grad / per_sample(length, grad)
            settled = settled | now_reached
            size, direction = per_sample(step_size(step, threat), x), threat.direction(grad)
            # In one pass over the memory.
            target = here.addcmul(size, direction) if isinstance(size, Tensor) else here.add(direction, alpha=size)
            moved = move(here, target, x, threat, previous=previous, momentum=momentum if step else 0)
            previous = here if momentum else previous
            all_move = answers_at_once(x.device) and not settled.any()
            here = moved if all_move else torch.where(wide(settled, x), here, moved)
            if early_stop and step % leave_every(x.device) == 0 and bool(settled.any()):
                points[rows[settled]] = here[settled]
                reached[rows[settled]] = True
                keep = ~settled
                rows, here, x, threat = rows[keep], here[keep], x[keep], threat.take(keep)
                settled, previous = settled[keep], previous[keep] if momentum else previous
                gathered = gathered[keep] if decay else gathered
                if not len(rows):
                    break
    points[rows] = here.detach()
    reached[rows] = settled
    return points, reached


def move(here: Tensor, target: Tensor, x: Tensor, threat: Threat, *, previous: Tensor, momentum: float) -> Tensor:
    """From `here` to the projection of `target`, of which a share is replaced by the move from `previous` to `here`."""
    moved = threat.project(target, x)
    if not momentum:
        return moved
    return threat.project(here + (1 - momentum) * (moved - here) + momentum * (here - previous), x)


def gradient_of(gain: Tensor, x: Tensor, *, keep_graph: bool = False) -> Tensor:
    """The gradient of each sample's own gain; summed, not averaged, so that it is the same in any batch.

    Args:
        gain: float `(N,)`, of `x` by a differentiable path.
        x: what it is differentiated by, `(N, ...)`.
        keep_graph: whether another gain of the same forward is to be differentiated after this one.

    Raises:
        ValueError: the gain does not depend on `x` by a differentiable path.
    """
    # The meter counts such gradients; one bad pixel must not cost the others.
    return unmasked_gradient_of(gain, x, keep_graph=keep_graph).nan_to_num(nan=0.0)


def unmasked_gradient_of(gain: Tensor, x: Tensor, *, keep_graph: bool = False) -> Tensor:
    """`gradient_of` as it is, NaN where it is NaN."""
    grad = None
    if gain.requires_grad:
        (grad,) = torch.autograd.grad(gain.sum(), x, retain_graph=keep_graph, allow_unused=True)
    if grad is None:
        raise ValueError(
            "the model's output does not depend on its input by a differentiable path, so that no gradient attack "
            "can climb: check for `detach`, `no_grad`, `argmax`, rounding or numpy inside the model, or attack by a "
            "black box (Square, HopSkipJump)"
        )
    return grad
