"""`RobustLanguage` logs what the judge measures, shows it, and changes nothing."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import (
    PGD,
    Attack,
    EmbeddingBall,
    HotFlip,
    NextToken,
    RandomFlips,
    Surprise,
    TokenFlips,
    evaluate_language,
)
from touchstone.attacks.core.sample_rng import SampleRng
from touchstone.callbacks import RobustLanguage
from touchstone.datamodules import TextDataModule
from touchstone.lightning_modules import LanguageModel
from touchstone.nets import RecurrentLM

from .lightning_programs import events, trainer

FLIPS = TokenFlips(2, vocab_size=256)
ATTACKS: dict[str, Attack] = {
    "hot": HotFlip(threat=FLIPS, objective=Surprise(), num_candidates=4),
    "ball": PGD(threat=EmbeddingBall(eps=0.3), objective=Surprise(), num_steps=3),
    "say": HotFlip(threat=FLIPS, objective=NextToken(120), num_candidates=4),
}


def module() -> LanguageModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LanguageModel(RecurrentLM(256, cell="gru", dim=8, hidden=16), sample_tokens=0)


@pytest.fixture
def data(tmp_path: Path) -> TextDataModule:
    """A text in which every character is a byte."""
    path = tmp_path / "text"
    path.write_text("".join(f"{number} is one\nmore than {number - 1}. " for number in range(400)), encoding="utf-8")
    return TextDataModule(
        files=[str(path)], tokens="bytes", context=16, batch_size=8, steps_per_epoch=3, token_folder=str(tmp_path)
    )


def test_it_logs_what_the_judge_measures(data: TextDataModule, tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustLanguage(ATTACKS, max_samples=21))
    run.validate(module(), datamodule=data, verbose=False)
    windows = [data.val_dataloader().dataset[index] for index in range(21)]
    x, y = (torch.stack([window[part] for window in windows]) for part in (0, 1))
    report = evaluate_language(
        module(), x, y, ATTACKS, characters_per_token=data.characters_per_token["val"], batch_size=5
    )
    logged = run.callback_metrics
    assert float(logged["val/bits_per_character/clean"]) == pytest.approx(float(report.clean.mean()), rel=1e-5)
    for name in ATTACKS:
        for tag, values in (
            (f"bits_per_character/{name}", report.after[name]),
            (f"bits_per_character/{name}_before", report.before[name]),
            (f"attack_success/{name}", report.success[name].float()),
        ):
            assert float(logged[f"val/{tag}"]) == pytest.approx(float(values.mean()), rel=1e-4)
    written = json.loads(next(tmp_path.rglob("language_report.json")).read_text())
    assert written["num_texts"] == 21
    assert written["texts"]["bits_per_character/hot"] == pytest.approx(report.after["hot"].tolist(), rel=1e-4)
    assert written["attacks"]["ball"]["num_backwards"] == 21 * 3
    assert set(events(tmp_path).Tags()["images"]) == {"attack/hot", "attack/say"}


@pytest.mark.parametrize(("batch_size", "sizes"), [(16, [16, 5]), (4, [4, 4, 4, 4, 4, 1]), (64, [21])])
def test_texts_are_attacked_so_many_at_a_time_whatever_the_loader(
    data: TextDataModule, tmp_path: Path, batch_size: int, sizes: list[int]
) -> None:
    attacked: list[int] = []

    @dataclass(frozen=True)
    class Counting(RandomFlips):
        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
            attacked.append(len(x))
            return super().perturb(model, x, y, rng)

    attack = Counting(threat=FLIPS, objective=Surprise(), num_candidates=2)
    run = trainer(tmp_path, RobustLanguage({"flips": attack}, max_samples=21, batch_size=batch_size))
    run.validate(module(), datamodule=data, verbose=False)  # its loader gives 8 at a time
    assert attacked == sizes


@pytest.mark.parametrize("tokens", ["bytes", "byte_pairs"])
def test_the_characters_of_each_window_are_counted(tokens: Any, tmp_path: Path) -> None:
    """By hand: of bytes, a character begins wherever a byte is not 0b10xxxxxx; of byte pairs on ASCII, by decoding."""
    if tokens == "byte_pairs":
        pytest.importorskip("tokenizers")
    path, plain = tmp_path / "text", tokens == "byte_pairs"
    words = ["the", "then", "rhythm", "x", "q9"] if plain else ["thé", "ééé", "plain", "人人"]
    order = torch.randint(len(words), (3000,), generator=torch.Generator().manual_seed(0)).tolist()
    path.write_text(" ".join(words[number] for number in order), encoding="utf-8")
    data = TextDataModule(
        files=[str(path)], tokens=tokens, num_byte_pairs=262, context=16, batch_size=8, token_folder=str(tmp_path)
    )
    data.setup("validate")
    torch.manual_seed(0)
    size = len(data.vocabulary)
    model = LanguageModel(RecurrentLM(size, cell="gru", dim=8, hidden=16), sample_tokens=0)
    attack = HotFlip(threat=TokenFlips(1, vocab_size=size), objective=Surprise(), num_candidates=2)
    run = trainer(tmp_path, RobustLanguage({"hot": attack}, max_samples=12))
    run.validate(model, datamodule=data, verbose=False)
    expected, ratios = [], []
    with torch.no_grad():
        for index in range(12):
            x, y = data.val_dataloader().dataset[index]
            nats = F.cross_entropy(model.net.eval()(x[None])[0], y, reduction="sum")
            begun = len(data.vocabulary.decode(y.tolist())) if plain else sum(b & 0xC0 != 0x80 for b in y.tolist())
            expected.append(float(nats) / math.log(2) / begun)
            ratios.append(begun / len(y))
    written = json.loads(next(tmp_path.rglob("language_report.json")).read_text())
    assert written["texts"]["bits_per_character/clean"] == pytest.approx(expected, rel=1e-4)
    assert max(ratios) > 1.1 * min(ratios)


def test_the_tags_that_are_known_before_are_those_of_the_figures(data: TextDataModule, tmp_path: Path) -> None:
    probe = RobustLanguage(ATTACKS, max_samples=4)
    run = trainer(tmp_path, probe)
    run.fit(module(), datamodule=data)
    measured = {
        tag for tag in run.callback_metrics if tag.startswith(("val/bits_per_character/", "val/attack_success"))
    }
    assert set(probe.tags()) == measured


def test_it_does_not_change_training(data: TextDataModule, tmp_path: Path) -> None:
    trained = []
    for name, callbacks in (("alone", []), ("measured", [RobustLanguage(ATTACKS, max_samples=4)])):
        torch.manual_seed(3)
        model = module()
        trainer(tmp_path / name, *callbacks).fit(model, datamodule=data)
        trained.append(model.state_dict())
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


def test_without_a_data_module_the_figures_are_bits_per_token(tmp_path: Path) -> None:
    ids = torch.randint(256, (6, 9), generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(ids[:, :-1], ids[:, 1:]), 4)
    run = trainer(tmp_path, RobustLanguage({"hot": ATTACKS["hot"]}))
    run.test(module(), loader, verbose=False)
    expected = evaluate_language(module(), ids[:, :-1], ids[:, 1:], {"hot": ATTACKS["hot"]})
    assert float(run.callback_metrics["test/bits_per_character/hot"]) == pytest.approx(
        float(expected.after["hot"].mean()), rel=1e-4
    )
    assert not events(tmp_path).Tags()["images"]


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
def test_each_loader_has_a_report_of_its_own(tmp_path: Path) -> None:
    class OfSeveral(LanguageModel):
        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # type: ignore[override]
            super().test_step(batch, batch_idx)

    logger = TensorBoardLogger(tmp_path, version=0, default_hp_metric=False)
    attack = RandomFlips(threat=FLIPS, objective=Surprise(), num_candidates=2)
    ids = torch.randint(256, (6, 9), generator=torch.Generator().manual_seed(0))

    def reports(*sizes: int) -> dict[str, int]:
        run = trainer(tmp_path, RobustLanguage({"flips": attack}, num_texts=0), logger=logger)
        loaders = [DataLoader(TensorDataset(ids[:size, :-1], ids[:size, 1:]), 4) for size in sizes]
        run.test(OfSeveral(module().net), loaders, verbose=False)
        folder = Path(run.log_dir)  # type: ignore[arg-type]
        return {path.name: json.loads(path.read_text())["num_texts"] for path in folder.glob("*.json")}

    assert reports(6, 3) == {"language_report.json": 6, "language_report_1.json": 3}
    assert reports(5) == {"language_report.json": 5}
    assert reports(0, 4, 3) == {"language_report.json": 4, "language_report_2.json": 3}
