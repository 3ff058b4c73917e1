"""`Diagnosis`: looks at a few samples for what would make the failure of an attack no robustness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..core.attack import Attack
from ..core.same_answer import same_in_other_batches
from ..core.sample_rng import SampleRng
from ..objectives.untargeted import Untargeted
from .attack_probes import FEWEST, at_large_eps, by_another_start, by_margin
from .forwards import Forwards
from .gradient_probes import half_way, in_jumps, near_by
from .meter import Cost
from .probing import Probing
from .refused import unless_refused

NUM_LOOKED_AT = 32
"""Samples that the model is asked again."""

_NUM_FORWARDS = 8
_SMALL_BATCHES = (4, 3, 5, 2)
_NUM_PROBED = 16
_NUM_CLIMBING = 8


class Diagnosis:
    """Looks for signs of masking on a few samples of an evaluation; the first `NUM_LOOKED_AT` logits will do."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        prediction: Tensor,
        logits: Tensor,
        rng: SampleRng,
        look: Forwards,
    ) -> None:
        self._probing = Probing(model, x, y, prediction=prediction, rng=rng, look=look)
        self._logits = logits

    @property
    def cost(self) -> Cost:
        """What the probes have passed through the model, beside the judge's own forwards."""
        return self._probing.cost

    def of_the_model(self, changed: Sequence[str], *, look_again: bool = True) -> list[str]:
        """Whether the model gives the same answer again, and in another batch.

        Args:
            changed: what of its own state the model changed in its forward.
            look_again: whether to ask it.
        """
        signs = []
        if changed:
            signs.append(
                f"the model changes its own state in evaluation mode ({changed[0]}): its answers depend on how often "
                "it was asked"
            )
        if len(self._logits) >= _NUM_PROBED and bool(((self._logits >= 0) & (self._logits <= 1)).all()):
            signs.append(
                "the model's outputs all lie in [0, 1]: if they are probabilities of each class by itself, leave out "
                "the sigmoid that gives them, since it flattens the gradients"
            )
        if not look_again or not len(self._probing.x):
            return signs
        first, second = self._logits[:NUM_LOOKED_AT], self._asked_in_small_batches()
        if all(same_in_other_batches(answers, first) for answers in second):
            return signs
        if not all(all(map(same_in_other_batches, second, self._asked_in_small_batches())) for _ in range(2)):
            signs.append(
                "the model gives another answer when it is asked again: it draws random numbers, so that an attack "
                "needs their expectation (`num_eot_samples` of PGD and APGD, `AutoAttack(version='rand')`), and each "
                "verdict is one draw"
            )
        else:
            signs.append(
                "the model's answer for an image depends on the other images of the batch, in evaluation mode too: "
                "look for BatchNorm without running statistics, or a norm over the batch"
            )
        return signs

    def _asked_in_small_batches(self) -> list[Tensor]:
        """The logits of a few samples, of fewer than that several times: in about `_NUM_FORWARDS` forwards.

        A model may draw one number for all of a forward, and two of them are as likely as not to agree by chance.
        """
        x, ids = self._probing.x[:NUM_LOOKED_AT], self._probing.rng.sample_ids[:NUM_LOOKED_AT]
        # None is left to a batch of its own, which a norm over the batch refuses.
        size = next((size for size in _SMALL_BATCHES if size < len(x) and len(x) % size != 1), 1)
        times = min(_NUM_FORWARDS, max(1, round(NUM_LOOKED_AT / len(x))))
        return [self._probing.look(x.flip(0), ids.flip(0), "a second time", size).flip(0) for _ in range(times)]

    def of_the_attacks(self, attacks: Mapping[str, Attack], robust: Mapping[str, Tensor]) -> list[str]:
        """Tries what a gradient attack left standing by other means, once for each threat."""
        signs, tried, probing = [], set(), self._probing
        by_gradient = [
            (name, attack)
            for kind in ("gradient", "one step")
            for name, attack in attacks.items()
            if attack.kind == kind and isinstance(attack.objective, Untargeted)
        ]
        for name, attack in by_gradient:
            threat = repr(attack.threat)
            if threat in tried:
                continue
            tried.add(threat)
            if not probing.x.is_floating_point() or attack.enter(probing.model, probing.x)[1] is not probing.model:
                continue  # the probes move the samples themselves, by degrees
            peers = [robust[peer] for peer, other in attacks.items() if repr(other.threat) == threat]
            for probe in self._probes(name, attack, torch.stack(peers).all(0), robust[name]):
                signs += unless_refused(probing.model, name, probe)
        return signs

    def _probes(self, name: str, attack: Attack, stands: Tensor, robust: Tensor) -> Iterator[Callable[[], list[str]]]:
        """What is tried for a threat, on a few samples each.

        Args:
            name: of the attack, for messages.
            attack: by gradients, in this threat.
            stands: which samples no attack in this threat turned, bool `(N,)`.
            robust: which ones this attack left right, bool `(N,)`.
        """
        probing = self._probing
        most = min(_NUM_PROBED, probing.look.batch_size)
        correct = probing.prediction == probing.y
        right, fallen = correct.nonzero()[:, 0], (correct & ~robust).nonzero()[:, 0][:most]
        standing = stands.nonzero()[:, 0][:most]
        if len(standing) >= FEWEST:
            yield partial(by_margin, probing, name, attack, standing)
            yield partial(at_large_eps, probing, name, attack, standing)
        if len(right) and probing.is_differentiable():
            if attack.kind == "gradient" and len(standing) > FEWEST:
                yield partial(half_way, probing, name, attack.threat, standing)
            yield partial(near_by, probing, name, attack.threat, right[:most])
            yield partial(in_jumps, probing, name, attack.threat, right[: min(_NUM_CLIMBING, most)])
        yield partial(by_another_start, probing, name, attack, fallen)
