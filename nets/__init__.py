"""Pure torch, no Lightning: networks and layers, one model a file."""

from .adapted import AdaptedNet
from .airbench import AirbenchNet
from .all_conv import AllConvNet
from .attention import Attention
from .cifar_resnet import CifarResNet
from .faster import Faster
from .graph import GraphNet
from .handmade import HandmadeNet
from .imagenet import EfficientNetLite0, TorchvisionNet
from .language import RecurrentLM, TransformerLM
from .low_rank import low_rank
from .mlp import MLP
from .new_head import NewHead
from .normalize import Normalize, Normalized
from .preact_resnet import PreActResNet
from .public_checkpoint import PublicCheckpoint
from .recurrent import GRU, LSTM, RNN
from .resnet2b import ResNet2b
from .resnet9 import ResNet9
from .set_classifier import SetClassifier
from .small_cnn import SmallCNN
from .text_classifier import TextClassifier
from .thin_resnet import ThinResNet
from .trained import Trained
from .transformer import TransformerBlock
from .untrained import untrained
from .wide_resnet import WideResNet

__all__ = [
    "AdaptedNet",
    "AirbenchNet",
    "AllConvNet",
    "Attention",
    "CifarResNet",
    "EfficientNetLite0",
    "Faster",
    "GRU",
    "GraphNet",
    "HandmadeNet",
    "LSTM",
    "MLP",
    "NewHead",
    "Normalize",
    "Normalized",
    "PreActResNet",
    "PublicCheckpoint",
    "RNN",
    "RecurrentLM",
    "ResNet2b",
    "ResNet9",
    "SetClassifier",
    "SmallCNN",
    "TextClassifier",
    "ThinResNet",
    "TorchvisionNet",
    "Trained",
    "TransformerBlock",
    "TransformerLM",
    "WideResNet",
    "low_rank",
    "untrained",
]
