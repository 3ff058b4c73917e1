"""`Words`: text to token ids and back, one token per word, number or sign."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

_TOKEN = re.compile(r"\w+|[^\w\s]")


def split_words(text: str) -> list[str]:
    """The words, numbers and signs of a text, in lower case."""
    return _TOKEN.findall(text.lower())


class Words:
    """One token per word; 0 is padding, 1 every word that is not known.

    Args:
        words: those that are known, each once, in the order of their ids from 2 on.

    Attributes:
        words: those that are known.
        names: each token as text, for axes and tables.
    """

    padding, unknown = 0, 1

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.names = ("", "?", *self.words)
        self._ids = {word: number for number, word in enumerate(self.names)}

    @staticmethod
    def learn(texts: Iterable[str], most: int) -> Words:
        """The `most` frequent words of some texts, of equally frequent ones the first in the alphabet."""
        counts = Counter(word for text in texts for word in split_words(text))
        return Words(sorted(counts, key=lambda word: (-counts[word], word))[:most])

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, int64 `(tokens,)`."""
        return np.array([self._ids.get(word, self.unknown) for word in split_words(text)], np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, words apart by a space, without padding."""
        return " ".join(self.names[token] for token in ids if token != self.padding)
