"""Batches as other people have them: lists and dicts, several shapes, every precision and type of label."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from touchstone.attacks import PGD, Linf, evaluate
from touchstone.callbacks import GradientNorm, InputGradients, RobustAccuracy
from touchstone.callbacks.parts.passes.samples import SampleStream

from .lightning_programs import OrdinaryModule, trainer, val_loader
from .measured_runs import ATTACKS, LINF, Confidence, Mapped, Pooling, robust_of

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these


def test_batches_that_are_lists_or_dicts(tmp_path: Path) -> None:
    module = OrdinaryModule()
    plain = trainer(tmp_path / "plain", RobustAccuracy(ATTACKS, num_images=0))
    plain.validate(module, val_loader(), verbose=False)
    named = trainer(tmp_path / "named", RobustAccuracy(ATTACKS, batch_keys=("image", "label"), num_images=0))
    named.validate(module, DataLoader(Mapped(lambda x, y: {"image": x, "label": y}), 10), verbose=False)
    assert robust_of(named) == robust_of(plain)


class FromDomain(NamedTuple):
    """A sample as sets of several domains give it: the label is the third."""

    image: Tensor
    domain: Tensor
    label: Tensor


def of_domain_3(x: Tensor, y: Tensor) -> FromDomain:
    return FromDomain(x, torch.tensor(3), y)


class TakesDomains(OrdinaryModule):
    def _loss(self, batch: Any) -> Tensor:
        return super()._loss((batch[0], batch[2]))


def test_of_a_named_tuple_the_keys_are_its_fields(tmp_path: Path) -> None:
    plain = trainer(tmp_path / "plain", RobustAccuracy(ATTACKS, num_images=0))
    plain.validate(OrdinaryModule(), val_loader(), verbose=False)
    named = trainer(tmp_path / "named", RobustAccuracy(ATTACKS, batch_keys=("image", "label"), num_images=0))
    named.validate(TakesDomains(), DataLoader(Mapped(of_domain_3), 10), verbose=False)
    assert robust_of(named) == robust_of(plain)


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["cat", "dog"], ["cat", "dog", "2", "3"]),  # the net has four outputs
        (np.array(["a", "b", "c", "d"]), ["a", "b", "c", "d"]),
        ({0: "cat", 3: "dog"}, ["cat", "1", "2", "dog"]),
        ({"cat": 0, "dog": 1}, ["0", "1", "2", "3"]),
        (None, ["0", "1", "2", "3"]),
    ],
)
def test_classes_that_a_data_module_does_not_name_are_called_by_their_numbers(
    tmp_path: Path, names: Any, called: list[str]
) -> None:
    class Named(pl.LightningDataModule):
        class_names = names

        def val_dataloader(self) -> DataLoader:
            return val_loader()

    run = trainer(tmp_path, RobustAccuracy({"fgsm": ATTACKS["fgsm"]}, per_class=True), InputGradients())
    run.validate(OrdinaryModule(), datamodule=Named(), verbose=False)
    labels = val_loader().dataset.tensors[1].unique().tolist()  # type: ignore[attr-defined]
    seen = {tag.rpartition("/")[2] for tag in run.callback_metrics if tag.startswith("val/robust_recall/fgsm/")}
    assert seen == {called[label] for label in labels}
    assert {path.name for path in (Path(run.log_dir) / "figures").iterdir()} == {  # type: ignore[arg-type]
        "attack_fgsm.png",
        "input_gradients.png",
    }


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed"])
def test_every_precision_of_a_trainer_is_measured(tmp_path: Path, precision: Any) -> None:
    module = OrdinaryModule()
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    expected = evaluate(module, x, y, ATTACKS)
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, num_images=0), GradientNorm(), precision=precision)
    run.validate(module, val_loader(), verbose=False)
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    for name in ATTACKS:  # rounded weights and images may differ on a sample or two
        assert abs(int(stored[f"robust_{name}"].sum()) - int(expected.robust[name].sum())) <= 2, name


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_every_whole_type_are_classes(tmp_path: Path, dtype: torch.dtype) -> None:
    class Casting(OrdinaryModule):
        def _loss(self, batch: Any) -> Tensor:
            return super()._loss((batch[0], batch[1].long()))

    found = []
    for make in (lambda x, y: (x, y), lambda x, y: (x, y.to(dtype))):
        run = trainer(tmp_path, RobustAccuracy(ATTACKS, num_images=0), GradientNorm(), Confidence())
        run.validate(Casting(), DataLoader(Mapped(make), 10), verbose=False)
        found.append({tag: float(value) for tag, value in run.callback_metrics.items()})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("module", "make", "keys", "message"),
    [
        (OrdinaryModule, lambda x, y: {"image": x, "label": y}, None, r"keys \['image', 'label'\]: say which"),
        (
            OrdinaryModule,
            lambda x, y: {"image": x, "label": y},
            ("pixels", "label"),
            "the batch has no 'pixels', its keys are",
        ),
        (TakesDomains, of_domain_3, ("image", "class"), "the batch has no 'class', its keys are .*'domain', 'label'"),
        (
            TakesDomains,
            lambda x, y: tuple(of_domain_3(x, y)),
            ("image", "label"),
            r"batch_keys=\('image', 'label'\) must be keys of a dict.*the batch is a list of 3 without names",
        ),
    ],
)
def test_a_batch_without_the_keys_that_are_given_or_due_is_an_error(
    tmp_path: Path, module: type[OrdinaryModule], make: Any, keys: Any, message: str
) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, batch_keys=keys))
    with pytest.raises(ValueError, match=message):
        run.validate(module(), DataLoader(Mapped(make), 10), verbose=False)


def test_batches_of_several_shapes_are_attacked_each_by_itself(tmp_path: Path) -> None:
    class AnySize(OrdinaryModule):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    shapes = [(6, 8), (6, 8), (8, 7), (6, 8)]
    generator = torch.Generator().manual_seed(0)
    x = [torch.rand(4, 1, *shape, generator=generator) for shape in shapes]
    module, suite = AnySize().eval(), {"pgd": PGD(threat=Linf(eps=0.8), num_steps=5)}
    y = [module(part).argmax(1) for part in x]
    expected = [
        evaluate(module, *part, suite, sample_ids=torch.arange(4 * i, 4 * i + 4)).robust["pgd"]
        for i, part in enumerate(zip(x, y, strict=True))
    ]
    loader = DataLoader(list(zip(x, y, strict=True)), batch_size=None)  # type: ignore[arg-type]
    run = trainer(tmp_path, RobustAccuracy(suite), GradientNorm(), InputGradients())
    run.validate(module, loader, verbose=False)
    assert robust_of(run) == torch.cat(expected).tolist()
    assert 0 < torch.cat(expected).sum() < 16
    assert (Path(run.log_dir) / "figures" / "attack_pgd.png").is_file()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"attack 'mean' wants.* one shape, got \(1, 6, 8\) and \(1, 8, 7\)"):
        trainer(tmp_path, RobustAccuracy({"mean": Pooling(threat=LINF)})).validate(module, loader, verbose=False)


def test_what_a_validation_step_has_brought_to_the_cpu_goes_back_to_the_model(tmp_path: Path) -> None:
    loader = val_loader()
    x, y = next(iter(loader))
    elsewhere = torch.device("meta")  # which no test needs an accelerator for
    run = trainer(tmp_path)
    for batch in ((x, y), (x.to(elsewhere), y), (x.to(elsewhere), y.to(elsewhere))):
        found = SampleStream(run, loader, 5, None).take(batch, elsewhere)
        assert found is not None
        assert {part.device for part in (found.x, found.y, found.ids)} == {elsewhere}
        assert (len(found), found.x.shape) == (5, (5, *x.shape[1:]))
