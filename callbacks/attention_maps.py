"""`AttentionMaps`: what each head looks at, as pictures with the tokens on the axes."""

from __future__ import annotations

import textwrap
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from touchstone.nets.attention import Attention
from touchstone.options import check_count
from touchstone.runs.run_folder import run_folder

from .parts.passes.loaders import loader_suffix
from .parts.passes.measuring import measuring
from .parts.passes.samples import Samples
from .parts.pictures.shown_tokens import token_names, visible
from .parts.records.publish import publish_picture
from .probe import Probe

LETTER = 0.07  # width of one in a small text, in inches
_NO_ATTENTION = "AttentionMaps: the model has no Attention of touchstone.nets"


class AttentionMaps(Probe):
    """Shows, for the first sample of each validation and test pass, the attention weights of every layer and head.

    The picture `attention/S`, S for val or test, has a row for each `Attention` of the model and a column for each
    head; the token of a row looks at those of the columns.

    Args:
        max_tokens: how many tokens are shown, the first ones, >= 1.
        every_n_epochs, batch_keys: as in `Probe`.

    Raises:
        ValueError: a value is outside its range; or the model has no `Attention` of `touchstone.nets`.
    """

    tried_by_measuring = True

    def __init__(self, *, max_tokens: int = 32, **kwargs: Any) -> None:
        super().__init__(**{"max_samples": 1, **kwargs})
        check_count("AttentionMaps(max_tokens=...)", max_tokens)
        self.max_tokens = max_tokens
        self._kept: dict[int, tuple[Tensor, dict[str, Tensor]]] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not any(isinstance(module, Attention) for module in pl_module.modules()):
            raise ValueError(_NO_ATTENTION)

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        first = samples.take(slice(0, 1))
        with measuring(model, first) as (x, _), torch.no_grad():
            maps = attention_maps(model, x)
        if not maps:
            raise ValueError(_NO_ATTENTION)
        self._kept.setdefault(loader_index, (x[0].cpu(), {name: of_one[0].cpu() for name, of_one in maps.items()}))

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        folder, kept = run_folder(trainer), self._kept.pop(loader_index, None)
        if kept is None or not trainer.is_global_zero:
            return
        x, maps = kept
        names = token_names(trainer)
        tokens = [str(place) for place in range(len(x))]
        if names is not None and x.ndim == 1 and not x.is_floating_point():
            tokens = [visible(names[token], family="sans-serif", spaces=True) for token in x.tolist()]
        tag = f"attention/{stage}{loader_suffix(trainer, loader_index)}"
        publish_picture(trainer, folder, tag, maps_picture(maps, tokens[: self.max_tokens]))

    def forget(self) -> None:
        super().forget()
        self._kept.clear()


def attention_maps(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The attention weights of every `Attention` in a forward of `x`, by its name, `(B, heads, T, S)` each."""
    found: dict[str, Tensor] = {}

    def look(name: str) -> Any:
        def hook(module: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if kwargs.get("return_maps"):
                found[name] = output[1]
            else:
                module(*args, **{**kwargs, "return_maps": True})  # which comes back here

        return hook

    handles = [
        module.register_forward_hook(look(name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, Attention)
    ]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def maps_picture(maps: dict[str, Tensor], tokens: list[str]) -> Any:
    """Draws the maps, `(heads, T, S)` by the name of their layer, for as many tokens as are named."""
    from matplotlib.figure import Figure

    num_heads, shown = max(map(len, maps.values())), len(tokens)
    side = 0.8 + 0.1 * shown + LETTER * max(map(len, tokens))
    width = num_heads * max(side, 0.3 + LETTER * max(len(f"{name}, head {num_heads}") for name in maps))
    title = textwrap.wrap("the token of a row looks at those of the columns (dark 0, bright 1)", int(width / LETTER))
    height = side * len(maps) + 0.2 + 0.15 * len(title)
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    panels = figure.subplots(len(maps), num_heads, squeeze=False)
    for row, (name, of_heads) in zip(panels, maps.items(), strict=True):
        for head, panel in enumerate(row):
            if head >= len(of_heads):
                panel.axis("off")
                continue
            panel.imshow(of_heads[head, :shown, :shown].float().numpy(), vmin=0, vmax=1, cmap="viridis")
            panel.set_xticks(range(shown), tokens, fontsize=6, rotation=90, parse_math=False)
            panel.set_yticks(range(shown), tokens, fontsize=6, parse_math=False)
            panel.set_title(f"{name}, head {head + 1}", fontsize=7)
    figure.suptitle("\n".join(title), fontsize=8)
    return figure
