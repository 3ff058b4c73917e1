"""`top_classes`: the most probable classes of a picture, in words."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from touchstone.runs.shown import shown

NUM_CLASSES = 5  # at most


def top_classes(logits: Tensor, class_names: Sequence[str] | None) -> str:
    """The most probable classes with their probabilities, the best first, as `tabby 61.2%, tiger cat 30.1%`."""
    shares, classes = logits.softmax(0).topk(min(NUM_CLASSES, len(logits)))
    found = zip(classes.tolist(), shares.tolist(), strict=True)
    return ", ".join(f"{c if class_names is None else shown(class_names[c])} {share:.1%}" for c, share in found)
