"""The gallery shows a picture under each augmentation, and draws nothing from the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from touchstone.callbacks import AugmentationGallery
from touchstone.datamodules.augmentations import DISTORTIONS, Distort


def test_every_augmentation_has_a_panel_that_differs_from_the_picture() -> None:
    gallery = AugmentationGallery({name: Distort(name, probability=1.0) for name in DISTORTIONS})
    torch.manual_seed(5)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), size=32, mode="bilinear")[0] * 0.8
    state = torch.get_rng_state()
    panels = {axes.get_title(): axes.images[0].get_array() for axes in gallery.picture(image).axes if axes.images}
    assert torch.equal(state, torch.get_rng_state())
    assert list(panels) == ["as it is", *DISTORTIONS]
    before = np.asarray(panels["as it is"])
    for name in DISTORTIONS:
        assert np.abs(np.asarray(panels[name])[:, :32] - before).max() > 0.02, name


def test_a_gallery_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="must name one at least"):
        AugmentationGallery({})
    with pytest.raises(ValueError, match="sample=.* >= 0, got -1"):
        AugmentationGallery({"a": Distort("Rotate")}, sample=-1)


def test_the_add_on_names_all_twelve(root: Path) -> None:
    text = (root / "configs/callbacks/gallery.yaml").read_text()
    assert all(f"name: {name}," in text for name in DISTORTIONS)
