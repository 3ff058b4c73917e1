"""What a layer sees, against published figures and against the gradient of its centre unit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from touchstone.nets.receptive_field import LayerSight, receptive_fields, table

from .oracles import seen_by_gradient


class OnesPool(nn.Module):
    """Looks where a max pooling looks, and has a gradient everywhere there: a convolution by ones."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.ones(x.shape[1], 1, *self.pool.kernel_size, dtype=x.dtype)
        return F.conv2d(x, kernel, None, self.pool.stride, self.pool.padding, self.pool.dilation, groups=x.shape[1])


class Block(nn.Module):
    """Branches that meet by a sum, with a function called in between."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (branch(x) for branch in self.branches)
        for other in others:
            first = first + F.relu(other[:, :, : first.shape[2], : first.shape[3]])
        return torch.cat([first, first], dim=1)[:, :2]


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.tuples(st.integers(0, 2), st.integers(0, 2))
modes = st.sampled_from(["zeros", "zeros", "reflect", "replicate"])
convolutions = st.builds(
    lambda k, s, p, d, mode: nn.Conv2d(2, 2, k, s, p, d, padding_mode=mode), pairs, strides, paddings, strides, modes
)
transposed = st.builds(
    lambda k, s, d: nn.ConvTranspose2d(2, 2, k, s, (0, 0) if min(k) < 2 else (1, 1), dilation=d),
    pairs,
    strides,
    strides,
)
pools = st.builds(
    lambda k, s, half, d: nn.MaxPool2d(k, s, tuple(n // 2 for n in k) if half else 0, d),
    pairs, strides, st.booleans(), strides,
)  # fmt: skip
average = st.builds(lambda k, s: nn.AvgPool2d(k, s), pairs, strides)
adaptive = st.builds(nn.AdaptiveAvgPool2d, pairs)
upsampling = st.one_of(
    st.builds(lambda f: nn.Upsample(scale_factor=f), st.tuples(st.sampled_from([1, 2, 3, 1.5]), st.just(2))),
    st.builds(lambda a, n: nn.Upsample(size=n, mode="bilinear", align_corners=a), st.booleans(), st.integers(3, 20)),
    st.builds(lambda: nn.Upsample(scale_factor=2, mode="bicubic")),
    st.builds(lambda f: nn.Upsample(scale_factor=f, mode="nearest-exact"), st.sampled_from([1, 2, 3, 1.5])),
)
blocks = st.builds(lambda: Block(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1), nn.Identity()))
layers = st.one_of(convolutions, transposed, pools, average, adaptive, upsampling, blocks)


@settings(max_examples=60, deadline=None, phases=(Phase.generate,))
@given(st.lists(layers, min_size=1, max_size=4), st.tuples(st.integers(5, 24), st.integers(5, 24)))
def test_the_centre_unit_sees_where_its_gradient_is_not_zero(stack: list[nn.Module], size: tuple[int, int]) -> None:
    net = nn.Sequential(*stack)
    oracle = nn.Sequential(*(OnesPool(layer) if isinstance(layer, nn.MaxPool2d) else layer for layer in stack))
    try:
        net.double()(torch.rand(1, 2, *size, dtype=torch.float64))
    except (RuntimeError, ValueError):  # too small for its layers
        assume(False)
    records = {record.name: record for record in receptive_fields(net, (2, *size))}
    for number, layer in enumerate(stack):
        if not isinstance(layer, Block):
            record = records[str(number)]
            assert list(record.centre_sees) == seen_by_gradient(oracle, str(number), (2, *size)), record
            if all(getattr(below, "padding_mode", "zeros") == "zeros" for below in stack):  # others repeat what is far
                spans = [seen and seen[1] - seen[0] + 1 for seen in record.centre_sees]
                assert all(n is None or n <= most for n, most in zip(spans, record.receptive_field, strict=True))


short = st.one_of(
    st.builds(nn.AvgPool1d, st.integers(1, 4)),
    st.builds(nn.AdaptiveAvgPool1d, st.integers(1, 3)),
    st.builds(lambda f: nn.Upsample(scale_factor=f), st.integers(1, 4)),
    st.builds(lambda k, s: nn.ConvTranspose1d(2, 2, k, s), st.integers(1, 4), st.integers(1, 3)),
    st.builds(lambda k: nn.Conv1d(2, 2, k, padding=k // 2), st.integers(1, 4)),
)


@settings(max_examples=60, deadline=None, phases=(Phase.generate,))
@given(st.lists(short, min_size=2, max_size=5), st.integers(3, 6))
def test_an_axis_of_length_one_is_followed_on(stack: list[nn.Module], size: int) -> None:
    net = nn.Sequential(*stack)
    try:
        shape = net.double()(torch.rand(1, 2, size, dtype=torch.float64)).shape
    except (RuntimeError, ValueError):  # too small for its layers
        assume(False)
    record = receptive_fields(net, (2, size))[-1]
    assert record.output_size == shape[2:]
    assert list(record.centre_sees) == seen_by_gradient(net, record.name, (2, size)), record


def by_name(net: nn.Module, size: int) -> dict[str, LayerSight]:
    return {record.name: record for record in receptive_fields(net, size)}


def test_the_original_alexnet_sees_what_is_published() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(384, 384, 3, padding=1),
    )  # fmt: skip
    found = by_name(net, 227)
    sizes = [found[name].output_size for name in ("0", "2", "3", "5", "6", "8")]
    assert sizes == [(n, n) for n in (55, 27, 27, 13, 13, 13)]
    sees = [found[name].centre_sees for name in ("0", "3", "6", "8")]
    assert sees == [(span, span) for span in ((105, 115), (81, 131), (49, 147), (33, 163))]
    assert [found[name].receptive_field[0] for name in ("0", "3", "6", "8")] == [11, 51, 99, 131]
    assert [found[name].effective_stride[0] for name in ("0", "3", "6", "8")] == [4, 8, 16, 16]


def test_the_alexnet_of_torchvision_is_padded() -> None:
    from torchvision.models import alexnet

    found = by_name(alexnet(weights=None), 224)
    assert found["features.0"].output_size == (55, 55)
    assert found["features.0"].centre_sees == ((103, 113),) * 2  # 227 px, unpadded: 105 to 115
    assert list(found["features.0"].centre_sees) == seen_by_gradient(alexnet(weights=None).features, "0", (3, 224, 224))


@pytest.mark.parametrize(
    ("make", "layer", "field", "stride"),
    # Araujo, Norris and Sim, 2019, table 1; their ResNet has its strides in the 1 x 1 convolutions, torchvision's not.
    [("alexnet", "features.12", 195, 32), ("vgg16", "features.30", 212, 32), ("resnet50", "layer4", 427, 32)],
)
def test_known_nets_have_their_known_fields(make: str, layer: str, field: int, stride: int) -> None:
    import torchvision

    with torch.device("meta"):  # no weights are needed
        net = getattr(torchvision.models, make)(weights=None)
    found = [record for record in receptive_fields(net) if record.name.startswith(layer)]
    assert found[-1].receptive_field == (field, field)
    assert found[-1].effective_stride == (stride, stride)


def test_upsampling_halves_the_stride_and_functions_have_records() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.up = nn.ConvTranspose2d(4, 4, 4, stride=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(F.max_pool2d(self.conv(x), 2)).mean((2, 3))

    found = by_name(Net(), 32)
    assert list(found) == ["conv", "max_pool2d", "up"]
    assert found["max_pool2d"].effective_stride == (4.0, 4.0)
    assert found["up"].effective_stride == (1.0, 1.0)
    assert found["up"].receptive_field == (5, 5)
    assert found["up"].centre_sees == ((12, 16), (12, 16))


def test_attention_and_pooling_over_everything_see_everything() -> None:
    from torchvision.ops import SqueezeExcitation

    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), SqueezeExcitation(4, 2), nn.Flatten(), nn.Linear(4 * 81, 5))
    assert receptive_fields(net, 9)[0].centre_sees == ((3, 5), (3, 5))
    assert all(record.centre_sees == ((1, 9), (1, 9)) for record in receptive_fields(net, 9)[1:])
    assert receptive_fields(net, 9)[-1].output_size == ()


@pytest.mark.parametrize("convolution", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
@pytest.mark.parametrize("options", [{"scale_factor": 2}, {"scale_factor": 2.5}, {"size": 7}, {"size": 16}], ids=str)
def test_the_exact_nearest_unit_is_seen_where_its_gradient_is(convolution: Any, options: dict[str, Any]) -> None:
    def make() -> nn.Sequential:
        return nn.Sequential(convolution(2, 2, 3), nn.Upsample(mode="nearest-exact", **options), convolution(2, 2, 2))

    input_size = (2, *[13] * int(convolution.__name__[-2]))
    for record in receptive_fields(make(), input_size):
        assert list(record.centre_sees) == seen_by_gradient(make(), record.name, input_size), record


@pytest.mark.parametrize("boundary", ["zeros", "reflect", "circular"])
def test_layers_by_hand_are_followed(boundary: Any) -> None:
    from touchstone.nets import handmade

    def make() -> nn.Sequential:
        kernels = (5, 4, 3)
        return nn.Sequential(*(handmade.Conv1d(1, 1, kernel, boundary=boundary) for kernel in kernels))

    for size in (9, 30, 31):
        records = receptive_fields(make(), size)
        assert [record.output_size for record in records] == [(size,)] * 3
        for record in records:
            assert list(record.centre_sees) == seen_by_gradient(make(), record.name, (1, size))
    assert [record.receptive_field for record in records] == [(5,), (8,), (10,)]


def test_the_net_by_hand_is_followed_to_its_end() -> None:
    from touchstone.nets import HandmadeNet

    found = receptive_fields(HandmadeNet(), 64)
    kinds = [record.kind for record in found]
    assert {"Conv1d", "MaxPool1d", "Linear"} <= set(kinds)
    for before, pool in itertools.pairwise(found):
        if pool.kind == "MaxPool1d":  # of stride 1: each unit sees as much more as the window is wide
            assert pool.receptive_field[0] > before.receptive_field[0]
            assert pool.output_size == before.output_size


@pytest.mark.parametrize("parametrized", [weight_norm, spectral_norm])
def test_a_layer_whose_weights_are_computed_is_a_layer(parametrized: Callable[[nn.Module], nn.Module]) -> None:
    def make(change: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
        return nn.Sequential(change(nn.Conv2d(3, 2, 3)), nn.Flatten(), change(nn.Linear(72, 5)))

    assert receptive_fields(make(parametrized), 8) == receptive_fields(make(lambda layer: layer), 8)


def test_signals_have_one_axis() -> None:
    net = nn.Sequential(nn.Conv1d(1, 2, 5), nn.MaxPool1d(2), nn.Conv1d(2, 2, 3, dilation=2))
    last = receptive_fields(net, 64)[-1]
    assert (last.output_size, last.receptive_field, last.centre_sees) == ((26,), (14,), ((25, 38),))


def test_a_net_that_is_spread_over_devices_sees_what_it_sees_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert receptive_fields(nn.DataParallel(net), 16) == receptive_fields(net, 16)


def test_the_net_is_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True)).train()
    net[1].eval()
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    with torch.inference_mode():
        receptive_fields(net, 16)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [m.training for m in net.modules()] == [True, True, False, True, True]
    assert torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class HeadFirst(nn.Module):
    """What comes last in the forward is registered first, beside a name that says something else."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.in_channels = head, 512
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(y.mean(3) if isinstance(self.head, nn.Conv1d) else y.mean((2, 3)))


def test_the_first_convolution_tells_the_input_whatever_is_registered_before_it() -> None:
    net = HeadFirst(nn.BatchNorm1d(8))
    for size in (20, (20, 20), (3, 20, 20)):
        assert receptive_fields(net, size)[0].centre_sees == ((9, 11), (9, 11))


def test_an_input_that_is_given_whole_is_taken_and_asked_for_where_a_guess_fails() -> None:
    net = HeadFirst(nn.Conv1d(8, 2, 1))
    assert receptive_fields(net, (3, 20, 20))[0].centre_sees == ((9, 11), (9, 11))
    with pytest.raises(
        ValueError, match=r"at conv: .*; the size may be given with the channels first, as \(C, H, W\)$"
    ):
        receptive_fields(net, 20)


def test_the_table_has_a_line_for_each_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, (3, 5), stride=2), nn.Flatten(), nn.Linear(3 * 42, 2))
    lines = table(receptive_fields(net, 16)).splitlines()
    assert lines[0].split() == ["layer", "kind", "size", "sees", "stride", "centre", "sees"]
    assert lines[1].split() == ["0", "Conv2d", "7", "x", "6", "3", "x", "5", "2", "5-7", "x", "5-9"]
    assert lines[3].split()[:3] == ["2", "Linear", "-"]
