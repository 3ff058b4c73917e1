"""`stored_weights`: what a file of `torch.save` holds, read without running code, and what another file is."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
"""How files of torch.save began before they were zip archives: a pickled number."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
KINDS = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"version https://git-lfs", "a pointer of Git LFS to the file itself; `git lfs pull` brings that"),
)
"""First bytes, and what begins with them."""
NUM_BYTES = 512  # that are looked at


def stored_weights(file: str, call: str) -> Any:
    """What was saved, of tensors and plain values alone; nothing in the file can run.

    Args:
        file: its path.
        call: who asks, for messages.

    Raises:
        ValueError: it holds more, which is named, or is no such file, or is damaged.
        OSError: it cannot be opened.
    """
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"{call}: there is no file {file!r}")
    if path.is_dir():
        raise ValueError(f"{call} is a folder, not a file")
    if not path.is_file():  # as a pipe, which a reader would wait for
        raise ValueError(f"{call} is no file")
    with path.open("rb") as opened:
        head = opened.read(NUM_BYTES)
    if other := _other_kind(path, head):
        raise ValueError(f"{call} is no checkpoint but {other}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about the pickles of damaged files
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, depending on where the bytes stop making sense
        if more := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{call} holds more than weights, {more[1].rstrip('.')}, which loading could run as code. If you "
                "trust who made it, convert it once, where nothing is at stake: `stored = torch.load(FILE, "
                "weights_only=False)`, then `torch.save({'model': stored['model']}, NEW_FILE)`, or whatever in it is "
                "the state dict"
            ) from error
        reason = "its pickle makes no sense" if "weights_only" in str(error) else _first_sentence(error)
        raise ValueError(f"{call} is no checkpoint, or a damaged one: {reason}") from error


def _other_kind(path: Path, head: bytes) -> str | None:
    """What a file is that `torch.save` has not written, None where it may have."""
    if not head:
        return "an empty file"
    if head.startswith(ZIP):
        return _other_archive(path)
    if head.startswith(PICKLE):
        return None if head.startswith(LEGACY[: len(head)]) else "a pickle that torch.save has not written"
    for begins, kind in KINDS:
        if head.startswith(begins):
            return kind
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page; a link that asks for a login or has moved gives one in place of the file"
    if head[8:9] == b"{":
        return "a file of safetensors; read it with that library, and torch.save what it gives"
    return "a text" if _is_text(head) else "a file that torch.save has not written"


def _other_archive(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):  # cut short
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        return "a program of TorchScript; `torch.jit.load` reads it, and its state_dict() can be saved"
    if any(name.endswith(".npy") for name in names):
        return "an archive of NumPy"
    return None if any(name.endswith("data.pkl") for name in names) else "a zip archive of something else"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < NUM_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return text.replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable()


def _first_sentence(error: Exception) -> str:
    sentence = re.split(r"\n|\. ", str(error))[0]
    known = isinstance(error, (RuntimeError, ValueError, OSError)) and sentence
    return sentence if known else f"{type(error).__name__} {sentence}".strip()
