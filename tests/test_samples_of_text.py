"""The texts that `LanguageModel` writes at validations, and where it can write none."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.datamodules import TextDataModule
from touchstone.lightning_modules import LanguageModel
from touchstone.nets import RecurrentLM, TransformerLM
from touchstone.nets.generate import Sampling, generate

from .lightning_programs import events, trainer
from .small_language import small_lm, text_data


def test_a_validation_of_a_net_that_is_not_finite_writes_no_sample_and_says_so_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lm = RecurrentLM(256, dim=8, hidden=16)
    module = LanguageModel(lm, lambda groups: torch.optim.SGD(groups, lr=1e38), sample_tokens=5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, max_epochs=2).fit(module, datamodule=text_data(tmp_path))
    said = [str(warning.message) for warning in caught if "sample" in str(warning.message)]
    assert len(said) == 1
    assert re.match("LanguageModel writes no sample while this is so: .* the logits are not finite", said[0])
    assert not list(tmp_path.rglob("samples.txt"))


def test_a_sample_is_shown_at_each_validation_and_changes_nothing(tmp_path: Path) -> None:
    trained = []
    for name, options in (("silent", {"sample_tokens": 0}), ("writing", {"sample_tokens": 30, "prompt": "The "})):
        pl.seed_everything(0)
        module = small_lm(**options)
        trainer(tmp_path / name, max_epochs=2).fit(module, datamodule=text_data(tmp_path))
        trained.append(module.state_dict())
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])
    written = next((tmp_path / "writing").rglob("samples.txt")).read_text()
    assert written.count("=== step") == 2
    assert "=== step 2\nThe " in written
    assert not list((tmp_path / "silent").rglob("samples.txt"))
    shown = events(tmp_path / "writing")
    steps = [event.step for event in shown.Scalars("val/loss")]
    assert [event.step for event in shown.Tensors("val/sample/text_summary")] == steps


def test_a_sample_leaves_each_part_of_the_net_in_its_mode(tmp_path: Path) -> None:
    data, module = text_data(tmp_path), small_lm(sample_tokens=0)
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    module.train()
    module.net.dropout.eval()  # type: ignore[union-attr]
    before = [part.training for part in module.modules()]
    module.sample("The ", 1)
    assert [part.training for part in module.modules()] == before


@pytest.mark.slow
def test_the_config_for_text_writes_words_of_its_vocabulary(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the temperature of the config, and still mostly at a higher one."""
    import train

    monkeypatch.chdir(tmp_path)
    assert train.main(["fit", "--config", str(root / "configs/text.yaml")]) == 0
    stored = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)["state_dict"]
    made = RecurrentLM(256, cell="gru", dim=64, hidden=256).eval()
    made.load_state_dict({name.removeprefix("net."): value for name, value in stored.items() if "net." in name})
    data = TextDataModule(tokens="bytes")
    data.setup("fit")
    known = set(re.findall("[a-z]+", bytes(data.splits["train"]).decode().lower()))
    first = torch.tensor([list(b"The ")] * 8)
    for temperature, least in ((0.5, 0.85), (0.8, 0.65)):
        ids = generate(made, first, 500, Sampling(temperature=temperature), generator=torch.Generator().manual_seed(0))
        words = re.findall("[a-z]+", " ".join(data.vocabulary.decode(row) for row in ids.tolist()).lower())
        assert sum(word in known for word in words) / len(words) > least


def test_a_net_that_cannot_go_on_is_refused_before_training_and_trains_without_samples(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Embedding(256, 4), nn.Linear(4, 256))

        def forward(self, tokens: Tensor) -> Tensor:
            return self.net(tokens)

    net, data = Plain(), text_data(tmp_path)
    with pytest.raises(
        ValueError, match=r"\(sample_tokens=200\): .* Plain lacks 'extend' and 'context'; sample_tokens=0"
    ):
        LanguageModel(net)
    with pytest.raises(ValueError, match=r"\(carry_state=True\): the net must have 'extend', .* Plain lacks 'extend'$"):
        LanguageModel(net, sample_tokens=0, carry_state=True)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(LanguageModel(net, sample_tokens=0), data)
    assert "val/perplexity" in run.callback_metrics


@pytest.mark.parametrize("prompt", [None, "the"])
def test_loaders_of_ones_own_train_without_samples_and_it_is_said_once(tmp_path: Path, prompt: str | None) -> None:
    tokens = torch.randint(7, (12, 9), generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), 4)
    run = trainer(tmp_path, max_epochs=2, num_sanity_val_steps=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(LanguageModel(RecurrentLM(7, dim=4, hidden=4), prompt=prompt), loader, loader)
    said = [str(warning.message) for warning in caught if "sample_tokens=0" in str(warning.message)]
    assert len(said) == 1
    assert "LanguageModel writes no samples, which need a data module" in said[0]
    assert run.global_step == 6
    assert "val/perplexity" in run.callback_metrics


class OwnVocabulary:
    """Turns texts into tokens and back, and has no name for a token."""

    def __len__(self) -> int:
        return 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8)

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


@pytest.mark.parametrize("prompt", [None, "a"])
def test_a_vocabulary_without_names_is_enough_for_a_prompt_of_ones_own(tmp_path: Path, prompt: str | None) -> None:
    class OwnData(pl.LightningDataModule):
        vocabulary = OwnVocabulary()

        def val_dataloader(self) -> DataLoader:
            tokens = torch.randint(256, (4, 9), generator=torch.Generator().manual_seed(0))
            return DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), 4)

    module, run = LanguageModel(RecurrentLM(256, dim=4, hidden=4), prompt=prompt, sample_tokens=5), trainer(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.validate(module, OwnData(), verbose=False)
    said = [str(warning.message) for warning in caught if "writes no samples" in str(warning.message)]
    assert Path(str(run.log_dir), "samples.txt").exists() == (prompt is not None) == (not said)
    assert all("; here it lacks names;" in message for message in said)


@pytest.mark.parametrize(
    ("positions", "window", "prompt", "sample_tokens", "is_said"),
    [
        ("learned", 8, None, 9, True),
        ("learned", 16, None, 50, False),
        ("learned", 8, None, 8, False),
        ("learned", 8, "the", 7, True),
        ("learned", 8, "the", 6, False),
        ("learned", 8, "so it goes on", 0, False),
        ("rotary", 8, None, 50, False),
    ],
)
def test_samples_at_positions_that_no_window_reaches_are_warned_of(
    tmp_path: Path, positions: Any, window: int, prompt: str | None, sample_tokens: int, is_said: bool
) -> None:
    lm = TransformerLM(256, dim=8, num_heads=2, num_layers=1, context=16, positions=positions)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, max_epochs=1)
        run.fit(
            LanguageModel(lm, sample_tokens=sample_tokens, prompt=prompt),
            datamodule=text_data(tmp_path, context=window),
        )
    said = [str(warning.message) for warning in caught if "positions" in str(warning.message)]
    assert len(said) == is_said
    assert not said or "learnt positions for 16 tokens and is trained on windows of 8" in said[0]
