"""The documents list, for each threat of texts, the very attacks that work inside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from touchstone import attacks
from touchstone.attacks import (
    FGSM,
    PGD,
    Attack,
    EmbeddingBall,
    FeatureDistance,
    GaussianNoise,
    HotFlip,
    InBfloat16,
    L1Adam,
    RandomNoise,
    Surrogate,
    Threat,
    TokenFlips,
    Transfer,
    WarmStarted,
    evaluate,
)

from .oracles import own_labels
from .tokens_table import LENGTH, NUM_TOKENS, text_net, texts

THREATS: dict[str, tuple[Threat, Callable[..., Attack], torch.Tensor]] = {
    "TokenFlips": (TokenFlips(2, vocab_size=NUM_TOKENS), HotFlip, torch.ones(1, LENGTH)),
    "EmbeddingBall": (EmbeddingBall(eps=0.5), PGD, torch.ones(1, LENGTH, 8)),
}
MADE_OTHERWISE: dict[type[Attack], Callable[[Threat, Callable[..., Attack], torch.Tensor], Attack]] = {
    FeatureDistance: lambda threat, inner, change: FeatureDistance(threat=threat, layer="read_out"),
    GaussianNoise: lambda threat, inner, change: GaussianNoise(threat=threat, rel_sigma=0.1),
    L1Adam: lambda threat, inner, change: L1Adam(threat=threat, penalty=0.1),
    Surrogate: lambda threat, inner, change: Surrogate(threat=threat, net=text_net()),
    Transfer: lambda threat, inner, change: Transfer(attack=inner(threat=threat), source=text_net()),
    InBfloat16: lambda threat, inner, change: InBfloat16(attack=inner(threat=threat)),
    WarmStarted: lambda threat, inner, change: WarmStarted(attack=inner(threat=threat), perturbation=change),
}


def works(kind: type[Attack], threat: str) -> bool:
    given, net, x, others = THREATS[threat], text_net(), texts(8), texts(8, seed=1)
    try:
        attack = MADE_OTHERWISE[kind](*given) if kind in MADE_OTHERWISE else kind(threat=given[0])  # type: ignore[call-arg]
        evaluate(net, x, own_labels(net, x), attacks={"a": attack}, prepare_on=(others, own_labels(net, others)))
    except ValueError:
        return False
    return True


def listed(document: Path, threat: str) -> set[str]:
    (row,) = re.findall(rf"^\| `{threat}\(.*\| (.*?) \|$", document.read_text(), flags=re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize("threat", THREATS)
def test_what_works_inside_a_threat_of_texts_is_listed(root: Path, threat: str) -> None:
    kinds = [
        kind
        for kind in vars(attacks).values()
        if isinstance(kind, type) and issubclass(kind, Attack) and kind != Attack
    ]
    assert {FGSM, RandomNoise, WarmStarted} <= {*kinds}
    working = {kind.__name__ for kind in kinds if works(kind, threat)}
    for name in ("attacks.md", "sequences.md"):
        assert listed(root / "docs" / name, threat) == working, name
