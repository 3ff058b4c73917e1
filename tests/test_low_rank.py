"""Factors of low rank are the nearest ones, are not unique, and compute what their product computes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from touchstone.nets import ThinResNet, low_rank
from touchstone.nets.low_rank import factors


def matrix(m: int = 12, n: int = 9) -> torch.Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 3, 8, 9, 20])
def test_the_error_is_that_of_the_singular_values_left_out(rank: int) -> None:
    weight = matrix()
    left, right = factors(weight, rank=rank)
    difference = (weight - left @ right).numpy()
    singular = np.linalg.svd(weight.numpy(), compute_uv=False)
    assert np.linalg.norm(difference) == pytest.approx(np.sqrt((singular[rank:] ** 2).sum()), abs=1e-9)
    assert np.linalg.norm(difference, 2) == pytest.approx(singular[rank] if rank < 9 else 0, abs=1e-9)
    assert left.shape == (12, min(rank, 9))


def test_no_other_matrix_of_the_rank_is_nearer() -> None:
    """Neither a random one, nor what gradient descent on the factors comes to from anywhere."""
    weight, rank = matrix(), 3
    left, right = factors(weight, rank=rank)
    best = float((weight - left @ right).norm())
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        a, b = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((12, rank), (rank, 9)))
        for _ in range(400):  # alternating least squares: the exact optimum of one factor at a time
            a = weight @ b.T @ torch.linalg.inv(b @ b.T)
            assert float((weight - a @ b).norm()) >= best - 1e-9
            b = torch.linalg.inv(a.T @ a) @ a.T @ weight
        assert float((weight - a @ b).norm()) == pytest.approx(best, rel=1e-4)
        assert not torch.allclose(a, left, atol=1e-2)  # the same product by other factors: they are not unique
    moved = torch.eye(rank, dtype=torch.float64) + 0.3 * torch.randn(rank, rank, generator=generator).double()
    assert torch.allclose((left @ moved) @ (torch.linalg.inv(moved) @ right), left @ right)


@pytest.mark.parametrize("energy", [0.1, 0.5, 0.9, 0.999, 1.0])
def test_energy_takes_the_smallest_rank_that_keeps_it(energy: float) -> None:
    weight = matrix()
    rank = factors(weight, energy=energy)[0].shape[1]
    squares = np.linalg.svd(weight.numpy(), compute_uv=False) ** 2
    shares = squares.cumsum() / squares.sum()
    assert shares[rank - 1] >= energy - 1e-9
    assert rank == 1 or shares[rank - 2] < energy


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(10, 8), (5, 10)),
    (nn.Linear(10, 8, bias=False), (5, 10)),
    (nn.Conv2d(4, 8, 3, padding=1), (2, 4, 7, 7)),
    (nn.Conv2d(4, 8, (3, 2), stride=2, dilation=2, bias=False), (2, 4, 9, 9)),
    (nn.Conv2d(4, 8, 3, padding="same", padding_mode="reflect"), (2, 4, 7, 7)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_two_layers_compute_what_one_of_the_product_computes(layer: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    pair = low_rank(layer, rank=3)
    assert isinstance(pair, nn.Sequential)
    with torch.no_grad():
        singular = np.linalg.svd(layer.weight.flatten(1).numpy(), full_matrices=False)
        product = (singular[0][:, :3] * singular[1][:3]) @ singular[2][:3]
        expected = layer.__class__.forward
        layer.weight.copy_(torch.from_numpy(product).reshape(layer.weight.shape))
        assert torch.allclose(pair(x), expected(layer, x), atol=1e-5)


def test_all_of_the_rank_computes_the_same_and_a_net_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    net = ThinResNet(8).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.rand(2, 3, 8, 8)
    whole = low_rank(net, rank=15, only_smaller=False)  # all of the first convolution's 16 but one
    with torch.no_grad():
        assert torch.allclose(low_rank(net, energy=1.0)(x), net(x), atol=1e-5)
        assert not torch.allclose(low_rank(net, rank=1)(x), net(x), atol=1e-3)
    assert sum(isinstance(m, nn.Conv2d) for m in whole.modules()) > sum(isinstance(m, nn.Conv2d) for m in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not low_rank(net, rank=4).training


def test_a_layer_whose_factors_are_no_smaller_stays() -> None:
    net = nn.Sequential(nn.Linear(10, 10), nn.Linear(100, 100))
    smaller = low_rank(net, rank=6)
    assert isinstance(smaller[0], nn.Linear)  # type: ignore[index]
    assert isinstance(smaller[1], nn.Sequential)  # type: ignore[index]
    grouped = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2))
    assert isinstance(low_rank(grouped, rank=1)[0], nn.Conv2d)  # type: ignore[index]


def test_a_layer_of_two_names_becomes_one_pair_of_two_names() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(20, 20), nn.ReLU())
            self.decoder = self.encoder[0]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decoder(self.encoder(x))

    net, x = Tied(), torch.rand(3, 20)
    pair = low_rank(net, rank=4)
    assert pair.encoder[0] is pair.decoder  # type: ignore[index]
    assert isinstance(pair.decoder, nn.Sequential)
    left, right = factors(net.decoder.weight.detach(), rank=4)
    hidden = (x @ (left @ right).T + net.decoder.bias).relu()
    expected = hidden @ (left @ right).T + net.decoder.bias
    torch.testing.assert_close(pair(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_a_transformer_computes_what_it_computes_with_the_products(batch_first: bool, whole: bool) -> None:
    """In training and in evaluation, where torch would read the weights of its layers itself."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 64, dropout=0.0, batch_first=batch_first)
    net: nn.Module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False) if whole else layer
    small, by_hand, x = low_rank(net, rank=2), copy.deepcopy(net), torch.rand(3, 5, 16)
    for name, part in by_hand.named_modules():
        if name.rpartition(".")[2] in ("linear1", "linear2"):
            left, right = factors(part.weight.detach(), rank=2)  # type: ignore[operator]
            part.weight = nn.Parameter(left @ right)
            assert isinstance(small.get_submodule(name), nn.Sequential)
        if name.endswith("out_proj"):
            assert torch.equal(small.get_submodule(name).weight, part.weight)  # type: ignore[arg-type]
    torch.testing.assert_close(small(x), by_hand(x), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(x), by_hand.eval()(x), rtol=1e-4, atol=1e-5)


def test_a_net_that_reads_the_weights_of_its_layers_computes_with_the_products() -> None:
    from torchvision.models.swin_transformer import SwinTransformer

    torch.manual_seed(0)
    options: dict[str, Any] = {"patch_size": [4, 4], "depths": [1, 1], "num_heads": [2, 2], "window_size": [2, 2]}
    net = SwinTransformer(**options, embed_dim=16, num_classes=4).eval()
    small = low_rank(net, rank=3)
    pairs = {name: layer for name, layer in small.named_modules() if type(layer).__name__ == "_Pair"}
    assert {name.split(".")[-1] for name in pairs} >= {"qkv", "proj", "reduction"}
    for name, pair in pairs.items():
        net.get_submodule(name).weight.data = pair.weight.detach()
    x = torch.rand(2, 3, 16, 16)
    assert torch.allclose(small(x), net(x), atol=1e-5)


def test_attention_alone_stays_as_it_is() -> None:
    net, x = nn.MultiheadAttention(16, 2), torch.rand(5, 3, 16)
    torch.testing.assert_close(low_rank(net, rank=2)(x, x, x), net(x, x, x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of them"),
        ({"rank": 1, "energy": 0.5}, "give one of them"),
        ({"rank": 0}, "rank=.* >= 1, got 0"),
        ({"energy": 1.5}, r"energy=.* in \(0, 1\], got 1.5"),
    ],
)
def test_a_value_outside_its_range_is_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        low_rank(nn.Linear(2, 2), **options)
