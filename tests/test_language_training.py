"""`LanguageModel` against plain loops over torch's own layers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from .lightning_programs import trainer
from .small_language import small_lm, text_data

LEFT_OUT = -100  # as torch's cross-entropy has it


def in_one_batch_each(batches: list[tuple[Tensor, Tensor]]) -> DataLoader:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def test_targets_that_are_left_out_count_in_no_figure(tmp_path: Path) -> None:
    """Of three batches the second is padded, and the third is nothing else."""
    data, module = text_data(tmp_path), small_lm(sample_tokens=0)
    data.prepare_data()
    data.setup("validate")
    x, y = next(iter(data.val_dataloader()))
    padded = y.clone()
    padded[:, 3:] = LEFT_OUT
    batches = [(x, y), (x.flip(0), padded.flip(0)), (x, torch.full_like(y, LEFT_OUT))]
    data.val_dataloader = lambda: in_one_batch_each(batches)  # type: ignore[method-assign]
    run = trainer(tmp_path)
    run.validate(module, datamodule=data, verbose=False)
    figures = {name: float(value) for name, value in run.callback_metrics.items()}
    with torch.no_grad():
        each = torch.cat([F.cross_entropy(module.eval()(a).mT, b, reduction="none")[b >= 0] for a, b in batches])
    said = torch.cat([b[b >= 0] for _, b in batches])
    num_characters = int(((said < 0x80) | (said >= 0xC0)).sum())  # bytes that begin one
    nats = float(each.double().mean())
    assert figures["val/loss"] == pytest.approx(nats, rel=1e-5)
    assert figures["val/perplexity"] == pytest.approx(math.exp(nats), rel=1e-5)
    bits = float(each.double().sum()) / math.log(2) / num_characters
    assert figures["val/bits_per_character"] == pytest.approx(bits, rel=1e-5)
