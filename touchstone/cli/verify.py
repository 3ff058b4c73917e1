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
from .given import UsageError
from .stopping import Stopping

SUBCOMMANDS = {"val": "validate", "test": "test"}


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
    reports = {path.name: json.loads(path.read_text()) for path in _files(folder, "report*.json")}
    report = reports["report.json"]
    if "weights" not in report:
        raise UsageError(
            f"{str(folder / 'report.json')!r} does not say which weights were measured: evaluate once more"
        )
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


def _files(folder: Path, pattern: str) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"the run folder {str(folder)!r} does not exist")
    found = sorted(folder.glob(pattern))
    if not found or not (folder / "config.yaml").is_file():
        missing = pattern.replace("*", "") if not found else "config.yaml"
        raise UsageError(f"{str(folder)!r} holds no {missing}: verify needs the folder of a run that was evaluated")
    return found


def _config(folder: Path, log_folder: str) -> dict[str, Any]:
    """The config of the run, which logs elsewhere and saves nothing."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    logger = {"save_dir": log_folder, "name": "verify", "default_hp_metric": False}
    config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": logger,
    }
    kept = ("seed_everything", "num_threads", "trainer", "model", "data")
    return {key: config[key] for key in kept if key in config}


def _measured_checkpoint(folder: Path, fingerprint: str) -> Path:
    """The checkpoint that holds the weights of the report."""
    named = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")).get("ckpt_path")
    paths = [*sorted((folder / "checkpoints").glob("*.ckpt")), *([Path(named)] if named else [])]
    seen = []
    for path in paths:
        problem = "it does not exist" if not path.is_file() else damage(path)
        if problem is not None:
            seen.append(f"{path}: {problem}")
        elif weights_fingerprint(load_checkpoint(str(path))["state_dict"]) == fingerprint:
            return path
        else:
            seen.append(f"{path}: other weights")
    looked = "; ".join(seen) or f"{folder / 'checkpoints'} holds none"
    raise UsageError(f"no checkpoint holds the weights that were measured ({looked})")


def _differences(stored: Path, again: Path, report_name: str) -> Iterator[str]:
    """What is not the same in two evaluations, in words."""
    before, now = (json.loads((folder / report_name).read_text()) for folder in (stored, again))
    if before["data"] != now["data"]:
        yield f"{report_name}: the samples are not those of the run (fingerprint {now['data']}, not {before['data']})"
    name = report_name.replace("report", "verdicts").replace(".json", ".npz")
    with np.load(stored / name) as one, np.load(again / name) as other:
        columns = {column: (one[column], other[column]) for column in one.files if column in other.files}
    ids = columns["sample_id"]
    if not np.array_equal(*ids):
        yield f"{name}: other samples were measured, {len(ids[1])} and not {len(ids[0])} of them"
        return
    for column, (first, second) in columns.items():
        differ = ids[0][first != second]
        if len(differ):
            some = ", ".join(map(str, differ[:5].tolist())) + (", ..." if len(differ) > 5 else "")
            yield f"{name}: {column} differs for {len(differ)} of {len(first)} samples, ids {some}"
