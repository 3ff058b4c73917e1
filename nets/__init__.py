"""Pure torch, no Lightning: networks and layers, one model a file."""

from .normalize import Normalize
from .small_cnn import SmallCNN

__all__ = ["Normalize", "SmallCNN"]
