"""Pure torch, no Lightning: attacks, what they may do, what they want, and the judge that measures them.

One attack a file in this folder; `core/` holds what they are made of, `threats/` and `objectives/` their choices,
`judge/` what runs them and trusts none.
"""

from .apgd import APGD
from .autoattack import AutoAttack
from .core.ascend import ascend
from .core.attack import Attack
from .core.frozen_eval import frozen_eval
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .fab import FAB
from .fgsm import FGSM
from .judge.evaluate import evaluate
from .judge.meter import Cost
from .judge.report import Report
from .objectives.losses import DLR, CrossEntropy, Loss, Margin, ProbabilityMargin
from .objectives.targeted import Targeted
from .objectives.towards import Towards
from .objectives.untargeted import Untargeted
from .pgd import PGD
from .random_noise import RandomNoise
from .square import Square
from .strongest import Strongest
from .threats.l0 import L0
from .threats.l1 import L1
from .threats.l2 import L2
from .threats.linf import Linf
from .warm_started import WarmStarted

__all__ = [
    "APGD",
    "DLR",
    "FAB",
    "FGSM",
    "L0",
    "L1",
    "L2",
    "PGD",
    "Attack",
    "AutoAttack",
    "Cost",
    "CrossEntropy",
    "Linf",
    "Loss",
    "Margin",
    "Objective",
    "ProbabilityMargin",
    "RandomNoise",
    "Report",
    "SampleRng",
    "Square",
    "Strongest",
    "Targeted",
    "Threat",
    "Towards",
    "Untargeted",
    "WarmStarted",
    "ascend",
    "evaluate",
    "frozen_eval",
]
