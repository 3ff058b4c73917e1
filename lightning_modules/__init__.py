"""LightningModules: loss, optimizer and metrics around a net; `adversarial_training/` holds the ways to learn."""

from .adversarial_training import PGDAT, Strategy
from .classifier import Classifier
from .language_model import LanguageModel
from .warmup_cosine import WarmupCosine

__all__ = ["PGDAT", "Classifier", "LanguageModel", "Strategy", "WarmupCosine"]
