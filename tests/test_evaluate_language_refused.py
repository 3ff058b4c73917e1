"""What the judge of language models refuses: models, texts and attacks that are none for it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import HotFlip, NextToken, Surprise, Untargeted, evaluate, evaluate_language
from touchstone.nets import TransformerLM

from .judged_texts import ATTACKS, FLIPS, LENGTH, VOCABULARY, language_net, texts


def test_evaluate_refuses_for_texts_what_is_for_images_and_the_other_way_round() -> None:
    net, (x, y) = language_net(), texts(4)
    attack = {"a": ATTACKS["hot_flip"]}
    for options in ({"prepare_on": (x, y)}, {"check_8bit": True}):
        with pytest.raises(ValueError, match=r"evaluate\(prepare_on=..., check_8bit=...\) are for images, got obj"):
            evaluate(net, x, y, attack, **options)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"evaluate_language\(batch_size=...\) must be >= 1, got 0"):
        evaluate(net, x, y, attack, batch_size=0)
    with pytest.raises(ValueError, match=r"evaluate\(characters_per_token=...\) is for language mod.*got labels \(4,"):
        evaluate(net, x, y[:, 0], {}, characters_per_token=1.0)
    with pytest.raises(ValueError, match="attack 'b': Untargeted.* is for classes; a language model is attacked with"):
        evaluate(net, x, y, {**attack, "b": HotFlip(threat=FLIPS)})
    for some in ({}, {"b": HotFlip(threat=FLIPS)}):
        with pytest.raises(ValueError, match=r"labels of one token each, \(4, 9\), are what follows a text: a lang"):
            evaluate(net, x, y, some, sample_ids=[1, 2, 3, 4])


class Classes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3].double()


def test_what_is_no_language_model_or_no_text_is_refused() -> None:
    net, (x, y) = language_net(), texts(4)
    with pytest.raises(ValueError, match=r"must return logits of shape \(4, tokens, vocabulary\), got \(4, 3\)"):
        evaluate_language(Classes(), x, y, {})
    with pytest.raises(ValueError, match=r"the labels must be the tokens that follow.* not in text 2"):
        evaluate_language(net, x, torch.where(torch.arange(4)[:, None] == 2, (y + 1) % VOCABULARY, y), {})
    with pytest.raises(ValueError, match=r"text 0, whose labels are its own tokens: shift them, `tokens\[:, :-1\]"):
        evaluate_language(net, x, x, {})
    with pytest.raises(ValueError, match=r"text 3 has -100 at place 2, .* cut off what is padding"):
        evaluate_language(net, x, y.index_put((torch.tensor(3), torch.arange(2, y.shape[1])), torch.tensor(-100)), {})
    of_others = nn.Sequential(nn.Embedding(VOCABULARY, VOCABULARY))
    with pytest.raises(
        ValueError, match=r"the model fails on texts with ids from 0 to 20: are they all in its voc.*\(index"
    ):
        evaluate_language(of_others, x.clamp(max=11).where(x < 11, 20), y.clamp(max=11).where(y < 11, 20), {})
    with pytest.raises(ValueError, match="must be whole numbers"):
        evaluate_language(net, x.double(), y[:, 0], {})
    with pytest.raises(ValueError, match="must be a tensor, got list"):
        evaluate_language(net, [[1, 2]], y[:1, :1], {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"evaluate_language\(batch_size=...\) must be >= 1, got 0"):
        evaluate_language(net, x, y, {}, batch_size=0)
    with pytest.raises(ValueError, match=r"evaluate_language\(characters_per_token=...\) must be > 0, got 0"):
        evaluate_language(net, x, y, {}, characters_per_token=0)
    with pytest.raises(ValueError, match="must be a number, or one for each of the 13 tokens of the model, got 5"):
        evaluate_language(net, x, y, {}, characters_per_token=torch.ones(5))
    for table in (torch.ones(13, 1), -torch.ones(13), torch.ones(13) * math.nan):
        with pytest.raises(ValueError, match=r"one for each token of the vocabulary `\(V,\)`, finite and >= 0, got"):
            evaluate_language(net, x, y, {}, characters_per_token=table)


class LooksAhead(nn.Module):
    """Says the next token by looking at it, or some of it."""

    def __init__(self, noise: float = 0.0, scale: float = 3.0) -> None:
        super().__init__()
        self.noise, self.scale = noise, scale

    def forward(self, x: Tensor) -> Tensor:
        logits = self.scale * nn.functional.one_hot(x.roll(-1, 1), VOCABULARY).double()
        return logits + self.noise * torch.rand(logits.shape)


def test_a_model_that_looks_ahead_is_refused() -> None:
    x, y = texts(4)
    with pytest.raises(ValueError, match=r"none of the tokens behind them.* those of the first 4 tokens change"):
        evaluate_language(LooksAhead(), x, y, {})
    block = TransformerLM(VOCABULARY, dim=16, num_heads=2, num_layers=1, context=LENGTH)
    evaluate_language(block, x, y, {})
    block.blocks[0].attention.causal = False  # type: ignore[union-attr]
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    with pytest.raises(ValueError, match="is it causal?"):
        evaluate_language(block, x, y, {})
    evaluate_language(LooksAhead(noise=1.0), x, y, {})  # what it draws itself would hide it


def test_texts_of_one_token_are_refused_as_such() -> None:
    x, y = texts(4)
    with pytest.raises(ValueError, match=r"both, T >= 2, got torch.int64 \(4, 1\) and \(4, 1\)"):
        evaluate_language(language_net(), x[:, :1], y[:, :1], {})


def test_a_model_that_looks_ahead_is_found_behind_a_text_of_one_token_and_in_the_smallest_logits() -> None:
    x, y = texts(4)
    x[0] = y[0, :-1] = 5
    with pytest.raises(ValueError, match="is it causal?"):
        evaluate_language(LooksAhead(), x, y, {})
    with pytest.raises(ValueError, match="is it causal?"):
        evaluate_language(LooksAhead(scale=1e-5), x, y, {})
    evaluate_language(language_net("transformer").float(), x, y, {})
    evaluate_language(LooksAhead(), x[:1], x[:1], {})  # of which nothing can be said


def test_objectives_for_classes_and_for_texts_are_told_apart() -> None:
    net, (x, y) = language_net(), texts(4)
    with pytest.raises(ValueError, match=r"attack 'a': Untargeted\(.*is for classes; a language model .* Surprise"):
        evaluate_language(net, x, y, {"a": HotFlip(threat=FLIPS, objective=Untargeted())})
    with pytest.raises(ValueError, match="a language model is measured by `evaluate_language`"):
        evaluate(net, x, y, {})
    with pytest.raises(ValueError, match=r"attack 'a': Surprise\(\) is for language models"):
        evaluate(Classes(), x, y[:, 0] % 3, {"a": HotFlip(threat=FLIPS, objective=Surprise())})


def test_a_target_that_is_no_token_is_refused() -> None:
    net, (x, y) = language_net(), texts(4)
    with pytest.raises(ValueError, match=r"NextToken\(target=...\) must be a token id >= 0, got -1"):
        NextToken(-1)
    with pytest.raises(ValueError, match=r"NextToken\(target=13\): the model has 13 tokens"):
        evaluate_language(net, x, y, {"a": HotFlip(threat=FLIPS, objective=NextToken(13))})
