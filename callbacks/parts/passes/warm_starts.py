"""`WarmStarts`: the perturbations that attacks have found, kept from one validation of a fit to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from touchstone.attacks import Attack, Report, Threat, WarmStarted

from .processes import gather_by_id
from .samples import Samples

_PLACE = "touchstone/warm_starts"
_LARGEST = torch.finfo(torch.float16).max

Perturbations = dict[str, Tensor]
"""`_id`, int64 `(M,)` in ascending order, and `change`, float16 `(M, ...)`, on the CPU."""


class WarmStarts:
    """A memory of perturbations by data loader, attack and sample id.

    It holds those of gradient attacks that work on each sample by itself, and not somewhere inside the model, on every
    process those of all samples: 2 bytes of main memory for each number of a sample and attack, during a pass twice as
    much, and at its end a few copies of one attack's. A checkpoint grows by the same 2 bytes. What rounding to float16
    carries out of a threat is projected back when it is tried.
    """

    def __init__(self, suite: Mapping[str, Attack]) -> None:
        self._names = [
            name
            for name, attack in suite.items()
            if attack.kind == "gradient" and not attack.pools and type(attack.threat).enter is Threat.enter
        ]
        self._kept: dict[int, dict[str, Perturbations]] = {}
        self._found: dict[int, list[tuple[Tensor, dict[str, Tensor]]]] = {}
        self._shapes: dict[int, tuple[int, ...]] = {}

    def __bool__(self) -> bool:
        """Whether it keeps anything of these attacks."""
        return bool(self._names)

    def applied(self, suite: Mapping[str, Attack], samples: Samples, loader_index: int) -> dict[str, Attack]:
        """The attacks, those with a memory of these samples preceded by a trial of what they found last time."""
        kept = self._kept.get(loader_index, {})
        changes = {name: _of(samples, kept[name]) for name in self._names if name in kept}
        return {
            name: attack if (change := changes.get(name)) is None else WarmStarted(attack=attack, perturbation=change)
            for name, attack in suite.items()
        }

    def take_in(self, samples: Samples, report: Report, loader_index: int) -> None:
        """Keeps what was found of samples, for the next pass; `report` has their attacked images.

        A sample that was wrong before any attack keeps what was found last time.

        Raises:
            ValueError: the samples have another shape than those before them, or are whole numbers.
        """
        if not samples.x.is_floating_point():
            raise ValueError(f"RobustAccuracy(warm_start=...) must be False for samples of {samples.x.dtype}")
        rows, shape = report.clean_correct, tuple(samples.x.shape[1:])
        first = self._shapes.setdefault(loader_index, shape)
        if shape != first:
            raise ValueError(
                "RobustAccuracy(warm_start=...) must be False where samples have several shapes, "
                f"got {first} and {shape}"
            )
        changes = {
            name: (report.x_adv[name] - samples.x)[rows].clamp(-_LARGEST, _LARGEST).half().cpu() for name in self._names
        }
        self._found.setdefault(loader_index, []).append((samples.ids[rows].cpu(), changes))

    def conclude(self, loader_index: int) -> None:
        """Ends the pass over a loader. A collective: a sample may be another process's in the next pass."""
        found = self._found.pop(loader_index, [])
        kept = self._kept.setdefault(loader_index, {})
        for name in self._names:
            new = {}
            if found:
                new["_id"] = torch.cat([ids for ids, _ in found])
                new["change"] = torch.cat([changes[name] for _, changes in found])
            new = gather_by_id(new)
            if new:
                kept[name] = _updated(kept.get(name), new)

    def forget_pass(self) -> None:
        """Drops what an interrupted pass has found."""
        self._found.clear()
        self._shapes.clear()

    # Checkpoints. Lightning allows only one callback of a class to have a state of its own, and a trainer may have
    # several entries of RobustAccuracy.

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Puts what is kept into a checkpoint: tensors by plain names, which load with `weights_only=True`."""
        if any(self._kept.values()):
            checkpoint[_PLACE] = self._kept

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Goes on with what a checkpoint has kept, by any number of processes, of attacks by the same names."""
        if self:
            self._kept = {index: dict(kept) for index, kept in checkpoint.get(_PLACE, {}).items()}


def _of(samples: Samples, kept: Perturbations) -> Tensor | None:
    """What was found of each sample, 0 where there is nothing, `(N, ...)`; None where all of it is nothing."""
    ids, wanted, change = kept["_id"], samples.ids.cpu(), kept["change"]
    if not len(ids) or change.shape[1:] != samples.x.shape[1:]:
        return None
    place = torch.searchsorted(ids, wanted).clamp_max(len(ids) - 1)
    known = ids[place] == wanted
    found = change.new_zeros(len(wanted), *change.shape[1:])
    found[known] = change[place[known]]
    return found


def _updated(old: Perturbations | None, new: Perturbations) -> Perturbations:
    """The new ones, and those of the old ones whose samples are not among them."""
    if old is None or old["change"].shape[1:] != new["change"].shape[1:]:
        return new
    stays = ~torch.isin(old["_id"], new["_id"])
    ids, order = torch.cat([old["_id"][stays], new["_id"]]).sort()
    return {"_id": ids, "change": torch.cat([old["change"][stays], new["change"]])[order]}
