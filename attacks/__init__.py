"""Pure torch, no Lightning: attacks, what they may do, what they want, and the judge that measures them.

In this folder every attack has a file of its name; beside them stand `smallest_eps.py` (how large an eps an attack
needs) and `dream.py`. `core/` holds what all are made of, `parts/` what some share, `threats/` and `objectives/` their
choices, `cascade/` what `strongest.py` chooses from, and by what, `dreaming/` what dreams are made of, `judge/` what
runs attacks and trusts none.
"""

from .apgd import APGD
from .autoattack import AutoAttack
from .carlini_wagner import CarliniWagner
from .core.ascend import ascend
from .core.attack import Attack
from .core.attack_sequence import attack_in_sequence
from .core.frozen_eval import frozen_eval
from .core.gain import gain_of
from .core.logits import predicted
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .deepfool import DeepFool
from .dream import dream
from .ead import EAD
from .fab import FAB
from .feature_distance import FeatureDistance
from .fgsm import FGSM
from .gaussian_noise import GaussianNoise
from .hop_skip_jump import HopSkipJump
from .hot_flip import HotFlip
from .in_bfloat16 import InBfloat16
from .judge.evaluate import evaluate
from .judge.evaluate_language import evaluate_language
from .judge.language_report import LanguageReport
from .judge.meter import Cost
from .judge.report import Report
from .l1_adam import L1Adam
from .mifgsm import MIFGSM
from .objectives.any_of import AnyOf
from .objectives.losses import DLR, CrossEntropy, Loss, Margin, ProbabilityMargin
from .objectives.next_token import NextToken
from .objectives.surprise import Surprise
from .objectives.targeted import Targeted
from .objectives.towards import Towards
from .objectives.untargeted import Untargeted
from .pgd import PGD
from .random_flips import RandomFlips
from .random_noise import RandomNoise
from .smallest_eps import robustness_curve, smallest_eps
from .square import Square
from .strongest import Strongest
from .surrogate import Surrogate
from .threats.ball import Ball
from .threats.embedding_ball import EmbeddingBall
from .threats.l0 import L0
from .threats.l1 import L1
from .threats.l2 import L2
from .threats.linf import Linf
from .threats.token_flips import TokenFlips
from .transfer import Transfer
from .universal import Universal
from .warm_started import WarmStarted

__all__ = [
    "APGD",
    "AnyOf",
    "DLR",
    "FAB",
    "CarliniWagner",
    "DeepFool",
    "EAD",
    "EmbeddingBall",
    "FeatureDistance",
    "GaussianNoise",
    "HopSkipJump",
    "HotFlip",
    "InBfloat16",
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
    "AutoAttack",
    "Ball",
    "Cost",
    "CrossEntropy",
    "LanguageReport",
    "Linf",
    "Loss",
    "Margin",
    "NextToken",
    "Objective",
    "ProbabilityMargin",
    "RandomFlips",
    "RandomNoise",
    "Report",
    "SampleRng",
    "Square",
    "Strongest",
    "Surprise",
    "Surrogate",
    "Targeted",
    "Threat",
    "TokenFlips",
    "Towards",
    "Transfer",
    "Universal",
    "Untargeted",
    "WarmStarted",
    "ascend",
    "attack_in_sequence",
    "dream",
    "evaluate",
    "evaluate_language",
    "frozen_eval",
    "gain_of",
    "predicted",
]
