"""`python train.py verify RUN_FOLDER`: measures the stored figures again, and says where they differ."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from touchstone.callbacks.parts.records.origin import weights_fingerprint

from ..runs.durable import damage
from ..runs.shown import shown
from .checkpoint_errors import load_checkpoint
from .differences import differences, notes
from .given import read_config
from .mistakes import UsageError
from .stopping import Stopping
from .stored_reports import COUNTS, read_report, read_verdicts, report_names, verdicts_of

SUBCOMMANDS = {"val": "validate", "test": "test"}
NAME = "verify"
HELP = """usage: python train.py verify RUN_FOLDER [OPTIONS]

Measures a run's last evaluation again, from its config and the checkpoint with the weights that were measured, and says
which figure of its reports and which verdict differs. Exits with 0 where every one is the stored one, with 1 where one
differs, and with 2 where the folder is missing, damaged, or without an evaluation: then nothing is measured.
It measures in one process on one device, however many the run had: verdicts do not depend on them.

  RUN_FOLDER  such as logs/digits/version_0
  OPTIONS     what the config holds otherwise, such as --trainer.accelerator cpu"""


def verify(arguments: Sequence[str], stopping: Stopping) -> int:
    """Measures a run's last evaluation again, by its config, on the checkpoint with the weights that were measured.

    Returns:
        0 where every figure and verdict is the stored one, 1 where one differs.

    Raises:
        UsageError: the folder holds no evaluation that can be measured again; the message says what is missing.
    """
    from .command_line import CommandLine  # which takes seconds to import

    if not arguments or arguments[0].startswith("-"):
        raise UsageError("verify needs a run folder: python train.py verify logs/digits/version_0")
    if (processes := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise UsageError(f"verify measures in one process, got {processes} of them: start it without torchrun")
    folder = Path(arguments[0])
    reports = _checked(folder)
    report = next(iter(reports.values()))
    checkpoint = _measured_checkpoint(folder, report["weights"])
    what = ", ".join(f"{report[count]} {name}" for count, name in COUNTS.items() if count in report)
    print(f"measuring {folder} again: {report['stage']}, {what}, {checkpoint}", flush=True)
    with tempfile.TemporaryDirectory() as elsewhere:
        config = Path(elsewhere, "config.yaml")
        config.write_text(yaml.safe_dump(_config(folder, elsewhere), sort_keys=False), encoding="utf-8")
        options = ["--config", str(config), "--ckpt_path", str(checkpoint), *arguments[1:]]
        CommandLine([SUBCOMMANDS[report["stage"]], *options], stopping, shows_folder=False)
        again = Path(elsewhere, NAME, "version_0")
        found = list(differences(folder, again))
        for line in (*(f"note: {line}" for line in notes(folder, again)), *found):
            print(shown(line))
    print("verified: every figure and verdict is the stored one" if not found else "not verified", flush=True)
    return 1 if found else 0


def _checked(folder: Path) -> dict[str, dict[str, Any]]:
    """The reports of a run folder by name; what is damaged is better said before measuring."""
    if not os.path.isdir(folder):
        raise UsageError(f"the run folder {str(folder)!r} does not exist")
    names = report_names(folder)
    missing = [] if {"report.json", "language_report.json"} & set(names) else ["report.json"]
    tables = list(filter(None, map(verdicts_of, names)))
    missing += [name for name in ("config.yaml", *tables) if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"{str(folder)!r} holds no {missing[0]}: verify needs the folder of a run that was evaluated")
    reports = {name: read_report(folder / name) for name in names}
    for table in tables:
        read_verdicts(folder / table)
    return reports


def _stored_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    config = read_config(str(path)).plain()
    if not isinstance(config.get("trainer"), dict):
        raise UsageError(f"{str(path)!r} is damaged: a config has the keys trainer, model and data")
    return config


def _config(folder: Path, log_folder: str) -> dict[str, Any]:
    """The config of the run, in one process, which logs elsewhere and saves nothing."""
    config = _stored_config(folder)
    config["trainer"].update(devices=1, num_nodes=1, strategy="auto")
    logger = {"save_dir": log_folder, "name": NAME, "version": 0, "default_hp_metric": False}
    config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": logger,
    }
    kept = ("seed_everything", "num_threads", "trainer", "model", "data")
    return {key: config[key] for key in kept if key in config}


def _measured_checkpoint(folder: Path, fingerprint: str) -> Path:
    """The checkpoint that holds the weights of the report."""
    named = _stored_config(folder).get("ckpt_path")
    paths = [*sorted((folder / "checkpoints").glob("*.ckpt")), *([Path(str(named))] if named else [])]
    seen = []
    for path in paths:
        problem = "it does not exist" if not path.is_file() else damage(path)
        if problem is not None:
            seen.append(f"{path}: {problem}")
        elif (state := _weights(path)) is None:
            seen.append(f"{path}: no checkpoint of weights")
        elif weights_fingerprint(state) == fingerprint:
            return path
        else:
            seen.append(f"{path}: other weights")
    looked = "; ".join(seen) or f"{folder / 'checkpoints'} holds none"
    raise UsageError(f"no checkpoint holds the weights that were measured ({looked})")


def _weights(path: Path) -> dict[str, Any] | None:
    """The state dict of a checkpoint, None where it has none, or cannot be loaded."""
    try:
        stored = load_checkpoint(str(path))
    except UsageError:
        return None
    state = stored.get("state_dict") if isinstance(stored, dict) else None
    return state if isinstance(state, dict) else None
