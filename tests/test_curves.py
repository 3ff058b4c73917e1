"""`RobustnessCurves`: the curves of a linear model are the exact ones, and training is what it was."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import train
from touchstone.attacks import FGSM, L2, PGD, Attack, EmbeddingBall, Linf, SampleRng, Targeted, Threat
from touchstone.callbacks import RobustnessCurves
from touchstone.callbacks.parts.records.curves_file import read_curves

from .curves_setting import LINF, PGD_20, Linear, linear_loader
from .lightning_programs import OrdinaryModule, Still, events, samples, train_loader, trainer, val_loader, weights
from .oracles import LinearModel, images
from .tokens_table import LENGTH, NUM_TOKENS, Bag

STEPS = [1, 3, 20]


def margins_and_weight(loader: DataLoader) -> tuple[np.ndarray, np.ndarray]:
    """By how much the true logit of each image is the larger one, `(80,)`, and the difference of weights, `(36,)`."""
    x, y = (part.numpy() for part in loader.dataset.tensors)  # type: ignore[attr-defined]
    weight, bias = (p.detach().numpy() for p in LinearModel(36, 2).parameters())
    logits = x.reshape(80, 36) @ weight.T + bias
    margin = logits[np.arange(80), y] - logits[np.arange(80), 1 - y]
    return margin, weight[1] - weight[0]


def curves_of(run: pl.Trainer, name: str = "curves.json") -> dict[str, Any]:
    return json.loads((Path(run.log_dir) / name).read_text())  # type: ignore[arg-type]


def test_the_curves_of_a_linear_model_are_the_exact_ones(tmp_path: Path) -> None:
    """A ball of radius eps moves the difference of two logits by eps times the dual norm of their weights."""
    loader = linear_loader()
    margin, weight = margins_and_weight(loader)
    for threat, order, eps in ((LINF, 1, [0.06, 0.11, 0.13, 0.2]), (L2(eps=0.6), 2, [0.3, 0.55, 0.65, 1.0])):
        callback = RobustnessCurves(attack=PGD(threat=threat, random_start=False), eps=eps, steps=STEPS)
        run = trainer(tmp_path / str(order), callback)
        run.validate(Linear(), loader, verbose=False)
        found, dual = curves_of(run), np.linalg.norm(weight, ord=order)
        assert found["eps"] == [0, *eps]
        exact = [float((margin > radius * dual).mean()) for radius in found["eps"]]
        assert exact[0] > exact[1] > exact[2] > exact[3] > exact[4] == 0
        assert found["accuracy_at_eps"] == pytest.approx(exact)
        assert found["steps"] == [0, *STEPS]
        inside = float((margin > threat.eps * dual).mean())  # type: ignore[operator]
        assert found["accuracy_after_steps"] == pytest.approx([exact[0], inside, inside, inside])
        losses = [np.log1p(np.exp(radius * dual - margin[margin > 0])).mean() for radius in (0, *[threat.eps] * 3)]
        assert found["loss_after_steps"] == pytest.approx(losses, rel=1e-5)
        assert (found["num_samples"], found["num_classes"], found["stage"]) == (80, 2, "val")
        assert float(run.callback_metrics[f"val/curves/eps_{eps[0]:g}"]) == pytest.approx(exact[1])
        assert float(run.callback_metrics["val/curves/steps_20"]) == pytest.approx(inside)
        assert float(run.callback_metrics["val/curves/loss_3"]) == pytest.approx(losses[1], rel=1e-5)


@dataclass(frozen=True, kw_only=True)
class Fickle(Attack):
    """Does its worst inside one eps, and nothing inside another."""

    threat: Threat

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        return FGSM(threat=self.threat).perturb(model, x, y, rng) if self.threat.eps == 0.12 else x.clone()


def test_the_eps_that_leaves_a_share_is_where_the_margins_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Half of the samples of a linear model fall where the median of the margins is reached."""
    caplog.set_level("INFO", "lightning.pytorch")
    loader = linear_loader()
    margin, weight = margins_and_weight(loader)
    reached = np.sort(margin / np.abs(weight).sum())
    eps = [float(value) for value in np.linspace(0.002, 0.12, 60)]
    attack = PGD(threat=LINF, num_steps=1, random_start=False)
    run = trainer(tmp_path, RobustnessCurves(attack=attack, eps=eps, levels=[0.5, 0.001, 0.999]))
    run.validate(Linear(), loader, verbose=False)
    found = float(run.callback_metrics["val/curves/eps_at_0.5"])
    assert reached[38] - 0.002 <= found <= reached[41] + 0.002
    assert f"50.00% of 80 samples are right inside Linf {found:.4g}" in caplog.text
    assert "fewer than 99.90% of 80 samples are right before any attack" in caplog.text
    assert "more than 0.10% of 80 samples are right inside Linf 0.12, the largest eps" in caplog.text
    assert "val/curves/eps_at_0.999" not in run.callback_metrics


def test_what_falls_inside_a_small_ball_falls_inside_a_larger_one(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustnessCurves(attack=Fickle(threat=LINF), eps=[0.15, 0.01, "12/100", 0.2]))
    run.test(Linear(), linear_loader(), verbose=False)
    found = curves_of(run)
    clean, smallest, small, *larger = found["accuracy_at_eps"]
    assert found["eps"] == [0, 0.01, 0.12, 0.15, 0.2]
    assert clean == smallest > small
    assert larger == [small, small]
    assert (found["stage"], found["steps"]) == ("test", [0])


def test_the_loss_is_that_of_a_climb_that_does_not_stop(tmp_path: Path) -> None:
    """Stopped where they fall, samples would end just beyond the boundary: at a loss near log 2."""
    for objective in (PGD_20.objective, Targeted(target="random")):
        attack = replace(PGD_20, threat=Linf(eps=0.3), objective=objective)
        run = trainer(tmp_path, RobustnessCurves(attack=attack, eps=[0.3], steps=[5, 50], max_samples=30))
        run.validate(Linear(), linear_loader(), verbose=False)
        found = curves_of(run)
        assert found["accuracy_after_steps"][1:] == [0, 0]
        assert found["loss_after_steps"][2] > 5
        assert found["num_samples"] == 30


def test_where_nothing_is_right_before_the_attack_accuracies_are_0_and_the_loss_is_no_number(tmp_path: Path) -> None:
    """Weights that are ranked by the curves are ranked there too."""
    x = images(12)
    wrong = Still().eval()(x).argmin(1)
    curves = RobustnessCurves(attack=PGD_20, eps=[0.05, 0.1], steps=[1], levels=[0.5])
    best = ModelCheckpoint(tmp_path / "best", monitor="val/curves/eps_0.1", mode="max")
    least = ModelCheckpoint(tmp_path / "least", monitor="val/curves/loss_1")
    run = trainer(tmp_path, curves, best, least, max_epochs=1, enable_checkpointing=True)
    run.fit(Still(), train_loader(), DataLoader(TensorDataset(x, wrong), 5))
    found = read_curves(run.log_dir or "", "Linf")
    assert found.accuracy_at_eps == [0.0, 0.0, 0.0]
    assert found.accuracy_after_steps == [0.0, 0.0]
    assert found.loss_after_steps == []
    assert float(run.callback_metrics["val/curves/eps_0.1"]) == 0
    assert run.callback_metrics["val/curves/loss_1"].isnan()
    assert (best.best_model_score, len(least.best_k_models)) == (0, 1)
    assert Path(run.log_dir or "", "figures", "curves.png").is_file()


def test_texts_have_the_exact_curves_of_balls_at_the_embedding(tmp_path: Path) -> None:
    """Behind it the net is linear: each vector lowers the difference of two logits by eps times its weights' length."""
    module, tokens = Linear(), torch.randint(NUM_TOKENS, (40, LENGTH), generator=torch.Generator().manual_seed(0))
    module.net = net = Bag(num_classes=2)  # type: ignore[assignment]
    logits, weight = net(tokens).detach(), net.linear.weight.detach().unflatten(1, (LENGTH, 4))
    y = logits.argmax(1)
    margin, dual = (logits[:, 0] - logits[:, 1]).abs().numpy(), float((weight[0] - weight[1]).norm(dim=1).sum())
    attack = PGD(threat=EmbeddingBall(eps=0.3), random_start=False)
    run = trainer(tmp_path, RobustnessCurves(attack=attack, eps=[0.1, 0.6], steps=STEPS))
    run.validate(module, DataLoader(TensorDataset(tokens, y), 15), verbose=False)
    found = curves_of(run)
    assert found["accuracy_at_eps"] == pytest.approx([float((margin > eps * dual).mean()) for eps in (0, 0.1, 0.6)])
    assert found["accuracy_at_eps"][1] not in (0, 1)
    assert found["loss_after_steps"] == pytest.approx(
        [np.log1p(np.exp(eps * dual - margin)).mean() for eps in (0, 0.3, 0.3, 0.3)], rel=1e-5
    )


def test_file_and_picture_lie_in_the_run_folder_and_training_is_what_it_was(tmp_path: Path) -> None:
    trained = []
    for watched in (False, True):
        pl.seed_everything(3)
        module = OrdinaryModule()
        callbacks = [RobustnessCurves(attack=PGD_20, eps=[0.1], steps=[2], every_n_epochs=2)] if watched else []
        run = trainer(tmp_path, *callbacks)
        run.fit(module, train_loader(), [val_loader(), DataLoader(samples(7, seed=5), 4)])
        trained.append(weights(module))
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])
    assert curves_of(run)["num_samples"] == 23
    assert curves_of(run, "curves_1.json")["num_samples"] == 7
    seen = events(tmp_path)
    for index in (0, 1):
        assert [image.step for image in seen.Images(f"curves/dataloader_idx_{index}")] == [9]
        assert [event.step for event in seen.Scalars(f"val/curves/eps_0.1/dataloader_idx_{index}")] == [9]
        picture = Path(run.log_dir) / f"figures/curves_dataloader_idx_{index}.png"  # type: ignore[arg-type]
        assert picture.stat().st_size > 10_000


@pytest.mark.slow
def test_the_config_draws_curves_through_the_real_entry(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(root / "configs/digits.yaml")]
    assert train.main(["fit", *config, "--trainer.max_epochs=1"]) == 0
    checkpoint = ["--ckpt_path", str(next(tmp_path.rglob("last.ckpt")))]
    config += ["--config", str(root / "configs/callbacks/curves.yaml"), "--trainer.callbacks.max_samples=20"]
    assert train.main(["validate", *config, *checkpoint]) == 0
    again = "--trainer.callbacks.compare_with=[logs/digits/version_1]"
    assert train.main(["test", *config, *checkpoint, again]) == 0
    assert train.main(["validate", *config, *checkpoint, again.replace("_1", "_7")]) == 2
    folders = [Path("logs/digits") / f"version_{number}" for number in (1, 2)]
    found = [read_curves(folder, "Linf") for folder in folders]
    assert [(run.stage, run.num_samples, run.num_classes) for run in found] == [("val", 20, 10), ("test", 20, 10)]
    assert all((folder / "figures/curves.png").stat().st_size > 10_000 for folder in folders)
