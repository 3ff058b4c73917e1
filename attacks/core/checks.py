"""What a model, a batch, its labels and its logits must be like, in words that help the one who gave them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .per_sample import norms


def computing_dtype(model: nn.Module) -> torch.dtype:
    """float64 for a model of float64 weights, float32 for every other."""
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return torch.float64 if dtypes == {torch.float64} else torch.float32


def is_whole(values: Tensor) -> bool:
    """Whether these are whole numbers, of any width, as classes and ids are."""
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def as_computed(x: Tensor, model: nn.Module) -> Tensor:
    """Samples without their history, in the dtype that the model computes in; whole numbers, as tokens are, stay.

    A tensor of a kind of its own, as torchvision's `Image`, becomes a plain one: whatever is computed of it would be of
    that kind too.
    """
    return plain(x).to(computing_dtype(model) if x.is_floating_point() else x.dtype).clone()


def as_labels(y: Tensor) -> Tensor:
    """Labels of one's own, int64, as `as_computed` makes samples."""
    return plain(y).to(torch.int64).clone()


def plain(tensor: Tensor) -> Tensor:
    """The same numbers without their history, and of no kind of their own."""
    return tensor.detach().as_subclass(Tensor)


def module_of(model: object) -> nn.Module:
    """`model` as a module that takes hooks.

    Raises:
        ValueError: it is no module, or a layer of it has no weights yet, as torch's lazy ones before their first batch.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"the model must be a torch.nn.Module from images to logits, got {type(model).__name__}: "
            "put a function into the forward of a module"
        )
    for name, layer in model.named_modules():
        if any(is_lazy(tensor) for own in (layer.parameters, layer.buffers) for tensor in own(recurse=False)):
            raise ValueError(
                f"the model must have all its weights, and its layer {name!r}, a {type(layer).__name__}, does not know "
                "their shapes yet: pass one batch through the model first, `model(x)`, in the mode of evaluation"
            )
    return nn.Sequential(model) if isinstance(model, torch.jit.ScriptModule) else model


def check_batch(x: Tensor, y: Tensor) -> None:
    """Raises ValueError where `x` and `y` are not samples with one class number each.

    Texts, whole numbers `(N, T)` or the vectors `(N, T, D)` of their embedding, may have one for each token, `(N, T)`.
    """
    for name, value in (("images", x), ("labels", y)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(value).__name__}")
    if x.ndim < 2:
        raise ValueError(f"images must be a batch `(N, ...)`, got the shape {tuple(x.shape)}")
    if not is_whole(y):
        raise ValueError(
            f"labels must be class numbers, int64 `(N,)`, got {y.dtype} {tuple(y.shape)}; {_instead_of(y)}"
        )
    is_text = x.ndim == 2 and not x.is_floating_point()  # perhaps of one token each
    if y.ndim == 2 and y.shape[1] == 1 and not (is_text and x.shape == y.shape):
        raise ValueError(f"labels must be `(N,)`, got a column {tuple(y.shape)}; use `y[:, 0]`")
    if y.ndim == 0:
        raise ValueError(
            "images and labels must be batches, `(N, ...)` and `(N,)`; for one image give `x[None], y[None]`"
        )
    of_tokens = is_text or x.ndim == 3 and x.is_floating_point()
    if y.ndim != 1 and not (of_tokens and y.shape == x.shape[:2]):
        raise ValueError(f"labels must be class numbers `(N,)`, got the shape {tuple(y.shape)}; {_instead_of(y)}")
    if len(y) != len(x):
        raise ValueError(f"there must be one label per image, got {len(x)} images and {len(y)} labels")
    if y.device != x.device:
        raise ValueError(f"images and labels must be on one device, got {x.device} and {y.device}")


def _instead_of(y: Tensor) -> str:
    """What to do where these are no class numbers, by what they are likely to be."""
    if y.ndim > 2:
        return "classes of pixels, as in a segmentation, are not measured"
    if y.ndim == 2 and y.shape[1] > 1:
        return "for one-hot use `y.argmax(1)`; several labels of one sample are not measured"
    return (
        "classes in another type, as for a binary cross-entropy, `y.long()` makes such; of numbers to be predicted, "
        "as in a regression, there is no accuracy"
    )


def read_sample_ids(given: Tensor | Sequence[int] | None, y: Tensor) -> Tensor:
    """The ids of samples, int64 `(N,)`, as they were given or numbered."""
    if given is None:
        return torch.arange(len(y), device=y.device)
    try:
        # One of numpy may run backwards, which torch does not take.
        ids = torch.as_tensor(given.copy() if isinstance(given, np.ndarray) else given)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"sample_ids must be integers `(N,)`, got {given!r:.80}") from None
    if ids.shape != y.shape or not is_whole(ids) and len(ids):  # an empty list is one of floats to torch
        raise ValueError(f"sample_ids must be integers {tuple(y.shape)}, got {ids.dtype} {tuple(ids.shape)}")
    return plain(ids).to(y.device, torch.int64)


def check_labels(y: Tensor, num_classes: int, sample_ids: Tensor | None = None) -> None:
    """Raises ValueError where a label is not one of the classes; without ids `(N,)` the first is named by its row."""
    wrong = (y < 0) | (y >= num_classes)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 0])
        which = f"sample {row}" if sample_ids is None else f"sample id {int(sample_ids[row])}"
        raise ValueError(
            f"labels must be classes of the model, 0 to {num_classes - 1}; {which} has the label {int(y[wrong][0])}"
        )


def check_device(model: nn.Module, x: Tensor) -> None:
    """Raises ValueError where the model's parameters lie elsewhere than the images."""
    device = next((p.device for p in model.parameters()), x.device)
    if device != x.device:
        raise ValueError(f"the model is on {device} and the images on {x.device}: move one with `.to(device)`")


def check_shape_of_logits(logits: Tensor, num_samples: int, where: str = "") -> None:
    """Raises ValueError where logits have another shape than `(N, C)`, C >= 2.

    Args:
        logits: what the model returned, of any shape.
        num_samples: N.
        where: which forward this was, for the message.
    """
    if logits.ndim == 2 and len(logits) == num_samples and logits.shape[1] >= 2:
        return
    hint = ""
    if logits.ndim == 3:
        hint = "; a language model is measured by `evaluate_language`"
    elif logits.ndim and logits.numel() == num_samples == len(logits):
        hint = (
            "; of one logit z, as of a binary cross-entropy, make one for each of the two classes: let forward return "
            "`torch.stack([torch.zeros_like(z), z], 1)`, z being `(N,)`, and give the loss the second column"
        )
    raise ValueError(
        f"the model must return logits of shape ({num_samples}, classes) with 2 classes or more, "
        f"got {tuple(logits.shape)}{f' ({where})' if where else ''}{hint}"
    )


def check_logits(logits: Tensor, sample_ids: Tensor, where: str) -> None:
    """Raises ValueError where logits are not `(N, C)` with C >= 2, or not finite; `where` says of which forward."""
    check_shape_of_logits(logits, len(sample_ids), where)
    _check_finite(logits, sample_ids, where)


def check_token_logits(logits: Tensor, sample_ids: Tensor, where: str) -> None:
    """`check_logits` for a language model: logits `(N, T, V)`, V >= 2."""
    if logits.ndim != 3 or len(logits) != len(sample_ids) or logits.shape[2] < 2:
        raise ValueError(
            f"a language model must return logits of shape ({len(sample_ids)}, tokens, vocabulary), "
            f"got {tuple(logits.shape)} ({where})"
        )
    _check_finite(logits, sample_ids, where)


def are_broken(rows: Tensor) -> Tensor:
    """Which samples of `rows`, `(N, ...)`, have an entry that is NaN or infinite: bool `(N,)`."""
    return ~norms(rows, float("inf")).isfinite()  # in a fifth of the time of a look at every entry


def _check_finite(logits: Tensor, sample_ids: Tensor, where: str) -> None:
    bad = are_broken(logits)
    if bool(bad.any()):
        raise ValueError(
            f"the model returned NaN or infinite logits for {int(bad.sum())} of {len(logits)} samples "
            f"({where} of samples {int(sample_ids.min())} to {int(sample_ids.max())}, first sample id "
            f"{int(sample_ids[bad].min())})"
        )


def check_not_probabilities(logits: Tensor, *, without_gradients: bool = False) -> None:
    """Raises ValueError where the rows of `logits` are probabilities, each >= 0 and of sum 1.

    Of fewer than four numbers beyond the last of each row nothing is said: such logits may look so by chance.

    Args:
        logits: what the model gave, `(N, C)`.
        without_gradients: whether no attack asks for them; then decisions, a 1 among zeros, will do.
    """
    if logits.numel() - len(logits) < 4:
        return
    if without_gradients and bool(((logits == 0) | (logits == 1)).all()):
        return
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-2).all()):
        raise ValueError(
            "the model returned probabilities where logits are due (every row is >= 0 and sums to 1): "
            "leave out the last softmax, or attack `log(probabilities)`"
        )


def check_unchanged(x: Tensor, before: Tensor, ids: Tensor) -> None:
    """Raises ValueError where samples `(N, ...)` with these ids are no longer what they were before a forward."""
    changed = (x != before).flatten(1).any(1)
    if bool(changed.any()):
        raise ValueError(
            f"the model changes its input in place, first at sample id {int(ids[changed][0])}, so that nobody knows "
            "what is measured next: normalize by `x = x - mean`, not by `x -= mean` or `x.sub_(mean)`"
        )
