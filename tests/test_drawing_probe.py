"""A `Probe` of one's own that draws: when, on what, and where its pictures are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from torch import Tensor, nn

from .lightning_programs import OrdinaryModule, seen_tags, train_loader, trainer, val_loader
from .measured_runs import Confidence


class Histogram(Confidence):
    """Draws how sure the model is of the samples that it is given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.num_drawn: list[int] = []

    def draw(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Figure]:
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        self.num_drawn.append(len(x))
        figure = Figure(figsize=(3, 2))
        figure.subplots().hist(model(x).softmax(1).amax(1).detach())
        return {"confidence": figure}


def test_a_picture_is_drawn_of_the_first_batch_of_each_measured_pass(tmp_path: Path) -> None:
    probe = Histogram(every_n_epochs=2, max_samples=15)
    run = trainer(tmp_path, probe, max_epochs=4, num_sanity_val_steps=2)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert probe.num_drawn == [10, 10]
    run.test(OrdinaryModule(), val_loader(), verbose=False)
    assert {"val/confidence", "confidence/val", "confidence/test"} <= seen_tags(tmp_path)
    pictures = {path.name for path in tmp_path.rglob("figures/*.png")}
    assert pictures == {"confidence_val.png", "confidence_test.png"}


def test_each_loader_has_a_picture_of_its_own(tmp_path: Path) -> None:
    class Two(OrdinaryModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            super().validation_step(batch, batch_idx)

    trainer(tmp_path, Histogram()).validate(Two(), [val_loader(), val_loader()], verbose=False)
    drawn = {tag for tag in seen_tags(tmp_path) if tag.startswith("confidence/")}
    assert drawn == {"confidence/val/dataloader_idx_0", "confidence/val/dataloader_idx_1"}


def test_figures_of_pyplot_are_closed_and_their_mathematics_is_drawn(tmp_path: Path) -> None:
    class Formula(Confidence):
        def draw(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Figure]:
            figure, axes = plt.subplots()
            self.text = axes.set_title(r"$\epsilon$")
            return {"formula": figure}

    probe = Formula()
    trainer(tmp_path, probe).validate(OrdinaryModule(), val_loader(), verbose=False)
    assert not plt.get_fignums()
    assert probe.text.get_parse_math()


def test_the_last_figures_are_those_of_the_last_pass(tmp_path: Path) -> None:
    probe = Confidence(every_n_epochs=2)
    run = trainer(tmp_path, probe, max_epochs=2)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert list(probe.last_figures(run)) == ["val/confidence"]
    run.test(OrdinaryModule(), val_loader(), verbose=False)
    assert probe.last_figures(run) == {"test/confidence": float(run.callback_metrics["test/confidence"])}
    probe = Confidence(every_n_epochs=2)
    run = trainer(tmp_path, probe, max_epochs=3)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert probe.last_figures(run) == {}


@pytest.mark.parametrize("returned", [None, Figure(), {"a": 3}, {3: Figure()}], ids=repr)
def test_what_is_no_figure_by_name_is_refused(tmp_path: Path, returned: Any) -> None:
    class Wrong(Confidence):
        def draw(self, model: nn.Module, x: Tensor, y: Tensor) -> Any:
            return returned

    with pytest.raises(ValueError, match="Wrong.draw: it must return figures of matplotlib by name, such as"):
        trainer(tmp_path, Wrong()).validate(OrdinaryModule(), val_loader(), verbose=False)
