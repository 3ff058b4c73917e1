"""`RobustLanguage` logs what the judge measures, shows it, and changes nothing; texts are drawn as they are."""

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
    Transfer,
    evaluate_language,
)
from touchstone.attacks.core.sample_rng import SampleRng
from touchstone.callbacks import GradientNorm, RobustAccuracy, RobustLanguage
from touchstone.callbacks.parts.pictures.shown_tokens import token_names
from touchstone.callbacks.parts.pictures.text_picture import FlippedText, text_picture
from touchstone.datamodules import PassagesDataModule, TextDataModule
from touchstone.datamodules.parts.vocabulary import Bytes
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.nets import RecurrentLM, TextClassifier

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


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"RobustLanguage\(attacks=...\) must name at least one attack"):
        RobustLanguage({})
    with pytest.raises(ValueError, match=r"RobustLanguage\(batch_size=...\) must be >= 1, got 0"):
        RobustLanguage(ATTACKS, batch_size=0)
    with pytest.raises(ValueError, match=r"RobustLanguage\(num_texts=...\) must be >= 0, got -1"):
        RobustLanguage(ATTACKS, num_texts=-1)


# What is wrong is said before a training.


class Untrained(LanguageModel):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise AssertionError("trained on")


def untrained() -> LanguageModel:
    return Untrained(RecurrentLM(256, cell="gru", dim=8, hidden=16), sample_tokens=0)


WRONG_NAME = PGD(threat=EmbeddingBall(eps=0.3, embedding="net.embeding"), objective=Surprise())
TOO_MANY = HotFlip(threat=TokenFlips(17, vocab_size=256), objective=Surprise())


@pytest.mark.parametrize("num_sanity_val_steps", [0, 1])
def test_a_wrong_name_of_the_embedding_is_found_before_training(
    data: TextDataModule, tmp_path: Path, num_sanity_val_steps: int
) -> None:
    run = trainer(tmp_path, RobustLanguage({"a": WRONG_NAME}), num_sanity_val_steps=num_sanity_val_steps)
    message = (
        r"attack 'a': EmbeddingBall\(embedding=...\): there is no embedding 'net.embeding'; the model has 'net.emb"
    )
    with pytest.raises(ValueError, match=message):
        run.fit(untrained(), datamodule=data)


def test_a_wrong_name_of_the_embedding_of_a_classifier_is_found_before_training(tmp_path: Path) -> None:
    attack = PGD(threat=EmbeddingBall(eps=0.3, embedding="net.embeding"))
    for number, callback in enumerate((RobustAccuracy({"a": attack}), GradientNorm(embedding="net.embeding"))):
        run = trainer(tmp_path / str(number), callback, num_sanity_val_steps=0)
        with pytest.raises(ValueError, match="there is no embedding 'net.embeding'; the model has 'net.embedding'"):
            run.fit(Classifier(TextClassifier(102, 6, dim=8)), datamodule=PassagesDataModule(num_words=100))
        assert run.global_step == 0


@pytest.mark.parametrize("function", ["fit", "validate", "test"])
def test_flips_into_ids_that_are_no_token_are_refused_before_training(
    data: TextDataModule, tmp_path: Path, function: str
) -> None:
    """Also where the net has an embedding for them, and of an attack that another one runs."""

    class Untaught(Classifier):
        training_step = Untrained.training_step

    def refuses(callback: RobustAccuracy | RobustLanguage, module: Any, data: Any, num_tokens: int) -> None:
        message = rf"attack 'b': TokenFlips\(vocab_size={num_tokens + 1}\): .* set vocab_size={num_tokens}$"
        run = trainer(tmp_path, callback, num_sanity_val_steps=0)
        with pytest.raises(ValueError, match=message):
            getattr(run, function)(module, datamodule=data)

    flips = HotFlip(threat=TokenFlips(2, vocab_size=257), objective=Surprise())
    refuses(RobustLanguage({"a": ATTACKS["hot"], "b": flips}), untrained(), data, 256)
    net, words = TextClassifier(200, 6, dim=8), PassagesDataModule(num_words=100)
    few, many = (HotFlip(threat=TokenFlips(2, vocab_size=number)) for number in (50, 103))
    transfer = Transfer(attack=many, source=TextClassifier(200, 6, dim=8))
    refuses(RobustAccuracy({"a": few, "b": transfer}), Untaught(net), words, 102)


def test_a_budget_larger_than_the_text_is_found_in_the_sanity_check(data: TextDataModule, tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustLanguage({"a": TOO_MANY}))
    with pytest.raises(ValueError, match=r"attack 'a': TokenFlips\(num_flips=17\): the texts have only 16 tokens"):
        run.fit(untrained(), datamodule=data)


def test_without_a_sanity_check_the_first_training_texts_are_looked_at(data: TextDataModule, tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustLanguage({"a": TOO_MANY}), num_sanity_val_steps=0)
    message = "RobustLanguage could not attack the samples of a training batch, .* have only 16 tokens"
    with pytest.raises(UserWarning, match=message):  # made an error
        run.fit(untrained(), datamodule=data)


def test_an_objective_for_classes_is_refused() -> None:
    attacks: dict[str, Attack] = {"a": HotFlip(threat=FLIPS)}
    with pytest.raises(ValueError, match=r"RobustLanguage\(attacks=...\): attack 'a' must have the objective Surprise"):
        RobustLanguage(attacks)


@pytest.mark.filterwarnings("ignore:RobustAccuracy could not attack the samples of a training batch")
@pytest.mark.parametrize("num_sanity_val_steps", [0, 1])
def test_the_callback_for_classes_says_which_one_is_for_language_models(
    data: TextDataModule, tmp_path: Path, num_sanity_val_steps: int
) -> None:
    with pytest.raises(ValueError, match=r"attack 'hot' has the objective Surprise\(\), .*: RobustLanguage meas"):
        RobustAccuracy({"hot": ATTACKS["hot"]})
    probe = RobustAccuracy({"hot": HotFlip(threat=FLIPS)}, max_samples=4)
    run = trainer(tmp_path, probe, num_sanity_val_steps=num_sanity_val_steps)
    said = r"a language model, with the tokens that follow as labels, here \(\d, 16\), is measured by RobustLanguage"
    with pytest.raises(ValueError, match=said):
        run.fit(module(), datamodule=data)


# Pictures of texts.


def drawn(texts: list[FlippedText]) -> list[tuple[str, str]]:
    axes = text_picture(texts, title="hot_flip").axes[0]
    return [(text.get_text(), text.get_color()) for text in axes.texts]


def test_a_flipped_word_stands_in_grey_and_red_behind_it_what_it_became() -> None:
    pieces = drawn([FlippedText(["the", "cat", "sat", ""], ["the", "dog", "sat", ""], "cats: cats -> dogs")])
    assert pieces[1:] == [
        ("cats: cats -> dogs", "dimgrey"),
        ("the ", "black"),
        ("cat ", "darkgrey"),
        ("dog ", "crimson"),
        ("sat ", "black"),
    ]


def test_characters_stand_together_and_can_all_be_seen() -> None:
    pieces = drawn([FlippedText(list("a\n$"), list("\x00\n$"), "")])
    assert pieces[1:] == [("a", "darkgrey"), ("\\x00", "crimson"), ("\u21b5", "black"), ("$", "black")]


def test_a_flip_into_or_out_of_a_space_can_be_seen() -> None:
    pieces = drawn([FlippedText(list("a b"), list(" bb"), "")])
    assert pieces[1:] == [
        ("a", "darkgrey"),
        ("\u2423", "crimson"),
        ("\u2423", "darkgrey"),
        ("b", "crimson"),
        ("b", "black"),
    ]


def test_bytes_stand_as_their_characters_where_all_of_one_are_left(tmp_path: Path) -> None:
    """In "\u00df\u00f6x" and a byte that begins no character, the second byte of the second one is flipped."""
    run, (before, after) = trainer(tmp_path), (b"\xc3\x9f\xc3\xb6x\xe4", b"\xc3\x9f\xc3\xe9x\xe4")
    data = TextDataModule(tokens="bytes", token_folder=str(tmp_path))
    data.vocabulary = Bytes()
    run.datamodule = data  # type: ignore[attr-defined]
    names = token_names(run)
    assert names is not None
    assert drawn([FlippedText([names[byte] for byte in before], [names[byte] for byte in after], "")])[1:] == [
        ("\u00df", "black"),
        ("\\xc3", "black"),
        ("\\xb6", "darkgrey"),
        ("\\xe9", "crimson"),
        ("x", "black"),
        ("\\xe4", "black"),
    ]


def test_signs_that_the_font_lacks_are_escapes() -> None:
    text = list("Größe 中 👩")
    picture = text_picture([FlippedText(text, text, "")], title="characters")
    picture.canvas.draw()  # warns of what the font lacks
    shown = "".join(piece.get_text() for piece in picture.axes[0].texts[1:])
    assert shown == "Größe \\u4e2d \\U0001f469"


def test_long_texts_are_wrapped_inside_the_picture() -> None:
    figure = text_picture([FlippedText(["word"] * 100, ["word"] * 100, "none")], title="a title " * 40)
    axes = figure.axes[0]
    right, lowest = axes.get_xlim()[1], axes.get_ylim()[0]
    assert all(text.get_position()[0] + len(text.get_text()) <= right for text in axes.texts)
    assert min(text.get_position()[1] for text in axes.texts) > lowest


def test_attacked_texts_of_a_classifier_are_shown_too(tmp_path: Path) -> None:
    threat = TokenFlips(1, vocab_size=102, protected=(0, 1))
    attacks: dict[str, Attack] = {
        "random": RandomFlips(threat=threat),
        "ball": PGD(threat=EmbeddingBall(eps=0.3), num_steps=2),
    }
    run = trainer(tmp_path, RobustAccuracy(attacks, max_samples=20, num_images=3))
    model = Classifier(TextClassifier(102, 6, body="rnn", dim=8))
    run.validate(model, datamodule=PassagesDataModule(num_words=100, eval_batch_size=20), verbose=False)
    assert [path.name for path in tmp_path.rglob("*.png")] == ["attack_random.png"]
