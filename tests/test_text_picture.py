"""Pictures of attacked texts: what was flipped can be seen, whatever it became."""

from __future__ import annotations

from pathlib import Path

from touchstone.attacks import PGD, Attack, EmbeddingBall, RandomFlips, TokenFlips
from touchstone.callbacks import RobustAccuracy
from touchstone.callbacks.parts.pictures.shown_tokens import token_names
from touchstone.callbacks.parts.pictures.text_picture import FlippedText, text_picture
from touchstone.datamodules import PassagesDataModule, TextDataModule
from touchstone.datamodules.parts.vocabulary import Bytes
from touchstone.lightning_modules import Classifier
from touchstone.nets import TextClassifier

from .lightning_programs import trainer


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
