"""Attention, positions and the transformer block: against torch's own, and by the properties that attention has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradgradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel

from touchstone.nets.attention import Attention, attend, rotate
from touchstone.nets.positions import LearnedPositions, SinusoidalPositions
from touchstone.nets.set_classifier import SetClassifier
from touchstone.nets.transformer import FeedForward, TransformerBlock

B, T, D, N = 3, 7, 16, 4
PADDING = torch.tensor([[False] * 7, [False] * 4 + [True] * 3, [True] * 2 + [False] * 5])


in_both_precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["float64", "float32"]
)


def close(own: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(own, expected, atol=tolerance, rtol=tolerance)


def tokens(seed: int = 0) -> Tensor:
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention(**options: Any) -> Attention:
    torch.manual_seed(1)
    net = Attention(D, N, **options).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net


def copied_from(own: Attention, oracle: nn.MultiheadAttention) -> None:
    own.qkv.weight.data, own.qkv.bias.data = oracle.in_proj_weight.data, oracle.in_proj_bias.data
    own.out.weight.data, own.out.bias.data = oracle.out_proj.weight.data, oracle.out_proj.bias.data


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", [None, PADDING])
@pytest.mark.parametrize("return_maps", [False, True])
def test_attention_is_that_of_torch(causal: bool, padding: Tensor | None, return_maps: bool) -> None:
    own, oracle = attention(causal=causal), nn.MultiheadAttention(D, N, batch_first=True).double()
    copied_from(own, oracle)
    x = tokens().requires_grad_()
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    expected, weights = oracle(x, x, x, padding, attn_mask=hidden, average_attn_weights=False)
    output, seen = own(x, padding=padding, return_maps=return_maps)
    defined = expected.isfinite()  # torch has NaN where everything is hidden
    assert defined.all() or (causal and padding is not None)
    close(output[defined], expected[defined])
    if return_maps:
        close(seen[weights.isfinite()], weights[weights.isfinite()])
    gradients = [
        torch.autograd.grad(value[defined].square().sum(), x, retain_graph=True)[0] for value in (output, expected)
    ]
    rows = gradients[1].isfinite()
    close(gradients[0][rows], gradients[1][rows])


def test_the_equation_is_what_numpy_computes() -> None:
    """`softmax(X W_q W_k^T X^T / alpha) X W_v` for one head, without the maps around it."""
    x, alpha = tokens()[0].numpy(), 1.7
    w_q, w_k, w_v = np.random.default_rng(0).normal(size=(3, D, D))
    scores = np.exp(x @ w_q @ w_k.T @ x.T / alpha)
    expected = scores / scores.sum(1, keepdims=True) @ x @ w_v
    net = Attention(D, 1, alpha=alpha, bias=False).double()
    net.qkv.weight.data = torch.tensor(np.concatenate([w_q, w_k, w_v], 1).T)
    net.out.weight.data = torch.eye(D, dtype=torch.float64)
    for return_maps in (False, True):
        close(net(tokens()[:1], return_maps=return_maps)[0][0], torch.tensor(expected))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"rotary": True, "alpha": 3.0}])
@pytest.mark.parametrize("mask", [None, torch.rand(T, T, generator=torch.Generator().manual_seed(3)) < 0.4])
def test_the_fast_path_is_the_equation(options: dict[str, Any], mask: Tensor | None) -> None:
    net = attention(**options)
    for padding in (None, PADDING, torch.ones(B, T, dtype=torch.bool)):
        fast, _ = net(tokens(), padding=padding, mask=mask)
        written, maps = net(tokens(), padding=padding, mask=mask, return_maps=True)
        close(fast, written)
        sums = maps.sum(-1)
        close(sums, (sums > 0.5).double())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("return_maps", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mask_that_hides_everything_gives_no_nan(causal: bool, return_maps: bool, dtype: torch.dtype) -> None:
    net = attention(causal=causal).to(dtype)
    x = tokens().to(dtype).requires_grad_()
    for hidden in ({"padding": torch.ones(B, T, dtype=torch.bool)}, {"mask": torch.zeros(T, T, dtype=torch.bool)}):
        output, _ = net(x, return_maps=return_maps, **hidden)
        torch.testing.assert_close(output, net.out.bias.expand(B, T, D))
        (gradient,) = torch.autograd.grad(output.sum(), x)
        assert not gradient.any()
    (gradient,) = torch.autograd.grad(net(x, padding=PADDING, return_maps=return_maps)[0].sum(), x)
    assert gradient.isfinite().all()


def gradients(output: Tensor, x: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Of a random combination of the outputs, by the tokens and by the weights."""
    return list(torch.autograd.grad((output * tokens(5).to(output)).sum(), [x, *weights]))


@in_both_precisions
@pytest.mark.parametrize("padding", [None, PADDING])
@pytest.mark.parametrize("return_maps", [False, True])
def test_attention_has_the_gradients_of_torch_by_every_weight(
    padding: Tensor | None, return_maps: bool, dtype: torch.dtype, tolerance: float
) -> None:
    own, oracle = attention().to(dtype), nn.MultiheadAttention(D, N, batch_first=True).to(dtype)
    copied_from(own, oracle)
    x = tokens().to(dtype).requires_grad_()
    expected, _ = oracle(x, x, x, padding)
    output, _ = own(x, padding=padding, return_maps=return_maps)
    close(output, expected, tolerance)
    theirs = [oracle.in_proj_weight, oracle.in_proj_bias, oracle.out_proj.weight, oracle.out_proj.bias]
    mine = [own.qkv.weight, own.qkv.bias, own.out.weight, own.out.bias]
    for one, other in zip(gradients(output, x, mine), gradients(expected, x, theirs), strict=True):
        close(one, other, tolerance)


@in_both_precisions
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("padding", [None, PADDING])
def test_the_block_is_the_encoder_layer_of_torch(
    norm: Any, activation: Any, padding: Tensor | None, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    oracle = nn.TransformerEncoderLayer(
        D, N, 20, dropout=0.0, activation=activation, batch_first=True, norm_first=norm == "pre"
    ).to(dtype)
    own = TransformerBlock(D, N, hidden=20, norm=norm, activation=activation).to(dtype)
    copied_from(own.attention, oracle.self_attn)
    pairs = [
        (own.feed_forward.first, oracle.linear1),
        (own.feed_forward.second, oracle.linear2),
        (own.norm_1, oracle.norm1),
        (own.norm_2, oracle.norm2),
    ]
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())
    x = tokens().to(dtype).requires_grad_()
    output, expected = own(x, padding=padding), oracle(x, src_key_padding_mask=padding)
    close(output, expected, tolerance)
    pairs += [(own.attention.out, oracle.self_attn.out_proj)]
    of_own = [own.attention.qkv.weight, own.attention.qkv.bias, *(p for mine, _ in pairs for p in mine.parameters())]
    in_proj = [oracle.self_attn.in_proj_weight, oracle.self_attn.in_proj_bias]
    of_oracle = [*in_proj, *(p for _, theirs in pairs for p in theirs.parameters())]
    assert len(of_own) == len(list(oracle.parameters()))
    for one, other in zip(gradients(output, x, of_own), gradients(expected, x, of_oracle), strict=True):
        close(one, other, tolerance)
    assert sum(p.numel() for p in own.parameters()) == sum(p.numel() for p in oracle.parameters())


def test_the_feed_forward_net_is_the_same_as_linear_maps_and_as_convolutions() -> None:
    linear, conv = (FeedForward(D, 20, kind=kind).double() for kind in ("linear", "conv"))  # type: ignore[arg-type]
    conv.load_state_dict(
        {name: value.view(conv.state_dict()[name].shape) for name, value in linear.state_dict().items()}
    )
    x = tokens().requires_grad_()
    outputs = linear(x), conv(x)
    close(*outputs)
    close(*(torch.autograd.grad(output.square().sum(), x)[0] for output in outputs))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_without_positions_a_permutation_passes_through(norm: Any) -> None:
    """`P S(X) = S(P X)`."""
    order = torch.randperm(T, generator=torch.Generator().manual_seed(0))
    for net in (lambda x: attention()(x)[0], TransformerBlock(D, N, norm=norm).double()):
        close(net(tokens()[:, order]), net(tokens())[:, order])
    rotary = attention(rotary=True)
    assert not torch.allclose(rotary(tokens()[:, order])[0], rotary(tokens())[0][:, order])


def test_a_set_has_one_class_in_any_order() -> None:
    """`W S(P X) = W S(X)`, also beside padding."""
    torch.manual_seed(0)
    net = SetClassifier(D, 5, dim=16).double()
    order = torch.randperm(T)
    close(net(tokens()[:, order]), net(tokens()))
    close(net(tokens()[:, order], PADDING[:, order]), net(tokens(), PADDING))
    close(net(tokens(), PADDING)[1:2], net(tokens()[1:2, :4]))
    of_none = net(tokens(), torch.ones(B, T, dtype=torch.bool))
    close(of_none, net.read_out.bias.expand(B, -1))
    close(net(tokens()[:, :0]), of_none)


def test_second_derivatives_are_those_of_the_equation_where_torchs_kernel_has_none() -> None:
    own, x = attention(causal=True), tokens().requires_grad_()

    def second(**options: Any) -> Tensor:
        (first,) = torch.autograd.grad(own(x, **options)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    with sdpa_kernel(SDPBackend.MATH):
        close(second(), second(return_maps=True))
    assert gradgradcheck(lambda x: own(x, return_maps=True)[0], tokens().requires_grad_())


def test_a_mask_of_each_sequence_or_of_each_head_is_told_by_its_dimensions() -> None:
    """With as many sequences as heads, too."""
    net, x = attention(), torch.cat([tokens(), tokens(1)[:1]])
    assert len(x) == N
    allowed = torch.rand(N, T, T, generator=torch.Generator().manual_seed(0)) < 0.6
    for mask, of in ((allowed[:, None], lambda maps, i: maps[i]), (allowed[None], lambda maps, i: maps[:, i])):
        _, maps = net(x, mask=mask, return_maps=True)
        for i in range(N):
            assert not of(maps, i)[..., ~allowed[i]].any()
            assert of(maps, i)[..., allowed[i]].all()


@pytest.mark.parametrize("options", [{}, {"rotary": True}, {"norm": "post", "feed_forward": "conv"}])
def test_no_output_depends_on_a_later_token(options: dict[str, Any]) -> None:
    block = TransformerBlock(D, N, causal=True, **options).double()
    x = tokens().requires_grad_()
    for t in range(T):
        (gradient,) = torch.autograd.grad((block(x) * tokens(1))[:, t].sum(), x)
        assert not gradient[:, t + 1 :].any()
        assert gradient[:, : t + 1].any(-1).all()


@pytest.mark.parametrize("pieces", [[1] * T, [3, 1, 3], [2, 5]])
@pytest.mark.parametrize("options", [{}, {"rotary": True}])
def test_a_cache_changes_nothing(pieces: list[int], options: dict[str, Any]) -> None:
    block = TransformerBlock(D, N, causal=True, **options).double()
    cache, outputs = None, []
    for piece in tokens().split(pieces, 1):
        output, cache = block.extend(piece, cache)
        outputs.append(output)
    close(torch.cat(outputs, 1), block(tokens()))
    assert cache is not None
    assert cache[0].shape == (B, N, T, D // N)


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 8, dtype=torch.float64)
    scores = [
        (rotate(q, torch.tensor([first])) * rotate(k, torch.tensor([second]))).sum()
        for first, second in ((3, 1), (103, 101), (2, 1), (0, 0))
    ]
    close(scores[0], scores[1])
    assert abs(scores[0] - scores[2]) > 1e-6
    close(scores[3], (q * k).sum())
    as_complex = torch.complex(q[0, :4], q[0, 4:]) * torch.exp(1j * 5 * 10_000 ** (-torch.arange(4).double() / 4))
    close(rotate(q, torch.tensor([5]))[0], torch.cat([as_complex.real, as_complex.imag]))


def test_sinusoidal_positions_are_those_of_the_paper() -> None:
    added = SinusoidalPositions(D)(torch.zeros(1, T, D, dtype=torch.float64), start=2)[0]
    for position in range(T):
        for i in range(D // 2):
            angle = (position + 2) / 10_000 ** (2 * i / D)
            assert added[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert added[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_learned_positions_are_an_embedding_of_torch() -> None:
    """Outputs and gradients, to 1e-5 in float32."""
    own, oracle = LearnedPositions(D, T), nn.Embedding(T, D)
    oracle.weight.data = own.vectors.data.clone()
    x = tokens().float().requires_grad_()
    output, expected = own(x[:, 2:], start=2), x[:, 2:] + oracle(torch.arange(2, T))
    close(output, expected, 1e-5)
    weight = tokens(5).float()[:, 2:]
    (mine,) = torch.autograd.grad((output * weight).sum(), own.vectors)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), oracle.weight)
    close(mine, theirs, 1e-5)


@pytest.mark.parametrize("start", [0, 5000])
def test_positions_in_float32_are_those_in_float64(start: int) -> None:
    exact = SinusoidalPositions(D)(torch.zeros(1, T, D, dtype=torch.float64), start=start)
    close(SinusoidalPositions(D)(torch.zeros(1, T, D), start=start).double(), exact, 1e-5)
    x, places = tokens(), torch.arange(start, start + T)
    close(rotate(x.float(), places).double(), rotate(x, places), 1e-5)


def test_learned_positions_end_where_they_end() -> None:
    positions = LearnedPositions(D, 5).double()
    close(positions(tokens()[:, :3], start=2), tokens()[:, :3] + positions.vectors[2:5])
    with pytest.raises(ValueError, match=r"LearnedPositions\(max_tokens=5\): a sequence of 6 tokens reaches beyond"):
        positions(tokens()[:, :4], start=2)


def test_dropout_of_the_weights_keeps_their_mean() -> None:
    q, k, v = torch.randn(3, 1, 1, 5, 4, dtype=torch.float64)
    exact, maps = attend(q, k, v, 2.0)
    assert torch.equal(attend(q, k, v, 2.0, dropout=0.3)[1], maps)  # which are shown as they were before
    torch.manual_seed(0)
    mean = torch.stack([attend(q, k, v, 2.0, dropout=0.3)[0] for _ in range(4000)]).mean(0)
    close(mean, exact, 0.05)


def test_what_cannot_be_is_refused() -> None:
    net = attention()
    with pytest.raises(ValueError, match=r"the tokens must be \(batch, tokens, 16\), got \(3, 7, 11\)"):
        net(tokens()[..., :11])
    with pytest.raises(ValueError, match=r"padding must be bool \(3, 7\), True where.*got torch.bool \(3, 6\)"):
        net(tokens(), padding=PADDING[:, :6])
    with pytest.raises(ValueError, match="mask must be bool, True where"):
        net(tokens(), mask=torch.zeros(T, T))
    with pytest.raises(ValueError, match=r"mask must broadcast to \(3, 4, 7, 7\), got \(6, 7\)"):
        net(tokens(), mask=torch.ones(6, 7, dtype=torch.bool))
    for wide in (torch.ones(B, T, T, dtype=torch.bool), torch.ones(N, T, T, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"mask must have 2 or 4 dimensions .* `mask\[:, None\]` for one of each"):
            net(tokens(), mask=wide)
    with pytest.raises(ValueError, match=r"SetClassifier: the elements must be \(sets, elements, 16\), got \(7, 16\)"):
        SetClassifier(D, 5, dim=16).double()(tokens()[0])
    for wrong, message in (
        ({"num_heads": 5}, r"Attention\(num_heads=...\) must divide dim, got 5 and dim 16"),
        ({"num_heads": 4, "alpha": 0.0}, r"Attention\(alpha=...\) must be > 0 and finite, or None for .*, got 0.0"),
        ({"num_heads": 16, "rotary": True}, "must be even, got 1"),
        ({"num_heads": 4, "hidden": 0}, r"FeedForward\(hidden=...\) must be >= 1, got 0"),
        (
            {"num_heads": 4, "norm": "middle"},
            r"TransformerBlock\(norm=...\) must be one of 'pre', 'post', got 'middle'",
        ),
        ({"num_heads": 4, "activation": "tanh"}, "must be one of 'relu', 'gelu', got 'tanh'"),
        ({"num_heads": 4, "feed_forward": "dense"}, "must be one of 'linear', 'conv', got 'dense'"),
    ):
        with pytest.raises(ValueError, match=message):
            TransformerBlock(D, **wrong)  # type: ignore[arg-type]
