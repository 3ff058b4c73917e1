"""What the documents show of one's own attacks, threats, objectives, strategies and pictures: it does what they say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from touchstone.attacks import L0, L1, L2, PGD, Linf, RandomNoise, SampleRng, Targeted, evaluate, smallest_eps
from touchstone.lightning_modules import AWP, Classifier

from .command_lines import NARROW
from .lightning_programs import seen_tags, train_loader, trainer, val_loader
from .oracles import images, own_labels, small_net


def own(name: str, kind: str, **options: Any) -> Any:
    return getattr(importlib.import_module(name), kind)(**options)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5), L1(eps=2.5), L0(eps=3)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.usefixtures("folder")
def test_an_attack_of_one_s_own_turns_more_than_noise_in_every_ball(threat: Any, dtype: torch.dtype) -> None:
    net, x = small_net().to(dtype), images(40).to(dtype)
    nesterov = own("nesterov", "Nesterov", threat=threat)
    y = own_labels(net, x)
    report = evaluate(net, x, y, attacks={"nesterov": nesterov, "noise": RandomNoise(threat=threat)})
    assert report.success["nesterov"].sum() > report.success["noise"].sum()


@pytest.mark.usefixtures("folder")
def test_its_restarts_keep_what_one_start_has_turned() -> None:
    net, x = small_net(), images(60)
    y, options = own_labels(net, x), {"threat": Linf(eps=0.05), "objective": Targeted("random"), "num_steps": 3}
    attacks = {str(n): own("nesterov", "Nesterov", num_restarts=n, **options) for n in (1, 6)}
    success = evaluate(net, x, y, attacks=attacks).success
    assert not bool((success["1"] & ~success["6"]).any())
    assert success["6"].sum() > success["1"].sum()


@pytest.mark.usefixtures("folder")
def test_it_takes_an_eps_of_each_sample() -> None:
    net, x = small_net(), images(20)
    eps = smallest_eps(net, x, own_labels(net, x), own("nesterov", "Nesterov", threat=Linf(eps=1)), largest=0.5)
    assert 0 < float(eps[eps.isfinite()].mean()) < 0.5


@pytest.mark.usefixtures("folder")
def test_a_threat_of_one_s_own_projects_to_the_nearest_point() -> None:
    threat, x = own("blocks", "Blocks", eps=0.1), images(8)
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    nearest = threat.project(far, x)
    assert threat.contains(nearest, x).all()
    assert torch.allclose(threat.project(nearest, x), nearest, atol=1e-6)
    for seed in range(20):
        other = threat.start(x, SampleRng.numbered(8, seed=seed))
        assert threat.contains(other, x).all()
        assert ((far - nearest) * (other - nearest)).flatten(1).sum(1).max() < 1e-4  # as of any convex set
    assert not threat.contains(x + 0.2 * (x < 0.5), x).any()


@pytest.mark.usefixtures("folder")
def test_an_objective_of_one_s_own_is_reached_as_it_says() -> None:
    net, x = small_net().eval(), images(40)
    attack = PGD(threat=own("blocks", "Blocks", eps=0.3, side=3), objective=own("unsure", "Unsure", share=0.6))
    report = evaluate(net, x, own_labels(net, x), attacks={"unsure": attack}, keep_adversarial=True)
    probability = net(report.x_adv["unsure"]).softmax(1).amax(1)
    assert report.success["unsure"].any()
    assert torch.equal(report.success["unsure"], report.clean_correct & (probability < 0.6))


def test_all_of_them_stand_in_one_config(folder: Path) -> None:
    import train

    command = ["fit", "--config", "configs/digits.yaml", "--config", "unsure.yaml", NARROW, "--trainer.max_epochs=1"]
    assert train.main(command) == 0
    assert {"robust_nesterov_to_7", "robust_blocks"} <= set(np.load(next(folder.rglob("verdicts.npz"))))
    assert {"attack/nesterov_to_7", "val/attack_success/blocks"} <= seen_tags(folder)


@pytest.mark.usefixtures("folder")
def test_the_penalty_of_a_linear_net_is_its_closed_form() -> None:
    x, y = images(6, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0])
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2)).double()
    learned = own("penalty", "GradientPenalty", weight=0.3).learn(net, x, y, F.cross_entropy, SampleRng.numbered(6))
    logits, weight = net(x), net[1].weight
    wrong = logits.softmax(1)[torch.arange(6), 1 - y]  # of two classes: (1 - p) times the difference of their weights
    penalty = (wrong**2).mean() * (weight[0] - weight[1]).square().sum()
    assert torch.allclose(learned.loss, F.cross_entropy(logits, y) + 0.3 * penalty)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("inside_awp", [False, True])
@pytest.mark.parametrize("kind", ["GradientPenalty", "ALP"])
def test_a_strategy_of_one_s_own_trains_a_classifier(tmp_path: Path, kind: str, inside_awp: bool) -> None:
    attack = own("nesterov", "Nesterov", threat=Linf(eps=0.1), num_steps=2)
    strategy = own("penalty", kind) if kind == "GradientPenalty" else own("pairing", kind, attack=attack)
    before = small_net()
    module = Classifier(small_net(), strategy=AWP(strategy, gamma=0.01) if inside_awp else strategy)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module, train_loader(), val_loader())
    assert run.callback_metrics["train/loss"].isfinite()
    assert not torch.equal(module.net[0].weight, before[0].weight)


def test_pictures_of_one_s_own_are_learnt_by_a_config_alone(folder: Path) -> None:
    import train

    for name, colour in (("dark", 40), ("light", 200)):
        (folder / "my_pictures" / name).mkdir(parents=True)
        for number in range(20):
            size = (20, 16 + number % 3)
            Image.new("RGB", size, (colour, colour, number)).save(folder / "my_pictures" / name / f"{number}.png")
    command = ["fit", "--config", "configs/digits.yaml", "--config", "my_pictures.yaml"]
    small = ["--data.source.size=8", "--data.batch_size=8", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1"]
    assert train.main([*command, *small]) == 0
    report = json.loads(next(folder.rglob("report.json")).read_text())
    assert len(report["per_class"]) == 2
