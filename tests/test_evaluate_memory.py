"""The judge where a batch does not fit into memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import PGD, Linf, evaluate
from touchstone.attacks.judge.halving import Halving

from .oracles import images, own_labels, small_net

SIGNS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError("no room"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
]


class Small(nn.Module):
    """A net on a device with room for a few samples, with gradients for fewer."""

    def __init__(self, room: int, error: Exception = SIGNS[0]) -> None:
        super().__init__()
        self.net, self.room, self.error = small_net(), room, error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room / (2 if x.requires_grad else 1):
            raise self.error
        return self.net(x)


@pytest.mark.parametrize("error", SIGNS, ids=lambda error: str(error)[-20:])
def test_a_batch_that_does_not_fit_is_halved_with_the_same_verdicts(error: Exception) -> None:
    x, pgd = images(40), PGD(threat=Linf(eps=0.05), num_steps=5)
    y = own_labels(small_net(), x)
    expected = evaluate(small_net(), x, y, {"pgd": pgd})
    with pytest.warns(UserWarning, match="fit into memory") as warned:
        report = evaluate(Small(10, error), x, y, {"pgd": pgd})
    assert torch.equal(report.robust["pgd"], expected.robust["pgd"])
    assert report.cost["pgd"].num_backwards == expected.cost["pgd"].num_backwards
    assert 0 < int(report.robust["pgd"].sum()) < 40
    assert [str(item.message) for item in warned] == [
        "a batch of 40 samples does not fit into memory: going on with 5 at a time, which changes no verdict"
    ]


def test_calls_that_share_a_halving_try_once_what_does_not_fit() -> None:
    x, halving, tried = images(40), Halving(40), list[int]()
    y, model = own_labels(small_net(), x), Small(10)
    model.register_forward_pre_hook(lambda _, args: tried.append(len(args[0])))
    for largest in (40, 5):
        evaluate(model, x, y, {"pgd": PGD(threat=Linf(eps=0.05), num_steps=2)}, batch_size=halving)
        assert max(tried) == largest
        tried.clear()
    with pytest.warns(UserWarning, match="a batch of 40 .* going on with 5 at a time"):
        halving.say()
    halving.say()  # nothing new


def test_what_a_library_cannot_do_is_no_lack_of_memory() -> None:
    x, error = images(4), RuntimeError("could not create a primitive descriptor for a convolution forward propagation")
    with pytest.raises(RuntimeError, match="primitive descriptor"):  # and no warning of a smaller batch
        evaluate(Small(0, error), x, own_labels(small_net(), x), {})


def test_one_sample_that_does_not_fit_is_an_error() -> None:
    x = images(4)
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(Small(0), x, own_labels(small_net(), x), {})
