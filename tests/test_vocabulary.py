"""Vocabularies: what they are learnt from, that they give a text back, and how they count its characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from touchstone.datamodules.parts.vocabulary import BytePairs, Bytes, Characters, load_vocabulary

from .text_files import TEXT, data, write


def test_the_vocabulary_of_a_checkpoint_reads_any_text_that_it_can(tmp_path: Path) -> None:
    module = data(tmp_path, write(tmp_path, "abc " * 200, "first.txt"))
    state = module.state_dict()
    other = data(tmp_path, write(tmp_path, "cab b" * 200, "second.txt"))
    folder = other._folder()
    other.load_state_dict(state)
    assert other._folder() == folder  # the characters are the same
    few = data(tmp_path, write(tmp_path, "b c" * 200, "third.txt"))
    assert len(few.vocabulary) == 3
    few.load_state_dict(state)
    assert few.class_names == (" ", "a", "b", "c")
    assert few.vocabulary.decode(few.splits["train"][:6].tolist()) == "b cb c"
    strange = data(tmp_path, write(tmp_path, "abd " * 200, "fourth.txt"))
    assert len(strange.vocabulary) == len(module.vocabulary)
    with pytest.raises(ValueError, match=r"fourth.txt, line 1, has 'd', .* none of the 4 characters of the checkpoint"):
        strange.load_state_dict(state)


def test_byte_pairs_are_learnt_from_the_training_text_alone(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    text = "the cat sat on the mat. " * 200 + "unseen" * 400
    module = data(tmp_path, write(tmp_path, text), tokens="byte_pairs", num_byte_pairs=300, val_share=0.3)
    assert isinstance(module.vocabulary, BytePairs)
    assert len(module.vocabulary) <= 300
    assert "unseen" not in module.class_names
    assert " the" in module.class_names
    parts = [module.vocabulary.decode(ids.tolist()) for ids in module.splits.values()]
    assert "".join(parts) == text
    assert module.characters_per_token["train"] > 2
    for strange in ("naïve 😀", "\x00\n\n  x"):
        assert module.vocabulary.decode(module.vocabulary.encode(strange).tolist()) == strange


@pytest.mark.parametrize("vocabulary", [Characters("hello\n😀é"), Bytes()])
def test_a_vocabulary_decodes_what_it_encodes_and_is_loaded_as_it_was(vocabulary: Any) -> None:
    text = "hello\nhéllo 😀".replace(" ", "")
    again = load_vocabulary(vocabulary.dump())
    assert again.decode(vocabulary.encode(text).tolist()) == text
    assert again.names == vocabulary.names
    assert len(vocabulary.names) == len(vocabulary)
    assert vocabulary.encode(text).dtype == np.uint8


def test_characters_are_counted_where_they_begin() -> None:
    """Of any piece of a text, those whose first byte is in it."""
    encoded = TEXT.encode()
    counts = Bytes().num_characters
    for start, end in ((0, len(encoded)), (1, 3), (2, 4), (60, 76)):
        first_bytes = [len(character.encode()) for character in TEXT]
        begins = np.cumsum([0, *first_bytes[:-1]])
        ids = Bytes().encode(TEXT)[start:end]
        assert counts[ids].sum() == ((begins >= start) & (begins < end)).sum()
    characters = Characters(TEXT)
    assert characters.num_characters[characters.encode(TEXT)].sum() == len(TEXT)


@pytest.mark.parametrize("num_tokens", [256, 300])
def test_characters_of_byte_pairs_are_counted_where_they_begin(num_tokens: int) -> None:
    pytest.importorskip("tokenizers")
    vocabulary = BytePairs.learn([TEXT], num_tokens)
    counts, text = vocabulary.num_characters, TEXT + "naïve   人😀 ok"  # some of them never learnt, byte by byte
    assert counts[vocabulary.encode(text)].sum() == len(text)
    whole = {token: name for token, name in enumerate(vocabulary.names) if "\ufffd" not in name}
    assert all(counts[token] == len(name) for token, name in whole.items())
    assert len(whole) >= 128 + (num_tokens - 256) // 2
    parts = [token for token in range(len(vocabulary)) if token not in whole and counts[token] == 0]
    assert len(parts) >= 64  # the later bytes of a character
