"""LightningModules: loss, optimizer and metrics around a net."""

from .classifier import Classifier

__all__ = ["Classifier"]
