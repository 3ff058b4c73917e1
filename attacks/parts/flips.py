"""`search_flips`: changes a text token by token, and asks the model about every change before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.ascend import Measure


class Flips(NamedTuple):
    """K >= 1 changes of one token each, for M texts.

    Attributes:
        places, tokens: where, and into what, int64 `(M, K)`.
        allowed: whether there is such a change at all, bool `(M, K)`.
        before: the gain of the texts as they are, and whether they reach the goal, `(M,)` each; None where the search
            is to ask for them.
    """

    places: Tensor
    tokens: Tensor
    allowed: Tensor
    before: tuple[Tensor, Tensor] | None = None


Propose = Callable[[Tensor, Tensor, int], Flips]
"""`propose(texts, rows, step)`: for texts `(M, T)` of rows `(M,)` of the batch."""


def search_flips(measure: Measure, x: Tensor, propose: Propose, *, num_flips: int, num_beams: int = 1) -> Tensor:
    """Flips one token after another, keeping the best few texts after each.

    Args:
        measure: the gain of texts, and whether the goal is reached; one forward for each change that there is, and
            one for the sample itself where `propose` does not know it.
        x: token ids, int64 `(N, T)`, N >= 1.
        propose: which flips to try.
        num_flips: how many tokens may change, >= 1.
        num_beams: texts that are kept of each sample after each flip, >= 1; 1 is greedy.

    Returns:
        Of each sample the first text that reached the goal, or else the one with the largest gain of all that were
        tried, `(N, T)`. The sample itself is the first of them: it is left alone where it reaches the goal, and stays
        where no change is better.
    """
    best = x.clone()
    rows, beams = torch.arange(len(x), device=x.device), x[:, None]  # of the samples that have not fallen
    for step in range(num_flips):
        num_samples, num_texts, length = beams.shape
        texts, of_texts = beams.flatten(0, 1), rows.repeat_interleave(num_texts)
        flips = propose(texts, of_texts, step)
        if not step:
            with torch.no_grad():
                gain, reached = flips.before or measure(x, rows)
            best_gain, flips = gain.float(), flips._replace(allowed=flips.allowed & ~reached[:, None])
        each, gain, reached = _tried(measure, texts, of_texts, flips)
        # (samples, beams * changes): all that has been tried of a sample side by side.
        each = each.reshape(num_samples, -1, length)
        gain, reached = gain.reshape(num_samples, -1), reached.reshape(num_samples, -1)
        done = reached.any(1)
        top = torch.where(done, reached.float().argmax(1), gain.argmax(1))
        first = torch.arange(num_samples, device=x.device)
        better = done | (gain[first, top] > best_gain[rows])
        best[rows[better]] = each[first, top][better]
        best_gain[rows[better]] = gain[first, top][better]
        going_on = ~done & (gain > -torch.inf).any(1)
        if not bool(going_on.any()):
            break
        rows, each, gain = rows[going_on], each[going_on], gain[going_on]
        if num_beams > 1:
            twice = (each[:, :, None] == each[:, None]).all(-1).tril(-1).any(-1)
            gain = gain.masked_fill(twice, -torch.inf)
        kept = gain.topk(min(num_beams, gain.shape[1]), dim=1).indices
        beams = each.gather(1, kept[..., None].expand(-1, -1, length))
    return best


@torch.no_grad()
def _tried(measure: Measure, texts: Tensor, rows: Tensor, flips: Flips) -> tuple[Tensor, Tensor, Tensor]:
    """Asks about every change of texts `(M, T)` of rows `(M,)`.

    Returns:
        The texts changed, `(M, K, T)`; their gains, float `(M, K)`, minus infinity where there is no such change; and
        which reach the goal, bool `(M, K)`.
    """
    tried, gains, fallen = [], [], []
    all_asked = flips.allowed.all(0).tolist()  # once for all changes: an accelerator is waited for
    changes = zip(flips.places.unbind(1), flips.tokens.unbind(1), flips.allowed.unbind(1), all_asked, strict=True)
    for places, tokens, allowed, asks_all in changes:
        text = texts.scatter(1, places[:, None], tokens[:, None].to(texts.dtype))
        text = torch.where(allowed[:, None], text, texts)
        gain, reached = torch.full((len(text),), -torch.inf, device=texts.device), torch.zeros_like(allowed)
        asked = slice(None) if asks_all else allowed.nonzero()[:, 0]
        if isinstance(asked, slice) or len(asked):
            found, reached[asked] = measure(text[asked], rows[asked])
            gain[asked] = found.float()
        tried.append(text)
        gains.append(gain)
        fallen.append(reached)
    return torch.stack(tried, 1), torch.stack(gains, 1), torch.stack(fallen, 1)
