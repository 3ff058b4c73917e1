"""Pure torch, no Lightning: networks and layers, one model a file."""

from .cifar_resnet import CifarResNet
from .handmade import HandmadeNet
from .imagenet import EfficientNetLite0, TorchvisionNet
from .normalize import Normalize
from .public_checkpoint import PublicCheckpoint
from .small_cnn import SmallCNN
from .trained import Trained

__all__ = [
    "CifarResNet",
    "EfficientNetLite0",
    "HandmadeNet",
    "Normalize",
    "PublicCheckpoint",
    "SmallCNN",
    "TorchvisionNet",
    "Trained",
]
