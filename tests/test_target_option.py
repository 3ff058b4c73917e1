"""`--target` reaches the callbacks that aim at a class."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "logger": {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": "logs", "name": "aimed", "default_hp_metric": False},
        },
        "callbacks": [
            {
                "class_path": "touchstone.callbacks.TargetedPictures",
                "init_args": {
                    "target": "tench",
                    "attacks": {
                        "ascent": {
                            "class_path": "touchstone.attacks.PGD",
                            "init_args": {
                                "threat": {"class_path": "touchstone.attacks.L2", "init_args": {"eps": 9}},
                                "num_steps": 3,
                            },
                        }
                    },
                    "feature_layers": ["features.0"],
                },
            },
            {"class_path": "touchstone.callbacks.NamedPredictions", "init_args": {"labelled": False}},
        ],
    },
    "model": {
        "class_path": "touchstone.lightning_modules.Classifier",
        "init_args": {
            "net": {
                "class_path": "touchstone.nets.SmallCNN",
                "init_args": {"num_classes": 1000, "in_channels": 3, "width": 4, "hidden": 8, "image_size": 16},
            }
        },
    },
    "data": {
        "class_path": "touchstone.datamodules.PicturesDataModule",
        "init_args": {"root": "a.png", "image_size": 16, "resize": 16},
    },
    "return_predictions": False,
}


def written(config: dict[str, Any]) -> str:
    Image.new("RGB", (20, 20), (200, 120, 40)).save("a.png")
    Path("aimed.yaml").write_text(yaml.safe_dump(config))
    return "aimed.yaml"


def test_the_class_is_named_by_one_short_option(run: Any) -> None:
    ended = run("predict", "--config", written(CONFIG), "--target", "tiger cat")
    assert ended.code == 0, ended.err
    assert "pictures are now tiger cat; on average L2" in ended.out
    saved = yaml.safe_load(next(Path().rglob("config.yaml")).read_text())
    assert saved["trainer"]["callbacks"][0]["init_args"]["target"] == "tiger cat"
    with next(Path().rglob("targeted.csv")).open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["feature_distance"]) > 0
    assert 0 < float(row["probability_before"]) < 0.1


def test_a_number_in_a_config_is_decimal_as_in_the_names_of_picture_files(run: Any) -> None:
    name = written(CONFIG)
    Path(name).write_text(Path(name).read_text().replace("target: tench", "target: 010"))
    Path("more.yaml").write_text("target: 076\ntrainer: {max_time: 00:12:30:00, precision: 32, max_steps: 0x10}\n")
    ended = run("predict", "--config", name, "--config", "more.yaml", "--model.net.width=012", "--print_config")
    assert ended.code == 0, ended.err
    shown = yaml.safe_load(ended.out)
    assert shown["target"] == 76
    assert shown["trainer"]["callbacks"][0]["init_args"]["target"] == "010"  # by which `class_by_name` finds class 10
    assert (shown["trainer"]["max_time"], shown["trainer"]["max_steps"]) == ("00:12:30:00", 16)
    assert shown["model"]["init_args"]["net"]["init_args"]["width"] == 12


def test_a_name_that_fits_several_classes_lists_them(run: Any) -> None:
    ended = run("predict", "--config", written(CONFIG), "--target", "shark")
    assert ended.code != 0
    assert ended.code == 2
    listed = "error: --target must be one class, 'shark' fits 2: great white shark (2), tiger shark (3)"
    assert listed in ended.err.splitlines()
    assert not list(Path().rglob("events.*"))  # nothing was begun


def test_a_config_without_a_target_says_so(run: Any) -> None:
    callbacks = CONFIG["trainer"]["callbacks"][1:]
    config = written({**CONFIG, "trainer": {**CONFIG["trainer"], "callbacks": callbacks}})
    ended = run("predict", "--config", config, "--target", "76")
    assert ended.code == 2
    assert "--target is for a config with a callback that has one" in ended.first_line
