"""What an optimizer gets of a classifier that may be frozen in part, and whether its last layer is in that."""

from __future__ import annotations

from torch import Tensor, nn

from touchstone.nets.last_layer import last_layer
from touchstone.nets.new_head import new_head_in


def trained_parameters(net: nn.Module, whole: nn.Module) -> list[nn.Parameter]:
    """The parameters of a classifier that are not frozen.

    Args:
        net: pixels to logits.
        whole: the classifier, with what it has beside the net.

    Raises:
        ValueError: there is none.
    """
    trained = [p for p in whole.parameters() if p.requires_grad]
    if not trained:
        raise ValueError(
            f"Classifier(net=...) must have a parameter to train: {type(net).__name__} has none, or all of "
            "its parameters are frozen (requires_grad=False)"
        )
    return trained


def check_last_layer(net: nn.Module, x: Tensor) -> None:
    """Refuses a net whose last layer is frozen while others learn, since none of them could make up for it.

    Which one is the last, a forward says, or a `NewHead`.

    Args:
        net: pixels to logits.
        x: a batch that it takes, N >= 1.

    Raises:
        ValueError: that layer is frozen.
    """
    if all(p.requires_grad for p in net.parameters()):
        return
    name = new_head_in(net) or last_layer(net, x[:1])[0]
    if not any(p.requires_grad for p in net.get_submodule(name).parameters()):
        raise ValueError(
            f"Classifier(net=...) must train its last layer: `net.{name}` is frozen (requires_grad=False) while "
            "other layers learn; where another gives the logits, NewHead(layer=...) names it"
        )
