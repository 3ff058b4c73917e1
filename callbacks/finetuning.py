"""`Finetuning`: some layers of a trained net learn from the start, others later, the rest never."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BaseFinetuning
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from touchstone.nets.weight_decay import spared_from_decay
from touchstone.options import check_count, check_names, check_positive

from .parts.resuming.grown_schedule import add_group


class Finetuning(BaseFinetuning):
    """Freezes all layers but those that are named, and unfreezes others at the epochs that are named.

    Layers are matched by their names in the module, as `net.net.layer4.1.conv2`, with `*` for any text. A frozen
    normalization uses, and keeps, the statistics that it came with. Layers that are unfrozen form a group of parameters
    with the options of the first one and a share of its learning rate, which the schedule moves along; or two, the
    second without weight decay, where the optimizer spares normalizations and biases.

    Args:
        train: patterns of the layers that learn from the start; the layer that gives the logits must be among them.
        unfreeze: by epoch, counted from 0, the patterns of the layers that learn from then on.
        lr_share: their learning rate over that of the first ones, > 0.

    Raises:
        ValueError: a value is outside its range; or, when the fit begins, a pattern matches no layer, or layers are to
            be unfrozen on several processes, which would not share their gradients. A `Classifier` raises it where the
            layer that gives the logits does not learn from the start: the one that `NewHead` names, else the last one.

    Example:
        >>> Finetuning(train=["net.net.fc"], unfreeze={2: ["net.net.layer4.*"]})
    """

    def __init__(
        self,
        train: Sequence[str] | Set[str],
        *,
        unfreeze: Mapping[int, Sequence[str] | Set[str]] | None = None,
        lr_share: float = 0.1,
    ) -> None:
        super().__init__()
        check_names("Finetuning(train=...)", train, "layers")
        check_positive(self, lr_share=lr_share)
        for epoch, patterns in (unfreeze or {}).items():
            check_count("Finetuning(unfreeze=...): an epoch", epoch, least=0)
            check_names(f"Finetuning(unfreeze=...): epoch {epoch}", patterns, "layers", or_none=True)
        self.train, self.lr_share = _in_order(train), lr_share
        self.unfreeze_at = {epoch: _in_order(patterns) for epoch, patterns in sorted((unfreeze or {}).items())}
        self._trainer: pl.Trainer | None = None
        self._frozen: set[nn.Module] = set()
        self._num_unfrozen = self._resumes_with = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if self.unfreeze_at and trainer.world_size > 1:
            raise ValueError("Finetuning(unfreeze=...) needs a single process: those let go later are not synchronized")
        self._trainer, self._num_unfrozen = trainer, 0
        super().setup(trainer, pl_module, stage)

    def freeze_before_training(self, pl_module: pl.LightningModule) -> None:
        for patterns in self.unfreeze_at.values():
            self._matched(pl_module, patterns)
        trained = self._matched(pl_module, self.train)
        self._frozen = set(_layers(pl_module).values()).difference(trained)
        for layer in self._frozen:
            _set(layer, learns=False)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        for layer in _layers(pl_module).values():
            if isinstance(layer, _NormBase):
                layer.train(self._learns(layer))

    def finetune_function(self, pl_module: pl.LightningModule, epoch: int, optimizer: Optimizer) -> None:
        due = [patterns for start, patterns in self.unfreeze_at.items() if start <= epoch]
        self._let_go(pl_module, optimizer, due)

    def _let_go(self, module: pl.LightningModule, optimizer: Optimizer, due: Sequence[Sequence[str]]) -> None:
        assert self._trainer is not None
        schedulers = [config.scheduler for config in self._trainer.lr_scheduler_configs]
        for patterns in due[self._num_unfrozen :]:
            layers = self._matched(module, patterns)
            spared = {
                parameter: spared_from_decay(layer, name)
                for layer in layers
                for name, parameter in layer.named_parameters(recurse=False)
                if not parameter.requires_grad
            }
            for layer in layers:
                _set(layer, learns=True)
            self._frozen.difference_update(layers)
            for parameters, changed in _groups(spared, split=_spares(module, optimizer)):
                add_group(optimizer, schedulers, parameters, self.lr_share, changed)
        self._num_unfrozen = len(due)

    def _learns(self, layer: nn.Module) -> bool:
        own = list(layer.parameters(recurse=False))
        return any(parameter.requires_grad for parameter in own) if own else layer not in self._frozen

    def _matched(self, module: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
        """The layers of these names.

        Raises:
            ValueError: a pattern matches none.
        """
        layers, found = _layers(module), []
        for pattern in patterns:
            names = fnmatch.filter(layers, pattern)
            if not names:
                near = ", ".join(difflib.get_close_matches(pattern, layers, 3, 0))
                raise ValueError(
                    f"Finetuning: {pattern!r} matches no layer of {type(module).__name__}; the nearest are {near}"
                )
            found += [layers[name] for name in names]
        return found

    # A checkpoint says how far the schedule is; the groups are made again before the optimizer's state is restored.

    def state_dict(self) -> dict[str, Any]:
        return {"num_unfrozen": self._num_unfrozen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumes_with = int(state_dict["num_unfrozen"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        num_unfrozen, self._resumes_with = self._resumes_with, 0
        for optimizer in trainer.optimizers:
            self._let_go(pl_module, optimizer, list(self.unfreeze_at.values())[:num_unfrozen])


def _in_order(patterns: Collection[str]) -> tuple[str, ...]:
    """Those of a set by name: its own order is another one in each process, and a checkpoint knows parameters by it."""
    return tuple(sorted(patterns) if isinstance(patterns, Set) else patterns)


def _layers(module: nn.Module) -> dict[str, nn.Module]:
    """What has parameters of its own, or may keep statistics, by name."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, _NormBase) or list(part.parameters(recurse=False))
    }


def _set(layer: nn.Module, *, learns: bool) -> None:
    for parameter in layer.parameters(recurse=False):
        parameter.requires_grad = learns


def _spares(module: nn.Module, optimizer: Optimizer) -> bool:
    """Whether decay is for weights alone: the module says so, as `Classifier` does, or another group has none."""
    first, *others = (group.get("weight_decay", 0) for group in optimizer.param_groups)
    return getattr(module, "decay", "all") == "weights" or (first > 0 and 0 in others)


def _groups(
    spared: Mapping[nn.Parameter, bool], *, split: bool
) -> Iterator[tuple[list[nn.Parameter], dict[str, float]]]:
    """The groups that are not empty, with the options that are their own."""
    decayed = [parameter for parameter in spared if not (split and spared[parameter])]
    if decayed:
        yield decayed, {}
    if len(decayed) < len(spared):
        yield [parameter for parameter in spared if spared[parameter]], {"weight_decay": 0.0}
