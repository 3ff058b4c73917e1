"""Nets that say what token follows, and texts that are generated from them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.nets import RecurrentLM, TransformerLM
from touchstone.nets.generate import Sampling, generate

NETS: dict[str, Any] = {
    "learned": lambda: TransformerLM(11, dim=16, num_heads=2, num_layers=2, context=8),
    "rotary": lambda: TransformerLM(11, dim=16, num_heads=2, num_layers=2, context=8, positions="rotary"),
    "sinusoidal": lambda: TransformerLM(11, dim=16, num_heads=2, context=8, positions="sinusoidal", tie_weights=False),
    "lstm": lambda: RecurrentLM(11, dim=8, hidden=8, num_layers=2, tie_weights=True),
    "gru": lambda: RecurrentLM(11, cell="gru", dim=8, hidden=12),
    "rnn": lambda: RecurrentLM(11, cell="rnn", dim=8, hidden=12),
}
every_net = pytest.mark.parametrize("name", NETS)


def net(name: str) -> Any:
    torch.manual_seed(0)
    made = NETS[name]().double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def prompt(num_tokens: int = 3) -> Tensor:
    return torch.randint(11, (2, num_tokens), generator=torch.Generator().manual_seed(1))


@every_net
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.0), Sampling(temperature=0.7, top_k=5, top_p=0.9)]
)
def test_a_text_with_a_state_is_the_text_without(name: str, sampling: Sampling) -> None:
    """Also behind the end of the context, from where a transformer forgets."""
    texts = [
        generate(net(name), prompt(), 30, sampling, use_state=use_state, generator=torch.Generator().manual_seed(0))
        for use_state in (True, False)
    ]
    assert torch.equal(*texts)
    assert texts[0].shape == (2, 33)
    assert torch.equal(texts[0][:, :3], prompt())


@every_net
def test_a_token_costs_one_forward_of_one_token(name: str) -> None:
    made, seen = net(name), []
    made.embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    generate(made, prompt(), 30)
    if made.context is None:
        assert seen == [3] + [1] * 29
    else:  # the context of 8 is full four times or more: then half of it is computed again
        assert seen[:6] == [3] + [1] * 5
        assert seen.count(4) == 5
        assert sum(seen) < 2 * 33


@every_net
def test_a_long_prompt_is_cut_to_what_the_net_can_see(name: str) -> None:
    text = generate(net(name), prompt(20), 3, Sampling(temperature=0))
    seen = prompt(20) if net(name).context is None else prompt(20)[:, -4:]
    assert torch.equal(text[:, -3:], generate(net(name), seen, 3, Sampling(temperature=0))[:, -3:])


def test_tokens_are_drawn_as_often_as_the_net_says() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    exact = torch.exp(logits / 0.5) / torch.exp(logits / 0.5).sum()
    torch.testing.assert_close(Sampling(temperature=0.5).probabilities(logits), exact)
    two = torch.tensor([[math.exp(2), math.exp(1), 0, 0]]) / (math.exp(2) + math.exp(1))
    torch.testing.assert_close(Sampling(top_k=2).probabilities(logits), two)
    torch.testing.assert_close(Sampling(top_k=9).probabilities(logits), logits.softmax(1))
    # 0.64 and 0.24 reach 0.8 together, and 0.64 alone reaches 0.6.
    torch.testing.assert_close(Sampling(top_p=0.8).probabilities(logits), two)
    torch.testing.assert_close(Sampling(top_p=0.6).probabilities(logits), torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(Sampling(temperature=0).probabilities(logits), torch.tensor([[1.0, 0, 0, 0]]))
    shuffled = torch.tensor([[0.0, 2.0, -1.0, 1.0]])
    torch.testing.assert_close(Sampling(top_k=2).probabilities(shuffled), two[:, [2, 0, 3, 1]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_most_probable_tokens_are_added_up_in_full_precision(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = logits[0].double().softmax(0).sort(descending=True).values
    expected = int((exact.cumsum(0) - exact < 0.99).sum())
    found = Sampling(top_p=0.99).probabilities(logits)
    assert int((found > 0).sum()) == expected
    assert float(found.double().sum()) == pytest.approx(1, abs=1e-6)


def test_a_top_p_of_1_leaves_out_no_token() -> None:
    logits = 3 * torch.randn(2, 50_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Sampling(top_p=1.0).probabilities(logits), logits.softmax(1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-38, 1e-30])
def test_the_lowest_temperatures_take_the_most_probable_token(temperature: float) -> None:
    logits = torch.tensor([[2.0, 1.0, 50.0, -1.0], [-7.0, -float("inf"), -8.0, -9.0]])
    expected = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0]])
    for options in ({}, {"top_k": 2, "top_p": 0.5}):
        found = Sampling(temperature=temperature, **options).probabilities(logits)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_from_logits_that_are_not_finite_nothing_is_drawn(temperature: float) -> None:
    made = net("lstm")
    for wrong in (float("nan"), float("inf")):
        nn.init.constant_(made.head.bias, wrong)
        with pytest.raises(ValueError, match="a token cannot be drawn: the logits are not finite"):
            generate(made, prompt(), 1, Sampling(temperature=temperature))


def test_no_logit_depends_on_a_later_token() -> None:
    for name in NETS:
        made, tokens = net(name), prompt(6)
        changed = tokens.clone()
        changed[:, 4] = (tokens[:, 4] + 1) % 11
        torch.testing.assert_close(made(changed)[:, :4], made(tokens)[:, :4])
        assert not torch.allclose(made(changed)[:, 4:], made(tokens)[:, 4:])


def test_tied_weights_are_one_and_are_trained_as_one() -> None:
    for made in (TransformerLM(11, dim=16, num_heads=2), net("lstm")):
        assert made.head.weight is made.embedding.weight
        assert len([name for name, _ in made.named_parameters() if "head.weight" in name]) == 0


def test_nets_and_options_that_cannot_be_are_refused() -> None:
    for options, message in (
        ({"temperature": -1.0}, r"Sampling\(temperature=...\) must be >= 0 and finite, got -1.0"),
        ({"top_k": 0}, r"Sampling\(top_k=...\) must be >= 1, or None for all, got 0"),
        ({"top_k": True}, r"Sampling\(top_k=...\) must be a whole number >= 1, or None for all, got True"),
        ({"top_k": 2.5}, r"Sampling\(top_k=...\) must be a whole number >= 1, or None for all, got 2.5"),
        ({"top_p": 0.0}, r"Sampling\(top_p=...\) must be in \(0, 1\], or None for all, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Sampling(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"prompt must be ids \(batch, tokens\), at least one, got \(2, 0\)"):
        generate(net("lstm"), prompt(0), 3)
    with pytest.raises(ValueError, match=r"generate\(num_tokens=...\) must be >= 0, got -1"):
        generate(net("lstm"), prompt(), -1)
    with pytest.raises(ValueError, match=r"LM\(context=8\): LearnedPositions\(max_tokens=8\): a sequence of 9 tok"):
        net("learned")(prompt(9))
    for name in NETS:
        owner = type(net(name)).__name__
        for wrong, got in ((prompt()[0], r"torch.int64 \(3,\)"), (prompt().byte(), r"torch.uint8 \(2, 3\); use `.lo")):
            with pytest.raises(ValueError, match=rf"{owner}: the tokens must be ids `\(texts, tokens\)`, got {got}"):
                net(name)(wrong)
        for low, high in ((0, 11), (-1, 10)):
            with pytest.raises(
                ValueError, match=rf"{owner}\(vocab_size=11\): .* ids from 0 to 10, got {low} to {high}"
            ):
                net(name)(torch.tensor([[low, high]]))
    with pytest.raises(ValueError, match=r"tie_weights=True\): hidden must be dim, got 9 and 8"):
        RecurrentLM(11, dim=8, hidden=9, tie_weights=True)
    with pytest.raises(ValueError, match=r"RecurrentLM\(cell=...\) must be one of 'rnn', 'lstm', 'gru', got 'sru'"):
        RecurrentLM(11, cell="sru")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be one of 'learned', 'sinusoidal', 'rotary', got 'none'"):
        TransformerLM(11, positions="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"TransformerLM\(vocab_size=...\) must be >= 2, got 1"):
        TransformerLM(1)
