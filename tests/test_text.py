"""`TextDataModule`: what a text becomes, where it is cut, and what it says of texts that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from touchstone.datamodules import TextDataModule
from touchstone.datamodules.parts.token_files import line_with, read_tokens, text_pieces
from touchstone.datamodules.parts.vocabulary import BytePairs, Bytes, Characters, load_vocabulary
from touchstone.datamodules.text import Streams, Windows

TEXT = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 😀\n" * 40


def write(folder: Path, text: str = TEXT, name: str = "text.txt") -> str:
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def data(folder: Path, *files: str, **options: Any) -> TextDataModule:
    options = {"context": 16, "batch_size": 4, "val_share": 0.2, "test_share": 0.1, **options}
    module = TextDataModule(files=files or None, token_folder=str(folder / "tokens"), **options)
    module.prepare_data()
    module.setup("fit")
    return module


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
@pytest.mark.parametrize("num_files", [1, 3])
def test_the_splits_are_the_text_in_order_and_share_nothing(tmp_path: Path, tokens: Any, num_files: int) -> None:
    files = [write(tmp_path, TEXT[i::num_files], f"{i}.txt") for i in range(num_files)]
    whole = "".join(Path(file).read_text(encoding="utf-8") for file in files)
    module = data(tmp_path, *files, tokens=tokens)
    parts = {name: module.vocabulary.decode(ids.tolist()) for name, ids in module.splits.items()}
    assert list(parts) == ["train", "val", "test"]
    assert "".join(parts.values()) == whole
    size = len(whole.encode())
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        assert abs(len(parts[name].encode()) - share * size) <= 4
        assert module.characters_per_token[name] == pytest.approx(len(parts[name]) / len(module.splits[name]))


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


def test_targets_are_the_tokens_one_further_on(tmp_path: Path) -> None:
    module = data(tmp_path, write(tmp_path))
    ids = torch.from_numpy(module.splits["val"].astype(np.int64))
    x, y = (torch.cat(parts).flatten() for parts in zip(*module.val_dataloader(), strict=True))
    assert torch.equal(x, ids[: len(x)])
    assert torch.equal(y, ids[1 : len(x) + 1])
    assert len(ids) - len(x) <= 16  # what fills no window
    for x, y in module.train_dataloader():
        assert x.shape == y.shape == (4, 16)
        assert x.dtype == torch.int64
        assert torch.equal(x[:, 1:], y[:, :-1])


@pytest.mark.parametrize("every", [1, 3, 4])
@pytest.mark.parametrize("num_tokens", range(5, 15))
def test_every_window_that_has_its_last_target_is_one(num_tokens: int, every: int) -> None:
    windows, ids = Windows(np.arange(num_tokens), 4, every), list(range(num_tokens))
    expected = [ids[start : start + 5] for start in range(0, num_tokens, every) if start + 5 <= num_tokens]
    assert [[*x.tolist(), int(y[-1])] for x, y in (windows[i] for i in range(len(windows)))] == expected
    with pytest.raises(IndexError):
        windows[len(expected)]


def test_random_windows_begin_anywhere_and_an_epoch_is_as_long_as_it_is_said(tmp_path: Path) -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(2000))
    module = data(tmp_path, write(tmp_path, text), steps_per_epoch=50)
    assert len(module.train_dataloader()) == 50
    firsts = torch.cat([x[:, 0] for x, _ in module.train_dataloader()])
    assert len(set(firsts.tolist())) == 26
    module.steps_per_epoch = None
    assert len(module.train_dataloader()) == (1400 - 16) // (4 * 16)


def test_streams_continue_from_batch_to_batch(tmp_path: Path) -> None:
    module = data(tmp_path, write(tmp_path), order="streams")
    for loader, split in ((module.train_dataloader(), "train"), (module.val_dataloader(), "val")):
        x, y = (torch.cat(parts, 1) for parts in zip(*loader, strict=True))
        ids = module.splits[split].astype(np.int64)
        length = x.shape[1]
        assert torch.equal(x[:, 1:], y[:, :-1])
        for row in range(4):
            assert np.array_equal(x[row].numpy(), ids[row * length : (row + 1) * length])


@pytest.mark.parametrize("batch_size", [1, 2, 8, 32])
def test_streams_leave_out_next_to_nothing_of_a_text_of_any_length(batch_size: int) -> None:
    """Of 63 windows in batches of 32, 31 had been left out."""
    for num_windows in range(1, 300):
        batches = np.array(list(Streams(num_windows, batch_size)))
        assert len(batches) == len(Streams(num_windows, batch_size))
        assert batches.shape[1] <= batch_size
        assert np.array_equal(batches.T.flatten(), np.arange(batches.size))  # each once, and in rows
        assert num_windows - batches.size <= num_windows / (batch_size + 1)
        assert batches.size >= min(batch_size, num_windows) * (num_windows // min(batch_size, num_windows))


def test_streams_in_several_processes_are_refused_and_random_windows_are_not(tmp_path: Path) -> None:
    random, streams = (data(tmp_path, write(tmp_path), order=order) for order in ("random", "streams"))
    for module in (random, streams):
        module.trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    assert min(map(len, (random.train_dataloader(), random.val_dataloader()))) >= 1
    for loader in (streams.train_dataloader, streams.val_dataloader, streams.test_dataloader):
        with pytest.raises(ValueError, match=r"TextDataModule\(order='streams'\) runs in one process, got 2"):
            loader()


@pytest.mark.parametrize("kind", [str, Path])
def test_one_file_is_a_list_of_it(tmp_path: Path, kind: Any) -> None:
    path = write(tmp_path)
    assert TextDataModule(files=kind(path)).files == TextDataModule(files=[kind(path)]).files == [Path(path)]
    parser = ArgumentParser()
    parser.add_class_arguments(TextDataModule, "data")
    for given in (path, f"[{path}]"):  # as in a config and on the command line
        in_config = parser.parse_object({"data": {"files": yaml.safe_load(given)}})
        for arguments in (in_config, parser.parse_args([f"--data.files={given}"])):
            assert parser.instantiate(arguments).data.files == [Path(path)]


def test_the_default_text_is_english_and_comes_with_python(tmp_path: Path) -> None:
    module = data(tmp_path, tokens="bytes")
    text = bytes(module.splits["train"]).decode()
    words = Counter(text.lower().split())
    assert {"the", "of", "is", "a"} <= {word for word, _ in words.most_common(12)}
    assert len(text) > 200_000


def test_a_part_of_the_default_text_that_a_killed_process_left_is_not_taken_for_it(tmp_path: Path) -> None:
    whole = "\n".join(topics[name] for name in sorted(topics))
    (path,) = TextDataModule(token_folder=str(tmp_path))._files()
    assert path.read_text(encoding="utf-8") == whole
    path.write_text(whole[:50_000], encoding="utf-8")
    assert TextDataModule(token_folder=str(tmp_path))._files()[0].read_text(encoding="utf-8") == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_change_that_leaves_the_time_of_the_file_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path)
    stat = os.stat(path)
    assert "Deich" in data(tmp_path, path).vocabulary.decode(data(tmp_path, path).splits["train"].tolist())
    write(tmp_path, TEXT.replace("Deich", "Teich"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = data(tmp_path, path)
    assert "Teich" in again.vocabulary.decode(again.splits["train"].tolist())


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


def test_a_character_is_found_by_file_and_line_whatever_piece_it_is_in(tmp_path: Path) -> None:
    files = [
        Path(write(tmp_path, text, name))
        for name, text in (("first.txt", "ab\n" * 9), ("second.txt", "ab\n" * 700_000 + "aäd\n"))
    ]
    assert line_with(files, "b") == f"{files[0]}, line 1"
    assert line_with(files, "d") == f"{files[1]}, line 700001"


def test_without_a_test_text_the_validation_text_is_tested(tmp_path: Path) -> None:
    module = data(tmp_path, write(tmp_path), test_share=0.0)
    assert np.array_equal(module.splits["test"], module.splits["val"])
    assert module.characters_per_token["test"] == module.characters_per_token["val"]


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


def test_a_text_is_encoded_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path)
    first = data(tmp_path, path)._folder()
    before = (first / "train.bin").stat().st_mtime_ns
    assert (data(tmp_path, path)._folder() / "train.bin").stat().st_mtime_ns == before
    write(tmp_path, TEXT + "more")
    module = data(tmp_path, path)
    assert module._folder() != first
    assert module.vocabulary.decode(module.splits["test"][-4:].tolist()) == "more"
    assert {folder.name for folder in (tmp_path / "tokens").iterdir()} == {first.name, module._folder().name}


def test_tokens_are_read_through_a_memory_map(tmp_path: Path) -> None:
    module = data(tmp_path, write(tmp_path))
    _, tokens, _ = read_tokens(module._folder())
    assert all(isinstance(ids, np.memmap) and not ids.flags.writeable for ids in tokens.values())


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


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"TextDataModule\(files=...\): there is no file .*nowhere.txt"):
        data(tmp_path, str(tmp_path / "nowhere.txt"))
    with pytest.raises(ValueError, match=r"there is no text in .*text.txt"):
        data(tmp_path, write(tmp_path, ""))
    with pytest.raises(ValueError, match=r"files=...\) must be None or name at least one file, got \[\]"):
        TextDataModule(files=[])
    with pytest.raises(ValueError, match=r"the text for test has 10 tokens, and a window takes 17"):
        data(tmp_path, write(tmp_path, "a" * 100))
    for options, message in (
        ({"context": 0}, r"TextDataModule\(context=...\) must be >= 1, got 0"),
        ({"eval_batch_size": 0}, r"eval_batch_size=...\) must be >= 1, got 0"),
        ({"tokens": "words"}, "must be one of 'characters', 'bytes', 'byte_pairs', got 'words'"),
        ({"order": "sorted"}, "must be one of 'random', 'streams', got 'sorted'"),
        ({"num_byte_pairs": 100}, "must be >= 256, got 100"),
        ({"val_share": 0.6, "test_share": 0.4}, "leave something for training, got 0.6 and 0.4"),
        ({"val_share": 0.0}, "must be > 0 and >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            TextDataModule(**options)  # type: ignore[arg-type]
