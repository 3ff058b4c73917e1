"""`weight_decay_groups`: the parameters that weight decay should shrink, and those that it should leave alone.

Decay of a normalization's scale, or of a bias, regularizes nothing; Goyal et al., "Accurate, large minibatch SGD",
2017, section 3, and He et al., "Bag of tricks", 2019, section 3.1, leave both out.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORMALIZATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
"""The types that count as normalization: of BatchNorm and InstanceNorm, every kind. A name would not tell: that of the
BatchNorm in a ResNet's shortcut is `downsample.1`."""


def weight_decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Groups of the trained parameters for an optimizer: those it decays as it is told, and those without decay.

    Args:
        module: its parameters with `requires_grad`; each once, wherever it is shared.

    Returns:
        One or two groups: the first without options, the second with a `weight_decay` of 0: what belongs to a
        normalization, by the type of the module, and every bias.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    seen = set()
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            is_spared = isinstance(part, NORMALIZATIONS) or "bias" in name
            (spared if is_spared else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
