"""Which tokens an attack may change: padding, masks, and how many of the free ones."""

from __future__ import annotations

import pytest
import torch

from touchstone.attacks import (
    PGD,
    Attack,
    EmbeddingBall,
    HotFlip,
    RandomFlips,
    RandomNoise,
    SampleRng,
    TokenFlips,
    evaluate,
)
from touchstone.nets import TextClassifier

from .oracles import own_labels
from .tokens_table import LENGTH, TOKEN_ATTACKS, text_net, texts

NUM_SAMPLES = 24


@pytest.mark.parametrize("body", ["gru", "transformer"])
def test_padding_stays_padding_at_the_embedding(body: str) -> None:
    net, x = text_net(body, torch.float64), texts(NUM_SAMPLES)
    longer = torch.cat([x, torch.zeros(NUM_SAMPLES, 3, dtype=torch.int64)], 1)
    y, attack = own_labels(net, x), PGD(threat=EmbeddingBall(eps=0.3), random_start=False)
    x_adv, same = attack(net, longer, y), attack(net, x, y)
    assert torch.equal(x_adv[longer == 0], torch.zeros_like(x_adv[longer == 0]))
    assert torch.allclose(x_adv[:, :LENGTH], same, atol=1e-9)


@pytest.mark.parametrize("name", ["hot flip", "random flips", "noise", "pgd"])
def test_a_mask_of_each_sample_is_cut_with_the_batch(name: str) -> None:
    net, x = text_net(), texts(NUM_SAMPLES)
    mask = torch.rand(NUM_SAMPLES, LENGTH, generator=torch.Generator().manual_seed(5)) < 0.5
    attack = TOKEN_ATTACKS[name]
    threat = type(attack.threat)(**{**vars(attack.threat), "mask": mask})
    report = evaluate(net, x, own_labels(net, x), {"a": attack.inside(threat)}, batch_size=5, keep_adversarial=True)
    x_adv = report.x_adv["a"]
    before = net.embedding.weight[x].detach() if x_adv.is_floating_point() else x
    changed = (x_adv != before).reshape(NUM_SAMPLES, LENGTH, -1).any(2)
    assert changed.any()
    assert not changed[~mask].any()
    one = type(attack.threat)(**{**vars(attack.threat), "mask": mask[:1]})
    x_adv = attack.inside(one)(net, x, own_labels(net, x))
    changed = (x_adv != before).reshape(NUM_SAMPLES, LENGTH, -1).any(2)
    assert not changed[:, ~mask[0]].any()


@pytest.mark.parametrize("kind", [HotFlip, RandomFlips])
def test_of_a_text_with_fewer_free_tokens_than_the_budget_all_may_change(kind: type[Attack]) -> None:
    net, x = TextClassifier(9, 3, dim=4).eval(), torch.tensor([[3, 4, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    y = own_labels(net, x)
    attack = kind(threat=TokenFlips(5, vocab_size=9, protected=(0,)))
    report = evaluate(net, x, y, {"a": attack, "noise": RandomNoise(threat=attack.threat)}, keep_adversarial=True)
    changed = report.x_adv["a"] != x
    assert not changed[0, 2:].any()
    assert (report.x_adv["noise"] != x).sum(1).tolist() == [2, 5]


def test_random_flips_are_drawn_evenly_from_what_may_be_written() -> None:
    threat, x = TokenFlips(1, vocab_size=5, protected=(3,)), torch.full((6000, 1), 1)
    counts = threat.start(x, SampleRng.numbered(6000)).flatten().bincount(minlength=5)
    assert counts[1] == counts[3] == 0
    assert all(abs(int(count) - 2000) < 150 for count in counts[[0, 2, 4]])


def test_a_projection_keeps_the_first_flips_that_are_allowed() -> None:
    threat = TokenFlips(2, vocab_size=9, protected=(0,))
    x, x_adv = torch.tensor([[0, 1, 2, 3, 4]]), torch.tensor([[5, 0, 6, 7, 8]])
    assert threat.project(x_adv, x).tolist() == [[0, 1, 6, 7, 4]]
    assert threat.distance(x_adv, x).tolist() == [float("inf")]
    assert threat.distance(threat.project(x_adv, x), x).tolist() == [2]
