"""`frozen_eval` leaves everything as it was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import frozen_eval
from touchstone.attacks.core.frozen_eval import seed_random_state


def test_frozen_eval_restores_module_by_module_even_after_an_error(net: nn.Module) -> None:
    net.train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    modes, needs = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]

    def run() -> None:
        with frozen_eval(net):
            assert not any(m.training for m in net.modules())
            assert not any(p.requires_grad for p in net.parameters())
            torch.rand(1)
            raise KeyError

    state = torch.get_rng_state()
    with pytest.raises(KeyError):
        run()
    assert modes == [m.training for m in net.modules()]
    assert needs == [p.requires_grad for p in net.parameters()]
    assert torch.equal(state, torch.get_rng_state())


def test_a_layer_that_two_modules_share_has_its_own_mode_again(net: nn.Module) -> None:
    shared = nn.Dropout()
    whole = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared)).train()
    whole.training = shared.training = False
    with frozen_eval(whole):
        pass
    assert [module.training for module in whole.modules()] == [False, True, False, True]


def test_frozen_eval_restores_what_was_unfrozen_inside(net: nn.Module) -> None:
    net[0].weight.requires_grad_(False)
    with frozen_eval(net):
        net[0].weight.requires_grad_(True)
    assert not net[0].weight.requires_grad


def test_gradients_flow_inside_frozen_eval_under_inference_mode(net: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        made_there = x + 0
        with frozen_eval(net):
            inside = made_there.clone().requires_grad_()
            (grad,) = torch.autograd.grad(net(inside).sum(), inside)
    assert grad.abs().sum() > 0


def test_a_device_that_is_one_alone_can_be_seeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.mps` has no `device`, as torch's modules of accelerators that may be several have."""
    seeds: list[int] = []
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(manual_seed=seeds.append))
    with frozen_eval(nn.Identity()):
        seed_random_state(7, torch.device("mps", 0))
    assert seeds == [7]


def test_what_a_model_draws_is_another_for_each_purpose_and_the_same_by_the_seed() -> None:
    drawn: set[float] = set()
    with frozen_eval(nn.Identity()):
        for purpose in ("measure", "attack", "measure again"):
            for _ in range(2):
                seed_random_state(3, torch.device("cpu"), purpose=purpose)
                drawn.add(float(torch.rand(())))
    assert len(drawn) == 3
