"""Two processes against one, on 41 samples: what is counted, and that nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, WeightedRandomSampler

from touchstone.callbacks.parts.passes.processes import gather_by_id
from touchstone.callbacks.parts.passes.samples import SampleStream
from touchstone.datamodules.parts.text_windows import Streams

from .lightning_programs import samples
from .resumed_runs import same


@pytest.fixture(scope="module")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs of `two_processes.py`."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "tests.two_processes", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stderr[-3000:]
    (folder / "said.txt").write_text(run.stdout)
    (folder / "warned.txt").write_text(run.stderr)
    return folder


def figures(folder: Path) -> dict[str, float]:
    return json.loads((folder / "figures.json").read_text())


def verdicts(folder: Path) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in np.load(folder / "version_0" / "verdicts.npz").items()}


@pytest.mark.parametrize("program", ["ordinary", "learned", "one_sample"])
def test_two_processes_give_the_figures_of_one(runs: Path, program: str) -> None:
    one, two = (figures(runs / program / number) for number in "12")
    assert {"val/loss", "val/accuracy", "grad_norm/val/input", "grad_norm/val/parameters"} <= set(one)
    assert two == pytest.approx(one, rel=1e-5, nan_ok=True)  # where nothing is right, curves of the loss are NaN


def test_two_processes_draw_the_curves_of_one(runs: Path) -> None:
    one, two = (json.loads((runs / "ordinary" / number / "version_0" / "curves.json").read_text()) for number in "12")
    assert two.pop("run") != one.pop("run")
    assert two.pop("loss_after_steps") == pytest.approx(one.pop("loss_after_steps"), rel=1e-5)
    assert two == one
    assert two["num_samples"] == 41
    assert {"val/curves/eps_0.02", "val/curves/steps_5", "val/curves/loss_5"} <= set(figures(runs / "ordinary" / "2"))
    of_one_sample = json.loads((runs / "one_sample" / "2" / "version_0" / "curves.json").read_text())
    assert set(of_one_sample["accuracy_at_eps"]) == {0.0}  # it is wrong before any attack


@pytest.mark.parametrize("program", ["ordinary", "learned", "one_sample", "masked", "trained", "texts_by_class"])
def test_two_processes_give_the_verdicts_and_the_costs_of_one(runs: Path, program: str) -> None:
    assert verdicts(runs / program / "2") == verdicts(runs / program / "1")
    reports = [json.loads((runs / program / number / "version_0" / "report.json").read_text()) for number in "12"]
    for report in reports:
        for attack in report["attacks"].values():
            del attack["seconds"]
    assert reports[1] == reports[0]
    if program == "masked":
        assert any("gradients are shattered" in sign for sign in reports[0]["warnings"]), reports[0]["warnings"]


@pytest.mark.parametrize(
    ("program", "table", "num_rows"),
    [
        ("predicted", "predictions", 41),
        ("pictures", "predictions", 5),
        ("pictures", "targeted", 10),
        ("pictures", "least_visible", 6),
    ],
)
def test_two_processes_write_one_table_at_predict(runs: Path, program: str, table: str, num_rows: int) -> None:
    one, two = ((runs / program / number / "version_0" / f"{table}.csv").read_text() for number in "12")
    assert two == one
    assert len(one.splitlines()) == 1 + num_rows
    assert not list((runs / program).rglob(f"{table}_*"))


def test_two_processes_say_what_one_says(runs: Path) -> None:
    """Once each, of all pictures."""
    said = (runs / "said.txt").read_text().splitlines()
    sums = [line for line in said if "pictures are now" in line or line.endswith("reached")]
    assert len(sums) == 6
    assert sums[3:] == sums[:3]
    assert " of 3 pictures are now b" in sums[0]
    assert sums[0].endswith("2 are one already")


def test_figures_of_all_processes_are_not_taken_for_those_of_one(runs: Path) -> None:
    said = (runs / "warned.txt").read_text()
    assert "self.log('val/perplexity'" not in said
    assert "self.log('val/bits_per_character'" not in said


def test_two_processes_measure_texts_as_one_does(runs: Path) -> None:
    one, two = (figures(runs / "language" / number) for number in "12")
    assert {"val/loss", "val/perplexity", "val/bits_per_character/hot"} <= set(one)
    assert two == pytest.approx(one, rel=1e-5)
    reports = [
        json.loads((runs / "language" / number / "version_0" / "language_report.json").read_text()) for number in "12"
    ]
    for report in reports:
        assert report["num_texts"] == 41
        assert report["attacks"]["hot"].pop("seconds") > 0
    texts = [report.pop("texts") for report in reports]
    assert reports[1].pop("attacks") == reports[0].pop("attacks")
    assert texts[1].keys() == texts[0].keys()
    for name, values in texts[0].items():
        assert texts[1][name] == pytest.approx(values, rel=1e-5), name


def test_a_resumed_fit_on_two_processes_ends_as_one_that_was_never_stopped(runs: Path) -> None:
    ends = [torch.load(runs / name / "2" / "end.ckpt", weights_only=True) for name in ("whole", "resumed")]
    for part in ("state_dict", "optimizer_states", "touchstone/warm_starts"):
        assert same(ends[0][part], ends[1][part]), part
    states = [end["touchstone/exact_resume"]["of_ranks"] for end in ends]
    assert same(states[0], states[1])
    changes = [state["modules"]["strategy"] for state in states[0]]
    assert not same(changes[0], changes[1])  # each process has its own
    assert verdicts(runs / "whole" / "2") == verdicts(runs / "resumed" / "2")
    assert figures(runs / "whole" / "2") == figures(runs / "resumed" / "2")


def test_an_epoch_of_random_windows_is_shared_among_the_processes(runs: Path) -> None:
    for number, num_steps in (("1", 6), ("2", 3)):
        steps = {int(path.stem.partition("=")[2]) for path in (runs / "windows" / number).glob("step=*.ckpt")}
        assert steps == set(range(1, 2 * num_steps + 1))


def test_one_of_two_processes_writes_the_samples_of_a_language_model(runs: Path) -> None:
    for number in "12":
        written = (runs / "windows" / number / "version_0" / "samples.txt").read_text()
        assert written.count("=== step") == 2


def test_a_resumed_fit_on_random_windows_ends_as_one_that_was_never_stopped(runs: Path) -> None:
    files = (runs / name / "2" / "step=6.ckpt" for name in ("windows", "resumed_windows"))
    whole, resumed = (torch.load(file, weights_only=True) for file in files)
    assert same(whole["state_dict"], resumed["state_dict"])
    assert same(whole["optimizer_states"], resumed["optimizer_states"])


def test_samples_that_the_user_spreads_over_processes_are_counted_once(runs: Path) -> None:
    one, two = runs / "ordinary" / "1", runs / "split_by_hand" / "2"
    for name in ("val/loss", "val/accuracy", "val/clean_accuracy", "val/robust_accuracy/fgsm", "grad_norm/val/input"):
        assert figures(two)[name] == pytest.approx(figures(one)[name], rel=1e-5), name
    assert len(verdicts(two)["sample_id"]) == 41
    assert verdicts(two)["label"] == verdicts(one)["label"]  # the ids of this split are those of the dataset


def test_a_fit_on_two_processes_measures_every_sample(runs: Path) -> None:
    assert verdicts(runs / "fit" / "2")["sample_id"] == list(range(41))
    assert figures(runs / "fit" / "2")["val/accuracy"] == pytest.approx(
        figures(runs / "fit" / "2")["val/clean_accuracy"]
    )


@pytest.mark.parametrize("program", ["warm", "moved"])
def test_what_was_found_of_a_sample_is_known_to_whichever_process_has_it_next(runs: Path, program: str) -> None:
    one, two = (attacks_of(runs / program / number) for number in "12")
    assert two == one
    cold = attacks_of(runs / "ordinary" / "1")
    assert one["pgd"]["robust_accuracy"] == cold["pgd"]["robust_accuracy"]
    assert one["pgd"]["num_backwards"] < cold["pgd"]["num_backwards"]
    assert one["fgsm"] == cold["fgsm"]
    assert verdicts(runs / program / "2") == verdicts(runs / program / "1")
    kept = [
        torch.load(runs / program / number / "a.ckpt", weights_only=True)["touchstone/warm_starts"][0]
        for number in "12"
    ]
    assert list(kept[0]) == list(kept[1]) == ["pgd"]
    assert torch.equal(kept[0]["pgd"]["_id"], kept[1]["pgd"]["_id"])
    assert torch.allclose(kept[0]["pgd"]["change"], kept[1]["pgd"]["change"], atol=1e-4)


def attacks_of(folder: Path) -> dict[str, dict[str, Any]]:
    attacks = json.loads((folder / "version_0" / "report.json").read_text())["attacks"]
    return {name: {key: value for key, value in of.items() if key != "seconds"} for name, of in attacks.items()}


# How samples are numbered.

DATA = samples(41)


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(DATA)


def spread(rank: int, **options: Any) -> DistributedSampler:
    return DistributedSampler(DATA, num_replicas=2, rank=rank, **options)


def numbered(loader: DataLoader, rank: int = 0, world_size: int = 1, max_samples: int | None = None) -> SampleStream:
    processes: Any = SimpleNamespace(world_size=world_size, global_rank=rank)
    return SampleStream(processes, loader, max_samples, None)


def ids(stream: SampleStream, loader: DataLoader) -> list[int]:
    taken = [stream.take(batch) for batch in loader]
    return [number for part in taken if part is not None for number in part.ids.tolist()]


@pytest.mark.parametrize("max_samples", [None, 1, 17])
def test_ids_are_positions_in_the_dataset(max_samples: int | None) -> None:
    loader = DataLoader(DATA, 8)
    stream = numbered(loader, max_samples=max_samples)
    assert ids(stream, loader) == list(range(max_samples or 41))
    assert stream.caveat is None
    both = []
    for rank in (0, 1):
        loader = DataLoader(DATA, 8, sampler=spread(rank, shuffle=False))
        stream = numbered(loader, rank, 2, max_samples)
        both += ids(stream, loader)
        assert stream.caveat is None
    assert sorted(both) == list(range(max_samples or 41))


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"shuffle": True}, "RandomSampler"),
        ({"sampler": WeightedRandomSampler([1.0] * 41, 41)}, "WeightedRandomSampler"),
        ({"sampler": spread(0, shuffle=True)}, "DistributedSampler"),
    ],
)
def test_an_order_that_may_change_is_a_caveat(options: dict[str, Any], order: str) -> None:
    stream = numbered(DataLoader(DATA, 8, **options))
    assert stream.caveat is not None
    assert f"since {order} may take them in another order" in stream.caveat


class Shuffling:
    """A batch sampler of the user's own, beside which a loader has a sequential sampler that nobody asks."""

    def __iter__(self) -> Any:
        return iter(torch.randperm(41).split(8))

    def __len__(self) -> int:
        return 6


def test_a_batch_sampler_of_ones_own_is_a_caveat() -> None:
    assert "since Shuffling may take" in str(numbered(DataLoader(DATA, batch_sampler=Shuffling())).caveat)  # type: ignore[arg-type]


def test_an_order_that_is_said_to_stay_is_none() -> None:
    assert numbered(DataLoader(DATA, batch_sampler=Streams(41, 8))).caveat is None  # type: ignore[arg-type]


def test_an_iterable_dataset_has_the_order_that_it_has() -> None:
    loader = DataLoader(Stream(), 8)
    stream = numbered(loader)
    assert ids(stream, loader) == list(range(41))
    assert stream.caveat is None


def test_loaders_that_nobody_spreads_have_samples_of_their_own_on_each_process() -> None:
    both = []
    for rank in (0, 1):
        stream = numbered(DataLoader(Stream(), 8), rank, 2)
        both += ids(stream, DataLoader(Stream(), 8))
        assert "no DistributedSampler spreads the samples" in str(stream.caveat)
    assert sorted(both) == list(range(82))


def test_a_sample_that_is_taken_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="two processes have taken the sample 3: a DistributedSampler must be given"):
        gather_by_id({"_id": torch.tensor([3, 1, 3])})
