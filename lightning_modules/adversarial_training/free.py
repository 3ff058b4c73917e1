"""`Free`: adversarial training for the price of ordinary training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone.attacks import SampleRng, Threat
from touchstone.attacks.threats.ball import Ball
from touchstone.options import check_counts, check_positive

from .parts.remembering import Remembering
from .parts.scaled import scaled
from .strategy import Criterion, Learned


class Free(Remembering):
    """Learns from each batch several times in a row, each time moving the images by the gradient that also trained.

    Source: Shafahi et al., "Adversarial training for free!", 2019, algorithm 1. One backward pass gives the gradient
    of the weights and that of the change of the images; the change is kept from one time to the next, and from one
    batch to the next. A batch that comes again is the first one, as augmentation and mixing made it.

    An epoch is `num_repeats` times as long as otherwise: divide `max_epochs`, and what a scheduler counts, by it, as
    the paper does. The images are passed in the modes of training alone, once a step, with one update of the running
    statistics of BatchNorm.

    Args:
        threat: a ball around each image, such as `Linf(eps=8 / 255)`.
        num_repeats: how often each batch comes, >= 1; the paper's m, 8 for CIFAR-10.
        rel_step_size: length of a step as a share of eps, > 0; 1 in the paper.

    Raises:
        ValueError: a value is outside its range, or `threat` is no ball, or one with an eps or mask per sample.
    """

    learns_from_attacks = True
    always = frozenset({"change"})

    def __init__(self, threat: Threat, *, num_repeats: int = 8, rel_step_size: float = 1.0) -> None:
        super().__init__()
        if not isinstance(threat, Ball):
            raise ValueError(f"Free(threat=...) must be a ball such as Linf(eps=8 / 255), got {threat!r:.80}")
        try:
            threat.check_rows(1)
        except ValueError as error:
            raise ValueError(f"Free(threat=...) must hold for every sample of every batch: {error}") from error
        check_counts(self, num_repeats=num_repeats)
        check_positive(self, rel_step_size=rel_step_size)
        self.threat, self._full, self.num_repeats, self.rel_step_size = threat, threat, num_repeats, rel_step_size
        self.memory = {"change": torch.zeros(0)}
        self._here: Tensor | None = None

    def samples(self, x: Tensor, y: Tensor, repeat: int) -> tuple[Tensor, Tensor]:
        if repeat == 0 or "x" not in self.memory:
            self.memory |= {"x": x, "y": y}
        x, y = self.memory["x"].to(x.device), self.memory["y"].to(y.device)
        if repeat == self.num_repeats - 1:
            del self.memory["x"], self.memory["y"]
        return x, y

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, criterion: Criterion, rng: SampleRng) -> Learned:
        self.threat.check_input(x)
        kept = self.memory["change"].to(x)
        if kept.shape[1:] != x.shape[1:]:
            kept = torch.zeros_like(x)
        if len(kept) < len(x):
            kept = torch.cat([kept, torch.zeros_like(x[len(kept) :])])
        self.memory["change"] = kept
        self._here = here = self._in_ball(kept[: len(x)]).detach().requires_grad_()

        def take() -> Learned:
            logits = model(self.threat.clip(x + here))
            return Learned(criterion(logits, y), logits, again=take)

        return take()

    def after_backward(self, model: nn.Module) -> None:
        here, self._here = self._here, None
        if here is None or here.grad is None:
            return  # a batch without samples
        grad = here.grad.nan_to_num(nan=0.0)  # a step that is skipped must not stay in what is kept
        step = self.rel_step_size * self.threat.radius(here) * self.threat.direction(grad)
        self.memory["change"] = torch.cat([self._in_ball(here.detach() + step), self.memory["change"][len(here) :]])

    def _in_ball(self, change: Tensor) -> Tensor:
        """The nearest change that the threat allows of an image without a box, `(N, ...)`."""
        return self.threat.unboxed().project(change, torch.zeros_like(change))

    def scale_eps(self, share: float) -> None:
        self.threat = scaled(self._full, share)

    # What is remembered is written into a checkpoint by the first process; every one has other batches.

    def process_state(self) -> dict[str, Tensor]:
        """What this process remembers."""
        return dict(self.memory)

    def load_process_state(self, state: dict[str, Tensor]) -> None:
        """Takes up what `process_state` gave."""
        self.memory = dict(state)
