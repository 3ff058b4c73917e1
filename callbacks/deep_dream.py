"""`DeepDream`: pictures that layers respond to most, at the validations of a run and at predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from touchstone.attacks import dream, frozen_eval
from touchstone.attacks.core.buffers import buffers_kept
from touchstone.attacks.dream import start_of
from touchstone.attacks.dreaming.layers import responses_to, select
from touchstone.nets.new_head import head_of
from touchstone.options import check_choice, check_count, check_names
from touchstone.runs.of_trainer import callbacks_of
from touchstone.runs.run_folder import run_folder
from touchstone.runs.shown import shown

from .parts.names.class_names import class_names
from .parts.names.dream_options import check_dream_options, try_dream
from .parts.passes.samples import Samples
from .parts.passes.try_out import GreyPicture
from .parts.pictures.dream_picture import Dreamt, dream_picture
from .parts.records.begun import say_begun
from .parts.records.publish import file_name, publish_picture
from .probe import Probe

MOST = 200  # characters of a class's name


class DeepDream(Probe):
    """Shows for each layer a picture of what it responds to most, as `deepdream/LAYER` and in `figures/`.

    Each picture holds the start and the result, with the layer's response to both, and the name of the class where a
    unit of the last layer was dreamt of. Drawn on rank zero alone, at validations, tests, and at `predict`, whose
    batches hold the images first.

    Args:
        layers: layers, channels or units by name, as in `dream`: `features.7`, `layer3.1.conv2:64`, `fc:76`; the names
            are those of the net, without what stands around it.
        start: `"noise"`, of the shape of the validation's images, or `"images"`, the first of them.
        num_pictures: pictures for each layer, >= 1; at most as many as the first batch holds.
        options: those of `dream`, by name, as `{num_steps: 100, jitter: 2}`.
        name: what stands after the layer, `deepdream/LAYER/NAME`, where two callbacks dream of the same one.
        every_n_epochs, normalization, batch_keys: as in `Probe`.

    Raises:
        ValueError: a value is outside its range, or there is no such option; before the first step of a training or
            prediction, there is no such layer, channel or unit, the net does not take the size of an octave, or
            another callback would write the same picture.

    Example:
        >>> DeepDream(["features.7", "fc:76"], every_n_epochs=5, options={"jitter": 8})
    """

    stand_in = GreyPicture()

    def __init__(
        self,
        layers: Sequence[str],
        *,
        start: Literal["noise", "images"] = "noise",
        num_pictures: int = 2,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        every_n_epochs: int = 1,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
        batch_keys: tuple[str | int, str | int] | None = None,
    ) -> None:
        check_count("DeepDream(num_pictures=...)", num_pictures)
        super().__init__(
            every_n_epochs=every_n_epochs,
            max_samples=num_pictures,
            normalization=normalization,
            batch_keys=batch_keys,
        )
        check_names("DeepDream(layers=...)", layers, "different layers")
        if len(set(layers)) < len(layers):
            raise ValueError(f"DeepDream(layers=...) must be a list of different layers, at least one, got {layers!r}")
        check_choice("DeepDream(start=...)", start, ("noise", "images"))
        check_dream_options("DeepDream(options=...)", options or {})
        self.layers, self.start, self.options, self.name = list(layers), start, dict(options or {}), name
        self._dreamt: list[Dreamt] = []
        self._draws = self._speaks = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._draws = trainer.is_global_zero
        self._speaks = self._draws and stage == "predict"  # a fit has lines of its own
        for other in callbacks_of(trainer, DeepDream):
            taken = {file_name(other.tag(layer)) for layer in other.layers}
            twice = sorted(tag for tag in map(self.tag, self.layers) if file_name(tag) in taken)
            if twice and other is not self:
                raise ValueError(
                    f"two callbacks, both DeepDream, write the picture {twice[0]!r}, of which one would be lost: "
                    "give one of them DeepDream(name=...)"
                )

    def tag(self, layer: str) -> str:
        """Where the picture of a layer is found in TensorBoard."""
        return f"deepdream/{layer}" + (f"/{self.name}" if self.name else "")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """By now a module has all of its layers; a wrong name is better said before training."""
        for layer in self.layers:
            select(pl_module, layer, option="DeepDream(layers=...)")

    on_predict_start = on_fit_start

    def try_out(self, model: nn.Module, samples: Samples) -> None:
        if self._draws and len(samples):
            for layer in self.layers:
                try_dream(model, layer, samples.x, self.options)

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        if not self._draws or self._dreamt or loader_index or not len(samples):
            return
        seed, decorrelated = self.options.get("seed", 0), self.options.get("decorrelated", False)
        x: Tensor | Sequence[int] = samples.x if self.start == "images" else tuple(samples.x.shape)
        start = start_of(model, x, seed=seed, decorrelated=decorrelated)
        before = self._responses(model, self.layers, start)
        results: dict[str, Tensor] = {}
        for layers in self._of_one_module(model):
            if self._speaks:
                say_begun(", ".join(map(self.tag, layers)), len(samples))
            results.update(
                zip(layers, dream(model, layers, x, each=True, **self.options).chunk(len(layers)), strict=True)
            )
        for layer in self.layers:
            after = self._responses(model, [layer], results[layer])[layer]
            self._dreamt.append(Dreamt(layer, start.cpu(), results[layer].cpu(), before[layer].cpu(), after.cpu()))

    def _of_one_module(self, model: nn.Module) -> list[list[str]]:
        """The layers, those beside each other that are parts of one module: they share a pass, and waste none of it."""
        found: dict[str, list[str]] = {}
        for layer in self.layers:
            found.setdefault(select(model, layer).name, []).append(layer)
        return [*found.values()]

    def _responses(self, model: nn.Module, layers: Sequence[str], x: Tensor) -> dict[str, Tensor]:
        objective = self.options.get("objective", "l2")
        with (
            buffers_kept(model),
            frozen_eval(model),
            torch.no_grad(),
            responses_to(model, layers, objective) as responses,
        ):
            return responses(x)

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        if loader_index:
            return
        folder = run_folder(trainer)
        for dreamt in self._dreamt:
            dreamt = replace(dreamt, class_name=_class_of(module, dreamt.layer, class_names(trainer, 0)))
            publish_picture(trainer, folder, self.tag(dreamt.layer), dream_picture(dreamt))

    def forget(self) -> None:
        super().forget()
        self._dreamt.clear()

    def on_predict_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.forget()

    def on_predict_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """A wrong unit is better said before the first pictures are predicted."""
        if not batch_idx and not dataloader_idx:
            self.try_out(*self._shown(pl_module, batch))
            self._normalized.begin()  # the same images come again at the end of the batch

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.see(*self._shown(pl_module, batch), dataloader_idx)

    def _shown(self, module: pl.LightningModule, batch: Any) -> tuple[nn.Module, Samples]:
        """The model and the first images of a batch."""
        x = (batch[0] if isinstance(batch, (tuple, list)) else batch)[: self.max_samples]
        nothing = torch.zeros(len(x), dtype=torch.int64, device=x.device)  # a dream asks for no label
        return self.as_measured(module, Samples(x, nothing, nothing))

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.conclude(trainer, pl_module, "predict", 0)


def _class_of(model: nn.Module, layer: str, names: Sequence[str] | None) -> str | None:
    """The class whose logit is dreamt of: a unit of the output, or of a last layer with one unit for each name."""
    chosen = select(model, layer)
    if names is None or len(chosen.index) != 1 or chosen.index[0] >= len(names):
        return None
    last = head_of(model)
    is_last = last is not None and chosen.name == last[0] and len(last[1].weight) == len(names)
    return shown(names[chosen.index[0]], MOST) if is_last or not chosen.name else None
