"""Pure torch, no Lightning: networks and layers, one model a file."""

from .handmade import HandmadeNet
from .normalize import Normalize
from .small_cnn import SmallCNN
from .trained import Trained

__all__ = ["HandmadeNet", "Normalize", "SmallCNN", "Trained"]
