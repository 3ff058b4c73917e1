"""The judge and models that it cannot measure: it says where to look."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import L1, L2, Attack, HopSkipJump, RandomNoise, Square, Strongest, dream, evaluate
from touchstone.attacks.threats.ball import Ball

from .judged import LINF, PGD_5, Called
from .oracles import own_labels, small_net


class Silent(torch.autograd.Function):
    """Passes on what it is given, and no gradient, as layers of quantised weights do."""

    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: object, *grads: Tensor) -> None:
        return None


def test_a_model_without_a_gradient_is_an_error_that_says_where_to_look(x: Tensor) -> None:
    free = torch.ones(4, requires_grad=True)  # a weight that no module knows, so that it is not frozen
    for function in (
        lambda x: x.detach().flatten(1)[:, :4] * 3,
        lambda x: x.detach().flatten(1)[:, :4] * free,
        lambda x: Silent.apply(x).flatten(1)[:, :4] * 3,
    ):
        model = Called(function)
        with pytest.raises(ValueError, match="attack 'pgd': the model's output does not depend on its input by a diff"):
            evaluate(model, x, model(x).argmax(1), {"pgd": PGD_5})


@pytest.mark.parametrize("threat", [LINF, L1(eps=1)], ids=["linf", "l1"])
def test_strongest_says_so_too_of_a_model_without_a_gradient(x: Tensor, threat: Ball) -> None:
    model = Called(lambda x: Silent.apply(x).flatten(1)[:, :4] * 3)
    with pytest.raises(ValueError, match=r"attack 's': the model's output does not .* a black box \(Square"):
        evaluate(model, x, model(x).argmax(1), {"s": Strongest(threat=threat)})


def test_logits_may_be_of_another_dtype_than_the_images(net: nn.Module, x: Tensor, y: Tensor) -> None:
    class Wide(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).double()

    attacks = {"strongest": Strongest(threat=LINF)}
    report, own = (evaluate(model, x, y, attacks, probe_masking=False) for model in (Wide(net), net))
    assert torch.equal(report.robust["strongest"], own.robust["strongest"])


def test_a_model_that_leaves_torch_is_told_of_the_black_boxes(x: Tensor) -> None:
    model = Called(lambda x: torch.from_numpy(x.numpy().reshape(len(x), -1)[:, :4] * 3))
    y = model(x).argmax(1)
    with pytest.raises(RuntimeError, match=r"attack 'pgd': Can't call numpy\(\).*attack by a black box \(Square"):
        evaluate(model, x, y, {"pgd": PGD_5})
    report = evaluate(model, x, y, {"square": Square(threat=LINF, num_queries=20)})
    assert report.success["square"].any()


def test_a_model_that_is_no_module_is_refused(net: nn.Module, x: Tensor, y: Tensor) -> None:
    for call in (lambda: evaluate(lambda x: x, x, y, {"pgd": PGD_5}), lambda: PGD_5(lambda x: x, x, y)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"the model must be a torch.nn.Module .* got function: put a function"):
            call()


@pytest.mark.parametrize(
    "ask",
    [
        lambda net, x, y: evaluate(net, x, y, {"pgd": PGD_5}),
        lambda net, x, y: PGD_5(net, x, y),
        lambda net, x, y: dream(net, "0", x, num_steps=1),
    ],
)
@pytest.mark.parametrize(
    ("lazy", "kind"),
    [(partial(nn.LazyConv2d, 4, 3), "Conv2d"), (partial(nn.LazyBatchNorm2d, affine=False), "BatchNorm2d")],
)
def test_a_lazy_layer_that_has_seen_no_batch_is_named(
    x: Tensor, y: Tensor, ask: Callable[..., object], lazy: Callable[[], nn.Module], kind: str
) -> None:
    net = nn.Sequential(nn.Identity(), lazy(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(ValueError, match=f"its layer '1', a Lazy{kind}, does not know .*: pass one batch"):
        ask(net, x, y)
    net.eval()(x)
    ask(net, x, y)


def test_a_model_in_several_precisions_that_does_not_convert_says_so(net: nn.Module, x: Tensor, y: Tensor) -> None:
    net[5].bfloat16()
    with pytest.raises(ValueError, match=r"several precisions \(bfloat16, float32\) .* use `model.float\(\)`"):
        evaluate(net, x, y, {"pgd": PGD_5})


class OfOneNumber(nn.Module):
    """Keeps something of its first batch that is as long as that."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = small_net(), None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = torch.ones_like(x)
        return self.net(x * self.scale)


@pytest.mark.parametrize("probe_masking", [True, False])
def test_a_model_that_takes_one_number_of_samples_is_named(x: Tensor, probe_masking: bool) -> None:
    y = own_labels(small_net(), x)
    with pytest.raises(ValueError, match=rf"the model took {len(x)} samples and refuses \d+ \(The size of"):
        evaluate(OfOneNumber(), x, y, {"none": RandomNoise(threat=LINF)}, probe_masking=probe_masking)


def test_a_model_that_fails_for_once_keeps_its_error(x: Tensor) -> None:
    num_calls, net = 0, small_net()

    def failing_at_the_fourth(x: Tensor) -> Tensor:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 4:
            raise RuntimeError("connection lost")
        return net(x)

    with pytest.raises(RuntimeError, match="^connection lost$"):
        evaluate(Called(failing_at_the_fourth), x, own_labels(net, x), {"none": RandomNoise(threat=LINF)})


def test_a_model_that_fails_of_itself_on_another_number_of_samples_says_why(x: Tensor) -> None:
    asked = []

    def fail_later(x: Tensor) -> Tensor:
        asked.append(len(x))
        if len(asked) > 1:
            raise RuntimeError("out of order")
        return x.flatten(1)[:, :4]

    with pytest.raises(RuntimeError, match=r"^out of order$"):
        evaluate(Called(fail_later), x, x.flatten(1)[:, :4].argmax(1), {"none": RandomNoise(threat=LINF)})
    assert asked[1] < asked[0] == asked[2] == len(x)


class InPlace(nn.Module):
    """Normalizes its input where it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.sub_(0.5).div_(0.25).flatten(1))


@pytest.mark.parametrize("attack", [RandomNoise(threat=LINF), PGD_5])
def test_a_model_that_changes_its_input_in_place_is_named(attack: Attack) -> None:
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with pytest.raises(
        ValueError, match=r"the model changes its input in place.*first at sample id 100.*`x = x - mean`"
    ):
        evaluate(InPlace(), x, torch.zeros(12, dtype=torch.int64), {"a": attack}, sample_ids=torch.arange(100, 112))
    assert torch.equal(x, before)


def test_a_first_layer_that_works_in_place_is_told_to_gradient_attacks(x: Tensor, y: Tensor) -> None:
    """On pixels a relu changes nothing, so that an attack without gradients is measured as ever."""
    torch.manual_seed(0)
    last = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 4))
    noise = {"noise": RandomNoise(threat=LINF)}
    in_place = nn.Sequential(nn.ReLU(inplace=True), last)
    assert torch.equal(evaluate(in_place, x, y, noise).robust["noise"], evaluate(last, x, y, noise).robust["noise"])
    with pytest.raises(RuntimeError, match=r"attack 'pgd': .*the model changes its input in place, as .*ReLU\(inplace"):
        evaluate(in_place, x, last(x).argmax(1), {"pgd": PGD_5})


class Decisions(nn.Module):
    """Gives the class alone, as a 1 among zeros."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(self.net(x).argmax(1), 4).float()


def test_a_model_that_gives_decisions_alone_is_attacked_by_what_needs_no_more(
    net: nn.Module, x: Tensor, y: Tensor
) -> None:
    attacks = {"walk": HopSkipJump(threat=L2(eps=2.0), num_queries=300, num_directions=20)}
    report = evaluate(Decisions(net), x, y, attacks)
    assert torch.equal(report.clean_correct, evaluate(net, x, y, attacks).clean_correct)
    assert report.robust["walk"].sum() < report.clean_correct.sum()
    for model, among in ((Decisions(net), {**attacks, "pgd": PGD_5}), (nn.Sequential(net, nn.Softmax(1)), attacks)):
        with pytest.raises(ValueError, match="probabilities where logits are due"):
            evaluate(model, x, y, among)
