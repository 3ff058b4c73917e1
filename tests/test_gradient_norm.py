"""`GradientNorm` during training: norms and ratios of updates against gradients taken by hand."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from touchstone.callbacks import GradientNorm

from .lightning_programs import OrdinaryModule, events, total_norm_by_hand, train_loader, trainer, val_loader


def test_training_norms_are_accumulated_and_before_clipping(tmp_path: Path) -> None:
    by_hand: list[float] = []

    class Watching(OrdinaryModule):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            by_hand.append(total_norm_by_hand(self))

    run = trainer(tmp_path, GradientNorm(), accumulate_grad_batches=2, gradient_clip_val=1e-3, max_epochs=2)
    run.fit(Watching(), train_loader(4), val_loader())
    logged = [event.value for event in events(tmp_path).Scalars("grad_norm/train/total")]
    assert len(logged) == 10
    assert logged == pytest.approx(by_hand, rel=1e-5)
    assert min(logged) > 1e-3


class Filtered(OrdinaryModule):
    """Weighs the frequencies of its images first, by numbers that stand first or last among the parameters."""

    def __init__(self, is_first: bool) -> None:
        super().__init__()
        self.filter, self.is_first = torch.nn.Parameter(torch.randn(6, 6, dtype=torch.complex64)), is_first

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.fft.ifft2(torch.fft.fft2(x) * self.filter).abs())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(sorted(self.parameters(), key=Tensor.is_complex, reverse=self.is_first), lr=0.05)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.norm = total_norm_by_hand(self)


@pytest.mark.parametrize("is_first", [True, False])
def test_complex_parameters_count_by_their_absolute_values(tmp_path: Path, is_first: bool) -> None:
    module = Filtered(is_first)
    before = module.filter.detach().clone()
    trainer(tmp_path, GradientNorm(), max_steps=1).fit(module, train_loader(), val_loader())
    seen = events(tmp_path)
    assert seen.Scalars("grad_norm/train/total")[0].value == pytest.approx(module.norm, rel=1e-5)
    ratio = ((module.filter.detach() - before).abs() ** 2).sum().sqrt() / (before.abs() ** 2).sum().sqrt()
    assert seen.Scalars("update_ratio/filter")[0].value == pytest.approx(float(ratio), rel=1e-4)


def test_the_norm_of_many_gradients_is_as_precise_as_that_of_a_few(tmp_path: Path) -> None:
    class Wide(OrdinaryModule):
        def __init__(self) -> None:
            super().__init__()
            self.wide = torch.nn.Parameter(torch.zeros(1500, 1500))

        def on_after_backward(self) -> None:
            self.wide.grad = torch.rand(1500, 1500)
            self.by_hand = float(self.wide.grad.double().square().sum().sqrt())

    module = Wide()
    trainer(tmp_path, GradientNorm(validation=False), max_steps=1).fit(module, train_loader(), val_loader())
    assert events(tmp_path).Scalars("grad_norm/train/wide")[0].value == pytest.approx(module.by_hand, rel=5e-6)


def test_sparse_gradients_are_measured_too(tmp_path: Path) -> None:
    class Embedded(OrdinaryModule):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(20, 4, sparse=True)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) + self.words(torch.tensor([1, 3])).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    run = trainer(tmp_path, GradientNorm(validation=False), max_steps=1)
    run.fit(Embedded(), train_loader(), val_loader())
    assert events(tmp_path).Scalars("grad_norm/train/words")[0].value == pytest.approx(8**0.5)


def test_layers_add_up_to_the_total_and_update_ratios_are_those_of_sgd(tmp_path: Path) -> None:
    module = OrdinaryModule()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.01)  # type: ignore[method-assign]
    weight_before = module.net[5].weight.detach().clone(), module.net[5].bias.detach().clone()
    trainer(tmp_path, GradientNorm(), max_steps=1).fit(module, train_loader(), val_loader())
    seen = events(tmp_path)

    def value(tag: str) -> float:
        return seen.Scalars(tag)[0].value

    layers = [tag for tag in seen.Tags()["scalars"] if tag.startswith("grad_norm/train/net.")]
    assert sorted(layers) == ["grad_norm/train/net.0", "grad_norm/train/net.1", "grad_norm/train/net.5"]
    assert sum(value(tag) ** 2 for tag in layers) == pytest.approx(value("grad_norm/train/total") ** 2, rel=1e-5)
    size = sum(float((p.double() ** 2).sum()) for p in weight_before) ** 0.5
    assert value("update_ratio/net.5") == pytest.approx(0.01 * value("grad_norm/train/net.5") / size, rel=1e-3)


class Manual(OrdinaryModule):
    """Steps by two optimizers in turn: SGD on the convolution and BatchNorm, twice, and SGD on the head."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.by_hand: list[dict[str, float]] = []

    def configure_optimizers(self) -> Any:
        body = [*self.net[0].parameters(), *self.net[1].parameters()]
        return torch.optim.SGD(body, lr=0.01), torch.optim.SGD(self.net[5].parameters(), lr=0.1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        found: dict[str, float] = {}
        body, head = self.optimizers()
        for optimizer, layers, scale in ((body, (0, 1), 1), (body, (0, 1), 100), (head, (5,), 1)):
            optimizer.zero_grad()
            self.manual_backward(scale * self._loss(batch))
            for layer in layers:
                parameters = list(self.net[layer].parameters())
                norm = sum(float((p.grad.double() ** 2).sum()) for p in parameters) ** 0.5  # type: ignore[union-attr]
                size = sum(float((p.detach().double() ** 2).sum()) for p in parameters) ** 0.5
                found[f"grad_norm/train/net.{layer}"] = norm
                found[f"update_ratio/net.{layer}"] = optimizer.param_groups[0]["lr"] * norm / size
            optimizer.step()
        norms = [value for tag, value in found.items() if tag.startswith("grad_norm")]
        self.by_hand.append({**found, "grad_norm/train/total": sum(norm**2 for norm in norms) ** 0.5})


def test_several_optimizers_of_a_batch_count_together_each_by_its_last_step(tmp_path: Path) -> None:
    module = Manual()
    run = trainer(tmp_path, GradientNorm(), max_epochs=1)
    run.fit(module, train_loader(), val_loader())
    assert len(module.by_hand) == 5
    for tag in module.by_hand[0]:
        logged = [event.value for event in events(tmp_path).Scalars(tag)]
        assert logged == pytest.approx([found[tag] for found in module.by_hand], rel=1e-3), tag


def test_the_parameter_that_is_first_not_finite_is_named(tmp_path: Path) -> None:
    class Breaking(OrdinaryModule):
        def on_after_backward(self) -> None:
            if self.global_step == 3:
                self.net[5].weight.grad[0, 0] = torch.nan

    pl.seed_everything(0)
    with pytest.raises(UserWarning, match="at step 3 the gradient of 'net.5.weight' was not finite"):  # made an error
        trainer(tmp_path, GradientNorm(), max_epochs=1).fit(Breaking(), train_loader(), val_loader())


def test_gradients_that_stay_not_finite_are_said_once(tmp_path: Path) -> None:
    class Broken(OrdinaryModule):
        def on_after_backward(self) -> None:
            if self.global_step >= 1:
                self.net[5].weight.grad[0, 0] = torch.nan

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, GradientNorm(validation=False), max_epochs=1).fit(Broken(), train_loader())
    said = [str(warning.message) for warning in caught if "was not finite" in str(warning.message)]
    assert [text.partition(" the gradient")[0] for text in said] == ["GradientNorm: at step 1"]


class Renaming(TensorBoardLogger):
    """A logger of a user's own."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({name.upper(): value for name, value in metrics.items()}, step)


def test_every_logger_gets_the_norms_of_layers(tmp_path: Path) -> None:
    plain = TensorBoardLogger(tmp_path, name="plain")
    prefixed = TensorBoardLogger(tmp_path, name="prefixed", prefix="mine")
    renaming, table = Renaming(tmp_path, name="renaming"), CSVLogger(tmp_path, name="table")
    run = trainer(tmp_path, GradientNorm(), max_steps=1, logger=[plain, prefixed, renaming, table])
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    with open(Path(table.log_dir, "metrics.csv")) as file:
        (row,) = [row for row in csv.DictReader(file) if row["grad_norm/train/net.0"]]
    for tag in ("grad_norm/train/net.0", "grad_norm/train/net.5", "update_ratio/net.5"):
        (event,) = events(tmp_path / "plain").Scalars(tag)
        (other,) = events(tmp_path / "prefixed").Scalars(f"mine-{tag}")
        (renamed,) = events(tmp_path / "renaming").Scalars(tag.upper())
        assert event.value == other.value == renamed.value == pytest.approx(float(row[tag]))
        assert event.step == other.step == int(row["step"]) == 0
