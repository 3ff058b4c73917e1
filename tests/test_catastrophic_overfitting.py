"""The detector of catastrophic overfitting: on curves, on a run that has the fault, and on one that has not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from touchstone.attacks import PGD, Linf
from touchstone.callbacks import CatastrophicOverfitting
from touchstone.callbacks.catastrophic_overfitting import is_overfitted
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import FGSMRS, PGDAT, Classifier, Strategy
from touchstone.nets import SmallCNN

from .lightning_programs import Diverged, OrdinaryModule, train_loader, trainer, val_loader, weights
from .oracles import small_net

PGD_2 = PGD(threat=Linf(eps=0.3), num_steps=2, to_the_end=True)


@pytest.mark.parametrize(
    ("after_fgsm", "after_pgd", "overfitted"),
    [
        ([0.40, 0.45, 0.80], [0.38, 0.42, 0.01], True),  # as in the paper
        ([0.40, 0.45, 0.48], [0.38, 0.42, 0.44], False),
        ([0.40, 0.45, 0.10], [0.38, 0.42, 0.08], False),  # it broke down altogether
        ([0.45], [0.10], False),  # a young net: nothing has been lost
        ([0.80, 0.80], [0.60, 0.59], False),  # an attack that is simply stronger
    ],
)
def test_what_counts_is_a_gap_and_a_loss(after_fgsm: list[float], after_pgd: list[float], overfitted: bool) -> None:
    assert is_overfitted(after_fgsm, after_pgd, 0.2) is overfitted


def fit_digits(
    folder: Path, strategy: Strategy, detector: CatastrophicOverfitting, num_epochs: int
) -> tuple[pl.Trainer, str]:
    """The trainer after a fit, and what it warned of."""
    pl.seed_everything(0)
    module = Classifier(SmallCNN(width=16), lambda p: torch.optim.AdamW(p, lr=0.005), strategy=strategy)
    run = trainer(folder, detector, max_epochs=num_epochs, num_sanity_val_steps=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        run.fit(module, DigitsDataModule())
    return run, " ".join(str(warning.message) for warning in caught if "catastrophic" in str(warning.message))


def test_a_run_that_overfits_is_stopped(tmp_path: Path) -> None:
    """A step of twice eps, at an eps of 0.3: the net learns to stand against it and nothing else."""
    threat = Linf(eps=0.3)
    detector = CatastrophicOverfitting(threat=threat, max_samples=200)
    run, said = fit_digits(tmp_path, FGSMRS(threat, rel_step_size=2.0), detector, 14)
    assert said.startswith("catastrophic overfitting in epoch")
    assert said.endswith("the run ends here")
    assert 2 < run.current_epoch < 14
    figures = run.callback_metrics
    assert figures["val/after_one_step"] > figures["val/after_many_steps"] + 0.2


@pytest.mark.slow
def test_a_run_that_overfits_falls_back_and_goes_on(tmp_path: Path) -> None:
    threat = Linf(eps=0.3)
    detector = CatastrophicOverfitting(threat=threat, max_samples=200, action="fall_back")
    strategy = FGSMRS(threat, rel_step_size=2.0, fallback=PGD_2)
    run, said = fit_digits(tmp_path, strategy, detector, 8)
    assert "falls back to its other attack" in said
    assert run.current_epoch == 8
    assert strategy.attack is PGD_2


def test_a_run_that_does_not_overfit_is_left_alone(tmp_path: Path) -> None:
    threat = Linf(eps=0.15)
    detector = CatastrophicOverfitting(threat=threat, max_samples=200)
    run, said = fit_digits(tmp_path, FGSMRS(threat), detector, 6)
    assert not said
    assert run.current_epoch == 6
    assert run.callback_metrics["val/after_many_steps"] > 0.5


def test_where_no_attack_is_left_to_fall_back_to_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("touchstone.callbacks.catastrophic_overfitting.is_overfitted", lambda *_: True)
    detector = CatastrophicOverfitting(threat=Linf(eps=0.1), action="fall_back")
    run, said = fit_digits(tmp_path, PGDAT(PGD_2), detector, 3)
    assert "the run ends here" in said
    assert run.current_epoch == 1


def test_curves_are_those_of_the_first_loader_and_begin_anew_after_a_fall_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def at_the_second_look(one: list[float], many: list[float], max_gap: float) -> bool:
        seen.append((len(one), len(many)))
        return len(seen) == 2

    monkeypatch.setattr("touchstone.callbacks.catastrophic_overfitting.is_overfitted", at_the_second_look)
    detector = CatastrophicOverfitting(threat=Linf(eps=0.1), action="fall_back")
    module = Classifier(small_net(7), strategy=FGSMRS(Linf(eps=0.1), fallback=PGD_2))
    run = trainer(tmp_path, detector, max_epochs=4, num_sanity_val_steps=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="catastrophic overfitting in epoch 1: .* falls back")
        run.fit(module, train_loader(), [val_loader(), val_loader()])
    assert seen == [(1, 1), (2, 2), (1, 1), (2, 2)]


def test_where_logits_are_nan_no_sample_is_right(tmp_path: Path) -> None:
    detector = CatastrophicOverfitting(threat=Linf(eps=0.1))
    run = trainer(tmp_path, detector, max_epochs=1, num_sanity_val_steps=0)
    run.fit(Diverged(small_net(7)), train_loader(), val_loader())
    assert run.callback_metrics["val/after_one_step"] == run.callback_metrics["val/after_many_steps"] == 0


def test_watching_changes_no_weight(tmp_path: Path) -> None:
    trained = []
    for callbacks in ([], [CatastrophicOverfitting(threat=Linf(eps=0.1))]):
        torch.manual_seed(0)
        module = Classifier(small_net(7), strategy=FGSMRS(Linf(eps=0.1)))
        trainer(tmp_path, *callbacks).fit(module, train_loader(), val_loader())
        trained.append(weights(module.net))
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "go on"}, r"action=...\) must be one of 'stop', 'fall_back', got 'go on'"),
        ({"num_steps": 1}, r"num_steps=...\) must be >= 2, got 1"),
        ({"max_gap": 1.5}, r"max_gap=...\) must be in \(0, 1\), got 1.5"),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"CatastrophicOverfitting\(" + message):
        CatastrophicOverfitting(threat=Linf(eps=0.1), **options)


def test_a_module_without_a_strategy_cannot_fall_back(tmp_path: Path) -> None:
    detector = CatastrophicOverfitting(threat=Linf(eps=0.1), action="fall_back")
    with pytest.raises(ValueError, match="needs a module with a strategy that can.*got OrdinaryModule"):
        trainer(tmp_path, detector).fit(OrdinaryModule(), train_loader(), val_loader())
