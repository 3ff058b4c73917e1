"""The windows of a text: at random places or in streams, each with the tokens one further on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from touchstone.datamodules.parts.text_windows import Streams, Windows

from .text_files import data, write


def test_targets_are_the_tokens_one_further_on(tmp_path: Path) -> None:
    module = data(tmp_path, write(tmp_path))
    ids = torch.from_numpy(module.splits["val"].astype(np.int64))
    x, y = (torch.cat(parts).flatten() for parts in zip(*module.val_dataloader(), strict=True))
    assert torch.equal(x, ids[: len(x)])
    assert torch.equal(y, ids[1 : len(x) + 1])
    assert len(ids) - len(x) <= 16  # what fills no window
    for x, y in module.train_dataloader():
        assert x.shape == y.shape == (4, 16)
        assert x.dtype == torch.int64
        assert torch.equal(x[:, 1:], y[:, :-1])


@pytest.mark.parametrize("every", [1, 3, 4])
@pytest.mark.parametrize("num_tokens", range(5, 15))
def test_every_window_that_has_its_last_target_is_one(num_tokens: int, every: int) -> None:
    windows, ids = Windows(np.arange(num_tokens), 4, every), list(range(num_tokens))
    expected = [ids[start : start + 5] for start in range(0, num_tokens, every) if start + 5 <= num_tokens]
    assert [[*x.tolist(), int(y[-1])] for x, y in (windows[i] for i in range(len(windows)))] == expected
    with pytest.raises(IndexError):
        windows[len(expected)]


def test_random_windows_begin_anywhere_and_an_epoch_is_as_long_as_it_is_said(tmp_path: Path) -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(2000))
    module = data(tmp_path, write(tmp_path, text), steps_per_epoch=50)
    assert len(module.train_dataloader()) == 50
    firsts = torch.cat([x[:, 0] for x, _ in module.train_dataloader()])
    assert len(set(firsts.tolist())) == 26
    module.steps_per_epoch = None
    assert len(module.train_dataloader()) == (1400 - 16) // (4 * 16)


def test_streams_continue_from_batch_to_batch(tmp_path: Path) -> None:
    module = data(tmp_path, write(tmp_path), order="streams")
    for loader, split in ((module.train_dataloader(), "train"), (module.val_dataloader(), "val")):
        x, y = (torch.cat(parts, 1) for parts in zip(*loader, strict=True))
        ids = module.splits[split].astype(np.int64)
        length = x.shape[1]
        assert torch.equal(x[:, 1:], y[:, :-1])
        for row in range(4):
            assert np.array_equal(x[row].numpy(), ids[row * length : (row + 1) * length])


@pytest.mark.parametrize("batch_size", [1, 2, 8, 32])
def test_streams_leave_out_next_to_nothing_of_a_text_of_any_length(batch_size: int) -> None:
    """Of 63 windows in batches of 32, 31 had been left out."""
    for num_windows in range(1, 300):
        batches = np.array(list(Streams(num_windows, batch_size)))
        assert len(batches) == len(Streams(num_windows, batch_size))
        assert batches.shape[1] <= batch_size
        assert np.array_equal(batches.T.flatten(), np.arange(batches.size))  # each once, and in rows
        assert num_windows - batches.size <= num_windows / (batch_size + 1)
        assert batches.size >= min(batch_size, num_windows) * (num_windows // min(batch_size, num_windows))


def test_streams_in_several_processes_are_refused_and_random_windows_are_not(tmp_path: Path) -> None:
    random, streams = (data(tmp_path, write(tmp_path), order=order) for order in ("random", "streams"))
    for module in (random, streams):
        module.trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    assert min(map(len, (random.train_dataloader(), random.val_dataloader()))) >= 1
    for loader in (streams.train_dataloader, streams.val_dataloader, streams.test_dataloader):
        with pytest.raises(ValueError, match=r"TextDataModule\(order='streams'\) runs in one process, got 2"):
            loader()
