"""Gradients of an optimizer step whose batches have not all come, as a checkpoint between them needs them."""

from __future__ import annotations

import lightning.pytorch as pl
from torch import Tensor, nn


def pending_gradients(trainer: pl.Trainer, module: nn.Module) -> dict[str, Tensor]:
    """What has been accumulated towards the next step, by parameter; nothing after a step."""
    if not trainer.fit_loop.epoch_loop._should_accumulate():
        return {}
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def accumulate_on(module: nn.Module, gradients: dict[str, Tensor]) -> None:
    """Lets the next batches add to these."""
    for name, parameter in module.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)
