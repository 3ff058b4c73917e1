"""The state of a model that the judge watches: buffers of every layout, and metrics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from touchstone.attacks import evaluate

from .judged import PGD_5, Custom


class Metered(nn.Module):
    """Keeps a torchmetric, whose states are in no buffer."""

    def __init__(self, net: nn.Module, *, counts: bool) -> None:
        super().__init__()
        self.net, self.counts, self.accuracy = net, counts, MulticlassAccuracy(num_classes=4)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        if self.counts:
            self.accuracy.update(logits, logits.argmax(1))
        return logits


@pytest.mark.parametrize("counts", [False, True])
def test_a_metric_that_a_forward_updates_is_a_state_that_the_model_changes(
    net: nn.Module, x: Tensor, y: Tensor, counts: bool
) -> None:
    model = Metered(net, counts=counts)
    warnings = evaluate(model, x, y, {"pgd": PGD_5}).warnings
    assert [warning for warning in warnings if "its own state" in warning] == warnings
    assert any("(the metric accuracy)" in warning for warning in warnings) is counts


class Scaled(nn.Module):
    """Keeps a buffer of the layout that a test wants."""

    def __init__(self, buffer: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", buffer)

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.flatten(1)[:, :4]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize(
    "lay_out",
    [
        lambda eye: eye[:, 0],
        lambda eye: eye[0, :1].expand(5),
        Tensor.to_sparse,
        Tensor.to_sparse_csr,
        Tensor.to_sparse_csc,
    ],
    ids=["column", "expanded", "coo", "csr", "csc"],
)
def test_buffers_of_every_layout_are_watched(x: Tensor, lay_out: Callable[[Tensor], Tensor]) -> None:
    def grow(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        model.kept = 2 * model.kept  # type: ignore[operator]
        return x.clone()

    model = Scaled(lay_out(torch.eye(4)))
    y = model(x).argmax(1)
    assert evaluate(model, x, y, {"lazy": Custom(lambda model, x, y: x.clone())}).robust["lazy"].all()
    with pytest.raises(ValueError, match="attack 'a' changed the model: kept"):
        evaluate(model, x, y, {"a": Custom(grow)})
