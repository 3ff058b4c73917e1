"""`spared_from_decay`: the parameters that weight decay should leave alone.

Decay of a normalization's scale, or of a bias, regularizes nothing; Goyal et al., "Accurate, large minibatch SGD",
2017, section 3, and He et al., "Bag of tricks", 2019, section 3.1, leave both out.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORMALIZATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
"""The types that count as normalization: of BatchNorm and InstanceNorm, every kind. A name would not tell: that of the
BatchNorm in a ResNet's shortcut is `downsample.1`."""


def spared_from_decay(layer: nn.Module, name: str) -> bool:
    """Whether a parameter of the layer's own, by its name there, belongs to a normalization or is a bias."""
    return isinstance(layer, NORMALIZATIONS) or "bias" in name
