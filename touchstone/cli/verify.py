"""`python train.py verify RUN_FOLDER`: measures the stored verdicts again, and says where they differ."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from touchstone.callbacks.parts.origin import weights_fingerprint

from ..runs.durable import damage
from .checkpoint_errors import load_checkpoint
from .failures import message_lines
from .given import UsageError
from .stopping import Stopping

SUBCOMMANDS = {"val": "validate", "test": "test"}
HELP = """usage: python train.py verify RUN_FOLDER [OPTIONS]

Measures the verdicts of a run's last evaluation again, from its config and the checkpoint with the weights that were
measured, and says where they differ. Exits with 0 where every verdict is the stored one, else with 1.

  RUN_FOLDER  such as logs/digits/version_0
  OPTIONS     what the config holds otherwise, such as --trainer.accelerator cpu"""


def verify(arguments: Sequence[str], stopping: Stopping) -> int:
    """Measures a run's last evaluation again, by its config, on the checkpoint with the weights that were measured.

    Args:
        arguments: the run folder, then options that the config does not hold or holds otherwise, such as
            `--trainer.accelerator cpu`.
        stopping: knows of the signals that end the run.

    Returns:
        0 where every verdict is the stored one, 1 where one differs.

    Raises:
        UsageError: the folder holds no evaluation that can be measured again; the message says what is missing.
    """
    from .command_line import CommandLine  # which takes seconds to import

    if not arguments or arguments[0].startswith("-"):
        raise UsageError("verify needs a run folder: python train.py verify logs/digits/version_0")
    folder = Path(arguments[0])
    reports = {path.name: _report(path) for path in _report_files(folder)}
    report = reports["report.json"]
    for name in reports:
        _verdicts(folder / _of_verdicts(name))  # what is damaged is better said before measuring
    checkpoint = _measured_checkpoint(folder, report["weights"])
    print(f"measuring {folder} again: {report['stage']}, {report['num_samples']} samples, {checkpoint}", flush=True)
    with tempfile.TemporaryDirectory() as elsewhere:
        config = Path(elsewhere, "config.yaml")
        config.write_text(yaml.safe_dump(_config(folder, elsewhere)), encoding="utf-8")
        options = ["--config", str(config), "--ckpt_path", str(checkpoint), *arguments[1:]]
        CommandLine([SUBCOMMANDS[report["stage"]], *options], stopping, shows_folder=False)
        again = next(Path(elsewhere).rglob("report.json")).parent
        differences = [line for name in reports for line in _differences(folder, again, name)]
    print(*differences, sep="\n")
    print("verified: every verdict is the stored one" if not differences else "not verified", flush=True)
    return 1 if differences else 0


def _report_files(folder: Path) -> list[Path]:
    """The reports of a run folder, one for each data loader."""
    if not folder.is_dir():
        raise UsageError(f"the run folder {str(folder)!r} does not exist")
    for needed in ("report.json", "config.yaml"):
        if not (folder / needed).is_file():
            raise UsageError(f"{str(folder)!r} holds no {needed}: verify needs the folder of a run that was evaluated")
    return sorted(folder.glob("report*.json"))


def _report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} cannot be read: {message_lines(error)[0]}") from None
    if not isinstance(report, dict) or "weights" not in report:
        raise UsageError(f"{str(path)!r} does not say which weights were measured: evaluate once more")
    if report.get("stage") not in SUBCOMMANDS or not {"data", "num_samples"} <= set(report):
        raise UsageError(f"{str(path)!r} is damaged: an evaluation has a stage, val or test, num_samples and data")
    return report


def _of_verdicts(report_name: str) -> str:
    return report_name.replace("report", "verdicts").replace(".json", ".npz")


def _verdicts(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table of verdicts, equally long."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in stored.files}
    except Exception as error:  # numpy and zipfile raise many kinds, depending on where the bytes stop making sense
        raise UsageError(f"{str(path)!r} cannot be read: {message_lines(error)[0]}") from None
    if "sample_id" not in columns or len({column.shape for column in columns.values()}) > 1:
        raise UsageError(f"{str(path)!r} is damaged: it needs columns of one length, one of them sample_id")
    return columns


def _stored_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{str(path)!r} cannot be read: {message_lines(error)[0]}") from None
    if not isinstance(config, dict) or not isinstance(config.get("trainer"), dict):
        raise UsageError(f"{str(path)!r} is damaged: a config has the keys trainer, model and data")
    return config


def _config(folder: Path, log_folder: str) -> dict[str, Any]:
    """The config of the run, which logs elsewhere and saves nothing."""
    config = _stored_config(folder)
    logger = {"save_dir": log_folder, "name": "verify", "default_hp_metric": False}
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


def _differences(stored: Path, again: Path, report_name: str) -> Iterator[str]:
    """What is not the same in two evaluations, in words."""
    before, now = (json.loads((folder / report_name).read_text()) for folder in (stored, again))
    if before["data"] != now["data"]:
        yield f"{report_name}: the samples are not those of the run (fingerprint {now['data']}, not {before['data']})"
    name = _of_verdicts(report_name)
    one, other = _verdicts(stored / name), _verdicts(again / name)
    for column in one.keys() ^ other.keys():
        yield f"{name}: the {'run' if column in other else 'measurement'} has no column {column}"
    columns = {column: (one[column], other[column]) for column in one if column in other}
    ids = columns["sample_id"]
    if not np.array_equal(*ids):
        yield f"{name}: other samples were measured, {len(ids[1])} and not {len(ids[0])} of them"
        return
    for column, (first, second) in columns.items():
        differ = ids[0][first != second]
        if len(differ):
            some = ", ".join(map(str, differ[:5].tolist())) + (", ..." if len(differ) > 5 else "")
            yield f"{name}: {column} differs for {len(differ)} of {len(first)} samples, ids {some}"
