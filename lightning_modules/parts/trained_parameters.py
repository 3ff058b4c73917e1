"""`trained_parameters`: what an optimizer gets of a classifier that may be frozen in part."""

from __future__ import annotations

from torch import nn

from touchstone.nets.new_head import head_of


def trained_parameters(net: nn.Module, whole: nn.Module) -> list[nn.Parameter]:
    """The parameters of a classifier that are not frozen.

    Args:
        net: pixels to logits.
        whole: the classifier, with what it has beside the net.

    Raises:
        ValueError: there is none, or the layer that gives the logits is frozen: no other could make up for it.
    """
    trained = [p for p in whole.parameters() if p.requires_grad]
    if not trained:
        raise ValueError(
            f"Classifier(net=...) must have a parameter to train: {type(net).__name__} has none, or all of "
            "its parameters are frozen (requires_grad=False)"
        )
    head = head_of(net)
    if head is not None and not any(p.requires_grad for p in head[1].parameters()):
        raise ValueError(
            f"Classifier(net=...) must train its last layer: `net.{head[0]}` is frozen (requires_grad=False) while "
            "other layers learn"
        )
    return trained
