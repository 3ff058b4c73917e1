"""`Saturation`: how many tanh, sigmoid and relu units of each layer are where their slope is next to nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from touchstone.options import check_between

from .parts.passes.measuring import measuring
from .parts.passes.no_pass import is_to_measure
from .parts.passes.processes import gather
from .parts.passes.samples import Samples
from .parts.passes.watched_units import has_units, watched_units
from .probe import Probe

_NO_UNITS = (
    "Saturation: the model has no tanh, sigmoid or relu that is a module of its own, such as nn.ReLU; those that its "
    "forward calls as functions, that `torch.compile` hides, and others, such as gelu, are not measured"
)


@dataclass(frozen=True)
class Flat:
    """How often the units of a layer were flat: the number of times, of how many, and which of them ever were not."""

    num_flat: int
    num_seen: int
    ever_steep: Tensor

    def __add__(self, other: Flat) -> Flat:
        steep = self.ever_steep | other.ever_steep
        return Flat(self.num_flat + other.num_flat, self.num_seen + other.num_seen, steep)


class Saturation(Probe):
    """Logs the share of saturated units, per layer, on the samples of each validation and test pass.

    A tanh is saturated where its absolute value exceeds `threshold`, a sigmoid where it is as near to 0 or 1
    (`|2 s - 1|`), a relu where it is 0. With S for val or test: `saturation/S/LAYER`, the share of all outputs that are
    saturated, and `saturation/S/LAYER/dead`, the share of units that were so for every sample. Units of a convolution
    are its channels, of all else the entries of the last axis. Padding, as `RealSteps` knows it, does not count. A
    module that is called with several numbers of units is a layer for each, `LAYER/64` and `LAYER/256`; calls with the
    same number count as one layer, a unit of it being dead where it is so in all of them.

    It looks at modules `nn.Tanh`, `nn.Sigmoid` and `nn.ReLU`, at the relu of a `FeedForward`, at the neurons of a
    `GraphNet` that others read, after its last step, and inside `RNN`, `LSTM` and `GRU` of `touchstone.nets`, whose
    gates are layers of their own such as `net.recurrent.l0.f`. It passes the samples
    through the model once more, which is why it measures the first 128 of them, unless told otherwise.

    Args:
        threshold: of the absolute value of a tanh, in (0, 1).
        max_samples: measure only the first samples of the dataset, >= 1; None for all.
        every_n_epochs, normalization, batch_keys: as in `Probe`.

    Raises:
        ValueError: a value is outside its range; or the model has no such units.
    """

    tried_by_measuring = True

    def __init__(self, *, threshold: float = 0.97, max_samples: int | None = 128, **kwargs: Any) -> None:
        super().__init__(max_samples=max_samples, **kwargs)
        check_between("Saturation(threshold=...)", threshold, 0, 1, "()")
        self.threshold = threshold
        self._counted: dict[int, dict[tuple[str, int], Flat]] = {}  # by data loader; by name and number of units

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_to_measure(trainer) and not has_units(pl_module):
            raise ValueError(_NO_UNITS)

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        counted = self._counted.setdefault(loader_index, {})

        def keep(layer: str, kind: str, values: Tensor) -> None:
            times = self.is_flat(kind, values).sum(0, dtype=torch.int32).cpu()  # of each unit
            now = Flat(int(times.sum()), values.numel(), times < len(values))
            key = layer, len(times)
            counted[key] = counted[key] + now if key in counted else now

        with measuring(model, samples) as (x, _), torch.no_grad(), watched_units(model, keep):
            model(x)
        if not counted:
            raise ValueError(_NO_UNITS)

    def is_flat(self, kind: str, values: Tensor) -> Tensor:
        """Which outputs of units of a kind, `"tanh"`, `"sigmoid"` or `"relu"`, are saturated: bool like `values`."""
        if kind == "relu":
            return values <= 0
        return (values if kind == "tanh" else 2 * values - 1).abs() > self.threshold

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        of_all: dict[tuple[str, int], Flat] = {}
        for counted in gather(self._counted.pop(loader_index, {})):
            for key, flat in counted.items():
                of_all[key] = of_all[key] + flat if key in of_all else flat
        num_widths = Counter(layer for layer, _ in of_all)
        for (layer, num_units), flat in of_all.items():
            dead = float((~flat.ever_steep).double().mean())
            tag = f"saturation/{stage}/{layer}" + (f"/{num_units}" if num_widths[layer] > 1 else "")
            self.log_figure(trainer, module, tag, flat.num_flat / max(1, flat.num_seen), loader_index)
            self.log_figure(trainer, module, f"{tag}/dead", dead, loader_index)

    def logs(self, tag: str) -> bool:
        return tag.startswith("saturation/val/")

    def forget(self) -> None:
        super().forget()
        self._counted.clear()
