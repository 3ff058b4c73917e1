"""Images per second of input pipelines and of training: `python benchmarks/input_pipeline.py`.

All read the same tree of small pictures, cut and mirror them at random, and give float batches. The first epoch of
`ImagesDataModule`, which decodes and keeps the pictures, is a row of its own; the others are epochs from the second on.
Training is a step of `configs/cifar10.yaml`, with the net, the loss and the optimizer that stand there, in bfloat16.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.trainer.states import RunningStage
from PIL import Image
from timing import set_up, show, take_turns
from torch.utils.data import DataLoader

from touchstone.datamodules import ImagesDataModule, ImageTree
from touchstone.datamodules.augmentations import RandomCrop, RandomFlip
from touchstone.lightning_modules import Classifier

CONFIG = Path(__file__).resolve().parent.parent / "configs/cifar10.yaml"
NUM_CLASSES = 10


def write_tree(root: Path, num_images: int) -> None:
    """A tree of JPEG pictures of noise, 32 x 32, as large as those of CIFAR-10 are."""
    rng = np.random.default_rng(0)
    for number in range(num_images):
        folder = root / "train" / str(number % NUM_CLASSES)
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")


def of_torchvision(root: Path, batch_size: int, num_workers: int) -> DataLoader:
    """What people write."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    change = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    folder = ImageFolder(str(root / "train"), change)
    return DataLoader(folder, batch_size, shuffle=True, drop_last=True, num_workers=num_workers)


def of_touchstone(root: Path, batch_size: int, cache: Path) -> ImagesDataModule:
    """The same by `ImagesDataModule`, inside a Trainer that trains."""
    data = ImagesDataModule(
        ImageTree(str(root)),
        batch_size=batch_size,
        val_share=0.04,
        augment=[RandomCrop(), RandomFlip()],
        cache_folder=str(cache),
    )
    data.trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    data.trainer.state.stage = RunningStage.TRAINING
    data.setup("fit")
    return data


def augmented(data: ImagesDataModule) -> Iterable[object]:
    """Batches as a step gets them."""
    return (data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader())


def per_image(batches: Callable[[], Iterable[object]], clock: Callable[[], float]) -> Callable[[], float]:
    """An epoch as a candidate that says its seconds for 1,000 images."""

    def epoch() -> float:
        start, count = clock(), 0
        for x, _ in batches():  # type: ignore[misc]
            count += len(x)
        return 1000 * (clock() - start) / count

    return epoch


def of_config() -> Classifier:
    """What the config trains."""
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(Classifier, "model", subclass_mode=True)
    model = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]
    return parser.instantiate(parser.parse_object({"model": model})).model


def training(batch_size: int, clock: Callable[[], float]) -> Callable[[], float]:
    """A training step, likewise."""
    torch.manual_seed(0)
    classifier = of_config()
    optimizer = classifier.configure_optimizers()["optimizer"]  # type: ignore[call-overload, index]
    x, y = torch.rand(batch_size, 3, 32, 32), torch.arange(batch_size) % NUM_CLASSES

    def step() -> float:
        start = clock()
        with torch.autocast("cpu", torch.bfloat16):
            loss = classifier.train_loss(classifier(x), y, x=x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return 1000 * (clock() - start) / batch_size

    return step


def main(
    root: str | None = None,
    num_turns: int = 3,
    num_threads: int | None = None,
    num_workers: int = 0,
    small: bool = False,
) -> None:
    """Measures them in turns.

    Args:
        root: a tree with `train/CLASS/...` of pictures of 32 x 32; None for one of noise that is written first.
        num_turns: how often each is measured.
        num_threads: threads of torch; None for its choice, 1 for CPU seconds on a machine with other work.
        num_workers: worker processes of torchvision's loader; their time is seen by wall seconds alone.
        small: whether to shrink everything, to see that it runs.
    """
    clock = set_up(num_threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    batch_size = 16 if small else 512
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(root or folder)
        if root is None:
            write_tree(tree, 100 if small else 5000)
        start = time.process_time()
        data = of_touchstone(tree, batch_size, Path(folder) / "cache")
        first = 1000 * (time.process_time() - start) / (len(data.train) + len(data.val))
        loader = of_torchvision(tree, batch_size, num_workers)
        candidates = {
            "ImageFolder and DataLoader": per_image(lambda: loader, clock),
            "ImagesDataModule": per_image(lambda: augmented(data), clock),
            "training": training(batch_size, clock),
        }
        seconds = take_turns(candidates, num_turns, clock)
    best = {name: min(values) for name, values in seconds.items()}
    ours = best["ImagesDataModule"]
    rows = [(name, f"{1000 / value:,.0f}", f"{value / ours:.1f}") for name, value in best.items()]
    rows.append(("ImagesDataModule, set up once", f"{1000 / first:,.0f}", f"{first / ours:.1f}"))
    show("Input pipelines, fastest turn", ("", "images per second", "times the time of ImagesDataModule"), rows)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
