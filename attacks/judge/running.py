"""What the judges of images and of texts share: checks of their options, and the run of one attack on one batch."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from touchstone.options import check_count, check_whole

from ..core.attack import Attack
from ..core.checks import are_broken
from ..core.out_of_memory import is_out_of_memory
from ..core.sample_rng import SampleRng
from ..core.threat import Threat
from .halving import Halving
from .left_alone import left_alone
from .meter import Cost, metered

RESERVED_NAMES = ("worst_case", "clean")  # what figures beside those of the attacks are called
_HINTS = {
    "leaf Variable that requires grad is being used in an in-place": (
        "the model changes its input in place, as a first layer ReLU(inplace=True) does: make it a copy"
    ),
    "nference tensor": (
        "the model keeps a tensor that it made in inference mode: use `Trainer(inference_mode=False)`, or make it anew "
        "in every forward; of weights, make or load the model outside of that mode"
    ),
    "Can't call numpy()": "a model that leaves torch has no gradient: attack by a black box (Square, HopSkipJump)",
}
"""What to do about an error of torch's, by a part of its message."""
Result = TypeVar("Result")


def check_names(attacks: Mapping[str, Attack]) -> None:
    """Raises ValueError where attacks are not given by names that can be tags, or are no attacks."""
    if not isinstance(attacks, Mapping):
        raise ValueError(f"attacks must be given by name, {{'pgd': PGD(...)}}, got {type(attacks).__name__}")
    for name, attack in attacks.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name in RESERVED_NAMES:
            raise ValueError(
                f"an attack's name must be letters, digits, '_', '-' and '.', since it becomes a tag, "
                f"and not {' or '.join(map(repr, RESERVED_NAMES))}, got {name!r}"
            )
        if not isinstance(attack, Attack) or not isinstance(getattr(attack, "threat", None), Threat):
            raise ValueError(
                f"attack {name!r} must be an Attack with a threat, got {attack!r:.80}; "
                "see `touchstone.attacks.Attack` for what to define"
            )


def read_batch_size(call: str, batch_size: int | Halving) -> Halving:
    """The `batch_size` that a `call` was given, as one that can become smaller.

    Raises:
        ValueError: it is no whole number >= 1.
    """
    halving = batch_size if isinstance(batch_size, Halving) else Halving(batch_size)
    check_count(f"{call}(batch_size=...)", halving.size)
    return halving


def ask_for_no_gradient(attacks: Mapping[str, Attack]) -> bool:
    """Whether all of them are black boxes or controls."""
    return all(attack.kind in ("black box", "control") for attack in attacks.values())


def check_seed(call: str, seed: int) -> None:
    """Raises ValueError where the `seed` that a `call` was given is no whole number."""
    check_whole(f"{call}(seed=...)", seed)


def run_attack(
    name: str, attack: Attack, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng
) -> tuple[Tensor, Cost]:
    """The attacked images, checked, and what they cost.

    Raises:
        ValueError: the attack left its threat or changed it, its input or torch's settings, or returned no batch of
            finite images like `x`.
        RuntimeError: it raised something else than a ValueError itself.
    """
    given_x, given_y, start = x.clone(), y.clone(), time.perf_counter()
    with left_alone(name, attack), metered(model) as meter:
        x_adv = naming(name, attack, model, given_x, given_y, rng=rng)
    kept = torch.equal(given_x, x) and torch.equal(given_y, y)  # this waits for an accelerator
    cost = meter.cost(time.perf_counter() - start)
    if not kept:
        raise ValueError(f"attack {name!r} changed its input in place: work on `x.clone()`")
    if not isinstance(x_adv, Tensor):
        raise ValueError(f"attack {name!r} must return a tensor, got {type(x_adv).__name__}")
    if (x_adv.shape, x_adv.dtype, x_adv.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            f"attack {name!r} must return {x.dtype} {tuple(x.shape)} on {x.device} like its input, "
            f"got {x_adv.dtype} {tuple(x_adv.shape)} on {x_adv.device}"
        )
    x_adv = x_adv.detach().clone()  # an attack may hand out a view of something that it goes on changing
    broken = are_broken(x_adv)
    if bool(broken.any()):
        raise ValueError(f"attack {name!r} returned NaN or infinite values, first at {_first(broken, rng)}")
    outside = ~attack.threat.contains(x_adv, x)
    if bool(outside.any()):
        distance = float(attack.threat.distance(x_adv, x)[outside][0])
        raise ValueError(
            f"attack {name!r} left its threat {attack.threat!r}, first at {_first(outside, rng)}: distance "
            f"{distance:.6g}, values from {float(x_adv[outside][0].min()):.6g} to {float(x_adv[outside][0].max()):.6g}"
            f"; {_who_left(attack, x_adv, x, rng)}"
        )
    return x_adv, cost


def _who_left(attack: Attack, x_adv: Tensor, x: Tensor, rng: SampleRng) -> str:
    """Whose fault it is where points are outside: a threat of one's own may contradict itself."""
    threat, own = attack.threat, type(attack.threat).__name__
    for name, points in (("project", threat.project(x_adv, x)), ("start", threat.start(x, rng))):
        if not bool(threat.contains(points, x).all()):
            return f"`{own}.contains` refuses what `{own}.{name}` gives"
    return f"{type(attack).__name__}.perturb should return `self.threat.project(x_adv, x)`"


def naming(name: str, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Calls `function` so that an error says which attack it belongs to."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"attack {name!r}: {error}") from error
    except MemoryError:
        raise
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise  # whoever tries smaller batches looks for this
        hint = next((f" ({hint})" for sign, hint in _HINTS.items() if sign in str(error)), "")
        raise RuntimeError(f"attack {name!r}: {error}{hint}") from error
    except Exception as error:
        raise RuntimeError(f"attack {name!r}: {type(error).__name__}: {error}") from error


def _first(flags: Tensor, rng: SampleRng) -> str:
    return f"sample id {int(rng.sample_ids[flags][0])}"
