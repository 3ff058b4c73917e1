"""`evaluate_language`: runs attacks on a language model and trusts none of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from touchstone.options import check_flag

from ..core.attack import Attack
from ..core.checks import (
    as_computed,
    as_labels,
    check_batch,
    check_device,
    check_labels,
    check_token_logits,
    module_of,
    read_sample_ids,
)
from ..core.frozen_eval import seed_random_state
from ..core.same_answer import same_in_equal_batches
from ..core.sample_rng import SampleRng
from ..objectives.surprise import token_losses
from .attack_runner import AttackRunner
from .forwards import Forwards
from .halving import Halving
from .judging import judging
from .language_report import LanguageReport
from .meter import Cost
from .running import check_names, check_seed, naming, read_batch_size
from .untouched import Untouched


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
    """Measures how well a language model foretells texts before and after each attack.

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
        look = Forwards(model, halving, check=check_token_logits)
        runner = AttackRunner(model, SampleRng(seed, ids), look, halving, Untouched(model))
        seed_random_state(seed, x.device)
        bits, characters = torch.zeros(2, *y.shape, device=x.device)
        reached = {name: torch.zeros(len(x), dtype=torch.bool, device=x.device) for name in attacks}

        def foretell(rows: slice) -> None:
            try:
                logits = look(x[rows], ids[rows], "before any attack")
            except IndexError as error:
                raise ValueError(
                    f"the model fails on texts with ids from {int(x.min())} to {int(x.max())}: are they all in its "
                    f"vocabulary? ({error})"
                ) from error
            check_labels(y[rows], logits.shape[2], ids[rows])
            bits[rows] = token_losses(logits, y[rows]).float() / math.log(2)
            characters[rows] = _characters(characters_per_token, y[rows], logits.shape[2])
            part = torch.arange(len(x), device=x.device)[rows]
            for name, attack in attacks.items():
                reached[name][rows] = naming(name, attack.take(part).objective.reached, logits, y[rows])

        halving.run(len(x), foretell)
        _check_causal(look, x, ids)
        runner.untouched.ignore_changes()
        everywhere = torch.ones_like(bits)
        clean = _per_character(bits, characters, everywhere)
        report = LanguageReport(dict(attacks), ids, _per_token(characters, everywhere), clean)
        for name, attack in attacks.items():
            x_adv = _judge(report, name, attack, x, y, bits, characters, reached[name], runner)
            if keep_adversarial:
                report.x_adv[name] = x_adv
        if halving is not batch_size:
            halving.say()
        return replace(report, judge_cost=Cost(look.num_forwards))


def _judge(
    report: LanguageReport,
    name: str,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    bits: Tensor,
    characters: Tensor,
    reached: Tensor,
    runner: AttackRunner,
) -> Tensor:
    """Attacks every text, enters figures and cost into the report, and returns the attacked texts."""
    before, after = bits.new_zeros(len(x)), bits.new_zeros(len(x))
    success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    changed = torch.zeros_like(y, dtype=torch.bool)

    def measure(part: Attack, rows: Tensor, x_adv: Tensor, logits: Tensor) -> None:
        if not x_adv.is_floating_point():
            changed[rows] = x_adv != x[rows]
        left = torch.ones_like(changed[rows])
        left[:, :-1] = ~changed[rows, 1:]
        now = token_losses(logits, y[rows]).float() / math.log(2)
        before[rows] = _per_character(bits[rows], characters[rows], left)
        after[rows] = _per_character(now, characters[rows], left)
        success[rows] = naming(name, part.objective.reached, logits, y[rows]) & ~reached[rows]

    everyone = torch.arange(len(x), device=x.device)
    x_adv, cost = runner.run(name, attack, x, y, rows=everyone, measure=measure)
    report.before[name], report.after[name], report.success[name] = before, after, success
    report.num_changed[name], report.cost[name] = changed.sum(1), cost
    return x_adv


def _per_character(bits: Tensor, characters: Tensor, left: Tensor) -> Tensor:
    """Bits per character of each text over the tokens that were left, `(N,)`."""
    return (bits * left).sum(1) / left.sum(1) / _per_token(characters, left)


def _per_token(characters: Tensor, left: Tensor) -> Tensor:
    """Characters of a token, of each text, over those that were left: never none, since the last `y` is beyond it."""
    total = (characters * left).sum(1)
    return total.masked_fill(total == 0, 1) / left.sum(1)  # tokens in which none begins are a part of one


def _characters(given: float | Tensor, y: Tensor, vocab_size: int) -> Tensor:
    """How many characters each of the tokens has, float `(N, T)`."""
    if not isinstance(given, Tensor):
        return torch.full(y.shape, float(given), device=y.device)
    if len(given) != vocab_size:
        raise ValueError(
            f"evaluate_language(characters_per_token=...) must be a number, or one for each of the {vocab_size} tokens "
            f"of the model, got {len(given)}"
        )
    return given.to(y.device, torch.float32)[y]


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


def _check_causal(look: Forwards, x: Tensor, ids: Tensor) -> None:
    """Raises ValueError where logits change with tokens behind them, in a model that gives the same ones twice."""
    half, mixed = x.shape[1] // 2, (x != x[:, :1]).any(1).nonzero()[:1, 0]
    if not len(mixed):
        return
    x, ids = x[mixed], ids[mixed]
    others = x.clone()  # of the text itself, since a model need not take every number below that of its logits
    others[:, half:] = torch.where(x == x.min(), x.max(), x.min())[:, half:]
    before, after = (look(text, ids, "before any attack")[:, :half] for text in (x, others))
    if same_in_equal_batches(before, after):
        return
    if not same_in_equal_batches(before, look(x, ids, "before any attack")[:, :half]):
        return
    raise ValueError(
        "a language model's logits must depend on none of the tokens behind them, or it would only have to look: those "
        f"of the first {half} tokens change with the rest; is it causal?"
    )


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
