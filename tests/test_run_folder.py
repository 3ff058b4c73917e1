"""The run folder of loggers that know only where the folders of all runs lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from touchstone.callbacks import RobustAccuracy
from touchstone.datamodules import TextDataModule
from touchstone.lightning_modules import LanguageModel
from touchstone.nets import TransformerLM

from .command_lines import with_value, write
from .lightning_programs import OrdinaryModule, train_loader, trainer, val_loader
from .measured_runs import ATTACKS


class Elsewhere(Logger):
    """Sends its figures somewhere else, as those of W&B, MLflow and Comet do."""

    def __init__(self, save_dir: Path | None, version: int | str) -> None:
        super().__init__()
        self._save_dir, self._version = save_dir, version

    @property
    def save_dir(self) -> str | None:
        return None if self._save_dir is None else str(self._save_dir)

    @property
    def name(self) -> str:
        return "mine"

    @property
    def version(self) -> int | str:
        return self._version

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...


@pytest.mark.filterwarnings("ignore:signs of gradient masking")
def test_each_run_has_its_files_where_its_checkpoints_are(tmp_path: Path) -> None:
    for version in ("run-a", 2):
        measuring, saving = RobustAccuracy({"fgsm": ATTACKS["fgsm"]}, num_images=1), ModelCheckpoint()
        options: dict[str, Any] = {"logger": Elsewhere(tmp_path, version), "enable_checkpointing": True}
        trainer(tmp_path, measuring, saving, max_epochs=1, **options).fit(
            OrdinaryModule(), train_loader(), val_loader()
        )
        assert saving.dirpath is not None
        folder = Path(saving.dirpath).parent
        assert {"report.json", "verdicts.npz", "figures"} <= {path.name for path in folder.iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    assert len(list(tmp_path.rglob("report.json"))) == 2


def test_samples_of_a_language_model_lie_in_the_run_folder_of_any_logger(tmp_path: Path) -> None:
    data = TextDataModule(tokens="bytes", context=16, batch_size=8, steps_per_epoch=1, token_folder=str(tmp_path / "t"))
    net = TransformerLM(256, dim=16, num_heads=2, num_layers=1, context=16)
    run = trainer(tmp_path, max_epochs=1, limit_val_batches=1, logger=Elsewhere(tmp_path / "runs", "run-a"))
    run.fit(LanguageModel(net, sample_tokens=5), datamodule=data)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("samples.txt")] == [
        Path("runs/mine/run-a/samples.txt")
    ]


def test_a_logger_that_saves_nothing_here_has_no_run_folder(here: Path) -> None:
    run = trainer(here, RobustAccuracy({"fgsm": ATTACKS["fgsm"]}, num_images=1), logger=Elsewhere(None, 0))
    run.validate(OrdinaryModule(), val_loader(), verbose=False)
    assert not list(here.iterdir())


LATE = """
from lightning.pytorch.loggers import Logger

class Late(Logger):  # as that of W&B, which is given its version when it begins
    known = None
    save_dir, name = "logs", "mine"
    version = property(lambda self: self.known)
    def __init__(self, number: str): super().__init__(); self.number = number
    @property
    def experiment(self): self.known = self.number
    def log_metrics(self, metrics, step=None): ...
    def log_hyperparams(self, params, *args, **kwargs): ...
"""


def test_the_command_line_says_where_the_run_lies_and_leaves_its_config_there(run: Any, here: Path) -> None:
    (here / "mine.py").write_text(LATE)
    for number in ("a1", "b2"):
        logger = {"class_path": "mine.Late", "init_args": {"number": number}}
        ended = run("validate", "--config", write(with_value(logger, "trainer", "logger")))
        assert ended.code == 0, ended.err
        assert f"run folder: logs/mine/{number}" in ended.out
        assert "20 validation samples" in ended.out
        assert f"number: {number}" in Path(f"logs/mine/{number}/config.yaml").read_text()


def test_a_logger_that_saves_nothing_here_ends_no_run(run: Any, here: Path) -> None:
    (here / "mine.py").write_text(LATE.replace('save_dir, name = "logs", "mine"', 'name = "mine"'))
    logger = {"class_path": "mine.Late", "init_args": {"number": "a1"}}
    ended = run("validate", "--config", write(with_value(logger, "trainer", "logger")))
    assert ended.code == 0, ended.err
    assert not list(here.rglob("config.yaml"))


def test_a_device_among_the_options_is_kept_by_its_name(run: Any, here: Path) -> None:
    options = ("--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01")
    ended = run("fit", "--config", write(with_value(2, "trainer", "max_epochs")), *options)
    assert (ended.code, ended.err) == (0, "")
    kept = "logs/tiny/version_0/config.yaml"
    assert "device: cpu" in Path(kept).read_text()
    assert run("validate", "--config", kept).code == 0
