"""What a layer of `dream` may be: its names and channels, what puts its samples elsewhere, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import dream
from touchstone.attacks.dream import start_of
from touchstone.attacks.dreaming.layers import responses_to, select
from touchstone.callbacks.parts.measures.feature_distance import feature_distance

from .dream_setting import SHAPE, make_net


@pytest.mark.parametrize("layer", ["0:3", "7:2", ":2", "0:3,5,6"])
def test_channels_and_units_by_name(layer: str) -> None:
    net, x = make_net().eval(), start_of(make_net(), SHAPE)
    name, index = layer.split(":")
    with torch.no_grad(), responses_to(net, [layer], "mean") as responses:
        found = responses(x)[layer]
        output = net[0](x) if name == "0" else net(x)
    expected = output[(slice(None), *map(int, index.split(",")))].reshape(2, -1).mean(1)
    assert torch.allclose(found, expected)
    assert not torch.equal(dream(net, layer, x, num_steps=2), x)


class Tokens(nn.Module):
    """Patches of a picture as tokens of five features, `(N, 16, 5)`, and what a linear layer makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.linear = nn.Conv2d(3, 5, 4, stride=4), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.patches(x).flatten(2).transpose(1, 2))


def test_channels_of_tokens_are_their_features() -> None:
    net, x = Tokens(), start_of(make_net(), SHAPE)
    with torch.no_grad(), responses_to(net, ["linear:3", "linear:3,7", "linear"], "mean") as responses:
        found, output = responses(x), net(x)
    assert torch.allclose(found["linear:3"], output[:, :, 3].mean(1))
    assert torch.allclose(found["linear:3,7"], output[:, 7, 3])
    assert torch.allclose(found["linear"], output.mean((1, 2)))
    with pytest.raises(ValueError, match=r"has the shape \(4, 16\), channels first, so that there is no 4"):
        dream(net, "linear:4", x)


class TokensFirst(nn.Module):
    """Patches as tokens before pictures, `(T, N, D)`, as of torch's own transformer, and back again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.inner = nn.Conv2d(3, 4, 8, stride=8), nn.TransformerEncoderLayer(4, 2, 8)
        self.windows, self.back = nn.Linear(4, 4), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.inner(self.patches(x).flatten(2).permute(2, 0, 1))
        tokens = self.windows(tokens.reshape(-1, 4)).reshape(tokens.shape)
        return self.back(tokens.transpose(0, 1))


@pytest.mark.parametrize("num_pictures", [1, 3, 4])
@pytest.mark.parametrize("layer", ["inner", "inner:3", "windows"])
def test_a_layer_that_puts_tokens_or_windows_first_is_refused(layer: str, num_pictures: int) -> None:
    """Also of as many pictures as there are tokens, 4."""
    net, x = TokensFirst(), torch.rand(num_pictures, 3, 16, 16)
    name = layer.partition(":")[0]
    with pytest.raises(ValueError, match=rf"dream\(layer='{name}'\): of \d samples it puts out \(.* choose a layer be"):
        dream(net, layer, x, num_steps=1)
    with pytest.raises(ValueError, match=rf"feature_distance\(layer='{name}'\): of \d samples it puts out"):
        feature_distance(net, [name], x, x)
    assert dream(net, ["patches:1", "back"], x, num_steps=1).shape == x.shape


def test_an_unknown_layer_lists_those_that_there_are_the_nearest_first() -> None:
    from torchvision.models import resnet18

    with torch.device("meta"):  # no weights are needed
        net = resnet18()
    with pytest.raises(
        ValueError, match=r"must be a layer of ResNet: layer3.1.conv1, layer3.1.conv2, .*, and \d+ more"
    ):
        select(net, "layer3.1.conv3")


def test_the_end_of_a_name_will_do_where_it_is_one_layers_only() -> None:
    net = nn.ModuleDict({"a": nn.Sequential(nn.ReLU(), nn.ReLU()), "b": nn.Sequential(nn.ReLU())})
    assert select(net, "1:3").name == "a.1"
    with pytest.raises(ValueError, match="must be a layer of ModuleDict: a.0, b.0"):
        select(net, "0")


@pytest.mark.parametrize(("first", "second"), [("body.2", "2"), ("2:1", "body.2:01"), ("body.2:1", "2:1")])
def test_a_layer_under_two_names_is_given_twice(first: str, second: str) -> None:
    net = nn.Sequential()
    net.add_module("body", make_net())
    with pytest.raises(ValueError, match=f"must be different layers, .* got '{first}' and '{second}', which are one$"):
        dream(net, [first, second], SHAPE)
    assert len(dream(net, [first, second], SHAPE, num_steps=1, each=True)) == 2 * SHAPE[0]


@pytest.mark.parametrize("name", ["", "0"])
def test_a_layer_that_is_given_twice_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"got '{name}' twice$"):
        dream(make_net(), [name, name], SHAPE)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("compiled", [torch.jit.script, lambda net: torch.jit.trace(net, torch.rand(SHAPE))])
def test_layers_of_a_compiled_net_are_refused_and_its_output_is_climbed(compiled: Any) -> None:
    net, made = make_net().eval(), compiled(make_net().eval())
    for model, layer in ((made, "0"), (made, "0.4"), (nn.Sequential(nn.Identity(), made), "1.4")):
        with pytest.raises(ValueError, match=rf"dream\(layer='{layer}'\).* of TorchScript"):
            dream(model, layer, SHAPE)
    with pytest.raises(ValueError, match=r"must be a layer of Sequential"):
        dream(made, "nowhere", SHAPE)
    assert torch.allclose(dream(made, ":2", SHAPE, num_steps=3), dream(net, ":2", SHAPE, num_steps=3), atol=1e-5)


def test_the_layers_that_are_listed_are_those_that_a_forward_may_run() -> None:
    from touchstone.lightning_modules import Classifier

    with pytest.raises(ValueError, match=r"layer='conv1'\) must be a layer") as raised:
        dream(Classifier(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())), "conv1", SHAPE)
    assert set(str(raised.value).split(": ")[1].split(", ")) == {"net", "net.0", "net.1"}


def test_a_layer_that_is_not_run_is_named() -> None:
    net = nn.ModuleDict({"used": nn.Conv2d(3, 3, 3), "unused": nn.Conv2d(3, 3, 3)})
    net.forward = lambda x: net["used"](x)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"layer='unused'\): the model's forward does not run this layer"):
        dream(net, "unused", SHAPE)
