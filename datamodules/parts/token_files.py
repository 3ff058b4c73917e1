"""Text files to files of token ids, piece by piece, so that a large text needs no more memory than a small one."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from touchstone.runs.whole_files import place_beside, to_disk, write_whole

from .vocabulary import Vocabulary, load_vocabulary

SPLITS = ("train", "val", "test")
Pieces = Callable[[str | None], Iterator[str]]
"""From a split's name, or None for all of them, to its text in pieces."""


def text_pieces(
    files: Sequence[Path], start: int = 0, end: int | None = None, num_bytes: int = 1 << 20
) -> Iterator[str]:
    """The text of some files one after another, in pieces.

    Args:
        files: UTF-8 files.
        start: the first byte, counted over all files; inside a character, that is left out. So is the byte order mark
            that a file may begin with, which is no part of its text.
        end: the byte after the last; inside a character, all of that is taken.
        num_bytes: size of a piece, which is what is in memory at a time.

    Raises:
        ValueError: a file is not UTF-8; the message names the first byte that is not.
    """
    before = 0
    for path in files:
        size = path.stat().st_size
        first, last = max(0, start - before), size if end is None else min(size, end - before)
        before += size
        if first >= last:
            continue
        with path.open("rb") as file:
            after_mark = 3 if file.read(3) == codecs.BOM_UTF8 else 0
            first, last = (max(after_mark, _at_character(file, place, size)) for place in (first, last))
            file.seek(first)
            decoder = codecs.getincrementaldecoder("utf-8")()
            while first < last:
                piece = file.read(min(num_bytes, last - first))
                held = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(piece, final=first + len(piece) == last)
                except UnicodeDecodeError as error:
                    position = first - held + error.start
                    raise ValueError(
                        f"{path} is not UTF-8: byte {position} is 0x{error.object[error.start]:02x} ({error.reason})"
                    ) from error
                first += len(piece)
                if text:
                    yield text


def write_tokens(
    folder: Path,
    files: Sequence[Path],
    shares: Sequence[float],
    learn: Callable[[Pieces], Vocabulary],
) -> None:
    """Writes `SPLIT.bin`, the ids of each split, and `tokens.json` beside them; all of it or nothing.

    Args:
        folder: where to; it appears when all is written.
        files: UTF-8 files.
        shares: how much of the text training and validation get; the test gets the rest.
        learn: makes the vocabulary from the text.
    """
    size = sum(path.stat().st_size for path in files)
    cuts = [0, int(size * shares[0]), int(size * (shares[0] + shares[1]) + 1e-6), size]

    def pieces(split: str | None) -> Iterator[str]:
        number = 0 if split is None else SPLITS.index(split)
        return text_pieces(files, cuts[number], size if split is None else cuts[number + 1])

    vocabulary = learn(pieces)
    with place_beside(folder, is_shared=True) as building:
        building.mkdir()
        num_characters = dict.fromkeys(SPLITS, 0)
        for split in SPLITS:
            with (building / f"{split}.bin").open("wb") as file:
                for text in pieces(split):
                    num_characters[split] += len(text)
                    file.write(vocabulary.encode(text).tobytes())
                to_disk(file)
        described = {"vocabulary": vocabulary.dump(), "num_characters": num_characters}
        write_whole(building / "tokens.json", json.dumps(described))
        try:
            os.replace(building, folder)
        except OSError:
            if not (folder / "tokens.json").is_file():  # another process may have been faster
                raise


def read_tokens(folder: Path) -> tuple[Vocabulary, dict[str, np.ndarray], dict[str, int]]:
    """The vocabulary, the ids of each split as memory-mapped arrays, and how many characters each has."""
    described = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    vocabulary = load_vocabulary(described["vocabulary"])
    tokens = {
        split: np.memmap(path, vocabulary.dtype, "r") if path.stat().st_size else np.empty(0, vocabulary.dtype)
        for split in SPLITS
        for path in [folder / f"{split}.bin"]
    }
    return vocabulary, tokens, described["num_characters"]


def line_with(files: Sequence[Path], character: str) -> str:
    """The first of some files with a character, and the line it is in, in words."""
    for path in files:
        line = 1
        for text in text_pieces([path]):
            before, found, _ = text.partition(character)
            line += before.count("\n")
            if found:
                return f"{path}, line {line}"
    raise AssertionError(f"no file has {character!r}")


def _at_character(file: BinaryIO, position: int, size: int) -> int:
    """The next position at which a character begins; the beginning of a file is one, whatever stands there."""
    if not 0 < position < size:
        return position
    file.seek(position)
    following = file.read(4)
    # The rest of a character is three bytes at most: four are of none, and are left for the decoder to refuse.
    none_begins = len(following) if len(following) < 4 else 0
    return position + next((i for i, byte in enumerate(following) if byte & 0xC0 != 0x80), none_begins)
