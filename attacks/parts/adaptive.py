"""Climbs whose steps adapt to how each sample's climb has gone: what `APGD` is made of.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
2020 (halving), and "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", 2021 (sparse). The
constants are those of the authors' code, https://github.com/fra31/auto-attack.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.ascend import Measure, gradient_of, move
from ..core.per_sample import PerSample, leave_every, per_sample, wide
from ..threats.ball import Ball

_MOMENTUM = 0.25
_STILL_SPARSER = 0.95  # of the count of changed pixels at the last look: above it, the climb has settled on its pixels
_SPARSITY_STEP = 1.5  # what shrinks: the pixels of a step from those changed so far, and the step
_SMALLEST_STEP = 0.1  # in units of eps


@dataclass
class Climb(PerSample, ABC):
    """Where each of M samples is, the best point that it has seen, and how far its next step goes."""

    x: Tensor
    threat: Ball
    here: Tensor
    previous: Tensor
    grad: Tensor
    gain: Tensor
    best: Tensor
    best_grad: Tensor
    best_gain: Tensor
    step: Tensor

    def see(self, gain: Tensor, grad: Tensor) -> None:
        """Takes in the gain `(M,)` of the points here (infinite where the goal is reached) and its gradient."""
        better = gain > self.best_gain
        self.best = torch.where(wide(better, self.x), self.here, self.best)
        self.best_grad = torch.where(wide(better, self.x), grad, self.best_grad)
        self.best_gain = torch.where(better, gain, self.best_gain)
        self.gain, self.grad = gain, grad

    def go_back(self, which: Tensor) -> None:
        """Takes some of the samples, bool `(M,)`, to the best point that they have seen."""
        self.here = torch.where(wide(which, self.x), self.best, self.here)
        self.grad = torch.where(wide(which, self.x), self.best_grad, self.grad)

    @staticmethod
    @abstractmethod
    def looks(num_steps: int) -> dict[int, int]:
        """After which steps the climb is looked at, and how many steps have passed since the last look."""

    @abstractmethod
    def look(self, num_steps: int) -> None:
        """Adapts the steps to how the last `num_steps` went."""

    @abstractmethod
    def advance(self, first: bool) -> None:
        """Goes one step."""


@dataclass
class HalvingClimb(Climb):
    """Full steps with momentum, halved where they stop paying: in any norm with a steepest direction."""

    rho: float
    num_rises: Tensor
    gain_at_look: Tensor
    halved: Tensor

    @staticmethod
    def begin(x: Tensor, start: Tensor, threat: Ball, rho: float) -> HalvingClimb:
        """At `start`, with steps of twice eps; `rho` is the share of steps that must raise the gain."""
        lowest = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        return HalvingClimb(
            **_at(x, start, threat, rel_step=2.0),
            rho=rho,
            num_rises=torch.zeros(len(x), dtype=torch.int64, device=x.device),
            gain_at_look=lowest,
            halved=torch.ones(len(x), dtype=torch.bool, device=x.device),
        )

    @staticmethod
    def looks(num_steps: int) -> dict[int, int]:
        # Section 3.1: the distances fall from 22 % of all steps by 3 % each, to no less than 6 %.
        distance, least, fall = (max(1, num_steps * percent // 100) for percent in (22, 6, 3))
        found, step = {}, distance
        while step < num_steps:
            found[step] = distance
            distance = max(distance - fall, least)
            step += distance
        return found

    def see(self, gain: Tensor, grad: Tensor) -> None:
        self.num_rises = self.num_rises + (gain > self.gain)
        super().see(gain, grad)

    def look(self, num_steps: int) -> None:
        few_rises = self.num_rises <= self.rho * num_steps  # condition 1
        stuck = ~self.halved & (self.best_gain <= self.gain_at_look)  # condition 2
        self.halved = few_rises | stuck
        self.step = torch.where(self.halved, self.step / 2, self.step)
        self.gain_at_look, self.num_rises = self.best_gain, torch.zeros_like(self.num_rises)
        self.go_back(self.halved)

    def advance(self, first: bool) -> None:
        target = self.here + per_sample(self.step, self.x) * self.threat.direction(self.grad)
        momentum = 0.0 if first else _MOMENTUM
        moved = move(self.here, target, self.x, self.threat, previous=self.previous, momentum=momentum)
        self.here, self.previous = moved, self.here


@dataclass
class SparseClimb(Climb):
    """Steps that change few pixels: ever fewer while the best point gets sparser, ever shorter once it does not."""

    num_changed: Tensor
    share: Tensor

    @staticmethod
    def begin(x: Tensor, start: Tensor, threat: Ball) -> SparseClimb:
        """At `start`, with steps of eps."""
        num_changed = _num_changed(start, x)
        share = num_changed / (x[0].numel() * _SPARSITY_STEP)
        return SparseClimb(**_at(x, start, threat, rel_step=1.0), num_changed=num_changed, share=share)

    @staticmethod
    def looks(num_steps: int) -> dict[int, int]:
        distance = max(1, num_steps * 4 // 100)
        return dict.fromkeys(range(distance, num_steps, distance), distance)

    def look(self, num_steps: int) -> None:
        num_changed, eps = _num_changed(self.best, self.x), self.threat.radius(self.step)
        sparser = num_changed < _STILL_SPARSER * self.num_changed
        self.share = num_changed / (self.x[0].numel() * _SPARSITY_STEP)
        self.step = torch.where(sparser, eps, torch.maximum(self.step / _SPARSITY_STEP, _SMALLEST_STEP * eps))
        self.num_changed = num_changed
        self.go_back(sparser)

    def advance(self, first: bool) -> None:
        grad = self.threat.masked(self.grad, 0.0).flatten(1)
        size, num_pixels = grad.abs(), grad.shape[1]
        place = ((1 - self.share) * num_pixels).long().clamp(0, num_pixels - 1)
        smallest = size.sort(dim=1).values.gather(1, place[:, None])
        signs = torch.where(size >= smallest, grad.sign(), 0)
        length = self.step / signs.abs().sum(1).clamp_min(1)
        self.here = self.threat.project(self.here + per_sample(length, self.x) * signs.reshape(self.x.shape), self.x)


def climb(measure: Measure, begin: Climb, num_steps: int) -> Tensor:
    """Goes `num_steps` adaptive steps; a sample that has reached its goal leaves.

    Returns:
        Of each sample the first point that reached the goal, or else the one with the largest gain, `(N, ...)`.
    """
    now, points, looks = begin, begin.here.clone(), begin.looks(num_steps)
    rows = torch.arange(len(points), device=points.device)
    for step in range(num_steps + 1):
        last = step == num_steps  # of the last point nobody needs the gradient
        now.here = now.here.detach().requires_grad_(not last)
        with torch.set_grad_enabled(not last):
            gain, reached = measure(now.here, rows)
        grad = now.grad if last else gradient_of(gain, now.here)
        with torch.no_grad():
            now.see(gain.detach().masked_fill(reached, torch.inf), grad)
            done = now.best_gain == torch.inf
            if not last and step % leave_every(points.device) == 0 and bool(done.any()):
                points[rows[done]] = now.best[done]
                rows, now = rows[~done], now.take(~done)
                if not len(rows):
                    return points
            if step in looks:
                now.look(looks[step])
            if not last:
                now.advance(first=step == 0)
    points[rows] = now.best.detach()
    return points


def _at(x: Tensor, start: Tensor, threat: Ball, rel_step: float) -> dict[str, Any]:
    """What every climb begins with."""
    numbers = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    return {
        "x": x,
        "threat": threat,
        "here": start,
        "previous": start,
        "grad": torch.zeros_like(x),
        "gain": numbers + torch.inf,  # so that the first one is no rise
        "best": start,
        "best_grad": torch.zeros_like(x),
        "best_gain": numbers - torch.inf,
        "step": numbers + rel_step * threat.radius(numbers),
    }


def _num_changed(points: Tensor, x: Tensor) -> Tensor:
    return (points != x).flatten(1).sum(1)
