"""A report that is gathered over processes is the report of one."""

from __future__ import annotations

import dataclasses

import torch

from touchstone.attacks import PGD, Linf, RandomNoise, Report, evaluate
from touchstone.callbacks.parts.passes.gathered_report import gathered_report

from .oracles import images, own_labels, small_net


def test_every_field_of_a_report_is_gathered() -> None:
    net, x = small_net().eval(), images(12)
    y = own_labels(net, x)
    suite = {"noise": RandomNoise(threat=Linf(eps=0.1)), "pgd": PGD(threat=Linf(eps=0.1), num_steps=5)}
    whole = evaluate(net, x, y, suite, check_8bit=True, probe_masking=False)
    ids = torch.arange(12)
    parts = [
        evaluate(net, x[rows], y[rows], suite, sample_ids=ids[rows], check_8bit=True, probe_masking=False)
        for rows in (slice(7, 12), slice(0, 7))
    ]
    found = gathered_report(parts, suite)
    for field in dataclasses.fields(Report):
        if field.name in ("x_adv", "attacks", "cost", "judge_cost"):  # the first is large, and dropped
            continue
        expected, got = getattr(whole, field.name), getattr(found, field.name)
        for one, other in zip(_tensors(expected), _tensors(got), strict=True):
            assert torch.allclose(one.double(), other.double(), atol=1e-5), field.name
    for name, cost in found.cost.items():
        assert cost.num_forwards == sum(part.cost[name].num_forwards for part in parts) == whole.cost[name].num_forwards
        assert cost.num_backwards == sum(part.cost[name].num_backwards for part in parts)
    assert found.judge_cost.num_forwards == sum(part.judge_cost.num_forwards for part in parts)
    assert found.outlook("pgd") == whole.outlook("pgd")


def test_a_report_of_nothing_is_empty() -> None:
    suite = {"pgd": PGD(threat=Linf(eps=0.1))}
    assert gathered_report([], suite).worst_case.shape == (0,)


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return list(value.values()) if isinstance(value, dict) else []
