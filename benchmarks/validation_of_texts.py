"""What a validation of texts costs beyond its gradients: `python benchmarks/validation_of_texts.py --num_threads 1`.

A recurrent net is watched by `RecurrentJacobian` and `Saturation` and attacked inside an `EmbeddingBall`, as a language
model by `RobustLanguage` and as a classifier by `RobustAccuracy`. Measured from inside: a ledger keeps the seconds of
each callback, and how many of them are gradients, of the attack and of the power iteration, with the forwards and
losses that they are taken of.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from ledger import Ledger, Spent, the_rest
from lightning.pytorch.loggers import TensorBoardLogger
from timing import set_up, show
from torch import nn

from touchstone.attacks import PGD, EmbeddingBall, Surprise
from touchstone.callbacks import RecurrentJacobian, RobustAccuracy, RobustLanguage, Saturation
from touchstone.datamodules import PassagesDataModule, TextDataModule
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.nets import RecurrentLM, TextClassifier
from touchstone.nets.recurrent import Recurrent

Run = tuple[pl.LightningModule, pl.LightningDataModule, list[pl.Callback]]


def language_model(folder: str, num_steps: int, small: bool) -> Run:
    """The GRU of configs/text.yaml, attacked on 64 windows."""
    files = None
    if small:
        path = Path(folder) / "text"
        path.write_text("".join(f"{number} and one is {number + 1}. " for number in range(300)))
        files = [str(path)]
    attack = PGD(threat=EmbeddingBall(eps=0.3), objective=Surprise(), num_steps=num_steps)
    num_texts = 4 if small else 64
    return (
        LanguageModel(RecurrentLM(256, cell="gru", dim=64, hidden=8 if small else 256), sample_tokens=0),
        TextDataModule(files=files, tokens="bytes", context=64, batch_size=32, token_folder=folder),
        [RobustLanguage({"pgd": attack}, max_samples=num_texts), Saturation()],
    )


def classifier(folder: str, num_steps: int, small: bool) -> Run:
    """The GRU of configs/text_classifier.yaml, which learns to be right before it is attacked on all its passages."""
    attack = PGD(threat=EmbeddingBall(eps=0.3), num_steps=num_steps)
    num_texts = 4 if small else None
    return (
        Classifier(
            TextClassifier(1502, 6, body="gru", dim=8 if small else 64), lambda p: torch.optim.AdamW(p, lr=0.005)
        ),
        PassagesDataModule(),
        [RobustAccuracy({"pgd": attack}, max_samples=num_texts), Saturation()],
    )


class ValidationLedger(Ledger, pl.Callback):
    """The seconds of every validation. A gradient is what `torch.autograd.grad` does, with the forward before it.

    Args:
        clock: gives the present time in seconds.

    Attributes:
        validations: how long each one took, and what the callbacks have spent in it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.validations: list[tuple[float, Spent]] = []
        self._began, self._depth, self._forward_began = 0.0, 0, 0.0
        self._waiting: tuple[float, float] | None = None  # begin and end of a forward that a gradient may follow

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.spent.clear()
        self._began = self.clock()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validations.append((self.clock() - self._began, {name: dict(of) for name, of in self.spent.items()}))

    def begin(self, name: str) -> None:
        super().begin(name)
        self._waiting = None

    @contextmanager
    def watching(self, module: nn.Module, callbacks: list[pl.Callback]) -> Iterator[None]:
        """Inside, every hook of the callbacks is timed, and what they ask of the module and of autograd meanwhile."""
        self.watch(callbacks, lambda callback, hook: type(callback).__name__ if "on_validation" in hook else None)
        for part in module.modules():
            if part is module or isinstance(part, Recurrent):
                part.register_forward_pre_hook(self._begin_forward)
                part.register_forward_hook(self._end_forward)
        grad = torch.autograd.grad

        def timed_grad(*args: Any, **kwargs: Any) -> Any:
            # With what stands between the model and its gradient, the loss.
            start = self.clock() if self._waiting is None else self._waiting[0]
            self._waiting = None
            try:
                return grad(*args, **kwargs)
            finally:
                self.add("gradients", self.clock() - start)

        torch.autograd.grad = timed_grad
        try:
            yield
        finally:
            torch.autograd.grad = grad

    def _begin_forward(self, *_: Any) -> None:
        self._depth += 1
        if self._depth == 1:
            self._forward_began = self.clock()
            if self._waiting is not None:  # one of several that a gradient follows
                self.add("gradients", self._waiting[1] - self._waiting[0])

    def _end_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            first, now = output[0] if isinstance(output, tuple) else output, self.clock()
            self._waiting = (self._forward_began, now) if first.requires_grad else None
            if self._waiting is None:
                self.add("forwards", now - self._forward_began)


def measure(
    title: str, make: Callable[..., Run], num_validations: int, clock: Callable[[], float], small: bool
) -> None:
    """Trains between validations, and prints what the fastest of them, but for the first and last, spent."""
    torch.manual_seed(0)
    ledger = ValidationLedger(clock)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module, data, callbacks = make(folder, 2 if small else 20, small)
        callbacks = [*callbacks, RecurrentJacobian()]
        trainer = pl.Trainer(
            logger=TensorBoardLogger(folder, default_hp_metric=False),
            callbacks=[ledger, *callbacks],
            max_epochs=num_validations,
            limit_train_batches=1 if small else 50,
            accelerator="cpu",
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
        )
        with ledger.watching(module, callbacks):
            trainer.fit(module, datamodule=data)
    total, spent = min(ledger.validations[1:-1], key=lambda validation: validation[0])
    gradients = sum(of.get("gradients", 0.0) for of in spent.values())
    beyond = sum(of["all"] for of in spent.values()) - gradients
    rest = total - beyond
    rows = [("validation by itself", total - gradients - beyond)]
    for name, of in spent.items():
        rows += [
            (f"{name}: gradients", of.get("gradients", 0.0)),
            (f"{name}: other forwards", of.get("forwards", 0.0)),
            (f"{name}: the rest", the_rest(of)),
        ]
    rows.append(("all beyond validation and gradients", beyond))
    cells = [(name, f"{seconds / rest:.2%}", f"{1000 * seconds:.1f}") for name, seconds in rows]
    show(
        f"{title}: the fastest validation, of {1000 * total:.0f} ms, from inside",
        ("", "of it and its gradients", "ms"),
        cells,
    )


def main(num_validations: int = 5, num_threads: int | None = None, small: bool = False) -> None:
    """Measures a language model and a classifier.

    Args:
        num_validations: of each, >= 3; the first one warms up, and the first and last draw pictures.
        num_threads: threads of torch; None for its choice, 1 for CPU seconds on a machine with other work.
        small: whether to shrink everything, to see that it runs.
    """
    clock = set_up(num_threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for title, make in (("language model", language_model), ("classifier", classifier)):
        measure(title, make, num_validations, clock, small)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
