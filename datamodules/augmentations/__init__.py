"""What changes training images, on batches and on the device; `augment` of `ImagesDataModule` takes them."""

from .crop_and_flip import RandomCrop, RandomFlip
from .distort import DISTORTIONS, Distort, Distortion
from .each_image import EachImage

__all__ = ["DISTORTIONS", "Distort", "Distortion", "EachImage", "RandomCrop", "RandomFlip"]
