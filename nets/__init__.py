"""Pure torch, no Lightning: networks and layers, one model a file."""

from .normalize import Normalize
from .recurrent import GRU, LSTM, RNN
from .small_cnn import SmallCNN
from .trained import Trained

__all__ = ["GRU", "LSTM", "RNN", "Normalize", "SmallCNN", "Trained"]
