"""Where images and their classes come from: one source a file, each read split by split."""

from .image_tree import ImageTree
from .npz_images import NpzImages
from .source import Labelled, Source, Split
from .torchvision_images import TorchvisionImages

__all__ = ["ImageTree", "Labelled", "NpzImages", "Source", "Split", "TorchvisionImages"]
