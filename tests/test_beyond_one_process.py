"""What docs/scale.md says of torchrun, several nodes and Slurm, on one machine and with the environment of each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from .command_lines import ROOT, TINY, write
from .test_ending_together import PARTS

pytestmark = [pytest.mark.usefixtures("here"), pytest.mark.slow]

FIT = (str(ROOT / "train.py"), "fit", "--config", "tiny.yaml")
RUN = Path("logs/tiny/version_0")


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def started(variables: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **variables}
    command = [sys.executable, *FIT, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(*processes: subprocess.Popen[str]) -> list[tuple[int, str, str]]:
    texts = [process.communicate(timeout=200) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def tiny(**trainer: Any) -> None:
    last = {"filename": "last", "enable_version_counter": False}
    callbacks = [*TINY["trainer"]["callbacks"], {"class_path": "ModelCheckpoint", "init_args": last}]
    write({**TINY, "trainer": {**TINY["trainer"], "strategy": "ddp", "callbacks": callbacks, **trainer}})


def measured() -> int:
    return json.loads((RUN / "report.json").read_text())["num_samples"]


def test_torchrun_starts_the_processes() -> None:
    tiny(devices=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *FIT]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Starting with 2 processes" in run.stdout
    assert measured() == 20


def test_two_nodes_of_one_process_each_find_one_another() -> None:
    tiny(devices=1, num_nodes=2)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    found = ended(*(started({**meeting, "NODE_RANK": str(rank)}) for rank in (0, 1)))
    assert [code for code, _, _ in found] == [0, 0], found
    assert "Starting with 2 processes" in found[0][1]
    assert measured() == 20


def breaking(**trainer: Any) -> None:
    """A config whose second process breaks off in its first step."""
    Path("mine.py").write_text(PARTS)
    tiny(**trainer)
    config = yaml.safe_load(Path("tiny.yaml").read_text())
    options = {"rank": 1, "hook": "on_train_batch_end"}
    config["trainer"]["callbacks"].append({"class_path": "mine.Break", "init_args": options})
    write(config)


def since_it_broke() -> float:
    return time.time() - float(Path("broke_at").read_text())


def test_an_error_on_one_process_of_torchrun_ends_all() -> None:
    breaking(devices=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *FIT]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 1
    assert since_it_broke() < 60
    assert "error: the cable of process 1 is cut\n" in run.stderr


def test_an_error_on_one_node_ends_the_other() -> None:
    breaking(devices=1, num_nodes=2)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    found = ended(*(started({**meeting, "NODE_RANK": str(rank)}) for rank in (0, 1)))
    assert since_it_broke() < 60
    assert [code for code, _, _ in found] == [1, 1]
    assert found[1][2].startswith("error: the cable of process 1 is cut\n")
    assert found[0][2].startswith("error: another process of this run has ended, for which this one waited")


@pytest.mark.parametrize("delay", [0, 0.3])
def test_a_job_of_slurm_that_is_told_to_end_saves_and_goes_on_when_it_is_started_again(delay: float) -> None:
    """With the variables that srun sets, and without srun."""
    tiny(devices=2, max_epochs=100_000)
    job = {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0", "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip

    def tasks(*arguments: str) -> list[subprocess.Popen[str]]:
        place = {**job, "MASTER_PORT": free_port()}
        ranks = ({"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in (0, 1))
        return [started({**place, **rank}, *arguments) for rank in ranks]

    running = tasks()
    assert running[0].stdout is not None
    for line in running[0].stdout:
        if line.startswith("epoch 2/"):
            break
    running[0].send_signal(signal.SIGUSR1)
    time.sleep(delay)  # nodes are not told at the same moment
    running[1].send_signal(signal.SIGUSR1)
    assert [code for code, _, _ in ended(*running)] == [138, 138]
    assert (RUN / "checkpoints" / "last.ckpt").is_file()
    again = ended(*tasks("--ckpt_path", "last", "--trainer.max_time", "00:00:00:01"))
    assert [code for code, _, _ in again] == [0, 0], again
    assert "Restored all states from the checkpoint" in again[0][1]
    assert [folder.name for folder in Path("logs/tiny").iterdir()] == ["version_0"]
