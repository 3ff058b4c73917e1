"""`dream`: what it climbs, what it leaves alone, and what it says when it cannot."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import dream
from touchstone.attacks.dream import start_of
from touchstone.attacks.dreaming import octave_climb
from touchstone.attacks.dreaming.layers import responses_to, select
from touchstone.attacks.dreaming.options import ALLOWED
from touchstone.callbacks.parts.measures.feature_distance import feature_distance

SHAPE = (2, 3, 16, 16)


def make_net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5),
            nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 49, 5),
        )  # fmt: skip


def activations(net: nn.Sequential, depth: int, x: Tensor) -> Tensor:
    """What the first layers put out, computed without hooks."""
    net = net.eval()
    with torch.no_grad():
        return net[:depth](x).flatten(1).clone()


class CountsItsCalls(nn.Module):
    num_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        return x


OPTIONS: list[dict[str, Any]] = [
    {},
    {"objective": "mean"},
    {"jitter": 2},
    {"smoothing": 0.7},
    {"variation_penalty": 1e-3},
    {"num_octaves": 2},
    {"decorrelated": True, "step_size": 0.1},
    {"decorrelated": True, "step_size": 0.1, "num_octaves": 2, "jitter": 1, "objective": "mean"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_layer_responds_more_than_at_the_start(options: dict[str, Any]) -> None:
    net = make_net()
    start = start_of(net, SHAPE, decorrelated=options.get("decorrelated", False))
    found = dream(net, "4", SHAPE, num_steps=15, **options)
    before, after = activations(net, 5, start), activations(net, 5, found)
    measured = (lambda a: a.mean(1)) if options.get("objective") == "mean" else (lambda a: a.square().sum(1).sqrt())
    assert (measured(after) > measured(before)).all()
    assert found.shape == SHAPE
    assert found.min() >= 0
    assert found.max() <= 1


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


def test_the_forward_stops_at_the_layer_and_several_layers_share_it() -> None:
    first, last = CountsItsCalls(), CountsItsCalls()
    net = nn.Sequential(first, make_net()[:2], nn.Conv2d(6, 4, 1), last)
    dream(net, "1", SHAPE, num_steps=3)
    assert (first.num_calls, last.num_calls) == (3, 0)
    dream(net, ["2", "1", "1.0:2"], SHAPE, num_steps=3)
    assert (first.num_calls, last.num_calls) == (6, 0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_layer_gets_the_pictures_that_it_would_get_alone(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    net, layers = make_net().double(), ["4:1", "1", "4:3", "0:2", "4:1"]
    alone = torch.cat([dream(net, layer, SHAPE, num_steps=4, **options) for layer in layers])
    counter = CountsItsCalls()
    together = dream(
        nn.Sequential(counter, *net),
        [f"{int(n[0]) + 1}{n[1:]}" for n in layers],
        SHAPE,
        each=True,
        num_steps=4,
        **options,
    )
    assert torch.allclose(together, alone, atol=1e-9)
    assert counter.num_calls == 4 * options.get("num_octaves", 1)
    monkeypatch.setattr(octave_climb, "PIXELS_AT_ONCE", 3 * SHAPE[2] * SHAPE[3])  # parts with two layers in them
    assert torch.allclose(dream(net, layers, SHAPE, each=True, num_steps=4, **options), alone, atol=1e-9)


def test_work_in_place_behind_a_layer_does_not_reach_it() -> None:
    net, x = make_net().eval(), start_of(make_net(), SHAPE)
    with torch.no_grad(), responses_to(net, ["1", "4"], "mean") as responses:
        found = responses(x)
    assert torch.allclose(found["1"], activations(net, 2, x).mean(1))
    assert torch.allclose(found["4"], activations(net, 5, x).mean(1))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was_whatever_the_context(context: Any) -> None:
    net = make_net().train()
    net[1].eval()
    net[4].requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    with context():
        x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
        inside = dream(net, "4", x, num_steps=3)
    assert torch.equal(inside, dream(net, "4", x.clone(), num_steps=3))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [m.training for m in net] == [True, False, *[True] * 6]
    assert [p.requires_grad for p in net.parameters()] == [True] * 4 + [False] * 2 + [True] * 2
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("broken")


def test_no_hook_is_left_behind_by_an_error() -> None:
    net = nn.Sequential(make_net(), Breaks(), nn.ReLU())
    with pytest.raises(RuntimeError, match="broken"):
        dream(net, ["0.0", "2"], SHAPE)
    with pytest.raises(ValueError, match="there is no 99"):
        dream(net, "0.0:99", SHAPE)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert net.training


def test_alone_or_in_a_batch_a_picture_becomes_the_same() -> None:
    net = make_net().double()
    together = dream(net, "4", (3, 3, 16, 16), num_steps=5, jitter=2)
    x = start_of(net, (3, 3, 16, 16))
    assert torch.allclose(together[2:], dream(net, "4", x[2:], num_steps=5, jitter=2), atol=1e-12)
    assert torch.equal(together[:1], dream(net, "4", (1, 3, 16, 16), num_steps=5, jitter=2))
    assert not torch.equal(start_of(net, SHAPE, seed=1), start_of(net, SHAPE, seed=2))


def test_few_pictures_go_through_the_net_at_once_and_become_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, options = make_net().double(), {"num_steps": 4, "jitter": 2, "num_octaves": 2}
    together = dream(net, "4", (5, 3, 16, 16), **options)
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(octave_climb, "PIXELS_AT_ONCE", 2 * 16 * 16)
    assert torch.allclose(dream(net, "4", (5, 3, 16, 16), **options), together, atol=1e-12)
    assert sizes == [2] * 16 + [1] * 8


def test_half_precision_is_dreamt_in_float32() -> None:
    found = dream(make_net().bfloat16(), "4", SHAPE, num_steps=3)
    assert found.dtype == torch.float32
    assert not torch.equal(found, start_of(make_net(), SHAPE))


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


@pytest.mark.parametrize(
    ("layer", "x", "options", "message"),
    [
        ("0:a", SHAPE, {}, r"layer='0:a'\) must end in numbers"),
        ("0:1,99", SHAPE, {}, "for one sample has the shape"),
        ([], SHAPE, {}, "at least one layer"),
        (4, SHAPE, {}, r"^dream\(layer=...\) must be a layer by its name, such as 'features.7', got 4$"),
        (["0", 4], SHAPE, {}, r"^dream\(layer=...\) must be a layer by its name, such as 'features.7', got 4$"),
        ([4], SHAPE, {"each": True}, r"^dream\(layer=...\) must be a layer by its name, .* got 4$"),
        (nn.ReLU(), SHAPE, {}, r"^dream\(layer=...\) must be a layer by its name, .* got ReLU\(\)$"),
        (
            ["2", "4:1", "2"],
            SHAPE,
            {},
            r"dream\(layer=...\) must be different layers, whose sum is climbed, got '2' twice",
        ),
        ("0", (3, 16, 16), {}, r"must be pictures `\(N, C, H, W\)`"),
        (
            "0",
            torch.ones(SHAPE) * 255,
            {},
            r"^dream\(x=...\): pictures must be pixels in \[0, 1\], got values from 255 to 255$",
        ),
        ("0", torch.ones(SHAPE, dtype=torch.uint8), {}, r"^dream\(x=...\): pictures must be floats, got torch.uint8"),
        ("0", SHAPE, {"num_steps": 0}, r"num_steps=...\) must be >= 1, got 0"),
        ("0", SHAPE, {"step_size": 0.0}, r"step_size=...\) must be > 0"),
        ("0", SHAPE, {"objective": "L2"}, "must be one of 'l2', 'mean', got 'L2'; did you mean 'l2'.; a class"),
        ("0", SHAPE, {"octave_scale": 1.0}, "must be > 1"),
        ("0", SHAPE, {"jitter": -1}, "must be >= 0"),
        ("0", SHAPE, {"smoothing": 1.0, "decorrelated": True}, "no neighbours"),
        ("0", SHAPE, {"objective": "logit"}, "'l2', 'mean', got 'logit'; a class's logit is the layer of logits"),
        ("0", SHAPE, {"objective": ["l2"]}, "'l2', 'mean', got"),
        ("0", SHAPE, {"objective": "means"}, "got 'means'; did you mean 'mean'"),
        ("0", SHAPE, {"num_steps": "many"}, r"num_steps=...\) must be a whole number >= 1, got 'many'"),
        ("0", SHAPE, {"num_steps": 2.5}, "a whole number >= 1, got 2.5"),
        ("0", SHAPE, {"num_steps": True}, "a whole number >= 1, got True"),
        ("0", SHAPE, {"num_octaves": 1.5}, "a whole number >= 1, got 1.5"),
        ("0", SHAPE, {"jitter": 1.5}, r"jitter=...\) must be a whole number >= 0, got 1.5"),
        ("0", SHAPE, {"seed": "a"}, r"seed=...\) must be a whole number, got 'a'"),
        ("0", SHAPE, {"smoothing": float("inf")}, r"smoothing=...\) must be >= 0 and finite, got inf"),
        ("0", SHAPE, {"step_size": float("nan")}, "must be > 0 and finite, got nan"),
        ("0", SHAPE, {"step_size": "1e-3"}, "must be a number > 0 and finite, got '1e-3'"),
        ("0", SHAPE, {"octave_scale": float("inf")}, "must be > 1 and finite"),
        ("0", SHAPE, {"variation_penalty": -1}, "must be >= 0 and finite, got -1"),
        ("0", SHAPE, {"decorrelated": 1}, r"decorrelated=...\) must be True or False, got 1"),
    ],
)
def test_what_cannot_be_dreamt_says_why(layer: Any, x: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dream(make_net(), layer, x, **options)


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


def test_a_picture_without_a_gradient_stays_and_it_is_said() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    nn.init.constant_(net[0].weight, 1.0)
    nn.init.constant_(net[0].bias, -5.0)
    x = torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.9)])  # of the first no unit is awake
    with pytest.warns(UserWarning, match=r"layer='1'\): 1 of 2 pictures stay as they began; of 1, no gradient"):
        dreamt = dream(net, "1", x, num_steps=2)
    assert torch.equal(dreamt[0], x[0])
    assert not torch.equal(dreamt[1], x[1])


class SumsOfKinds(nn.Module):
    """The sum of a picture's pixels; not a number where the first one is below a half."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.sum((1, 2, 3)) * torch.where(x[:, 0, 0, 0] < 0.5, torch.nan, 1.0))[:, None]


def test_what_keeps_a_picture_as_it_began_is_said() -> None:
    """White can only grow darker, and its sum only larger; of black the response is NaN; grey moves."""
    white, black, grey = (torch.full((3, 8, 8), value) for value in (1.0, 0.0, 0.6))
    with pytest.warns(UserWarning, match="3 of 4 pictures stay as they began; of 1, the response .* is NaN") as told:
        dreamt = dream(SumsOfKinds(), "", torch.stack([white, black, white, grey]), num_steps=1)
    assert "of 2, no step along their gradient leads anywhere inside [0, 1]" in str(told[0].message)
    assert "no gradient comes" not in str(told[0].message)
    assert [bool((dreamt[row] != start).any()) for row, start in enumerate((white, black, white, grey))] == [
        *(False, False, False, True)
    ]


@pytest.mark.parametrize("options", [{}, {"decorrelated": True}, {"smoothing": 1.0}], ids=str)
def test_steps_that_are_too_small_for_a_pixel_are_called_so(options: dict[str, Any]) -> None:
    grey = torch.full((1, 3, 8, 8), 0.6)
    with pytest.warns(
        UserWarning, match="began; of 1, the steps are too small to change a pixel: take a larger"
    ) as told:
        dream(SumsOfKinds(), "", grey, num_steps=1, step_size=1e-12, **options)
    assert "saturated" not in str(told[0].message)


def test_why_pictures_stay_is_asked_of_as_few_at_once_as_are_climbed(monkeypatch: pytest.MonkeyPatch) -> None:
    net, sizes = SumsOfKinds(), []
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(octave_climb, "PIXELS_AT_ONCE", 2 * 8 * 8)
    with pytest.warns(UserWarning, match="5 of 5 pictures stay"):
        dream(net, "", torch.ones(5, 3, 8, 8), num_steps=1)
    assert max(sizes) == 2


def test_the_layers_that_are_listed_are_those_that_a_forward_may_run() -> None:
    from touchstone.lightning_modules import Classifier

    with pytest.raises(ValueError, match=r"layer='conv1'\) must be a layer") as raised:
        dream(Classifier(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())), "conv1", SHAPE)
    assert set(str(raised.value).split(": ")[1].split(", ")) == {"net", "net.0", "net.1"}


def test_every_option_is_checked() -> None:
    options = {n for n, p in inspect.signature(dream).parameters.items() if p.kind == p.KEYWORD_ONLY}
    assert options == {*ALLOWED, "each"}  # which is no option of a config


def test_a_layer_that_is_not_run_is_named() -> None:
    net = nn.ModuleDict({"used": nn.Conv2d(3, 3, 3), "unused": nn.Conv2d(3, 3, 3)})
    net.forward = lambda x: net["used"](x)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"layer='unused'\): the model's forward does not run this layer"):
        dream(net, "unused", SHAPE)


@pytest.mark.gpu
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_dream_is_dreamt_on_cuda(options: dict[str, Any]) -> None:
    net = make_net().cuda()
    start = start_of(net, SHAPE, decorrelated=options.get("decorrelated", False))
    found = dream(net, "4", SHAPE, num_steps=15, **options)
    objective = options.get("objective", "l2")
    with torch.no_grad(), responses_to(net.eval(), ["4"], objective) as responses:
        assert (responses(found)["4"] > responses(start)["4"]).all()
    assert found.device == start.device
    assert found.device.type == "cuda"
