"""A report says where it comes from: the seed, and fingerprints of weights and samples."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml

from touchstone.callbacks.parts.passes.samples import Samples
from touchstone.callbacks.parts.records.origin import as_text, samples_fingerprint, weights_fingerprint

from .command_lines import BEST


def test_the_report_says_where_it_comes_from(copied: Path) -> None:
    report = json.loads((copied / "report.json").read_text())
    assert report["seed"] == 0
    assert report["weights"] == weights_fingerprint(torch.load(BEST, weights_only=True)["state_dict"])
    assert len(report["data"]) == 16
    assert "commit" in report
    assert yaml.safe_load((copied / "config.yaml").read_text())["seed_everything"] == 0


def test_a_fingerprint_of_samples_depends_on_each_of_them_and_not_on_batches() -> None:
    samples = Samples(torch.rand(9, 1, 4, 4), torch.arange(9) % 3, torch.arange(9))
    whole = samples_fingerprint(samples)
    order = torch.tensor([4, 2, 8, 0, 1, 3, 5, 6, 7])
    parts = [samples_fingerprint(samples.take(rows)) for rows in order.split(4)]
    assert as_text(sum(parts)) == as_text(whole)
    for changed in (
        Samples(samples.x + 1e-6, samples.y, samples.ids),
        Samples(samples.x, samples.y.flip(0), samples.ids),
        Samples(samples.x.flip(0), samples.y, samples.ids),
        samples.take(slice(0, 8)),
    ):
        assert as_text(samples_fingerprint(changed)) != as_text(whole)
