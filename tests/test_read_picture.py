"""Pictures of odd kinds keep what they show, and none fills the memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from touchstone.datamodules import PicturesDataModule
from touchstone.datamodules.parts.read_picture import read_picture

RAMP = np.linspace(0, 1, 256)[None].repeat(8, 0)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int, colour: int, row: bytes, more: bytes = b"") -> bytes:
    """A PNG whose rows are all the same, packed row by row."""
    packer = zlib.compressobj(1)
    packed = b"".join([*(packer.compress(b"\0" + row) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + end


def tiff_without_sign(values: np.ndarray) -> bytes:
    """A TIFF of unsigned numbers of 32 bits, which Pillow cannot write."""
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, values.nbytes), (339, 3, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.astype("<u4").tobytes() + directory


def tiff_in_one_strip(side: int) -> bytes:
    """A packed TIFF of 16 bits with transparency, which Pillow cannot write either."""
    packer = zlib.compressobj(1)
    packed = b"".join([*(packer.compress(bytes(8 * side)) for _ in range(side)), packer.flush()])
    bits_at = 8 + len(packed)
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 4, bits_at), (259, 3, 1, 8), (262, 3, 1, 2), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 4), (278, 4, 1, side), (279, 4, 1, len(packed)), (338, 3, 1, 2)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<4HH", 16, 16, 16, 16, len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", bits_at + 8) + packed + directory


def jpeg(mode: str, side: int) -> bytes:
    """Progressive, and with as many values of colour as of light."""
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "JPEG", progressive=True, **({"subsampling": 0} if mode == "RGB" else {}))
    return file.getvalue()


def saved(values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    "write",
    [
        saved((RAMP * (2**31 - 1)).astype(np.int32)),
        saved((RAMP * 200_000).astype(np.int32)),
        saved((RAMP * 255).round().astype(np.int32)),
        saved((RAMP * 65535).astype(np.int32)),
        saved(((RAMP - 0.5) * 4e6).astype(np.int32)),
        lambda path: path.write_bytes(tiff_without_sign((RAMP * (2**32 - 1)).astype(np.uint32))),
        saved((RAMP * 1.2).astype(np.float32)),
        saved((RAMP * 1000).astype(np.float32)),
        saved((RAMP * 2 - 1).astype(np.float32)),
    ],
    ids=["32 bits", "200000", "8 in 32", "16 in 32", "signed", "unsigned", "1.2", "1000", "-1 to 1"],
)
def test_grey_values_of_any_range_span_black_to_white(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "a.tiff")
    read = np.asarray(read_picture(tmp_path / "a.tiff")).astype(int)
    assert np.abs(read[0, :, 0] - np.arange(256)).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    values = RAMP.astype(np.float32)
    values[3, 3] = value
    saved(values)(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="grey values that are no finite numbers"):
        read_picture(tmp_path / "a.tiff")


def test_transparent_grey_of_16_bits_is_white(tmp_path: Path) -> None:
    row = struct.pack(">4H", 100 * 257, 100 * 257, 0, 0)
    (tmp_path / "a.png").write_bytes(png(4, 4, depth=16, colour=0, row=row, more=chunk(b"tRNS", b"\0\0")))
    assert np.asarray(read_picture(tmp_path / "a.png"))[0, :, 0].tolist() == [100, 100, 255, 255]


def test_broken_metadata_leave_a_picture_as_it_is(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 255).astype(np.uint8)).save(tmp_path / "a.png", exif=b"zzzz")
    read = np.asarray(read_picture(tmp_path / "a.png"))
    assert np.abs(read[0, :, 0].astype(int) - np.arange(256)).max() <= 1


CORNERS = np.array([[10, 60], [110, 160], [210, 250]], dtype=np.uint8)
TURNED = {  # by the definition of EXIF: where the first row and the first column of what is stored are to be
    1: CORNERS, 2: CORNERS[:, ::-1], 3: CORNERS[::-1, ::-1], 4: CORNERS[::-1],
    5: CORNERS.T, 6: CORNERS[::-1].T, 7: CORNERS[::-1, ::-1].T, 8: CORNERS[:, ::-1].T,
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_every_orientation_is_turned_upright_once(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"tiffinfo": {0x0112: orientation}} if kind == "tiff" else {"exif": exif}
    if kind == "webp":
        options["lossless"] = True
    Image.fromarray(CORNERS).convert("RGB").save(tmp_path / f"a.{kind}", **options)
    read = np.asarray(read_picture(tmp_path / f"a.{kind}"))[..., 0].astype(int)
    assert read.shape == TURNED[orientation].shape
    assert np.abs(read - TURNED[orientation]).max() <= 2


def test_programs_and_documents_are_no_pictures_and_what_is_no_file_is_named(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8), "red")
    for name in ("a.eps", "b.pdf", "c.ico", "d.png"):
        picture.save(tmp_path / name)
    (tmp_path / "e.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "f.jpg").mkdir()
    os.mkfifo(tmp_path / "g.jpg")  # which a reader waits for
    data = PicturesDataModule(str(tmp_path), image_size=8, resize=8)
    assert [file.name for file in data.files] == ["d.png", "e.jpg", "g.jpg"]
    ((x, _, damaged),) = data.predict_dataloader()
    assert len(x) == 1
    assert damaged == [(1, "No such file"), (2, "it is no file but a folder, a pipe or a device")]
    with pytest.raises(ValueError, match="it is no picture"):
        read_picture(tmp_path / "c.ico")


PEAK = """
import resource, sys
from pathlib import Path
from touchstone.datamodules.parts.read_picture import read_picture
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
try:
    print(*read_picture(Path(sys.argv[1])).size, peak() - before)
except ValueError:
    print(0, 0, peak() - before)
"""
SIDE = 7000  # 49 million pixels, 200 MB in Pillow's four bytes each


@pytest.mark.parametrize(
    "make",
    [lambda: jpeg("RGB", 40), lambda: jpeg("CMYK", 40), lambda: tiff_in_one_strip(40)],
    ids=["RGB", "CMYK", "TIFF"],
)
def test_of_what_decoders_hold_whole_half_as_many_pixels_are_read(tmp_path: Path, make: Callable[[], bytes]) -> None:
    (tmp_path / "a.png").write_bytes(make())
    assert read_picture(tmp_path / "a.png", max_pixels=3200).size == (40, 40)
    with pytest.raises(ValueError, match="40 x 40 pixels, more than 1,599"):
        read_picture(tmp_path / "a.png", max_pixels=3199)


def icon() -> bytes:
    """That says 16 x 16, with a PNG of 13,000 x 13,000 inside."""
    inside = png(13_000, 13_000, depth=1, colour=0, row=bytes(1625))
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


@pytest.mark.parametrize(
    ("write", "size", "megabytes"),
    [
        pytest.param(
            lambda: png(SIDE, SIDE, depth=16, colour=0, row=bytes(2 * SIDE)), 3500, 300, marks=pytest.mark.slow
        ),
        pytest.param(
            lambda: png(SIDE, SIDE, depth=8, colour=6, row=bytes(4 * SIDE)), 3500, 400, marks=pytest.mark.slow
        ),
        pytest.param(
            lambda: png(SIDE, SIDE, depth=16, colour=6, row=bytes(8 * SIDE)), 3500, 400, marks=pytest.mark.slow
        ),
        pytest.param(icon, 0, 20, marks=pytest.mark.slow),
        pytest.param(lambda: jpeg("RGB", SIDE), 3500, 700, marks=pytest.mark.slow),
        pytest.param(lambda: jpeg("CMYK", SIDE), 3500, 700, marks=pytest.mark.slow),
        pytest.param(lambda: tiff_in_one_strip(SIDE), 3500, 700, marks=pytest.mark.slow),
    ],
    ids=["16 bits", "alpha", "16 bits with alpha", "icon", "progressive", "progressive CMYK", "TIFF in one strip"],
)
def test_reading_takes_no_more_memory_than_is_said(
    tmp_path: Path, root: Path, write: Callable[[], bytes], size: int, megabytes: int
) -> None:
    """In proportion: less than 1 GB at 100 million pixels, of the last three at 50, of which more are refused."""
    (tmp_path / "a.png").write_bytes(write())
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "a.png")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}, check=True,
    )  # fmt: skip
    width, height, peak = map(int, run.stdout.split())
    assert (width, height) == (size, size)
    assert peak < megabytes
