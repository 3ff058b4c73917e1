"""`Classifier`: what it minimises, what it logs, and what its training attack does to BatchNorm."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F

from touchstone.attacks import PGD, Linf, SampleRng
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN

from .lightning_programs import events, train_loader, trainer, val_loader
from .oracles import small_net

PGD_3 = PGD(threat=Linf(eps=0.1), num_steps=3)


def test_figures_are_means_over_every_sample(tmp_path: Path) -> None:
    module = Classifier(small_net(7))
    run = trainer(tmp_path)
    run.validate(module, val_loader(10), verbose=False)  # batches of 10, 10 and 3
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    logits = module.eval()(x)
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
    assert float(run.callback_metrics["val/accuracy"]) == pytest.approx((logits.argmax(1) == y).float().mean().item())


@pytest.mark.parametrize(("mode", "updates_per_step"), [("eval", 1), ("train", 4)])
def test_the_mode_of_the_training_attack_decides_over_running_statistics(
    tmp_path: Path, mode: str, updates_per_step: int
) -> None:
    attack = PGD(threat=Linf(eps=0.1), num_steps=3, early_stop=False)
    module = Classifier(small_net(7), train_attack=attack, train_attack_mode=mode)  # type: ignore[arg-type]
    trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0).fit(module, train_loader(), val_loader())
    assert int(module.net[1].num_batches_tracked) == 5 * updates_per_step  # type: ignore[index,union-attr,arg-type]


def test_a_training_step_learns_from_the_attacked_images() -> None:
    """The loss of one step on PGD examples, taken again by hand."""

    by_lightning = Classifier(small_net(7), torch.optim.SGD, train_attack=PGD_3)
    batch = next(iter(train_loader()))
    by_lightning.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    x_adv = PGD_3(small_net(7), *batch, SampleRng.numbered(8).fold(0))
    torch.manual_seed(5)
    expected = F.cross_entropy(small_net(7).train()(x_adv), batch[1])
    torch.manual_seed(5)
    by_lightning.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    got = by_lightning.training_step(tuple(batch), 0)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    assert not torch.equal(x_adv, batch[0])


def test_every_sample_of_the_digits_is_in_one_set_and_classes_are_balanced() -> None:
    data = DigitsDataModule()
    data.setup("fit")
    sets = [dataset.tensors for dataset in (data.train, data.val, data.test)]
    assert [len(y) for _, y in sets] == [1197, 300, 300]
    assert len(torch.cat([x.flatten(1) for x, _ in sets])) == 1797
    for x, y in sets:
        assert x.shape[1:] == (1, 8, 8)
        assert x.dtype == torch.float32
        assert x.min() == 0
        assert x.max() == 1
        share = torch.bincount(y).float() / len(y)
        assert (share - 0.1).abs().max() < 0.01
    again = DigitsDataModule()
    again.setup("test")
    assert torch.equal(again.test.tensors[0], data.test.tensors[0])


def test_it_learns_the_digits(tmp_path: Path) -> None:
    pl.seed_everything(0)
    module = Classifier(SmallCNN(width=16), lambda p: torch.optim.Adam(p, lr=3e-3))
    run = trainer(tmp_path, max_epochs=5, log_every_n_steps=10)
    run.fit(module, datamodule=DigitsDataModule())
    assert float(run.callback_metrics["val/accuracy"]) > 0.93
    losses = [event.value for event in events(tmp_path).Scalars("train/loss")]
    assert losses[-1] < 0.3 * losses[0]


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing=...\) must be in \[0, 1\), got 1"):
        Classifier(small_net(), label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"SmallCNN\(image_size=...\) must be even"):
        SmallCNN(image_size=7)
    with pytest.raises(ValueError, match=r"DigitsDataModule\(batch_size=...\) must be >= 1, got 0"):
        DigitsDataModule(batch_size=0)


def test_a_training_batch_with_labels_outside_the_classes_is_named(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    x = torch.rand(8, 1, 6, 6)
    loader = DataLoader(TensorDataset(x, torch.full((8,), 4)), 8)
    with pytest.raises(ValueError, match=r"labels must be classes of the model, 0 to 3; sample 0 has the label 4"):
        trainer(tmp_path).fit(Classifier(small_net()), loader, val_loader())


def test_the_net_can_be_trained_from_a_partly_frozen_state(tmp_path: Path) -> None:
    net = small_net(7)
    net[0].requires_grad_(False)
    before = net[0].weight.detach().clone()
    trainer(tmp_path, max_epochs=1).fit(Classifier(net), train_loader(), val_loader())
    assert torch.equal(net[0].weight, before)
