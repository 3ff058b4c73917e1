"""Pure torch, no Lightning: attacks, what they may do, what they want, and the judge that measures them.

One attack a file in this folder; `core/` holds what they are made of, `threats/` and `objectives/` their choices,
`judge/` what runs them and trusts none.
"""

from .carlini_wagner import CarliniWagner
from .core.ascend import ascend
from .core.attack import Attack
from .core.frozen_eval import frozen_eval
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .deepfool import DeepFool
from .ead import EAD
from .fgsm import FGSM
from .gaussian_noise import GaussianNoise
from .hop_skip_jump import HopSkipJump
from .judge.evaluate import evaluate
from .judge.meter import Cost
from .judge.report import Report
from .l1_adam import L1Adam
from .mifgsm import MIFGSM
from .objectives.losses import CrossEntropy, Loss, Margin
from .objectives.targeted import Targeted
from .objectives.untargeted import Untargeted
from .pgd import PGD
from .random_noise import RandomNoise
from .smallest_eps import robustness_curve, smallest_eps
from .strongest import Strongest
from .threats.l0 import L0
from .threats.l1 import L1
from .threats.l2 import L2
from .threats.linf import Linf

__all__ = [
    "CarliniWagner",
    "DeepFool",
    "EAD",
    "GaussianNoise",
    "HopSkipJump",
    "L1Adam",
    "MIFGSM",
    "robustness_curve",
    "smallest_eps",
    "FGSM",
    "L0",
    "L1",
    "L2",
    "PGD",
    "Attack",
    "Cost",
    "CrossEntropy",
    "Linf",
    "Loss",
    "Margin",
    "Objective",
    "RandomNoise",
    "Report",
    "SampleRng",
    "Strongest",
    "Targeted",
    "Threat",
    "Untargeted",
    "ascend",
    "evaluate",
    "frozen_eval",
]
