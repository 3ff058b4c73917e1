"""Classes of texts: padding has no influence, no passage leaks from one split into another, and it can be learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from touchstone.datamodules import PassagesDataModule
from touchstone.datamodules.parts.words import Words
from touchstone.lightning_modules import Classifier
from touchstone.nets import TextClassifier

from .lightning_programs import trainer

BODIES = ("rnn", "lstm", "gru", "transformer")


def net_of(body: str, **options: int) -> TextClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TextClassifier(11, 3, body=body, dim=8, **options).double().eval()  # type: ignore[arg-type]


def texts(num_texts: int = 6, length: int = 7, first: int = 1) -> Tensor:
    return torch.randint(first, 11, (num_texts, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("body", BODIES)
def test_padding_behind_a_text_has_no_influence(body: str) -> None:
    net, tokens = net_of(body, num_layers=2), texts()
    padded = torch.cat([tokens, torch.zeros(6, 5, dtype=torch.int64)], 1)
    assert torch.allclose(net(padded), net(tokens), atol=1e-12)


@pytest.mark.parametrize("body", BODIES)
def test_every_word_and_the_order_of_words_has_an_influence(body: str) -> None:
    net, tokens = net_of(body), texts()
    for place in range(7):
        other = tokens.clone()
        other[:, place] = other[:, place] % 10 + 1
        assert ((net(other) - net(tokens)).abs().amax(1) > 1e-6).all()
    assert not torch.allclose(net(tokens.flip(1)), net(tokens), atol=1e-6)


@pytest.mark.parametrize("body", BODIES)
def test_a_text_of_padding_alone_is_read_out_as_zeros(body: str) -> None:
    net = net_of(body)
    assert torch.equal(net(torch.zeros(2, 4, dtype=torch.int64)), net.read_out.bias.expand(2, -1))


def test_another_padding_id_is_taken_at_its_word() -> None:
    net, tokens = net_of("gru", padding=10), texts(first=0) % 10
    padded = torch.cat([tokens, torch.full((6, 3), 10)], 1)
    assert torch.allclose(net(padded), net(tokens), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 1}, r"TextClassifier\(vocab_size=...\) must be >= 2, got 1"),
        ({"num_classes": 1}, r"TextClassifier\(num_classes=...\) must be >= 2, got 1"),
        ({"num_layers": 0}, r"TextClassifier\(num_layers=...\) must be >= 1, got 0"),
        ({"padding": 11}, r"TextClassifier\(padding=...\) must be a token, 0 to 10, got 11"),
        ({"body": "cnn"}, r"TextClassifier\(body=...\) must be one of 'rnn', 'lstm', 'gru', 'transformer', got 'cnn'"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextClassifier(**{"vocab_size": 11, "num_classes": 3, **options})


def test_an_odd_number_of_features_is_for_recurrent_bodies() -> None:
    for body in ("rnn", "lstm", "gru"):
        assert TextClassifier(11, 3, body=body, dim=7)(texts()).shape == (6, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dim=...\) must be even, got 7"):
        TextClassifier(11, 3, body="transformer", dim=7, num_heads=1)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be ids `\(texts, tokens\)`, got torch.float32 \(2, 4\)"):
        net_of("gru")(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"TextClassifier\(vocab_size=11\): .* ids from 0 to 10, got 3 to 20"):
        net_of("gru")(torch.tensor([[3, 20]]))


def test_passages_with_more_words_than_the_net_knows_name_the_largest_id(tmp_path: Path) -> None:
    module, data = Classifier(TextClassifier(100, 6, dim=8)), PassagesDataModule(num_words=1500)
    with pytest.raises(
        ValueError, match=r"TextClassifier\(vocab_size=100\): the tokens must be .* 0 to 99, got 0 to 1\d+"
    ):
        trainer(tmp_path).fit(module, datamodule=data)


# The data.


def test_no_passage_stands_in_two_splits_or_two_classes() -> None:
    data = PassagesDataModule(num_words=20_000)
    data.setup("fit")
    rows = [tuple(row) for split in data.splits.values() for row in split.tensors[0].tolist()]
    known = [row for row in rows if Words.unknown not in row]
    assert len(known) > 1000
    assert len(set(known)) == len(known)


@pytest.mark.parametrize("num_words", [200, 1500])
def test_no_passage_of_training_is_measured_on_however_few_words_are_known(num_words: int) -> None:
    data = PassagesDataModule(num_words=num_words)
    data.setup("fit")
    train, *others = (
        {tuple(row) for row in data.splits[split].tensors[0].tolist()} for split in ("train", "val", "test")
    )
    assert all(len(rows) > 200 and not rows & train for rows in others)


def test_the_words_of_a_checkpoint_are_those_that_its_net_has_learnt(tmp_path: Path) -> None:
    def texts(*first: str) -> PassagesDataModule:
        files = {}
        for number, name in enumerate(("one", "two")):
            parts = [" ".join(f"{name}{(part + word) % 9}" for word in range(6)) for part in range(30)]
            files[name] = str(tmp_path / f"{name}{len(first)}")
            Path(files[name]).write_text("\n\n".join([*first[number : number + 1], *dict.fromkeys(parts)]))
        return PassagesDataModule(files=files, length=6, num_words=18, batch_size=2)

    torch.manual_seed(0)
    module = Classifier(TextClassifier(20, 2, dim=16), lambda p: torch.optim.Adam(p, lr=0.05))
    run = trainer(tmp_path, max_epochs=10)
    run.fit(module, datamodule=texts())
    run.save_checkpoint(tmp_path / "trained.ckpt")
    others = texts("two8 " * 6, "one8 " * 6)  # which puts the words in another order
    (figures,) = trainer(tmp_path).validate(module, others, ckpt_path=tmp_path / "trained.ckpt", verbose=False)
    assert others.vocabulary.words == texts_words(texts())
    assert figures["val/accuracy"] == 1.0
    assert trainer(tmp_path).validate(module, others, verbose=False)[0]["val/accuracy"] == 1.0
    again = texts("two8 " * 6, "one8 " * 6)
    assert texts_words(again) != others.vocabulary.words
    with pytest.raises(
        ValueError, match=r"by the known words \(those of the checkpoint\) every passage for val is the"
    ):
        again.load_state_dict({"words": ["none", "of", "these"]})


def test_labels_are_those_of_a_checkpoint_whatever_order_the_files_are_named_in(tmp_path: Path) -> None:
    names = ("one", "two", "three")
    for name in names:
        parts = [" ".join(f"{name}{(part + word) % 9}" for word in range(6)) for part in range(9)]
        (tmp_path / name).write_text("\n\n".join(parts))

    def texts(*ordered: str) -> PassagesDataModule:
        files = {name: str(tmp_path / name) for name in ordered}
        return PassagesDataModule(files=files, length=6, val_share=0.2, test_share=0.2)

    learnt = texts(*names)
    learnt.setup("fit")
    others = texts("three", "one", "two")
    others.setup("fit")
    others.load_state_dict(learnt.state_dict())
    for _ in range(2):
        assert others.class_names == names
        for tokens, labels in others.val_dataloader():
            words = [others.vocabulary.decode(row).split()[0] for row in tokens.tolist()]
            assert [names[label] for label in labels.tolist()] == [word[:-1] for word in words]
        others.setup("test")  # anew, as another stage does
    before = {"words": learnt.state_dict()["words"]}  # as checkpoints were that knew no classes
    others.load_state_dict(before)
    fewer = texts("one", "two")
    fewer.setup("fit")
    with pytest.raises(ValueError, match="must name the classes of the checkpoint, one, two, three, got one, two"):
        fewer.load_state_dict(learnt.state_dict())


def texts_words(data: PassagesDataModule) -> tuple[str, ...]:
    data.setup("fit")
    return data.vocabulary.words


def test_each_text_is_cut_into_contiguous_pieces(tmp_path: Path) -> None:
    files = {}
    for name in ("one", "two"):
        words = [" ".join(f"{name}{5 * part + word}" for word in range(5)) for part in range(20)]
        files[name] = str(tmp_path / name)
        Path(files[name]).write_text("\n\n".join(words), encoding="utf-8")
    data = PassagesDataModule(files=files, length=6, val_share=0.2, test_share=0.3)
    data.setup("fit")
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [20, 8, 12]
    tokens, labels = data.splits["train"].tensors
    first = [data.vocabulary.decode(row.tolist()).split()[0] for row in tokens]
    assert first == [f"{name}{5 * part}" for name in files for part in range(10)]
    assert labels.tolist() == 10 * [0] + 10 * [1]
    assert (tokens[:, 5] == Words.padding).all()
    assert (data.splits["val"].tensors[0][:, :5] == Words.unknown).all()  # words are learnt from training alone


def test_a_byte_order_mark_is_no_word(tmp_path: Path) -> None:
    passages = [f"{letter} one two three four five six" for letter in "abcdefghijklmnopqrstuvwxyz"]
    for number, name in enumerate(("plain", "marked")):
        text = "\n\n".join(f"{passage} {number}" for passage in passages)
        (tmp_path / name).write_text(text, encoding="utf-8-sig" if name == "marked" else "utf-8")
    data = PassagesDataModule(files={name: str(tmp_path / name) for name in ("plain", "marked")})
    data.setup("fit")
    assert not [word for word in data.vocabulary.words if "\ufeff" in word]
    counts = [int((data.splits["train"].tensors[1] == label).sum()) for label in (0, 1)]
    assert counts[0] == counts[1]


def test_words_come_back_and_others_are_unknown() -> None:
    words = Words.learn(["The cat, the dog."], 4)
    assert words.names == ("", "?", "the", ",", ".", "cat")
    assert words.decode([*words.encode("A cat. The"), 0]) == "? cat . the"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 4}, r"PassagesDataModule\(length=...\) must be >= 5, got 4"),
        ({"val_share": 0.6, "test_share": 0.4}, "leave something for training, got 0.6 and 0.4"),
        ({"files": {"one": "a"}}, "must name at least two texts, got 1"),
    ],
)
def test_data_options_outside_their_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PassagesDataModule(**options)


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"abc\xe9")
    (tmp_path / "short").write_text("too few words here", encoding="utf-8")
    for second, message in (
        ("latin", "latin is not UTF-8 at byte 3"),
        ("none", "there is no file .*none"),
        ("short", "'a' has no passage for train, of 0 in all"),
    ):
        files = {"a": str(tmp_path / "short"), "b": str(tmp_path / second)}
        with pytest.raises(ValueError, match=message):
            PassagesDataModule(files=files).setup("fit")
