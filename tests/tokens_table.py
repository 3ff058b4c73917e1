"""The table of attacks on tokens: every row runs through every property of `test_token_attacks.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.attacks import (
    FGSM,
    MIFGSM,
    PGD,
    Attack,
    EmbeddingBall,
    HotFlip,
    Margin,
    RandomFlips,
    RandomNoise,
    Targeted,
    TokenFlips,
    Untargeted,
)
from touchstone.nets import TextClassifier

NUM_TOKENS, LENGTH, NUM_CLASSES = 19, 6, 3
FLIPS = TokenFlips(2, vocab_size=NUM_TOKENS, protected=(0, 5))
BALL = EmbeddingBall(eps=0.5, protected=(5,))

TOKEN_ATTACKS: dict[str, Attack] = {
    "random flips": RandomFlips(threat=FLIPS),
    "random flips, 1 candidate": RandomFlips(threat=FLIPS, num_candidates=1),
    "noise": RandomNoise(threat=FLIPS, num_tries=3),
    "hot flip": HotFlip(threat=FLIPS),
    "hot flip, 1 candidate": HotFlip(threat=FLIPS, num_candidates=1),
    "hot flip, beam": HotFlip(threat=FLIPS, num_beams=3, num_candidates=4),
    "hot flip, margin": HotFlip(threat=FLIPS, objective=Untargeted(loss=Margin())),
    "hot flip, class 2": HotFlip(threat=FLIPS, objective=Targeted(target=2)),
    "hot flip, random class": HotFlip(threat=FLIPS, objective=Targeted(target="random"), num_beams=2),
    "pgd": PGD(threat=BALL, num_steps=8),
    "pgd, restarts": PGD(threat=BALL, num_steps=4, num_restarts=2),
    "pgd, to the end": PGD(threat=BALL, num_steps=8, to_the_end=True),
    "mifgsm, to the end": MIFGSM(threat=BALL, num_steps=5, to_the_end=True),
    "pgd, class 2": PGD(threat=BALL, num_steps=8, objective=Targeted(target=2)),
    "fgsm": FGSM(threat=BALL),
    "noise in the ball": RandomNoise(threat=BALL),
}


def text_net(body: str = "gru", dtype: torch.dtype = torch.float32) -> TextClassifier:
    """A random net that uses all its classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        net = TextClassifier(NUM_TOKENS, NUM_CLASSES, body=body, dim=8, num_heads=2)  # type: ignore[arg-type]
        with torch.no_grad():
            net.read_out.bias -= net(texts(200, seed=9)).mean(0)
    return net.to(dtype).eval()


def texts(num_texts: int, seed: int = 0) -> Tensor:
    """Texts of 3 to 6 tokens, with padding behind them."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, NUM_TOKENS, (num_texts, LENGTH), generator=generator)
    lengths = torch.randint(3, LENGTH + 1, (num_texts, 1), generator=generator)
    return torch.where(torch.arange(LENGTH) < lengths, tokens, 0)


class Bag(nn.Module):
    """Logits that are linear in every token's vector, each place with weights of its own: worst cases are known."""

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.embedding = nn.Embedding(NUM_TOKENS, 4)
            self.linear = nn.Linear(LENGTH * 4, num_classes)
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.embedding(tokens).flatten(1))
