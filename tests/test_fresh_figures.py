"""New weights are never ranked by an old figure: real trainers whose weights move."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from touchstone.attacks import FGSM, Linf
from touchstone.callbacks import GradientNorm, Probe, RobustAccuracy

from .lightning_programs import OrdinaryModule, samples, train_loader, trainer, val_loader


class Bias(Probe):
    """A figure that is written in the weights: the first bias."""

    def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"bias": model.net[0].bias[0].expand(len(x))}  # type: ignore[index,union-attr]


class Drifting(OrdinaryModule):
    """Its first bias is the number of optimizer steps taken."""

    def configure_optimizers(self) -> Any:
        with torch.no_grad():
            self.net[0].bias.zero_()
        return torch.optim.SGD([{"params": self.net[5].parameters()}], lr=0.05)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.net[0].bias[0] = self.global_step + 1


@pytest.mark.parametrize(
    ("saving", "validating"),
    [
        ({}, {}),
        ({}, {"val_check_interval": 2}),
        ({}, {"val_check_interval": 0.4}),
        ({}, {"check_val_every_n_epoch": 2}),
        ({}, {"check_val_every_n_epoch": None, "val_check_interval": 3}),
        ({"every_n_train_steps": 3, "save_on_train_epoch_end": False}, {}),
        ({"every_n_train_steps": 3}, {"val_check_interval": 2}),
        ({"every_n_train_steps": 3}, {"check_val_every_n_epoch": 2}),
        ({"train_time_interval": timedelta(0), "save_on_train_epoch_end": False}, {}),
        ({"save_on_train_epoch_end": True, "every_n_epochs": 2}, {"check_val_every_n_epoch": 2}),
        ({"save_on_train_epoch_end": True}, {"val_check_interval": 5}),
    ],
)
def test_a_checkpoint_is_ranked_by_the_figure_of_its_own_weights(
    tmp_path: Path, saving: dict[str, Any], validating: dict[str, Any]
) -> None:
    for measured_every in {1, validating.get("check_val_every_n_epoch") or 1}:
        kept = tmp_path / f"kept_{measured_every}"
        checkpoint = ModelCheckpoint(kept, monitor="val/bias", mode="min", save_top_k=-1, **saving)
        probe = Bias(every_n_epochs=measured_every)
        run = trainer(tmp_path, probe, checkpoint, enable_checkpointing=True, max_epochs=4, **validating)
        run.fit(Drifting(), train_loader(), val_loader())
        assert checkpoint.best_k_models
        for path, score in checkpoint.best_k_models.items():
            state = torch.load(path, weights_only=True)["state_dict"]
            assert float(state["net.0.bias"][0]) == float(score)


REFUSED: list[tuple[pl.Callback, dict[str, Any]]] = [
    (ModelCheckpoint(monitor="M", every_n_train_steps=3), {}),
    (ModelCheckpoint(monitor="M", train_time_interval=timedelta(0)), {}),
    (ModelCheckpoint(monitor="M", save_on_train_epoch_end=True), {"check_val_every_n_epoch": 2}),
    (ModelCheckpoint(monitor="M", save_on_train_epoch_end=True), {"val_check_interval": 2}),
    (
        ModelCheckpoint(monitor="M", save_on_train_epoch_end=True),
        {"check_val_every_n_epoch": None, "val_check_interval": 3},
    ),
    (EarlyStopping(monitor="M", check_on_train_epoch_end=True), {"check_val_every_n_epoch": 2}),
]


@pytest.mark.filterwarnings("ignore:.ModelCheckpoint.* could not find the monitored key")  # in the first epoch
@pytest.mark.parametrize("monitor", ["val/bias", "val/robust_accuracy/fgsm", "grad_norm/val/input"])
@pytest.mark.parametrize(("ranking", "validating"), REFUSED)
def test_looking_where_no_validation_has_ended_is_refused(
    tmp_path: Path, ranking: Any, validating: dict[str, Any], monitor: str
) -> None:
    ranking.monitor = monitor
    probes = Bias(), GradientNorm(), RobustAccuracy({"fgsm": FGSM(threat=Linf(eps=0.1))}, num_images=0)
    run = trainer(tmp_path, *probes, ranking, enable_checkpointing=True, max_epochs=4, **validating)
    strict = isinstance(ranking, EarlyStopping) and monitor == "val/bias"  # Lightning stops before it is known
    error = RuntimeError if strict else ValueError
    with pytest.raises(error, match="not available" if strict else r"from before their last steps.*: set \w+\("):
        run.fit(Drifting(), train_loader(), val_loader())


WORST = {"monitor": "val/robust_accuracy/worst_case", "mode": "max"}


def measuring(every_n_epochs: int) -> RobustAccuracy:
    return RobustAccuracy({"fgsm": FGSM(threat=Linf(eps=0.1))}, every_n_epochs=every_n_epochs, num_images=0)


@pytest.mark.parametrize(
    ("ranking", "remedy"),
    [
        (ModelCheckpoint(**WORST), r"ModelCheckpoint\(every_n_epochs=2\)"),
        (ModelCheckpoint(**WORST, every_n_epochs=3), r"ModelCheckpoint\(every_n_epochs=2\)"),
        (ModelCheckpoint(**WORST, every_n_train_steps=5), r"ModelCheckpoint\(every_n_epochs=2\), with no other"),
        (EarlyStopping(**WORST), r"EarlyStopping\(strict=False\)"),
    ],
)
def test_looking_more_often_than_is_measured_is_refused(tmp_path: Path, ranking: pl.Callback, remedy: str) -> None:
    run = trainer(tmp_path, measuring(2), ranking, enable_checkpointing=True)
    with pytest.raises(ValueError, match=f"since that is measured only every 2 epochs: set {remedy}"):
        run.fit(OrdinaryModule(), train_loader(), val_loader())


@pytest.mark.parametrize(
    ("ranking", "measured_every", "validating"),
    [
        # What the messages say is to be set.
        (ModelCheckpoint(**WORST, every_n_epochs=2), 2, {}),
        (EarlyStopping(**WORST, strict=False), 2, {}),
        # No validation is left out, and after each of them they look.
        (ModelCheckpoint(**WORST), 2, {"check_val_every_n_epoch": 2}),
        (ModelCheckpoint(**WORST), 2, {"check_val_every_n_epoch": 2, "val_check_interval": 2}),
        (ModelCheckpoint(**WORST, every_n_train_steps=3), 2, {"check_val_every_n_epoch": 2}),
        (ModelCheckpoint(**WORST, every_n_epochs=2), 4, {"check_val_every_n_epoch": 4}),
        (EarlyStopping(**WORST), 2, {"check_val_every_n_epoch": 4}),
    ],
)
def test_looking_only_where_it_is_measured_is_none_of_an_old_figure(
    tmp_path: Path, ranking: Any, measured_every: int, validating: dict[str, Any]
) -> None:
    run = trainer(tmp_path, measuring(measured_every), ranking, enable_checkpointing=True, max_epochs=4, **validating)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert run.current_epoch == 4


@pytest.mark.parametrize(
    ("ranking", "measured_every", "validating", "every"),
    [
        (ModelCheckpoint(**WORST), 2, {"check_val_every_n_epoch": 3}, 6),
        (ModelCheckpoint(**WORST), 2, {"val_check_interval": 0.4}, 2),
        (ModelCheckpoint(**WORST), 2, {"check_val_every_n_epoch": None, "val_check_interval": 3}, 2),
        (ModelCheckpoint(**WORST, save_on_train_epoch_end=True), 2, {"check_val_every_n_epoch": 2}, 2),
        (EarlyStopping(**WORST, check_on_train_epoch_end=True), 2, {"check_val_every_n_epoch": 2}, 2),
    ],
)
def test_validations_that_are_not_all_measured_are_told_from_those_that_are(
    tmp_path: Path, ranking: Any, measured_every: int, validating: dict[str, Any], every: int
) -> None:
    run = trainer(tmp_path, measuring(measured_every), ranking, enable_checkpointing=True, **validating)
    with pytest.raises(ValueError, match=f"since that is measured only every {every} epochs"):
        run.fit(OrdinaryModule(), train_loader(), val_loader())


def test_an_early_stop_that_can_wait_counts_measured_validations(tmp_path: Path) -> None:
    stopping = EarlyStopping(monitor="val/bias", mode="min", patience=2, strict=False)
    run = trainer(tmp_path, stopping, Bias(every_n_epochs=2), max_epochs=20)
    run.fit(Drifting(), train_loader(), val_loader())
    assert run.current_epoch == 6  # the best at the second, two that are worse at the fourth and the sixth


class Plateau(OrdinaryModule):
    """Halves its learning rate whenever the figure it looks at is no better."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options, self.seen = options, []  # type: ignore[var-annotated]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/bias", **self.options}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        self.seen.append((self.current_epoch, float(metric), self.net[0].bias[0].item()))


@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau conditioned on metric")
@pytest.mark.parametrize("options", [{"strict": False}, {"frequency": 2}])
def test_a_scheduler_sees_figures_of_the_weights_as_they_are(tmp_path: Path, options: dict[str, Any]) -> None:
    module = Plateau(**options)
    trainer(tmp_path, Bias(every_n_epochs=2), max_epochs=5).fit(module, train_loader(), val_loader())
    assert [epoch for epoch, *_ in module.seen] == [1, 3]
    assert all(metric == bias for _, metric, bias in module.seen)


def test_a_scheduler_that_cannot_wait_is_refused(tmp_path: Path) -> None:
    class Robust(Plateau):
        def configure_optimizers(self) -> Any:
            self.options["monitor"] = "grad_norm/val/input"
            return super().configure_optimizers()

    run = trainer(tmp_path, GradientNorm(every_n_epochs=2), max_epochs=5)
    with pytest.raises(ValueError, match=r"ReduceLROnPlateau\(monitor='grad_norm/val/input'\) .*set 'frequency': 2 in"):
        run.fit(Robust(), train_loader(), val_loader())


def test_after_a_fit_the_figures_of_its_last_validation_are_there(tmp_path: Path) -> None:
    run = trainer(tmp_path, Bias(), max_epochs=2)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert "val/bias" in run.callback_metrics


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize(
    ("loader", "reason"),
    [(DataLoader(samples(0), 4), "the validation has no samples"), (None, "the training has no validation")],
)
def test_a_ranking_by_figures_that_no_validation_will_give_is_refused(
    tmp_path: Path, loader: DataLoader | None, reason: str
) -> None:
    run = trainer(tmp_path, measuring(1), ModelCheckpoint(**WORST), enable_checkpointing=True)
    with pytest.raises(ValueError, match=rf"ModelCheckpoint\(monitor=.*\) would look for its figure in vain: {reason}"):
        run.fit(OrdinaryModule(), train_loader(), loader)
    assert run.global_step == 0


@pytest.mark.filterwarnings("ignore:.ModelCheckpoint.* could not find the monitored key")
def test_a_ranking_stays_where_the_validation_is_switched_off(tmp_path: Path) -> None:
    options = {"enable_checkpointing": True, "limit_val_batches": 0}
    run = trainer(tmp_path, measuring(1), ModelCheckpoint(**WORST), **options)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert run.global_step == 10


@pytest.mark.parametrize(
    ("monitor", "meant"),
    [
        ("val/robust_acuracy/worst_case", "val/robust_accuracy/worst_case"),
        ("val/robust_accuracy/wors_case", "val/robust_accuracy/worst_case"),
        ("val/robust_accuracy/fgms", "val/robust_accuracy/fgsm"),
        ("val/atack_success/fgsm", "val/attack_success/fgsm"),
        ("val/attack_success/worst_case", "val/attack_success/fgsm"),
        ("val/clean_acuracy", "val/clean_accuracy"),
        ("grad_norm/val/inputs", "grad_norm/val/input"),
    ],
)
@pytest.mark.parametrize("kind", [ModelCheckpoint, EarlyStopping])
def test_a_misspelt_figure_is_warned_of_before_training(tmp_path: Path, kind: Any, monitor: str, meant: str) -> None:
    run = trainer(tmp_path, measuring(1), GradientNorm(), kind(monitor=monitor), enable_checkpointing=True)
    message = rf"{kind.__name__}\(monitor='{monitor}'\): no callback .* this figure; did you mean .*'{meant}'"
    with pytest.raises(UserWarning, match=message):
        run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert run.global_step == 0


def test_a_misspelt_figure_that_a_scheduler_waits_for_is_warned_of(tmp_path: Path) -> None:
    class Waits(OrdinaryModule):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            slip = {"scheduler": plateau, "monitor": "val/clean_acuracy", "strict": False}
            return {"optimizer": optimizer, "lr_scheduler": slip}

    with pytest.raises(UserWarning, match=r"ReduceLROnPlateau\(monitor='val/clean_acuracy'\).*'val/clean_accuracy'"):
        trainer(tmp_path, measuring(1), max_epochs=1).fit(Waits(), train_loader(), val_loader())


@pytest.mark.parametrize(
    "monitor",
    [
        "val/accuracy",
        "val/mean_accuracy",
        "val/robust_acc/worst_case",
        "val/robust_accuracy_ema/fgsm",
        "val/robust_accuracy_fgsm",
        "grad_norm/mine",
        "val2/clean_accuracy",
        "eval/robust_accuracy/fgsm",
    ],
)
@pytest.mark.filterwarnings("error:.*did you mean")
def test_a_figure_of_the_module_itself_is_never_taken_for_a_misspelt_one(tmp_path: Path, monitor: str) -> None:
    class Logging(OrdinaryModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log(monitor, self._loss(batch))

    kept = ModelCheckpoint(tmp_path / "kept", monitor=monitor)
    run = trainer(tmp_path, measuring(1), GradientNorm(), kept, enable_checkpointing=True, max_epochs=1)
    run.fit(Logging(), train_loader(), val_loader())
    assert kept.best_model_path


def test_a_figure_of_one_of_several_loaders_is_none_that_is_misspelt(tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path / "kept", monitor="val/robust_accuracy/fgsm/dataloader_idx_1")
    run = trainer(tmp_path, measuring(1), kept, enable_checkpointing=True, max_epochs=1)
    run.fit(OrdinaryModule(), train_loader(), [val_loader(), val_loader()])
    assert kept.best_model_path


def test_the_tags_that_are_known_before_are_those_of_the_figures(tmp_path: Path) -> None:
    probes = measuring(1), GradientNorm()
    run = trainer(tmp_path, *probes, max_epochs=1)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    measured = {tag for tag in run.callback_metrics if "val/" in tag}
    assert {tag for probe in probes for tag in probe.tags()} == measured
