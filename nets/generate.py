"""`generate`: continues texts token by token, with any net of `language.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from touchstone.options import check_between, check_counts, check_positive


class LanguageNet(Protocol):
    """What `generate` needs of a net."""

    context: int | None
    """How many tokens it can look back at; None for all."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Token ids `(B, T)` to logits `(B, T, V)`."""

    def extend(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """The same for tokens that follow a state, and the state after them."""


class LogitsNotFinite(ValueError):
    """A net gave logits from which no token can be drawn."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn.

    Args:
        temperature: what the logits are divided by, >= 0; 0 takes the most probable token.
        top_k: draw only among the k most probable tokens, >= 1; None for all.
        top_p: draw only among the most probable tokens that together reach this probability, in (0, 1]; None for all
            (Holtzman et al., "The curious case of neural text degeneration", 2020).

    Raises:
        ValueError: a value is outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, "temperature", or_zero=True)
        check_counts(self, "top_k", none_means="all")
        check_between("Sampling(top_p=...)", self.top_p, 0, 1, "(]", none_means="all")

    def probabilities(self, logits: Tensor) -> Tensor:
        """What each token is drawn with, `(B, V)` from logits `(B, V)`, in float32, or in float64 as the logits are.

        Raises:
            LogitsNotFinite: a logit is NaN or infinite, or all of a row are -inf.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()  # sums of half precision end early
        highest = logits.amax(1, keepdim=True)  # NaN where any is; -inf alone is a token that is never drawn
        if not bool(highest.isfinite().all()):
            raise LogitsNotFinite("a token cannot be drawn: the logits are not finite (NaN or infinite)")
        if self.temperature < torch.finfo(logits.dtype).tiny:  # 1 / temperature would be infinite
            return torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), 1)
        ordered, tokens = torch.sort((logits - highest) / self.temperature, dim=1, descending=True, stable=True)
        kept = ordered.softmax(1) if self.top_k is None else ordered[:, : self.top_k].softmax(1)
        if self.top_p is not None and self.top_p < 1:  # all reach 1, where their sum may be rounded up to it earlier
            before = kept.cumsum(1) - kept  # 0 for the first, which is always kept
            kept = kept.where(before < self.top_p, 0)
            kept = kept / kept.sum(1, keepdim=True)
        return torch.zeros_like(logits).scatter(1, tokens[:, : kept.shape[1]], kept)


def generate(
    net: LanguageNet,
    prompt: Tensor,
    num_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008  # frozen
    *,
    use_state: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continues texts.

    A net that looks back at `context` tokens sees the whole text until that is full. Then it forgets the older half
    at once, so that a state serves for half a context of tokens: each costs one forward of one token, and one forward
    of half a context is shared by as many.

    Args:
        net: in evaluation mode.
        prompt: token ids, int64 `(B, T)`, T >= 1.
        num_tokens: how many to add, >= 0.
        sampling: how each is drawn.
        use_state: whether to carry a state or keys and values along; the text is the same without.
        generator: of random numbers, on the device of the prompt; None for torch's own.

    Returns:
        Prompt and continuation, int64 `(B, T + num_tokens)`.

    Raises:
        ValueError: a value is outside its range, or the net gives logits that are not finite (`LogitsNotFinite`).
    """
    if prompt.ndim != 2 or not prompt.shape[1]:
        raise ValueError(f"generate: the prompt must be ids (batch, tokens), at least one, got {tuple(prompt.shape)}")
    check_counts("generate", num_tokens=num_tokens, least=0)
    tokens, start, num_seen = prompt, 0, 0
    state: Any = None
    with torch.no_grad():
        for _ in range(num_tokens):
            if net.context is not None and tokens.shape[1] - start > net.context:
                start, state = tokens.shape[1] - max(1, net.context // 2), None
            if use_state:
                logits, state = net.extend(tokens[:, start if state is None else num_seen :], state)
                num_seen = tokens.shape[1]
            else:
                logits = net(tokens[:, start:])
            drawn = torch.multinomial(sampling.probabilities(logits[:, -1]), 1, generator=generator)
            tokens = torch.cat([tokens, drawn], 1)
    return tokens
