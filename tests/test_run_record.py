"""`RunRecord`: the graph of a run, for nets of every kind, and the figures beside its hyperparameters."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from torch import Tensor

from touchstone.callbacks import Probe, RunRecord

from .lightning_programs import Loaders, OrdinaryModule, events, train_loader, trainer, val_loader


class Config:
    """What LightningCLI hands over."""

    def as_dict(self) -> dict[str, Any]:
        return {"model": {"lr": 0.05}}


class Parser:
    def dump(self, config: Any, **_: Any) -> str:
        return "model: {lr: 0.05}"

    def save(self, *_: Any, **__: Any) -> None:
        """Lightning's own part, tested there."""


def recorded(folder: Path, module: OrdinaryModule, *callbacks: Any, **options: Any) -> Any:
    record = RunRecord(Parser(), Config(), save_to_log_dir=False)  # type: ignore[arg-type]
    trainer(folder, *callbacks, record, **options).fit(module, train_loader(), val_loader())
    return events(folder)


def test_the_graph_and_the_hyperparameters_are_shown(tmp_path: Path) -> None:
    seen = recorded(tmp_path, OrdinaryModule())
    assert seen.Tags()["graph"]
    assert "config/text_summary" in seen.Tags()["tensors"]


@pytest.mark.parametrize("multifile", [False, True])
def test_the_config_is_kept_in_as_many_files_as_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multifile: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    Path("model.yaml").write_text("seed: 3")
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "kept"}}
    LightningCLI(
        OrdinaryModule,
        Loaders,
        args=["fit", "--model", "model.yaml"],
        trainer_defaults={"max_epochs": 0, "log_every_n_steps": 1, "accelerator": "cpu", "logger": logger},
        seed_everything_default=False,
        save_config_callback=RunRecord,
        save_config_kwargs={"multifile": multifile},
    )
    names = {file.name for file in Path("kept").rglob("*.yaml")}
    assert names == ({"config.yaml", "model.yaml"} if multifile else {"config.yaml"})


class WithLogits(OrdinaryModule):
    """Returns an output that no tracer takes."""

    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(logits=self.net(x))

    def _loss(self, batch: Any) -> Tensor:
        return torch.nn.functional.cross_entropy(self(batch[0]).logits, batch[1])


def test_a_net_whose_output_has_logits_has_a_graph(tmp_path: Path) -> None:
    assert recorded(tmp_path, WithLogits()).Tags()["graph"]


class Untraceable(OrdinaryModule):
    """Keeps the tracer from working, and trains all the same."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise TypeError("not with me\nand more words")
        return self.net(x)


def test_a_net_that_cannot_be_traced_is_trained_without_a_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    assert not recorded(tmp_path, Untraceable()).Tags()["graph"]
    said = [str(warning.message) for warning in recwarn if "graph" in str(warning.message)]
    assert said == [
        "TensorBoard shows no graph of this run, since Untraceable cannot be traced: TypeError: not with me"
    ]
    assert "Error occurs" not in capsys.readouterr().out


class Mean(Probe):
    def measure(self, model: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"mean": x.flatten(1).mean(1)}


def test_figures_of_an_earlier_validation_stand_beside_the_hyperparameters(tmp_path: Path) -> None:
    recorded(tmp_path, OrdinaryModule(), Mean(every_n_epochs=2), max_epochs=3)
    assert b"val/mean" in next(tmp_path.rglob("events.*")).read_bytes().split(b"_hparams_/experiment")[1]
