"""`Transfer`: made on one net, judged on another."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from touchstone.attacks import (
    PGD,
    EmbeddingBall,
    InBfloat16,
    Linf,
    SampleRng,
    Square,
    Targeted,
    Transfer,
    Universal,
    evaluate,
)

from .oracles import LinearModel, images, own_labels, small_net

LINF = Linf(eps=0.1)
X = images(24)
Y = own_labels(small_net(), X)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(threat=LINF, num_steps=8),
        PGD(threat=LINF, objective=Targeted(target="least_likely")),
        PGD(threat=LINF, objective=Targeted(target="random"), num_restarts=2),
        Square(threat=LINF, num_queries=30),
    ],
)
def test_from_an_identical_copy_it_does_what_the_attack_does(attack: PGD) -> None:
    net = small_net()
    suite = {"direct": attack, "transfer": Transfer(attack=attack, source=copy.deepcopy(net))}
    report = evaluate(net, X, Y, suite, keep_adversarial=True, seed=4)
    assert torch.equal(report.x_adv["direct"], report.x_adv["transfer"])
    assert torch.equal(report.success["direct"], report.success["transfer"])
    assert report.cost["direct"].num_forwards > 0
    assert report.cost["transfer"].num_forwards == report.cost["transfer"].num_backwards == 0


def test_from_a_linear_source_it_is_the_sign_of_its_weights() -> None:
    source, model = LinearModel(36, 2, seed=1).centred(), LinearModel(36, 2, seed=2).centred()
    x = images(10, dtype=torch.float64)
    y = own_labels(model, x)
    attack = PGD(threat=Linf(eps=0.04), rel_step_size=1.0, num_steps=2, random_start=False)
    found = Transfer(attack=attack, source=source)(model, x, y)
    weight = source.linear.weight.detach()
    expected = x + 0.04 * torch.sign(weight[1 - y] - weight[y]).reshape(x.shape)
    right = own_labels(source, x) == y  # the others have reached the goal on the source before they begin
    assert torch.allclose(found[right], expected[right])
    assert torch.equal(found[~right], x[~right])
    assert 0 < right.sum() < 10


def test_the_source_comes_back_as_it_was() -> None:
    source = small_net(seed=3).train()
    source[1].eval()
    source[5].bias.requires_grad_(False)
    before = copy.deepcopy(source.state_dict())
    modes, needs = [m.training for m in source.modules()], [p.requires_grad for p in source.parameters()]
    evaluate(small_net(), X, Y, {"a": Transfer(attack=PGD(threat=LINF), source=source)})
    assert [m.training for m in source.modules()] == modes
    assert [p.requires_grad for p in source.parameters()] == needs
    assert all(torch.equal(before[name], value) for name, value in source.state_dict().items())
    assert all(p.grad is None for p in source.parameters())
    assert not source._forward_hooks


@pytest.mark.parametrize(("of_model", "of_source"), [(torch.float32, torch.float64), (torch.float64, torch.bfloat16)])
def test_source_and_model_may_differ_in_precision(of_model: torch.dtype, of_source: torch.dtype) -> None:
    model = small_net(dtype=of_model)
    report = evaluate(model, X, Y, {"a": Transfer(attack=PGD(threat=LINF), source=small_net(dtype=of_source))})
    assert report.success["a"].sum() > 12


@pytest.mark.gpu
def test_the_source_is_moved_to_the_images_and_back() -> None:
    source = small_net(seed=3)
    attack = Transfer(attack=PGD(threat=LINF), source=source)
    on_gpu = evaluate(small_net().cuda(), X.cuda(), Y.cuda(), {"a": attack})
    assert on_gpu.robust["a"].tolist() == evaluate(small_net(), X, Y, {"a": attack}).robust["a"].tolist()
    assert {p.device.type for p in source.parameters()} == {"cpu"}


def test_a_universal_perturbation_is_learned_on_the_source() -> None:
    source, others = small_net(seed=3), images(60, seed=5)
    labels = own_labels(small_net(), others)
    universal = Universal(threat=LINF)
    report = evaluate(
        small_net(), X, Y, {"a": Transfer(attack=universal, source=source)}, prepare_on=(others, labels), seed=2
    )
    rng = SampleRng.numbered(60, seed=2).fold(-1)
    expected = universal.prepare(source, others, labels, rng)
    assert isinstance(expected, Universal)
    ready = report.attacks["a"]
    assert isinstance(ready, Transfer)
    assert isinstance(ready.attack, Universal)
    assert torch.equal(ready.attack.perturbation, expected.perturbation)  # type: ignore[arg-type]
    assert report.cost["a"].num_forwards == 0


def test_what_is_wrong_on_the_source_is_said_of_the_source() -> None:
    two_classes = Transfer(attack=PGD(threat=LINF), source=small_net(num_classes=2))
    with pytest.raises(ValueError, match=r"attack 'a': Transfer\(source=...\): on the source, labels must be classes"):
        evaluate(small_net(), X, Y, {"a": two_classes})
    with pytest.raises(ValueError, match=r"Transfer\(source=...\): on the source, .*mat1 and mat2 shapes"):
        Transfer(attack=PGD(threat=LINF), source=nn.Sequential(nn.Flatten(), nn.Linear(9, 4)))(small_net(), X, Y)


def test_values_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Transfer\(attack=...\) must be an attack such as PGD\(...\), got Linf"):
        Transfer(attack=LINF, source=small_net())  # type: ignore[arg-type]
    at_the_embedding = PGD(threat=EmbeddingBall(eps=0.5))
    for attack in (at_the_embedding, InBfloat16(attack=at_the_embedding)):
        with pytest.raises(ValueError, match="not `EmbeddingBall`, whose vectors another net does not take, got "):
            Transfer(attack=attack, source=small_net())
    with pytest.raises(ValueError, match=r"Transfer\(source=...\) must be a torch.nn.Module, got 'net'"):
        Transfer(attack=PGD(threat=LINF), source="net")  # type: ignore[arg-type]
