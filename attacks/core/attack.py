"""`Attack`: a function of a model and a batch that returns the batch as an attacker would change it."""

# No `from __future__ import annotations` here: jsonargparse reads a subclass's fields together with these annotations,
# from the subclass's module, where as strings they would name nothing.
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from inspect import isabstract
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from ..objectives.untargeted import Untargeted  # from above: so an attack that names no objective still has one
from .checks import as_computed, as_labels, check_batch, check_device, check_labels, module_of
from .frozen_eval import frozen_eval, seed_random_state
from .global_noise import noticing_global_noise
from .logits import logits_as_float
from .objective import Objective
from .per_sample import PerSample
from .sample_rng import SampleRng, read_rng
from .threat import Threat

Self = TypeVar("Self", bound="Attack")


class Attack(PerSample):
    """A frozen value, and a function `(model, x, y) -> x_adv`.

    A subclass is a frozen dataclass with the fields `threat` and, where it has a choice, `objective`, and defines
    `perturb`. It knows no Trainer, no device and no logger, and keeps nothing between calls. Tensor fields run over
    the samples of the batch (`PerSample`): the judge cuts them as it cuts the batch.
    """

    threat: Threat
    objective: Objective = Untargeted()
    num_eot_samples: int = 1
    """Over how many draws of a model that draws random numbers it averages, as a trial of points before it does."""

    kind: ClassVar[Literal["control", "one step", "gradient", "black box"]] = "gradient"
    """What the signs of masking go by: every other kind should beat a control, and a gradient attack all others."""
    supports: ClassVar[tuple[type[Threat], ...]] = (Threat,)
    """The kinds of threat that it can work in."""

    pools: ClassVar[bool] = False
    """Whether a sample's result depends on the others that are attacked, as where a budget is moved between samples;
    then the judge calls it once on all samples."""

    needs_samples: ClassVar[bool] = False
    """Whether it learns from samples before it attacks: then it defines `learn`, and `prepare` gives the attack that is
    ready. One that is ready only sometimes sets it on the instance."""

    flat_when_reached: ClassVar[bool] = False
    """Whether its loss is flat, with a gradient of 0, once the objective is reached, which is no sign of masking."""

    climbs_several_losses: ClassVar[bool] = False
    """Whether it climbs losses of its own choice in turn, the margin or its like among them: where one of them is flat,
    the others lead on."""

    begins_at_the_sample: ClassVar[bool] = False
    """Whether its first gradient is that of the sample itself, where a loss may have none. One that begins there only
    sometimes sets it on the instance."""

    def __post_init__(self) -> None:
        """Checks the threat; a subclass that checks more of its fields calls this too."""
        call = f"{type(self).__name__}(threat=...)"
        if not isinstance(self.threat, Threat):
            raise ValueError(f"{call} must be a threat such as Linf(eps=8 / 255), got {self.threat!r:.80}")
        if not isinstance(self.threat, self.supports):
            names = [kind.__name__ for kind in self.supports if not isabstract(kind)]
            names += [f"a {kind.__name__.lower()} such as Linf" for kind in self.supports if isabstract(kind)]
            raise ValueError(f"{call} must be {' or '.join(names)}, got {self.threat!r:.80}")
        if not isinstance(self.objective, Objective):
            raise ValueError(
                f"{type(self).__name__}(objective=...) must be an objective such as Untargeted() or "
                f"Targeted(target=7), got {self.objective!r:.80}"
            )

    def check_classes(self, num_classes: int) -> None:
        """Raises ValueError where this attack cannot be run on a model with so many classes."""
        self.objective.check_classes(num_classes)

    def check_model(self, model: nn.Module) -> None:
        """Raises ValueError where this attack cannot be run on a model, as far as that is known without samples."""
        self.threat.check_model(model)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Tensor:
        """The attack itself, called where gradients are on, the weights frozen and the modes set.

        Args:
            model: images to logits `(N, C)`.
            x: the samples, inside the threat's box, float `(N, ...)`, N >= 1; not to be changed.
            y: the true classes, int64 `(N,)`.
            rng: noise per sample; the global random state is not to be used.

        Returns:
            A new tensor like `x`, inside the threat around it.
        """
        raise TypeError(f"{type(self).__name__} must define perturb(self, model, x, y, rng)")

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> "Attack":
        """What an attack that needs samples defines: the attack that is ready, with the same threat and objective.

        Called as `perturb` is, except that the global random state is seeded by `rng` and may be used, as by layers
        that drop out. What is passed through `model` is counted.
        """
        raise TypeError(f"{type(self).__name__} must define learn(self, model, x, y, rng)")

    def prepare(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng | None = None) -> "Attack":
        """Lets an attack learn, as safely as `__call__`; one that needs no samples comes back as it is.

        Args:
            model: the model that is to be attacked.
            x: samples that are not to be attacked, float `(N, ...)`, N >= 1, inside the threat's box.
            y: the true classes, int64 `(N,)`.
            rng: the source of all randomness; None is the seed 0.

        Returns:
            An attack that is ready.

        Raises:
            ValueError: the batch is empty, or not one that this attack can start from.
        """
        if not self.needs_samples:
            return self
        with self._safely(model, x, y) as (model, x, y):
            if not len(x):
                raise ValueError(f"{type(self).__name__}.prepare needs at least one sample to learn from, got none")
            rng = read_rng(rng, len(x))
            seed_random_state(rng.seed, x.device, purpose="attack")
            return self.learn(model, x, y, rng)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng | None = None, *, training: bool = False
    ) -> Tensor:
        """Attacks a batch, safely: in evaluation mode, with frozen weights, and all that restored after.

        What a model writes into its own buffers in evaluation mode stays, unless `buffers_kept` stands around the call.

        Args:
            model: any module from images to logits `(N, C)`.
            x: samples that the threat can start from, `(N, ...)`: images inside its box, float; half precision is
                computed in float32.
            y: the true classes, int64 `(N,)`.
            rng: noise per sample; None numbers the rows, with seed 0.
            training: whether the modules keep their modes, for examples made in the mode of training.

        Returns:
            The attacked samples: a new tensor of the same shape, float32 (float64 for a float64 model).

        Raises:
            ValueError: the batch is not one that this attack can start from, or `rng` not one of its samples; the
                message says why.
        """
        if self.needs_samples:
            name = type(self).__name__
            raise ValueError(
                f"{name} learns from samples before it attacks: call `.prepare(model, x, y)` with others than it is to "
                "attack, and take the attack that it returns; `evaluate` does so with `prepare_on=(x, y)`"
            )
        with self._safely(model, x, y, training=training) as (model, x, y):
            self.check_rows(len(x))
            rng = read_rng(rng, len(x)).on(x.device)
            if not len(x):
                return x
            seed_random_state(rng.seed, x.device, purpose="attack")
            entered, model, x = self.enter(model, x)
            with torch.no_grad():
                aimed = entered.aimed(model, x, y, rng)
            handed, labels = x.clone(), y.clone()
            with noticing_global_noise(type(self), model, x):
                x_adv = aimed.perturb(model, handed, labels, rng)
            for what, copy, now, given in (("input", "x.clone()", handed, x), ("labels", "y.clone()", labels, y)):
                if not torch.equal(now, given):
                    raise ValueError(f"{type(self).__name__}.perturb changed its {what} in place: work on `{copy}`")
            if not isinstance(x_adv, Tensor):
                raise ValueError(
                    f"{type(self).__name__}.perturb must return a tensor, got {type(x_adv).__name__}"
                    + ("; does it end with `return`?" if x_adv is None else "")
                )
            return x_adv.detach()

    def aimed(self: Self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Self:
        """The same attack with its objective's choices made (`Objective.aim`)."""
        return self.with_objective(self.objective.aim(lambda: model(x), y, rng))

    def with_objective(self: Self, objective: Objective) -> Self:
        """The same attack with another objective."""
        return self if objective is self.objective else replace(self, objective=objective)  # type: ignore[type-var]

    def enter(self: Self, model: nn.Module, x: Tensor) -> tuple[Self, nn.Module, Tensor]:
        """The attack, the model and the samples where the threat is (`Threat.enter`)."""
        self.threat.check_model_on(model, x)
        threat, model, x = self.threat.enter(model, x)
        return self if threat is self.threat else self.inside(threat), model, x

    def inside(self: Self, threat: Threat) -> Self:
        """The same attack inside another threat."""
        return replace(self, threat=threat)  # type: ignore[type-var]

    @contextmanager
    def _safely(
        self, model: nn.Module, x: Tensor, y: Tensor, *, training: bool = False
    ) -> Iterator[tuple[nn.Module, Tensor, Tensor]]:
        """The context of an attack, with the model and the batch as they are inside it."""
        model = module_of(model)
        check_batch(x, y)
        check_device(model, x)
        if bool((y < 0).any()):  # one of them, -100, torch's cross-entropy passes over
            raise ValueError(f"labels must be classes of the model, 0 or more, got {int(y.min())}")
        self.threat.check_input(x)
        with frozen_eval(model, training=training), logits_as_float(model):
            # A clone made here carries gradients even if the caller's tensors come from inference mode.
            x, y = as_computed(x, model), as_labels(y)
            try:
                yield model, x, y
            except (IndexError, RuntimeError):
                num_classes = None
                # Was it a label, or a target? Asked only now: it costs a forward, which may fail as the first one did.
                with torch.no_grad(), suppress(IndexError, RuntimeError, ValueError):
                    num_classes = model(x[:2]).shape[-1]  # of two, since a norm over the batch refuses one
                if num_classes is not None:
                    check_labels(y, num_classes)
                    self.check_classes(num_classes)
                raise
