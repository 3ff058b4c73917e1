"""`RobustAccuracy` and `Probe` in a real Trainer."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from touchstone.attacks import (
    DLR,
    FGSM,
    PGD,
    Attack,
    Linf,
    RandomNoise,
    SampleRng,
    Targeted,
    Threat,
    Untargeted,
    evaluate,
)
from touchstone.attacks.judge import halving
from touchstone.callbacks import GradientNorm, InputGradients, Probe, RobustAccuracy
from touchstone.nets import Normalize

from .lightning_programs import OrdinaryModule, events, samples, train_loader, trainer, val_loader, weights

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these
LINF = Linf(eps=0.08)
ATTACKS = {"noise": RandomNoise(threat=LINF), "pgd": PGD(threat=LINF, num_steps=5), "fgsm": FGSM(threat=LINF)}


@dataclass(frozen=True)
class Pooling(Attack):
    """Adds one image to all samples: the sign of the gradient of their mean loss."""

    threat: Threat
    pools = True

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(self.objective.gain(model(x), y).mean(), x)
        return self.threat.project(x + self.threat.eps * grad.mean(0, keepdim=True).sign(), x).detach()


class Confidence(Probe):
    """The measurement of the README."""

    def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"confidence": model(x).softmax(1).amax(1)}


class SmallRoom(OrdinaryModule):
    """On a device with room for ten samples, and for five with gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            self.tried.append(len(x))
            if len(x) > (5 if x.requires_grad else 10):
                raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_what_does_not_fit_into_memory_is_tried_once_in_a_training_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(halving, "warnings", SimpleNamespace(warn=lambda message, **_: said.append(message)))
    module, attack = SmallRoom(), RobustAccuracy(ATTACKS, num_images=0)
    trainer(tmp_path, attack, max_epochs=3, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
    assert said == [
        "a batch of 23 samples does not fit into memory: going on with 5 at a time, which changes no verdict"
    ]
    assert module.tried.count(23) == 1
    roomy = OrdinaryModule()
    roomy.load_state_dict(module.state_dict())
    assert _validated(tmp_path, module) == _validated(tmp_path, roomy)


def _validated(folder: Path, module: pl.LightningModule) -> dict[str, float]:
    run = trainer(folder, RobustAccuracy(ATTACKS, num_images=0))
    (found,) = run.validate(module, val_loader(), verbose=False)
    return {name: value for name, value in found.items() if "accuracy" in name}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("freeze_batchnorm", [False, True])
def test_probes_do_not_change_training(tmp_path: Path, accumulate: int, freeze_batchnorm: bool) -> None:
    def fit(name: str, *callbacks: pl.Callback) -> dict[str, Tensor]:
        pl.seed_everything(3)
        module = OrdinaryModule()
        if freeze_batchnorm:
            module.net[1].requires_grad_(False)
            module.net[1].register_forward_pre_hook(lambda m, args: m.eval() and None)
        trainer(
            tmp_path / name, *callbacks, accumulate_grad_batches=accumulate, val_check_interval=2, max_epochs=3
        ).fit(module, train_loader(), val_loader())
        return weights(module)

    alone = fit("alone")
    watched = fit("watched", RobustAccuracy(ATTACKS), GradientNorm(), Confidence())
    assert all(torch.equal(alone[key], watched[key]) for key in alone)
    assert any(not torch.equal(alone[key], value) for key, value in weights(OrdinaryModule()).items())


def test_the_same_report_in_fit_validate_test_and_without_lightning(tmp_path: Path) -> None:
    module = OrdinaryModule()
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]

    def verdicts(run: pl.Trainer) -> dict[str, np.ndarray]:
        return dict(np.load(Path(run.log_dir) / "verdicts.npz"))  # type: ignore[arg-type]

    runs = {}
    for stage in ("validate", "test"):
        run = trainer(tmp_path / stage, RobustAccuracy(ATTACKS, batch_size=7))
        getattr(run, stage)(module, val_loader(), verbose=False)
        runs[stage] = verdicts(run)
    plain = evaluate(module, x, y, ATTACKS)
    for stage, stored in runs.items():
        assert stored["sample_id"].tolist() == list(range(23)), stage
        assert np.array_equal(stored["clean_prediction"], plain.clean_prediction.numpy())
        for name in ATTACKS:
            assert np.array_equal(stored[f"robust_{name}"], plain.robust[name].numpy()), (stage, name)
            assert plain.robust[name].sum() > 0

    run = trainer(tmp_path / "fit", RobustAccuracy(ATTACKS, batch_size=7), max_epochs=1)
    trained = OrdinaryModule()
    run.fit(trained, train_loader(), val_loader())
    afterwards = evaluate(trained, x, y, ATTACKS)
    for name in ATTACKS:
        assert np.array_equal(verdicts(run)[f"robust_{name}"], afterwards.robust[name].numpy())


def test_every_tag_of_the_table_is_in_the_event_file(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS), GradientNorm())
    module = OrdinaryModule()
    run.fit(module, train_loader(), val_loader())
    run.test(module, val_loader(), verbose=False)
    seen = events(tmp_path)
    scalars = {"grad_norm/train/total", "grad_norm/train/net.0", "grad_norm/train/net.5", "update_ratio/net.0"}
    for stage in ("val", "test"):
        scalars |= {f"{stage}/clean_accuracy", f"{stage}/robust_accuracy/worst_case"}
        scalars |= {f"{stage}/robust_accuracy/{name}" for name in ATTACKS}
        scalars |= {f"{stage}/attack_success/{name}" for name in ATTACKS}
        scalars |= {f"grad_norm/{stage}/input", f"grad_norm/{stage}/parameters"}
    for tag in scalars:
        assert all(np.isfinite(event.value) for event in seen.Scalars(tag)), tag
    assert len(seen.Scalars("grad_norm/train/total")) == 10  # every optimizer step
    for name in ATTACKS:
        assert seen.Images(f"attack/{name}")
        assert (Path(run.log_dir) / "figures" / f"attack_{name}.png").stat().st_size > 1000  # type: ignore[arg-type]
    texts = set(seen.Tags()["tensors"])
    assert {"val/warnings/text_summary", "test/warnings/text_summary", "custom_scalars__config__"} <= texts


def test_the_report_holds_what_the_tags_say(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    run.test(OrdinaryModule(), val_loader(), verbose=False)
    report = json.loads((Path(run.log_dir) / "report.json").read_text())  # type: ignore[arg-type]
    assert {
        "stage",
        "num_samples",
        "clean_accuracy",
        "worst_case",
        "attacks",
        "per_class",
        "warnings",
        "versions",
    } <= set(report)
    assert report["stage"] == "test"
    assert report["num_samples"] == 23
    for name, figures in report["attacks"].items():
        assert figures["robust_accuracy"] == pytest.approx(float(run.callback_metrics[f"test/robust_accuracy/{name}"]))
        assert figures["ci95"][0] <= figures["robust_accuracy"] <= figures["ci95"][1]
        assert {"threat", "success", "num_forwards", "num_backwards", "seconds"} <= set(figures)
    weighted = sum(c["clean_accuracy"] * c["num_samples"] for c in report["per_class"].values()) / 23
    assert weighted == pytest.approx(report["clean_accuracy"])


def test_no_attack_can_take_the_place_of_another_figure_of_its_class(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy({"clean_accuracy": ATTACKS["pgd"], "num_samples": ATTACKS["pgd"]}))
    run.test(OrdinaryModule(), val_loader(), verbose=False)
    report = json.loads((Path(run.log_dir) / "report.json").read_text())  # type: ignore[arg-type]
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    for label, of_class in report["per_class"].items():
        rows = stored["label"] == int(label)
        assert of_class["num_samples"] == rows.sum()
        assert of_class["clean_accuracy"] == (stored["clean_prediction"][rows] == int(label)).mean()
        assert of_class["robust_accuracy"]["num_samples"] == stored["robust_num_samples"][rows].mean()


def test_several_entries_form_one_pass(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy({"fgsm": ATTACKS["fgsm"]}), RobustAccuracy({"pgd": ATTACKS["pgd"]}))
    module = OrdinaryModule()
    run.test(module, val_loader(), verbose=False)
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    plain = evaluate(module, x, y, {"fgsm": ATTACKS["fgsm"], "pgd": ATTACKS["pgd"]})
    worst = float(run.callback_metrics["test/robust_accuracy/worst_case"])
    assert worst == pytest.approx(plain.worst_case.float().mean().item())
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    assert {"robust_fgsm", "robust_pgd"} <= set(stored)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (RobustAccuracy({"pgd": ATTACKS["pgd"]}), "two RobustAccuracy entries name an attack 'pgd'"),
        (RobustAccuracy({"b": ATTACKS["pgd"]}, seed=1), r"\(seed=...\) must be the same.*first has 0, another 1"),
        (RobustAccuracy({"b": ATTACKS["pgd"]}, max_samples=5), "the first has 9, another 5"),
        (RobustAccuracy({"b": ATTACKS["pgd"]}, batch_size=5), r"\(batch_size=...\) must be the same"),
        (RobustAccuracy({"b": ATTACKS["pgd"]}, num_images=5), r"\(num_images=...\) must be the same"),
        (
            RobustAccuracy({"b": ATTACKS["pgd"]}, normalization=([0.5], [0.5])),
            r"\(normalization=...\) must be the same",
        ),
    ],
)
def test_entries_that_disagree_are_refused(tmp_path: Path, second: RobustAccuracy, message: str) -> None:
    run = trainer(tmp_path, RobustAccuracy({"pgd": ATTACKS["pgd"]}, max_samples=9), second)
    with pytest.raises(ValueError, match=message):
        run.validate(OrdinaryModule(), val_loader(), verbose=False)


@pytest.mark.parametrize("batch_size", [3, 10, 23])
def test_max_samples_takes_the_first_of_the_dataset(tmp_path: Path, batch_size: int) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, max_samples=11), Confidence(max_samples=11))
    run.validate(OrdinaryModule(), val_loader(batch_size), verbose=False)
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    assert stored["sample_id"].tolist() == list(range(11))
    x, _ = val_loader().dataset.tensors  # type: ignore[attr-defined]
    with torch.no_grad():
        expected = OrdinaryModule().eval()(x[:11]).softmax(1).amax(1).mean().item()
    assert float(run.callback_metrics["val/confidence"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled")
@pytest.mark.parametrize(
    ("probe", "warns"),
    [
        (RobustAccuracy({"fgsm": ATTACKS["fgsm"]}), True),
        (Confidence(max_samples=5), True),
        (Confidence(max_samples=23), False),
        (Confidence(), False),  # a mean over all samples has no order
        (GradientNorm(), False),
    ],
)
def test_a_loader_that_shuffles_is_warned_of_where_the_order_counts(tmp_path: Path, probe: Probe, warns: bool) -> None:
    run, loader = trainer(tmp_path, probe), DataLoader(samples(23, seed=2), 10, shuffle=True)
    with pytest.raises(UserWarning, match="numbered by their place in the pass") if warns else nullcontext():
        run.validate(OrdinaryModule(), loader, verbose=False)


@pytest.mark.parametrize(
    "collection",
    [list, lambda pair: dict(zip("ab", pair, strict=True)), lambda pair: CombinedLoader(pair, "sequential")],
    ids=["list", "dict", "CombinedLoader"],
)
def test_several_loaders_are_measured_one_by_one(tmp_path: Path, collection: Any) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    module = OrdinaryModule()
    run.validate(module, collection([val_loader(), DataLoader(samples(7, seed=5), 4)]), verbose=False)
    for index, dataset in enumerate((samples(23, seed=2), samples(7, seed=5))):
        expected = evaluate(module, *dataset.tensors, ATTACKS).robust["pgd"].float().mean().item()
        tag = f"val/robust_accuracy/pgd/dataloader_idx_{index}"
        assert float(run.callback_metrics[tag]) == pytest.approx(expected)


def test_each_loader_has_a_report_of_its_own(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, version=0, default_hp_metric=False)

    def reports(*sizes: int) -> dict[str, int]:
        run = trainer(tmp_path, RobustAccuracy(ATTACKS), logger=logger)
        run.test(OrdinaryModule(), [DataLoader(samples(size), 4) for size in sizes], verbose=False)
        folder = Path(run.log_dir)  # type: ignore[arg-type]
        lengths = {path.name: len(np.load(path)["label"]) for path in folder.glob("*.npz")}
        counted = {path.name: json.loads(path.read_text())["num_samples"] for path in folder.glob("*.json")}
        return lengths | counted

    of_two = {"report.json": 6, "verdicts.npz": 6, "report_1.json": 3, "verdicts_1.npz": 3}
    assert reports(6, 3) == of_two
    assert reports(5) == {"report.json": 5, "verdicts.npz": 5}


def test_loaders_that_are_drawn_from_at_once_are_refused(tmp_path: Path) -> None:
    class Both(OrdinaryModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            self.log("val_loss", self._loss(batch["a"]))

    loaders = CombinedLoader({"a": val_loader(), "b": val_loader()}, "max_size")
    with pytest.raises(ValueError, match=r"CombinedLoader\(mode=...\) must be 'sequential'.*, got 'max_size'"):
        trainer(tmp_path, Confidence()).validate(Both(), loaders, verbose=False)


def test_an_interrupted_pass_leaves_nothing_behind(tmp_path: Path) -> None:
    class Breaking(OrdinaryModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            if batch_idx == 2:
                raise RuntimeError("the power went")

    callbacks = RobustAccuracy(ATTACKS, batch_size=10), GradientNorm(), Confidence()
    with pytest.raises(RuntimeError, match="the power went"):
        trainer(tmp_path / "broken", *callbacks).validate(Breaking(), val_loader(), verbose=False)
    figures = []
    for name, watching in (("again", callbacks), ("fresh", (RobustAccuracy(ATTACKS), GradientNorm(), Confidence()))):
        run = trainer(tmp_path / name, *watching)
        run.validate(OrdinaryModule(), val_loader(), verbose=False)
        figures.append({tag: float(value) for tag, value in run.callback_metrics.items()})
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_an_entry_without_options_follows_the_first(tmp_path: Path) -> None:
    first = RobustAccuracy({"pgd": ATTACKS["pgd"]}, max_samples=9, seed=5, batch_size=4, normalization=([0.0], [1.0]))
    repeated = RobustAccuracy({"c": ATTACKS["noise"]}, seed=5, normalization=((0.0,), (1.0,)))
    run = trainer(tmp_path, first, RobustAccuracy({"b": ATTACKS["noise"]}), repeated)
    run.validate(OrdinaryModule(), val_loader(), verbose=False)
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    assert stored["sample_id"].tolist() == list(range(9))
    assert {"robust_pgd", "robust_b", "robust_c"} <= set(stored)


def test_what_the_judge_has_seen_is_in_the_report(tmp_path: Path) -> None:
    class Restless(OrdinaryModule):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + 0.1 * torch.rand(1)

    run = trainer(tmp_path, RobustAccuracy({"noise": ATTACKS["noise"]}, batch_size=10))
    run.validate(Restless(), val_loader(), verbose=False)
    warnings = json.loads((Path(run.log_dir) / "report.json").read_text())["warnings"]  # type: ignore[arg-type]
    assert [warning for warning in warnings if "gives another answer when it is asked again" in warning]


@pytest.mark.parametrize("batch_size", [4, 23])
def test_an_attack_that_pools_sees_all_samples_at_once(tmp_path: Path, batch_size: int) -> None:
    module = OrdinaryModule()
    suite = {"mean": Pooling(threat=LINF)}
    run = trainer(tmp_path, RobustAccuracy(suite, batch_size=batch_size))
    run.validate(module, val_loader(4), verbose=False)
    plain = evaluate(module, *samples(23, seed=2).tensors, suite)
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    assert stored["robust_mean"].tolist() == plain.robust["mean"].tolist()
    assert 0 < plain.robust["mean"].sum() < 23


# Schedules and whoever ranks weights by them.


def test_attacks_every_n_epochs(tmp_path: Path) -> None:
    trainer(tmp_path, RobustAccuracy(ATTACKS, every_n_epochs=2), max_epochs=5).fit(
        OrdinaryModule(), train_loader(), val_loader()
    )
    steps = [event.step for event in events(tmp_path).Scalars("val/robust_accuracy/pgd")]
    assert steps == [9, 19]  # five steps an epoch: after the second and the fourth


def test_a_checkpoint_that_waits_for_fresh_figures_ranks_the_right_weights(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(
        dirpath=tmp_path / "kept", monitor="val/robust_accuracy/pgd", mode="max", every_n_epochs=2, save_top_k=-1,
        filename="{epoch}", auto_insert_metric_name=True,
    )  # fmt: skip
    trainer(
        tmp_path, RobustAccuracy(ATTACKS, every_n_epochs=2), checkpoint, enable_checkpointing=True, max_epochs=5
    ).fit(OrdinaryModule(), train_loader(), val_loader())
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["epoch=1.ckpt", "epoch=3.ckpt"]


# Batches as other people have them.


class Mapped(Dataset):
    """A dataset whose samples are made by a function of (x, y)."""

    def __init__(self, make: Any) -> None:
        self.tensors, self.make = val_loader().dataset.tensors, make  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> Any:
        return self.make(self.tensors[0][index], self.tensors[1][index])


def robust_of(run: pl.Trainer) -> list[bool]:
    return np.load(Path(run.log_dir) / "verdicts.npz")["robust_pgd"].tolist()  # type: ignore[arg-type]


def test_batches_that_are_lists_or_dicts(tmp_path: Path) -> None:
    module = OrdinaryModule()
    plain = trainer(tmp_path / "plain", RobustAccuracy(ATTACKS))
    plain.validate(module, val_loader(), verbose=False)
    named = trainer(tmp_path / "named", RobustAccuracy(ATTACKS, batch_keys=("image", "label")))
    named.validate(module, DataLoader(Mapped(lambda x, y: {"image": x, "label": y}), 10), verbose=False)
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
    run = trainer(tmp_path, RobustAccuracy(ATTACKS), GradientNorm(), precision=precision)
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
        run = trainer(tmp_path, RobustAccuracy(ATTACKS), GradientNorm(), Confidence())
        run.validate(Casting(), DataLoader(Mapped(make), 10), verbose=False)
        found.append({tag: float(value) for tag, value in run.callback_metrics.items()})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("make", "keys", "message"),
    [
        (lambda x, y: {"image": x, "label": y}, None, r"keys \['image', 'label'\]: say which"),
        (lambda x, y: {"image": x, "label": y}, ("pixels", "label"), "the batch has no 'pixels', its keys are"),
    ],
)
def test_a_dict_without_its_keys_is_an_error(tmp_path: Path, make: Any, keys: Any, message: str) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, batch_keys=keys))
    with pytest.raises(ValueError, match=message):
        run.validate(OrdinaryModule(), DataLoader(Mapped(make), 10), verbose=False)


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


class Denormalizing(OrdinaryModule):
    """A module whose net expects normalized images, as most people train theirs."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x * 0.25 + 0.5)


def test_normalized_batches_are_attacked_in_pixels(tmp_path: Path) -> None:
    plain = trainer(tmp_path / "plain", RobustAccuracy(ATTACKS))
    plain.validate(OrdinaryModule(), val_loader(), verbose=False)
    callbacks = RobustAccuracy(ATTACKS, normalization=([0.5], [0.25])), GradientNorm(normalization=([0.5], [0.25]))
    normalized = trainer(tmp_path / "normalized", *callbacks)
    loader = DataLoader(Mapped(lambda x, y: (Normalize([0.5], [0.25])(x), y)), 10)
    normalized.validate(Denormalizing(), loader, verbose=False)
    assert robust_of(normalized) == robust_of(plain)


def test_pixels_with_the_option_are_an_error_that_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, normalization=([0.5], [0.25])))
    with pytest.raises(ValueError, match="they are pixels already; leave the option out"):
        run.validate(OrdinaryModule(), val_loader(), verbose=False)


@pytest.mark.parametrize("place", [0, 20])
def test_a_bright_picture_alone_in_its_batch_may_be_normalized(tmp_path: Path, place: int) -> None:
    x, y = samples(21, seed=2).tensors
    x = x.clone()
    x[place] = 0.5 + 0.25 * x[place]  # normalized it lies in [0, 1], as pixels do
    sizes = [1, 20] if place == 0 else [20, 1]

    def loader(make: Any) -> DataLoader:
        parts = list(zip(make(x).split(sizes), y.split(sizes), strict=True))
        return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]

    plain = trainer(tmp_path / "plain", RobustAccuracy(ATTACKS))
    plain.validate(OrdinaryModule(), loader(lambda x: x), verbose=False)
    normalized = trainer(tmp_path / "normalized", RobustAccuracy(ATTACKS, normalization=([0.5], [0.25])))
    normalized.validate(Denormalizing(), loader(Normalize([0.5], [0.25])), verbose=False)
    assert robust_of(normalized) == robust_of(plain)


def test_pixels_of_a_second_loader_are_told_from_the_normalized_ones_of_the_first(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, normalization=([0.5], [0.25])))
    first = DataLoader(Mapped(lambda x, y: (Normalize([0.5], [0.25])(x), y)), 10)
    with pytest.raises(ValueError, match="they are pixels already; leave the option out"):
        run.validate(Denormalizing(), [first, val_loader(4)], verbose=False)


def test_normalized_batches_without_the_option_are_an_error_that_names_it(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    loader = DataLoader(Mapped(lambda x, y: (Normalize([0.5], [0.25])(x), y)), 10)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\].*`normalization=\(mean, std\)`"):
        run.validate(Denormalizing(), loader, verbose=False)


def test_a_normalization_that_does_not_fit_is_an_error_that_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, normalization=([0.1], [0.5])))
    loader = DataLoader(Mapped(lambda x, y: (Normalize([0.5], [0.25])(x), y)), 10)
    message = r"RobustAccuracy\(normalization=...\) must be the mean.*got \(\(0.1,\), .* and values from -0.7"
    with pytest.raises(ValueError, match=message):
        run.validate(Denormalizing(), loader, verbose=False)


def wrong_batches(make: Any) -> DataLoader:
    return DataLoader(Mapped(make), 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, y: (255 * x, y), r"attack 'noise': images must lie in \[0, 1\]"),
        (lambda x, y: ((255 * x).byte(), y), "images must be floating point, got torch.uint8"),
        (lambda x, y: (x, y + 4), "labels must be classes of the model, 0 to 3"),
        (lambda x, y: (x, y.float()), "labels must be class numbers, int64"),
    ],
)
def test_what_is_wrong_with_the_samples_is_said_before_training(tmp_path: Path, make: Any, message: str) -> None:
    class Lenient(OrdinaryModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.net(batch[0].float())

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise AssertionError("trained on")

    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    with pytest.raises(ValueError, match=message):
        run.fit(Lenient(), train_loader(), wrong_batches(make))


def test_logits_that_are_not_finite_are_said_with_the_positions_of_their_batch(tmp_path: Path) -> None:
    class Breaking(OrdinaryModule):
        def forward(self, x: Tensor) -> Tensor:
            broken = (x == val_loader().dataset.tensors[0][[18, 20]][:, None]).flatten(2).all(2).any(0)  # type: ignore[attr-defined]
            return self.net(x).masked_fill(broken[:, None], torch.nan)

    run = trainer(tmp_path, RobustAccuracy(ATTACKS, batch_size=10))
    with pytest.raises(ValueError, match=r"for 1 of 10 samples \(.* of samples 10 to 19, first sample id 18\)"):
        run.validate(Breaking(), val_loader(10), verbose=False)


def test_without_a_sanity_check_the_first_training_batch_is_looked_at(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS), num_sanity_val_steps=0)
    message = r"could not attack the training samples, nor any that are like them: attack 'noise': images must lie in"
    with pytest.raises(UserWarning, match=message):  # made an error
        run.fit(OrdinaryModule(), wrong_batches(lambda x, y: (255 * x, y)), val_loader())


@pytest.mark.parametrize("num_sanity_val_steps", [0, 1])
@pytest.mark.parametrize(
    ("function", "objective", "message"),
    [
        (lambda logits: logits, Targeted(target=12), r"attack 'pgd': Targeted\(target=12\): the model has 4 classes"),
        (lambda logits: logits[:, :2], Untargeted(loss=DLR()), r"attack 'pgd': DLR\(\) needs a model of 3 classes"),
        (lambda logits: (logits, logits), Untargeted(), "it returned a tuple: wrap it"),
        (lambda logits: logits[:, :1], Untargeted(), r"logits of shape \(\d+, classes\) with 2 classes or more, got"),
        (lambda logits: logits.softmax(1), Untargeted(), "probabilities where logits are due"),
    ],
)
def test_what_is_wrong_with_the_output_is_said_before_the_second_step(
    tmp_path: Path, function: Any, objective: Any, message: str, num_sanity_val_steps: int
) -> None:
    class Module(OrdinaryModule):
        def forward(self, x: Tensor) -> Any:
            return function(self.net(x))

        def _loss(self, batch: Any) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

    attack = PGD(threat=LINF, objective=objective)
    few = DataLoader(TensorDataset(*(part % 2 for part in samples(40).tensors)), 8)  # of two classes
    measuring = RobustAccuracy({"pgd": attack}, every_n_epochs=3)
    run = trainer(tmp_path, measuring, num_sanity_val_steps=num_sanity_val_steps, max_epochs=3)
    with pytest.raises(ValueError, match=message):
        run.fit(Module(), few, few)
    assert run.global_step == 1 - num_sanity_val_steps


def test_training_batches_of_another_kind_are_none_of_its_business(tmp_path: Path) -> None:
    class Unlabelled(OrdinaryModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.net(batch["views"]).square().mean()

    run = trainer(tmp_path, RobustAccuracy(ATTACKS), num_sanity_val_steps=0, max_epochs=1)
    run.fit(Unlabelled(), wrong_batches(lambda x, y: {"views": 3 * x}), val_loader())


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
def test_a_fit_without_validation_samples_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS), max_epochs=1)
    with pytest.raises(UserWarning, match="RobustAccuracy will measure nothing: the validation has no samples"):
        run.fit(OrdinaryModule(), train_loader(), DataLoader(samples(0), 4))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_fit_without_a_validation_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, GradientNorm(), RobustAccuracy(ATTACKS), max_epochs=1)
    with pytest.raises(UserWarning, match="^RobustAccuracy will measure nothing: the training has no validation: give"):
        run.fit(OrdinaryModule(), train_loader())
    trainer(tmp_path, GradientNorm(), max_epochs=1).fit(OrdinaryModule(), train_loader())  # it measures the training
    switched_off = trainer(tmp_path, RobustAccuracy(ATTACKS), max_epochs=1, limit_val_batches=0)
    switched_off.fit(OrdinaryModule(), train_loader(), val_loader())


@pytest.mark.parametrize(
    ("every_n_epochs", "options", "reason"),
    [
        (3, {}, "that it measures is that of epoch 3, and the training has 2"),
        (2, {"check_val_every_n_epoch": 3, "max_epochs": 5}, "that of epoch 6, and the training has 5"),
        (2, {"check_val_every_n_epoch": 3, "max_epochs": 6}, None),
        (3, {"fast_dev_run": True}, None),
        (3, {"max_epochs": -1, "max_steps": 2}, None),
    ],
)
def test_a_fit_that_ends_before_the_first_measurement_says_so(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    every_n_epochs: int,
    options: dict[str, Any],
    reason: str | None,
) -> None:
    run = trainer(tmp_path, GradientNorm(), RobustAccuracy(ATTACKS, every_n_epochs=every_n_epochs), **options)
    with caplog.at_level("INFO"):
        run.fit(OrdinaryModule(), train_loader(), val_loader())
    said = [record.message for record in caplog.records if "will measure nothing" in record.message]
    assert len(said) == (reason is not None)
    assert not said or (said[0].startswith("RobustAccuracy will measure nothing in this fit: ") and reason in said[0])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "fitting", "epochs"),
    [
        ({}, {"max_epochs": 12}, [1, 5, 10, 12]),
        ({"every_n_epochs": 2}, {"max_epochs": 5}, [2, 4]),
        ({"every_n_epochs": 3}, {"max_epochs": 14}, [3, 6, 12]),
        ({"every_n_epochs": 2}, {"max_epochs": 9, "check_val_every_n_epoch": 3}, [6]),
        ({"images_every_n_epochs": 2}, {"max_epochs": 5}, [1, 2, 4, 5]),
        ({"images_every_n_epochs": 99}, {"max_epochs": -1, "max_steps": 15}, [1]),
    ],
)
def test_pictures_are_drawn_at_the_first_and_the_last_measurement(
    tmp_path: Path, options: dict[str, Any], fitting: dict[str, Any], epochs: list[int]
) -> None:
    measuring = RobustAccuracy({"fgsm": ATTACKS["fgsm"]}, num_images=1, **options)
    trainer(tmp_path, measuring, **fitting).fit(OrdinaryModule(), train_loader(), val_loader())
    assert [image.step for image in events(tmp_path).Images("attack/fgsm")] == [5 * epoch for epoch in epochs]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_samples": 0}, r"RobustAccuracy\(max_samples=...\) must be >= 1"),
        ({"every_n_epochs": 0}, r"RobustAccuracy\(every_n_epochs=...\) must be >= 1"),
        ({"batch_size": 0}, r"RobustAccuracy\(batch_size=...\) must be >= 1"),
        ({"num_images": -1}, r"RobustAccuracy\(num_images=...\) must be >= 0"),
        ({"normalization": ([0.5], [0.0])}, r"Normalize\(std=...\) must be > 0"),
        ({"attacks": {}}, "must name at least one attack"),
        ({"attacks": {"a b": ATTACKS["pgd"]}}, "an attack's name must be"),
        (
            {"attacks": {"a": FGSM(threat=Linf(eps=torch.rand(23)))}},
            r"attack 'a' must hold for every sample.*Linf\(eps=...\)",
        ),
        (
            {"attacks": {"a": PGD(threat=LINF, objective=Targeted(target=torch.zeros(23, dtype=torch.int64)))}},
            r"attack 'a' must hold for every sample.*Targeted\(target=...\)",
        ),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RobustAccuracy(**{"attacks": ATTACKS, **options})


def test_a_measurement_of_the_wrong_shape_names_itself(tmp_path: Path) -> None:
    class Mean(Probe):
        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"mean": x.mean()}

    with pytest.raises(ValueError, match=r"Mean.measure: 'mean' must have one value per sample, \(10,\), got \(\)"):
        trainer(tmp_path, Mean()).validate(OrdinaryModule(), val_loader(), verbose=False)


def test_a_measurement_whose_names_change_names_itself(tmp_path: Path) -> None:
    class Changing(Probe):
        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"full" if len(x) == 10 else "rest": x.flatten(1).mean(1)}

    message = r"Changing.measure: it must have the same names.*got \['full'\] and then \['rest'\]"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, Changing()).validate(OrdinaryModule(), val_loader(10), verbose=False)


def test_two_callbacks_that_log_one_tag_are_an_error(tmp_path: Path) -> None:
    """Lightning would log the mean of both."""
    run = trainer(tmp_path, GradientNorm(max_samples=1), GradientNorm(max_samples=20))
    with pytest.raises(ValueError, match="two callbacks, GradientNorm and GradientNorm, log 'grad_norm/val/input'"):
        run.validate(OrdinaryModule(), val_loader(), verbose=False)


def test_callbacks_with_tags_of_their_own_may_be_of_one_class(tmp_path: Path) -> None:
    class Named(Confidence):
        def __init__(self, name: str, **options: Any) -> None:
            super().__init__(**options)
            self.name = name

        def measure(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {self.name: super().measure(model, x, y)["confidence"]}

    run = trainer(tmp_path, Named("all"), Named("few", max_samples=1), max_epochs=3, val_check_interval=2)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    run.validate(OrdinaryModule(), val_loader(), verbose=False)
    run.validate(OrdinaryModule(), val_loader(), verbose=False)
    assert run.callback_metrics["val/all"] != run.callback_metrics["val/few"]


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
def test_an_empty_dataset_is_an_error_that_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    with pytest.raises(ValueError, match="measured nothing: the validation has no samples"):
        run.validate(OrdinaryModule(), DataLoader(samples(0), 4), verbose=False)
