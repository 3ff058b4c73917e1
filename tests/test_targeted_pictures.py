"""Pictures that become a class of one's choice, and how the class is named."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

import train
from touchstone.attacks import PGD, AnyOf, Linf, Objective, Targeted
from touchstone.attacks.dreaming.canvas import Canvas
from touchstone.callbacks import TargetedPictures
from touchstone.callbacks.parts.names.class_by_name import class_by_name
from touchstone.cli.mistakes import UsageError
from touchstone.cli.target import check_target
from touchstone.datamodules import PicturesDataModule

from .picture_folders import Classes, NanWhereBright, needs_imagenet

NAMES = ["red", "tiger cat", "tiger shark", "tabby", "Egyptian cat"]


@pytest.mark.parametrize(("wanted", "number"), [(3, 3), ("3", 3), ("tiger cat", 1), ("Tabby", 3), ("shark", 2)])
def test_a_class_is_known_by_number_name_or_part_of_one_name(wanted: Any, number: int) -> None:
    assert class_by_name(wanted, NAMES, "f(target=...)") == number


def test_letters_are_the_same_in_any_case_and_however_they_are_encoded() -> None:
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"  # as folders are named on some machines
    for names, wanted in (
        (["Weg", "Stra\u00dfe"], "STRASSE"),
        (["tea", decomposed], composed),
        (["tea", f"a {composed} noir"], decomposed.upper()),
    ):
        assert class_by_name(wanted, names, "f(target=...)") == 1


DOUBLE = ["Cardigan", "crane", "cardigan", "Crane", "crane"]


@pytest.mark.parametrize(("wanted", "number"), [("cardigan", 2), ("Cardigan", 0), (" Crane ", 3)])
def test_a_name_in_its_own_case_comes_first(wanted: str, number: int) -> None:
    assert class_by_name(wanted, DOUBLE, "f(target=...)") == number


def test_names_of_imagenet_that_differ_in_case_are_two_classes() -> None:
    from torchvision.models import ResNet18_Weights

    names = ResNet18_Weights.DEFAULT.meta["categories"]
    assert [class_by_name(name, names, "--target") for name in ("cardigan", "Cardigan")] == [474, 264]


BIRDS = ["crane bird", "crane", "tiger", "tiger cat", "slug_black", "slug", "plate", "plates", "Bow tie", "bow"]


@pytest.mark.parametrize(
    ("wanted", "listed", "number"),
    [
        ("crane", "crane (1), crane bird (0)", 1),
        ("tiger", "tiger (2), tiger cat (3)", 2),
        ("slug", "slug (5), slug_black (4)", 5),
        ("BOW", "bow (9), Bow tie (8)", 9),
    ],
)
def test_a_name_that_is_a_word_of_another_fits_both_and_in_quotes_itself_alone(
    wanted: str, listed: str, number: int
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"'{wanted}' fits 2: {listed}; the first alone is {number} or")):
        class_by_name(wanted, BIRDS, "--target")
    assert class_by_name(f'"{wanted}"', BIRDS, "--target") == number


@pytest.mark.parametrize(("wanted", "number"), [("tiger cat", 3), ("plate", 6), ("crane bird", 0)])
def test_a_name_that_is_no_word_of_another_is_its_class(wanted: str, number: int) -> None:
    assert class_by_name(wanted, BIRDS, "--target") == number


def test_both_cranes_of_imagenet_are_listed_and_either_can_be_told() -> None:
    from torchvision.models import ResNet18_Weights

    names = ResNet18_Weights.DEFAULT.meta["categories"]
    with pytest.raises(ValueError, match=r"'crane' fits 2: crane \(517\), crane bird \(134\)"):
        class_by_name("crane", names, "--target")
    told = [class_by_name(wanted, names, "--target") for wanted in ('"crane"', "517", "crane bird", "tiger cat")]
    assert told == [517, 517, 134, 282]


@pytest.mark.parametrize(
    ("wanted", "names", "message"),
    [
        ("CARDIGAN", DOUBLE, "'CARDIGAN' fits 2: Cardigan (0), cardigan (2)"),
        ("crane", DOUBLE, "'crane' fits 2: crane (1), crane (4)"),
        ("", [str(n) + "a" for n in range(99)], "fits 99: 0a (0), 1a (1), "),
        ("", [str(n) + "a" for n in range(99)], "29a (29) and 69 more"),
        ("²", NAMES, "there is no '²'; the nearest are"),
        ("²", None, "must be a number, since the data module has no class_names, got '²'"),
        ("tiger", NAMES, r"'tiger' fits 2: tiger cat (1), tiger shark (2)"),
        ("tigre cat", NAMES, "there is no 'tigre cat'; the nearest are tiger cat"),
        (5, NAMES, "a class, 0 to 4, got 5"),
        (-1, NAMES, "got -1"),
        ("-1", NAMES, "must be a class, 0 to 4, got -1"),
        (-1, None, "must be a class number >= 0, got -1"),
        ("cat", None, "must be a number"),
    ],
)
def test_a_class_that_is_none_or_several_says_so(wanted: Any, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        class_by_name(wanted, names, "f(target=...)")


FLOWERS = sorted(str(number) for number in range(1, 103))  # as folders of numbers are sorted


@pytest.mark.parametrize("wanted", ["10", " 10 ", 10])  # a parser makes 10 of "10"
def test_a_number_that_is_the_name_of_another_class_is_refused_with_both_readings(wanted: str | int) -> None:
    message = f"is the number of the class {FLOWERS[10]!r} and the name of class 1: a name in double quotes"
    with pytest.raises(ValueError, match=re.escape(message)):
        class_by_name(wanted, FLOWERS, "--target")
    with pytest.raises(UsageError, match=re.escape(message)):
        check_target(int(wanted), SimpleNamespace(class_names=FLOWERS))


def test_a_name_in_quotes_is_nothing_else() -> None:
    assert FLOWERS.index("10") == class_by_name('"10"', FLOWERS, "--target") == 1
    assert FLOWERS.index("102") == class_by_name("102", FLOWERS, "--target")  # no class has that number
    digits = [str(number) for number in range(10)]
    for wanted in (7, "7", '"7"'):
        assert class_by_name(wanted, digits, "--target") == 7
    assert class_by_name("-1", ["-1", "0"], "--target") == class_by_name(-1, ["-1", "0"], "--target") == 0


@pytest.mark.parametrize("wanted", ['6"', '"6""'])
def test_quotes_that_belong_to_a_name_stay(wanted: str) -> None:
    assert class_by_name(wanted, ['16"', '6"'], "--target") == 1


@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_picture_becomes_the_class(tmp_path: Path, batch_size: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name, colour in (("a", (140, 120, 120)), ("b", (120, 140, 120)), ("c", (120, 120, 140))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / "in" / f"{name}.png")
    attacks = {
        "ascent": PGD(threat=Canvas(), num_steps=20, step_size=0.02, random_start=False),
        "linf": PGD(threat=Linf(eps=0.15), num_steps=10),
        "too_small": PGD(threat=Linf(eps="1/255"), num_steps=5),
    }
    data = PicturesDataModule(
        str(tmp_path / "in"), image_size=16, resize=16, batch_size=batch_size, class_names=["red", "green", "blue"]
    )
    logger = TensorBoardLogger(tmp_path, name="run", default_hp_metric=False)
    trainer = pl.Trainer(
        logger=logger,
        callbacks=[TargetedPictures("blue", attacks=attacks, num_images=2)],
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    module = Classes()
    before = module.net[2].weight.clone()
    trainer.predict(module, data)
    assert torch.equal(before, module.net[2].weight)
    with (Path(logger.log_dir) / "targeted.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert all(row["after"].startswith("blue") for row in rows if row["attack"] != "too_small")
    assert all(float(row["largest_change"]) <= 0.1501 for row in rows if row["attack"] == "linf")
    assert {Path(row["file"]).stem: row["before"].split()[0] for row in rows} == {"a": "red", "b": "green", "c": "blue"}
    already = [row for row in rows if Path(row["file"]).stem == "c"]
    assert {(row["reached"], row["largest_change"], row["l2_change"]) for row in already} == {
        ("is one already", "0.0000", "0.000")
    }
    lengths = [float(row["l2_change"]) for row in rows if row["attack"] == "linf" and row not in already]
    printed = capsys.readouterr().out
    assert f"linf: 2 of 2 pictures are now blue; on average L2 {np.mean(lengths):.2f}; 1 is one already" in printed
    assert "too_small: 0 of 2 pictures are now blue" in printed
    begun = [f"{name}: {'2 pictures' if batch_size == 8 else '1 picture'} ..." for name in attacks]
    assert [line for line in printed.splitlines() if line.endswith(" ...")] == (
        begun if batch_size == 8 else [*begun, *begun]
    )
    assert {path.name for path in Path(logger.log_dir).rglob("figures/*.png")} == {
        f"attack_{name}.png" for name in attacks
    }


def test_weights_in_bfloat16_change_pictures_as_those_in_float32_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (16, 16), (140, 120, 120)).save(tmp_path / "in" / "a.png")
    attacks = {"ascent": PGD(threat=Canvas(), num_steps=20, step_size=0.02, random_start=False)}
    went = []
    for precision in ("32-true", "bf16-true"):
        callback = TargetedPictures(2, attacks=attacks, feature_layers=["net.2"])
        run = pl.Trainer(
            logger=TensorBoardLogger(tmp_path, name="run", default_hp_metric=False), callbacks=[callback],
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", precision=precision,  # type: ignore[arg-type]
        )  # fmt: skip
        data = PicturesDataModule(str(tmp_path / "in"), image_size=16, resize=16, class_names=list("rgb"))
        run.predict(Classes(), data)
        went += callback._went["ascent"]
    assert went[0].reached
    assert went[1].reached
    assert [went[1].l2, went[1].features] == pytest.approx([went[0].l2, went[0].features], rel=0.1)


def test_a_layer_that_there_is_not_is_said_before_any_attack(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    data = PicturesDataModule(str(tmp_path), image_size=16, resize=16, class_names=["red", "green", "blue"])
    callback = TargetedPictures(2, attacks={"a": PGD(threat=Linf(eps=0.1))}, feature_layers=["net.9"])
    run = pl.Trainer(logger=False, callbacks=[callback], enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(ValueError, match=r"Pictures\(feature_layers='net.9'\) must be a layer of Classes: net.0"):
        run.predict(Classes(), data)
    assert not callback._went


@pytest.mark.parametrize(("limit", "when"), [(0.0, ""), (0.55, " after the attack a")])
def test_a_net_that_puts_out_nan_is_an_error_that_names_the_picture(tmp_path: Path, limit: float, when: str) -> None:
    """Of NaN, `argmax` says that it is the largest: the picture would count as one already, or as reached."""
    Image.new("RGB", (16, 16), (128, 128, 128)).save(tmp_path / "a.png")
    data = PicturesDataModule(str(tmp_path), image_size=16, resize=16, class_names=["red", "green", "blue"])
    attacks = {"a": PGD(threat=Linf(eps=0.1), num_steps=10, random_start=False)}
    run = pl.Trainer(
        logger=False, callbacks=[TargetedPictures(1, attacks=attacks)], enable_progress_bar=False, accelerator="cpu"
    )
    message = rf"TargetedPictures: the net puts out NaN for 1 of 1 pictures{when}, first for .*a\.png"
    with pytest.raises(ValueError, match=message):
        run.predict(NanWhereBright(limit), data, return_predictions=False)


@pytest.mark.parametrize("objective", [Targeted(1), AnyOf([1, 2])])
def test_a_class_is_not_reached_by_nan_but_beside_one_that_is_ruled_out(objective: Objective) -> None:
    logits = torch.tensor([[0.0, torch.nan, 1.0], [0.0, 2.0, torch.nan], [0.0, 2.0, -torch.inf]])
    assert objective.reached(logits, torch.tensor([0, 0, 0])).tolist() == [False, False, True]


def test_values_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one attack"):
        TargetedPictures(3, attacks={})
    with pytest.raises(ValueError, match=r"num_images=...\) must be >= 1"):
        TargetedPictures(3, attacks={"a": PGD(threat=Linf(eps=0.1))}, num_images=0)


@pytest.mark.slow
@needs_imagenet
def test_a_corgi_is_farther_from_a_tarantula_than_from_a_tiger_cat(root: Path, here: Path, shared: Path) -> None:
    """Where each picture stops as soon as the class switches: by 2.1 times in pixels, and 2.7 times in features."""
    corgi = str(shared / "data/imagenet_samples/263_Pembroke.jpg")
    changes = {}
    for config in ("tarantula", "tiger_cat"):
        path = str(root / f"configs/{config}.yaml")
        assert train.main(["predict", "--config", path, "--num_threads", "1", "--data.root", corgi]) == 0
        with next((here / "logs" / config).rglob("targeted.csv")).open() as file:
            (row,) = (row for row in csv.DictReader(file) if row["attack"] == "until_it_switches")
        assert row["reached"] == "True"
        changes[config] = [float(row[size]) for size in ("l2_change", "feature_distance", "probability_before")]
    tarantula, tiger_cat = changes["tarantula"], changes["tiger_cat"]
    print(changes)
    assert tarantula[0] > 1.3 * tiger_cat[0]
    assert tarantula[1] > 1.3 * tiger_cat[1]
    assert tarantula[2] < tiger_cat[2]
