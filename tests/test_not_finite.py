"""`NotFinite`: a step that is not finite is named with where it began, and ended, left out or kept as told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.callbacks import NotFinite
from touchstone.callbacks import not_finite as module_under_test
from touchstone.lightning_modules import Classifier

from .lightning_programs import samples, trainer, val_loader
from .oracles import small_net

BROKEN = 2  # the batch with a broken sample


def broken_data() -> DataLoader:
    x, y = samples(40, seed=1).tensors
    x = x.clone()
    x[8 * BROKEN + 3, 0, 1, 1] = torch.nan
    return DataLoader(TensorDataset(x, y), 8)


def fit(folder: Path, net: nn.Module, loader: DataLoader, policy: Any, **options: Any) -> tuple[Classifier, NotFinite]:
    torch.manual_seed(0)
    callback = NotFinite(policy=policy)
    module = Classifier(net, lambda p: torch.optim.Adam(p, lr=1e-2))
    trainer(folder, callback, max_epochs=1, num_sanity_val_steps=0, limit_val_batches=0, **options).fit(
        module, loader, val_loader()
    )
    return module, callback


def is_finite(module: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in module.state_dict().values())


def test_a_broken_sample_stops_the_training_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match="at step 2 the loss is nan: the images of the batch are not finite in row 3"
    ):
        fit(tmp_path, small_net(7), broken_data(), "stop")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the callback warns of."""
    messages: list[str] = []
    monkeypatch.setattr(module_under_test, "rank_zero_warn", messages.append)
    return messages


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_skipped_leaves_no_trace(tmp_path: Path, said: list[str], accumulate: int) -> None:
    module, callback = fit(tmp_path, small_net(7), broken_data(), "skip", accumulate_grad_batches=accumulate)
    assert callback.num_found == 1
    assert is_finite(module)
    assert len(said) == 1
    assert "in row 3; the step is left out" in said[0]


def test_a_step_that_is_kept_is_named_once(tmp_path: Path, said: list[str]) -> None:
    module, callback = fit(tmp_path, small_net(7), broken_data(), "keep")
    assert callback.num_found == 5 - BROKEN  # each step once, though its gradients are broken too
    assert len(said) == 1
    assert "training goes on with it" in said[0]
    assert not is_finite(module)


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.9).log()


def test_the_first_layer_that_breaks_is_named(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Sigmoid(), Logarithm(), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(
        RuntimeError, match=r"the first layer with an output that is not finite is 'net.3' \(Logarithm\)"
    ):
        fit(tmp_path, net, DataLoader(samples(16), 8), "stop")


def test_a_broken_parameter_is_named(tmp_path: Path) -> None:
    net = small_net(7)
    net[5].weight.data[0, 0] = torch.inf
    with pytest.raises(RuntimeError, match="the parameter 'net.5.weight' itself is not finite"):
        fit(tmp_path, net, DataLoader(samples(16), 8), "stop")


class SquareRoot(nn.Module):
    """Its value at 0 is fine, and its gradient is not."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.relu() * 0).sqrt() + x


def test_a_gradient_that_is_not_finite_is_named_though_the_loss_is(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), SquareRoot(), nn.Linear(8, 4))
    with pytest.raises(RuntimeError, match="at step 0 the gradient of 'net.1.bias' is not finite: images, parameters"):
        fit(tmp_path, net, DataLoader(samples(16), 8), "stop")


def test_a_healthy_training_is_the_same_with_it(tmp_path: Path) -> None:
    for policy in ("stop", "skip"):
        module, callback = fit(tmp_path / policy, small_net(7), DataLoader(samples(40), 8), policy)
        assert callback.num_found == 0
        torch.manual_seed(0)
        alone = Classifier(small_net(7), lambda p: torch.optim.Adam(p, lr=1e-2))
        run = trainer(tmp_path / "alone", max_epochs=1, num_sanity_val_steps=0, limit_val_batches=0)
        run.fit(alone, DataLoader(samples(40), 8), val_loader())
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), alone.parameters(), strict=True))


def test_another_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"NotFinite\(policy=...\) must be one of stop, skip, keep, got 'go'"):
        NotFinite(policy="go")  # type: ignore[arg-type]
