"""Data sets of torchvision are read as they are, and downloaded only where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from touchstone.datamodules import TorchvisionImages


def test_exact_mnist_images_are_read_through_torchvision(tmp_path: Path, shared: Path) -> None:
    from .public_models import mnist_images

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    import gzip

    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        content = gzip.decompress((shared / "data" / f"{name}.gz").read_bytes())
        for copy in (name, name.replace("t10k", "train")):
            (raw / copy).write_bytes(content)
    found = TorchvisionImages("MNIST", str(tmp_path)).read("test", tmp_path)
    x, y = mnist_images(shared, 10_000)
    assert found is not None
    assert torch.equal(found.x.float() / 255, x)
    assert torch.equal(found.y, y)
    with pytest.raises(ValueError, match="has 10000 images for train and 10000 labels, where there are 60000"):
        TorchvisionImages("MNIST", str(tmp_path)).read("train", tmp_path)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"half")
    with pytest.raises(ValueError, match="interrupted, perhaps"):
        TorchvisionImages("MNIST", str(tmp_path)).read("test", tmp_path)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "MNIST", "FashionMNIST"])
def test_nothing_is_downloaded_unasked(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="download: true fetches it"):
        TorchvisionImages(name, str(tmp_path)).read("train", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_files_that_are_others_are_an_error(tmp_path: Path) -> None:
    """By their checksums, which torchvision knows."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(b"another file")
    with pytest.raises(ValueError, match="it is not there, or not whole; download: true fetches it"):
        TorchvisionImages("CIFAR10", str(tmp_path)).read("train", tmp_path)


def test_an_interrupted_download_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", interrupted)
    with pytest.raises(ValueError, match=r"File not found or corrupted.*interrupted, perhaps"):
        TorchvisionImages("CIFAR10", str(tmp_path), download=True).read("train", tmp_path)
