"""`Surrogate`: a net trained on the model's answers, and examples made on it.

Source: Papernot et al., "Practical black-box attacks against machine learning", 2017, algorithm 1 (training) and
section 4.2, equation 5 (Jacobian-based augmentation).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone.options import check_choice, check_counts, check_positive

from .core.ascend import gradient_of
from .core.attack import Attack
from .core.logits import logits_of
from .core.objective import Objective
from .core.prefixed_errors import prefixed_errors
from .core.sample_rng import SampleRng
from .core.threat import Threat
from .objectives.untargeted import Untargeted
from .pgd import PGD
from .threats.ball import Ball
from .transfer import Transfer

Answer = Literal["labels", "logits"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Surrogate(Attack):
    """Trains a net of the attacker's own on the model's answers, and transfers PGD from it.

    It sees no gradient of the model and no true class of the samples that it learns from. Each round asks the model
    about the new points, trains the net on all, and then takes a step from each towards where the net says that the
    answer varies; until the queries are spent.

    Args:
        threat: what the attacker may do; a ball.
        net: an untrained net from images to logits of the model's classes; a copy of it is trained.
        objective: what the attacker wants.
        num_queries: the most samples that are passed through the model, >= 1; attacking asks it nothing more.
        num_steps: steps of PGD on the trained net, >= 1.
        answers: what the model tells, `"labels"` (its prediction) or `"logits"`.
        num_epochs: how often each round goes through the points so far, >= 1.
        batch_size: samples per step of training, and per query, >= 1.
        lr: learning rate of Adam, > 0.
        augment_step: the step to new points, as a share of the width of the box, > 0.

    Raises:
        ValueError: a value is outside its range; or, when it learns, the net does not fit the model, or diverges.

    Example:
        >>> surrogate = Surrogate(threat=Linf(eps="8/255"), net=SmallCNN()).prepare(model, x_train, y_train)
    """

    kind = "black box"
    supports = (Ball,)
    needs_samples = True
    threat: Threat
    net: nn.Module = field(repr=False)
    objective: Objective = Untargeted()
    num_queries: int = 1000
    num_steps: int = 20
    answers: Answer = "labels"
    num_epochs: int = 10
    batch_size: int = 64
    lr: float = 1e-3
    augment_step: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_queries", "num_steps", "num_epochs", "batch_size")
        if not isinstance(self.net, nn.Module):
            raise ValueError(f"Surrogate(net=...) must be a torch.nn.Module, got {self.net!r:.80}")
        check_choice("Surrogate(answers=...)", self.answers, get_args(Answer))
        check_positive(self, "lr", "augment_step")

    def learn(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Transfer:
        net = copy.deepcopy(self.net).to(x).requires_grad_()
        optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
        generator = torch.Generator().manual_seed(rng.seed)
        new, points, logits = x[: self.num_queries], x[:0], x.new_empty(0)
        while len(new):
            answers = self._ask(model, new)
            self._check_fits(net, new, answers)
            points, logits = torch.cat([points, new]), torch.cat([logits.reshape(-1, answers.shape[1]), answers])
            self._train(net, optimizer, points, logits, generator)
            left = self.num_queries - len(points)
            new = self._varied(net, points[:left], logits[:left].argmax(1))
        return Transfer(attack=PGD(threat=self.threat, objective=self.objective, num_steps=self.num_steps), source=net)

    @torch.no_grad()
    def _ask(self, model: nn.Module, points: Tensor) -> Tensor:
        return torch.cat([model(part) for part in points.split(self.batch_size)])

    def _train(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        points: Tensor,
        logits: Tensor,
        generator: torch.Generator,
    ) -> None:
        told = logits.argmax(1) if self.answers == "labels" else logits.softmax(1)
        net.train()
        loss = points.new_zeros(())
        for _ in range(self.num_epochs):
            # In parts of nearly one size: BatchNorm cannot train on a single sample that is left over.
            order = torch.randperm(len(points), generator=generator).to(points.device)
            for rows in order.tensor_split(-(-len(points) // self.batch_size)):
                optimizer.zero_grad()
                loss = F.cross_entropy(logits_of(net(points[rows])), told[rows])
                loss.backward()
                optimizer.step()
        net.eval()
        if not bool(loss.isfinite()):
            raise ValueError(f"Surrogate(lr={self.lr:g}) is too large: the loss of the net is no longer finite")

    def _varied(self, net: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
        """A step from each point along the sign of the gradient of the net's probability of the model's label."""
        assert isinstance(self.threat, Ball)
        parts = [points]
        for start in range(0, len(points), self.batch_size):
            here = points[start : start + self.batch_size].detach().requires_grad_()
            told = labels[start : start + self.batch_size]
            # The logarithm has the sign of the probability's gradient, and does not vanish where that is near 1.
            grad = gradient_of(-F.cross_entropy(logits_of(net(here)), told, reduction="none"), here)
            parts.append(self.threat.clip(here.detach() + self.augment_step * self.threat.width * grad.sign()))
        return torch.cat(parts[1:] or parts)

    @torch.no_grad()
    def _check_fits(self, net: nn.Module, points: Tensor, answers: Tensor) -> None:
        with prefixed_errors("Surrogate(net=...): on the model's images"):
            found, wanted = tuple(logits_of(net.eval()(points[:1])).shape), (1, answers.shape[1])
        if found != wanted:
            raise ValueError(f"Surrogate(net=...) must give logits of the model's shape {wanted}, got {found}")
