"""`verify`: a run's verdicts are measured again, and what is not the same is named."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from .command_lines import BEST, RUN, TINY, edited, with_value, write


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
    np.savez_compressed(copied / "verdicts.npz", **columns)
    ended = run("verify", RUN)
    assert ended.code == 1
    assert "verdicts.npz: robust_fgsm differs for 2 of 20 samples, ids 3, 8" in ended.out
    assert ended.out.endswith("not verified\n")


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


def test_verdicts_that_were_taken_away_are_missed(run: Any, copied: Path) -> None:
    with np.load(copied / "verdicts.npz") as stored:
        columns = {name: stored[name] for name in stored.files if name != "robust_fgsm"}
    np.savez_compressed(copied / "verdicts.npz", **columns)
    ended = run("verify", RUN)
    assert ended.code == 1
    assert "verdicts.npz: the run has no column robust_fgsm" in ended.out


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
