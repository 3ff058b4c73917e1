"""What a layer sees behind views, where positions move and parts are written into, against its gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.nets.receptive_field import receptive_fields

from .oracles import seen_by_gradient


class Moved(nn.Module):
    """A convolution of what some function made of the input."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 2) -> None:
        super().__init__()
        self.function, self.conv = function, nn.Conv2d(channels, 2, (3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.function(x))


class Shuffled(nn.Module):
    """The channels in an order that a buffer keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([1, 0]))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.order] + x.index_select(1, self.order)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), nn.Conv2d(2, 2, 5)), "1"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")), "0"),
        (lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.PixelShuffle(2), nn.Conv2d(2, 2, 2)), "2"),
        (lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.PixelShuffle(2)), "1"),
        (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(8, 2, 2)), "1"),
        (lambda: Moved(lambda x: x.flip(3)), "conv"),
        (lambda: Moved(lambda x: x.flip((2, 3))), "conv"),
        *((lambda k=k: Moved(lambda x: x.rot90(k, (2, 3))), "conv") for k in range(4)),
        (lambda: Moved(lambda x: x.index_select(3, torch.tensor([9, 7, 5, 3, 1]))), "conv"),
        (lambda: Moved(lambda x: x.roll((3, -4), (2, 3))), "conv"),
        (lambda: Moved(lambda x: x.roll(7, 3)), "conv"),
        (lambda: Moved(lambda x: x + x.flip(2)), "conv"),
        (lambda: Moved(lambda x: torch.stack([x, x.roll(3, 2)]).sum(0)), "conv"),
        (lambda: Moved(lambda x: torch.stack([x, torch.ones_like(x), x.flip(3)], -1).mean(-1)), "conv"),
        (lambda: Moved(lambda x: torch.stack(x.unbind(1), 1)), "conv"),
        (lambda: Moved(lambda x: x[:, [1, 0]]), "conv"),
        (lambda: Moved(lambda x: x[:, torch.tensor([[1, 0], [0, 0]])].mean(2)), "conv"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 2), Shuffled(), nn.Conv2d(2, 2, 3)), "2"),
        (lambda: nn.Sequential(Shuffled(), nn.Conv2d(2, 2, 3)), "1"),
        (lambda: Moved(lambda x: x + x.new_ones(x.shape[2:])), "conv"),
        (lambda: Moved(lambda x: x + 0.1 * torch.randn_like(x) + torch.randint_like(x, 2)), "conv"),
        (lambda: Moved(lambda x: torch.zeros(x.shape, dtype=x.dtype).add_(x)), "conv"),
        (lambda: Moved(lambda x: (x - torch.tensor([0.1, 0.2]).view(2, 1, 1)).mul_(torch.rand(1, 2, 1, 1))), "conv"),
        (lambda: Moved(lambda x: F.conv2d(x, torch.ones(1, 2, 3, 5, dtype=x.dtype)), 1), "conv"),
        (lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.GLU(1), nn.Conv2d(4, 2, 3)), "2"),
        (lambda: nn.Sequential(nn.ChannelShuffle(2), nn.RReLU(), nn.Conv2d(2, 2, 3)), "2"),
    ],
)
def test_what_moves_positions_is_seen_where_its_gradient_is(make: Callable[[], nn.Module], name: str) -> None:
    for size in ((2, 12, 14), (2, 16, 18)):
        records = {record.name: record for record in receptive_fields(make(), size)}
        assert list(records[name].centre_sees) == seen_by_gradient(make(), name, size), size


class WritesBehindAView(nn.Module):
    """What is looked at was taken from a tensor before something wider was added to that."""

    def __init__(self, view: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.view = view
        self.narrow, self.wide = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 7, padding=3)
        self.last = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(x)
        view = self.view(y)
        y.add_(self.wide(x))
        return self.last(view)


class AddsToZeros(nn.Module):
    """The same, of a tensor that does not depend on the input when the view is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(2, 2, 5), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        zeros = torch.zeros_like(y)
        view = zeros[:, :, 1:].transpose(2, 3)
        zeros.add_(y)
        return self.last(view)


class ActsOnParts(nn.Module):
    """An activation in place on some of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.last = nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y.view(len(y), -1).mul_(2)
        self.act(y[:, :2])
        return self.last(y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: WritesBehindAView(lambda y: y.view(1, 4, -1)[:, :2].view(1, 2, *y.shape[2:])),
        lambda: WritesBehindAView(lambda y: y[:, 1:3]),
        lambda: WritesBehindAView(lambda y: y[:, ::2, 1:].transpose(2, 3)),
        AddsToZeros,
        ActsOnParts,
    ],
)
def test_a_view_sees_what_is_written_behind_it(make: Callable[[], nn.Module]) -> None:
    record = receptive_fields(make(), (2, 14, 16))[-1]
    assert record.name == "last"
    assert list(record.centre_sees) == seen_by_gradient(make(), "last", (2, 14, 16))


@pytest.mark.parametrize("view", [lambda y: y.chunk(2, 1)[1], lambda y: y.detach()[:, :2], lambda y: y[:, :2].detach()])
def test_views_that_have_no_gradient_do_so_too(view: Callable[[Tensor], Tensor]) -> None:
    expected = seen_by_gradient(WritesBehindAView(lambda y: y[:, :2]), "last", (2, 14, 14))
    assert list(receptive_fields(WritesBehindAView(view), 14)[-1].centre_sees) == expected
