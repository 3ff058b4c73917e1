"""Whatever is given as a file of weights, the message says what it is."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from touchstone.nets import PublicCheckpoint, Trained
from touchstone.nets.parts.stored_weights import stored_weights


def by_torch(stored: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(stored, file, **options)
    return file.getvalue()


def a_picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


def an_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    return file.getvalue()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


def a_program() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(4, 3), torch.zeros(1, 4)), file)
    return file.getvalue()


class RunsACommand:
    def __reduce__(self) -> Any:
        return os.system, ("touch it_ran",)


WEIGHTS = nn.Linear(4, 3).state_dict()
OLD = {"_use_new_zipfile_serialization": False}


@pytest.mark.parametrize("net", [PublicCheckpoint, Trained])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "no checkpoint but an empty file"),
        (lambda: b"hello, this is text", "but a text"),
        (lambda: "é".encode() * 600, "but a text"),
        (lambda: b"\n<!DOCTYPE html><html>404</html>", "but a web page"),
        (lambda: a_picture("JPEG"), "but a JPEG picture"),
        (lambda: a_picture("PNG"), "but a PNG picture"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\n", "but a pointer of Git LFS"),
        (lambda: an_archive(), "but a zip archive of something else"),
        (lambda: arrays(), "but an archive of NumPy"),
        (lambda: pickle.dumps({"a": 1}), "but a pickle that torch.save has not written"),
        (lambda: b"\x40\0\0\0\0\0\0\0" + b'{"a":1}'.ljust(64), "but a file of safetensors"),
        (lambda: bytes(600), "but a file that torch.save has not written"),
        (lambda: by_torch(WEIGHTS)[:500], "or a damaged one: "),
        (lambda: by_torch(WEIGHTS)[:3], "but a text|but a file"),
        (lambda: by_torch(WEIGHTS, **OLD)[:300], "or a damaged one: "),
        (lambda: by_torch({"state_dict": [1]}), "must hold a state dict"),
        (lambda: by_torch({"a": RunsACommand()}), r"holds more than weights, posix.system, which .*convert it"),
        (lambda: by_torch({"a": RunsACommand()}, **OLD), "holds more than weights, posix.system, which"),
        (lambda: pickle.dumps(RunsACommand()), "but a pickle"),
        (lambda: by_torch(nn.Linear(4, 3)), "holds more than weights, torch.nn.modules.linear.Linear, which"),
    ],
)
def test_a_file_that_holds_no_weights_is_called_what_it_is(
    here: Path, net: Callable[..., nn.Module], content: Callable[[], bytes], message: str
) -> None:
    Path("a.pt").write_bytes(content())
    with pytest.raises(ValueError, match=rf"{net.__name__}\(checkpoint='a.pt'\) .*{message}") as raised:
        net(nn.Linear(4, 3), "a.pt")
    assert "will likely succeed" not in str(raised.value)
    assert not Path("it_ran").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_what_is_no_file_or_no_file_of_weights_is_called_so(here: Path) -> None:
    os.mkfifo("pipe.pt")
    with pytest.raises(ValueError, match="f is no file"):
        stored_weights("pipe.pt", "f")
    Path("a.pt").write_bytes(a_program())
    with pytest.raises(ValueError, match="f is no checkpoint but a program of TorchScript"):
        stored_weights("a.pt", "f")
    with pytest.raises(ValueError, match="f is a folder, not a file"):
        stored_weights(str(here), "f")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        stored_weights("nowhere.pt", "f")


@pytest.mark.parametrize("options", [{}, OLD])
def test_what_torch_saved_is_read(here: Path, options: dict[str, Any]) -> None:
    Path("a.pt").write_bytes(by_torch(WEIGHTS, **options))
    assert all(torch.equal(value, WEIGHTS[key]) for key, value in stored_weights("a.pt", "f").items())
