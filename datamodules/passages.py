"""`PassagesDataModule`: passages of texts, labelled by the text they come from."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from touchstone.options import check_counts, check_numbers

from .parts.words import Words, split_words

MODULES = {"decimal": "_pydecimal", "io": "_pyio"} | {
    name: name for name in ("ipaddress", "logging", "statistics", "typing")
}
"""Modules that explain themselves at length, and where they are written in Python."""
_FEWEST_WORDS = 5


class PassagesDataModule(pl.LightningDataModule):
    """Passages of several texts as batches of token ids, int64 `(N, length)`, and of the text each comes from, `(N,)`.

    A passage is a paragraph, or a part of one that is longer than `length` words. Each text is cut into three
    contiguous pieces, first training, then validation, then test; a passage that occurs twice is left out everywhere
    but at its first place, and one that occurs in two texts everywhere. Words are learnt from the training passages;
    one of validation or test that by these words is the same as one of training is left out too. A checkpoint
    holds its words and the order of its classes, and whatever it is loaded for reads its passages by them from then on.

    Args:
        files: UTF-8 files by the name of their class, two or more, paragraphs apart by an empty line; None for the
            docstrings of six modules that every Python has, so that a passage is labelled by its module.
        length: the most words of a passage, >= 5; shorter ones are followed by padding, id 0.
        num_words: the most words in the vocabulary, besides padding and unknown ones, >= 1.
        batch_size: passages per training step, >= 1.
        eval_batch_size: passages per validation, test and prediction step, >= 1.
        val_share: share of each text that is for validation, in (0, 1).
        test_share: share that is for the test, in (0, 1).

    Attributes:
        vocabulary: tokens to text and back, once it is set up.
        class_names: the names of the texts, in the order of their labels.

    Raises:
        ValueError: a value is outside its range, a file is missing or not UTF-8, or has no passage for some split.
    """

    def __init__(
        self,
        *,
        files: Mapping[str, str] | None = None,
        length: int = 32,
        num_words: int = 1500,
        batch_size: int = 32,
        eval_batch_size: int = 256,
        val_share: float = 0.15,
        test_share: float = 0.15,
    ) -> None:
        super().__init__()
        check_counts(self, length=length, least=_FEWEST_WORDS)
        check_counts(self, num_words=num_words, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_numbers(self, val_share=val_share, test_share=test_share)
        if not (val_share > 0 and test_share > 0 and val_share + test_share < 1):
            raise ValueError(
                "PassagesDataModule(val_share=..., test_share=...) must be > 0 and leave something for training, got "
                f"{val_share} and {test_share}"
            )
        if files is not None and len(files) < 2:
            raise ValueError(f"PassagesDataModule(files=...) must name at least two texts, got {len(files)}")
        self.files, self.length, self.num_words = files, length, num_words
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.shares = (1 - val_share - test_share, val_share, test_share)
        self.class_names = tuple(MODULES if files is None else files)
        self.splits: dict[str, TensorDataset] = {}
        self._of_checkpoint: Words | None = None

    def setup(self, stage: str) -> None:
        texts = _docstrings() if self.files is None else {name: _read(path) for name, path in self.files.items()}
        passages = {name: self._passages(text) for name, text in texts.items()}
        found_in: dict[str, str] = {}
        shared = set()
        for name, parts in passages.items():
            for part in parts:
                if found_in.setdefault(part, name) != name:
                    shared.add(part)
        splits: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
        for name, parts in passages.items():
            own = [part for part in dict.fromkeys(parts) if part not in shared]
            first, second = (round(len(own) * share) for share in (self.shares[0], sum(self.shares[:2])))
            for split, some in (("train", own[:first]), ("val", own[first:second]), ("test", own[second:])):
                if not some:
                    raise ValueError(f"PassagesDataModule: {name!r} has no passage for {split}, of {len(own)} in all")
                splits[split] += [(part, name) for part in some]
        learnt = Words.learn((part for part, _ in splits["train"]), self.num_words)
        self._labelled = splits
        self._encode(self._of_checkpoint or learnt)

    def state_dict(self) -> dict[str, Any]:
        return {"words": list(self.vocabulary.words), "class_names": list(self.class_names)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Reads the passages by the words of a checkpoint and labels them by its classes, as its net has learnt them.

        Raises:
            ValueError: the checkpoint has other classes.
        """
        class_names = tuple(state_dict.get("class_names", self.class_names))
        if set(class_names) != set(self.class_names):
            raise ValueError(
                f"PassagesDataModule(files=...) must name the classes of the checkpoint, {', '.join(class_names)}, got "
                f"{', '.join(self.class_names)}"
            )
        self.class_names = class_names
        self._of_checkpoint = Words(state_dict["words"])
        self._encode(self._of_checkpoint)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["train"], batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["val"], batch_size=self.eval_batch_size)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["test"], batch_size=self.eval_batch_size)

    predict_dataloader = test_dataloader

    def _passages(self, text: str) -> list[str]:
        """Paragraphs in parts of at most `length` words, each a text of words apart by a space."""
        parts = []
        for paragraph in text.split("\n\n"):
            words = split_words(paragraph)
            parts += [words[start : start + self.length] for start in range(0, len(words), self.length)]
        return [" ".join(words) for words in parts if len(words) >= _FEWEST_WORDS]

    def _encode(self, vocabulary: Words) -> None:
        """Makes the splits from passages in words."""
        self.vocabulary = vocabulary
        label = {name: number for number, name in enumerate(self.class_names)}
        trained: set[bytes] = set()
        for split, labelled in self._labelled.items():
            tokens: Tensor = torch.full((len(labelled), self.length), Words.padding)
            for row, (part, _) in enumerate(labelled):
                ids = torch.from_numpy(vocabulary.encode(part))
                tokens[row, : len(ids)] = ids
            rows = [row.tobytes() for row in tokens.numpy()]
            new = torch.tensor([row not in trained for row in rows])
            if not bool(new.any()):
                known = "those of the checkpoint" if self._of_checkpoint else f"num_words={self.num_words}"
                raise ValueError(
                    f"PassagesDataModule: by the known words ({known}) every passage for {split} is the same as one "
                    "for train"
                )
            if split == "train":
                trained.update(rows)
            self.splits[split] = TensorDataset(tokens[new], torch.tensor([label[name] for _, name in labelled])[new])


def _docstrings() -> dict[str, str]:
    """What each of the modules says of itself, read from its source."""
    texts = {}
    for name, place in MODULES.items():
        spec = find_spec(place)
        assert spec is not None
        assert spec.origin is not None
        nodes = ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
        documented = (node for node in nodes if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)))
        texts[name] = "\n\n".join(filter(None, map(ast.get_docstring, documented)))
    return texts


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").removeprefix("\ufeff")  # a mark of its bytes, and no text
    except FileNotFoundError:
        raise ValueError(f"PassagesDataModule(files=...): there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"PassagesDataModule(files=...): {path} is not UTF-8 at byte {error.start}") from None
