"""`LanguageModel` against plain loops over torch's own layers: its steps, and targets that are left out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from touchstone.lightning_modules import LanguageModel, WarmupCosine
from touchstone.nets import RecurrentLM

from .lightning_programs import trainer
from .small_language import small_lm, text_data

LEFT_OUT = -100  # as torch's cross-entropy has it


def in_one_batch_each(batches: list[tuple[Tensor, Tensor]]) -> DataLoader:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def test_steps_with_a_carried_state_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Truncated back-propagation, warm-up and half a cosine, clipping, two batches a step, decay of matrices alone."""
    torch.manual_seed(0)
    ids = torch.randint(0, 9, (4, 5 * 6 + 1))
    batches = [(ids[:, i : i + 6], ids[:, i + 1 : i + 7]) for i in range(0, 30, 6)] + [(ids[:3, :6], ids[:3, 1:7])]
    net = RecurrentLM(9, dim=8, hidden=8, tie_weights=True).double()
    lstm = nn.LSTM(8, 8, batch_first=True).double()
    words, bias = (nn.Parameter(p.detach().clone()) for p in (net.embedding.weight, net.head.bias))
    lstm.load_state_dict(net.recurrent.state_dict())

    def optimizer(groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.3)

    module = LanguageModel(net, optimizer, lambda o: WarmupCosine(o, 2, 6), carry_state=True, sample_tokens=0)
    options = {"precision": "64-true", "accumulate_grad_batches": 2, "gradient_clip_val": 0.1}
    loader = in_one_batch_each(batches)
    trainer(tmp_path, max_epochs=2, limit_val_batches=0, **options).fit(module, loader, loader)

    parameters = [words, bias, *lstm.parameters()]
    decayed, others = ([p for p in parameters if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
    by_hand = optimizer([{"params": decayed}, {"params": others, "weight_decay": 0.0}])
    shares = [1 / 3, 2 / 3, *(0.1 + 0.9 * (1 + math.cos(math.pi * done / 4)) / 2 for done in range(4))]
    state = None
    for number, share in enumerate(shares):
        first = 2 * number % len(batches)
        state = state if first else None
        for x, y in batches[first : first + 2]:
            if state is not None and state[0].shape[1] != len(x):
                state = None
            out, state = lstm(F.embedding(x, words), state)
            (F.cross_entropy((out @ words.T + bias).mT, y) / 2).backward()
            state = state[0].detach(), state[1].detach()
        nn.utils.clip_grad_norm_(parameters, 0.1)
        for group in by_hand.param_groups:
            group["lr"] = 0.01 * share
        by_hand.step()
        by_hand.zero_grad()
    torch.testing.assert_close(net.recurrent.state_dict(), dict(lstm.state_dict()), rtol=0, atol=1e-12)
    torch.testing.assert_close(net.embedding.weight, words, rtol=0, atol=1e-12)


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
