"""An attack that draws from the global random state is named, and one on a model that draws is not."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, Attack, Cost, Linf, RandomNoise, SampleRng, Threat, evaluate
from touchstone.attacks.core import global_noise

from .masking_nets import Randomised
from .oracles import images, own_labels, small_net


@dataclass(frozen=True, kw_only=True)
class Careless(Attack):
    kind = "control"
    threat: Threat

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        return self.threat.project(x + 0.01 * torch.rand_like(x), x)


ATTACKS: dict[str, Attack] = {"a": Careless(threat=Linf(eps=0.1))}


@pytest.fixture(autouse=True)
def nobody_was_asked() -> Iterator[None]:
    before = set(global_noise._ASKED)
    global_noise._ASKED.clear()
    yield
    global_noise._ASKED.update(before)


def test_it_is_named_once_and_its_cost_is_its_own() -> None:
    net, x = small_net(), images(40)
    y = own_labels(net, x)
    with pytest.warns(UserWarning, match="Careless.perturb draws from torch's global random state") as said:
        report = evaluate(net, x, y, ATTACKS, batch_size=16)
    assert len(said) == 1
    assert report.cost["a"].num_forwards == Cost().num_forwards == 0


def test_it_is_named_on_a_model_of_half_precision() -> None:
    net, x = small_net().bfloat16(), images(12)
    with pytest.warns(UserWarning, match="Careless.perturb draws from torch's global random state"):
        evaluate(net, x, torch.zeros(12, dtype=torch.int64), ATTACKS, probe_masking=False)


def test_a_model_that_draws_is_no_attack_that_draws() -> None:
    net, x = Randomised(small_net()), images(12)
    attacks: dict[str, Attack] = {
        "pgd": PGD(threat=Linf(eps=0.1), num_steps=2),
        "noise": RandomNoise(threat=Linf(eps=0.1)),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(net, x, own_labels(net.inner, x), {**attacks, **ATTACKS}, probe_masking=False)


def test_of_two_attacks_of_one_name_each_is_asked() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other(Careless):
        pass

    Other.__name__ = "Careless"
    net, x = small_net(), images(6)
    y = own_labels(net, x)
    for attack in (ATTACKS["a"], Other(threat=Linf(eps=0.1))):
        with pytest.warns(UserWarning, match="Careless.perturb draws from torch's global random state"):
            evaluate(net, x, y, {"a": attack}, probe_masking=False)


def test_what_was_asked_keeps_no_class_alive() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Passing(Careless):
        pass

    net, x = small_net(), images(6)
    with pytest.warns(UserWarning, match="Passing.perturb draws"):
        evaluate(net, x, own_labels(net, x), {"a": Passing(threat=Linf(eps=0.1))}, probe_masking=False)
    known = weakref.ref(Passing)
    del Passing
    gc.collect()
    assert known() is None
