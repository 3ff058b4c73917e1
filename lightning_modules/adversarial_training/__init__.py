"""Ways for a classifier to learn: one strategy a file, each a loss from a batch."""

from .awp import AWP
from .eps_warmup import EpsWarmup
from .fgsm_rs import FGSMRS
from .free import Free
from .inner_attack import InnerAttack
from .mart import MART
from .mixed import Mixed
from .pgd_at import PGDAT
from .strategy import Criterion, Learned, Strategy
from .trades import TRADES

__all__ = [
    "AWP",
    "FGSMRS",
    "MART",
    "PGDAT",
    "TRADES",
    "Criterion",
    "EpsWarmup",
    "Free",
    "InnerAttack",
    "Learned",
    "Mixed",
    "Strategy",
]
