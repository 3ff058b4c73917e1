"""What stands in the way of an attack is better said before a training than after its first epochs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sized

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from touchstone.attacks import Attack, Threat, TokenFlips, Universal, frozen_eval
from touchstone.attacks.core.ascend import gradient_of
from touchstone.attacks.core.buffers import buffers_kept
from touchstone.attacks.core.checks import as_computed, check_logits, check_not_probabilities
from touchstone.attacks.core.logits import as_taken, logits_of
from touchstone.attacks.judge.running import ask_for_no_gradient, naming
from touchstone.runs.of_trainer import of_data

from .samples import Samples

NUM_PASSED = 8  # samples that show what a model gives


def check_forward(model: nn.Module, asked_by: str) -> None:
    """Raises ValueError where a model cannot be called with the samples alone, as a measurement calls it."""
    if getattr(type(model), "forward", None) is pl.LightningModule.forward:
        raise ValueError(
            f"{asked_by}: {type(model).__name__} has no forward, and what is measured calls `model(samples)` for its "
            "logits: define `forward(self, x)`"
        )
    signature = inspect.signature(model.forward)
    try:
        signature.bind(None)
    except TypeError as error:
        by_name = not any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in signature.parameters.values())
        raise ValueError(
            f"{asked_by}: the model's forward must take the samples alone, got forward{signature} ({error}): "
            + (
                "let it take them by place, as in `forward(self, input_ids, **rest)`"
                if by_name
                else "give what else it takes a default, or make it from the samples"
            )
        ) from error


def pass_through(model: nn.Module, samples: Samples) -> None:
    """Calls the model with the samples alone, as a measurement does, and asks nothing of what it gives."""
    with buffers_kept(model), frozen_eval(model), torch.no_grad():
        model(as_taken(as_computed(samples.x, model), model))


def check_model(suite: Mapping[str, Attack], model: nn.Module) -> None:
    """Raises ValueError where an attack, or its threat, is not for this model."""
    for name, attack in suite.items():
        naming(name, attack.check_model, model)


def check_vocabulary(suite: Mapping[str, Attack], trainer: pl.Trainer) -> None:
    """Raises ValueError where an attack would write ids that are no token of the data module's `vocabulary`.

    A net may have more embeddings than there are tokens: what it says of the others, it has never learnt.
    """
    vocabulary = of_data(trainer, "vocabulary")
    if not (isinstance(vocabulary, Sized) and hasattr(vocabulary, "decode")):  # another's may be a list of words
        return
    for name, attack in suite.items():
        if isinstance(attack.threat, TokenFlips) and attack.threat.vocab_size > len(vocabulary):
            raise ValueError(
                f"attack {name!r}: TokenFlips(vocab_size={attack.threat.vocab_size}): the vocabulary of the data has "
                f"{len(vocabulary)} tokens: set vocab_size={len(vocabulary)}"
            )


def refuse_language_labels(y: Tensor) -> None:
    """Raises ValueError where labels are those of a language model, and not one class for each sample."""
    if y.ndim != 1:
        raise ValueError(
            "RobustAccuracy measures classifiers, with labels `(N,)`; a language model, with the tokens that "
            f"follow as labels, here {tuple(y.shape)}, is measured by RobustLanguage"
        )


def check_input(suite: Mapping[str, Attack], x: Tensor) -> None:
    """Raises ValueError where an attack's threat cannot start from such samples."""
    for name, attack in suite.items():
        naming(name, attack.threat.check_input, x)


def check_output(suite: Mapping[str, Attack], model: nn.Module, samples: Samples) -> None:
    """Raises ValueError where a model gives no logits for some samples, or an attack cannot be run on it.

    Not where a number is not finite, or a label no class: those of a validation may be.
    """
    few = samples.take(slice(0, NUM_PASSED))
    with buffers_kept(model), frozen_eval(model):
        x = as_computed(few.x, model).requires_grad_(few.x.is_floating_point())
        try:
            output = model(as_taken(x.clone(), model))  # which a first layer may change in place
        except Exception:  # a forward that is not made for batches of the training
            return
        logits = logits_of(output)
        _check_output(suite, x, logits, few.ids)


def _check_output(suite: Mapping[str, Attack], x: Tensor, logits: Tensor, ids: Tensor) -> None:
    """`check_output` of the logits of `x`, `(N, ...)`, with their history."""
    numbers = logits.detach().nan_to_num()
    check_logits(numbers, ids, "before any attack")
    check_not_probabilities(numbers, without_gradients=ask_for_no_gradient(suite))
    for name, attack in suite.items():
        naming(name, attack.check_classes, logits.shape[1])
    climbing = [name for name, attack in suite.items() if x.requires_grad and _climbs_from_pixels(name, attack)]
    for name in climbing[:1]:  # what one can climb, all can
        naming(name, gradient_of, logits.sum(1), x)


def _climbs_from_pixels(name: str, attack: Attack) -> bool:
    """Whether it follows gradients of the model by its input, or learns so, and not by embeddings inside."""
    climbs = isinstance(attack, Universal) and attack.needs_samples or not ask_for_no_gradient({name: attack})
    return climbs and type(attack.threat).enter is Threat.enter
