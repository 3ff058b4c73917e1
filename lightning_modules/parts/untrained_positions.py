"""`say_untrained_positions`: samples reach further than the windows that a net with learnt positions is trained on."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from touchstone.nets.positions import LearnedPositions


def say_untrained_positions(net: nn.Module, *, window: int | None, num_read: int) -> None:
    """Warns where a net is to write at positions whose vectors no step of the training reaches.

    Args:
        net: any net.
        window: the tokens of a training window; None where nobody says.
        num_read: tokens that it reads for a sample: its prompt and all that it adds but the last.
    """
    positions = [len(part.vectors) for part in net.modules() if isinstance(part, LearnedPositions)]
    if window is not None and positions and min(max(positions), num_read) > window:
        rank_zero_warn(
            f"LanguageModel: the net has learnt positions for {max(positions)} tokens and is trained on windows of "
            f"{window}, so that samples are written at positions which it never learns: give both one `context`"
        )
