"""Attacks in bfloat16: what is computed in it, what is not, and what it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, FeatureDistance, InBfloat16, Linf, Targeted, Transfer, Universal, evaluate
from touchstone.datamodules import PicturesDataModule
from touchstone.nets import EfficientNetLite0

from .oracles import images, own_labels, small_net
from .picture_folders import needs_imagenet

PLAIN = PGD(threat=Linf(eps=0.1), num_steps=10)


def test_the_model_computes_in_bfloat16_and_the_points_are_float32_inside_the_threat() -> None:
    net, x = small_net(seed=7).eval(), images(20, seed=1)
    y = own_labels(net, x)
    seen: list[torch.dtype] = []
    net[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    x_adv = InBfloat16(attack=PLAIN)(net, x, y)
    assert set(seen) == {torch.bfloat16}
    assert x_adv.dtype == torch.float32
    assert PLAIN.threat.contains(x_adv, x).all()
    assert not torch.equal(x_adv, x_adv.bfloat16().float())


def test_the_verdict_is_measured_in_float32_and_hardly_another() -> None:
    net, x = small_net(seed=7).eval(), images(200, seed=1)
    y = own_labels(net, x)
    report = evaluate(net, x, y, {"float32": PLAIN, "bfloat16": InBfloat16(attack=PLAIN)}, keep_adversarial=True)
    with torch.no_grad():
        assert torch.equal(report.robust["bfloat16"], net(report.x_adv["bfloat16"]).argmax(1) == y)
    assert report.attacks["bfloat16"].threat is PLAIN.threat
    assert 0 < report.robust["float32"].sum() < 200
    assert (report.robust["float32"] != report.robust["bfloat16"]).sum() <= 6


def test_objective_and_threat_are_those_of_the_attack() -> None:
    attack = InBfloat16(attack=PLAIN).with_objective(Targeted(2)).inside(Linf(eps=0.2))
    assert attack.attack.objective.target == attack.objective.target == 2  # type: ignore[attr-defined]
    assert attack.attack.threat.eps == attack.threat.eps == 0.2


def test_a_layer_has_the_name_that_it_has_without_it() -> None:
    net, x = small_net(seed=7).eval(), images(40, seed=1)
    attack = InBfloat16(attack=FeatureDistance(threat=Linf(eps=0.1), layer="2", num_steps=8))
    assert evaluate(net, x, own_labels(net, x), {"features": attack}).success["features"].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_net_of_half_precision_may_have_batch_norm(dtype: torch.dtype) -> None:
    """One of float16 gives what it gives without the wrapper."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)
    net, x = nn.Sequential(*layers).to(dtype).eval(), images(20, seed=1)
    with torch.no_grad():
        y = net(x.to(dtype)).argmax(1)
    attacks = {"plain": PLAIN, "bfloat16": InBfloat16(attack=PLAIN)}
    report = evaluate(net, x, y, attacks, keep_adversarial=True)
    assert report.success["bfloat16"].any()
    if dtype == torch.float16:
        assert torch.equal(report.x_adv["plain"], report.x_adv["bfloat16"])


class OfBuffers(nn.Module):
    """A net whose weights were frozen into buffers."""

    def __init__(self) -> None:
        super().__init__()
        noise = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(36, 4, generator=noise).half())

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.flatten(1).to(self.weight.dtype) @ self.weight
        return self.seen


def test_a_net_with_buffers_of_float16_is_computed_as_it_is() -> None:
    net, x = OfBuffers().eval(), images(20, seed=1)
    y = own_labels(net, x)
    plain = PLAIN(net, x, y)
    assert not torch.equal(plain, x)
    assert torch.equal(InBfloat16(attack=PLAIN)(net, x, y), plain)
    assert net.seen.dtype == torch.float16


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (Universal(threat=Linf(eps=0.1)), "must be an attack that needs no samples, got Universal"),
        (3, r"must be an attack such as PGD\(...\), got 3"),
        (Transfer(attack=PLAIN, source=small_net()), r"asks the model itself, got a Transfer: give that `Transfer\("),
    ],
    ids=["learns", "no attack", "transfer"],
)
def test_what_it_cannot_run_is_refused(attack: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"InBfloat16\(attack=...\) .*{message}"):
        InBfloat16(attack=attack)


def test_layers_in_evaluation_mode_stay_there_where_an_attack_keeps_the_modes() -> None:
    net, x = small_net().train(), images(8)
    norm = next(module for module in net if isinstance(module, nn.BatchNorm2d)).eval()
    InBfloat16(attack=PLAIN)(net, x, own_labels(net, x), training=True)
    assert int(norm.num_batches_tracked) == 0


@pytest.mark.slow
@needs_imagenet
@pytest.mark.timeout(1200)
def test_targets_are_reached_on_photographs_in_float32_and_nearly_as_many_in_bfloat16(shared: Path) -> None:
    """Each of the 103 photographs towards a class drawn for it, inside Linf 8/255: 95 % or more, and the changes."""
    data = PicturesDataModule(str(shared / "data/imagenet_samples"), batch_size=26)
    net = EfficientNetLite0().eval()
    plain = PGD(threat=Linf(eps="8/255"), objective=Targeted("random"), num_steps=20)
    attacks = {"float32": plain, "bfloat16": InBfloat16(attack=plain)}
    reached: dict[str, list[bool]] = {name: [] for name in attacks}
    seconds, turned = dict.fromkeys(attacks, 0.0), []
    for x, positions, _ in data.predict_dataloader():
        with torch.no_grad():
            y = net(x).argmax(1)  # of each the class that the net sees, so that all are attacked
        report = evaluate(net, x, y, attacks, sample_ids=positions, probe_masking=False)
        turned.append(report.robust["float32"] != report.robust["bfloat16"])
        for name in attacks:
            reached[name] += report.success[name].tolist()
            seconds[name] += report.cost[name].seconds
    num_changed = sum(a != b for a, b in zip(*reached.values(), strict=True))
    print(
        *(f"{n}: {sum(hits)} of {len(hits)} targets reached, {seconds[n]:.0f} s" for n, hits in reached.items()),
        f"whether the target is reached differs for {num_changed}, robust or not for {int(torch.cat(turned).sum())}",
        sep="\n",
    )
    assert len(reached["float32"]) == 103
    assert sum(reached["float32"]) >= 0.95 * 103
    assert sum(reached["bfloat16"]) >= 0.9 * 103
