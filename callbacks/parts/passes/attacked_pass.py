"""`AttackedPass`: the samples of a pass wait, are attacked, and become a report of each data loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from touchstone.attacks import Attack, Report, evaluate
from touchstone.attacks.judge.halving import Halving
from touchstone.attacks.judge.probed import probed

from .first_samples import FirstSamples
from .gathered_report import gathered_report
from .preparation import Preparation
from .samples import Samples
from .waiting import Waiting
from .warm_starts import WarmStarts

if TYPE_CHECKING:
    from ..pictures.attack_pictures import AttackPictures


class AttackedPass:
    """Attacks samples so many at a time, whatever the loader's batches, or all at once where an attack pools them."""

    def __init__(
        self,
        suite: Mapping[str, Attack],
        *,
        batch_size: int,
        halving: Halving,
        seed: int,
        preparation: Preparation,
        warm_starts: WarmStarts,
        pictures: AttackPictures,
    ) -> None:
        self._suite, self._halving, self._seed = dict(suite), halving, seed
        self._preparation, self._warm_starts, self._pictures = preparation, warm_starts, pictures
        self._looks_closer = self._draws = False
        self._model: nn.Module | None = None  # the one that the waiting samples are for
        self._waiting = Waiting(batch_size, suite)
        self._first_samples = FirstSamples(batch_size)  # probed for gradient masking
        self._reports: dict[int, list[Report]] = {}

    def begin(self, *, looks_closer: bool, draws: bool) -> None:
        """Begins a pass, to be probed for masking and drawn or not, and drops what an interrupted one has left."""
        self._looks_closer, self._draws = looks_closer, draws
        self._waiting.forget()
        self._first_samples.forget()
        self._reports.clear()
        self._warm_starts.forget_pass()
        self._pictures.forget()

    def see(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        """Takes in the next samples of a loader, and attacks them as soon as there are enough.

        Raises:
            ValueError: an attack wants to see all samples at once, and they have several shapes.
        """
        self._model = model
        for ready in self._waiting.add(samples, loader_index):
            self._attack(model, ready, loader_index)

    def _attack(self, model: nn.Module, samples: Samples, loader_index: int) -> None:
        is_pictured = self._draws and self._pictures.wants(loader_index)
        if self._looks_closer:
            self._first_samples.keep(samples, loader_index)
        report = evaluate(
            model,
            samples.x,
            samples.y,
            self._warm_starts.applied(self._preparation.attacks, samples, loader_index),
            seed=self._seed,
            sample_ids=samples.ids,
            batch_size=self._halving,
            keep_adversarial=is_pictured or bool(self._warm_starts),
            probe_masking=False,
        )
        if self._warm_starts:
            self._warm_starts.take_in(samples, report, loader_index)
        if is_pictured:
            self._pictures.keep(model, samples, report, loader_index)
        report = self._preparation.with_overlap(replace(report, x_adv={}), samples.x)
        self._reports.setdefault(loader_index, []).append(report)

    def conclude(self, loader_index: int, *, device: torch.device, probes: bool) -> Report:
        """Ends the pass over a loader: the report over all processes, of which one `probes`. A collective."""
        for left in self._waiting.rest(loader_index):
            assert self._model is not None  # they were seen with it
            self._attack(self._model, left, loader_index)
        self._halving.say()
        report = gathered_report(self._reports.pop(loader_index, []), self._suite)
        report = self._preparation.with_cost(report)
        first = self._first_samples.gather(loader_index)
        if first is not None and self._model is not None and probes:
            attacks = self._warm_starts.applied(self._preparation.attacks, first, loader_index)
            x, y, ids = (tensor.to(device) for tensor in (first.x, first.y, first.ids))
            report = probed(report, self._model, x, y, attacks, sample_ids=ids, seed=self._seed, halving=self._halving)
        self._warm_starts.conclude(loader_index)
        return report
