"""`price_search`: the price on a change's L1 length that leaves the smallest change, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from touchstone.attacks import L1Adam, SampleRng


@dataclass(frozen=True)
class Priced:
    """The smallest changes that a search has found, and their prices.

    Attributes:
        x_adv: the smallest change that reached the goal, `(N, ...)`; the last try where none did.
        alpha: its price, float `(N,)`.
    """

    x_adv: Tensor
    alpha: Tensor


def price_search(attack: L1Adam, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng, num_rounds: int) -> Priced:
    """Tries prices for each sample, first the `penalty`: doubled where it works, halved where not, then bisected."""
    assert not isinstance(attack.penalty, Tensor)
    alpha = torch.full((len(x),), float(attack.penalty), device=x.device)
    works, fails = torch.zeros_like(alpha), torch.full_like(alpha, torch.inf)
    best, best_alpha, smallest = x.clone(), alpha.clone(), fails.clone()
    for _ in range(num_rounds):
        x_adv = replace(attack, penalty=alpha)(model, x, y, rng)
        with torch.no_grad():
            reached = attack.objective.reached(model(x_adv).float(), y)
        size = torch.linalg.vector_norm((x_adv - x).flatten(1), ord=1, dim=1)
        better = torch.where(reached, size < smallest, smallest.isinf())
        best[better], best_alpha[better] = x_adv[better], alpha[better]
        smallest = torch.where(reached, torch.minimum(size, smallest), smallest)
        works, fails = torch.where(reached, alpha, works), torch.where(reached, fails, alpha)
        between = (works * fails).sqrt()
        alpha = torch.where(fails.isinf(), 2 * works, torch.where(works == 0, fails / 2, between))
    return Priced(best, best_alpha)
