"""What a process holds in the midst of a training: random states, gradients of a step, metrics, states of modules."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from .random_state import random_state, set_random_state


def held(trainer: pl.Trainer, module: pl.LightningModule, *, is_mid_epoch: bool) -> dict[str, Any]:
    """All of it on the CPU, by plain names, which load with `weights_only=True`; metrics are those of an epoch."""
    waits = trainer.fit_loop.epoch_loop._should_accumulate()  # for more batches of its step
    kept = {
        "metrics": _metrics(trainer, module) if is_mid_epoch else {},
        "modules": {
            name: part.process_state() for name, part in module.named_modules() if hasattr(part, "process_state")
        },
        "gradients": {name: p.grad for name, p in module.named_parameters() if p.grad is not None} if waits else {},
    }
    return {"random": random_state(), **copied_to(torch.device("cpu"), kept)}


def take_up(module: pl.LightningModule, state: dict[str, Any]) -> None:
    """Goes on with what `held` gave, as far as the module still has the parts; older ones may lack some."""
    set_random_state(state["random"])
    for name, parameter in module.named_parameters():
        if name in state.get("gradients", {}):
            parameter.grad = state["gradients"][name].to(parameter.device)  # to which the next batches add
    parts: dict[str, Any] = dict(module.named_modules())
    for name, of_part in state.get("modules", {}).items():
        if hasattr(parts.get(name), "load_process_state"):
            parts[name].load_process_state(copied_to(module.device, of_part))
    for name, of_metric in state["metrics"].items():
        metric = parts.get(name)
        if isinstance(metric, Metric):
            for part, value in of_metric["parts"].items():
                setattr(metric, part, _at_least_as_wide(copied_to(module.device, value), getattr(metric, part)))
            metric._update_count, metric._computed = of_metric["num_updates"], None


def copied_to(device: torch.device, value: Any) -> Any:
    """Tensors, in lists and dicts too, copied to a device."""
    if isinstance(value, dict):
        return {name: copied_to(device, part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied_to(device, part) for part in value)
    return value.detach().to(device, copy=True) if isinstance(value, Tensor) else value


def _metrics(trainer: pl.Trainer, module: nn.Module) -> dict[str, Any]:
    """The states of the metrics that the training step has logged in this epoch."""
    logged = {id(result.value) for result in trainer.fit_loop.epoch_loop._results.values() if not result.is_tensor}
    return {
        name: {"parts": dict(metric.metric_state), "num_updates": metric._update_count}
        for name, metric in module.named_modules()
        if isinstance(metric, Metric) and id(metric) in logged
    }


def _at_least_as_wide(value: Any, now: Any) -> Any:
    """A state of a metric, in the precision that it has now where that is wider: an older checkpoint's may be half."""
    if isinstance(value, Tensor) and isinstance(now, Tensor):
        return value.to(torch.promote_types(value.dtype, now.dtype))
    return value
