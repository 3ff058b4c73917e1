"""Pure torch, no Lightning: networks and layers, one model a file."""

from .handmade import HandmadeNet
from .imagenet import EfficientNetLite0, TorchvisionNet
from .normalize import Normalize
from .small_cnn import SmallCNN
from .trained import Trained

__all__ = ["EfficientNetLite0", "HandmadeNet", "Normalize", "SmallCNN", "TorchvisionNet", "Trained"]
