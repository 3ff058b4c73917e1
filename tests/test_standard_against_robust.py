"""Two nets side by side: what is measured of them, and that measuring changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from touchstone.attacks import L2, PGD, Targeted
from touchstone.callbacks import StandardAgainstRobust
from touchstone.callbacks import standard_against_robust as module_under_test
from touchstone.callbacks.parts.measures.low_frequency import low_frequency_share, share_of_white_noise
from touchstone.callbacks.parts.pictures.side_by_side import side_by_side
from touchstone.nets import Normalized, PublicCheckpoint, ResNet2b

from .lightning_programs import OrdinaryModule, events, train_loader, trainer, val_loader, weights
from .oracles import small_net
from .public_models import cifar_images

ASCENT = PGD(threat=L2(eps=1.5), num_steps=5, random_start=True, to_the_end=True)
TAGS = {f"val/low_frequency/{net}/{kind}" for net in ("own", "other") for kind in ("ascent", "dream", "gradient")}


def comparison(**options: Any) -> StandardAgainstRobust:
    layers = {"own": "net.0", "other": "0"}
    given = {"attack": ASCENT, "target": 2, "layers": layers, "name": "own", "options": {"num_steps": 3}, **options}
    return StandardAgainstRobust({"other": small_net(seed=5)}, **given)


@pytest.mark.parametrize(("cycles", "share"), [((0, 0), 1), ((2, 0), 1), ((0, 3), 1), ((0, 5), 0), ((3, 3), 0)])
def test_a_wave_is_low_or_not_by_the_length_of_its_frequency(cycles: tuple[int, int], share: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    wave = torch.cos(2 * torch.pi * (cycles[0] * rows + cycles[1] * columns) / 16)[None, None]
    assert low_frequency_share(1e-25 * wave, 0.25).item() == pytest.approx(share, abs=1e-5)


def test_the_share_is_that_of_a_fourier_sum_written_out() -> None:
    change = np.random.default_rng(0).normal(size=(2, 3, 6, 5))
    at = {}
    for u in range(6):
        for v in range(5):
            phase = np.exp(-2j * np.pi * (u * np.arange(6)[:, None] / 6 + v * np.arange(5) / 5))
            at[min(u, 6 - u) / 6, min(v, 5 - v) / 5, u, v] = np.abs((change * phase).sum((2, 3))) ** 2
    low = sum(energy for (f, g, _, _), energy in at.items() if f * f + g * g <= 0.3**2).sum(1)
    whole = 30 * (change**2).sum((1, 2, 3))  # Parseval
    assert np.allclose(low_frequency_share(torch.tensor(change), 0.3), low / whole)


def test_noise_has_the_share_that_is_said_of_it_and_nothing_is_no_share() -> None:
    noise = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert share_of_white_noise(8, 8, 0.25) == 13 / 64  # k * k + l * l <= 4 for whole numbers, in eighths
    assert float(low_frequency_share(noise, 0.25).mean()) == pytest.approx(13 / 64, abs=0.01)
    nothing, broken = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), torch.nan)
    assert low_frequency_share(torch.cat([nothing, nothing + 1, broken]), 0.25).tolist() == [
        pytest.approx(torch.nan, nan_ok=True), 1, torch.inf,
    ]  # fmt: skip


def test_a_sample_that_is_the_class_already_has_no_part_in_the_mean(tmp_path: Path) -> None:
    """Against the shares of those that moved, one by one."""
    module, attack = OrdinaryModule().eval(), PGD(threat=L2(eps=1.0), num_steps=3, random_start=False)
    x, y = val_loader().dataset.tensors
    with torch.no_grad():
        module.net[-1].bias[2] += (module(x).max(1).values - module(x)[:, 2]).median()
        is_one = (module(x).argmax(1) == 2) & (y != 2)
    assert 0 < int(is_one.sum()) < len(x)
    run = trainer(tmp_path, comparison(attack=attack))
    run.validate(module, val_loader(), verbose=False)
    moved = attack.with_objective(Targeted(2))(module.eval(), x[~is_one], y[~is_one]) - x[~is_one]
    expected = float(low_frequency_share(moved, 0.25).mean())
    assert float(run.callback_metrics["val/low_frequency/own/ascent"]) == pytest.approx(expected, abs=1e-5)


def test_where_no_sample_moves_there_is_no_mean(tmp_path: Path) -> None:
    module = OrdinaryModule()
    module.net[-1].bias.data[2] = 1e6
    run = trainer(tmp_path, comparison(attack=replace(ASCENT, random_start=False, to_the_end=False)))
    run.validate(module, val_loader(), verbose=False)
    found = {tag for tag in run.callback_metrics if "low_frequency/own" in tag}
    assert found == {"val/low_frequency/own/dream", "val/low_frequency/own/gradient"}


@pytest.mark.parametrize(("size", "cutoff", "cycles"), [(20, 0.1, 2), (30, 0.3, 9), (40, 0.2, 8), (10, 0.1, 1)])
def test_a_wave_at_the_cutoff_is_low(size: int, cutoff: float, cycles: int) -> None:
    wave = torch.cos(2 * torch.pi * cycles * torch.arange(size, dtype=torch.float64) / size).expand(1, 1, size, size)
    assert low_frequency_share(wave, cutoff).item() == pytest.approx(1)
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    assert share_of_white_noise(size, size, cutoff) == (waves <= cutoff + 1e-9).mean()


def test_comparing_does_not_change_training_nor_the_nets(tmp_path: Path) -> None:
    def fit(name: str, *callbacks: pl.Callback) -> dict[str, Tensor]:
        pl.seed_everything(3)
        module = OrdinaryModule()
        trainer(tmp_path / name, *callbacks, max_epochs=2).fit(module, train_loader(), val_loader())
        return weights(module)

    callback = comparison()
    before = weights(callback.beside["other"])
    alone, watched = fit("alone"), fit("watched", callback)
    assert all(torch.equal(alone[key], watched[key]) for key in alone)
    assert all(torch.equal(before[key], value) for key, value in weights(callback.beside["other"]).items())
    found = events(tmp_path / "watched").Tags()
    assert set(found["scalars"]) >= TAGS
    assert "standard_against_robust" in found["images"]
    assert next(tmp_path.rglob("figures/standard_against_robust.png")).is_file()


def test_every_sample_counts_the_same_in_any_batch(tmp_path: Path) -> None:
    logged = []
    for batch_size in (23, 7):
        run = trainer(tmp_path, comparison(num_pictures=2))
        run.validate(OrdinaryModule(), val_loader(batch_size), verbose=False)
        logged.append({tag: float(run.callback_metrics[tag]) for tag in TAGS})
    assert all(logged[0][tag] == pytest.approx(logged[1][tag], abs=1e-5) for tag in TAGS)
    assert all(0 < share < 1 for share in logged[0].values())


def test_the_two_nets_are_shown_with_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        module_under_test, "side_by_side", lambda nets, **rest: drawn.append((nets, rest)) or side_by_side(nets, **rest)
    )
    own = OrdinaryModule()
    trainer(tmp_path, comparison(num_pictures=3)).validate(own, val_loader(2), verbose=False)
    nets, said = drawn[0]
    assert torch.equal(nets["own"].before, nets["other"].before)
    assert torch.equal(nets["own"].before, val_loader(3).dataset.tensors[0][:3])
    x, y = (tensor[:3] for tensor in val_loader().dataset.tensors)
    x.requires_grad_()
    torch.nn.functional.cross_entropy(own.eval()(x), y, reduction="sum").backward()
    assert torch.allclose(nets["own"].gradient, x.grad, atol=1e-6)
    assert not torch.equal(nets["own"].gradient, nets["other"].gradient)
    for done in nets.values():
        assert (done.logits_after[:, 2] > done.logits_before[:, 2]).all()
        assert ((done.ascended - done.before).flatten(1).norm(dim=1) <= 1.5001).all()
    figure = side_by_side(nets, **said)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sum(text.startswith(("own\n", "other\n")) for text in texts) == 2
    farthest = (nets["other"].dreamt[1] - nets["other"].before[1]).abs().max()
    assert f"up to {float(farthest):.2g}, {float(nets['other'].low['dream'][1]):.0%} low" in texts
    assert f"{float(nets['other'].low['gradient'][1]):.0%} low" in texts
    assert sum("DeepDream" in text for text in texts) == 2  # for each net, since their layers differ
    same = {name: replace(done, layer="features.2") for name, done in nets.items()}
    assert sum("DeepDream" in text.get_text() for text in side_by_side(same, **said).axes[0].texts) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": {"own": "net.0"}}, "a layer for each of own, other, got own"),
        ({"name": "other"}, "other nets than 'other'"),
        ({"options": {"jiter": 1}}, r"options=...\) must be options of dream: jitter, .*got 'jiter'"),
        ({"cutoff": 0.0}, r"cutoff=...\) must be in \(0, 0.5\], got 0.0"),
        ({"num_pictures": 0}, r"num_pictures=...\) must be >= 1, got 0"),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        comparison(**options)


def test_a_class_that_does_not_exist_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"target=...\) must be a number"):
        trainer(tmp_path, comparison(target="cat")).validate(OrdinaryModule(), val_loader(), verbose=False)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"own": "net.0", "other": "9"}, r"StandardAgainstRobust\(layers='9'\) must be a layer of Sequential"),
        ({"own": "net.0", "other": "5:9"}, "so that there is no 9"),
    ],
)
def test_a_layer_that_a_net_lacks_is_said_before_training(tmp_path: Path, layers: dict[str, str], message: str) -> None:
    module = OrdinaryModule()
    before = weights(module)
    run = trainer(tmp_path, comparison(layers=layers), num_sanity_val_steps=0)
    with pytest.raises(ValueError, match=message):
        run.fit(module, train_loader(), val_loader())
    assert all(torch.equal(before[key], value) for key, value in weights(module).items())


def written_out(shared: Path, x: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """The logits of the published weights, by their names in the file."""
    w = torch.load(shared / "models/abcrown_resnet2b.pth", weights_only=True, map_location="cpu")["state_dict"]

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding)

    x = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    x = conv(x, "conv1", 2).relu()
    first = conv(conv(x, "layer1.0.conv1", 2).relu(), "layer1.0.conv2") + conv(x, "layer1.0.shortcut.0", 2, 0)
    x = first.relu()
    x = (conv(conv(x, "layer1.1.conv1").relu(), "layer1.1.conv2") + x).relu().flatten(1)
    x = F.linear(x, w["linear1.weight"], w["linear1.bias"]).relu()
    return F.linear(x, w["linear2.weight"], w["linear2.bias"])


def test_resnet2b_is_the_published_net(shared: Path) -> None:
    normalization = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2471, 0.2435, 0.2616]}
    net = PublicCheckpoint(ResNet2b(), str(shared / "models/abcrown_resnet2b.pth"), **normalization).eval()
    x, y = cifar_images(shared, 1000)
    with torch.no_grad():
        logits = net(x)
        assert torch.allclose(logits, written_out(shared, x, **normalization), atol=1e-5)
    assert abs(float((logits.argmax(1) == y).float().mean()) - 0.6925) < 0.02  # as published, of 10,000
    assert Normalized(ResNet2b(num_classes=3), [0.5] * 3, [0.5] * 3)(x[:2]).shape == (2, 3)
