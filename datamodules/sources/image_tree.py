"""`ImageTree`: pictures in folders named by their class, as torchvision's `ImageFolder` takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image, ImageOps

from touchstone.options import check_choice, check_counts, check_flags

from ..parts.pixel_cache import Built, Decoded, PixelCache
from ..parts.read_picture import picture_suffixes, read_picture
from ..parts.split_names import SPELLINGS, misspelt_split
from ..parts.tree_files import TreeFile, tree_files, tree_folders, tree_hash
from .source import Labelled, Source, Split


class ImageTree(Source):
    """Pictures by class: `train/CLASS/...`, and perhaps `val/CLASS/...` and `test/CLASS/...`; or `CLASS/...` alone.

    They are decoded once, and kept as bytes under a hash of their content.

    Args:
        root: the folder, or a tar archive of it, which is read as it lies.
        size: height and width to which pictures are brought, the short side resized, bicubic, and the centre cut
            out; None where all are of one size already.
        grey: whether to read them as grey, with one channel in place of three.
        corrupt: what to do with a picture that cannot be read: `"error"`, or `"skip"`, which counts them in a warning.

    Raises:
        ValueError: a value is outside its range, or there is no such folder or archive; when it is read: a picture, a
            class or the name of a split is not as it must be.
    """

    def __init__(
        self, root: str, *, size: int | None = None, grey: bool = False, corrupt: Literal["error", "skip"] = "error"
    ) -> None:
        check_counts(self, size=size, none_means="that of the images")
        check_flags(self, grey=grey)
        check_choice("ImageTree(corrupt=...)", corrupt, ("error", "skip"))
        if not Path(root).exists():
            raise ValueError(f"ImageTree(root={root!r}): there is no such folder or archive")
        self.root, self.size, self.grey, self.corrupt = Path(root), size, grey, corrupt

    def has(self, split: Split) -> bool:
        return split == "train" or {"train", split} <= set(self._folders(""))

    def read(self, split: Split, cache_folder: Path) -> Labelled | None:
        if not self.has(split):
            return None
        if split == "train":
            self._refuse_misspelt_splits()
        has_splits = "train" in self._folders("")
        inside = split if has_splits else ""
        class_names = self._class_names("train" if has_splits else "")
        own_names = self._class_names(inside) if split != "train" else class_names
        if unknown := [name for name in own_names if name not in class_names]:
            raise ValueError(
                f"{self._call}: {split}/ has the class {unknown[0]!r}, which train/ lacks: {', '.join(class_names)}"
            )
        cache = PixelCache(cache_folder / self._key(inside, class_names))
        found = cache.read()
        if found is None:
            cache.write(self._decode(inside, class_names))
            found = cache.read()
            assert found is not None
        x, y, skipped = found
        if skipped:
            rank_zero_warn(f"{len(skipped)} of {len(skipped) + len(y)} pictures are left out; the first: {skipped[0]}")
        if missing := set(range(len(own_names))) - set(torch.unique(y).tolist()) if split == "train" else set():
            raise ValueError(f"{self._call}: the folder {class_names[min(missing)]!r} has no pictures")
        return Labelled(x, y, class_names)

    def train_shape(self) -> tuple[int, ...] | None:
        if self.size is not None:
            return None  # all have it
        for path, content in self._files("train" if "train" in self._folders("") else ""):
            with suppress(ValueError):  # what cannot be read is a matter of the training
                return _pixels(read_picture(self.root / path, content=content), self.grey).shape
        return None

    @property
    def _call(self) -> str:
        return f"ImageTree(root={str(self.root)!r})"

    def _folders(self, inside: str) -> tuple[str, ...]:
        """The names of the folders directly inside one."""
        return tuple(sorted(path.name for path in self._tree if path.parent == PurePosixPath(inside)))

    @cached_property
    def _tree(self) -> set[PurePosixPath]:
        return tree_folders(self.root)

    def _class_names(self, inside: str) -> tuple[str, ...]:
        names = self._folders(inside)
        if len(names) < 2:
            where = f"{inside}/ " if inside else ""
            found = f"one class, {names[0]!r}" if names else "no folders of classes"
            if names and not inside and (inner := self._folders(names[0])):
                found += f", with folders of its own, as {', '.join(inner[:3])}: one level too high?"
            raise ValueError(
                f"{self._call}: {where}must have a folder for each of two classes or more, and has {found}"
            )
        return names

    def _refuse_misspelt_splits(self) -> None:
        if found := misspelt_split({name: set(self._folders(name)) for name in self._folders("")}):
            raise ValueError(
                f"{self._call}: {found[0]}/ would not be read as a split; "
                f"splits are {', '.join(f'{split}/' for split in SPELLINGS)}, and the nearest is {found[1]}/"
            )

    def _key(self, inside: str, class_names: tuple[str, ...]) -> str:
        """Of all that decides what is kept: labels are, as places in these names, which another split may change."""
        options = repr((class_names, tree_hash(self.root, inside), self.size, self.grey, self.corrupt))
        return f"{hashlib.blake2b(options.encode(), digest_size=16).hexdigest()}.images"

    def _decode(self, inside: str, class_names: tuple[str, ...]) -> Built:
        skipped: list[str] = []
        return Built(self._decoded(inside, class_names, skipped), skipped)

    def _decoded(self, inside: str, class_names: tuple[str, ...], skipped: list[str]) -> Iterator[Decoded]:
        numbers = {name: number for number, name in enumerate(class_names)}
        depth = len(PurePosixPath(inside).parts)
        first: tuple[PurePosixPath, tuple[int, int]] | None = None
        for path, content in self._files(inside):
            try:
                picture = read_picture(self.root / path, content=content)
            except ValueError as error:
                if self.corrupt == "error":
                    raise ValueError(
                        f"{self._call}: {path} cannot be read: {error}; corrupt: skip leaves such pictures out"
                    ) from error
                skipped.append(f"{path}: {error}")
                continue
            if self.size is not None:
                picture = ImageOps.fit(picture, (self.size, self.size), Image.Resampling.BICUBIC)
            first = first or (path, picture.size)
            if picture.size != first[1]:
                raise ValueError(
                    f"{self._call}: {path} has {picture.width} x {picture.height} pixels and {first[0]} "
                    f"{first[1][0]} x {first[1][1]}: set a size to bring them to"
                )
            yield _pixels(picture, self.grey), numbers[path.parts[depth]]
        if first is None:
            raise ValueError(f"{self._call}: there are no pictures in {inside or 'its folders'}")

    def _files(self, inside: str) -> Iterator[TreeFile]:
        """What are pictures by their name, in folders of classes."""
        known = picture_suffixes()
        depth = len(PurePosixPath(inside).parts)
        for path, content in tree_files(self.root, inside):
            is_picture = path.suffix.lower() in known and not path.name.startswith(".")
            if is_picture and len(path.parts) >= depth + 2:
                yield path, content


def _pixels(picture: Image.Image, grey: bool) -> np.ndarray:
    """Bytes, uint8 `(C, H, W)`."""
    return np.asarray(picture.convert("L"))[None] if grey else np.asarray(picture).transpose(2, 0, 1)
