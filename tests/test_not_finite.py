"""`NotFinite`: a step that is not finite is named with where it began, and ended, left out or kept as told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import L2, Linf, Threat
from touchstone.callbacks import ExactResume, NotFinite
from touchstone.callbacks import not_finite as module_under_test
from touchstone.callbacks.parts.resuming.own_order import samples_in
from touchstone.lightning_modules import Classifier, Free

from .lightning_programs import samples, train_loader, trainer, val_loader
from .oracles import small_net

BROKEN = 2  # the batch with a broken sample


def broken_data() -> DataLoader:
    x, y = samples(40, seed=1).tensors
    x = x.clone()
    x[8 * BROKEN + 3, 0, 1, 1] = torch.nan
    return DataLoader(TensorDataset(x, y), 8)


def fit(
    folder: Path, net: nn.Module, loader: DataLoader, policy: Any, waits: bool = True, **options: Any
) -> tuple[Classifier, NotFinite]:
    torch.manual_seed(0)
    callback = NotFinite(policy=policy, waits=waits)
    module = Classifier(net, lambda p: torch.optim.Adam(p, lr=1e-2))
    trainer(folder, callback, max_epochs=1, num_sanity_val_steps=0, limit_val_batches=0, **options).fit(
        module, loader, val_loader()
    )
    return module, callback


def is_finite(module: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in module.state_dict().values())


def test_a_broken_sample_stops_the_training_and_is_named(tmp_path: Path) -> None:
    message = (
        "at step 2 the loss is nan: the images of the batch are not finite in row 3; it is batch 2 of epoch 0, whose "
        "samples are not known"
    )
    with pytest.raises(RuntimeError, match=message):
        fit(tmp_path, small_net(7), broken_data(), "stop")


class Root(nn.Module):
    """The square root of what the images have above 0: of an image with a value below, NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sqrt()


class RootOfItsOwn(nn.Module):
    """Fine in the forward for every sample; the gradient is NaN where an image has a value below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(36))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return (self.scale * (x < 0)).sqrt() + x


BROKEN_SAMPLE = 29


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("layer", "value", "says"),
    [
        (nn.Flatten(), torch.nan, "the loss is nan: the images of the batch are not finite in row {row}, sample 29;"),
        (Root(), -0.5, r"the loss is nan: .* 'net.0' \(Root\), in row {row}, sample 29;"),
        (RootOfItsOwn(), -0.5, "the gradient of 'net.0.scale' is not finite: images, parameters"),
    ],
)
def test_the_samples_of_a_shuffled_batch_are_named(
    tmp_path: Path, layer: nn.Module, value: float, says: str, num_workers: int
) -> None:
    x, y = samples(40, seed=1).tensors
    x = x.clone()
    x[BROKEN_SAMPLE, 0, 1, 1] = value
    net = nn.Sequential(layer, nn.Linear(36, 4))
    seen: list[Tensor] = []

    class Seeing(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch[0])

    callback = NotFinite()
    torch.manual_seed(0)
    run = trainer(tmp_path, Seeing(), callback, ExactResume(), num_sanity_val_steps=0, limit_val_batches=0)
    loader = DataLoader(TensorDataset(x, y), 8, shuffle=True, num_workers=num_workers)
    with pytest.raises(RuntimeError) as raised:
        run.fit(Classifier(net), loader, val_loader())
    assert callback.sample_ids is not None
    assert torch.equal(x[callback.sample_ids].nan_to_num(9.0), seen[-1].nan_to_num(9.0))
    row = callback.sample_ids.index(BROKEN_SAMPLE)
    assert re.search(says.format(row=row), str(raised.value))
    assert f"of epoch 0, of the samples {', '.join(map(str, callback.sample_ids))}" in str(raised.value)


def test_the_samples_are_known_in_a_run_that_goes_on_and_with_repeated_batches(tmp_path: Path) -> None:
    class Looking(pl.Callback):
        def __init__(self) -> None:
            self.num_seen = 0

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            loader = trainer.train_dataloader
            assert torch.equal(loader.dataset.tensors[0][samples_in(loader, batch_idx)], batch[0])
            self.num_seen += 1

    for strategy in (None, Free(Linf(eps=0.1), num_repeats=3)):
        checkpoint = tmp_path / f"{type(strategy).__name__}.ckpt"
        for max_steps, given in ((3, None), (12, checkpoint)):
            looking = Looking()
            options = {"max_epochs": -1, "max_steps": max_steps, "num_sanity_val_steps": 0, "limit_val_batches": 0}
            run = trainer(tmp_path, looking, ExactResume(), **options)
            module = Classifier(small_net(7), strategy=strategy)
            run.fit(module, train_loader(), val_loader(), ckpt_path=given, weights_only=True)
            run.save_checkpoint(checkpoint)
            assert looking.num_seen == (9 if given else 3)


class BrokenOnce(nn.Module):
    """A net whose third batch has logits that are NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.num_calls = small_net(7), 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        return self.net(x) * (torch.nan if self.num_calls == 3 else 1)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.1)])
def test_a_step_that_is_left_out_leaves_nothing_in_what_a_strategy_keeps(
    tmp_path: Path, threat: Threat, said: list[str]
) -> None:
    """Free would learn from its images on and on."""
    module = Classifier(BrokenOnce(), strategy=Free(threat, num_repeats=1))
    options: dict[str, Any] = {"max_epochs": 1, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    trainer(tmp_path, NotFinite(policy="skip"), **options).fit(module, train_loader(), val_loader())
    assert "at step 2 the loss is nan" in said[0]
    assert module.strategy.memory["change"].isfinite().all()
    assert is_finite(module.net)


@pytest.mark.parametrize(("every", "step"), [(1, 2), (2, 3), (0, 4)])
def test_an_accelerator_is_looked_at_only_where_figures_are_logged_or_an_epoch_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, step: int
) -> None:
    monkeypatch.setattr(module_under_test, "_is_waited_for", lambda value: True)
    with pytest.raises(RuntimeError, match=f"at step {step} the loss is nan: the (parameter|images)"):
        fit(tmp_path, small_net(7), broken_data(), "stop", waits=False, log_every_n_steps=every)
    with pytest.raises(RuntimeError, match="at step 2 the loss is nan"):
        fit(tmp_path, small_net(7), broken_data(), "stop", log_every_n_steps=every)


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
    assert "in row 3; it is batch 2 of epoch 0, " in said[0]
    assert "; the step is left out" in said[0]


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
    with pytest.raises(ValueError, match=r"NotFinite\(policy=...\) must be one of 'stop', 'skip', 'keep', got 'go'"):
        NotFinite(policy="go")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"NotFinite\(waits=False\) may see a step too late to skip it"):
        NotFinite(policy="skip", waits=False)
