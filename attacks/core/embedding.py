"""Where tokens become vectors inside a model: the embedding found by name, and the model from there on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .around import Around
from .checks import computing_dtype, is_whole
from .per_sample import norms
from .same_answer import same_in_equal_batches

_COMPARED_FIRST = 16  # texts, few: the logits of a language model are large
_MOST_COMPARED = 2**22  # logits, after that


def find_embedding(model: nn.Module, name: str | None, asked_by: str) -> nn.Embedding:
    """The embedding of a model.

    Args:
        model: any module.
        name: of the embedding in it, such as `"net.embedding"`; None for the only one.
        asked_by: the class whose option `embedding` it is, for messages.

    Raises:
        ValueError: there is none of that name, or, without a name, not exactly one.
    """
    found = {path: module for path, module in model.named_modules() if isinstance(module, nn.Embedding)}
    if name is not None and name in found:
        return found[name]
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise ValueError(f"{asked_by} needs a model whose tokens go through an `nn.Embedding`; this one has none")
    there = ", ".join(map(repr, difflib.get_close_matches(name or "", found, n=len(found), cutoff=0)))
    given = "must name one of several embeddings" if name is None else f"there is no embedding {name!r}"
    raise ValueError(f"{asked_by}(embedding=...): {given}; the model has {there}")


@torch.no_grad()
def sizes_of_tables(model: nn.Module, tokens: Tensor) -> list[int]:
    """How many vectors each embedding has that a model looks these tokens up in, by a forward of them."""
    sizes, handles = [], []

    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        (given,) = [*args, *kwargs.values()]
        if isinstance(module, nn.Embedding) and torch.equal(given.flatten(), tokens.flatten()):
            sizes.append(module.num_embeddings)

    try:
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                handles.append(module.register_forward_pre_hook(see, with_kwargs=True))
        model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return sizes


@contextmanager
def watched_vectors(embedding: nn.Embedding) -> Iterator[list[Tensor]]:
    """Inside, a forward of the model leaves in the list what the embedding gave, call by call, to differentiate by."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        seen.append(output if output.requires_grad else output.detach().requires_grad_())
        with torch.enable_grad():  # of an embedding that the model itself looks up without
            return seen[-1].clone()  # which the model may change in place

    handle = embedding.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def vectors_of(seen: list[Tensor], tokens: Tensor) -> Tensor:
    """The vectors `(N, T, D)` of tokens `(N, T)`, of what `watched_vectors` saw of their forward.

    Raises:
        ValueError: the model does not pass its tokens through the embedding, once.
    """
    for vectors in seen:
        _check_passed(vectors.shape[:-1], tokens.shape)
    _check_once(len(seen))
    return seen[0]


class FromEmbedding(Around):
    """A model from its embedding on: vectors `(N, T, D)` to what the model returns.

    For attacks that move vectors. One that moves tokens asks the model itself, and watches the vectors that they become
    there (`watched_vectors`).

    A vector that equals the embedding's padding row is padding, so that a mask which the model makes from its tokens
    stays what it was; every other vector stands for some token or other.
    """

    def __init__(self, model: nn.Module, embedding: nn.Embedding) -> None:
        super().__init__(model)
        self.embedding = embedding
        padding = embedding.padding_idx
        self._padding, self._other = padding, 1 if padding == 0 else 0

    def vectors(self, tokens: Tensor) -> Tensor:
        """The embedding of tokens, `(N, T, D)`, in the dtype that the model is attacked in.

        Raises:
            ValueError: they are not ids of the embedding, `(N, T)`.
        """
        check_tokens(tokens, self.embedding.num_embeddings)
        return self.embedding(tokens).to(computing_dtype(self.model))

    def is_padding(self, vectors: Tensor) -> Tensor:
        """Which vectors stand for padding: bool `(N, T)`."""
        if self._padding is None:
            return torch.zeros(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
        padding = self.embedding.weight[self._padding].to(vectors.dtype)
        if vectors.device.type != "cpu":
            return (vectors == padding).all(-1)
        flat = vectors.flatten(0, 1)
        same = flat[:, 0] == padding[0]
        maybe = same.nonzero()[:, 0]  # so that the rest is read of few vectors
        same[maybe] = norms(flat.index_select(0, maybe) - padding, float("inf")) == 0  # in a third of the time of `all`
        return same.view(vectors.shape[:2])

    def forward(self, vectors: Tensor) -> Any:
        """Vectors `(N, T, D)` to what the model returns for tokens with this embedding.

        Raises:
            ValueError: the model does not pass its tokens through this embedding, once.
        """
        tokens = torch.full(vectors.shape[:2], self._other, device=vectors.device)
        if self._padding is not None:
            tokens = tokens.masked_fill(self.is_padding(vectors.detach()), self._padding)
        calls = 0

        def put_in(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            _check_passed(args[0].shape, tokens.shape)
            return vectors.to(output.dtype)

        handle = self.embedding.register_forward_hook(put_in)
        try:
            output = self.model(tokens)
        finally:
            handle.remove()
        _check_once(calls)
        return output

    @torch.no_grad()
    def compare(self, tokens: Tensor) -> None:
        """Raises ValueError where the model sees more of some text than its embedding and the padding.

        Every text is asked about, by two forwards of it: a mask or an end token shows where it occurs. Of a model that
        draws random numbers nothing is said.
        """
        left, at_once = tokens, _COMPARED_FIRST
        while len(left):
            some, left = left[:at_once], left[at_once:]
            whole, from_here = self.model(some), self(self.vectors(some))
            if same_in_equal_batches(whole, from_here):
                at_once = max(1, _MOST_COMPARED // max(1, whole[0].numel()))
                continue
            if not same_in_equal_batches(whole, self.model(some)):
                return
            raise ValueError(
                "the model reads more of its tokens than their embedding: what it returns for the embedding of a text "
                "is not what it returns for the text. Where it masks padding, its embedding needs `padding_idx`"
            )


def check_tokens(tokens: Tensor, vocab_size: int) -> None:
    """Raises ValueError where `tokens` are not ids of a vocabulary, whole numbers `(N, T)`, T >= 1."""
    if not is_whole(tokens):
        raise ValueError(f"tokens must be whole numbers, got {tokens.dtype}")
    if tokens.ndim != 2 or not tokens.shape[1]:
        raise ValueError(f"tokens must be texts `(N, T)`, T >= 1, got {tuple(tokens.shape)}")
    wrong = (tokens < 0) | (tokens >= vocab_size)
    if bool(wrong.any()):
        row, place = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"tokens must be ids of the vocabulary, 0 to {vocab_size - 1}; text {row} has {int(tokens[row, place])} "
            f"at place {place}"
        )


def _check_passed(passed: torch.Size, given: torch.Size) -> None:
    if passed != given:
        raise ValueError(
            f"the model passes {tuple(passed)} through its embedding where it was given {tuple(given)} tokens"
        )


def _check_once(num_calls: int) -> None:
    if num_calls != 1:
        raise ValueError(f"the model must pass its tokens through the embedding once, it did so {num_calls} times")
