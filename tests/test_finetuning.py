"""Transfer: a new last layer, what trains by name, and what follows later."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from touchstone.callbacks import ExactResume, Finetuning
from touchstone.lightning_modules import Classifier, WarmupCosine
from touchstone.nets import AdaptedNet, NewHead, SmallCNN
from touchstone.nets.new_head import head_of

from .lightning_programs import train_loader, trainer, val_loader, weights
from .oracles import images, small_net


def test_a_new_head_keeps_every_other_layer_and_gives_as_many_classes() -> None:
    net = small_net(7).eval()
    before, features = copy.deepcopy(net), net[:5](images(6))
    changed = NewHead(net, 3)
    assert changed.head == "5"
    assert changed(images(6)).shape == (6, 3)
    torch.testing.assert_close(changed.net[:5](images(6)), features, rtol=0, atol=0)
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in net.state_dict().items() if not k.startswith("5."))
    assert NewHead(SmallCNN(), 2, layer="features.0").net.features[0].out_channels == 2


def test_a_new_head_pads_and_computes_as_the_old_one() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect", dtype=torch.float64), nn.Flatten())
    head = NewHead(net, 2).net[0]
    assert (head.padding_mode, head.weight.dtype, head.out_channels) == ("reflect", torch.float64, 2)


def test_a_head_that_cannot_be_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"NewHead\(num_classes=...\) must be >= 2, got 1"):
        NewHead(small_net(), 1)
    with pytest.raises(ValueError, match=r"NewHead\(layer='clasifier.3'\) .* the nearest are classifier.3"):
        NewHead(SmallCNN(), 2, layer="clasifier.3")
    with pytest.raises(ValueError, match=r"NewHead\(net=...\) must have a linear layer .* ReLU has none"):
        NewHead(nn.ReLU(), 2)


def test_the_head_of_a_net_is_known_by_name() -> None:
    assert head_of(AdaptedNet("resnet18"))[0] == "net.fc"  # type: ignore[index]
    assert head_of(nn.Sequential(nn.ReLU(), NewHead(SmallCNN(), 2)))[0] == "1.net.classifier.3"  # type: ignore[index]
    assert head_of(nn.ReLU()) is None


class ByEpoch(pl.Callback):
    """Keeps weights, and the learning rates of the groups, after each epoch."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.rates: list[list[float]] = []

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        self.weights.append(weights(module.net))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.weights.append(weights(module.net))
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_layers_learn_from_the_epoch_that_is_said_at_their_share_of_the_rate(tmp_path: Path) -> None:
    """The head alone, then BatchNorm too with its statistics, the convolution never; bit for bit."""
    seen, tuning = ByEpoch(), Finetuning(["net.net.5"], unfreeze={1: ["net.net.1"]}, lr_share=0.5)
    module = Classifier(NewHead(small_net(7), 4), adam)
    trainer(tmp_path, tuning, seen, max_epochs=2, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
    assert moved(seen.weights[0], seen.weights[1]) == {"net.5.weight", "net.5.bias"}
    statistics = {"net.1.running_mean", "net.1.running_var", "net.1.num_batches_tracked"}
    assert moved(seen.weights[1], seen.weights[2]) == {
        "net.5.weight", "net.5.bias", "net.1.weight", "net.1.bias", *statistics,
    }  # fmt: skip
    assert seen.rates == [[0.01], [0.01, 0.005]]


def test_statistics_of_a_frozen_normalization_without_parameters_stay_until_it_is_let_go(tmp_path: Path) -> None:
    net = small_net(7)
    net[1] = nn.BatchNorm2d(8, affine=False)
    seen, tuning = ByEpoch(), Finetuning(["net.5"], unfreeze={1: ["net.1"]})
    module = Classifier(net, adam)
    trainer(tmp_path, tuning, seen, max_epochs=2, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
    head, statistics = {"5.weight", "5.bias"}, {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert moved(seen.weights[0], seen.weights[1]) == head
    assert moved(seen.weights[1], seen.weights[2]) == head | statistics
    assert seen.rates == [[0.01]] * 2


@pytest.mark.parametrize("bias", [True, False])
def test_decay_still_spares_normalizations_and_biases_of_what_is_let_go_and_of_a_resumed_run(
    bias: bool, tmp_path: Path
) -> None:
    """Also where no parameter that learns from the start is spared: a head without a bias."""

    def fit(num_epochs: int, checkpoint: Path | None = None) -> tuple[list[tuple[int, float]], dict[str, Tensor]]:
        net = small_net(7)
        torch.manual_seed(0)
        net[5] = nn.Linear(8 * 36, 4, bias=bias)
        tuning = Finetuning(["net.5"], unfreeze={1: ["net.[01]"]})
        module = Classifier(net, lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1), decay="weights")
        run = trainer(tmp_path, tuning, ExactResume(), max_epochs=num_epochs, num_sanity_val_steps=0)
        run.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
        run.save_checkpoint(tmp_path / f"{num_epochs}.ckpt")
        groups = run.optimizers[0].param_groups
        return [(sum(p.numel() for p in group["params"]), group["weight_decay"]) for group in groups], weights(net)

    from_the_start = [(8 * 36 * 4, 0.1), (4, 0)] if bias else [(8 * 36 * 4, 0.1)]
    groups, after = fit(3)
    assert groups == [*from_the_start, (8 * 9, 0.1), (8 + 8 + 8, 0)]
    fit(2)
    resumed, after_resumed = fit(3, tmp_path / "2.ckpt")
    assert resumed == groups
    assert not moved(after, after_resumed)


SCHEDULES: dict[str, Any] = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20),
    "lambda": lambda o: WarmupCosine(o, 2, 20),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.01, total_steps=20),
    "steps": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [7], 0.1),
    "joined": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o, [torch.optim.lr_scheduler.ConstantLR(o, 0.5, 4), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)], [4]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_moves_the_later_group_along_and_a_stopped_run_goes_on_bit_for_bit(
    name: str, tmp_path: Path
) -> None:
    def fit(folder: str, num_epochs: int, checkpoint: Path | None = None) -> ByEpoch:
        torch.manual_seed(0)
        seen, tuning = ByEpoch(), Finetuning(["net.5"], unfreeze={1: ["net.1"], 2: ["net.0"]}, lr_share=0.5)
        module = Classifier(small_net(7), adam, SCHEDULES[name], schedule="step")
        run = trainer(tmp_path / folder, tuning, ExactResume(), seen, max_epochs=num_epochs, num_sanity_val_steps=0)
        run.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
        run.save_checkpoint(tmp_path / f"{folder}.ckpt")
        return seen

    whole = fit("whole", 4)
    for head, *later in whole.rates[1:]:
        assert later == pytest.approx([0.5 * head] * len(later))
    assert [len(rates) for rates in whole.rates] == [1, 2, 3, 3]
    fit("half", 2)
    resumed = fit("resumed", 4, tmp_path / "half.ckpt")
    assert resumed.rates == whole.rates[2:]
    assert not moved(whole.weights[-1], resumed.weights[-1])


BAD: list[tuple[Any, str]] = [
    (Finetuning(["net.6"]), r"Finetuning: 'net.6' matches no layer of Classifier; the nearest are net\.\d, net\.\d"),
    (Finetuning(["net.5"], unfreeze={1: ["nett.*"]}), r"Finetuning: 'nett\.\*' matches no layer of Classifier"),
    (Finetuning(["net.0"]), r"Classifier\(net=...\) must train its last layer: `net.5` is frozen"),
]


@pytest.mark.parametrize(("tuning", "message"), BAD)
def test_a_schedule_that_cannot_be_meant_is_refused(tuning: Finetuning, message: str, tmp_path: Path) -> None:
    run = trainer(tmp_path, tuning, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match=message):
        run.fit(Classifier(small_net(7)), train_loader(), val_loader())


class Probe(nn.Module):
    """A linear probe that registers its last layer first."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8 * 36, 4)
        self.backbone = small_net(7)[:5].requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.backbone(x))


@pytest.mark.filterwarnings("ignore:.*`net.backbone.0` is frozen")
def test_a_probe_that_registers_its_last_layer_first_trains_with_a_warning(tmp_path: Path) -> None:
    seen, module = ByEpoch(), Classifier(Probe(), adam)
    with pytest.warns(UserWarning, match=r"`net.backbone.0` is frozen .* if it is the one that gives the logits"):
        module.configure_optimizers()
    run = trainer(tmp_path, seen, max_epochs=1, num_sanity_val_steps=0)
    run.fit(module, train_loader(), val_loader())
    assert {"fc.weight", "fc.bias"} <= moved(seen.weights[0], seen.weights[1])


def test_a_probe_whose_last_layer_a_new_head_names_trains_by_name_without_a_warning(tmp_path: Path) -> None:
    tuning, module = Finetuning(["net.net.fc"]), Classifier(NewHead(Probe(), 4, layer="fc"), adam)
    run = trainer(tmp_path, tuning, max_epochs=1, num_sanity_val_steps=0)
    run.fit(module, train_loader(), val_loader())


def test_a_frozen_new_head_is_refused(tmp_path: Path) -> None:
    net = NewHead(small_net(7), 4)
    net.net[5].requires_grad_(False)
    with pytest.raises(ValueError, match=r"must train its last layer: `net.net.5` is frozen"):
        trainer(tmp_path, num_sanity_val_steps=0).fit(Classifier(net), train_loader(), val_loader())


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Finetuning\(train=...\) must be a list of layers, at least one, got"):
        Finetuning([])
    with pytest.raises(ValueError, match=r"Finetuning\(lr_share=...\) must be > 0 and finite, got 0"):
        Finetuning(["net"], lr_share=0)
    with pytest.raises(ValueError, match=r"Finetuning\(unfreeze=...\): an epoch must be >= 0, got -1"):
        Finetuning(["net"], unfreeze={-1: ["net"]})
