"""Nets and inputs for which nobody can say what a layer sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.nets.receptive_field import receptive_fields

GRID = torch.zeros(1, 5, 5, 2)


class SamplesAGrid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.grid_sample(x, GRID, align_corners=False)


class DecidesByValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Sorts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(dim=2).values


class WritesOut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        torch.mul(x[:, :, 1:], 2, out=y[:, :, 1:])
        return y


class WritesIntoADetached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y.detach().mul_(x.flip(2))
        return y


class WritesIntoAPart(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, 1:].mul_(x[:, :, :-1])
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), DecidesByValues()), "at 1: "),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), Sorts()), "at 1: sort: of it nothing is known$"),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), WritesIntoAPart()), "writes into a part of a tensor"),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), WritesIntoADetached()), "mul_ writes into a part of a tensor"),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), WritesOut()), "mul writes into a part of a tensor"),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 99)), "at 0: .*(Kernel size can't be greater|negative dim)"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GLU(2)), "at 1: glu: it cuts an axis"),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), torch.jit.script(nn.ReLU())), "at 1: what TorchScript has compiled"),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), SamplesAGrid()), "at 1: grid_sampler_2d: of it nothing"),
        (lambda: nn.Sequential(nn.Linear(16, 3)), "must begin with the channels"),
    ],
)
def test_a_net_that_cannot_be_followed_says_where_and_why(make: Callable[[], nn.Module], message: str) -> None:
    net = make()
    with pytest.raises(ValueError, match=f"receptive_fields.*{message}"):
        receptive_fields(net, 16)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("size", [0, (), (3, 16, 16, 16), (16, -1)])
def test_an_input_size_that_is_none_is_refused(size: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"receptive_fields\(input_size=...\) must be"):
        receptive_fields(nn.Sequential(nn.Conv2d(3, 3, 3)), size)
