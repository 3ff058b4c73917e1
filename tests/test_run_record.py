"""`RunRecord`: the graph of a run, for nets of every kind, and the figures beside its hyperparameters."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from touchstone.attacks import frozen_eval
from touchstone.attacks.core.logits import logits_as_float
from touchstone.callbacks import Probe, RunRecord
from touchstone.cli.class_help import Parser

from .command_lines import DIGITS, NARROW, SHORT
from .lightning_programs import Loaders, OrdinaryModule, events, train_loader, trainer, val_loader


class Config:
    """What LightningCLI hands over."""

    def as_dict(self) -> dict[str, Any]:
        return {"model": {"lr": 0.05}}


class FakeParser:
    def dump(self, config: Any, **_: Any) -> str:
        return "model: {lr: 0.05}"

    def save(self, *_: Any, **__: Any) -> None:
        """Lightning's own part, tested there."""


def recorded(folder: Path, module: OrdinaryModule, *callbacks: Any, **options: Any) -> Any:
    record = RunRecord(FakeParser(), Config(), save_to_log_dir=False)  # type: ignore[arg-type]
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


class GraphBeside(pl.Callback):
    """Lets TensorBoard make a graph by itself, which traces a module twice, to compare."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            with frozen_eval(pl_module), logits_as_float(pl_module), SummaryWriter(str(self.folder)) as writer:
                writer.add_graph(pl_module, batch[0][:1])


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_the_graph_is_the_one_that_tensorboard_makes_by_itself(tmp_path: Path) -> None:
    seen = recorded(tmp_path / "run", OrdinaryModule(), GraphBeside(tmp_path / "other" / "version_0"))
    assert len(seen.Graph().node) > 5
    assert seen.Graph() == events(tmp_path / "other").Graph()


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


def test_a_config_that_was_parsed_is_saved_as_one_that_is_checked_again(run: Any) -> None:
    dump, dumped = Parser.dump, []

    def kept(parser: Parser, config: Any, **options: Any) -> str:
        dumped.append((parser, config.clone(), options, dump(parser, config, **options)))
        return dumped[-1][-1]

    with pytest.MonkeyPatch.context() as watched:
        watched.setattr(Parser, "dump", kept)
        assert run("fit", "--config", str(DIGITS), NARROW, *SHORT).code == 0
    whole = [of for of in dumped if "seed_everything" in of[1]]  # the others are of a class inside
    assert len(whole) == 2  # for the hyperparameters and for the run folder
    for parser, config, options, text in whole:
        assert options["skip_validation"]
        assert text == parser.dump(config, **{**options, "skip_validation": False})
    assert next(Path("logs").rglob("config.yaml")).read_text() == whole[-1][-1]
