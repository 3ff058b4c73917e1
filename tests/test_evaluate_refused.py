"""What the judge refuses: attacks that are none or fail, names that cannot be tags, and options out of range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from touchstone.attacks import Attack, evaluate

from .judged import LINF, PGD_5, Custom


@pytest.mark.parametrize("name", ["worst_case", "clean", "a/b", "", "pgd 20", "pgd\n"])
def test_a_name_that_cannot_be_a_tag_is_refused(net: nn.Module, x: Tensor, y: Tensor, name: str) -> None:
    with pytest.raises(ValueError, match="an attack's name must be"):
        evaluate(net, x, y, {name: PGD_5})


def test_what_is_no_attack_is_refused(net: nn.Module, x: Tensor, y: Tensor) -> None:
    with pytest.raises(ValueError, match="attack 'a' must be an Attack with a threat"):
        evaluate(net, x, y, {"a": lambda model, x, y: x})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="attacks must be given by name"):
        evaluate(net, x, y, [PGD_5])  # type: ignore[arg-type]


def test_an_attack_without_perturb_says_what_to_define(net: nn.Module, x: Tensor, y: Tensor) -> None:
    class Nothing(Attack):
        threat = LINF

    with pytest.raises(
        RuntimeError, match=r"attack 'a': TypeError: Nothing must define perturb\(self, model, x, y, rng\)"
    ):
        evaluate(net, x, y, {"a": Nothing()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 2.5}, r"evaluate\(batch_size=...\) must be a whole number >= 1, got 2.5"),
        ({"batch_size": 0}, r"evaluate\(batch_size=...\) must be >= 1, got 0"),
        ({"batch_size": True}, r"evaluate\(batch_size=...\) must be a whole number >= 1, got True"),
        ({"keep_adversarial": "no"}, r"evaluate\(keep_adversarial=...\) must be True or False, got 'no'"),
        ({"check_8bit": "no"}, r"evaluate\(check_8bit=...\) must be True or False, got 'no'"),
        ({"probe_masking": 0}, r"evaluate\(probe_masking=...\) must be True or False, got 0"),
        ({"seed": 1.5}, r"evaluate\(seed=...\) must be a whole number, got 1.5"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(
    options: dict, message: str, net: nn.Module, x: Tensor, y: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(net, x, y, {"pgd": PGD_5}, **options)


def test_an_error_inside_an_attack_names_it_and_leaves_everything_as_it_was(
    net: nn.Module, x: Tensor, y: Tensor
) -> None:
    def fail(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    net.train()
    with pytest.raises(RuntimeError, match="attack 'a': shapes cannot be multiplied"):
        evaluate(net, x, y, {"a": Custom(fail)})
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


@pytest.mark.parametrize(
    ("perturbation", "kind", "message"),
    [
        (lambda m, x, y: None, ValueError, r"'a': Custom.perturb must return a tensor, got NoneType; does it end with"),
        (lambda m, x, y: (x, y), ValueError, r"'a': Custom.perturb must return a tensor, got tuple"),
        (lambda m, x, y: 1 / 0, RuntimeError, r"'a': ZeroDivisionError: division by zero"),
        (lambda m, x, y: {}["k"], RuntimeError, r"'a': KeyError: 'k'"),
        (
            lambda m, x, y: (m.register_forward_hook(lambda a, b, o: o), x)[1],
            ValueError,
            "changed the model: the hooks",
        ),
    ],
)
def test_slips_in_an_attack_of_ones_own_are_named(
    net: nn.Module, x: Tensor, y: Tensor, perturbation: Callable[..., Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        evaluate(net, x, y, {"a": Custom(perturbation)})
