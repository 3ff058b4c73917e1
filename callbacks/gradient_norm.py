"""`GradientNorm`: how large gradients are, step by step in training and on the samples of a validation."""

from __future__ import annotations

import cmath
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from touchstone.attacks.core.checks import check_labels, check_not_probabilities, check_shape_of_logits
from touchstone.attacks.core.embedding import find_embedding
from touchstone.options import check_flags

from .parts.passes.before_training import check_forward
from .parts.passes.in_words import add_words
from .parts.passes.measuring import measuring
from .parts.passes.no_pass import is_to_measure
from .parts.passes.processes import add_up
from .parts.passes.samples import Samples
from .parts.passes.watched_input import watched_input
from .parts.records.publish import publish_figures
from .probe import Probe


class GradientNorm(Probe):
    """Logs gradient norms: during training per layer, during validation of input and parameters.

    Training, at every logged optimizer step, accumulated, unscaled and before clipping: `grad_norm/train/total`,
    `grad_norm/train/LAYER` for each module that has parameters of its own, `update_ratio/LAYER` (the length of the
    step that was taken over the length of the weights), and a warning that names the parameter whose gradient was
    first not finite. Where a module steps by itself (manual optimization), all optimizers that step in a batch count
    together, each by its last step, and what the module clips by itself is seen clipped.

    Validation and test: `grad_norm/S/input`, the mean over samples of the norm of the gradient of each sample's
    cross-entropy, of texts at the embedding of their tokens; `grad_norm/S/parameters`, the norm of the gradient of
    their mean.

    Args:
        validation: whether to measure validation and test too; their batches must be images or texts with labels.
        update_ratio: whether to log update ratios; they need the memory of a second copy of the weights.
        embedding: the name of the `nn.Embedding` that tokens go through; None for the only one.
        max_samples: measure only the first samples of the dataset, >= 1; None for all. A gradient with respect to
            the parameters costs as much as a step of training on the same samples.
        every_n_epochs, normalization, batch_keys: as in `Probe`, for validation and test.
    """

    tried_by_measuring = True
    measures_training = True

    def __init__(
        self,
        *,
        validation: bool = True,
        update_ratio: bool = True,
        embedding: str | None = None,
        max_samples: int | None = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_samples=max_samples, **kwargs)
        check_flags(self, validation=validation, update_ratio=update_ratio)
        self.validation, self.update_ratio, self.embedding = validation, update_ratio, embedding
        self._sums: dict[int, list[Tensor]] = {}
        self._reported = self._has_looked = False
        self._stepping: dict[Optimizer, tuple[list[str], list[nn.Parameter], Tensor]] = {}  # in this batch, with norms
        self._copies: dict[Optimizer, list[Tensor]] = {}

    # Training.

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._stepping.clear()  # an interrupted step may have left some

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        owned = (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        logs, first = trainer._logger_connector.should_update_logs, next(owned, None)
        if first is None or not (logs or _shows_damage(first)):
            return
        ids = {id(first), *map(id, owned)}
        named = {name: p for name, p in pl_module.named_parameters() if id(p) in ids}
        norms = _norms([_grad(p).detach() for p in named.values()])
        self._look_for_damage(trainer, list(named), norms)
        if not logs:
            return
        self._stepping[optimizer] = list(named), list(named.values()), norms
        if self.update_ratio:
            self._remember(optimizer, [p.detach() for p in named.values()])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if not self._stepping:
            return
        names = [name for of_optimizer, _, _ in self._stepping.values() for name in of_optimizer]
        norms = torch.cat([of_optimizer for _, _, of_optimizer in self._stepping.values()])
        pl_module.log("grad_norm/train/total", norms.norm(), on_step=True, on_epoch=False)
        figures = _named("grad_norm/train", *_by_layer(names, norms))
        now = [p.detach() for _, parameters, _ in self._stepping.values() for p in parameters]
        before = [copy for optimizer in self._stepping for copy in self._copies.get(optimizer, [])]
        self._stepping.clear()
        if self.update_ratio:
            layers, sizes = _by_layer(names, _norms(before))
            _, steps = _by_layer(names, _norms(old.sub_(new) for old, new in zip(before, now, strict=True)))
            figures |= _named("update_ratio", layers, steps / sizes.clamp_min(1e-12))
        # Not by `LightningModule.log`, which for the layers of a deep net takes as long as a good part of the step.
        publish_figures(trainer, figures)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._copies.clear()

    def _remember(self, optimizer: Optimizer, weights: list[Tensor]) -> None:
        """Copies the weights before a step, to where those of the last logged step were: fresh memory takes longer."""
        copies = self._copies.get(optimizer, [])
        if [(c.shape, c.dtype, c.device) for c in copies] == [(w.shape, w.dtype, w.device) for w in weights]:
            torch._foreach_copy_(copies, weights)
        else:
            self._copies[optimizer] = [weight.clone() for weight in weights]

    def _look_for_damage(self, trainer: pl.Trainer, names: list[str], norms: Tensor) -> None:
        """Warns once of gradients that are not finite; the backward pass meets the last of them first."""
        if self._reported or getattr(trainer.precision_plugin, "scaler", None) is not None:
            return  # a gradient scaler looks for its scale by steps that overflow, and skips them
        damaged = (~norms.isfinite()).nonzero()
        if len(damaged):
            self._reported = True
            rank_zero_warn(
                f"GradientNorm: at step {trainer.global_step} the gradient of {names[int(damaged[-1])]!r} "
                "was not finite, the first to be so"
            )

    # Validation and test.

    def takes_part(self) -> bool:
        return self.validation

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.validation and is_to_measure(trainer):
            with _with_remedy():
                check_forward(pl_module, "GradientNorm")

    on_validation_start = on_test_start = on_fit_start

    def _see_batch(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        with _with_remedy():
            super()._see_batch(trainer, module, batch, index)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._copies.clear()  # of the optimizers of a fit that broke off
        if self.embedding is not None:  # better said now than after an epoch
            find_embedding(pl_module, self.embedding, "GradientNorm")

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        with (
            measuring(model, samples, freeze=False) as (x, y),
            watched_input(model, x, self.embedding, "GradientNorm") as watched,
        ):
            self._look_for_normalized(x.detach())
            parameters = [p for p in model.parameters() if p.requires_grad]
            logits = model(x.clone())  # which a first layer may change in place
            if y.ndim == 1 and logits.ndim <= 2:
                check_shape_of_logits(logits, len(y))
                check_not_probabilities(logits)
            elif logits.shape[:-1] != y.shape:
                raise ValueError(
                    "GradientNorm: the model must return logits `(N, classes)`, or `(N, T, V)` for texts with the "
                    f"tokens that follow, got {tuple(logits.shape)} for labels {tuple(y.shape)}"
                )
            check_labels(y, logits.shape[-1], samples.ids)
            losses = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none")
            if not losses.requires_grad:
                raise ValueError(
                    "GradientNorm: the model's output has no gradient, neither by its input nor by its parameters: "
                    "check for `detach`, `no_grad`, `argmax`, rounding or numpy inside the model"
                )
            of_input, *of_parameters = torch.autograd.grad(
                losses.reshape(len(y), -1).mean(1).sum(),
                [watched[0], *parameters],
                allow_unused=True,
                materialize_grads=True,
            )
        self.keep(samples, {"input": _in_floats(of_input).flatten(1).norm(dim=1)}, loader_index)
        in_floats = list(map(_in_floats, of_parameters))
        if parameters and loader_index in self._sums:
            torch._foreach_add_(self._sums[loader_index], in_floats)
        elif parameters:
            self._sums[loader_index] = [grad.clone() for grad in in_floats]  # two of them may be one tensor

    def _look_for_normalized(self, x: Tensor) -> None:
        """Warns once of images `(N, C, H, W)` whose gradients are not per pixel."""
        if self._has_looked or self.normalize is not None or not (x.is_floating_point() and len(x) and x.ndim == 4):
            return
        self._has_looked = True
        if float(x.min()) < 0 or float(x.max()) > 1:
            rank_zero_warn(
                f"GradientNorm: the images lie outside [0, 1], from {float(x.min()):.3g} to {float(x.max()):.3g}, so "
                "that grad_norm/.../input is not per pixel; if they are normalized, give `normalization=(mean, std)`"
            )

    def forget(self) -> None:
        super().forget()
        self._sums.clear()

    def logs(self, tag: str) -> bool:
        return self.validation and tag.startswith("grad_norm/val/")

    def tags(self) -> list[str]:
        return ["grad_norm/val/input", "grad_norm/val/parameters"] if self.validation else []

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        values = self.gathered(loader_index)
        if not values:
            return
        norms = values["input"]
        nothing = [torch.zeros_like(_in_floats(p.detach())) for p in module.parameters() if p.requires_grad]
        sums = self._sums.pop(loader_index, nothing)
        add_up(sums)
        self.log_figure(trainer, module, f"grad_norm/{stage}/input", norms.double().mean().float(), loader_index)
        if sums:
            total = _norms(sums).norm() / len(norms)
            self.log_figure(trainer, module, f"grad_norm/{stage}/parameters", total, loader_index)


@contextmanager
def _with_remedy() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        add_words(error, after="; to measure the training alone: GradientNorm(validation=False)")
        raise


def _grad(parameter: nn.Parameter) -> Tensor:
    """The gradient of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad


def _shows_damage(first: nn.Parameter) -> bool:
    """Whether the first layer's gradient is not finite, as it is wherever a later one broke the backward pass.

    Asked at every step on the CPU only: an accelerator would have to be waited for.
    """
    grad = _grad(first)
    return grad.device.type == "cpu" and not cmath.isfinite(grad.sum().item())  # or complex


def _norms(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of each, in float32 or wider whatever the weights are in.

    On a CPU a product takes half the time of torch's norm, rounds less, and finds what has just been computed still in
    the processor's cache, so that the tensors are better given one by one.
    """
    floats, norms = [], []
    for tensor in map(_in_floats, tensors):
        floats.append(tensor)
        if tensor.device.type == "cpu" and tensor.layout == torch.strided:
            values = tensor.flatten()
            norms.append(values.dot(values).sqrt())
    return torch.stack(norms if len(norms) == len(floats) else torch._foreach_norm(floats))


def _in_floats(tensor: Tensor) -> Tensor:
    """In float32 or wider, for norms and sums; a complex one by its real and imaginary parts, whose norm is its own."""
    tensor = tensor.resolve_conj()
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _by_layer(names: Sequence[str], norms: Tensor) -> tuple[list[str], Tensor]:
    """The modules that have these parameters, and the norm of each module's own, from the parameters' norms."""
    owners = [name.rpartition(".")[0] or name for name in names]
    layers = list(dict.fromkeys(owners))
    place = {layer: number for number, layer in enumerate(layers)}
    rows = torch.tensor([place[owner] for owner in owners], device=norms.device)
    return layers, norms.new_zeros(len(layers)).index_add(0, rows, norms.square()).sqrt()


def _named(prefix: str, layers: list[str], values: Tensor) -> dict[str, float]:
    return {f"{prefix}/{layer}": value for layer, value in zip(layers, values.tolist(), strict=True)}
