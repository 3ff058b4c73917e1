"""Pure torch, no Lightning: networks and layers, one model a file."""

from .normalize import Normalize
from .small_cnn import SmallCNN
from .trained import Trained

__all__ = ["Normalize", "SmallCNN", "Trained"]
