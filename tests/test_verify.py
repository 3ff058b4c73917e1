"""`verify`: a run's verdicts are measured again, and what is not the same is named."""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from touchstone.callbacks.parts.passes.samples import Samples
from touchstone.callbacks.parts.records.origin import as_text, samples_fingerprint, weights_fingerprint
from touchstone.cli.differences import differences, notes

from .command_lines import BEST, TINY, with_value, write
from .test_fuzz_configs import places

RUN = "logs/tiny/version_0"


@pytest.fixture
def copied(run: Any, fitted: Path) -> Path:
    """A copy of a run in the current folder."""
    shutil.copytree(fitted, ".", dirs_exist_ok=True)
    return Path(RUN)


def test_a_run_whose_verdicts_are_the_stored_ones_is_verified(run: Any, copied: Path) -> None:
    ended = run("verify", RUN)
    assert (ended.code, ended.err) == (0, "")
    assert f"measuring {RUN} again: val, 20 samples, {BEST}" in ended.out
    assert ended.out.endswith("verified: every figure and verdict is the stored one\n")
    assert "run folder" not in ended.out
    assert [folder.name for folder in Path("logs/tiny").iterdir()] == ["version_0"]


@pytest.mark.filterwarnings("ignore:signs of gradient masking")  # after two steps
def test_the_attacks_stand_in_the_order_of_the_run(run: Any) -> None:
    config = copy.deepcopy(TINY)
    suite = config["trainer"]["callbacks"][0]["init_args"]
    suite["attacks"] = {name: suite["attacks"]["fgsm"] for name in ("second", "third", "first")}
    fitted, verified = run("fit", "--config", write(config)), run("verify", RUN)
    assert (fitted.code, verified.code) == (0, 0)
    for ended in (fitted, verified):
        assert re.findall(r"│ (second|third|first) ", ended.out) == ["second", "third", "first"]


def test_the_help_tells_the_exit_codes_apart(run: Any, copied: Path) -> None:
    said = " ".join(run("verify", "--help").out.split())
    assert (
        "Exits with 0 where every one is the stored one, with 1 where one differs, and with 2 where the folder" in said
    )
    assert run("verify", "logs/none").code == 2
    (copied / "report.json").write_text("{")
    assert run("verify", RUN).code == 2


def test_a_run_of_several_processes_is_measured_in_one(run: Any, copied: Path) -> None:
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["trainer"].update(devices=2, num_nodes=2, strategy="ddp")
    write(config, str(copied / "config.yaml"))
    ended = run("verify", RUN)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("verified") == 1
    assert not torch.distributed.is_initialized()


@pytest.mark.filterwarnings("ignore:signs of gradient masking")  # after two steps
def test_a_run_in_double_precision_is_measured_with_the_weights_that_it_had(run: Any) -> None:
    assert run("fit", "--config", write(with_value("64-true", "trainer", "precision"))).code == 0
    ended = run("verify", RUN)
    assert (ended.code, ended.err) == (0, "")


def test_several_processes_that_would_verify_are_told_that_one_does(
    run: Any, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = run("verify", RUN)
    problem = "error: verify measures in one process, got 2 of them: start it without torchrun"
    assert (ended.code, ended.out, ended.first_line) == (2, "", problem)


def test_a_changed_verdict_is_named_with_its_sample(run: Any, copied: Path) -> None:
    with np.load(copied / "verdicts.npz") as stored:
        columns = {name: stored[name].copy() for name in stored.files}
    columns["robust_fgsm"][[3, 8]] ^= True
    np.savez_compressed(copied / "verdicts.npz", allow_pickle=False, **columns)
    ended = run("verify", RUN)
    assert ended.code == 1
    assert "verdicts.npz: robust_fgsm differs for 2 of 20 samples, ids 3, 8" in ended.out
    assert ended.out.endswith("not verified\n")


def edited(path: Path, **changes: Any) -> None:
    """Forges values of a report; the names are ways into it, with two underscores between the steps."""
    report = json.loads(path.read_text())
    for way, value in changes.items():
        inner = report
        *steps, last = way.split("__")
        for step in steps:
            inner = inner[step]
        inner[last] = value
    path.write_text(json.dumps(report))


def test_forged_figures_are_named_with_what_is_stored_and_what_was_measured(run: Any, copied: Path) -> None:
    path = copied / "report.json"
    true = json.loads(path.read_text())
    edited(path, clean_accuracy=0.99, worst_case=0.98, attacks__fgsm__robust_accuracy=0.97, seed=7)
    ended = run("verify", RUN)
    assert ended.code == 1
    for key, forged, figure in (
        ("clean_accuracy", 0.99, true["clean_accuracy"]),
        ("worst_case", 0.98, true["worst_case"]),
        ("attacks.fgsm.robust_accuracy", 0.97, true["attacks"]["fgsm"]["robust_accuracy"]),
        ("seed", 7, 0),
    ):
        assert f"report.json: {key}: {forged} is stored, {figure} was measured\n" in ended.out
    assert ended.out.count("is stored") == 4


def test_other_code_and_longer_times_are_no_reason_to_doubt_a_run(run: Any, copied: Path) -> None:
    edited(copied / "report.json", commit="abc", versions__torch="1.0", attacks__fgsm__seconds=1e9)
    ended = run("verify", RUN)
    assert ended.code == 0
    assert "note: report.json: commit: abc is stored, " in ended.out
    assert "note: report.json: versions.torch: 1.0 is stored, " in ended.out
    assert "seconds" not in ended.out


@pytest.mark.filterwarnings("ignore:signs of gradient masking")  # on samples that it was not trained on
def test_other_data_are_named(run: Any, copied: Path) -> None:
    ended = run("verify", RUN, "--data.split_seed", "5")
    assert ended.code == 1
    assert "report.json: the samples are not those of the run" in ended.out


def test_other_weights_are_an_error_that_names_what_was_looked_at(run: Any, copied: Path) -> None:
    stored = torch.load(BEST, weights_only=True)
    next(iter(stored["state_dict"].values())).flatten()[0] += 1e-7
    torch.save(stored, BEST)
    ended = run("verify", RUN)
    assert ended.code == 2
    assert ended.first_line == (f"error: no checkpoint holds the weights that were measured ({BEST}: other weights)")
    Path(BEST).write_bytes(b"")
    assert f"({BEST}: it is empty)" in run("verify", RUN).first_line


def test_a_report_that_does_not_know_its_weights_is_an_error_that_says_so(run: Any, copied: Path) -> None:
    report = json.loads((copied / "report.json").read_text())
    del report["weights"]
    (copied / "report.json").write_text(json.dumps(report))
    ended = run("verify", RUN)
    assert ended.code == 2
    assert "does not say which weights were measured: evaluate once more" in ended.first_line


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "verify needs a run folder: python train.py verify logs/digits/version_0"),
        (("logs/none",), "the run folder 'logs/none' does not exist"),
        (("logs",), "'logs' holds no report.json: verify needs the folder of a run that was evaluated"),
    ],
)
def test_a_folder_without_an_evaluation_is_named(
    run: Any, copied: Path, arguments: tuple[str, ...], problem: str
) -> None:
    ended = run("verify", *arguments)
    assert (ended.code, ended.first_line) == (2, f"error: {problem}")


@pytest.mark.parametrize("name", ["config.yaml", "verdicts.npz"])
def test_a_file_of_the_run_that_is_gone_is_named(run: Any, copied: Path, name: str) -> None:
    (copied / name).unlink()
    ended = run("verify", RUN)
    problem = f"error: {RUN!r} holds no {name}: verify needs the folder of a run that was evaluated"
    assert (ended.code, ended.first_line) == (2, problem)


def test_the_report_of_a_second_loader_alone_is_no_evaluation(run: Any, copied: Path) -> None:
    (copied / "report.json").rename(copied / "report_1.json")
    ended = run("verify", RUN)
    problem = f"error: {RUN!r} holds no report.json: verify needs the folder of a run that was evaluated"
    assert (ended.code, ended.first_line) == (2, problem)


def test_the_report_says_where_it_comes_from(copied: Path) -> None:
    report = json.loads((copied / "report.json").read_text())
    assert report["seed"] == 0
    assert report["weights"] == weights_fingerprint(torch.load(BEST, weights_only=True)["state_dict"])
    assert len(report["data"]) == 16
    assert "commit" in report
    assert yaml.safe_load((copied / "config.yaml").read_text())["seed_everything"] == 0


def test_a_fingerprint_of_samples_depends_on_each_of_them_and_not_on_batches() -> None:
    samples = Samples(torch.rand(9, 1, 4, 4), torch.arange(9) % 3, torch.arange(9))
    whole = samples_fingerprint(samples)
    order = torch.tensor([4, 2, 8, 0, 1, 3, 5, 6, 7])
    parts = [samples_fingerprint(samples.take(rows)) for rows in order.split(4)]
    assert as_text(sum(parts)) == as_text(whole)
    for changed in (
        Samples(samples.x + 1e-6, samples.y, samples.ids),
        Samples(samples.x, samples.y.flip(0), samples.ids),
        Samples(samples.x.flip(0), samples.y, samples.ids),
        samples.take(slice(0, 8)),
    ):
        assert as_text(samples_fingerprint(changed)) != as_text(whole)


class Written:
    """What a malicious pickle does when it is loaded."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("written"),)


def damaged_npz(**columns: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **columns)
    return file.getvalue()


DAMAGES: dict[str, tuple[str, bytes, str]] = {
    "an empty report": ("report.json", b"", "report.json' cannot be read: "),
    "a report cut off": ("report.json", b'{"stage": "val", "weig', "report.json' cannot be read: "),
    "a report of other bytes": ("report.json", b"\xff\xfe\x00", "report.json' cannot be read: "),
    "a report of something else": ("report.json", b"[1, 2]", "does not say which weights"),
    "a report nested too deep": ("report.json", b"[" * 100_000, "report.json' cannot be read: "),
    "a report of no stage": ("report.json", b'{"weights": "a", "stage": "x"}', "has a stage, val or test"),
    "no verdicts": ("verdicts.npz", b"", "verdicts.npz' cannot be read: "),
    "a report of no signs": (
        "report.json", b'{"weights": "a", "stage": "val", "data": 1, "num_samples": 1, "warnings": 3}', "warnings are",
    ),
    "verdicts cut off": ("verdicts.npz", damaged_npz(sample_id=np.arange(20))[:90], "verdicts.npz' cannot be read: "),
    "verdicts with code": (
        "verdicts.npz", damaged_npz(sample_id=np.array([Written()], dtype=object)), "verdicts.npz' cannot be read: ",
    ),
    "verdicts of no sample": ("verdicts.npz", damaged_npz(label=np.arange(20)), "one of them sample_id"),
    "verdicts of two lengths": (
        "verdicts.npz", damaged_npz(sample_id=np.arange(20), label=np.arange(19)), "columns of one length",
    ),
    "a config with code": (
        "config.yaml", b"trainer: !!python/object/apply:os.mkdir [written]",
        "config.yaml' is damaged: a config has the keys trainer, model and data",
    ),
    "a config cut off": ("config.yaml", b"model:\ntrainer: [", "config.yaml, line 2: this is not YAML: "),
    "a config of nothing": ("config.yaml", b"model: 3", "a config has the keys trainer, model and data"),
    "a checkpoint of other bytes": ("checkpoints/best.ckpt", b"PK\x03\x04 no more", "its end is missing"),
    "a checkpoint that is none": (
        "checkpoints/best.ckpt", damaged_npz(sample_id=np.arange(3)), "no checkpoint of weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_the_run_is_named_before_anything_is_measured(damage: str, run: Any, copied: Path) -> None:
    name, content, problem = DAMAGES[damage]
    (copied / name).write_bytes(content)
    ended = run("verify", RUN)
    assert (ended.code, ended.out) == (2, "")
    assert problem in ended.first_line
    assert len(ended.err.splitlines()) <= 5
    assert len(ended.first_line) < 400
    assert not Path("written").exists()


def test_verdicts_that_were_taken_away_are_missed(run: Any, copied: Path) -> None:
    with np.load(copied / "verdicts.npz") as stored:
        columns = {name: stored[name] for name in stored.files if name != "robust_fgsm"}
    np.savez_compressed(copied / "verdicts.npz", allow_pickle=False, **columns)
    ended = run("verify", RUN)
    assert ended.code == 1
    assert "verdicts.npz: the run has no column robust_fgsm" in ended.out


def test_whatever_is_forged_in_a_report_is_a_difference_of_that_key(copied: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(copied, again)
    true = json.loads((copied / "report.json").read_text())
    kept = ("seconds", "commit", "versions")
    ways = [way for way in places(true) if not set(kept) & set(way)]
    assert len(ways) > 40
    assert not [*differences(copied, again), *notes(copied, again)]
    for way in ways:
        report = json.loads(json.dumps(true))
        inner = report
        for step in way[:-1]:
            inner = inner[step]
        before = inner[way[-1]]
        other: Any = before + 1 if isinstance(before, (int, float)) else ["forged"]
        inner[way[-1]] = "test" if way == ("stage",) else other
        (again / "report.json").write_text(json.dumps(report))
        key = ".".join(step for step in way if isinstance(step, str))
        found = [*differences(copied, again), *notes(copied, again)]
        assert len(found) == 1, way
        if way not in (("data",), ("warnings",)):
            assert found[0].startswith(f"report.json: {key}"), way


def test_reports_that_one_folder_alone_holds_are_missed(copied: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(copied, again)
    for stem in ("report", "verdicts"):
        [source] = copied.glob(f"{stem}.*")
        shutil.copy(source, copied / f"{stem}_1{source.suffix}")
    assert list(differences(copied, again)) == ["report_1.json: the run has it, the measurement has not"]
    assert list(differences(again, copied)) == ["report_1.json: the measurement has it, the run has not"]


def test_a_sign_of_masking_that_was_put_in_is_a_difference_and_one_that_was_not_sought_is_none(
    copied: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(copied, again)
    signs = json.loads((copied / "report.json").read_text())["warnings"]
    edited(again / "report.json", warnings=[*signs, "a sign"])
    assert list(differences(copied, again)) == []
    assert list(notes(copied, again)) == ["report.json: the run does not hold the sign: a sign"]
    assert list(differences(again, copied)) == ["report.json: the measurement does not show the sign: a sign"]


LANGUAGE_RUN = "logs/language/version_0"


def language_config() -> dict[str, Any]:
    """A language model that is attacked after two steps."""
    Path("text").write_text("".join(f"{number} is one more than {number - 1}. " for number in range(200)))
    flips = {"class_path": "touchstone.attacks.TokenFlips", "init_args": {"num_flips": 1, "vocab_size": 256}}
    hot = {"threat": flips, "objective": {"class_path": "touchstone.attacks.Surprise"}, "num_candidates": 2}
    attacks = {"hot": {"class_path": "touchstone.attacks.HotFlip", "init_args": hot}}
    net = {"vocab_size": 256, "cell": "gru", "dim": 4, "hidden": 8}
    options = {"files": ["text"], "tokens": "bytes", "context": 16, "batch_size": 8, "steps_per_epoch": 2}
    config = with_value("language", "trainer", "logger", "init_args", "name")
    config["trainer"]["callbacks"] = [
        {"class_path": "touchstone.callbacks.RobustLanguage", "init_args": {"attacks": attacks, "max_samples": 6}},
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": "last"}},
    ]
    config["model"] = {
        "class_path": "touchstone.lightning_modules.LanguageModel",
        "init_args": {"net": {"class_path": "touchstone.nets.RecurrentLM", "init_args": net}, "sample_tokens": 0},
    }
    config["data"] = {"class_path": "touchstone.datamodules.TextDataModule", "init_args": options}
    return config


def test_a_run_of_a_language_model_is_verified_and_a_forged_one_is_not(run: Any) -> None:
    assert run("fit", "--config", write(language_config())).code == 0
    ended = run("verify", LANGUAGE_RUN)
    assert (ended.code, ended.err) == (0, "")
    assert f"measuring {LANGUAGE_RUN} again: val, 6 texts, {LANGUAGE_RUN}/checkpoints/last.ckpt" in ended.out
    path = Path(LANGUAGE_RUN, "language_report.json")
    report = json.loads(path.read_text())
    clean, texts = report["bits_per_character/clean"], report["texts"]["bits_per_character/hot"]
    forged = [*texts[:4], 0.5, *texts[5:]]
    edited(path, **{"bits_per_character/clean": 0.25, "texts__bits_per_character/hot": forged})
    ended = run("verify", LANGUAGE_RUN)
    assert ended.code == 1
    name = "language_report.json"
    assert f"{name}: bits_per_character/clean: 0.25 is stored, {clean} was measured\n" in ended.out
    place = "texts.bits_per_character/hot: 1 of 6 values differ, the first at 4"
    assert f"{name}: {place}: 0.5 is stored, {texts[4]} was measured\n" in ended.out
    assert ended.out.endswith("not verified\n")
