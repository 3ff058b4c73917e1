"""`AxisOfLayer`: along which axis the units lie that an activation is computed of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence

from touchstone.nets.recurrent import Recurrent


class AxisOfLayer:
    """Along which axis the last layer with a weight wrote its units: the second for convolutions, else the last.

    It watches the layers of a model from when it is made until `let_go`, and changes nothing in one that trains.
    """

    def __init__(self, model: nn.Module) -> None:
        self._axis_of: dict[int, int] = {}  # by the number of axes: what is reshaped is no longer that layer's
        self._handles = []
        for module in model.modules():
            # Norms, whose weight has one axis, leave units where they are.
            num_axes = _num_axes_of_weight(module)
            if num_axes > 1 or isinstance(module, (Recurrent, nn.RNNBase, nn.MultiheadAttention)):
                is_convolution = num_axes > 2 and not isinstance(module, nn.Bilinear)
                self._handles.append(module.register_forward_hook(self._see(1 if is_convolution else -1)))

    def __call__(self, values: Tensor) -> int:
        """The axis of what is computed of the last layer's output, `(N, ...)`, element by element."""
        return self._axis_of.get(values.ndim, -1 if values.ndim == 3 else 1)

    def let_go(self) -> None:
        """Watches no more."""
        for handle in self._handles:
            handle.remove()

    def _see(self, axis: int) -> Callable[..., None]:
        def look(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, PackedSequence):
                self._axis_of = {3: axis}  # when it is unpacked
            elif isinstance(first, Tensor):
                self._axis_of = {first.ndim: axis}

        return look


def _num_axes_of_weight(module: nn.Module) -> int:
    """How many axes the weight of a layer has, 0 where there is none."""
    if is_parametrized(module, "weight"):  # to compute it may change what it is computed from, as by `spectral_norm`
        stored = module.get_submodule("parametrizations.weight").parameters()
        return max((parameter.ndim for parameter in stored), default=0)
    return getattr(getattr(module, "weight", None), "ndim", 0)
