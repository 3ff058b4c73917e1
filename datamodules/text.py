"""`TextDataModule`: windows of text for a language model, from any UTF-8 files or the text that comes with Python."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from touchstone.options import check_choice, check_counts, check_numbers
from touchstone.runs.whole_files import replacing

from .parts.text_windows import Anywhere, Streams, Windows
from .parts.token_files import Pieces, line_with, read_tokens, write_tokens
from .parts.vocabulary import BytePairs, Bytes, Characters, UnknownCharacter, Vocabulary, load_vocabulary

Kind = Literal["characters", "bytes", "byte_pairs"]
Order = Literal["random", "streams"]

_FORMAT = 2  # of the files of tokens: another where the same text is read otherwise


class TextDataModule(pl.LightningDataModule):
    """Text as batches of token ids and of the ids that follow them, int64 `(N, context)` both.

    The text is cut into three pieces, each contiguous: first training, then validation, then test. Each is encoded by
    itself and read through a memory map. What is encoded once is found again under `token_folder`. A checkpoint holds
    the vocabulary, and whatever it is loaded for reads its text by that one from then on.

    Args:
        files: UTF-8 files, one after another, or one; None for the help texts of Python (`pydoc_data.topics`),
            English of about half a megabyte that every Python has. A byte order mark at the beginning of a file is
            left out, of `"bytes"` too.
        tokens: `"characters"`, those that occur anywhere in the text; `"bytes"`; or `"byte_pairs"`, learnt from the
            training text, which needs the package `tokenizers`.
        num_byte_pairs: tokens of the byte-pair encoding, >= 256.
        context: tokens of a window, >= 1.
        batch_size: windows per training step, >= 1.
        eval_batch_size: windows per validation, test and prediction step, >= 1; None for `batch_size`.
        order: `"random"` windows of the training text; or `"streams"`, where row i of every batch continues row i of
            the batch before it, as a state that is carried from batch to batch demands. Validation and test go
            through their windows in order; with `"streams"`, in such rows, and in one process alone. Rows are equally
            long: `Streams` says what is dropped behind them.
        steps_per_epoch: training batches of an epoch of random windows, >= 1, which several processes share; None for
            as many as give each token one time on average.
        val_share: share of the text that is for validation, in (0, 1).
        test_share: share that is for the test, in [0, 1); with 0, the test measures on the validation text.
        token_folder: where to keep encoded texts.

    Attributes:
        vocabulary: tokens to text and back, once it is set up; `class_names` are its tokens as text.
        characters_per_token: by split, `train`, `val` and `test`.

    Raises:
        ValueError: a value is outside its range, a file is missing, empty or not UTF-8, a split is shorter than a
            window, or streams are to be read by several processes.
    """

    def __init__(
        self,
        *,
        files: Sequence[str | Path] | str | Path | None = None,
        tokens: Kind = "characters",
        num_byte_pairs: int = 1024,
        context: int = 64,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        order: Order = "random",
        steps_per_epoch: int | None = None,
        val_share: float = 0.05,
        test_share: float = 0.05,
        token_folder: str = "logs/tokens",
    ) -> None:
        super().__init__()
        eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        check_counts(self, context=context, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_counts(self, steps_per_epoch=steps_per_epoch, none_means="each token once on average")
        check_counts(self, num_byte_pairs=num_byte_pairs, least=256)
        check_choice("TextDataModule(tokens=...)", tokens, get_args(Kind))
        check_choice("TextDataModule(order=...)", order, get_args(Order))
        check_numbers(self, val_share=val_share, test_share=test_share)
        if not (val_share > 0 and test_share >= 0 and val_share + test_share < 1):
            raise ValueError(
                "TextDataModule(val_share=..., test_share=...) must be > 0 and >= 0, and leave something for "
                f"training, got {val_share} and {test_share}"
            )
        files = [files] if isinstance(files, (str, Path)) else files
        if files is not None and not len(files):
            raise ValueError(f"TextDataModule(files=...) must be None or name at least one file, got {files!r}")
        self.files = None if files is None else [Path(file) for file in files]
        self.tokens, self.num_byte_pairs, self.order = tokens, num_byte_pairs, order
        self.context, self.batch_size, self.eval_batch_size = context, batch_size, eval_batch_size
        self.steps_per_epoch = steps_per_epoch
        self.shares, self.token_folder = (1 - val_share - test_share, val_share, test_share), Path(token_folder)
        self._of_checkpoint: Vocabulary | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The tokens as text."""
        return self.vocabulary.names

    def prepare_data(self) -> None:
        folder = self._folder()
        if not (folder / "tokens.json").is_file():
            try:
                write_tokens(folder, self._files(), self.shares, self._learn)
            except UnknownCharacter as error:  # what is learnt of a text has all that it has
                raise ValueError(
                    f"TextDataModule(files=...): {line_with(self._files(), error.character)}, has {error.character!r}, "
                    f"which is none of the {len(error.known)} characters of the checkpoint's vocabulary: "
                    f"{error.known!r}"
                ) from error

    def setup(self, stage: str) -> None:
        self.prepare_data()  # where a process has a disk of its own; elsewhere there is nothing left to do
        self.vocabulary, splits, num_characters = read_tokens(self._folder())
        if not self.shares[2]:
            splits["test"], num_characters["test"] = splits["val"], num_characters["val"]
        for name, ids in splits.items():
            if len(ids) <= self.context:
                raise ValueError(
                    f"TextDataModule(context={self.context}): the text for {name} has {len(ids)} tokens, and a window "
                    f"takes {self.context + 1}: give more text, or another share of it"
                )
        self.characters_per_token = {name: num_characters[name] / len(ids) for name, ids in splits.items()}
        self.splits = splits

    def state_dict(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary.dump()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Reads the text by the vocabulary of a checkpoint, whose ids its net has learnt.

        Raises:
            ValueError: the text has what that vocabulary lacks.
        """
        if state_dict["vocabulary"] != self.vocabulary.dump():
            self._of_checkpoint = load_vocabulary(state_dict["vocabulary"])
            self.setup("")

    def train_dataloader(self) -> DataLoader:
        if self.order == "streams":
            return self._in_order("train", self.batch_size)
        windows = Windows(self.splits["train"], self.context, every=1)
        num_steps = self.steps_per_epoch or max(1, len(windows) // (self.batch_size * self.context))
        return DataLoader(windows, batch_size=self.batch_size, sampler=Anywhere(windows, num_steps * self.batch_size))

    def val_dataloader(self) -> DataLoader:
        return self._in_order("val", self.eval_batch_size)

    def test_dataloader(self) -> DataLoader:
        return self._in_order("test", self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader:
        windows = Windows(self.splits["test"], self.context, every=self.context)
        return DataLoader(windows, batch_size=self.eval_batch_size)

    def _in_order(self, split: str, batch_size: int) -> DataLoader:
        windows = Windows(self.splits[split], self.context, every=self.context)
        if self.order == "streams":
            if self.trainer is not None and self.trainer.world_size > 1:
                raise ValueError(
                    f"TextDataModule(order='streams') runs in one process, got {self.trainer.world_size}: rows that "
                    "continue one another cannot be spread"
                )
            return DataLoader(windows, batch_sampler=Streams(len(windows), batch_size))
        return DataLoader(windows, batch_size=batch_size)

    def _learn(self, pieces: Pieces) -> Vocabulary:
        if self._of_checkpoint is not None:
            return self._of_checkpoint
        if self.tokens == "bytes":
            return Bytes()
        if self.tokens == "characters":
            return Characters.learn(pieces(None))
        return BytePairs.learn(pieces("train"), self.num_byte_pairs)

    def _files(self) -> list[Path]:
        if self.files is None:
            return [_help_texts(self.token_folder)]
        for path in self.files:
            if not path.is_file():
                raise ValueError(f"TextDataModule(files=...): there is no file {path}")
        if not sum(path.stat().st_size for path in self.files):
            raise ValueError(f"TextDataModule(files=...): there is no text in {', '.join(map(str, self.files))}")
        return self.files

    def _folder(self) -> Path:
        """Where the tokens of this very text are kept."""
        # With the time at which the file was changed in any way: a copy may keep that of its writing.
        stats = [(str(path.resolve()), path.stat()) for path in self._files()]
        files = [(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in stats]
        made_of: tuple[Any, ...] = (files, self.tokens, self.shares, _FORMAT)
        if self.tokens == "byte_pairs":
            made_of += (self.num_byte_pairs,)
        if self._of_checkpoint is not None:
            made_of += (self._of_checkpoint.dump(),)
        return self.token_folder / hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]


def _help_texts(folder: Path) -> Path:
    """The help texts of this Python as a file."""
    from pydoc_data.topics import topics

    path = folder / f"pydoc_topics_{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}.txt"
    text = "\n".join(topics[name] for name in sorted(topics)).encode()
    if not path.is_file() or path.stat().st_size != len(text):
        with replacing(path, is_shared=True) as file:
            file.write(text)
    return path
