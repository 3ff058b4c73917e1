"""`PerClass`: recall of each class and balanced accuracy, where one accuracy hides the classes of few samples."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import nn

from touchstone.attacks.core.checks import check_labels, check_shape_of_logits
from touchstone.attacks.core.logits import predicted

from .parts.passes.measuring import measuring
from .parts.passes.recalls import recalls
from .parts.passes.samples import Samples
from .probe import Probe


class PerClass(Probe):
    """Logs the accuracy of each class (recall), and the mean over the classes.

    With S for val or test: `S/recall/NAME` for each class, by its name in the data module or else by its number, and
    `S/balanced_accuracy`, the mean over the classes that have samples (Brodersen et al., "The balanced accuracy and its
    posterior distribution", 2010). It passes every sample once more. After attacks: `RobustAccuracy(per_class=True)`.

    Args:
        every_n_epochs, max_samples, normalization, batch_keys: as in `Probe`.
    """

    tried_by_measuring = True

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        with measuring(model, samples) as (x, y), torch.no_grad():
            logits = model(x)
            check_shape_of_logits(logits, len(y))
            check_labels(y.clamp_max(logits.shape[1] - 1), logits.shape[1], samples.ids)  # one beyond is missed
            right = predicted(logits) == y
        self.keep(samples, {"right": right, "label": y}, loader_index)

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str, loader_index: int) -> None:
        values = self.gathered(loader_index)
        if not values:
            return
        shares = recalls(trainer, values["right"], values["label"])
        for name, share in shares.items():
            self.log_figure(trainer, module, f"{stage}/recall/{name}", share, loader_index)
        self.log_figure(trainer, module, f"{stage}/balanced_accuracy", sum(shares.values()) / len(shares), loader_index)
