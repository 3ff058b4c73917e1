"""`NotFinite`: what happens when a loss or a gradient is NaN or infinite, and where that began."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from touchstone.attacks import frozen_eval
from touchstone.options import check_choice, check_flags

from .parts.passes.batch_keys import images_and_labels
from .parts.resuming.own_order import samples_in

POLICIES = ("stop", "skip", "keep")
NUM_SHOWN = 16  # rows or samples in a message


class NotFinite(pl.Callback):
    """Stops, skips the step or warns when the loss or a gradient of a training step is NaN or infinite.

    The message names the step, the samples of its batch by their positions in the dataset, where `ExactResume` keeps
    account of them, and the first thing that is not finite: a sample of the batch, a parameter, or the output of a
    layer, for which the batch is passed through the net again. The command line adds one that stops and does not wait
    to every `fit` whose config has none.

    Args:
        policy: `"stop"` ends the training with an error; `"skip"` leaves out the optimizer's step, puts back what the
            forward did to buffers such as running statistics, and warns once; `"keep"` goes on and warns once.
        waits: whether to look at the loss and every gradient at every step, for which an accelerator is waited for. If
            not, an accelerator's are looked at only where figures are logged, every `Trainer(log_every_n_steps=...)`,
            and at the end of an epoch; by then the weights themselves may be broken. On a CPU the loss is looked at in
            every step, and of the gradients that of the first parameter, where the backward pass ends.

    Attributes:
        num_found: steps that were not finite.
        sample_ids: the samples of the batch that was last found so, one a row; None where they are not known.

    Raises:
        ValueError: the policy is none of these, or is to skip and not to wait.
        RuntimeError: while training, where the policy is to stop.
    """

    def __init__(self, *, policy: Literal["stop", "skip", "keep"] = "stop", waits: bool = True) -> None:
        check_choice("NotFinite(policy=...)", policy, POLICIES)
        check_flags(self, waits=waits)
        if policy == "skip" and not waits:
            raise ValueError("NotFinite(waits=False) may see a step too late to skip it: waits=True, or another policy")
        self.policy, self.waits = policy, waits
        self.num_found = 0
        self.sample_ids: list[int] | None = None
        self._batch: Any = None
        self._batch_idx = 0
        self._loss: float | None = None
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._skips = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._batch_idx, self._loss = batch, batch_idx, None
        if self.policy == "skip":
            self._buffers = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if not self._looks(trainer, loss) or math.isfinite(loss.detach().sum()):
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
        first = next((p.grad for p in pl_module.parameters() if p.grad is not None), None)
        is_known = self._skips or self._loss is not None  # from the loss
        looks = first is not None and not is_known and self._looks(trainer, first)
        if looks and not self.waits and not _is_logged(trainer):
            looks = not math.isfinite(first.sum())  # type: ignore[union-attr]
        if looks and getattr(trainer.precision_plugin, "scaler", None) is None:
            named = [(name, p) for name, p in pl_module.named_parameters() if p.grad is not None]
            norms = torch.stack(torch._foreach_norm([p.grad.detach() for _, p in named]))  # type: ignore[union-attr]
            if not bool(norms.sum().isfinite()):
                damaged = (~norms.isfinite()).nonzero()
                # The backward pass comes to the last layer first.
                name = named[int(damaged[-1])][0] if len(damaged) else "all parameters together"
                self._found(trainer, pl_module, f"the gradient of {name!r} is not finite")
        if self._skips:
            self._skips = False
            for parameter in pl_module.parameters():
                parameter.grad = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._buffers = None, []

    def state_dict(self) -> dict[str, Any]:
        return {"num_found": self.num_found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_found = state_dict["num_found"]

    def _looks(self, trainer: pl.Trainer, value: Tensor) -> bool:
        """Whether to look at values of this step."""
        return self.waits or not _is_waited_for(value) or _is_logged(trainer)

    def _found(self, trainer: pl.Trainer, module: pl.LightningModule, what: str) -> None:
        """Does what the policy says.

        Raises:
            RuntimeError: the policy is to stop.
        """
        self.num_found += 1
        loaders = trainer.fit_loop._combined_loader
        assert loaders is not None
        first, *others = loaders.flattened
        self.sample_ids = None if others else samples_in(first, self._batch_idx)
        message = ""
        if self.num_found == 1 or self.policy == "stop":
            of_samples = "whose samples are not known (ExactResume keeps account of a DataLoader's)"
            if self.sample_ids is not None:
                of_samples = f"of the samples {_some(self.sample_ids)}"
            message = (
                f"NotFinite: at step {trainer.global_step} {what}: {_origin(module, self._batch, self.sample_ids)}; "
                f"it is batch {self._batch_idx} of epoch {trainer.current_epoch}, {of_samples}"
            )
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


def _is_logged(trainer: pl.Trainer) -> bool:
    """Whether figures of this step are logged, or it is the last of its epoch."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return trainer.is_last_batch or bool(every) and (trainer.global_step + 1) % every == 0


def _is_waited_for(value: Tensor) -> bool:
    """Whether to look at a value is to wait until it is computed."""
    return value.device.type != "cpu"


def _origin(module: pl.LightningModule, batch: Any, ids: list[int] | None) -> str:
    """Where it began, in words."""
    for name, parameter in module.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            return f"the parameter {name!r} itself is not finite"
    try:
        x, _ = images_and_labels(batch, None)
    except ValueError:
        return "the batch is no pair of images and labels, in which one could look further"
    if x.is_floating_point() and (rows := _broken_rows(x)):
        return f"the images of the batch are not finite in {_named(rows, len(x), ids)}"
    return _first_layer(module, x, ids)


def _first_layer(module: pl.LightningModule, x: Tensor, ids: list[int] | None) -> str:
    """The first layer whose output is not finite in a forward pass in the modes of training, in words."""
    found: list[str] = []
    names = {layer: name for name, layer in module.named_modules()}

    def look(layer: nn.Module, _: Any, output: Any) -> None:
        if found or not isinstance(output, Tensor) or not output.is_floating_point() or not output.ndim:
            return
        if rows := _broken_rows(output):
            where = f", in {_named(rows, len(x), ids)}" if len(output) == len(x) else ""
            found.append(f"{names[layer]!r} ({type(layer).__name__}){where}")

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


def _broken_rows(values: Tensor) -> list[int]:
    return (~values.detach().isfinite().reshape(len(values), -1).all(1)).nonzero()[:, 0].tolist()


def _named(rows: list[int], num_rows: int, ids: list[int] | None) -> str:
    """Rows of a batch of so many, and the samples in them where each row is one, in words."""
    if len(rows) == num_rows > 1:
        return "every row"
    known = ids is not None and len(ids) == num_rows
    samples = f", sample {_some([ids[row] for row in rows])}" if known else ""  # type: ignore[index]
    return f"row {_some(rows)}{samples}"


def _some(numbers: list[int]) -> str:
    more = f", ... ({len(numbers)} in all)" if len(numbers) > NUM_SHOWN else ""
    return ", ".join(map(str, numbers[:NUM_SHOWN])) + more
