"""`DeepDream`: what it shows, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import dream
from touchstone.callbacks import DeepDream, deep_dream
from touchstone.callbacks.parts.pictures.dream_picture import Dreamt, dream_picture
from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN

from .lightning_programs import OrdinaryModule, events, train_loader, trainer, val_loader, weights

LAYERS = ["net.0", "0:3", "5:2"]
SHORT = {"num_steps": 5}


class Predicting(OrdinaryModule):
    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])


@pytest.mark.parametrize("start", ["noise", "images"])
def test_dreams_do_not_change_training(tmp_path: Path, start: Any) -> None:
    def fit(name: str, *callbacks: pl.Callback) -> dict[str, Tensor]:
        pl.seed_everything(3)
        module = OrdinaryModule()
        module.net[1].requires_grad_(False)
        trainer(tmp_path / name, *callbacks, accumulate_grad_batches=3, val_check_interval=2, max_epochs=2).fit(
            module, train_loader(), val_loader()
        )
        assert not any(m._forward_hooks for m in module.net.modules())
        return weights(module)

    alone = fit("alone")
    watched = fit("watched", DeepDream(LAYERS, start=start, options={**SHORT, "jitter": 1}))
    assert all(torch.equal(alone[key], watched[key]) for key in alone)


def test_a_picture_for_each_layer_is_in_tensorboard_and_in_the_run_folder(tmp_path: Path) -> None:
    probe = DeepDream(LAYERS, num_pictures=3, options=SHORT)
    trainer(tmp_path, probe).fit(OrdinaryModule(), train_loader(), val_loader())
    found = events(tmp_path)
    assert {f"deepdream/{layer}" for layer in LAYERS} <= set(found.Tags()["images"])
    assert len(found.Images("deepdream/net.0")) == 2  # one for each validation; the sanity check has none
    files = {path.name for path in tmp_path.rglob("figures/*.png")}
    assert {"deepdream_net.0.png", "deepdream_0_3.png", "deepdream_5_2.png"} <= files
    for dreamt in probe._dreamt:
        assert dreamt.result.shape == (3, 1, 6, 6)
        assert (dreamt.value > dreamt.value_at_start).all()


class WithNames(pl.LightningDataModule):
    class_names = ("zero", "one", "two", "three")

    def predict_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.rand(2, 1, 6, 6), torch.zeros(2)), batch_size=2)


@pytest.mark.parametrize("data", [WithNames(), None])
def test_the_title_of_a_unit_of_the_last_layer_names_its_class(
    tmp_path: Path, data: WithNames | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = {}
    monkeypatch.setattr(deep_dream, "publish_picture", lambda t, f, tag, figure: titles.update({tag: figure}))
    layers, options = ["net.0:3", "5:2", "5", ":1"], {"num_steps": 1}
    run = trainer(tmp_path, DeepDream(layers, options=options))
    run.predict(Predicting(), data or WithNames().predict_dataloader(), return_predictions=False)
    said = {tag.removeprefix("deepdream/"): figure.get_suptitle() for tag, figure in titles.items()}
    assert said["net.0:3"] == "what net.0:3 responds to"
    assert said["5"] == "what 5 responds to"
    assert said["5:2"] == "what 5:2 responds to" + ("\nclass two" if data else "")
    assert said[":1"] == "what :1 responds to" + ("\nclass one" if data else "")


class OfItsBeginning(pl.LightningModule):
    """Predicts by its first layer, at a size that its head does not take; of its four channels none is a class."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).flatten(1))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.first(batch[0])


def test_a_channel_is_dreamt_of_and_no_class_where_the_whole_net_would_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    monkeypatch.setattr(deep_dream, "publish_picture", lambda t, f, tag, figure: titles.append(figure.get_suptitle()))
    run = trainer(tmp_path, DeepDream(["first:1"], options={"num_steps": 1}))
    run.predict(OfItsBeginning(), WithNames(), return_predictions=False)
    assert titles == ["what first:1 responds to"]


@pytest.mark.parametrize("num_pictures", [1, 3])
def test_a_title_is_no_wider_than_its_picture(num_pictures: int) -> None:
    pictures, values = torch.rand(num_pictures, 3, 8, 8), torch.ones(num_pictures)
    name = "American Staffordshire terrier, MMM " * 4 + "whipped_cream_with_mushrooms" * 3
    figure = dream_picture(Dreamt("fc:76", pictures, pictures, values, values, class_name=name))
    FigureCanvasAgg(figure).draw()
    assert figure._suptitle is not None  # type: ignore[attr-defined]
    box = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert box.y1 <= figure.bbox.height
    assert "Staffordshire" in figure.get_suptitle()


def test_parts_of_one_layer_share_a_pass_and_come_in_the_order_of_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, layers, calls = OrdinaryModule(), ["5:2", "net.0", "5:0", "net.0:1"], []
    alone = {layer: dream(module, layer, (2, 1, 6, 6), num_steps=5) for layer in layers}
    monkeypatch.setattr(
        deep_dream,
        "dream",
        lambda model, layers, *rest, **options: calls.append(layers) or dream(model, layers, *rest, **options),
    )
    probe = DeepDream(layers, options=SHORT)
    trainer(tmp_path, probe).validate(module, val_loader())
    assert [dreamt.layer for dreamt in probe._dreamt] == layers
    assert all(torch.allclose(dreamt.result, alone[dreamt.layer], atol=1e-5) for dreamt in probe._dreamt)
    assert calls == [["5:2", "5:0"], ["net.0", "net.0:1"]]


def test_two_of_the_same_layer_are_told_apart_by_a_name(tmp_path: Path) -> None:
    twice = [DeepDream(["net.0", "5:2"], options=SHORT), DeepDream(["5:2"], start="images", options=SHORT)]
    with pytest.raises(ValueError, match=r"both DeepDream, write the picture 'deepdream/5:2', .*DeepDream\(name=...\)"):
        trainer(tmp_path, *twice).validate(OrdinaryModule(), val_loader())
    twice[1] = DeepDream(["5:2"], start="images", name="of images", options=SHORT)
    trainer(tmp_path, *twice).validate(OrdinaryModule(), val_loader())
    assert {"deepdream/5:2", "deepdream/5:2/of images"} <= set(events(tmp_path).Tags()["images"])
    assert len(list(tmp_path.rglob("deepdream_5_2.png"))) == 1
    assert len(list(tmp_path.rglob("deepdream_5_2_of_images_*.png"))) == 1


def test_two_tags_of_one_file_are_refused(tmp_path: Path) -> None:
    both = [DeepDream(["5:2"], options=SHORT), DeepDream(["5"], name="2", options=SHORT)]
    with pytest.raises(ValueError, match=r"write the picture 'deepdream/5:2', of which one would be lost"):
        trainer(tmp_path, *both).validate(OrdinaryModule(), val_loader())


def test_a_wrong_unit_is_said_before_anything_is_predicted(tmp_path: Path) -> None:
    module = Predicting()
    predicted: list[int] = []
    module.predict_step = lambda batch, batch_idx: predicted.append(batch_idx)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"layer='5:9'\): .*so that there is no 9"):
        trainer(tmp_path, DeepDream(["net.0", "5:9"], options=SHORT)).predict(module, val_loader())
    assert not predicted


def test_it_begins_from_the_first_images(tmp_path: Path) -> None:
    probe, loader = DeepDream(["net.0"], start="images", num_pictures=2, options=SHORT), val_loader()
    trainer(tmp_path, probe).validate(OrdinaryModule(), loader)
    assert torch.equal(probe._dreamt[0].start, loader.dataset.tensors[0][:2])


def test_predict_dreams_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probe, loader = DeepDream(["net.0"], start="images", num_pictures=2, options=SHORT), val_loader()
    trainer(tmp_path, probe).predict(Predicting(), loader)
    assert "deepdream/net.0: 2 pictures ...\n" in capsys.readouterr().out
    assert torch.equal(probe._dreamt[0].start, loader.dataset.tensors[0][:2])
    assert (probe._dreamt[0].value > probe._dreamt[0].value_at_start).all()
    assert "deepdream/net.0" in events(tmp_path).Tags()["images"]


def test_every_n_epochs(tmp_path: Path) -> None:
    probe = DeepDream(["net.0"], options=SHORT, every_n_epochs=2)
    trainer(tmp_path, probe, max_epochs=5).fit(OrdinaryModule(), train_loader(), val_loader())
    assert len(events(tmp_path).Images("deepdream/net.0")) == 2


@pytest.mark.parametrize("num_sanity_steps", [0, 2])
@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("net.9", {}, r"layers='net.9'\) must be a layer of OrdinaryModule: net.0"),
        ("5:9", {}, r"layer='5:9'\): the output of 'net.5' for one sample has the shape .*no 9"),
        ("5:2,0", {}, "so that there is no 2, 0"),
    ],
)
def test_what_cannot_be_dreamt_is_said_before_training(
    tmp_path: Path, layer: str, options: dict[str, Any], message: str, num_sanity_steps: int
) -> None:
    module = OrdinaryModule()
    before = weights(module)
    run = trainer(tmp_path, DeepDream([layer], options=options), num_sanity_val_steps=num_sanity_steps)
    with pytest.raises(ValueError, match=message):
        run.fit(module, train_loader(), val_loader())
    assert all(torch.equal(before[key], value) for key, value in weights(module).items())


def test_octaves_that_the_net_does_not_take_are_said_before_training(tmp_path: Path) -> None:
    module = Classifier(SmallCNN(image_size=16, num_classes=3))
    before = weights(module)
    batches = DataLoader(TensorDataset(torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 2, 0])), batch_size=2)
    run = trainer(tmp_path, DeepDream(["classifier.3:2"], options={"num_octaves": 2}), num_sanity_val_steps=0)
    with pytest.raises(ValueError, match=r"num_octaves=...\): Classifier does not take the octave of 11 x 11 pixels"):
        run.fit(module, batches, batches)
    assert all(torch.equal(before[key], value) for key, value in weights(module).items())


def test_batches_that_are_only_for_training_are_trained_on(tmp_path: Path) -> None:
    class Texts(OrdinaryModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.net(torch.ones(1, 1, 6, 6)).sum()

    run = trainer(tmp_path, DeepDream(["net.0"], options=SHORT), num_sanity_val_steps=0)
    run.fit(Texts(), DataLoader(["one", "two"]), val_loader())
    assert len(events(tmp_path).Images("deepdream/net.0")) == run.max_epochs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": []}, "at least one"),
        ({"layers": "net.0"}, "a list of different layers"),
        ({"layers": [4]}, r"a list of different layers, at least one, got \[4\]"),
        ({"layers": ["a", "a"]}, "a list of different layers"),
        ({"layers": ["a"], "num_pictures": 0}, ">= 1"),
        ({"layers": ["a"], "start": "nose"}, "'noise', 'images', got 'nose'; did you mean 'noise'"),
        ({"layers": ["a"], "options": {"jiter": 1}}, "options of dream: jitter, .*got 'jiter'"),
        ({"layers": ["a"], "options": {"step_size": -1}}, r"\(options=...\): dream\(step_size=.*> 0 .*got -1"),
        ({"layers": ["a"], "options": {"objective": "logit"}}, "'l2', 'mean', got 'logit'; a class's logit .*fc:76"),
        ({"layers": ["a"], "options": {"smoothing": 1, "decorrelated": True}}, "no neighbours to smooth over"),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepDream(**options)


def test_the_values_stand_above_their_pictures() -> None:
    start = torch.rand(2, 3, 8, 8)
    figure = dream_picture(Dreamt("fc:76", start, 1 - start, torch.tensor([1.5, 2.5]), torch.tensor([10.0, 20.0])))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["start: 1.5", "start: 2.5", "result: 10", "result: 20"]


def test_normalized_pictures_that_are_shown_once_count_once(tmp_path: Path) -> None:
    """Four bright ones prove nothing, and no more are there, though they are looked at before and after the batch."""
    bright = DataLoader(TensorDataset(0.7 + 0.2 * torch.rand(4, 1, 6, 6), torch.zeros(4)), batch_size=4)
    probe = DeepDream(["net.0"], num_pictures=4, normalization=([0.5], [0.25]), options=SHORT)
    trainer(tmp_path, probe).predict(Predicting(), bright)
    assert len(probe._dreamt[0].start) == 4
