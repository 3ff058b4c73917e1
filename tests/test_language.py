"""`LanguageModel`: its figures, the state that it carries, its optimizer, and what it refuses."""

from __future__ import annotations

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.callbacks import GradientNorm, RecurrentJacobian, Saturation
from touchstone.datamodules import TextDataModule
from touchstone.lightning_modules import LanguageModel, WarmupCosine
from touchstone.nets import RecurrentLM

from .lightning_programs import trainer
from .small_language import SMALL, small_lm, text_data


def test_figures_are_means_over_every_token(tmp_path: Path) -> None:
    data, module = text_data(tmp_path), small_lm(sample_tokens=0)
    run = trainer(tmp_path)
    run.validate(module, datamodule=data, verbose=False)
    with torch.no_grad():
        batches = [(module.eval()(x).mT, y) for x, y in data.val_dataloader()]
    losses = [F.cross_entropy(logits, y, reduction="none").flatten() for logits, y in batches]
    nats = float(torch.cat(losses).double().mean())
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(nats, rel=1e-5)
    assert float(run.callback_metrics["val/perplexity"]) == pytest.approx(math.exp(nats), rel=1e-4)
    said = b"".join(bytes(y.flatten().tolist()) for _, y in batches).decode()
    assert "é" in said
    bits = nats / math.log(2) * len(said.encode()) / len(said)
    assert float(run.callback_metrics["val/bits_per_character"]) == pytest.approx(bits, rel=1e-5)


def test_a_carried_state_is_that_of_the_whole_text(tmp_path: Path) -> None:
    """Batch by batch with a carried state, the validation loss is that of each row of text in one piece."""
    data = text_data(tmp_path, order="streams", batch_size=4)
    torch.manual_seed(0)
    module = LanguageModel(RecurrentLM(256, dim=8, hidden=16), carry_state=True, sample_tokens=0)
    run = trainer(tmp_path)
    run.validate(module, datamodule=data, verbose=False)
    batches = list(data.val_dataloader())
    x, y = (torch.cat([batch[part] for batch in batches], 1) for part in (0, 1))
    with torch.no_grad():
        expected = F.cross_entropy(module.eval()(x).mT, y)
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_state_ends_with_its_epoch_and_its_gradient_with_its_batch(tmp_path: Path) -> None:
    module = LanguageModel(RecurrentLM(256, dim=8, hidden=16), carry_state=True, sample_tokens=0)
    fit = trainer(tmp_path, max_epochs=2)
    fit.fit(module, datamodule=text_data(tmp_path, order="streams", batch_size=4))
    assert all(not part.requires_grad for part in module._carried["train"][0])
    module.on_train_epoch_start()
    assert not module.process_state()


def test_a_state_is_carried_only_where_rows_continue_and_the_state_does_not_grow(tmp_path: Path) -> None:
    data, net = text_data(tmp_path, order="random"), RecurrentLM(256, dim=8, hidden=16)
    for run in ("fit", "validate", "test"):
        module = LanguageModel(net, carry_state=True, sample_tokens=0)
        with pytest.raises(
            ValueError, match=r"carry_state=True\): .* which is TextDataModule\(order='streams'\), got order='random'"
        ):
            getattr(trainer(tmp_path), run)(module, datamodule=data)
    trainer(tmp_path, limit_predict_batches=1).predict(LanguageModel(net, carry_state=True), data)  # carries none
    with pytest.raises(
        ValueError,
        match=r"LanguageModel\(carry_state=True\): the net must carry a state of one size, as RecurrentLM does; "
        r"TransformerLM carries the keys and values of a context of 16 tokens",
    ):
        small_lm(carry_state=True)


def test_the_rate_rises_and_falls() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = WarmupCosine(optimizer, 3, 13, 0.1), []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[8] == pytest.approx((2.0 + 0.2) / 2)
    assert rates[13:] == pytest.approx([0.2] * 3)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_a_rate_that_waits_for_a_figure_falls_after_an_epoch_without_progress(tmp_path: Path) -> None:
    """A net that learns nothing is no better than at first in three of four epochs."""
    module = LanguageModel(
        RecurrentLM(256, dim=8, hidden=16),
        lambda groups: torch.optim.SGD(groups, lr=0.8),
        lambda optimizer: ReduceLROnPlateau(optimizer, "val/loss", factor=0.5, patience=0),
        sample_tokens=0,
    )
    for parameter in module.parameters():
        parameter.register_hook(torch.zeros_like)
    run = trainer(tmp_path, max_epochs=4)
    run.fit(module, datamodule=text_data(tmp_path))
    assert [group["lr"] for group in run.optimizers[0].param_groups] == pytest.approx([0.1] * 2)


def test_only_matrices_decay() -> None:
    optimizer = small_lm().configure_optimizers()
    decays = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}  # type: ignore[union-attr]
    assert decays == {2: 0.01, 1: 0.0}


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a data module with a `vocabulary`"):
        small_lm().sample()
    module = LanguageModel(RecurrentLM(11))
    with pytest.raises(ValueError, match="the net has 11 tokens and the text 256: set vocab_size=256"):
        trainer(tmp_path).fit(module, datamodule=text_data(tmp_path))
    text = tmp_path / "letters.txt"
    text.write_text("abcd " * 500)
    data = TextDataModule(files=[str(text)], token_folder=str(tmp_path / "tokens"), **SMALL)
    module = LanguageModel(RecurrentLM(5), prompt="abé")
    with pytest.raises(ValueError, match=r"prompt=...\): the text has 'é' at position 2, which is none of the 5 char"):
        trainer(tmp_path).fit(module, datamodule=data)
    with pytest.raises(ValueError, match="must be None or a text, got an empty one"):
        trainer(tmp_path).fit(LanguageModel(RecurrentLM(5), prompt=""), datamodule=data)


def test_a_checkpoint_is_measured_by_the_characters_that_it_was_trained_with(tmp_path: Path) -> None:
    def letters(text: str) -> TextDataModule:
        (tmp_path / f"{text}.txt").write_text((text + " ") * 300)
        return TextDataModule(files=[str(tmp_path / f"{text}.txt")], token_folder=str(tmp_path / "tokens"), **SMALL)

    def untrained() -> LanguageModel:
        return LanguageModel(RecurrentLM(5, dim=8, hidden=8), lambda p: torch.optim.Adam(p, lr=0.05), prompt="ab")

    module = untrained()
    run, trained = trainer(tmp_path, max_epochs=8), tmp_path / "trained.ckpt"
    run.fit(module, datamodule=letters("abcd"))
    run.save_checkpoint(trained)
    (own,) = trainer(tmp_path).validate(module, letters("abcd"), ckpt_path=trained, verbose=False)
    fewer = letters("abc")  # whose characters alone are four
    (figures,) = trainer(tmp_path).validate(module, fewer, ckpt_path=trained, verbose=False)
    assert len(fewer.vocabulary) == 5
    assert trainer(tmp_path).validate(module, fewer, verbose=False)[0] == figures
    trainer(tmp_path, max_epochs=9).fit(untrained(), datamodule=letters("abc"), ckpt_path=trained)
    trainer(tmp_path).predict(module, letters("abc"), ckpt_path=trained)
    with pytest.raises(ValueError, match="the net has 5 tokens and the text 4: set vocab_size=4"):
        trainer(tmp_path).validate(module, letters("abc"), verbose=False)
    assert own["val/bits_per_character"] < 1 < figures["val/bits_per_character"]
    with pytest.raises(ValueError, match="line 1, has 'g', which is none of the 5 characters of the checkpoint's"):
        trainer(tmp_path).validate(module, letters("gbcd"), ckpt_path=trained, verbose=False)


def test_a_validation_in_mid_epoch_leaves_the_carried_state_alone(tmp_path: Path) -> None:
    """Rows of equal number would otherwise go on in the text of the validation."""

    def trained(folder: str, **options: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        module = LanguageModel(RecurrentLM(256, dim=8, hidden=16), carry_state=True, sample_tokens=0)
        data = text_data(tmp_path, order="streams", batch_size=4, eval_batch_size=4)
        trainer(tmp_path / folder, max_epochs=1, num_sanity_val_steps=0, **options).fit(module, datamodule=data)
        return module.net.state_dict()

    alone, measured = trained("alone", limit_val_batches=0), trained("measured", val_check_interval=2)
    assert all(torch.equal(alone[key], measured[key]) for key in alone)


def test_a_loss_that_is_not_finite_is_no_mean_of_the_others(tmp_path: Path) -> None:
    data, module = text_data(tmp_path), small_lm(sample_tokens=0)
    with torch.no_grad():
        module.net.embedding.weight[ord("9")] = float("nan")  # windows without this character are finite
    run = trainer(tmp_path)
    run.validate(module, datamodule=data, verbose=False)
    assert math.isnan(float(run.callback_metrics["val/loss"]))
    assert math.isnan(float(run.callback_metrics["val/perplexity"]))


def test_a_step_in_double_precision_has_all_its_digits(tmp_path: Path) -> None:
    module = small_lm(optimizer=partial(torch.optim.SGD, lr=1.0), sample_tokens=0)
    net, (x, y) = copy.deepcopy(module.net).double(), torch.arange(32).reshape(2, 2, 8)
    loader = DataLoader(TensorDataset(x, y), 2)
    trainer(tmp_path, precision="64-true", max_epochs=1).fit(module, loader, loader)
    F.cross_entropy(net(x).mT, y).backward()
    for ours, before in zip(module.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, before - before.grad, rtol=0, atol=1e-14)


def test_texts_of_one_token_are_measured_as_others(tmp_path: Path) -> None:
    """Back-propagation through a single step, with the state carried on."""
    data = text_data(tmp_path, context=1, order="streams", batch_size=40)
    module = LanguageModel(RecurrentLM(256, dim=8, hidden=16), carry_state=True, sample_tokens=0)
    run = trainer(tmp_path, GradientNorm(), RecurrentJacobian(), Saturation())
    run.validate(module, datamodule=data, verbose=False)
    assert run.callback_metrics["grad_norm/val/input"] > 0
