"""The least visible change: what is kept of the search, and what is said of it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

import train
from touchstone.attacks import L1Adam, Linf, SampleRng, Targeted
from touchstone.callbacks import LeastVisible
from touchstone.callbacks import least_visible as module_under_test
from touchstone.callbacks.parts.measures.change_size import ChangeSize
from touchstone.callbacks.parts.measures.price_search import price_search
from touchstone.callbacks.parts.pictures.attack_picture import Attacked, attack_picture
from touchstone.datamodules import PicturesDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import TorchvisionNet

from .oracles import images, own_labels, small_net
from .picture_folders import Classes, NanWhereBright, needs_imagenet

ATTACK = L1Adam(threat=Linf(eps=1), step_size=0.01, num_steps=60, penalty=0.1)


def some(dtype: torch.dtype = torch.float32) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    net, x = small_net(seed=7, dtype=dtype).eval(), images(6, seed=1, dtype=dtype)
    y = own_labels(net, x)
    return net, x, y, (y + 1) % 4


def test_a_price_for_each_sample_is_what_each_would_get_alone() -> None:
    net, x, y, target = some(torch.float64)
    prices = torch.linspace(0, 0.5, 6, dtype=torch.float64)
    together = L1Adam(threat=Linf(eps=1), penalty=prices, objective=Targeted(target))(net, x, y)
    for row in range(6):
        attack = L1Adam(threat=Linf(eps=1), penalty=float(prices[row]), objective=Targeted(int(target[row])))
        assert torch.allclose(together[row : row + 1], attack(net, x[row : row + 1], y[row : row + 1]), atol=1e-5)
    with pytest.raises(ValueError, match="for every sample"):
        L1Adam(threat=Linf(eps=1), penalty=torch.tensor([1.0, -1.0]))


@pytest.mark.slow
def test_the_search_finds_about_the_smallest_change_of_a_fine_grid_of_prices() -> None:
    net, x, y, target = some()
    found = price_search(ATTACK.with_objective(Targeted(target)), net, x, y, SampleRng.numbered(6), 8)
    assert (net(found.x_adv).argmax(1) == target).all()
    size = np.abs((found.x_adv - x).numpy()).sum((1, 2, 3))
    on_grid = np.full((60, 6), np.inf)
    for row, price in enumerate(np.geomspace(0.01, 30, 60)):
        attack = L1Adam(threat=Linf(eps=1), step_size=0.01, num_steps=60, penalty=price, objective=Targeted(target))
        x_adv = attack(net, x, y)
        reached = (net(x_adv).argmax(1) == target).numpy()
        on_grid[row, reached] = np.abs((x_adv - x).numpy()).sum((1, 2, 3))[reached]
    assert (size <= 1.1 * on_grid.min(0)).all()
    assert size.sum() < 0.9 * on_grid[0].sum()  # and the search was worth it
    one = price_search(ATTACK.with_objective(Targeted(target)), net, x, y, SampleRng.numbered(6), 1)
    assert torch.equal(one.alpha, torch.full((6,), 0.1))


def test_where_nothing_is_found_the_last_try_is_left() -> None:
    net, x, y, _ = some()
    impossible = Targeted(y)  # what a sample is it cannot be turned into
    found = price_search(ATTACK.with_objective(impossible), net, x, y, SampleRng.numbered(6), 3)
    assert torch.allclose(found.alpha, torch.full((6,), 0.1 / 4))
    assert not torch.equal(found.x_adv, x)


def test_the_size_of_a_change_is_that_of_numpy() -> None:
    change = torch.tensor([0.5, -0.25, 0.001, 0.0, 0.003])
    size = ChangeSize.of(change)
    assert size.l1 == pytest.approx(np.abs(change.numpy()).sum())
    assert size.l2 == pytest.approx(np.sqrt((change.numpy() ** 2).sum()))
    assert (size.largest, size.unchanged) == (0.5, pytest.approx(0.4))  # 0.001 is a quarter of a grey level


def test_every_picture_meets_every_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name, colour in (("a", (140, 120, 120)), ("b", (120, 140, 120)), ("c", (120, 120, 140))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / "in" / f"{name}.png")
    data = PicturesDataModule(
        str(tmp_path / "in"), image_size=16, resize=16, batch_size=1, class_names=["red", "green", "blue"]
    )
    logger = TensorBoardLogger(tmp_path, name="run", default_hp_metric=False)
    callback = LeastVisible(["blue", "green"], attack=replace(ATTACK, penalty=0.001), num_rounds=2, num_pictures=2)
    trainer = pl.Trainer(
        logger=logger, callbacks=[callback], enable_progress_bar=False, enable_model_summary=False, accelerator="cpu"
    )
    trainer.predict(Classes(), data)
    with (Path(logger.log_dir) / "least_visible.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [(Path(row["file"]).stem, row["target"], row["reached"]) for row in rows]
    pairs = [("a", "blue", "True"), ("a", "green", "True"), ("b", "blue", "True"), ("b", "green", "is one already")]
    assert found == pairs
    assert (rows[3]["alpha"], rows[3]["l1"], rows[3]["unchanged"]) == ("", "0.0", "1.0000")
    assert all(row["after"].startswith(row["target"]) for row in rows)
    printed = capsys.readouterr().out
    assert "3 of 3 reached" in printed
    assert "least_visible: 3 pictures ...\na.png to blue: " in printed
    assert "b.png to green: is one already, L1 0" in printed
    assert (Path(logger.log_dir) / "figures/attack_least_visible.png").is_file()


@pytest.mark.parametrize(("penalty", "is_reached"), [(400.0, False), (0.001, True)])
def test_where_even_the_last_alpha_fails_it_says_what_to_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], penalty: float, is_reached: bool
) -> None:
    Image.new("RGB", (40, 40), (140, 120, 120)).save(tmp_path / "a.png")
    data = PicturesDataModule(str(tmp_path / "a.png"), image_size=16, resize=16, class_names=["red", "green", "blue"])
    run = pl.Trainer(
        logger=False, callbacks=[LeastVisible(["blue"], attack=replace(ATTACK, penalty=penalty), num_rounds=3)],
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    run.predict(Classes(), data)
    printed = capsys.readouterr().out
    hint = "1 not reached at the last alpha, 100: try more num_rounds, each of which halves it, or more num_steps"
    assert (hint in printed) is not is_reached
    assert ("not reached" in printed) is not is_reached


def test_weights_in_bfloat16_are_led_about_as_far_as_those_in_float32(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 40), (140, 120, 120)).save(tmp_path / "in" / "a.png")
    lengths = []
    for number, precision in enumerate(("32-true", "bf16-true")):
        data = PicturesDataModule(str(tmp_path / "in"), image_size=16, resize=16, class_names=["red", "green", "blue"])
        trainer = pl.Trainer(
            logger=TensorBoardLogger(tmp_path, name="run", version=number, default_hp_metric=False),
            callbacks=[LeastVisible(["blue"], attack=replace(ATTACK, penalty=0.001), num_rounds=2)],
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", precision=precision,  # type: ignore[arg-type]
        )  # fmt: skip
        trainer.predict(Classes(), data)
        with (tmp_path / f"run/version_{number}/least_visible.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert row["reached"] == "True"
        lengths.append(float(row["l1"]))
    assert lengths[1] == pytest.approx(lengths[0], rel=0.5)  # logits are steps there


def test_a_net_that_puts_out_nan_is_an_error_that_names_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (140, 120, 120)).save(tmp_path / "a.png")
    for value, when in ((0.0, ""), (0.55, " after the attack")):  # the mean of the picture is 0.5
        data = PicturesDataModule(str(tmp_path), image_size=16, resize=16, class_names=["red", "green", "blue"])
        callback = LeastVisible(["green"], attack=replace(ATTACK, penalty=0.001), num_rounds=2)
        run = pl.Trainer(logger=False, callbacks=[callback], enable_progress_bar=False, accelerator="cpu")
        message = rf"LeastVisible: the net puts out NaN for 1 of 1 pictures{when}, first for .*a\.png"
        with pytest.raises(ValueError, match=message):
            run.predict(NanWhereBright(value), data, return_predictions=False)


def test_a_class_that_the_net_does_not_have_is_said_at_the_first_batch(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (40, 40), (140, 120, 120)).save(tmp_path / f"{name}.png")
    data = PicturesDataModule(str(tmp_path), image_size=16, resize=16, batch_size=1, class_names=None)
    callback = LeastVisible([1, 7], attack=ATTACK)
    trainer = pl.Trainer(
        logger=False, callbacks=[callback], enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        enable_checkpointing=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"LeastVisible\(targets=...\) must be classes, 0 to 2, got 7"):
        trainer.predict(Classes(), data)
    assert not callback._taken


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": []}, "a list of classes, at least one"),
        ({"targets": "cat"}, "a list of classes, at least one, got 'cat'"),
        ({"num_rounds": 0}, r"num_rounds=...\) must be >= 1, got 0"),
        ({"num_pictures": 0}, r"num_pictures=...\) must be >= 1, got 0"),
        ({"attack": L1Adam(threat=Linf(eps=1), penalty=0)}, "a penalty > 0, got 0"),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LeastVisible(**{"targets": [1], "attack": ATTACK, **options})


@pytest.mark.slow
@needs_imagenet
@pytest.mark.timeout(600)
def test_the_example_reaches_five_of_six_and_leaves_most_of_five_alone(root: Path, here: Path) -> None:
    assert train.main(["predict", "--config", str(root / "configs/l1_example.yaml")]) == 0
    with next(here.rglob("least_visible.csv")).open() as file:
        rows = list(csv.DictReader(file))
    reached = [row for row in rows if row["reached"] == "True"]
    assert len(rows) == 6
    assert len(reached) >= 5
    assert all(row["after"].startswith(row["target"]) for row in reached)
    assert sum(float(row["unchanged"]) > 0.5 for row in reached) >= 5  # the search ends elsewhere on every processor
    assert all(float(row["l2"]) < 2 for row in reached)


@pytest.mark.slow
def test_what_is_said_to_be_reached_on_alexnet_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured anew, on the pictures that are drawn; with random weights, towards the classes next to the first."""
    drawn: list[Attacked] = []

    def watching(attacked: Attacked, **options: Any) -> Any:
        drawn.append(attacked)
        return attack_picture(attacked, **options)

    monkeypatch.setattr(module_under_test, "attack_picture", watching)
    torch.manual_seed(0)
    net = TorchvisionNet("alexnet", weights=None).eval()
    data = PicturesDataModule()
    x = next(iter(data.predict_dataloader()))[0]
    with torch.no_grad():
        targets = net(x).mean(0).topk(3).indices.tolist()
    attack = L1Adam(threat=Linf(eps=1), step_size=0.01, num_steps=20, penalty=1e-5)
    run = pl.Trainer(
        logger=TensorBoardLogger(tmp_path, name="run", default_hp_metric=False),
        callbacks=[LeastVisible(targets, attack=attack, num_rounds=3)],
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    run.predict(Classifier(net), data, return_predictions=False)
    with next(tmp_path.rglob("least_visible.csv")).open() as file:
        reached = np.array([row["reached"] == "True" for row in csv.DictReader(file)])
    with torch.no_grad():
        is_now = (net(drawn[0].after).argmax(1) == drawn[0].target).numpy()
    assert reached.any()
    assert is_now[reached].all()
    assert not torch.equal(drawn[0].after, drawn[0].before)
