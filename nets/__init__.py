"""Pure torch, no Lightning: networks and layers, one model a file."""

from .attention import Attention
from .cifar_resnet import CifarResNet
from .handmade import HandmadeNet
from .imagenet import EfficientNetLite0, TorchvisionNet
from .language import RecurrentLM, TransformerLM
from .normalize import Normalize
from .public_checkpoint import PublicCheckpoint
from .recurrent import GRU, LSTM, RNN
from .set_classifier import SetClassifier
from .small_cnn import SmallCNN
from .text_classifier import TextClassifier
from .trained import Trained
from .transformer import TransformerBlock

__all__ = [
    "Attention",
    "CifarResNet",
    "EfficientNetLite0",
    "GRU",
    "HandmadeNet",
    "LSTM",
    "Normalize",
    "PublicCheckpoint",
    "RNN",
    "RecurrentLM",
    "SetClassifier",
    "SmallCNN",
    "TextClassifier",
    "TorchvisionNet",
    "Trained",
    "TransformerBlock",
    "TransformerLM",
]
