"""Every config in configs/ is parsed, built, and run for a moment through the real entry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import train
from touchstone.nets import SmallCNN

from .image_files import write_tree

CONFIGS = sorted(path.name for path in (Path(__file__).parent.parent / "configs").glob("*.yaml"))
ADD_ONS = sorted(path.name for path in (Path(__file__).parent.parent / "configs/callbacks").glob("*.yaml"))
STRATEGIES = sorted(path.stem for path in (Path(__file__).parent.parent / "configs/strategies").glob("*.yaml"))
SHORT = [
    "--trainer.log_every_n_steps=1",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
]
after_two_steps = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # of training, PGD may well be beaten


LONG = (
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

LONG_ADD_ONS = ("gallery.yaml", "curves.yaml", "health.yaml", "black_box.yaml", "deep_dream.yaml", "strongest.yaml")


@after_two_steps
@pytest.mark.parametrize(
    "config", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in CONFIGS]
)
def test_config_fits_validates_tests_and_predicts(
    root: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = root / "configs" / config
    if "EfficientNetLite0" in path.read_text():
        pytest.importorskip("efficientnet_lite_pytorch")
    if "train.py predict" in path.read_text():
        assert train.main(["predict", "--config", str(path)]) == 0
        predicted = next(tmp_path.rglob("predictions.csv")).read_text().splitlines()
        assert [Path(line.split(",")[0]).name for line in predicted[1:]] == ["china.jpg", "flower.jpg"]
        return
    if "StandardAgainstRobust" in path.read_text():
        compare_two_nets(root, path, tmp_path, monkeypatch)
        return
    options = ["--config", str(path), *files_of(root, path), *trees_for(path, tmp_path)]
    if "train.py fit" not in path.read_text():  # it measures what others trained
        few = ["--data.init_args.eval_batch_size=4", "--trainer.limit_test_batches=1"]
        assert train.main(["test", *options, *few]) == 0
        assert next(tmp_path.rglob("report.json")).is_file()
        return
    assert train.main(["fit", *options, *SHORT]) == 0
    checkpoint = str(next(tmp_path.rglob("last.ckpt")))
    for stage in ("validate", "test", "predict"):
        some = f"--trainer.limit_{'val' if stage == 'validate' else stage}_batches=2"
        assert train.main([stage, *options, "--ckpt_path", checkpoint, some]) == 0
    first = next(tmp_path.rglob("version_0"))
    names = {item.relative_to(first).as_posix() for item in first.rglob("*")}
    written = {"config.yaml", "checkpoints/best.ckpt"}
    if "RobustAccuracy" in path.read_text():
        written |= {"report.json", "verdicts.npz"}
        if "as_signals" not in path.read_text() and "EmbeddingBall" not in path.read_text():  # which are no pictures
            written |= {"figures/attack_pgd.png"}
    if "LanguageModel" in path.read_text():
        written |= {"samples.txt"}
    assert written <= names


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
    for key, given in _files_beside(yaml.safe_load(config.read_text())):
        files = [(root / file).resolve() for file in (given if isinstance(given, list) else [given])]
        if missing := [file for file in files if not file.is_file()]:
            pytest.skip(f"it reads {missing[0].name}, which is not beside the project")
        names = [str(file) for file in files]
        options.append(f"--{key}={json.dumps(names) if isinstance(given, list) else names[0]}")
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


@after_two_steps
@pytest.mark.parametrize(
    "add_on", [pytest.param(name, marks=pytest.mark.slow) if name == "black_box.yaml" else name for name in ADD_ONS]
)
def test_add_on_is_appended_to_a_run(root: Path, add_on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [str(root / "configs/digits.yaml"), str(root / "configs/callbacks" / add_on)]
    assert train.main(["fit", "--config", configs[0], "--config", configs[1], *SHORT]) == 0
    saved = yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())
    assert len(saved["trainer"]["callbacks"]) > len(
        yaml.safe_load(Path(configs[0]).read_text())["trainer"]["callbacks"]
    )
    asked = [(call["class_path"], set(call["init_args"].get("attacks", {}))) for call in saved["trainer"]["callbacks"]]
    attacks = set().union(*(names for path, names in asked if path.endswith("RobustAccuracy")))
    assert set(json.loads(next(tmp_path.rglob("report.json")).read_text())["attacks"]) == attacks
    assert train.main(["test", "--config", configs[0], "--config", configs[1], "--trainer.limit_test_batches=1"]) == 0


@after_two_steps
@pytest.mark.parametrize(
    "name",
    [n if n in ("trades", "free", "fgsm_rs", "ema") else pytest.param(n, marks=pytest.mark.slow) for n in STRATEGIES],
)
def test_another_way_to_learn_is_one_more_config(
    root: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [str(root / f"configs/{part}.yaml") for part in ("digits_robust", f"strategies/{name}")]
    no_pictures = "--trainer.callbacks=touchstone.callbacks.GradientNorm"
    assert train.main(["fit", "--config", configs[0], no_pictures, "--config", configs[1], *SHORT]) == 0
    saved = yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())
    asked = Path(configs[1]).read_text()
    model = yaml.safe_load(asked).get("model", yaml.safe_load(Path(configs[0]).read_text())["model"])
    learned = saved["model"]["init_args"]["strategy"]["class_path"]
    assert learned == model["init_args"]["strategy"]["class_path"]
    for kind in ("CatastrophicOverfitting", "EMAWeightAveraging"):
        assert (kind in asked) == (kind in str(saved["trainer"]["callbacks"]))
    assert asked.splitlines()[1].endswith(f"configs/strategies/{name}.yaml")


@after_two_steps
@pytest.mark.parametrize(
    "add_on",
    [pytest.param(name, marks=pytest.mark.slow) if name in LONG_ADD_ONS else name for name in ADD_ONS],
)
def test_add_on_does_not_change_training(
    root: Path, add_on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the net of an attack draws random numbers before the model does."""
    trained = []
    for folder, configs in (("alone", ["digits.yaml"]), ("watched", ["digits.yaml", f"callbacks/{add_on}"])):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        options = [option for config in configs for option in ("--config", str(root / "configs" / config))]
        assert train.main(["fit", *options, *SHORT]) == 0
        stored = torch.load(next((tmp_path / folder).rglob("last.ckpt")), weights_only=True)
        trained.append(stored["state_dict"])
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


@pytest.mark.parametrize("config", CONFIGS)
def test_config_says_how_to_run_it(root: Path, config: str) -> None:
    assert f"configs/{config}" in (root / "configs" / config).read_text().split("seed_everything")[0]


@after_two_steps
def test_a_transfer_in_a_config_takes_the_weights_of_another_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The YAML of docs/attacks.md, from a net that is the model itself: it does what the attack does."""
    monkeypatch.chdir(tmp_path)
    digits = ["--config", str(root / "configs/digits.yaml")]
    assert train.main(["fit", *digits, *SHORT]) == 0
    trained = str(next(tmp_path.rglob("last.ckpt")))
    documented = re.findall(
        r"```yaml\n(class_path: touchstone.attacks.Transfer\n.*?)```", (root / "docs/attacks.md").read_text(), re.S
    )
    transfer = yaml.safe_load(documented[0])
    transfer["init_args"]["source"]["init_args"]["net"]["init_args"]["width"] = 32
    transfer["init_args"]["source"]["init_args"]["checkpoint"] = trained
    entry = {"class_path": "touchstone.callbacks.RobustAccuracy", "init_args": {"attacks": {"transfer": transfer}}}
    (tmp_path / "transfer.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [entry]}}))
    assert train.main(["test", *digits, "--config", "transfer.yaml", "--ckpt_path", trained]) == 0
    newest = max(tmp_path.rglob("verdicts.npz"), key=lambda path: path.stat().st_mtime)
    verdicts = np.load(newest)
    assert (verdicts["robust_transfer"] == verdicts["robust_pgd"]).all()
    assert not json.loads((newest.parent / "report.json").read_text())["attacks"]["transfer"]["num_forwards"]
