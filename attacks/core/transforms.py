"""`inside_a_transform`: whether the tensors of a model are those that it was given."""

from __future__ import annotations

import torch


def inside_a_transform() -> bool:
    """Whether a transform of `torch.func` runs, as `vmap` or `grad`.

    There a tensor may lack the axis of the samples, and an `autograd.Function` needs rules for each transform.
    """
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
