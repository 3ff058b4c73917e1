"""`Vocabulary`: text to token ids and back, as characters, bytes, or a byte-pair encoding.

Byte pairs: Sennrich et al., "Neural machine translation of rare words with subword units", 2016, on bytes as in
Radford et al., "Language models are unsupervised multitask learners", 2019; learnt and applied by `tokenizers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

_PART = 1 << 14


class UnknownCharacter(ValueError):
    """A text has what a vocabulary lacks."""

    def __init__(self, character: str, position: int, known: str) -> None:
        super().__init__(
            f"the text has {character!r} at position {position}, which is none of the {len(known)} characters of the "
            f"vocabulary: {known!r}"
        )
        self.character, self.known = character, known


class Vocabulary(ABC):
    """The tokens that a text is made of."""

    @abstractmethod
    def __len__(self) -> int:
        """How many tokens there are."""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, of the smallest dtype that holds them all, `(tokens,)`.

        Raises:
            UnknownCharacter: the text has what the vocabulary lacks.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""

    @abstractmethod
    def dump(self) -> Any:
        """What `load_vocabulary` makes the same one from, as JSON."""

    @property
    @abstractmethod
    def num_characters(self) -> np.ndarray:
        """How many characters begin in each token, int64 `(V,)`; of all tokens of a text, as many as it has."""

    @property
    def dtype(self) -> np.dtype:
        """The smallest dtype that holds every id."""
        return np.min_scalar_type(len(self) - 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Each token as text, for axes and tables."""
        return tuple(self.decode([token]) for token in range(len(self)))


class Characters(Vocabulary):
    """One token per character.

    Args:
        characters: all that there are, each once.
    """

    def __init__(self, characters: str) -> None:
        self.characters = "".join(sorted(set(characters)))
        self._codes = _codes(self.characters)

    @staticmethod
    def learn(texts: Iterable[str]) -> Characters:
        """The characters of these texts."""
        found: set[str] = set()
        for text in texts:
            found.update(text)
        return Characters("".join(found))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        codes = _codes(text)
        ids = np.searchsorted(self._codes, codes).clip(max=len(self) - 1)
        wrong = np.flatnonzero(self._codes[ids] != codes)
        if len(wrong):
            raise UnknownCharacter(text[wrong[0]], int(wrong[0]), self.characters)
        return ids.astype(self.dtype)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.characters[token] for token in ids)

    @property
    def num_characters(self) -> np.ndarray:
        return np.ones(len(self), np.int64)

    def dump(self) -> Any:
        return {"characters": self.characters}


class Bytes(Vocabulary):
    """One token per byte of UTF-8, 256 in all: every text has one."""

    def __len__(self) -> int:
        return 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")

    @property
    def num_characters(self) -> np.ndarray:
        return (np.arange(256) & 0xC0 != 0x80).astype(np.int64)  # all but the later bytes of a character

    def dump(self) -> Any:
        return {"bytes": True}


class BytePairs(Vocabulary):
    """Frequent sequences of bytes, each a token; every text has some.

    Args:
        definition: what `tokenizers` writes of a tokenizer, JSON.
    """

    def __init__(self, definition: str) -> None:
        self.definition = definition

    @staticmethod
    def learn(texts: Iterable[str], num_tokens: int) -> BytePairs:
        """The most frequent ones of these texts."""
        library = _tokenizers()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=num_tokens,
            show_progress=False,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        )
        # The library gathers 256 parts before it counts their words: together they are to need little memory.
        parts = (text[start : start + _PART] for text in texts for start in range(0, len(text), _PART))
        tokenizer.train_from_iterator(parts, trainer)
        return BytePairs(tokenizer.to_str())

    @cached_property
    def _tokenizer(self) -> Any:
        return _tokenizers().Tokenizer.from_str(self.definition)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text).ids, self.dtype)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([int(token) for token in ids])

    @cached_property
    def num_characters(self) -> np.ndarray:
        # A token is written with one sign for each byte; U+0080 to U+00BF end in every later byte that there is.
        split = self._tokenizer.pre_tokenizer.pre_tokenize_str
        later = {split(chr(code))[0][0][-1] for code in range(0x80, 0xC0)}
        written = (self._tokenizer.id_to_token(token) for token in range(len(self)))
        return np.array([sum(sign not in later for sign in token) for token in written], np.int64)

    def dump(self) -> Any:
        return {"byte_pairs": self.definition}


def load_vocabulary(dumped: Any) -> Vocabulary:
    """The vocabulary that was dumped."""
    if "characters" in dumped:
        return Characters(dumped["characters"])
    return BytePairs(dumped["byte_pairs"]) if "byte_pairs" in dumped else Bytes()


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ModuleNotFoundError as error:
        raise ValueError(
            "a byte-pair encoding needs the package tokenizers: python -m pip install tokenizers"
        ) from error
    return tokenizers
