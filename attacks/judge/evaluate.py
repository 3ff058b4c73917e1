"""`evaluate`: runs attacks and trusts none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

from touchstone.options import check_flag

from ..core.attack import Attack
from ..core.checks import (
    as_computed,
    check_batch,
    check_device,
    check_labels,
    check_not_probabilities,
    check_unchanged,
    module_of,
    read_sample_ids,
)
from ..core.frozen_eval import frozen_eval, seed_random_state
from ..core.logits import logits_as_float
from ..core.sample_rng import SampleRng
from ..objectives.losses import Margin
from .bench import Bench
from .diagnosis import Diagnosis
from .evaluate_language import evaluate_language
from .forwards import Forwards
from .halving import Halving
from .language_report import LanguageReport
from .meter import Cost
from .preparing import check_disjoint, check_prepare_on, prepare_attacks
from .report import Report
from .running import ask_for_no_gradient, check_batch_size_and_seed, check_names, naming
from .untouched import Untouched


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
        attacks: attacks by name.
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
    batch_size = 256 if batch_size is None else batch_size
    halving = batch_size if isinstance(batch_size, Halving) else Halving(batch_size)
    check_batch_size_and_seed("evaluate", batch_size=halving.size, seed=seed)
    model = module_of(model)
    check_device(model, x)
    ids = read_sample_ids(sample_ids, y)
    for name, attack in attacks.items():
        naming(name, attack.threat.check_input, x)
        naming(name, attack.check_rows, len(x))
        if check_8bit and getattr(attack.threat, "box", None) != (0.0, 1.0):
            raise ValueError(
                f"attack {name!r}: check_8bit=True rounds pixels of [0, 1] to a picture file, got {attack.threat!r}"
            )

    with frozen_eval(model), logits_as_float(model), torch.autocast(x.device.type, enabled=False):
        # Clones made here can carry gradients even where the caller's tensors come from inference mode.
        given, x, y, ids = x, as_computed(x, model), y.to(torch.int64).clone(), ids.clone()
        look = Forwards(model, halving)
        untouched = Untouched(model)
        seed_random_state(seed, x.device)
        logits = look(x, ids, "before any attack")
        if x._version:
            check_unchanged(x, as_computed(given, model), ids)
        if len(x):
            check_not_probabilities(logits, without_gradients=ask_for_no_gradient(attacks))
            check_labels(y, logits.shape[1], ids)
        report = Report(
            attacks=dict(attacks),
            sample_id=ids,
            label=y,
            clean_prediction=logits.argmax(1),
            clean_correct=logits.argmax(1) == y,
        )
        bench = Bench(model, SampleRng(seed, ids), look, halving, untouched)
        diagnosis = Diagnosis(model, x, y, prediction=report.clean_prediction, logits=logits, rng=bench.rng, look=look)
        report.observed.extend(diagnosis.of_the_model(untouched.ignore_changes(), look_again=probe_masking))
        attacks, learning = prepare_attacks(attacks, model, prepare_on, seed=seed, untouched=untouched)
        if prepare_on is not None and learning:
            check_disjoint(x, ids, prepare_on[0])
        report.attacks.update(attacks)
        for name, attack in attacks.items():
            if len(x):
                naming(name, attack.check_classes, logits.shape[1])
            x_adv = _judge(report, name, attack, x, logits, bench)
            report.cost[name] += learning.get(name, Cost())
            if keep_adversarial:
                report.x_adv[name] = x_adv
            if check_8bit:
                report.survives_8bit[name] = _survives_8bit(report, name, attack, x_adv, look)
        if probe_masking:
            report.observed.extend(diagnosis.of_the_attacks(attacks, report.robust))
        if halving is not batch_size:
            halving.say()
        return replace(report, judge_cost=Cost(look.num_forwards) + diagnosis.cost)


def _judge(report: Report, name: str, attack: Attack, x: Tensor, logits: Tensor, bench: Bench) -> Tensor:
    """Attacks what is right before, enters verdicts and cost into the report, and returns the attacked samples."""
    robust, y = report.clean_correct.clone(), report.label
    success, left = torch.zeros_like(robust), torch.full_like(robust, torch.nan, dtype=logits.dtype)

    def aim(part: Attack, rows: Tensor) -> Attack:
        clean_logits = partial(logits.__getitem__, rows)
        return part.with_objective(part.objective.aim(clean_logits, y[rows], bench.rng.take(rows)))

    def measure(part: Attack, rows: Tensor, x_adv: Tensor, after: Tensor) -> None:
        robust[rows] = naming(name, part.objective.correct, after, y[rows])
        success[rows] = naming(name, part.objective.reached, after, y[rows])
        before, now = Margin()(logits[rows], y[rows]), Margin()(after, y[rows])
        # A tie has no margin to take a share of: nothing is left of it.
        left[rows] = torch.where(before == 0, 0 - now.clamp_min(0), now / before)

    x_adv, cost = bench.run(name, attack, x, y, rows=robust.nonzero()[:, 0], measure=measure, aim=aim)
    report.margin_left[name] = left
    report.robust[name], report.success[name], report.cost[name] = robust, success, cost
    return x_adv


def _survives_8bit(report: Report, name: str, attack: Attack, x_adv: Tensor, look: Forwards) -> Tensor:
    """Which samples that the attack turned away from their class are wrong also as a picture of 256 levels."""
    turned = (report.clean_correct & ~report.robust[name]).nonzero()[:, 0]
    survives = torch.zeros_like(report.clean_correct)
    where = f"after attack {name!r}, rounded to 8 bits"
    after = look((x_adv[turned] * 255).round() / 255, report.sample_id[turned], where)
    survives[turned] = ~attack.objective.correct(after, report.label[turned])
    return survives


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
