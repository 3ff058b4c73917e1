"""`TextDataModule`: its splits, the text it takes by default, when it encodes one again, and what it refuses."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser

from touchstone.datamodules import TextDataModule
from touchstone.datamodules.parts.token_files import read_tokens

from .text_files import TEXT, data, write


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


def test_without_a_test_text_the_validation_text_is_tested(tmp_path: Path) -> None:
    module = data(tmp_path, write(tmp_path), test_share=0.0)
    assert np.array_equal(module.splits["test"], module.splits["val"])
    assert module.characters_per_token["test"] == module.characters_per_token["val"]


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
