"""Files of text are read piece by piece: where one may be cut, and what is said of one that is not UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from touchstone.datamodules.parts.token_files import line_with, text_pieces

from .text_files import TEXT, data, write


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 7, 1000])
def test_pieces_of_any_size_are_the_text(tmp_path: Path, num_bytes: int) -> None:
    path = Path(write(tmp_path))
    assert "".join(text_pieces([path, path], num_bytes=num_bytes)) == 2 * TEXT
    raw = TEXT.encode()
    for cut in range(60, 80):  # some of them inside the four bytes of the face
        first, second = ("".join(text_pieces([path], *ends, num_bytes)) for ends in ((0, cut), (cut, len(raw))))
        assert first + second == TEXT
        assert len(first.encode()) - cut in range(4)


@pytest.mark.parametrize("num_bytes", [1, 2, 1000])
def test_a_byte_order_mark_is_no_text_at_the_beginning_of_a_file_alone(tmp_path: Path, num_bytes: int) -> None:
    marked, text = b"\xef\xbb\xbfa", "a\ufeffé"
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_bytes(marked)
    second.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert "".join(text_pieces([first, second], num_bytes=num_bytes)) == "a" + text
    for cut in range(13):
        parts = (text_pieces([first, second], *ends, num_bytes) for ends in ((0, cut), (cut, 13)))
        assert "".join("".join(part) for part in parts) == "a" + text
    second.write_bytes(b"\xef\xbb\xbfab\xff")
    with pytest.raises(ValueError, match="second.txt is not UTF-8: byte 5 is 0xff"):
        list(text_pieces([second], num_bytes=num_bytes))
    (tmp_path / "whole.txt").write_bytes(b"\xef\xbb\xbf" + b"abcd" * 100)
    for tokens, size in (("characters", 4), ("bytes", 256)):
        module = data(tmp_path, str(tmp_path / "whole.txt"), tokens=tokens)
        assert module.vocabulary.decode(module.splits["train"][:4].tolist()) == "abcd"
        assert len(module.vocabulary) == size


@pytest.mark.parametrize("last", ["é", "€", "😀"])
def test_a_cut_inside_the_last_character_leaves_it_whole(tmp_path: Path, last: str) -> None:
    text = "cut here " + last
    path = Path(write(tmp_path, text))
    size = path.stat().st_size
    for cut in range(size - len(last.encode()), size + 1):
        first, second = ("".join(text_pieces([path], *ends)) for ends in ((0, cut), (cut, size)))
        assert first + second == text


def test_a_character_is_found_by_file_and_line_whatever_piece_it_is_in(tmp_path: Path) -> None:
    files = [
        Path(write(tmp_path, text, name))
        for name, text in (("first.txt", "ab\n" * 9), ("second.txt", "ab\n" * 700_000 + "aäd\n"))
    ]
    assert line_with(files, "b") == f"{files[0]}, line 1"
    assert line_with(files, "d") == f"{files[1]}, line 700001"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux says of a process")
def test_a_large_text_needs_no_more_memory_than_a_small_one(root: Path, tmp_path: Path) -> None:
    code = """
import sys, threading, time
from touchstone.datamodules import TextDataModule
peak = 0
def watch():  # not the pages of files, which the system may drop
    global peak
    while True:
        peak = max(peak, next(int(line.split()[1]) for line in open("/proc/self/status") if "RssAnon" in line))
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
for order in ("random", "streams"):
    data = TextDataModule(
        files=[sys.argv[1]], tokens=sys.argv[2], token_folder=sys.argv[1] + "_tokens", order=order, steps_per_epoch=50
    )
    data.prepare_data()
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for number, (x, y) in enumerate(loader):
            assert x.shape[1] == 64
            if order == "streams" and number == 50:  # as many as of the random windows: from all over the text
                break
print(peak)
"""
    line, english = TEXT[:67], "\n".join(topics[name] for name in sorted(topics))
    sizes = {  # a table of the words that there are is kept of each text for byte pairs, and so they are the same ones
        "characters": (line * 400, line * 1_500_000),  # 30 KB and 110 MB
        "bytes": (line * 400, line * 1_500_000),
        "byte_pairs": (english * 8, english * 60),  # 4 MB and 28 MB
    }
    for tokens, texts in sizes.items():
        if tokens == "byte_pairs" and find_spec("tokenizers") is None:
            continue
        peaks = []
        for name, text in zip(("small", "large"), texts, strict=True):
            path = write(tmp_path, text, name)
            environment = {**os.environ, "PYTHONPATH": str(root)}
            run = subprocess.run(
                [sys.executable, "-c", code, path, tokens], env=environment, capture_output=True, text=True, check=True
            )
            peaks.append(int(run.stdout.split()[-1]))
        # KiB; the text is 100 MB, and of byte pairs less, since it takes longer.
        assert peaks[1] < peaks[0] + (40_000 if tokens == "byte_pairs" else 60_000), tokens


def test_a_text_that_is_not_utf_8_is_named_with_the_position(tmp_path: Path) -> None:
    good = write(tmp_path)
    for position in (0, 5, 1000, 2_000_000):
        bad = tmp_path / "bad.txt"
        bad.write_bytes(b"a" * position + b"\xff" + b"b" * 100)
        with pytest.raises(ValueError, match=rf"bad.txt is not UTF-8: byte {position} is 0xff"):
            data(tmp_path, good, str(bad))
    for stray in (b"\x80", b"\x80\xbf", b"\x80\xbf\x80", b"\x80" * 4):  # as of a character whose first byte is gone
        bad.write_bytes(stray + b"b" * 100)
        for files in ((str(bad),), (good, str(bad)), (str(bad), good)):
            with pytest.raises(ValueError, match=r"bad.txt is not UTF-8: byte 0 is 0x80 \(invalid start byte\)"):
                data(tmp_path, *files)
    bad.write_bytes(b"abc \xe2\x82")
    with pytest.raises(ValueError, match=r"byte 4 is 0xe2 \(unexpected end of data\)"):
        data(tmp_path, str(bad))
    assert list(tmp_path.glob("tokens/*")) == []  # nothing is left that a later run would take for tokens
