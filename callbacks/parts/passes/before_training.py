"""What stands in the way of an attack is better said before a training than after its first epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from touchstone.attacks import Attack
from touchstone.attacks.core.checks import check_batch
from touchstone.attacks.judge.running import naming

from .samples import Samples, images_and_labels

if TYPE_CHECKING:
    from ...probe import Probe


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
) -> None:
    """Warns where a check of the samples of a training batch raises ValueError; those of a validation may be others."""
    try:
        x, y = images_and_labels(batch, probe.batch_keys)
        check_batch(x, y)
    except ValueError:
        return  # batches that are only for training
    try:
        check(probe.as_measured(module, Samples(x, y, y))[1])
    except ValueError as error:
        name = type(probe).__name__
        rank_zero_warn(f"{name} could not attack the training samples, nor any that are like them: {error}")
