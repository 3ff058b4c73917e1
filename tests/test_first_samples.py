"""The first samples of a pass, whatever the batches in which they came."""

from __future__ import annotations

import torch

from touchstone.callbacks.parts.passes.first_samples import FirstSamples
from touchstone.callbacks.parts.passes.samples import Samples


def test_they_are_those_of_the_smallest_ids_in_their_order_and_of_one_shape() -> None:
    first = FirstSamples(4)
    for ids in ([5, 3, 1], [4, 0, 7]):
        values = torch.tensor(ids)
        first.keep(Samples(values[:, None].float(), 10 * values, values), 0)
    first.keep(Samples(torch.zeros(1, 2), torch.tensor([20]), torch.tensor([2])), 0)
    found = first.gather(0)
    assert found is not None
    assert (found.ids.tolist(), found.y.tolist()) == ([0, 1, 3], [0, 10, 30])
    assert found.x.flatten().tolist() == [0, 1, 3]
    assert first.gather(0) is None
