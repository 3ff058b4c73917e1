"""Files of drawn or damaged bytes: checkpoints, pictures and texts are read as they are, or refused in words."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from touchstone.cli.checkpoint_errors import check_checkpoint, load_checkpoint
from touchstone.cli.mistakes import UsageError
from touchstone.datamodules import TextDataModule
from touchstone.datamodules.parts.read_picture import read_picture
from touchstone.datamodules.parts.vocabulary import Bytes, Characters
from touchstone.datamodules.parts.words import Words, split_words
from touchstone.runs.durable import DurableCheckpointIO, damage

from .fuzzing import ask, for_each, fuzzed

pytestmark = pytest.mark.usefixtures("here")


@st.composite
def damaged(draw: Any, contents: list[bytes]) -> bytes:
    """One of some contents with bits flipped, pieces cut out, put in, repeated or cut off; or nothing of it at all."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["flip", "cut out", "put in", "repeat", "cut off", "zeros", "anything"]))
        piece = draw(st.integers(1, 64))
        if kind == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut out":
            del content[place : place + piece]
        elif kind == "put in":
            content[place:place] = draw(st.binary(max_size=16))
        elif kind == "repeat":
            content[place:place] = content[place : place + piece]
        elif kind == "cut off":
            del content[place:]
        elif kind == "zeros":
            content[place : place + piece] = bytes(len(content[place : place + piece]))
        elif kind == "anything":
            content = bytearray(draw(st.binary(max_size=64)))
    return bytes(content)


# Checkpoints.

STORED: dict[str, Any] = {
    "state_dict": {"weight": torch.arange(60.0).reshape(3, 20), "bias": torch.ones(3)},
    "epoch": 3,
    "global_step": 7,
    "hyper_parameters": {"lr": 0.1, "name": "a"},
    "pytorch-lightning_version": "2.5.0",
}


def stored() -> bytes:
    DurableCheckpointIO().save_checkpoint(STORED, "whole.ckpt")
    return Path("whole.ckpt").read_bytes()


def check_refused_or_whole(name: str, *, is_bytes_of_torch: bool = True) -> None:
    """A checkpoint is refused in one line, or its weights are those that were written."""
    answer = ask(lambda: (check_checkpoint(name), load_checkpoint(name))[1], UsageError)
    if answer.refusal is not None:
        assert name in answer.refusal
        assert len(answer.refusal.splitlines()) == 1
        return
    assert isinstance(answer.value, dict)
    if is_bytes_of_torch:
        assert all(torch.equal(answer.value["state_dict"][key], value) for key, value in STORED["state_dict"].items())


@fuzzed(40, 500)
def test_a_checkpoint_of_damaged_bytes_is_refused_or_whole(num_cases: int) -> None:
    def holds(content: bytes) -> None:
        Path("a.ckpt").write_bytes(content)
        damage(Path("a.ckpt"))
        check_refused_or_whole("a.ckpt")

    for_each(damaged([stored()]), num_cases, holds)


@fuzzed(30, 400)
def test_a_checkpoint_whose_pickle_is_damaged_under_a_right_checksum_is_refused_or_harmless(num_cases: int) -> None:
    with zipfile.ZipFile(io.BytesIO(stored())) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    pickled = next(name for name in parts if name.endswith("data.pkl"))

    def holds(content: bytes) -> None:
        with zipfile.ZipFile("a.ckpt", "w") as archive:
            for name, part in {**parts, pickled: content}.items():
                archive.writestr(name, part)
        check_refused_or_whole("a.ckpt", is_bytes_of_torch=False)

    for_each(damaged([parts[pickled]]), num_cases, holds)


# Pictures.


def pictures() -> list[bytes]:
    pixels = np.arange(24 * 16 * 3, dtype=np.uint8).reshape(24, 16, 3)
    picture, contents = Image.fromarray(pixels), []
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("GIF", "P"),
                       ("WEBP", "RGBA"), ("BMP", "RGB"), ("TIFF", "I;16"), ("TIFF", "F"), ("PPM", "RGB"),
                       ("ICO", "RGBA"),
                       ("TGA", "RGB"), ("PCX", "L")):  # fmt: skip
        file = io.BytesIO()
        (Image.fromarray(pixels[..., 0].astype(np.uint16)) if mode == "I;16" else picture.convert(mode)).save(
            file, kind
        )
        contents.append(file.getvalue())
    return contents


@fuzzed(70, 800)
def test_a_picture_of_damaged_bytes_is_read_or_refused(num_cases: int) -> None:
    def holds(content: bytes) -> None:
        Path("a.png").write_bytes(content)
        answer = ask(lambda: read_picture(Path("a.png"), max_pixels=100_000))
        if answer.refusal is not None:
            assert len(answer.refusal.splitlines()) == 1
            return
        assert answer.value.mode == "RGB"
        assert 0 < answer.value.width * answer.value.height <= 100_000

    for_each(damaged(pictures()), num_cases, holds)


# Texts.

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@fuzzed(20, 300)
def test_every_text_comes_back_from_its_tokens(num_cases: int) -> None:
    def holds(text: str) -> None:
        assert Bytes().decode(Bytes().encode(text).tolist()) == text
        characters = Characters.learn([text, "a"])
        assert characters.decode(characters.encode(text).tolist()) == text
        words = Words.learn([text], most=1000)
        assert words.decode(words.encode(text).tolist()) == " ".join(split_words(text))

    for_each(ANY_TEXT, num_cases, holds)


def files() -> SearchStrategy[bytes]:
    return st.one_of(ANY_TEXT.map(str.encode), st.binary(max_size=60), damaged(["aé\u202e\U0001f3bb\n".encode() * 9]))


@fuzzed(20, 300)
def test_a_text_file_of_any_bytes_gives_whole_windows_or_an_error_in_words(num_cases: int) -> None:
    def holds(content: bytes) -> None:
        Path("text").write_bytes(content)
        shares = {"val_share": 0.2, "test_share": 0.2}
        data = TextDataModule(files=["text"], tokens="characters", context=2, batch_size=2, token_folder="t", **shares)
        refusal = ask(lambda: data.setup("fit")).refusal
        if refusal is not None:
            assert len(refusal.splitlines()) == 1
            return
        for x, y in [*data.val_dataloader(), next(iter(data.train_dataloader()))]:
            assert x.shape == y.shape
            assert 0 <= int(x.min()) <= int(x.max()) < len(data.vocabulary)
            assert torch.equal(x[:, 1:], y[:, :-1])

    for_each(files(), num_cases, holds)
