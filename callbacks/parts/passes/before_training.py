"""What stands in the way of an attack is better said before a training than after its first epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from touchstone.attacks import Attack, frozen_eval
from touchstone.attacks.core.checks import as_computed, check_batch, check_logits, check_not_probabilities
from touchstone.attacks.core.logits import logits_of
from touchstone.attacks.judge.running import naming

from .samples import Samples, images_and_labels

if TYPE_CHECKING:
    from ...probe import Probe

NUM_PASSED = 8  # samples that show what a model gives


def check_model(suite: Mapping[str, Attack], model: nn.Module) -> None:
    """Raises ValueError where an attack's threat is not for this model."""
    for name, attack in suite.items():
        naming(name, attack.threat.check_model, model)


def check_input(suite: Mapping[str, Attack], x: Tensor) -> None:
    """Raises ValueError where an attack's threat cannot start from such samples."""
    for name, attack in suite.items():
        naming(name, attack.threat.check_input, x)


def try_out_training_samples(
    probe: Probe, module: pl.LightningModule, batch: Any, check: Callable[[Samples], None]
) -> tuple[nn.Module, Samples] | None:
    """Warns where a check of the samples of a training batch raises ValueError; those of a validation may be others.

    Returns:
        The model and the samples as they would be measured, where they could be.
    """
    try:
        x, y = images_and_labels(batch, probe.batch_keys)
        check_batch(x, y)
    except ValueError:
        return None  # batches that are only for training
    try:
        model, samples = probe.as_measured(module, Samples(x, y, torch.arange(len(y), device=y.device)))
        check(samples)
    except ValueError as error:
        name = type(probe).__name__
        rank_zero_warn(f"{name} could not attack the training samples, nor any that are like them: {error}")
        return None
    return model, samples


def check_output(suite: Mapping[str, Attack], model: nn.Module, samples: Samples) -> None:
    """Raises ValueError where a model gives no logits for some samples, or an attack cannot be run on its classes.

    Not where a number is not finite, or a label no class: those of a validation may be.
    """
    few = samples.take(slice(0, NUM_PASSED))
    try:
        with frozen_eval(model), torch.no_grad():
            output = model(as_computed(few.x, model))
    except Exception:  # a forward that is not made for batches of the training
        return
    logits = logits_of(output).nan_to_num()
    check_logits(logits, few.ids, "before any attack")
    check_not_probabilities(logits)
    for name, attack in suite.items():
        naming(name, attack.check_classes, logits.shape[1])
