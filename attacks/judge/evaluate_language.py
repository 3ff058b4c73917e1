"""`evaluate_language`: runs attacks on a language model and trusts none of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from touchstone.options import check_flag

from ..core.attack import Attack
from ..core.checks import as_computed, as_labels, check_batch, check_device, module_of, read_sample_ids
from .halving import Halving
from .judging import judging
from .language_report import LanguageReport
from .language_trial import LanguageTrial
from .running import check_names, check_seed, naming, read_batch_size


def evaluate_language(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    *,
    characters_per_token: float | Tensor = 1.0,
    seed: int = 0,
    sample_ids: Tensor | Sequence[int] | None = None,
    batch_size: int | Halving = 64,
    keep_adversarial: bool = False,
) -> LanguageReport:
    """Measures how well a language model predicts texts before and after each attack.

    As `evaluate` does, it runs attacks on whatever model in evaluation mode, checks what they return and measures it
    again here, and leaves everything as it was. Before and after are measured over the tokens that the attack left:
    the model is asked for the token behind place t where the token at t + 1 is what it was.

    Args:
        model: any module from token ids, int64 `(N, T)`, to logits `(N, T, V)`, of which those at t depend on none of
            the tokens behind t.
        x: the texts, int64 `(N, T)`, T >= 2.
        y: the tokens that follow, int64 `(N, T)`: those of `x` one place further on, and one more.
        attacks: attacks by name, with the objective `Surprise` or `NextToken`.
        characters_per_token: a mean over all texts, > 0; or how many characters each token of the vocabulary has,
            >= 0, `(V,)`, so that those of each text are counted. With 1 the figures are bits per token.
        seed: seeds the random starts, together with the sample's id.
        sample_ids: int64 `(N,)`; None numbers the rows.
        batch_size: texts attacked at a time, >= 1, halved where they do not fit into memory; or a `Halving`, as in
            `evaluate`.
        keep_adversarial: whether the report keeps the attacked texts.

    Returns:
        Bits per character before and after each attack, `(N,)` each, and the costs.

    Raises:
        ValueError: the texts or the logits are not what they must be, the model looks ahead (asked of one text alone,
            the first with two different tokens), an objective is one for classes; or an attack left its threat, or
            changed its input or the model.
        RuntimeError: an attack failed; the message names it.

    Example:
        >>> threat = TokenFlips(2, vocab_size=256)
        >>> print(evaluate_language(model, x, y, {"hot_flip": HotFlip(threat=threat, objective=Surprise())}))
    """
    check_names(attacks)
    check_flag("evaluate_language(keep_adversarial=...)", keep_adversarial)
    halving = read_batch_size("evaluate_language", batch_size)
    check_seed("evaluate_language", seed)
    _check_characters(characters_per_token)
    model = module_of(model)
    _check_texts(x, y)
    check_device(model, x)
    ids = read_sample_ids(sample_ids, y[:, 0])
    for name, attack in attacks.items():
        if not attack.objective.of_texts:
            raise ValueError(
                f"attack {name!r}: {attack.objective!r} is for classes; a language model is attacked with the "
                "objective Surprise(), or NextToken(target=...)"
            )
        naming(name, attack.threat.check_input, x)
        naming(name, attack.check_rows, len(x))

    with judging(model, x.device):
        x, y, ids = as_computed(x, model), as_labels(y), ids.clone()
        trial = LanguageTrial(
            model, x, y, ids, attacks, characters_per_token=characters_per_token, seed=seed, halving=halving
        )
        for name in attacks:
            trial.attack(name, keep=keep_adversarial)
        if halving is not batch_size:
            halving.say()
        return trial.report()


def _check_characters(given: float | Tensor) -> None:
    if isinstance(given, Tensor):
        if given.ndim != 1 or bool((given < 0).any()) or not bool(given.isfinite().all()):
            raise ValueError(
                "evaluate_language(characters_per_token=...) must be a number, or one for each token of the vocabulary "
                f"`(V,)`, finite and >= 0, got the shape {tuple(given.shape)}"
                + (f" and values from {float(given.min())}" if given.numel() else "")
            )
    elif not 0 < given < math.inf:
        raise ValueError(f"evaluate_language(characters_per_token=...) must be > 0, got {given}")


def _check_texts(x: Tensor, y: Tensor) -> None:
    both = isinstance(x, Tensor) and isinstance(y, Tensor)
    if not (both and y.ndim == 2 and y.shape[1] == 1):  # one token, and no column of classes
        check_batch(x, y)
    if x.is_floating_point() or x.ndim != 2 or y.shape != x.shape or x.shape[1] < 2:
        raise ValueError(
            f"texts and the tokens that follow must be whole numbers `(N, T)` both, T >= 2, got {x.dtype} "
            f"{tuple(x.shape)} and {tuple(y.shape)}"
        )
    left_out = (y < 0).nonzero()
    if len(left_out):
        row, place = left_out[0].tolist()
        raise ValueError(
            "the labels must be the tokens that follow, each of them one of the vocabulary; text "
            f"{row} has {int(y[row, place])} at place {place}, as labels have which a loss is to leave out: a text is "
            "measured over all of its places, so cut off what is padding, or take windows of one length"
        )
    astray = (y[:, :-1] != x[:, 1:]).any(1)
    if bool(astray.any()):
        row = int(astray.nonzero()[0, 0])
        is_unshifted = torch.equal(y[row].to(x.dtype), x[row])
        raise ValueError(
            f"the labels must be the tokens that follow, `y[:, :-1] == x[:, 1:]`; they are not in text {row}"
            + (", whose labels are its own tokens: shift them, `tokens[:, :-1], tokens[:, 1:]`" if is_unshifted else "")
        )
