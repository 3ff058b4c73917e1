"""What the tests of the judge of language models share: nets, texts, and an attack of every kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.attacks import (
    MIFGSM,
    PGD,
    Attack,
    EmbeddingBall,
    HotFlip,
    NextToken,
    RandomFlips,
    RandomNoise,
    Surprise,
    TokenFlips,
)
from touchstone.nets import RecurrentLM, TransformerLM

VOCABULARY, LENGTH = 13, 9
FLIPS, BALL = TokenFlips(2, vocab_size=VOCABULARY, protected=(0,)), EmbeddingBall(eps=0.5)
ATTACKS: dict[str, Attack] = {
    "hot_flip": HotFlip(threat=FLIPS, objective=Surprise()),
    "beam": HotFlip(threat=FLIPS, objective=Surprise(), num_beams=3),
    "random": RandomFlips(threat=FLIPS, objective=Surprise()),
    "noise": RandomNoise(threat=BALL, objective=Surprise()),
    "pgd": PGD(threat=BALL, objective=Surprise(), num_steps=5),
    "pgd_to_the_end": PGD(threat=BALL, objective=Surprise(), num_steps=5, to_the_end=True),
    "mifgsm_to_the_end": MIFGSM(threat=BALL, objective=Surprise(), num_steps=5, to_the_end=True),
    "say_3": HotFlip(threat=FLIPS, objective=NextToken(3)),
    "pgd_say_3": PGD(threat=BALL, objective=NextToken(3), num_steps=5),
}


def language_net(kind: str = "gru") -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if kind == "transformer":
            net: nn.Module = TransformerLM(VOCABULARY, dim=16, num_heads=2, num_layers=2, context=LENGTH)
        else:
            net = RecurrentLM(VOCABULARY, cell="gru", dim=6, hidden=12)
        with torch.no_grad():
            net.head.weight *= 6  # type: ignore[union-attr,operator]  # so that it is sure of something
    return net.double().eval()


def texts(num_texts: int = 20) -> tuple[Tensor, Tensor]:
    ids = torch.randint(VOCABULARY, (num_texts, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1], ids[:, 1:]
