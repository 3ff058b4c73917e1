"""A run that is stopped anywhere and goes on ends as the one that was never stopped, bit for bit."""

from __future__ import annotations

import copy
import json
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from touchstone.callbacks.parts.resuming.own_order import Position, in_own_order
from touchstone.callbacks.parts.resuming.random_state import RandomStream, random_state, set_random_state
from touchstone.cli.stopping import SIGNALS

from .command_lines import write
from .resumed_runs import NUM_BATCHES, NUM_EPOCHS, PARTS, config, same, what_is_left


@pytest.fixture(scope="module")
def never_stopped() -> dict[str, Any]:
    """What is left of the runs without a stop, by their configs: one for all tests that compare with it."""
    return {}


def check_stopped_and_resumed(
    run: Any, never_stopped: dict[str, Any], given: dict[str, Any], *stops: dict[str, Any]
) -> None:
    """Fits without a stop and with these, and compares what is left."""
    Path("mine.py").write_text(PARTS)
    key = json.dumps(given, sort_keys=True)
    if key not in never_stopped:
        never = copy.deepcopy(given)
        never["trainer"]["logger"]["init_args"]["name"] = "never"
        assert run("fit", "--config", write(never, "never.yaml")).code == 0
        never_stopped[key] = what_is_left(Path("logs/never/version_0"))
    name = write(given)
    resume: list[str] = []
    for stop in stops:
        stop_at = {"class_path": "mine.StopAt", "init_args": stop}
        Path("stop.yaml").write_text(json.dumps({"trainer": {"callbacks+": [stop_at]}}))
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        ended = run("fit", "--config", name, "--config", "stop.yaml", *resume)
        for number, handler in handlers.items():  # a process that a signal has ended does without them
            signal.signal(number, handler)
        assert ended.code == 143
        resume = ["--ckpt_path", "last"]
        hints = [line for line in ended.err.splitlines() if line.startswith("to go on: ")]
        assert hints == [
            "to go on: python train.py fit --config logs/tiny/version_0/config.yaml --ckpt_path last "
            "--trainer.logger.init_args.version 0"
        ]
    resumed = run("fit", "--config", name, "--ckpt_path", "last")
    assert (resumed.code, resumed.err.splitlines()[1:]) == (0, [])
    expected, got = never_stopped[key], what_is_left(Path("logs/tiny/version_0"))
    assert expected["curves"]["train/loss"]
    different = [part for part in expected if part != "curves" and not same(expected[part], got[part])]
    curves = [tag for tag, points in expected["curves"].items() if not same(points, got["curves"].get(tag))]
    assert (different, curves) == ([], [])
    assert [path.name for path in Path("logs/tiny").iterdir()] == ["version_0"]


@pytest.mark.parametrize(
    "stops",
    [
        [{"step": 9}],  # in the middle of the second epoch
        # At the first step, in the validation that ends an epoch, and at the last step of one.
        [{"step": 0}, {"step": NUM_BATCHES, "in_validation": True}, {"step": 2 * NUM_BATCHES - 1}],
        pytest.param([{"step": 4}, {"step": 5}, {"step": 16}], marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_once_or_often_ends_as_one_that_never_stopped(
    run: Any, never_stopped: dict[str, Any], stops: list[dict[str, Any]]
) -> None:
    check_stopped_and_resumed(run, never_stopped, config(), *stops)


def test_a_stop_in_the_validation_of_mid_epoch_keeps_the_checkpoints_that_belong_to_it(
    run: Any, never_stopped: dict[str, Any]
) -> None:
    check_stopped_and_resumed(run, never_stopped, config(val_check_interval=3), {"step": 3, "in_validation": True})


def test_a_stop_at_the_last_step_leaves_a_checkpoint(run: Any) -> None:
    Path("mine.py").write_text(PARTS)
    given = config()
    given["trainer"]["callbacks"][1:] = [
        {"class_path": "mine.StopAt", "init_args": {"step": NUM_EPOCHS * NUM_BATCHES - 1}}
    ]
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    ended = run("fit", "--config", write(given), "--trainer.enable_checkpointing=false")
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert ended.code == 143
    stored = torch.load("logs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    assert stored["global_step"] == NUM_EPOCHS * NUM_BATCHES


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 2, "precision": "64-true"},
        {"val_check_interval": 3},
        {"check_val_every_n_epoch": 2, "num_workers": 1},
    ],
)
def test_it_does_so_however_the_run_is_set_up(run: Any, never_stopped: dict[str, Any], options: dict[str, Any]) -> None:
    check_stopped_and_resumed(run, never_stopped, config(**options), {"step": 5})


def test_it_does_so_where_an_epoch_ends_by_a_figure_from_before_the_stop(
    run: Any, never_stopped: dict[str, Any]
) -> None:
    given = config(val_check_interval=3)
    options = {"monitor": "val/loss", "patience": 0, "threshold": 0.5}
    given["model"]["init_args"]["lr_scheduler"] = {
        "class_path": "lightning.pytorch.cli.ReduceLROnPlateau",
        "init_args": options,
    }
    check_stopped_and_resumed(run, never_stopped, given, {"step": 5}, {"step": 16})


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_it_does_so_at_any_step(run: Any, never_stopped: dict[str, Any], number: int) -> None:
    draw = random.Random(number)
    stops = [{"step": step} for step in sorted(draw.sample(range(NUM_EPOCHS * NUM_BATCHES - 1), draw.randint(1, 2)))]
    options = draw.choice([{}, {"val_check_interval": draw.randint(1, 6)}, {"num_workers": 1}])
    check_stopped_and_resumed(run, never_stopped, config(**options), *stops)


def test_a_random_stream_depends_on_its_numbers_and_leaves_the_global_states_alone() -> None:
    def drawn(stream: RandomStream) -> tuple[float, float, float]:
        with stream.in_use():
            return float(torch.rand(())), float(np.random.rand()), random.random()

    before = random_state()
    stream = RandomStream(1, 2)
    first, second = drawn(stream), drawn(stream)
    assert same(before, random_state())
    assert first != second
    assert drawn(RandomStream(1, 2)) == first
    assert drawn(RandomStream(1, 3)) != first


def test_a_random_state_can_be_kept_and_set_again(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "state.pt")
    first = (torch.rand(3), np.random.randn(3), random.gauss(0, 1))
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    again = (torch.rand(3), np.random.randn(3), random.gauss(0, 1))
    assert torch.equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert first[2] == again[2]


def test_a_loader_in_its_own_order_begins_where_it_is_told_to() -> None:
    loader = torch.utils.data.DataLoader(torch.arange(20), 2, shuffle=True)  # type: ignore[arg-type]
    whole = list(in_own_order(loader, lambda: Position(seed=1, epoch=4, rank=0, num_taken=0)))
    torch.rand(5)
    rest = list(in_own_order(loader, lambda: Position(seed=1, epoch=4, rank=0, num_taken=6)))
    assert same(rest, whole[6:])
    assert not same(list(in_own_order(loader, lambda: Position(seed=1, epoch=5, rank=0, num_taken=0))), whole)
    assert isinstance(loader, torch.utils.data.DataLoader)
    assert type(loader).__name__ == "DataLoader"


def test_a_loader_with_a_generator_of_its_own_is_in_its_own_order_too() -> None:
    def batches(num_taken: int, seed: int) -> list[Any]:
        generator = torch.Generator().manual_seed(seed)
        loader = torch.utils.data.DataLoader(torch.arange(20), 2, shuffle=True, generator=generator)  # type: ignore[arg-type]
        return list(in_own_order(loader, lambda: Position(seed=1, epoch=4, rank=0, num_taken=num_taken)))

    assert same(batches(6, seed=5), batches(0, seed=3)[6:])
