"""Models that have no answer for some batches: what was measured until then is kept, and the true error is shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import FGSM, Linf, evaluate
from touchstone.attacks.judge import diagnosis

from .judged import Custom
from .oracles import images, own_labels, small_net

WEAK = FGSM(threat=Linf(eps=0.02))  # which leaves some standing


class Refusing(nn.Module):
    """An honest net that refuses some batches."""

    def __init__(self, refuses: Callable[[Tensor], bool], kind: type[Exception] = ValueError) -> None:
        super().__init__()
        self.net, self.refuses, self.kind = small_net(), refuses, kind

    def forward(self, x: Tensor) -> Tensor:
        if self.refuses(x):
            raise self.kind("not these")
        return self.net(x)


def is_alone(x: Tensor) -> bool:
    return len(x) == 1


def is_grey(x: Tensor) -> bool:
    return bool((x == 0.5).all())


def is_beyond(x: Tensor) -> bool:
    """As no point inside the threat is."""
    return bool(((x < 0.01) | (x > 0.99)).any())


def test_a_net_that_refuses_a_single_image_is_probed_all_the_same() -> None:
    x = images(24)
    y = own_labels(small_net(), x)
    expected, found = (evaluate(model, x, y, {"fgsm": WEAK}) for model in (small_net(), Refusing(is_alone)))
    assert torch.equal(found.worst_case, expected.worst_case)
    assert found.warnings == expected.warnings


def test_a_probe_that_the_model_refuses_costs_a_line() -> None:
    x = images(24)
    y = own_labels(small_net(), x)
    expected, found = (evaluate(model, x, y, {"fgsm": WEAK}) for model in (small_net(), Refusing(is_grey)))
    assert torch.equal(found.worst_case, expected.worst_case)
    line = "fgsm: a probe for masking came to nothing, since the model's forward failed: not these"
    assert [*expected.warnings, line] == found.warnings


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, IndexError])
def test_a_probe_that_attacks_may_be_refused_by_any_error(kind: type[Exception]) -> None:
    x = images(24) * 0.9 + 0.05
    y = own_labels(small_net(), x)
    report = evaluate(Refusing(is_beyond, kind), x, y, {"fgsm": WEAK})
    assert 0 < report.worst_case.sum() < 24
    assert any("came to nothing, since the model's forward failed" in line for line in report.warnings)


def test_a_net_that_takes_one_image_at_a_time_is_measured() -> None:
    x = images(12)
    y = own_labels(small_net(), x)
    expected = evaluate(small_net(), x, y, {"fgsm": WEAK})
    found = evaluate(Refusing(lambda x: len(x) > 1), x, y, {"fgsm": WEAK}, batch_size=1)
    assert torch.equal(found.worst_case, expected.worst_case)


def test_an_error_in_a_probe_that_is_not_the_model_s_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[str]:
        raise RuntimeError("ours")

    monkeypatch.setattr(diagnosis, "near_by", broken)
    x = images(24)
    with pytest.raises(RuntimeError, match="ours"):
        evaluate(small_net(), x, own_labels(small_net(), x), {"fgsm": WEAK})


def test_an_attack_that_fails_on_a_net_that_refuses_a_single_image_shows_its_own_error() -> None:
    def fail(*_: object) -> Tensor:
        raise RuntimeError("the true one")

    x = images(4)
    y = own_labels(small_net(), x)
    for refuses in (is_alone, lambda x: True):
        with pytest.raises(RuntimeError, match="the true one"):
            Custom(fail)(Refusing(refuses), x, y)
