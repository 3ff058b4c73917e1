"""`evaluate`: runs attacks and trusts none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from torch import Tensor, nn

from touchstone.options import check_flag

from ..core.attack import Attack
from ..core.checks import (
    as_computed,
    as_labels,
    check_batch,
    check_device,
    check_unchanged,
    module_of,
    read_sample_ids,
)
from .evaluate_language import evaluate_language
from .halving import Halving
from .judging import judging
from .language_report import LanguageReport
from .preparing import check_prepare_on
from .report import Report
from .running import check_names, check_seed, naming, read_batch_size
from .trial import Trial


@overload
def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    *,
    characters_per_token: float | Tensor,
    seed: int = 0,
    sample_ids: Tensor | Sequence[int] | None = None,
    batch_size: int | Halving | None = None,
    keep_adversarial: bool = False,
) -> LanguageReport: ...
@overload
def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    *,
    seed: int = 0,
    prepare_on: tuple[Tensor, Tensor] | None = None,
    sample_ids: Tensor | Sequence[int] | None = None,
    batch_size: int | Halving | None = None,
    keep_adversarial: bool = False,
    check_8bit: bool = False,
    probe_masking: bool = True,
) -> Report | Any: ...  # Any: a LanguageReport where the objectives, which types do not tell apart, are of texts
def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    *,
    characters_per_token: float | Tensor | None = None,
    seed: int = 0,
    prepare_on: tuple[Tensor, Tensor] | None = None,
    sample_ids: Tensor | Sequence[int] | None = None,
    batch_size: int | Halving | None = None,
    keep_adversarial: bool = False,
    check_8bit: bool = False,
    probe_masking: bool = True,
) -> Report | LanguageReport:
    """Measures on which samples a model is right before and after each attack.

    A sample is robust against an attack only if the model is right before it and on what it returned, measured again
    here. Samples that are wrong before any attack are not attacked. Everything is computed in float32 (float64 for a
    float64 model), also inside an autocast. The model, the batch and all random states are left as they were.

    A language model is attacked with objectives of texts, such as `Surprise`: then this is `evaluate_language`, with
    its figures in place of verdicts, and options that are for images alone are refused.

    Args:
        model: any module from images to logits `(N, C)`, in any mode.
        x: images, float `(N, ...)`, inside the box of the attacks' threats; half precision is computed in float32.
        y: the true classes, int64 `(N,)`; for a language model the tokens that follow, `(N, T)`.
        attacks: attacks by name, of letters, digits, `_`, `-` and `.`, and neither `worst_case` nor `clean`.
        characters_per_token: for language models, see `evaluate_language`; None for bits per token.
        seed: seeds the random starts, together with the sample's id, and whatever the model draws itself.
        prepare_on: other images and their classes, for attacks that learn from samples before they attack
            (`Attack.needs_samples`); what they pass through the model meanwhile is in their cost.
        sample_ids: int64 `(N,)`; None numbers the rows. A sample's verdict depends on its id, not on its batch.
        batch_size: samples attacked at a time, >= 1; None for 256, or 64 texts. Halved, with a warning, where so many
            do not fit into memory. A `Halving` keeps what fitted from call to call, and its owner lets it `say` so.
        keep_adversarial: whether the report keeps the attacked images.
        check_8bit: whether the report also says which successes survive rounding to a picture file
            (`Report.survives_8bit`).
        probe_masking: whether to look for signs of gradient masking: by asking the model again on a few samples, and
            by short attacks on a few survivors.

    Returns:
        The verdicts, `(N,)` each, and the costs; an empty batch gives an empty report. Of texts, a `LanguageReport`.

    Raises:
        ValueError: the batch, the labels or the logits are not what they must be; or an attack left its threat,
            returned something that is no batch of finite images like `x`, or changed its input, its threat, the
            model or torch's settings; or it needs samples and was given none, or some of those that are evaluated.
        RuntimeError: an attack failed; the message names it.

    Example:
        >>> report = evaluate(model, x, y, {"pgd": PGD(threat=Linf(eps=8 / 255))})
        >>> report.worst_case.float().mean()
    """
    check_names(attacks)
    check_flag("evaluate(keep_adversarial=...)", keep_adversarial)
    check_flag("evaluate(check_8bit=...)", check_8bit)
    check_flag("evaluate(probe_masking=...)", probe_masking)
    check_batch(x, y)
    if y.ndim == 2 and (characters_per_token is not None or any(a.objective.of_texts for a in attacks.values())):
        if prepare_on is not None or check_8bit:
            raise ValueError("evaluate(prepare_on=..., check_8bit=...) are for images, got objectives of texts")
        return evaluate_language(
            model,
            x,
            y,
            attacks,
            characters_per_token=1.0 if characters_per_token is None else characters_per_token,
            seed=seed,
            sample_ids=sample_ids,
            batch_size=64 if batch_size is None else batch_size,
            keep_adversarial=keep_adversarial,
        )
    _refuse_texts(y, characters_per_token)
    check_prepare_on(prepare_on)
    halving = read_batch_size("evaluate", 256 if batch_size is None else batch_size)
    check_seed("evaluate", seed)
    model = module_of(model)
    check_device(model, x)
    ids = read_sample_ids(sample_ids, y)
    _check_threats(attacks, x, check_8bit=check_8bit)

    with judging(model, x.device):
        # Clones made here can carry gradients even where the caller's tensors come from inference mode.
        given, x, y, ids = x, as_computed(x, model), as_labels(y), ids.clone()
        trial = Trial(model, x, y, ids, attacks, seed=seed, halving=halving)
        if x._version:
            check_unchanged(x, as_computed(given, model), ids)
        trial.diagnose_the_model(look_again=probe_masking)
        trial.prepare(prepare_on)
        for name in attacks:
            trial.attack(name, keep=keep_adversarial, round_too=check_8bit)
        report = trial.report(probe_masking=probe_masking)
    if halving is not batch_size:
        halving.say()
    return report


def _refuse_texts(y: Tensor, characters_per_token: float | Tensor | None) -> None:
    if y.ndim != 1:
        raise ValueError(
            f"labels of one token each, {tuple(y.shape)}, are what follows a text: a language model is measured by "
            "`evaluate_language`, and attacked with the objective Surprise(), or NextToken(target=...)"
        )
    if characters_per_token is not None:
        raise ValueError(
            "evaluate(characters_per_token=...) is for language models, whose labels are the tokens that follow, "
            f"`(N, T)`, got labels {tuple(y.shape)}"
        )


def _check_threats(attacks: Mapping[str, Attack], x: Tensor, *, check_8bit: bool) -> None:
    """Raises ValueError where an attack cannot start from these images, or its box is not that of a picture file."""
    for name, attack in attacks.items():
        naming(name, attack.threat.check_input, x)
        naming(name, attack.check_rows, len(x))
        if check_8bit and getattr(attack.threat, "box", None) != (0.0, 1.0):
            raise ValueError(
                f"attack {name!r}: check_8bit=True rounds pixels of [0, 1] to a picture file, got {attack.threat!r}"
            )
