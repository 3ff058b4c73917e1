"""`HotFlip`: changes the tokens that the gradient at the embedding says matter most.

Source: Ebrahimi, Rao, Lowd, Dou, "HotFlip: white-box adversarial examples for text classification", 2018, sections 3.1
(equation 10) and 3.3 (beam search).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from touchstone.options import check_counts

from .core.ascend import gradient_of
from .core.attack import Attack
from .core.checks import computing_dtype
from .core.embedding import find_embedding, vectors_of, watched_vectors
from .core.gain import gain_of
from .core.objective import Objective
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.untargeted import Untargeted
from .parts.flips import Flips, search_flips
from .threats.token_flips import TokenFlips

_MOST_SCORES = 1 << 24
_PER_PLACE = 4  # flips of one place are much alike: more of them crowd out other places, fewer the place that matters


@dataclass(frozen=True, kw_only=True)
class HotFlip(Attack):
    """Flips one token after another: scored by gradients, then tried.

    To first order, the flip of the token at place t into v changes the gain by `(E_v - E_x_t) . dgain/de_t`, E the
    embedding. The flips with the highest scores are each verified by a forward, and the best is kept, or the best
    few (a beam). A sample that has fallen is left alone; of one that never falls the text with the largest gain is
    returned, which may be the sample itself.

    Args:
        threat: how many tokens may change, and into what.
        objective: what the attacker wants.
        embedding: the name of the `nn.Embedding` in the model, such as `"net.embedding"`; None for the only one.
        num_candidates: the most flips of each text that are verified by a forward, >= 1. Of one place these are at
            most 4, or where few places may change as many as their even share is.
        num_beams: texts of each sample that are kept after each flip, >= 1; 1 is the greedy search.

    Raises:
        ValueError: a value is outside its range, or the model has no such embedding, or one of fewer tokens than the
            vocabulary of the threat.

    Example:
        >>> attack = HotFlip(threat=TokenFlips(3, vocab_size=1502, protected=(0, 1)))
        >>> changed = attack(model, tokens, y)
    """

    supports = (TokenFlips,)
    threat: Threat
    objective: Objective = Untargeted()
    embedding: str | None = None
    num_candidates: int = 8
    num_beams: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_candidates", "num_beams")

    def check_model(self, model: nn.Module) -> None:
        super().check_model(model)
        find_embedding(model, self.embedding, "HotFlip")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        embedding, threat = find_embedding(model, self.embedding, "HotFlip"), self.threat
        assert isinstance(threat, TokenFlips)
        if embedding.num_embeddings < threat.vocab_size:
            raise ValueError(
                f"TokenFlips(vocab_size={threat.vocab_size}): the model's embedding has {embedding.num_embeddings}"
            )
        weight, measure = embedding.weight[: threat.vocab_size].detach(), gain_of(model, self.objective, y)
        free, written = threat.free(x), threat.may_be_written(x.device)

        def propose(texts: Tensor, rows: Tensor, step: int) -> Flips:
            with watched_vectors(embedding) as seen:
                gain, reached = measure(texts, rows)
            grad = gradient_of(gain, vectors_of(seen, texts)).to(computing_dtype(model))
            open_ = free[rows] & (texts == x[rows])  # each place is flipped once
            size = max(1, _MOST_SCORES // (texts.shape[1] * len(weight)))
            parts = zip(grad.split(size), texts.split(size), open_.split(size), strict=True)
            found = [_best_flips(*part, weight, written, self.num_candidates) for part in parts]
            places, tokens, allowed = map(torch.cat, zip(*found, strict=True))
            return Flips(places, tokens, allowed, before=(gain.detach(), reached))

        return search_flips(measure, x, propose, num_flips=threat.num_flips, num_beams=self.num_beams)


def _best_flips(
    grad: Tensor, texts: Tensor, open_: Tensor, weight: Tensor, written: Tensor, num_flips: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The flips with the highest first-order scores, few of them at one place.

    Args:
        grad: of the gain by the vectors, `(M, T, D)`.
        texts: token ids, `(M, T)`.
        open_: which of them may be flipped, bool `(M, T)`.
        weight: the embedding of the vocabulary, `(V, D)`.
        written: which tokens may be written, bool `(V,)`.
        num_flips: how many.

    Returns:
        Places, tokens, and whether there is such a flip, `(M, K)` each.
    """
    scores, now = grad @ weight.to(grad.dtype).T, texts[..., None].long()
    scores = scores - scores.gather(2, now)
    scores = scores.masked_fill(~(open_[..., None] & written), -torch.inf).scatter(2, now, -torch.inf)
    # k must not depend on the batch: with ties, another k may choose other tokens.
    of_places = scores.topk(min(max(_PER_PLACE, num_flips), len(weight)), dim=2)
    num_ranks = of_places.values.shape[2]
    limit = (num_flips / open_.sum(1).clamp(min=1)).ceil().clamp(min=_PER_PLACE)[:, None, None]
    values = of_places.values.masked_fill(torch.arange(num_ranks, device=texts.device) >= limit, -torch.inf).flatten(1)
    best = values.topk(min(num_flips, values.shape[1]), dim=1)
    places = best.indices // num_ranks
    return places, of_places.indices.flatten(1).gather(1, best.indices), best.values > -torch.inf
