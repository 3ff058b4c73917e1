"""`RobustLanguage` says before a training what is wrong with its attacks for this model and these texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from touchstone.attacks import PGD, Attack, EmbeddingBall, HotFlip, InBfloat16, Surprise, TokenFlips, Transfer
from touchstone.callbacks import GradientNorm, RobustAccuracy, RobustLanguage
from touchstone.datamodules import PassagesDataModule, TextDataModule
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.nets import RecurrentLM, TextClassifier

from .lightning_programs import trainer
from .small_language import small_lm, text_data

FLIPS = TokenFlips(2, vocab_size=256)
HOT = HotFlip(threat=FLIPS, objective=Surprise(), num_candidates=4)
WRONG_NAME = PGD(threat=EmbeddingBall(eps=0.3, embedding="net.embeding"), objective=Surprise())
TOO_MANY = HotFlip(threat=TokenFlips(17, vocab_size=256), objective=Surprise())


class Untrained(LanguageModel):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise AssertionError("trained on")


def untrained() -> LanguageModel:
    return Untrained(RecurrentLM(256, cell="gru", dim=8, hidden=16), sample_tokens=0)


@pytest.fixture
def data(tmp_path: Path) -> TextDataModule:
    return text_data(tmp_path)


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"RobustLanguage\(attacks=...\) must name at least one attack"):
        RobustLanguage({})
    with pytest.raises(ValueError, match=r"RobustLanguage\(batch_size=...\) must be >= 1, got 0"):
        RobustLanguage({"hot": HOT}, batch_size=0)
    with pytest.raises(ValueError, match=r"RobustLanguage\(num_texts=...\) must be >= 0, got -1"):
        RobustLanguage({"hot": HOT}, num_texts=-1)


@pytest.mark.parametrize(
    ("attack", "asked_by", "num_sanity_val_steps"),
    [
        (WRONG_NAME, "EmbeddingBall", 0),
        (WRONG_NAME, "EmbeddingBall", 1),
        (replace(HOT, embedding="net.embeding"), "HotFlip", 0),
        (InBfloat16(attack=replace(HOT, embedding="net.embeding")), "HotFlip", 1),
    ],
)
def test_a_wrong_name_of_the_embedding_is_found_before_training(
    data: TextDataModule, tmp_path: Path, attack: Attack, asked_by: str, num_sanity_val_steps: int
) -> None:
    run = trainer(tmp_path, RobustLanguage({"a": attack}), num_sanity_val_steps=num_sanity_val_steps)
    message = rf"attack 'a': {asked_by}\(embedding=...\): there is no embedding 'net.embeding'; the model has 'net.emb"
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
    refuses(RobustLanguage({"a": HOT, "b": flips}), untrained(), data, 256)
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
        RobustAccuracy({"hot": HOT})
    probe = RobustAccuracy({"hot": HotFlip(threat=FLIPS)}, max_samples=4)
    run = trainer(tmp_path, probe, num_sanity_val_steps=num_sanity_val_steps)
    said = r"a language model, with the tokens that follow as labels, here \(\d, 16\), is measured by RobustLanguage"
    with pytest.raises(ValueError, match=said):
        run.fit(small_lm(sample_tokens=0), datamodule=data)
