"""Files that were made to do harm give an error, or harmless text; what they would run or write is not there."""

from __future__ import annotations

import csv
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from touchstone.callbacks import NamedPredictions
from touchstone.callbacks.parts.pictures.attack_picture import Attacked, attack_picture
from touchstone.callbacks.parts.pictures.curves_picture import curves_picture
from touchstone.callbacks.parts.pictures.labelled_copy import labelled_copy
from touchstone.callbacks.parts.pictures.text_picture import FlippedText, text_picture
from touchstone.callbacks.parts.records.curves_file import Curves
from touchstone.callbacks.parts.records.publish import file_name, publish_picture
from touchstone.datamodules import PicturesDataModule
from touchstone.datamodules.parts.read_picture import read_picture
from touchstone.datamodules.parts.tree_files import tree_files
from touchstone.datamodules.sources import ImageTree, NpzImages
from touchstone.runs.shown import shown

from .command_lines import TINY, with_value, write
from .lightning_programs import trainer
from .picture_folders import Classes

pytestmark = pytest.mark.usefixtures("here")


class Written:
    """What a malicious pickle does when it is loaded."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("written"),)


# Files with code in them.


def pickled_images() -> None:
    x, y = np.array([Written()] * 4, dtype=object), np.arange(4)
    np.savez("a.npz", x_train=x, y_train=y)
    NpzImages("a.npz").read("train", Path("cache"))


def pickled_array_in_a_picture() -> None:
    np.save("a.npy", np.array([Written()], dtype=object))
    read_picture(Path("a.npy"))


CODE: dict[str, Callable[[], None]] = {
    "images": pickled_images,
    "a picture": pickled_array_in_a_picture,
}


@pytest.mark.parametrize("kind", CODE)
def test_data_with_code_in_them_are_refused_and_run_nothing(kind: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        CODE[kind]()
    assert not Path("written").exists()


TAGS = (
    "!!python/object/apply:os.mkdir [written]",
    "!!python/object/new:os.mkdir [written]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", ["file", "option"])
def test_python_tags_in_a_config_are_refused_and_run_nothing(place: str, tag: str, run: Any) -> None:
    name = write(TINY)
    options = ["--config", name, "--trainer.max_epochs", tag]
    if place == "file":
        Path(name).write_text(Path(name).read_text().replace("max_epochs: 1", f"max_epochs: {tag}"))
        options = options[:2]
    ended = run("fit", *options)
    assert ended.code == 2
    assert len(ended.err.splitlines()) <= 5
    assert not Path("written").exists()


# Archives. Nothing unpacks them: their files are read where they lie.


def archive(*members: tuple[str, bytes | None, dict[str, Any]]) -> Path:
    with tarfile.open("a.tar.gz", "w:gz") as file:
        for name, content, fields in members:
            member = tarfile.TarInfo(name)
            member.size = len(content or b"")
            for field, value in fields.items():
                setattr(member, field, value)
            file.addfile(member, io.BytesIO(content) if content is not None else None)
    return Path("a.tar.gz")


def a_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def test_aliases_of_aliases_in_a_config_are_refused_before_they_fill_the_memory(run: Any) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    Path("bomb.yaml").write_text("\n".join(lines) + "\n")
    ended = run("fit", "--config", "bomb.yaml")
    assert ended.code == 2
    assert ended.first_line.startswith("error: bomb.yaml: a config holds at most 100,000 values")


def test_paths_and_links_that_lead_out_of_an_archive_lead_nowhere(here: Path) -> None:
    Path("secret").write_text("a secret")
    link = {"type": tarfile.SYMTYPE, "linkname": str(here / "secret")}
    found = archive(
        ("train/a/1.png", a_picture(), {}),
        ("train/b/1.png", a_picture(), {}),
        ("train/../../led_out", b"out", {}),
        ("/train/a/absolute.png", a_picture(), {}),
        ("train/a/link.png", None, link),
        ("train/b/hard.png", None, {**link, "type": tarfile.LNKTYPE}),
        ("train/a/device.png", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
    )
    read = {str(path) for path, _ in tree_files(found, "train")}
    assert read == {"train/a/1.png", "train/b/1.png", "train/../../led_out"}
    data = ImageTree(str(found), size=8).read("train", Path("cache"))
    assert data is not None
    assert len(data.y) == 2
    assert not list(here.parent.glob("**/led_out"))


def test_a_file_of_an_archive_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("touchstone.datamodules.parts.tree_files.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"'a/bomb.png' has 1,001 bytes: a bomb\?"):
        list(tree_files(archive(("a/bomb.png", bytes(1001), {}))))


def announced(size: int) -> bytes:
    """A packed file of two classes and of images whose header announces so many bytes, and none follow."""
    header, classes, file = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (size, 1, 1)})
    np.save(classes, np.arange(2))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x.npy", header.getvalue())
        packed.writestr("y.npy", classes.getvalue())
    return file.getvalue()


@pytest.mark.parametrize("size", [(1 << 30) + 1, 1 << 60])
def test_images_that_would_fill_the_memory_are_refused_by_their_header(size: int) -> None:
    Path("a.npz").write_bytes(announced(size))
    with pytest.raises(ValueError, match=rf"'a.npz'.*x has {size:,} bytes, more than 1,073,741,824: a bomb\?"):
        NpzImages("a.npz").read("train", Path("cache"))


def test_images_as_large_as_their_file_are_read_whatever_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("touchstone.datamodules.sources.npz_images.MAX_BYTES", 1)
    np.savez("a.npz", x=np.zeros((2, 30, 30), np.uint8), y=np.arange(2))
    read = NpzImages("a.npz").read("train", Path("cache"))
    assert read is not None
    assert read.x.shape == (2, 1, 30, 30)
    np.savez_compressed("a.npz", x=np.zeros((2, 900, 900), np.uint8), y=np.arange(2))
    with pytest.raises(ValueError, match=r"a bomb\?"):
        NpzImages("a.npz").read("train", Path("cache"))


def test_a_text_bomb_in_a_picture_is_refused() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    whole = a_picture()
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 26), 9))  # 64 kB that are 64 MB
    Path("a.png").write_bytes(whole[:33] + text + whole[33:])
    with pytest.raises(ValueError, match="(?i)too large|too much memory"):
        read_picture(Path("a.png"))


# Names.

NAMES = {
    "of another script": "柴犬",
    "an escape sequence": "\x1b[2J\x1b[31mred",
    "line breaks": "one\ntwo\r\nthree",
    "a bell, and a nought": "\a\x00\b",
    "right to left": "\u202egnp.exe",
    "broken mathematics": "$\\frac{1}$ $",
    "marks": "<script>alert(1)</script> [red]a[/]",
    "bytes that are no text": os.fsdecode(b"\xff\xfe"),
    "far too long": "long " * 4000,
    "a path": "../../../../written",
    "nothing": "",
}
LOGITS = torch.eye(2)


@pytest.mark.parametrize("kind", NAMES)
def test_names_are_drawn_as_text(kind: str, tmp_path: Path) -> None:
    name = NAMES[kind]
    x = torch.rand(2, 1, 4, 4)
    attacked = Attacked(x, x, LOGITS, LOGITS, torch.tensor([0, 1]), torch.tensor([-1, 0]))
    text = FlippedText([name, "a"], ["b", name], shown(name, 300))
    curve = Curves(f"{name}/version_0", "val", "PGD(", "Linf", 0.1, 2, 2, [0.0], [1.0], [0], [1.0], [0.1])
    run = trainer(tmp_path, logger=TensorBoardLogger(tmp_path, name="run"))
    for number, figure in enumerate(
        (
            attack_picture(attacked, title="a", class_names=[name, name]),
            text_picture([text], title="a"),
            curves_picture([curve]) if len(name) < 100 else None,
        )
    ):
        if figure is not None:
            publish_picture(run, tmp_path, f"{number}/{name}", figure)
    files = list((tmp_path / "figures").iterdir())
    assert len(files) == 2 + (len(name) < 100)
    assert all(path.name.isprintable() and len(path.name.encode()) < 255 for path in files)
    assert not list(tmp_path.parent.glob("written*"))
    labelled = labelled_copy(Image.new("RGB", (8, 8)), [shown(name, 200)])
    assert labelled.width < 5000


@pytest.mark.parametrize("kind", NAMES)
def test_what_is_shown_of_a_name_does_nothing_and_is_not_empty_of_it(kind: str) -> None:
    text = shown(NAMES[kind])
    assert text.isprintable()
    assert len(text) >= len(NAMES[kind])
    assert len(shown(NAMES[kind], 18)) <= 18
    assert len(file_name(NAMES[kind]).encode()) <= 200


def test_pictures_of_names_that_differ_in_a_sign_lie_in_files_of_their_own() -> None:
    names = ["pgd 8/255", "pgd 8:255", "pgd_8_255", "pgd-8-255", "pgd/8/255", "pgd  8/255", "pgd(8,255)", "pgd 8/255 "]
    assert len({file_name(f"attack/{name}") for name in names}) == len(names)


@pytest.mark.parametrize(
    ("tag", "file"),
    [
        ("attack/pgd", "attack_pgd"),
        ("deepdream/_fc:76", "deepdream__fc_76"),
        ("deepdream/conv.1:5,12,12", "deepdream_conv.1_5_12_12"),
        ("deepdream/fc/wide", "deepdream_fc_wide"),
        ("deepdream/_fc:76/wide", "deepdream__fc_76_wide"),
        ("curves/dataloader_idx_1", "curves_dataloader_idx_1"),
        ("attack/pgd/dataloader_idx_1", "attack_pgd_dataloader_idx_1"),
    ],
)
def test_the_pictures_of_usual_tags_lie_where_they_are_looked_for(tag: str, file: str) -> None:
    assert file_name(tag) == file


def test_files_of_hostile_names_are_predicted_and_written_down_harmlessly(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "in"
    folder.mkdir()
    names = [b"\x1b[2Ja.png", b"line\nbreak.png", b"\xff.png", b"=cmd.png", b"a" * 240 + b".png", b"$x^.png"]
    for name in names:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(a_picture())
    with open(os.path.join(os.fsencode(folder), b"\x1b[31mdamaged.png"), "wb") as file:
        file.write(b"\x89PNG")
    data = PicturesDataModule(str(folder), class_names=["red\x1b[0m", "green\n", "b" * 3000], image_size=8, resize=8)
    run = pl.Trainer(
        logger=TensorBoardLogger("logs", name="run"), callbacks=[NamedPredictions(top_k=3)], accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    run.predict(Classes(), data, return_predictions=False)
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert "6 pictures predicted, 1 could not be read" in out
    assert run.log_dir is not None
    table = Path(run.log_dir, "predictions.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == len(table.splitlines()) - 1 == len(names)
    assert all(value.isprintable() and len(value) < 400 for row in rows for value in row.values())
    copies = list(Path(run.log_dir, "labelled").iterdir())
    assert len(copies) == len(names)
    assert all(path.name.isprintable() for path in copies)


def test_a_folder_of_a_hostile_name_is_an_error_that_can_be_printed(run: Any, here: Path) -> None:
    for name in ("\x1b[31mcats", "dogs"):
        (here / "train" / name).mkdir(parents=True)
        (here / "train" / name / "1.png").write_bytes(b"\x89PNG")
    source = {"class_path": "touchstone.datamodules.sources.ImageTree", "init_args": {"root": str(here), "size": 8}}
    data = {"class_path": "touchstone.datamodules.ImagesDataModule", "init_args": {"source": source}}
    ended = run("fit", "--config", write(with_value(data, "data")))
    assert ended.code in (1, 2)
    assert "cats" in ended.err
    assert all(line.isprintable() for line in ended.err.splitlines())
