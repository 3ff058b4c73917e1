"""What `dream` refuses, and in which words."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from touchstone.attacks import dream
from touchstone.attacks.dreaming.options import ALLOWED

from .dream_setting import SHAPE, make_net


@pytest.mark.parametrize(
    ("layer", "x", "options", "message"),
    [
        ("0:a", SHAPE, {}, r"layer='0:a'\) must end in numbers"),
        ("0:1,99", SHAPE, {}, "for one sample has the shape"),
        ([], SHAPE, {}, "at least one layer"),
        (4, SHAPE, {}, r"^dream\(layer=...\) must be a layer by its name, such as 'features.7', got 4$"),
        (["0", 4], SHAPE, {}, r"^dream\(layer=...\) must be a layer by its name, such as 'features.7', got 4$"),
        ([4], SHAPE, {"each": True}, r"^dream\(layer=...\) must be a layer by its name, .* got 4$"),
        (nn.ReLU(), SHAPE, {}, r"^dream\(layer=...\) must be a layer by its name, .* got ReLU\(\)$"),
        (
            ["2", "4:1", "2"],
            SHAPE,
            {},
            r"dream\(layer=...\) must be different layers, whose sum is climbed, got '2' twice",
        ),
        ("0", (3, 16, 16), {}, r"must be pictures `\(N, C, H, W\)`"),
        (
            "0",
            torch.ones(SHAPE) * 255,
            {},
            r"^dream\(x=...\): pictures must be pixels in \[0, 1\], got values from 255 to 255$",
        ),
        ("0", torch.ones(SHAPE, dtype=torch.uint8), {}, r"^dream\(x=...\): pictures must be floats, got torch.uint8"),
        ("0", SHAPE, {"num_steps": 0}, r"num_steps=...\) must be >= 1, got 0"),
        ("0", SHAPE, {"step_size": 0.0}, r"step_size=...\) must be > 0"),
        ("0", SHAPE, {"objective": "L2"}, "must be one of 'l2', 'mean', got 'L2'; did you mean 'l2'.; a class"),
        ("0", SHAPE, {"octave_scale": 1.0}, "must be > 1"),
        ("0", SHAPE, {"jitter": -1}, "must be >= 0"),
        ("0", SHAPE, {"smoothing": 1.0, "decorrelated": True}, "no neighbours"),
        ("0", SHAPE, {"objective": "logit"}, "'l2', 'mean', got 'logit'; a class's logit is the layer of logits"),
        ("0", SHAPE, {"objective": ["l2"]}, "'l2', 'mean', got"),
        ("0", SHAPE, {"objective": "means"}, "got 'means'; did you mean 'mean'"),
        ("0", SHAPE, {"num_steps": "many"}, r"num_steps=...\) must be a whole number >= 1, got 'many'"),
        ("0", SHAPE, {"num_steps": 2.5}, "a whole number >= 1, got 2.5"),
        ("0", SHAPE, {"num_steps": True}, "a whole number >= 1, got True"),
        ("0", SHAPE, {"num_octaves": 1.5}, "a whole number >= 1, got 1.5"),
        ("0", SHAPE, {"jitter": 1.5}, r"jitter=...\) must be a whole number >= 0, got 1.5"),
        ("0", SHAPE, {"seed": "a"}, r"seed=...\) must be a whole number, got 'a'"),
        ("0", SHAPE, {"smoothing": float("inf")}, r"smoothing=...\) must be >= 0 and finite, got inf"),
        ("0", SHAPE, {"step_size": float("nan")}, "must be > 0 and finite, got nan"),
        ("0", SHAPE, {"step_size": "1e-3"}, "must be a number > 0 and finite, got '1e-3'"),
        ("0", SHAPE, {"octave_scale": float("inf")}, "must be > 1 and finite"),
        ("0", SHAPE, {"variation_penalty": -1}, "must be >= 0 and finite, got -1"),
        ("0", SHAPE, {"decorrelated": 1}, r"decorrelated=...\) must be True or False, got 1"),
    ],
)
def test_what_cannot_be_dreamt_says_why(layer: Any, x: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dream(make_net(), layer, x, **options)


def test_every_option_is_checked() -> None:
    options = {n for n, p in inspect.signature(dream).parameters.items() if p.kind == p.KEYWORD_ONLY}
    assert options == {*ALLOWED, "each"}  # which is no option of a config
