"""Each verdict on a run that has the fault and on one that has not, and on curves."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import FGSM, PGD, Linf
from touchstone.callbacks import Health, NotFinite, RobustAccuracy
from touchstone.callbacks.parts.measures import verdicts
from touchstone.callbacks.parts.pictures.health_picture import health_picture
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import AWP, PGDAT, TRADES, Classifier, EpsWarmup, Free, Mixed, Strategy
from touchstone.nets import SmallCNN

from .command_lines import Ended, with_value, write
from .lightning_programs import OrdinaryModule, events, train_loader, trainer, val_loader, weights
from .small_fits import blobs, fit, mlp


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Health, str, Path]:
    folder = tmp_path_factory.mktemp("healthy")
    return *fit(folder, mlp(), RobustAccuracy(attacks={"fgsm": FGSM(threat=Linf(eps=0.05))}, num_images=0)), folder


def test_nothing_is_found_in_a_healthy_run(healthy: tuple[Health, str, Path]) -> None:
    health, said, folder = healthy
    assert health.verdicts == []
    assert not said
    assert next(folder.rglob("health.txt")).read_text() == "nothing found\n"
    assert all(len(curve) == 10 for curve in health._curves.values())  # every curve was there to be judged


def test_the_curves_and_what_was_found_stand_in_the_picture(healthy: tuple[Health, str, Path]) -> None:
    _, _, folder = healthy
    assert next(folder.rglob("figures/health.png")).stat().st_size > 1000
    curves = {"train/loss": {0: 2.0, 1: 1.0}, "val/loss": {1: 1.5}, "val/accuracy": {0: 0.5, 1: 0.75}, "lr": {0: 1.0}}
    figure = health_picture(curves, ["overfitting from epoch 2: so it is"])
    lines = [line for axes in figure.axes for line in axes.lines]
    assert {line.get_label(): (*line.get_xdata(), *line.get_ydata()) for line in lines} == {
        "train/loss": (1, 2, 2.0, 1.0),
        "val/loss": (2, 1.5),
        "val/accuracy": (1, 2, 0.5, 0.75),
    }
    assert figure.get_suptitle() == "health: overfitting from epoch 2: so it is"


def test_a_verdict_is_a_warning_a_text_and_a_file(tmp_path: Path) -> None:
    health, said = fit(tmp_path, mlp(), lr=10.0)
    (sentence, *_) = health.verdicts
    assert sentence.startswith("the learning rate is too high")
    assert "the learning rate is too high" in said
    assert sentence in next(tmp_path.rglob("health.txt")).read_text()
    shown = events(tmp_path).Tensors("health/text_summary")[0].tensor_proto.string_val[0].decode()
    assert sentence in shown


@pytest.mark.parametrize(("lr", "swings"), [(0.4, True), (0.03, False)])
def test_a_loss_that_falls_fast_and_then_swings_is_a_learning_rate_too_high(
    tmp_path: Path, lr: float, swings: bool
) -> None:
    """Plain descent with momentum, which steps over the valley again and again."""
    momentum = partial(torch.optim.SGD, momentum=0.9)
    data = {"train": blobs(160, 1, noise=0.3), "val": blobs(40, 2, noise=0.3)}
    health, said = fit(tmp_path, mlp(nn.Tanh), **data, optimizer=momentum, lr=lr, num_epochs=12)
    curve = list(health._curves["train/loss"].values())
    assert (min(curve[6:]) > 0.35) is swings  # the other one converges
    found = [sentence for sentence in health.verdicts if "the training loss fell fast, and has swung" in sentence]
    assert bool(found) is swings
    assert not swings or f"between {min(curve[6:]):.3g} and {max(curve[6:]):.3g} since epoch 7" in found[0]


def test_overfitting_is_found_and_since_when(tmp_path: Path) -> None:
    """32 images with labels at random can only be learned by heart."""
    x, y = blobs(32, 1, noise=0.5).tensors
    by_chance = TensorDataset(x, y[torch.randperm(32, generator=torch.Generator().manual_seed(3))])
    health, said = fit(tmp_path, mlp(), train=by_chance, lr=0.02, num_epochs=30)
    assert any(sentence.startswith("overfitting from epoch") for sentence in health.verdicts)
    losses = list(health._curves["val/loss"].values())
    assert f"overfitting from epoch {losses.index(min(losses)) + 2} on" in " ".join(health.verdicts)
    assert said.count("overfitting") == 1
    curves = [list(health._curves[tag].values()) for tag in ("train/loss", "val/loss")]
    is_found = [verdicts.overfitting(*(curve[:num] for curve in curves)) is not None for num in range(1, 31)]
    assert is_found == sorted(is_found)  # once it is said, it stays


def test_underfitting_is_found(tmp_path: Path) -> None:
    health, said = fit(tmp_path, mlp(), lr=1e-6, num_epochs=4)
    assert [sentence.partition(":")[0] for sentence in health.verdicts] == ["underfitting"]
    assert said.startswith("health, at the end: underfitting")


def test_a_slow_beginning_is_no_underfitting(tmp_path: Path) -> None:
    health, said = fit(tmp_path, mlp(), lr=0.001, num_epochs=20)
    accuracies = list(health._curves["train/accuracy"].values())
    assert max(accuracies[:3]) < 0.5 < accuracies[-1]
    assert "underfitting" not in said


ATTACK = FGSM(threat=Linf(eps=0.05))


def robust() -> RobustAccuracy:
    return RobustAccuracy(attacks={"fgsm": ATTACK}, num_images=0)


def test_robust_overfitting_is_found(tmp_path: Path) -> None:
    """48 noisy images are learned by heart, as they look under attack; the same training of many is fine."""
    val = blobs(1000, 2, noise=0.4)
    for num_samples, is_found in ((48, True), (500, False)):
        health, _ = fit(
            tmp_path,
            mlp(),
            robust(),
            train=blobs(num_samples, 1, noise=0.4),
            val=val,
            strategy=PGDAT(ATTACK),
            lr=0.02 if is_found else 0.002,
            num_epochs=20 if is_found else 8,
        )
        found = [sentence for sentence in health.verdicts if sentence.startswith("robust overfitting from epoch")]
        curve = list(health._curves["val/robust_accuracy/worst_case"].values())
        assert bool(found) is is_found
        assert not found or f"from epoch {curve.index(max(curve)) + 2} on" in found[0]


def test_robust_overfitting_is_no_matter_of_ordinary_training(tmp_path: Path) -> None:
    """The robust accuracy of such a training falls too, and it was never meant to rise."""
    data = {"train": blobs(48, 1, noise=0.4), "val": blobs(1000, 2, noise=0.4)}
    health, said = fit(tmp_path, mlp(), robust(), **data, lr=0.02, num_epochs=20)
    curve = list(health._curves["val/robust_accuracy/worst_case"].values())
    assert max(curve) - max(curve[-3:]) > 0.1
    assert "robust overfitting" not in said + " ".join(health.verdicts)


def test_the_number_of_attacked_samples_is_that_of_the_report(tmp_path: Path) -> None:
    few = RobustAccuracy(attacks={"fgsm": ATTACK}, max_samples=7, num_images=0)
    health, _ = fit(tmp_path, mlp(), few, num_epochs=1)
    assert health._num_attacked == few.num_attacked == 7


@pytest.mark.parametrize(
    ("strategy", "is_attack"),
    [
        (Strategy(), False),
        (PGDAT(ATTACK), True),
        (Free(Linf(eps=0.05)), True),
        (AWP(EpsWarmup(Mixed(TRADES(PGD(threat=ATTACK.threat))), num_batches=3)), True),
        (Mixed(Strategy()), False),
    ],
)
def test_a_strategy_says_whether_it_learns_from_attacks(strategy: Strategy, is_attack: bool) -> None:
    assert strategy.learns_from_attacks is is_attack


def test_a_loss_that_is_not_finite_is_found_at_its_step(tmp_path: Path) -> None:
    class Break(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 7:
                with torch.no_grad():
                    pl_module.net[3].bias[0] = torch.nan

    health, _ = fit(tmp_path, mlp(), Break(), num_epochs=3)
    assert health.verdicts[0].startswith("the loss is not finite from step 7 on")


def with_health(lr: float) -> Any:
    """The tiny config with `Health` and plain gradient descent."""
    config = with_value({"class_path": "torch.optim.SGD", "init_args": {"lr": lr}}, "model", "init_args", "optimizer")
    config["trainer"] |= {"max_epochs": 3, "limit_train_batches": 5}
    config["trainer"]["callbacks"] = [*config["trainer"]["callbacks"], {"class_path": "touchstone.callbacks.Health"}]
    return config


@pytest.mark.filterwarnings("ignore:health, epoch")
def test_a_loss_that_ends_the_training_is_found_in_the_log_and_at_the_end(run: Callable[..., Ended]) -> None:
    ended = run("fit", "--config", write(with_health(lr=1e30)))
    assert ended.code == 1
    assert "NotFinite: at step 1 the loss is nan" in ended.first_line
    (found, *_) = Path("logs/tiny/version_0/health.txt").read_text().splitlines()
    assert found.startswith("the loss is not finite from step 1 on")
    assert f"health: {found}" in ended.err.splitlines()
    shown = events(Path("logs")).Tensors("health/text_summary")[0].tensor_proto.string_val[0].decode()
    assert found in shown


@pytest.mark.filterwarnings("ignore:health, epoch")
@pytest.mark.parametrize("order", [(NotFinite, Health), (Health, NotFinite)])
def test_what_ends_the_training_is_found_whoever_looks_first(tmp_path: Path, order: tuple[type, type]) -> None:
    net = mlp()
    net[3].weight.register_hook(lambda gradient: gradient * torch.nan)  # the loss itself is fine
    callbacks = [kind() for kind in order]
    health = next(callback for callback in callbacks if isinstance(callback, Health))
    module = Classifier(net, lambda p: torch.optim.Adam(p, lr=0.01))
    with pytest.raises(RuntimeError, match="the gradient of"):
        trainer(tmp_path, *callbacks).fit(module, DataLoader(blobs(40, 1), 8), DataLoader(blobs(8, 2), 8))
    assert health.verdicts[0].startswith("the loss or a gradient is not finite from step 0 on")


class Fails(pl.Callback):
    """Ends the training in its second epoch."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise KeyError("something else")


class ByItself(OrdinaryModule):
    """Steps by itself, and gives back no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self.manual_backward(self._loss(batch))
        self.optimizers().step()  # type: ignore[union-attr]


class Skipping(OrdinaryModule):
    """Leaves out its first batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:  # type: ignore[override]
        return super().training_step(batch, batch_idx) if batch_idx else None


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("module", [ByItself, Skipping])
def test_a_step_that_gives_back_no_loss_is_none(tmp_path: Path, module: type[OrdinaryModule]) -> None:
    health = Health()
    trainer(tmp_path, health, max_epochs=1).fit(module(), train_loader(), val_loader())
    assert health.verdicts == []


def test_an_error_of_another_kind_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="something else"):
        fit(tmp_path, mlp(), Fails())
    assert not list(tmp_path.rglob("health.txt"))


def test_the_error_that_ends_the_training_is_never_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no picture")

    monkeypatch.setattr("touchstone.callbacks.health.health_picture", broken)
    dead = mlp()
    with torch.no_grad():
        dead[1].bias -= 100
    with pytest.raises(KeyError, match="something else") as caught:
        fit(tmp_path, dead, Fails())
    assert caught.value.__notes__ == ["Health could not say what it had found: no picture"]


def test_nothing_is_said_of_a_training_that_never_began(run: Callable[..., Ended]) -> None:
    config = with_health(lr=0.1)
    config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = -1.0
    ended = run("fit", "--config", write(config))
    assert ended.code == 2
    assert "health" not in ended.err
    assert not list(Path("logs").rglob("health.txt"))


def test_reading_the_curves_changes_no_weight(tmp_path: Path) -> None:
    trained = []
    for callbacks in ([], [Health()]):
        torch.manual_seed(0)
        module = Classifier(mlp(), lambda p: torch.optim.Adam(p, lr=0.01))
        trainer(tmp_path, *callbacks).fit(module, DataLoader(blobs(40, 1), 8, shuffle=True), DataLoader(blobs(8, 2), 8))
        trained.append(weights(module.net))
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


@pytest.mark.parametrize("lr", [0.5, 2.0, 3.0, 10.0])
def test_the_learning_rate_is_named_where_a_fit_of_digits_has_one_too_high(tmp_path: Path, lr: float) -> None:
    """Gradient descent that learns at 0.5; above 1, its first steps leave the net at chance."""
    torch.manual_seed(0)
    module = Classifier(SmallCNN(width=8), lambda p: torch.optim.SGD(p, lr=lr))
    health = Health()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, health, max_epochs=5, num_sanity_val_steps=0).fit(module, datamodule=DigitsDataModule())
    kinds = [sentence.partition(":")[0] for sentence in health.verdicts]
    assert ("the learning rate is too high" in kinds) is (lr > 1)
    assert "underfitting" not in kinds
    said = [str(warning.message) for warning in caught if "the learning rate is too high" in str(warning.message)]
    assert len(said) == (lr > 1)


def test_the_learning_rate_is_not_named_where_the_net_began_dead_or_is_slow(tmp_path: Path) -> None:
    dead = mlp()
    with torch.no_grad():
        dead[1].bias -= 100
    for net, lr, other in ((dead, 0.001, "layer 'net.2' is dead"), (mlp(), 1e-6, "underfitting")):
        health, _ = fit(tmp_path, net, lr=lr, num_epochs=4)
        assert any(sentence.startswith(other) for sentence in health.verdicts)
        assert not any("learning rate is too high" in sentence for sentence in health.verdicts)
