"""`RobustAccuracy` in a real Trainer: the same figures everywhere, under every tag, in the report."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from touchstone.attacks import FGSM, PGD, Linf, Targeted, evaluate
from touchstone.attacks.judge import halving
from touchstone.callbacks import GradientNorm, RobustAccuracy

from .lightning_programs import OrdinaryModule, events, samples, train_loader, trainer, val_loader, weights
from .measured_runs import ATTACKS, LINF, Confidence, Pooling

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these


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
    watched = fit("watched", RobustAccuracy(ATTACKS, num_images=2), GradientNorm(), Confidence())
    assert all(torch.equal(alone[key], watched[key]) for key in alone)
    assert any(not torch.equal(alone[key], value) for key, value in weights(OrdinaryModule()).items())


def test_the_same_report_in_fit_validate_test_and_without_lightning(tmp_path: Path) -> None:
    module = OrdinaryModule()
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]

    def verdicts(run: pl.Trainer) -> dict[str, np.ndarray]:
        return dict(np.load(Path(run.log_dir) / "verdicts.npz"))  # type: ignore[arg-type]

    runs = {}
    for stage in ("validate", "test"):
        run = trainer(tmp_path / stage, RobustAccuracy(ATTACKS, batch_size=7, num_images=0))
        getattr(run, stage)(module, val_loader(), verbose=False)
        runs[stage] = verdicts(run)
    plain = evaluate(module, x, y, ATTACKS)
    for stage, stored in runs.items():
        assert stored["sample_id"].tolist() == list(range(23)), stage
        assert np.array_equal(stored["clean_prediction"], plain.clean_prediction.numpy())
        for name in ATTACKS:
            assert np.array_equal(stored[f"robust_{name}"], plain.robust[name].numpy()), (stage, name)
            assert plain.robust[name].sum() > 0

    run = trainer(tmp_path / "fit", RobustAccuracy(ATTACKS, batch_size=7, num_images=0), max_epochs=1)
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
        shown = seen.Images(f"attack/{name}")[-1]
        kept = Path(run.log_dir) / "figures" / f"attack_{name}.png"  # type: ignore[arg-type]
        assert shown.encoded_image_string == kept.read_bytes()
        with Image.open(kept) as picture:
            assert picture.size == (shown.width, shown.height)
    texts = set(seen.Tags()["tensors"])
    assert {"val/warnings/text_summary", "test/warnings/text_summary", "custom_scalars__config__"} <= texts


def test_the_report_holds_what_the_tags_say(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, num_images=0))
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
    run = trainer(
        tmp_path, RobustAccuracy({"clean_accuracy": ATTACKS["pgd"], "num_samples": ATTACKS["pgd"]}, num_images=0)
    )
    run.test(OrdinaryModule(), val_loader(), verbose=False)
    report = json.loads((Path(run.log_dir) / "report.json").read_text())  # type: ignore[arg-type]
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    for label, of_class in report["per_class"].items():
        rows = stored["label"] == int(label)
        assert of_class["num_samples"] == rows.sum()
        assert of_class["clean_accuracy"] == (stored["clean_prediction"][rows] == int(label)).mean()
        assert of_class["robust_accuracy"]["num_samples"] == stored["robust_num_samples"][rows].mean()


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


def test_what_the_judge_has_seen_is_in_the_report(tmp_path: Path) -> None:
    class Restless(OrdinaryModule):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + 0.1 * torch.rand(1)

    run = trainer(tmp_path, RobustAccuracy({"noise": ATTACKS["noise"]}, batch_size=10, num_images=0))
    run.validate(Restless(), val_loader(), verbose=False)
    warnings = json.loads((Path(run.log_dir) / "report.json").read_text())["warnings"]  # type: ignore[arg-type]
    assert [warning for warning in warnings if "gives another answer when it is asked again" in warning]


@pytest.mark.parametrize("batch_size", [4, 23])
def test_an_attack_that_pools_sees_all_samples_at_once(tmp_path: Path, batch_size: int) -> None:
    module = OrdinaryModule()
    suite = {"mean": Pooling(threat=LINF)}
    run = trainer(tmp_path, RobustAccuracy(suite, batch_size=batch_size, num_images=0))
    run.validate(module, val_loader(4), verbose=False)
    plain = evaluate(module, *samples(23, seed=2).tensors, suite)
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    assert stored["robust_mean"].tolist() == plain.robust["mean"].tolist()
    assert 0 < plain.robust["mean"].sum() < 23


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_samples": 0}, r"RobustAccuracy\(max_samples=...\) must be >= 1"),
        ({"every_n_epochs": 0}, r"RobustAccuracy\(every_n_epochs=...\) must be >= 1"),
        ({"batch_size": 0}, r"RobustAccuracy\(batch_size=...\) must be >= 1"),
        ({"num_images": -1}, r"RobustAccuracy\(num_images=...\) must be >= 0"),
        ({"batch_size": 2.5}, r"RobustAccuracy\(batch_size=...\) must be a whole number >= 1, got 2.5"),
        ({"seed": True}, r"RobustAccuracy\(seed=...\) must be a whole number, got True"),
        ({"seed": "a"}, r"RobustAccuracy\(seed=...\) must be a whole number, got 'a'"),
        ({"batch_keys": ["image"]}, r"RobustAccuracy\(batch_keys=...\) must be two keys.*, got \['image'\]"),
        ({"batch_keys": "xy"}, r"RobustAccuracy\(batch_keys=...\) must be two keys, \(images, labels\), got 'xy'"),
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
