"""`frozen_eval`: the context that every gradient measurement runs in, and that leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.backends import cudnn

from .checkpoints import checkpoints_not_reentrant
from .renormalized import renormalized

_PURPOSES = {"measure": 0, "attack": 0x9E3779B9, "measure again": 0x3C6EF372}


@contextmanager
def frozen_eval(model: nn.Module, *, freeze: bool = True, training: bool = False) -> Iterator[None]:
    """Puts a model into evaluation mode with frozen weights and gradients on, and restores everything after.

    Inside, batches from `torch.inference_mode` must be cloned before they can carry a gradient. Restored, module by
    module: the training flags and which parameters need a gradient; the random state of torch (CPU, and the
    accelerators that hold the model), numpy and Python; and what embeddings have shortened in their weights
    (`max_norm`). Not restored: values of buffers, as `buffers_kept` does, and of other parameters, for which `evaluate`
    looks itself, and what a model keeps outside of them. Activations that the model computes twice to save memory are
    so by checkpoints that let a gradient be taken of anything (`checkpoints_not_reentrant`).

    Args:
        model: any module; partly frozen and partly training ones come back as they were.
        freeze: whether the parameters stop needing gradients; False for measuring the parameters' own gradients.
        training: whether the modules keep their modes, for examples made in the mode of training.

    Raises:
        ValueError: a parameter that needs a gradient was made in inference mode, and so can have none; or a module
            that is in training mode refuses the mode of evaluation, as exported ones do.
    """
    _check_parameters(model)
    modes = {module: is_training(module) for module in model.modules()}
    needed_grad = {p: p.requires_grad for p in model.parameters()}
    accelerators = {p.device for p in model.parameters()} | {b.device for b in model.buffers()}
    accelerators = {device for device in accelerators if device.type not in ("cpu", "meta")}
    with ExitStack() as stack:
        _fork_random_state(stack, accelerators)
        _let_gradients_through(stack, model, accelerators)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(checkpoints_not_reentrant())
        stack.enter_context(renormalized(model))
        try:
            if not training:
                _evaluate(model)
            if freeze:
                for parameter in needed_grad:
                    if parameter.requires_grad:
                        parameter.requires_grad_(False)
            yield
        finally:
            for module, mode in modes.items():
                if is_training(module) != mode:
                    module.training = mode  # not module.train(mode): that would set the children too
            for parameter, needed in needed_grad.items():
                if parameter.requires_grad != needed:
                    parameter.requires_grad_(needed)


def seed_random_state(
    seed: int, device: torch.device, *, purpose: Literal["measure", "attack", "measure again"] = "measure"
) -> None:
    """Seeds what a model may draw from: the random states that `frozen_eval` restores.

    For each purpose a model draws other numbers: one that is measured by the noise that its attacker has seen would
    seem weaker than it is.
    """
    seed = (int(seed) + _PURPOSES[purpose]) % (1 << 32)
    random.seed(seed)
    np.random.seed(seed)
    torch.random.default_generator.manual_seed(seed)
    if device.type != "cpu":
        module = torch.get_device_module(device)
        several = device.index is not None and hasattr(module, "device")  # of MPS there is one
        with module.device(device) if several else nullcontext():
            module.manual_seed(seed)


def is_training(module: nn.Module) -> bool:
    """Whether a module is in the mode of training; frozen TorchScript has no flag, and is in that of evaluation."""
    return getattr(module, "training", False)


def _evaluate(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError as error:  # of torch.export, whose modules stay as they were exported
        for module in model.modules():
            with suppress(NotImplementedError):
                module.eval()
        name = next((name or "the model" for name, module in model.named_modules() if is_training(module)), None)
        if name is not None:
            raise ValueError(
                f"the model must take the mode of evaluation, got one that refuses it while {name} is in training mode "
                f"({error}); `torch.export` keeps the mode of the model that it is given, and its module says "
                "`training` either way: export `model.eval()`, and then say that it was, `for module in "
                "exported.modules(): module.training = False`"
            ) from error


def _check_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_inference():  # torch freezes these, and never unfreezes them
            raise ValueError(
                f"the model's parameters, first {name}, were made in inference mode and can have no gradient: make or "
                "load the model outside of `torch.inference_mode()`"
            )


def _fork_random_state(stack: ExitStack, accelerators: set[torch.device]) -> None:
    """Restores the global random states when the stack closes."""
    by_type: dict[str, list[int]] = {}
    for device in accelerators:
        by_type.setdefault(device.type, []).append(device.index or 0)
    stack.enter_context(torch.random.fork_rng(devices=[]))
    for kind, indices in by_type.items():
        stack.enter_context(torch.random.fork_rng(devices=indices, device_type=kind))
    stack.callback(random.setstate, random.getstate())
    stack.callback(np.random.set_state, np.random.get_state())


def _let_gradients_through(stack: ExitStack, model: nn.Module, accelerators: set[torch.device]) -> None:
    """Leaves out, until the stack closes, what takes no gradient of samples, or takes it for 0."""
    if accelerators and any(isinstance(module, nn.RNNBase) for module in model.modules()):
        # cuDNN refuses the backward of a recurrent net in evaluation mode.
        stack.enter_context(
            cudnn.flags(
                enabled=False,
                benchmark=cudnn.benchmark,
                deterministic=cudnn.deterministic,
                allow_tf32=cudnn.allow_tf32,
            )
        )
    for kind in {"cpu", *(device.type for device in accelerators)}:
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
            # In float16 the input gradients of confident samples underflow to 0; bfloat16 has float32's range.
            stack.enter_context(torch.autocast(kind, enabled=False))
