"""`StandardAgainstRobust`: the same done to two nets or more, side by side, and how smooth the changes are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.attacks import Attack, SampleRng, Targeted, dream
from touchstone.attacks.core.ascend import gradient_of
from touchstone.attacks.dreaming.layers import select
from touchstone.options import check_between, check_count
from touchstone.runs.of_trainer import of_data
from touchstone.runs.run_folder import run_folder

from .parts.measures.low_frequency import low_frequency_share, share_of_white_noise
from .parts.names.class_by_name import check_class, class_by_name
from .parts.names.dream_options import check_dream_options, try_dream
from .parts.passes.loaders import loader_suffix
from .parts.passes.measuring import measuring
from .parts.passes.on_device import on_device
from .parts.passes.samples import Samples
from .parts.passes.try_out import GreyPicture
from .parts.pictures.side_by_side import DoneTo, first, side_by_side
from .parts.records.publish import publish_picture
from .probe import Probe

TAG = "standard_against_robust"


class StandardAgainstRobust(Probe):
    """Compares the model with other nets by a targeted ascent, a dream of a layer, and input gradients.

    Logs `S/low_frequency/NET/KIND`: how much of the energy of a change lies at low frequencies, the mean over the
    samples that changed at all, for the kinds `ascent`, `dream` and `gradient` (of the cross-entropy); nothing where
    none did. The picture `standard_against_robust` shows the first samples. The changes of a net that was trained to be
    robust follow the picture (Tsipras et al., "Robustness may be at odds with accuracy", 2019, section 3).

    Args:
        beside: the other nets by name, from pixels in [0, 1] to logits.
        attack: the ascent; its objective becomes `Targeted(target)`. Every net meets the same.
        target: the class that is climbed, by its number, its name or a part of its name.
        layers: the layer that each net dreams of, by the net's name, written as in `dream`.
        name: what the model itself is called.
        options: those of `dream`, by name.
        cutoff: in cycles a pixel, in (0, 0.5]: energy at frequencies up to it counts as low.
        num_pictures: samples in the picture, >= 1.
        max_samples: samples that are measured; None for all.
        every_n_epochs, normalization, batch_keys: as in `Probe`.

    Raises:
        ValueError: a value is outside its range, or a net lacks its layer.
    """

    depends_on_ids = True
    stand_in = GreyPicture()

    def __init__(
        self,
        beside: Mapping[str, nn.Module],
        *,
        attack: Attack,
        target: str | int,
        layers: Mapping[str, str],
        name: str = "standard",
        options: Mapping[str, Any] | None = None,
        cutoff: float = 0.25,
        num_pictures: int = 4,
        max_samples: int | None = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_samples=max_samples, **kwargs)
        call = "StandardAgainstRobust"
        if not beside or name in beside:
            raise ValueError(
                f"{call}(beside=...) must name other nets than {name!r}, got {', '.join(beside) or 'none'}"
            )
        if set(layers) != {name, *beside}:
            raise ValueError(
                f"{call}(layers=...) must name a layer for each of {', '.join([name, *beside])}, "
                f"got {', '.join(layers) or 'none'}"
            )
        check_dream_options(f"{call}(options=...)", options or {})
        check_between(f"{call}(cutoff=...)", cutoff, 0, 0.5, "(]")
        check_class(f"{call}(target=...)", target)
        check_count(f"{call}(num_pictures=...)", num_pictures)
        self.name, self.beside, self.layers = name, dict(beside), dict(layers)
        self.attack, self.target, self.options = attack, target, dict(options or {})
        self.cutoff, self.num_pictures = cutoff, num_pictures
        self._number = 0
        self._class_names: Sequence[str] | None = None
        self._shown: dict[int, dict[str, list[DoneTo]]] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._class_names = of_data(trainer, "class_names")
        self._number = class_by_name(self.target, self._class_names, "StandardAgainstRobust(target=...)")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A wrong name of a layer is better said before training."""
        for name, net in {self.name: pl_module, **self.beside}.items():
            select(net, self.layers[name], option="StandardAgainstRobust(layers=...)")

    on_validation_start = on_test_start = on_fit_start

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        for name, net in {self.name: model, **self.beside}.items():
            try_dream(on_device(net, samples.x.device), self.layers[name], samples.x, self.options)

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        shown = self._shown.setdefault(loader_index, {})
        measured: dict[str, Tensor] = {}
        for name, net in {self.name: model, **self.beside}.items():
            done = self._done_to(on_device(net, samples.x.device), name, samples)
            measured |= {f"low_frequency/{name}/{kind}": share for kind, share in done.low.items()}
            parts = shown.setdefault(name, [])
            if sum(len(part.label) for part in parts) < self.num_pictures:
                parts.append(first([done], self.num_pictures))
        self.keep(samples, measured, loader_index)

    def _done_to(self, net: nn.Module, name: str, samples: Samples) -> DoneTo:
        with measuring(net, samples) as (x, y):
            points = x.clone().requires_grad_()
            logits = net(points.clone())  # which a first layer may change in place
            gradient = gradient_of(F.cross_entropy(logits, y, reduction="none"), points)
            aimed = self.attack.with_objective(Targeted(self._number))
            ascended = aimed(net, x, y, SampleRng(0, samples.ids))
            dreamt = dream(net, self.layers[name], x, **self.options)
            with torch.no_grad():
                logits_after = net(ascended)
        changes = {"ascent": ascended - x, "dream": dreamt - x, "gradient": gradient}
        low = {kind: low_frequency_share(change, self.cutoff) for kind, change in changes.items()}
        return DoneTo(
            layer=self.layers[name],
            label=y.cpu(),
            before=x.cpu(),
            ascended=ascended.cpu(),
            dreamt=dreamt.cpu(),
            gradient=gradient.cpu(),
            logits_before=logits.detach().cpu(),
            logits_after=logits_after.cpu(),
            low=low,
        )

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        folder = run_folder(trainer)
        means = {name: share.double().nanmean() for name, share in self.gathered(loader_index).items() if name != "_id"}
        for name, value in means.items():
            if not bool(value.isnan()):
                self.log_figure(trainer, module, f"{stage}/{name}", value.float(), loader_index)
        shown = self._shown.pop(loader_index, {})
        if shown and trainer.is_global_zero:
            nets = {name: first(parts, self.num_pictures) for name, parts in shown.items()}
            headings = {name: self._heading(name, means) for name in nets}
            target = str(self._number) if self._class_names is None else self._class_names[self._number]
            figure = side_by_side(
                nets, title=self._title(nets), target=target, headings=headings, class_names=self._class_names
            )
            publish_picture(trainer, folder, TAG + loader_suffix(trainer, loader_index), figure)

    def _heading(self, name: str, means: Mapping[str, Tensor]) -> str:
        kinds = ("ascent", "dream", "gradient")
        found = {kind: float(means[f"low_frequency/{name}/{kind}"]) for kind in kinds}
        shares = [f"{kind} {'of none' if math.isnan(share) else f'{share:.0%}'}" for kind, share in found.items()]
        return "low on average: " + ", ".join(shares)

    def _title(self, nets: Mapping[str, DoneTo]) -> str:
        height, width = next(iter(nets.values())).before.shape[2:]
        noise = share_of_white_noise(height, width, self.cutoff)
        return f"low: energy at up to {self.cutoff:g} cycles a pixel; of white noise {noise:.0%}"

    def forget(self) -> None:
        super().forget()
        self._shown.clear()
