"""What callbacks add to a fit beyond the attack's gradients: `python benchmarks/callbacks_overhead.py`.

Measured twice. By difference: the fit with callbacks, against the same fit without them plus the attack's gradient
calls alone, replayed with the batch sizes that were seen. And from inside: one fit keeps a ledger of the seconds that
its callbacks spend, which says where they go and is not disturbed by other work on the machine.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from ledger import Ledger, the_rest
from lightning.pytorch.loggers import TensorBoardLogger
from timing import RATIO_HEADERS, ratio_cells, set_up, show, take_turns
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import PGD, Linf, frozen_eval
from touchstone.callbacks import GradientNorm, RobustAccuracy
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import PreActResNet, SmallCNN

ATTACK = "RobustAccuracy in validation"
NUM_STEPS_TO_LEARN = 36
Fit = tuple[Classifier, pl.Trainer, dict[str, Any]]


class FitLedger(Ledger):
    """The seconds of a whole fit. A gradient lasts from the forward of an input that needs it until it arrives there.

    Args:
        clock: gives the present time in seconds.

    Attributes:
        attacked: the batch sizes of the attack's gradients.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.attacked: list[int] = []
        self._forward_began = 0.0

    def watch_fit(self, module: nn.Module, callbacks: list[pl.Callback]) -> None:
        """Times every hook of the callbacks, and what they ask of the module meanwhile."""
        self.watch(callbacks, _when)
        module.register_forward_pre_hook(self._see_forward)
        module.register_forward_hook(self._see_logits)

    def _see_forward(self, _: nn.Module, args: tuple[Tensor]) -> None:
        self._forward_began = start = self.clock()
        if self.active is None or not args[0].requires_grad:
            return
        if self.active == ATTACK:
            self.attacked.append(len(args[0]))
        args[0].register_hook(lambda _: self.add("gradients", self.clock() - start))

    def _see_logits(self, _: nn.Module, args: tuple[Tensor], logits: Tensor) -> None:
        if not args[0].requires_grad:
            self.add("forwards", self.clock() - self._forward_began)


def _when(callback: pl.Callback, hook: str) -> str:
    return f"{type(callback).__name__} {'in validation' if 'validation' in hook else 'in training'}"


def resnet18() -> nn.Module:
    """Torchvision's, for which images of 32 x 32 are little work."""
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


@cache
def trained(make_net: Callable[[], nn.Module], batch_size: int, num_samples: int) -> tuple[nn.Module, TensorDataset]:
    """A net that has learned to tell random images of the shape of CIFAR-10, each half that of its class."""
    torch.manual_seed(0)
    of_class, y = torch.rand(10, 3, 32, 32), torch.randint(10, (num_samples,))
    x = (of_class[y] + torch.rand(len(y), 3, 32, 32)) / 2
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for rows in torch.arange(min(len(y), NUM_STEPS_TO_LEARN * batch_size)).split(batch_size):
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net, TensorDataset(x, y)


def images_fit(
    folder: str,
    callbacks: list[pl.Callback],
    small: bool,
    *,
    make_net: Callable[[], nn.Module],
    num_samples: int,
    num_epochs: int,
) -> Fit:
    """Epochs of such images, of a net that is right on them, so that they are attacked, and validations of 1 in 50.

    That is 1,000 for a training set of 50,000.
    """
    batch_size, num_samples = (4, 8) if small else (32, num_samples)
    net, data = trained(make_net, batch_size, num_samples)
    loaders = {
        "train_dataloaders": DataLoader(data, batch_size, shuffle=True),
        "val_dataloaders": DataLoader(TensorDataset(*data[: max(4, num_samples // 50)]), batch_size),
    }
    trainer = _trainer(folder, callbacks, max_epochs=num_epochs, log_every_n_steps=50)  # Lightning's own number
    return Classifier(copy.deepcopy(net), lambda p: torch.optim.SGD(p, lr=0.01)), trainer, loaders


def digits_fit(folder: str, callbacks: list[pl.Callback], small: bool) -> Fit:
    """10 epochs of configs/digits.yaml, with one attack."""
    torch.manual_seed(0)
    module = Classifier(SmallCNN(width=64), lambda p: torch.optim.AdamW(p, lr=0.003, weight_decay=0.1))
    trainer = _trainer(folder, callbacks, max_epochs=1 if small else 10, log_every_n_steps=10)
    return module, trainer, {"datamodule": DigitsDataModule()}


def _trainer(folder: str, callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    return pl.Trainer(
        logger=TensorBoardLogger(folder, default_hp_metric=False),
        callbacks=callbacks,
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        **options,
    )


def measure(
    title: str,
    make: Callable[..., Fit],
    num_images: int,
    num_gradients: int,
    num_turns: int,
    clock: Callable[[], float],
    small: bool,
) -> None:
    """Measures and prints two tables: by difference, and from inside."""
    attack = PGD(threat=Linf(eps=0.15 if make is digits_fit else 8 / 255), num_steps=2 if small else 20)
    ledgers: list[FitLedger] = []
    totals: list[float] = []
    module = None

    def fit(with_callbacks: bool) -> float:
        nonlocal module
        callbacks: list[pl.Callback] = []
        if with_callbacks:
            gradient_norm = GradientNorm(max_samples=num_gradients)
            callbacks = [RobustAccuracy(attacks={"pgd": attack}, num_images=num_images), gradient_norm]
        with tempfile.TemporaryDirectory() as folder:
            module, trainer, data = make(folder, callbacks, small)
            if with_callbacks:
                ledgers.append(FitLedger(clock))
                ledgers[-1].watch_fit(module, callbacks)
            start = clock()
            trainer.fit(module, **data)
            seconds = clock() - start
        if with_callbacks:
            totals.append(seconds)
        return seconds

    def gradients_alone() -> None:
        assert module is not None
        shape = (1, 8, 8) if make is digits_fit else (3, 32, 32)
        with frozen_eval(module):
            for num_samples in ledgers[-1].attacked:
                x = torch.rand(num_samples, *shape).requires_grad_()
                y = torch.zeros(num_samples, dtype=torch.int64)
                torch.autograd.grad(F.cross_entropy(module(x), y, reduction="sum"), x)

    candidates = {
        "with callbacks": lambda: fit(True),
        "without": lambda: fit(False),
        "gradients alone": gradients_alone,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = take_turns(candidates, num_turns, clock)
    both = "without + gradients alone"
    seconds[both] = [a + b for a, b in zip(seconds["without"], seconds["gradients alone"], strict=True)]
    rows = [(name, *ratio_cells(seconds, name, both)) for name in (both, *candidates)]
    pictures = "with pictures" if num_images else "without pictures"
    show(f"{title}, {pictures}: a fit, by difference", ("", *RATIO_HEADERS), rows)

    fastest = min(range(1, len(totals)), key=totals.__getitem__)  # the first one warms up
    spent, total = ledgers[fastest].spent, totals[fastest]
    of_attack = spent[ATTACK]["gradients"]
    parts: dict[str, float] = {}
    for name, of in spent.items():
        parts |= {f"{name}: {kind}": of[kind] for kind in ("gradients", "forwards") if kind in of}
        parts[f"{name}: the rest"] = the_rest(of)
    beyond = sum(parts.values()) - of_attack
    parts["all beyond the attack's gradients"] = beyond
    rest = total - beyond  # the fit and the attack's gradients
    rows = [(name, f"{part / rest:.2%}", f"{1000 * part:.0f}") for name, part in sorted(parts.items())]
    headers = ("", "of fit + gradients", "ms")
    show(f"{title}, {pictures}: the fastest fit of {1000 * total:.0f} ms, from inside", headers, rows)


def main(
    num_turns: int = 5,
    num_threads: int | None = None,
    num_epochs: int = 1,
    num_samples: int = 10_000,
    nets: tuple[Literal["resnet18", "preact_resnet", "digits"], ...] = ("resnet18", "digits"),
    small: bool = False,
) -> None:
    """Measures nets without pictures and with them.

    Args:
        num_turns: how often each candidate is measured.
        num_threads: threads of torch; None for its choice, 1 for CPU seconds on a machine with other work.
        num_epochs: of those but digits; signs of masking are looked for, and pictures made, in the first of every five.
        num_samples: in their epochs, of which one in 50 is attacked; 128 for 50,000 are what `GradientNorm` measures.
        nets: which ones; `preact_resnet` is the ResNet-18 for small images, of which a step takes ten times as long.
        small: whether to shrink everything, to see that it runs.
    """
    clock = set_up(num_threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    makers: dict[str, Callable[[], nn.Module]] = {"resnet18": resnet18, "preact_resnet": PreActResNet}
    for name in nets:
        if name == "digits":
            title, make, num_gradients = "digits", digits_fit, 128
        else:
            title = {"resnet18": "ResNet-18", "preact_resnet": "PreActResNet-18"}[name]
            settings = {"make_net": makers[name], "num_samples": num_samples, "num_epochs": num_epochs}
            make, num_gradients = partial(images_fit, **settings), max(1, round(128 * num_samples / 50_000))
        for num_images in (0, 8):
            measure(title, make, num_images, num_gradients, num_turns, clock, small)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
