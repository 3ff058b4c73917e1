"""LightningModules: loss, optimizer and metrics around a net."""

from .classifier import Classifier
from .language_model import LanguageModel
from .warmup_cosine import WarmupCosine

__all__ = ["Classifier", "LanguageModel", "WarmupCosine"]
