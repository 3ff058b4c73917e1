"""`Strongest`: the cascade that answers "how robust is it really" at the lowest cost.

Known parts: steps that fall from twice eps along a cosine, and momentum (Croce and Hein, 2020); effort where the margin
is small (Gao et al., "Fast and reliable evaluation of adversarial robustness with minimum-margin attack", 2022); a ball
that shrinks to the nearest point found (`cascade/shrinking.py`); classes in the order of what their own gradients
promise (`Survivors.ask_each_class`); a black box where gradients are blind. Its own: a margin that is soft on the scale
of each sample's own margin, the less the nearer it has come, so that it neither saturates nor depends on the scale of
the logits; restarts where the ends of earlier climbs scatter, since where they all end alike another one ends there
too; gradients that see units at rest, or beyond where they saturate, beside plain ones (`core/smooth_backward.py`,
`core/past_saturation.py`); climbs of each class above the other wrong ones, where no class is nearer than another;
climbs from beyond eps towards the nearest class; inside L2, L1 and L0 effort where the boundary is out of sight from
inside; and inside L1 steps to the corners of ball and box, or along the gradient itself where the margin bends
(`cascade/closing_in.py`).

What is spent on a sample depends on that sample alone, so that its verdict is the same in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from touchstone.options import check_counts

from .cascade.climbs import Climbs
from .cascade.gain import ANY, SHARP, Gain
from .cascade.sight import Sight
from .cascade.survivors import QUERIES_PER_PASS, Survivors, among, without
from .core.attack import Attack
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.losses import CrossEntropy, Margin
from .threats.ball import Ball
from .threats.l1 import L1
from .threats.linf import Linf

_THOROUGH = 400  # the budget from which on every survivor is tried again
_PATIENT = 2000  # the budget from which a black box searches, whatever the gradients
_NUM_SCATTERED = 2  # equal climbs whose ends are compared
_HOPE = 8.0  # standard deviations between the mean end and the boundary, up to which another climb may reach it
_HOPE_AT_ONCE = 3.0  # the same after climbs of unlike lengths
_NUM_CLASSES = 3  # the nearest ones, towards which the nearest survivors climb
_NUM_PROMISED = 2  # those whose own gradients promise most
_MORE_CLASSES = 5  # the same of a thorough budget
_LEVEL_CLASSES = 9  # the same where none is nearer than another
_NUM_HIDDEN = 2  # the same where the boundary is out of sight from inside
_NUM_SATURATED = 2  # the same where units saturate
_NUM_BEYOND = 2  # the same from beyond, inside Linf
_TIE = 1e-3  # of the first margin
_LIKELY_STEPS = 20  # of a climb of the likelihood
_SHARE = 0.3  # of the pixels, the first windows around the best point
_IN_SIGHT = 0.4  # of the first margin, at most so much of which is left where the boundary is seen from inside
_BROUGHT_NEAR = 0.5  # the same where climbs along the gradient itself have led there
_FAR = 8  # of eps: the first ball of a climb from afar
_BEYOND = 2  # the same inside Linf, and where units saturate
_FAR_CORNERS, _NEAR_CORNERS = 20, 3  # the same of climbs by corners, from afar and where the boundary is in sight
_SMOOTH = Gain(smooth=True)


@dataclass(frozen=True, kw_only=True)
class Strongest(Attack):
    """A cascade of climbs: cheap ones first, then more effort on the survivors that may still fall.

    What follows lists which survivors are tried, and how; the more a try costs, the nearer they must have come. "Near
    0.2" are survivors with at most that share of their first margin left; "in sight", near 0.4; "blind", those whose
    gradient leads nowhere or hides a part of how the margin changes, or whose margin jumps; "torn", those from whom
    some class fell back while others came nearer, or who have few features, so that one class may be reached by its own
    way alone; "level", those of whom all other classes are as near as each other, so that none is known to be next;
    "saturated", those who drive bounded units of some layer out to their flat ends; "scattered", those whose climbs
    have ended at so unlike margins that another one may reach the boundary. Of classes the nearest come first where no
    gradients were asked. A black box searches where the samples are images and the threat is not L0.

    Everywhere, after the first climb
        - saturated: along gradients that see beyond where units saturate, for 12 steps towards any class and then each
          of 2; from beyond, in a ball of 2 eps that shrinks to eps, for 20 steps

    Linf
        - all: a climb of 8 steps
        - near 0.6: a climb of 12 steps
        - near 0.35: from beyond, in a ball of 2 eps that shrinks to eps, towards the nearest class, for 15 steps
        - near 0.15: a climb of 40 steps
        - in sight or torn: towards each of the 2 classes whose own gradients promise most, for 5 steps
        - level: each of 9 classes above the other wrong ones, for 10 steps
        - near 0.2: from beyond, towards each of 2 classes, for 15 steps
        - near 0.08: from the best point, short climbs and small windows in turns
        - near 0.15: cross-entropy
        - blind, or at a tie: cross-entropy; still blind: a black box
        - `max_passes` >= 400: near 0.35, cross-entropy; in sight, each of 5 classes for longer; every survivor, from
          beyond and by two climbs; near 0.2, windows while they help; scattered, climbs of 100 steps while the budget
          lasts
        - `max_passes` >= 2000: near 0.8, a black box briefly; near 0.15 and those it has moved, at length

    L2 and L0
        - all: a climb of 5 steps
        - in sight or torn: towards each of 3 classes; level: as inside Linf
        - every survivor: from afar, in a ball of 8 eps that shrinks to eps, towards the nearest class
        - out of sight: from afar again where they are known to fall not far outside, and from inside towards each of 2
        - blind, or at a tie: as inside Linf
        - out of sight, known to fall nearer yet: from afar towards the nearest class, and towards any
        - in sight, near 0.2, 0.1 and 0.05: climbs of 20, 40 and 60 steps
        - in sight or torn: towards each of 2 classes that can be reached by what their own gradients promise
        - `max_passes` >= 400: in sight, towards each of 5 classes, and where scattered for 100 steps; those known to
          fall within 1.5 eps, from afar while the budget lasts

    L1
        - all: 5 steps by corners of ball and box
        - where the margin bends: along the gradient itself, and in sight, from 2 eps; those whom that brings near 0.5
          climb by nothing else, near 0.3 towards each of the 2 classes whose own gradients promise most
        - out of sight: by corners from 20 eps; if scattered near 0.7, twice more, towards any class and the nearest;
          near 0.7, if out of sight yet, along the gradient itself from 2 eps
        - in sight, near 0.25 and 0.15, or torn: by corners from 3 eps, towards the 1st, 2nd and 3rd class by what their
          own gradients promise; level: so each of 9 above the rest
        - near 0.25 and 0.15: by ever fewer pixels, as in `APGD`
        - near 0.1: by corners from the best point
        - blind, or at a tie: as inside Linf
        - `max_passes` >= 400: near 0.5, along the gradient itself; scattered, while the budget lasts, by the kinds of
          climbs that they have had; in sight, by corners towards each of 5 classes

    Args:
        threat: what the attacker may do.
        max_passes: the most gradients that are taken for one sample, >= 1; most samples take far fewer. 200 answers
            quickly, 500 thoroughly, 2000 patiently. A black box makes 5 queries for each of them.

    Raises:
        ValueError: `max_passes` is below 1.

    Example:
        >>> report = evaluate(model, x, y, {"strongest": Strongest(threat=Linf(eps=8 / 255))})
    """

    supports = (Ball,)
    climbs_several_losses = True

    threat: Threat
    max_passes: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "max_passes")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        survivors = Survivors(self.threat, self.max_passes, model, x, y, rng)
        climbs = Climbs(survivors)
        first = min(8 if isinstance(self.threat, Linf) else 5, self.max_passes)
        if isinstance(self.threat, L1):
            climbs.by_corners(survivors.everyone, num_steps=first, factor=1, gain=_SMOOTH)
        else:
            climbs.inside(survivors.everyone, num_steps=first, momentum=0.25)
        self._past_saturation(survivors, climbs)
        if isinstance(self.threat, L1):
            self._inside_l1(survivors, climbs)
        elif isinstance(self.threat, Linf):
            self._inside_linf(survivors, climbs)
        else:
            self._inside_l2_or_l0(survivors, climbs)
        return survivors.best

    def _past_saturation(self, survivors: Survivors, climbs: Climbs) -> None:
        """Where units saturate, how little a climb has gained says little of what another will."""
        for rank in (None, *range(_NUM_SATURATED)):
            climbs.inside(survivors.saturated(), num_steps=12, gain=Gain(rank=rank, smooth=True, wide=True))
        if isinstance(self.threat, L1):
            climbs.densely(survivors.saturated(), num_steps=20, factor=_BEYOND)
        else:
            climbs.from_afar(survivors.saturated(), num_steps=20, factor=_BEYOND)

    # Below, the numbers given to `near` are shares of the first margin: the dearer what follows, the smaller.

    def _inside_linf(self, survivors: Survivors, climbs: Climbs) -> None:
        """From beyond a plateau the gradient towards a class leads back to where it wins; from inside it may not."""
        near = survivors.near
        climbs.inside(near(0.6), num_steps=12, gain=_SMOOTH)
        climbs.from_afar(near(0.35), num_steps=15, factor=_BEYOND, gain=Gain(rank=0))
        climbs.inside(near(0.15), num_steps=40, gain=_SMOOTH)
        survivors.ask_each_class(_in_sight_or_torn(survivors))
        for rank in range(_NUM_PROMISED):
            gain = Gain(rank=rank, promised=True, smooth=rank == 1)
            climbs.inside(_in_sight_or_torn(survivors), num_steps=5, gain=gain)
        _towards_each(survivors, climbs)
        for rank in range(_NUM_BEYOND):
            climbs.from_afar(near(0.2), num_steps=15, factor=_BEYOND, gain=Gain(rank=rank))
        rows = near(0.08)
        for _ in range(3):
            rows = climbs.refine(rows)
        climbs.the_likelihood(near(0.15), num_steps=_LIKELY_STEPS)
        self._without_gradients(survivors, climbs)
        if self.max_passes >= _THOROUGH:
            climbs.the_likelihood(near(0.35), num_steps=2 * _LIKELY_STEPS)
            for rank in range(_MORE_CLASSES):
                gain = Gain(rank=rank, promised=True, smooth=rank == 1)
                climbs.inside(near(_IN_SIGHT), num_steps=20, gain=gain)
            climbs.from_afar(near(torch.inf), num_steps=20, factor=_BEYOND)
            survivors.ends.forget()  # those of climbs of other lengths
            for _ in range(_NUM_SCATTERED):
                climbs.inside(near(torch.inf), num_steps=20, gain=_SMOOTH)
            rows = near(0.2)
            while len(rows):
                rows = climbs.refine(rows)
            gain = ANY
            while len(rows := survivors.affordable(survivors.scattered(_HOPE), num_steps=100)):
                climbs.inside(rows, num_steps=100, gain=gain)
                gain = ANY if gain is _SMOOTH else _SMOOTH
        if self.max_passes >= _PATIENT:
            self._with_patience(survivors, climbs)

    def _with_patience(self, survivors: Survivors, climbs: Climbs) -> None:
        """A black box, briefly for all that have given way; then at length for those nearest and those it has moved."""
        num_queries = QUERIES_PER_PASS * self.max_passes
        moved = climbs.search(survivors.near(0.8), num_queries=num_queries // 10)
        rows = torch.cat([moved, survivors.near(0.15)]).unique()
        climbs.search(rows, num_queries=num_queries // 2, share=_SHARE)
        climbs.search(rows, num_queries=num_queries // 2)

    def _without_gradients(self, survivors: Survivors, climbs: Climbs) -> None:
        """Where the margin's gradient leads nowhere, or only to a tie, that of the likelihood may; else a black box."""
        sight = Sight(survivors)
        blind = sight.blind(survivors.everyone)
        for rows in (blind, survivors.near(_TIE)):
            climbs.the_likelihood(rows, num_steps=_LIKELY_STEPS)
        climbs.search(sight.blind(blind), num_queries=QUERIES_PER_PASS * self.max_passes)

    def _inside_l1(self, survivors: Survivors, climbs: Climbs) -> None:
        """In L1 few pixels change, by as much as the box allows, but for those whom more of them bring near."""
        dense = _densely(survivors, climbs)
        hidden = without(survivors.near(torch.inf), torch.cat([survivors.near(_IN_SIGHT), dense]))

        def near(share: float) -> Tensor:
            return without(survivors.near(share), dense)

        # First who is out of sight, since some come into sight.
        climbs.by_corners(hidden, num_steps=15, factor=_FAR_CORNERS, gain=_SMOOTH)
        for num_steps, gain in ((15, _SMOOTH), (30, Gain(rank=0, smooth=True))):
            rows = among(survivors.scattered(_HOPE_AT_ONCE, within=0.7), hidden)
            climbs.by_corners(rows, num_steps=num_steps, factor=_FAR_CORNERS, gain=gain)
        climbs.densely(among(without(near(0.7), near(_IN_SIGHT)), hidden), num_steps=10, factor=2)
        survivors.ask_each_class(without(_in_sight_or_torn(survivors), dense))
        for rank, share in enumerate((_IN_SIGHT, 0.25, 0.15)):
            rows = without(_in_sight_or_torn(survivors, share), dense)
            gain = Gain(rank=rank, promised=True, smooth=True)
            climbs.by_corners(rows, num_steps=10, factor=_NEAR_CORNERS, gain=gain)
        for rank in range(_LEVEL_CLASSES):
            rows, gain = without(survivors.level(), dense), Gain(rank=rank, alone=True, smooth=True)
            climbs.by_corners(rows, num_steps=10, factor=_NEAR_CORNERS, gain=gain)
        climbs.sparsely(near(0.25), num_steps=15, loss=CrossEntropy())
        climbs.sparsely(near(0.15), num_steps=15, loss=Margin(), smooth=True)
        climbs.by_corners(near(0.1), num_steps=10, factor=None, gain=_SMOOTH)
        self._without_gradients(survivors, climbs)
        if self.max_passes >= _THOROUGH:
            _thoroughly_inside_l1(survivors, climbs, dense)

    def _inside_l2_or_l0(self, survivors: Survivors, climbs: Climbs) -> None:
        """In L2 and L0 a few pixels may change by much, and the way there need not begin inside eps."""
        for rank in range(_NUM_CLASSES):
            climbs.inside(_in_sight_or_torn(survivors), num_steps=10, gain=Gain(rank=rank))
        _towards_each(survivors, climbs)
        in_sight = survivors.near(_IN_SIGHT)

        def near(share: float) -> Tensor:
            return among(survivors.near(share), in_sight)

        def outside(factor: float) -> Tensor:
            return without(survivors.within(factor), in_sight)

        climbs.from_afar(survivors.near(torch.inf), num_steps=20, factor=_FAR, gain=Gain(rank=0, smooth=True))
        climbs.from_afar(outside(1.5), num_steps=30, factor=_FAR, gain=_SMOOTH)
        for rank in range(_NUM_HIDDEN):
            climbs.inside(outside(1.1), num_steps=10, gain=Gain(rank=rank, smooth=True))
        self._without_gradients(survivors, climbs)
        for gain in (Gain(rank=0, smooth=True), _SMOOTH):
            climbs.from_afar(outside(1.25), num_steps=30, factor=_FAR, gain=gain)
        climbs.inside(near(0.2), num_steps=20, gain=SHARP)
        climbs.inside(near(0.1), num_steps=40, gain=Gain(rank=0))
        climbs.inside(near(0.05), num_steps=60, gain=SHARP)
        survivors.ask_each_class(_in_sight_or_torn(survivors))
        for rank in range(_NUM_PROMISED):
            climbs.inside(survivors.promising(rank), num_steps=10, gain=Gain(rank=rank, promised=True))
        if self.max_passes >= _THOROUGH:
            for rank in range(_MORE_CLASSES):
                climbs.inside(survivors.standing(in_sight), num_steps=20, gain=Gain(rank=rank, smooth=rank == 1))
            hopeful = survivors.scattered(_HOPE_AT_ONCE, within=0.1)
            climbs.inside(among(hopeful, in_sight), num_steps=100, gain=Gain(rank=0))
            while len(rows := survivors.affordable(survivors.within(1.5), num_steps=60)):
                climbs.from_afar(rows, num_steps=30, factor=_FAR, gain=_SMOOTH)
                climbs.from_afar(survivors.standing(rows), num_steps=30, factor=None)


def _in_sight_or_torn(survivors: Survivors, share: float = _IN_SIGHT) -> Tensor:
    """Those who may fall to one class alone: the nearest to any, and whom the nearest lead away from others."""
    return torch.cat([survivors.near(share), survivors.torn()]).unique()


def _towards_each(survivors: Survivors, climbs: Climbs) -> None:
    """Where the logits say of no class that it is near, each is as likely as another to be reached."""
    for rank in range(_LEVEL_CLASSES):
        climbs.inside(survivors.level(), num_steps=10, gain=Gain(rank=rank, alone=True, smooth=True))


def _densely(survivors: Survivors, climbs: Climbs) -> Tensor:
    """Where the margin bends, more pixels by less: the survivors whom that brings near, int64 `(M,)`."""
    dense = climbs.densely(survivors.bent(), num_steps=20, factor=1)
    climbs.densely(among(survivors.near(_IN_SIGHT), dense), num_steps=30, factor=2)
    dense = among(survivors.near(_BROUGHT_NEAR), dense)
    survivors.ask_each_class(among(survivors.near(0.3), dense))
    for rank in range(_NUM_PROMISED):
        rows, gain = among(survivors.near(0.3), dense), Gain(rank=rank, promised=True)
        climbs.densely(rows, num_steps=15, factor=1, gain=gain)
    return dense


def _thoroughly_inside_l1(survivors: Survivors, climbs: Climbs, dense: Tensor) -> None:
    """First who has not climbed along the gradient yet, then who climbs by nothing else, `dense`, then all others."""
    brought_on = climbs.densely(without(survivors.near(_BROUGHT_NEAR), dense), num_steps=30, factor=2)
    in_sight = without(survivors.near(_IN_SIGHT), dense)
    climbs.densely(among(in_sight, brought_on), num_steps=40, factor=3, pixels_per_eps=15)
    hopeful = partial(survivors.scattered, _HOPE_AT_ONCE, within=0.7)
    while len(rows := survivors.affordable(among(hopeful(), dense), num_steps=100)):
        climbs.densely(rows, num_steps=40, factor=2)
        climbs.densely(survivors.standing(rows), num_steps=60, factor=3, pixels_per_eps=15)
    gain = _SMOOTH
    while len(rows := survivors.affordable(without(survivors.scattered(_HOPE), dense), num_steps=75)):
        climbs.sparsely(rows, num_steps=15, loss=CrossEntropy(), smooth=gain.smooth)
        climbs.sparsely(survivors.standing(rows), num_steps=15, loss=Margin(), smooth=gain.smooth)
        climbs.by_corners(survivors.standing(rows), num_steps=30, factor=_FAR_CORNERS, gain=gain)
        climbs.by_corners(survivors.standing(rows), num_steps=15, factor=None, gain=gain)
        gain = ANY if gain is _SMOOTH else _SMOOTH
    for rank in range(_MORE_CLASSES):
        rows, gain = without(survivors.near(_IN_SIGHT), dense), Gain(rank=rank, promised=True, smooth=rank % 2 == 0)
        climbs.by_corners(rows, num_steps=20, factor=_NEAR_CORNERS, gain=gain)
