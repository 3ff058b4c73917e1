"""LightningModules: loss, optimizer and metrics around a net; `adversarial_training/` holds the ways to learn."""

from .adversarial_training import PGDAT, Strategy
from .classifier import Classifier

__all__ = ["PGDAT", "Classifier", "Strategy"]
