"""Every config in configs/ is parsed, built, and run for a moment through the real entry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from touchstone.nets import SmallCNN

from .command_lines import ROOT, SHORT, Fits, after_two_steps, given, slow_where
from .image_files import write_tree

CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
# Their fit of two steps takes more than a few seconds, or what they measure.
LONG = (
    "one_step_cifar10.yaml",  # as an add-on it is measured on digits
    "cifar10_robust.yaml",
    "shakespeare_lstm.yaml",
    "shakespeare_transformer.yaml",
    "tarantula.yaml",
    "tiger_cat.yaml",
    "l1_example.yaml",
    "deep_dream.yaml",
    "text_classifier.yaml",
    "text.yaml",
)


def is_fitted(config: Path) -> bool:
    """Whether it says that it trains."""
    text = config.read_text()
    return "train.py fit" in text and "train.py predict" not in text and "StandardAgainstRobust" not in text


@after_two_steps
@pytest.mark.parametrize("config", slow_where(lambda name: name in LONG, CONFIGS))
def test_config_runs(root: Path, config: str, fits: Fits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = root / "configs" / config
    skip_without_weights(path)
    if "train.py predict" in path.read_text():
        assert train.main(["predict", "--config", str(path)]) == 0
        predicted = next(tmp_path.rglob("predictions.csv")).read_text().splitlines()
        assert [Path(line.split(",")[0]).name for line in predicted[1:]] == ["china.jpg", "flower.jpg"]
        return
    if "StandardAgainstRobust" in path.read_text():
        compare_two_nets(root, path, tmp_path, monkeypatch)
        return
    options = [*files_of(root, path), *trees_for(path, tmp_path)]
    if not is_fitted(path):  # it measures what others trained
        few = ["--data.init_args.eval_batch_size=4", "--trainer.limit_test_batches=1"]
        assert train.main(["test", *given(config), *options, *few]) == 0
        assert next(tmp_path.rglob("report.json")).is_file()
        return
    first = next(fits(config, options=options).rglob("version_0"))
    names = {item.relative_to(first).as_posix() for item in first.rglob("*")}
    written = {"config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    if "RobustAccuracy" in path.read_text():
        written |= {"report.json", "verdicts.npz"}
        if "read_as" not in path.read_text() and "EmbeddingBall" not in path.read_text():  # which are no pictures
            written |= {"figures/attack_pgd.png"}
    if "LanguageModel" in path.read_text():
        written |= {"samples.txt"}
    assert written <= names


@after_two_steps
@pytest.mark.parametrize(
    "config",
    slow_where(lambda name: name != "digits.yaml", [name for name in CONFIGS if is_fitted(ROOT / "configs" / name)]),
)
def test_config_that_was_fitted_validates_tests_and_predicts(
    root: Path, config: str, fits: Fits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = root / "configs" / config
    skip_without_weights(path)
    options = [*files_of(root, path), *trees_for(path, tmp_path)]
    checkpoint = str(next(fits(config, options=options).rglob("last.ckpt")))
    for stage in ("validate", "test", "predict"):
        some = f"--trainer.limit_{'val' if stage == 'validate' else stage}_batches=2"
        assert train.main([stage, *given(config), *options, "--ckpt_path", checkpoint, some]) == 0


def skip_without_weights(config: Path) -> None:
    """Skips where the extra `imagenet` is not installed, whose weights a config reads."""
    if "EfficientNetLite0" in config.read_text():
        pytest.importorskip("efficientnet_lite_pytorch")


def compare_two_nets(root: Path, config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a config that reads the weights of two nets, of which those in logs/ are random here."""
    text = config.read_text()
    if "../shared/" in text and not (root.parent / "shared").is_dir():
        pytest.skip("it reads what is not beside the project")
    (folder / "shared").symlink_to(root.parent / "shared")
    (folder / "run").mkdir()
    monkeypatch.chdir(folder / "run")
    for file in re.findall(r"checkpoint: (logs/\S+)", text):
        Path(file).parent.mkdir(parents=True)
        torch.save(SmallCNN(width=32).state_dict(), file)
    stage = re.findall(rf"train.py (\w+) --config configs/{config.name}", text)[0]
    few = ["--data.init_args.eval_batch_size=4", f"--trainer.limit_{'val' if stage == 'validate' else stage}_batches=1"]
    assert train.main([stage, "--config", str(config), *few]) == 0
    assert next(Path().rglob("figures/standard_against_robust.png")).is_file()


def files_of(root: Path, config: Path) -> list[str]:
    """The options that name the files a config reads, wherever the test runs; skips where there are none."""
    options = []
    for key, value in _files_beside(yaml.safe_load(config.read_text())):
        files = [(root / file).resolve() for file in (value if isinstance(value, list) else [value])]
        if missing := [file for file in files if not file.is_file()]:
            pytest.skip(f"it reads {missing[0].name}, which is not beside the project")
        names = [str(file) for file in files]
        options.append(f"--{key}={json.dumps(names) if isinstance(value, list) else names[0]}")
    return options


def _files_beside(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Where a config names files in `shared/`, but for trees of images."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name != "root":
                yield from _files_beside(part, f"{key}.{name}" if key else name)
    elif str(value[0] if isinstance(value, list) and value else value).startswith("../shared/"):
        yield key, value


def trees_for(config: Path, folder: Path) -> list[str]:
    """The option that gives a config that reads a tree of images a small one."""
    if "datamodules.ImageTree" not in config.read_text():
        return []
    option = "--data.init_args.source.init_args"
    smaller = [f"{option}.size=64"] if "size: 224" in config.read_text() else []
    if "depth: 18" in config.read_text():  # a net for a GPU
        smaller = ["--data.init_args.batch_size=4", "--data.init_args.eval_batch_size=4"]
    return [f"{option}.root={write_tree(folder / 'tree', num_train=8)}", *smaller]


@pytest.mark.slow
@after_two_steps
def test_the_recipe_for_a_gpu_takes_twenty_steps(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = root / "configs/cifar10_robust.yaml"
    few = [*SHORT, "--trainer.max_epochs=2", "--trainer.limit_train_batches=10"]
    assert train.main(["fit", "--config", str(config), *trees_for(config, tmp_path), *few]) == 0
    assert torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)["global_step"] == 20


@pytest.mark.parametrize("config", CONFIGS)
def test_config_says_how_to_run_it(root: Path, config: str) -> None:
    assert f"configs/{config}" in (root / "configs" / config).read_text().split("seed_everything")[0]
