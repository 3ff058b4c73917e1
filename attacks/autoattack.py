"""`AutoAttack`: four attacks without parameters, each on the samples that still stand.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", 2020; for L1, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", 2021. The numbers
are those of the authors' code, https://github.com/fra31/auto-attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from touchstone.options import check_choice, check_counts

from .apgd import APGD
from .core.attack import Attack
from .core.attack_sequence import attack_in_sequence
from .core.gain import gain_of
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .fab import FAB
from .objectives.losses import DLR
from .objectives.untargeted import Untargeted
from .square import Square
from .threats.l1 import L1
from .threats.l2 import L2
from .threats.linf import Linf

Version = Literal["standard", "plus", "rand"]

_NUM_DRAWS = 20  # of a model that draws random numbers


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """The ensemble that leaderboards report: untargeted, its attacks in a fixed order.

    Unlike the original, a sample leaves as soon as it falls, and its noise is its own: a verdict is the same in any
    batch.

    Args:
        threat: what the attacker may do; Linf, L2 or L1.
        version: `"standard"`; `"plus"`, with more attacks and restarts; or `"rand"`, for models that draw random
            numbers (gradients averaged over 20 forwards).
        num_steps: steps of each APGD and FAB, >= 1; 100 is AutoAttack.
        num_queries: queries of Square, >= 1; 5000 is AutoAttack.

    Raises:
        ValueError: a value is outside its range; or, when it meets the model, that has fewer than 4 classes (3 for
            `"rand"`), where the loss of APGD is not defined, or the samples are no images, which Square needs.

    Example:
        >>> report = evaluate(model, x, y, {"autoattack": AutoAttack(threat=Linf(eps="8/255"))})
    """

    supports: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)
    climbs_several_losses = True
    threat: Threat
    version: Version = "standard"
    num_steps: int = 100
    num_queries: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_steps", "num_queries")
        check_choice("AutoAttack(version=...)", self.version, get_args(Version))
        object.__setattr__(self, "num_eot_samples", _NUM_DRAWS if self.version == "rand" else 1)

    def attacks(self) -> list[Attack]:
        """What is run, in this order."""
        threat, num_steps, many = self.threat, self.num_steps, 5
        dlr = Untargeted(loss=DLR())
        is_l1 = isinstance(threat, L1)
        if self.version == "rand":
            return [
                APGD(threat=threat, num_steps=num_steps, num_eot_samples=_NUM_DRAWS),
                APGD(threat=threat, num_steps=num_steps, num_eot_samples=_NUM_DRAWS, objective=dlr),
            ]
        square = Square(threat=threat, num_queries=self.num_queries, schedule_queries=2 * self.num_queries)
        fab_t = FAB(threat=threat, num_steps=num_steps, num_targets=9)
        if self.version == "plus":
            return [
                APGD(threat=threat, num_steps=num_steps, num_restarts=many),
                APGD(threat=threat, num_steps=num_steps, num_restarts=many, objective=dlr),
                FAB(threat=threat, num_steps=num_steps, num_restarts=many),
                square,
                APGD(threat=threat, num_steps=num_steps, num_targets=9, objective=dlr),
                fab_t,
            ]
        return [
            APGD(threat=threat, num_steps=num_steps, num_restarts=many if is_l1 else 1),
            APGD(threat=threat, num_steps=num_steps, num_targets=many if is_l1 else 9, objective=dlr),
            fab_t,
            square,
        ]

    def check_classes(self, num_classes: int) -> None:
        least = DLR.min_classes if self.version == "rand" else DLR.min_classes_towards
        if num_classes < least:
            raise ValueError(
                f"AutoAttack(version={self.version!r}) needs a model of {least} classes or more, for its loss DLR, "
                f"this one has {num_classes}; Strongest works for any number"
            )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        if x.ndim != 4 and self.version != "rand":  # said before the others have run, and not only if one stands
            raise ValueError(
                f"AutoAttack(version={self.version!r}) needs images `(N, C, H, W)`, for its Square, got the shape "
                f"{tuple(x.shape)}; Strongest works for any"
            )
        return attack_in_sequence(self.attacks(), gain_of(model, self.objective, y), model, x, y, rng)
