"""An object with a class of its own."""

from __future__ import annotations

import copy

from touchstone.own_class import put_before


class Kind:
    def says(self) -> str:
        return "kind"


class Own(Kind):
    loud: bool

    def says(self) -> str:
        return super().says().upper() if self.loud else super().says()


def test_one_object_does_otherwise_and_others_of_its_class_do_not() -> None:
    changed, other = Kind(), Kind()
    put_before(changed, Own, loud=True)
    assert (changed.says(), other.says()) == ("KIND", "kind")
    assert isinstance(changed, Kind)
    assert (type(changed).__name__, type(changed).__module__) == ("Kind", Kind.__module__)
    assert type(changed)().says() == copy.copy(changed).says() == "KIND"


def test_what_was_put_before_it_can_be_replaced() -> None:
    changed = Kind()
    put_before(changed, Own, loud=True)
    put_before(changed, Own, type(changed).__bases__[1], loud=False)
    assert changed.says() == "kind"
    assert type(changed).__bases__ == (Own, Kind)
