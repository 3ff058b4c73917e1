"""Configs behind another: callbacks that are added, ways of training, an attack from a document."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import train

from .command_lines import ROOT, SHORT, Fits, after_two_steps, given, slow_where

ADD_ONS = sorted(path.name for path in (ROOT / "configs/callbacks").glob("*.yaml"))
STRATEGIES = sorted(path.stem for path in (ROOT / "configs/strategies").glob("*.yaml"))
NARROW = "--model.net.width=8"  # of the digits net: which figures it reaches does not count
every_add_on = pytest.mark.parametrize("add_on", slow_where(lambda name: name == "black_box.yaml", ADD_ONS))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digits config without its pictures, which take nearly half the time of so short a fit."""
    config = yaml.safe_load((ROOT / "configs/digits.yaml").read_text())
    config["trainer"]["callbacks"][0]["init_args"]["num_images"] = 0
    path = tmp_path_factory.mktemp("digits") / "digits.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


@after_two_steps
@every_add_on
def test_add_on_is_appended_to_a_run(root: Path, add_on: str, fits: Fits, digits: str) -> None:
    folder = fits(digits, f"callbacks/{add_on}", options=[NARROW])
    saved = yaml.safe_load(next(folder.rglob("config.yaml")).read_text())
    without = yaml.safe_load((root / "configs/digits.yaml").read_text())
    assert len(saved["trainer"]["callbacks"]) > len(without["trainer"]["callbacks"])
    asked = [(call["class_path"], set(call["init_args"].get("attacks", {}))) for call in saved["trainer"]["callbacks"]]
    attacks = set().union(*(names for path, names in asked if path.endswith("RobustAccuracy")))
    assert set(json.loads(next(folder.rglob("report.json")).read_text())["attacks"]) == attacks


@after_two_steps
@every_add_on
def test_add_on_does_not_change_training(add_on: str, fits: Fits, digits: str) -> None:
    """Not even where the net of an attack draws random numbers before the model does."""
    alone, watched = (
        torch.load(next(fits(digits, *more, options=[NARROW]).rglob("last.ckpt")), weights_only=True)["state_dict"]
        for more in ((), (f"callbacks/{add_on}",))
    )
    assert all(torch.equal(alone[name], watched[name]) for name in alone)


@pytest.mark.parametrize("add_on", ["strongest", "curves"])
def test_the_eps_of_an_add_on_for_digits_is_changed_by_the_option_that_it_names(run: Any, add_on: str) -> None:
    """The words behind an option are those of the shell, and nothing else of the config changes."""
    text = (ROOT / f"configs/callbacks/{add_on}.yaml").read_text()
    (options,) = re.findall(r"^#   (--trainer\.callbacks\.att.*)$", text, flags=re.MULTILINE)
    before, after = (
        yaml.safe_load(run("fit", *given("digits.yaml", f"callbacks/{add_on}.yaml"), *more, "--print_config").out)
        for more in ([], shlex.split(options))
    )
    last = before["trainer"]["callbacks"][-1]["init_args"]
    attack = last["attack"] if add_on == "curves" else last["attacks"]["strongest"]
    assert attack["init_args"]["threat"]["init_args"]["eps"] == 0.15
    attack["init_args"]["threat"]["init_args"]["eps"] = "8/255"
    if add_on == "curves":
        last["eps"] = ["2/255", "4/255", "8/255"]
    assert after == before


def test_the_one_step_experiment_is_the_same_for_any_net_as_for_the_published_one(root: Path) -> None:
    for_any, of_one = (
        yaml.safe_load((root / "configs" / name).read_text())["trainer"]
        for name in ("callbacks/one_step.yaml", "one_step_cifar10.yaml")
    )
    assert for_any["callbacks+"] == of_one["callbacks"]


@after_two_steps
@pytest.mark.slow
@pytest.mark.parametrize("add_on", ADD_ONS)
def test_add_on_is_appended_to_a_test(add_on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["test", *given("digits.yaml", f"callbacks/{add_on}"), "--trainer.limit_test_batches=1"]) == 0
    assert next(tmp_path.rglob("report.json")).is_file()


@after_two_steps
@pytest.mark.parametrize("name", slow_where(lambda name: name not in ("trades", "free", "fgsm_rs", "ema"), STRATEGIES))
def test_another_way_to_learn_is_one_more_config(
    root: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [str(root / f"configs/{part}.yaml") for part in ("digits_robust", f"strategies/{name}")]
    options = [NARROW, "--trainer.callbacks=touchstone.callbacks.GradientNorm"]
    assert train.main(["fit", "--config", configs[0], *options, "--config", configs[1], *SHORT]) == 0
    saved = yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())
    asked = Path(configs[1]).read_text()
    model = yaml.safe_load(asked).get("model", yaml.safe_load(Path(configs[0]).read_text())["model"])
    learned = saved["model"]["init_args"]["strategy"]["class_path"]
    assert learned == model["init_args"]["strategy"]["class_path"]
    for kind in ("CatastrophicOverfitting", "EMAWeightAveraging"):
        assert (kind in asked) == (kind in str(saved["trainer"]["callbacks"]))
    assert asked.splitlines()[1].endswith(f"configs/strategies/{name}.yaml")


@after_two_steps
def test_a_transfer_in_a_config_takes_the_weights_of_another_run(
    root: Path, fits: Fits, digits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The YAML of docs/attacks.md, from a net that is the model itself: it does what the attack does."""
    monkeypatch.chdir(tmp_path)
    trained = str(next(fits(digits, options=[NARROW]).rglob("last.ckpt")))
    documented = re.findall(
        r"```yaml\n(class_path: touchstone.attacks.Transfer\n.*?)```", (root / "docs/attacks.md").read_text(), re.S
    )
    transfer = yaml.safe_load(documented[0])
    transfer["init_args"]["source"]["init_args"]["net"]["init_args"]["width"] = 8
    transfer["init_args"]["source"]["init_args"]["checkpoint"] = trained
    entry = {
        "class_path": "touchstone.callbacks.RobustAccuracy",
        "init_args": {"attacks": {"transfer": transfer}, "num_images": 0},
    }
    (tmp_path / "transfer.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [entry]}}))
    options = [NARROW, "--config", "transfer.yaml", "--ckpt_path", trained]
    assert train.main(["test", *given(digits), *options]) == 0
    newest = max(tmp_path.rglob("verdicts.npz"), key=lambda path: path.stat().st_mtime)
    with np.load(newest) as verdicts:
        assert (verdicts["robust_transfer"] == verdicts["robust_pgd"]).all()
    assert not json.loads((newest.parent / "report.json").read_text())["attacks"]["transfer"]["num_forwards"]
