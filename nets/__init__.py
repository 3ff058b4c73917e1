"""Pure torch, no Lightning: networks and layers, one model a file."""

from .attention import Attention
from .language import RecurrentLM, TransformerLM
from .normalize import Normalize
from .recurrent import GRU, LSTM, RNN
from .set_classifier import SetClassifier
from .small_cnn import SmallCNN
from .trained import Trained
from .transformer import TransformerBlock

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Attention",
    "Normalize",
    "RecurrentLM",
    "SetClassifier",
    "SmallCNN",
    "Trained",
    "TransformerBlock",
    "TransformerLM",
]
