"""`trained_parameters`: what an optimizer gets of a classifier that may be frozen in part."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from touchstone.nets.new_head import NewHead, head_of


def trained_parameters(net: nn.Module, whole: nn.Module, *, by_name: bool) -> list[nn.Parameter]:
    """The parameters of a classifier that are not frozen.

    Warns where the last layer that the net registers is frozen, which need not be the one that gives the logits.

    Args:
        net: pixels to logits.
        whole: the classifier, with what it has beside the net.
        by_name: whether layers were frozen by a list of those that learn, which may lack one.

    Raises:
        ValueError: there is none; or the layer that gives the logits is frozen, that of a `NewHead` or, `by_name`, the
            last one: no other could make up for it.
    """
    trained = [p for p in whole.parameters() if p.requires_grad]
    if not trained:
        raise ValueError(
            f"Classifier(net=...) must have a parameter to train: {type(net).__name__} has none, or all of "
            "its parameters are frozen (requires_grad=False)"
        )
    head = head_of(net)
    if head is None or any(p.requires_grad for p in head[1].parameters()):
        return trained
    if by_name or any(isinstance(part, NewHead) for part in net.modules()):
        raise ValueError(
            f"Classifier(net=...) must train its last layer: `net.{head[0]}` is frozen (requires_grad=False) while "
            "other layers learn; where another gives the logits, NewHead(layer=...) names it"
        )
    rank_zero_warn(
        f"Classifier(net=...): `net.{head[0]}` is frozen (requires_grad=False) while other layers learn; no other "
        "could make up for it, if it is the one that gives the logits"
    )
    return trained
