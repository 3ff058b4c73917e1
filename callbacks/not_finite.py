"""`NotFinite`: what happens when a loss or a gradient is NaN or infinite, and where that began."""

from __future__ import annotations

from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from touchstone.attacks import frozen_eval

from .parts.samples import images_and_labels

POLICIES = ("stop", "skip", "keep")


class NotFinite(pl.Callback):
    """Looks at the loss and the gradients of every training step.

    The message names the step and the first thing that is not finite: a sample of the batch, a parameter, or the
    output of a layer, for which the batch is passed through the net again. Looking costs one number per step that
    an accelerator must be waited for.

    Args:
        policy: `"stop"` ends the training with an error; `"skip"` leaves out the optimizer's step, puts back what the
            forward did to buffers such as running statistics, and warns once; `"keep"` goes on and warns once.

    Attributes:
        num_found: steps that were not finite.

    Raises:
        ValueError: the policy is another.
        RuntimeError: while training, where the policy is to stop.
    """

    def __init__(self, *, policy: Literal["stop", "skip", "keep"] = "stop") -> None:
        if policy not in POLICIES:
            raise ValueError(f"NotFinite(policy=...) must be one of {', '.join(POLICIES)}, got {policy!r}")
        self.policy = policy
        self.num_found = 0
        self._batch: Any = None
        self._loss: float | None = None
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._skips = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._loss = batch, None
        if self.policy == "skip":
            self._buffers = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if bool(loss.detach().isfinite().all()):
            return
        self._loss = float(loss.detach().mean())
        if self.policy == "stop":
            self._found(trainer, pl_module, f"the loss is {self._loss:g}")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._loss is not None:  # the backward pass needs the buffers as they are
            self._found(trainer, pl_module, f"the loss is {self._loss:g}")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        named = [(name, p) for name, p in pl_module.named_parameters() if p.grad is not None]
        is_known = self._skips or self._loss is not None  # from the loss
        if not is_known and named and getattr(trainer.precision_plugin, "scaler", None) is None:
            norms = torch.stack(torch._foreach_norm([p.grad.detach() for _, p in named]))  # type: ignore[union-attr]
            if not bool(norms.sum().isfinite()):
                damaged = (~norms.isfinite()).nonzero()
                # The backward pass comes to the last layer first.
                name = named[int(damaged[-1])][0] if len(damaged) else "all parameters together"
                self._found(trainer, pl_module, f"the gradient of {name!r} is")
        if self._skips:
            self._skips = False
            for _, parameter in named:
                parameter.grad = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._buffers = None, []

    def state_dict(self) -> dict[str, Any]:
        return {"num_found": self.num_found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_found = state_dict["num_found"]

    def _found(self, trainer: pl.Trainer, module: pl.LightningModule, what: str) -> None:
        """Does what the policy says.

        Raises:
            RuntimeError: the policy is to stop.
        """
        self.num_found += 1
        message = ""
        if self.num_found == 1 or self.policy == "stop":
            verb = "" if what.startswith("the loss is") else " not finite"
            message = f"NotFinite: at step {trainer.global_step} {what}{verb}: {_origin(module, self._batch)}"
        if self.policy == "stop":
            raise RuntimeError(message)
        if self.policy == "skip":
            self._skips = True
            with torch.no_grad():
                for buffer, before in self._buffers:
                    buffer.copy_(before)
        if message:
            does = "the step is left out" if self.policy == "skip" else "training goes on with it"
            rank_zero_warn(f"{message}; {does}, and so are further ones, without a word")


def _origin(module: pl.LightningModule, batch: Any) -> str:
    """Where it began, in words."""
    for name, parameter in module.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            return f"the parameter {name!r} itself is not finite"
    try:
        x, _ = images_and_labels(batch, None)
    except ValueError:
        return "the batch is no pair of images and labels, in which one could look further"
    if not x.is_floating_point():
        return _first_layer(module, x)
    rows = (~x.flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()
    if rows:
        some = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        return f"the images of the batch are not finite in row {some}"
    return _first_layer(module, x)


def _first_layer(module: pl.LightningModule, x: Tensor) -> str:
    """The first layer whose output is not finite in a forward pass in the modes of training, in words."""
    found: list[str] = []
    names = {layer: name for name, layer in module.named_modules()}

    def look(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and not bool(output.isfinite().all()):
            found.append(f"{names[layer]!r} ({type(layer).__name__})")

    leaves = [layer for layer in names if not list(layer.children())]
    handles = [layer.register_forward_hook(look) for layer in leaves]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with frozen_eval(module, training=True), torch.no_grad():
            module(x.detach().clone())
            for buffer, before in buffers:
                buffer.copy_(before)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        return "images, parameters and the outputs of all layers are finite"
    return f"the first layer with an output that is not finite is {found[0]}"
