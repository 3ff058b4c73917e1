"""LightningModules: loss, optimizer and metrics around a net; `adversarial_training/` holds the ways to learn."""

from .adversarial_training import (
    AWP,
    FGSMRS,
    MART,
    PGDAT,
    TRADES,
    Criterion,
    EpsWarmup,
    Free,
    InnerAttack,
    Learned,
    Mixed,
    Strategy,
)
from .classifier import Classifier
from .language_model import LanguageModel
from .parameter_groups import weight_decay_groups
from .warmup_cosine import WarmupCosine

__all__ = [
    "AWP",
    "FGSMRS",
    "MART",
    "PGDAT",
    "TRADES",
    "Classifier",
    "Criterion",
    "EpsWarmup",
    "Free",
    "InnerAttack",
    "LanguageModel",
    "Learned",
    "Mixed",
    "Strategy",
    "WarmupCosine",
    "weight_decay_groups",
]
