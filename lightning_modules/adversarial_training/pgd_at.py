"""`PGDAT`: adversarial training, learning from attacked images in place of the images."""

from __future__ import annotations

from torch import Tensor, nn

from touchstone.attacks import SampleRng

from .inner_attack import InnerAttack
from .strategy import Criterion, Learned


class PGDAT(InnerAttack):
    """Minimises the loss of the worst images that an attack finds.

    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018, equation 2.1.

    Args:
        attack: makes the images; one that climbs to the end (`PGD(to_the_end=True)`), as in the paper, finds worse
            ones than one that stops where the class changes.
        mode: as in `InnerAttack`; the paper's is `"train"`.

    Raises:
        ValueError: `attack` or `mode` is none that `InnerAttack` takes.
    """

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned:
        x_adv = self.attacked(self.attack, model, x, y, rng)

        def take() -> Learned:
            logits = model(x_adv)
            return Learned(criterion(logits, y), logits, again=take)

        return take()
