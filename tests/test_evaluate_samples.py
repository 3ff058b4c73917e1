"""The judge and images, labels and logits that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import Linf, RandomNoise, dream, evaluate, evaluate_language, smallest_eps

from .judged import PGD_5, Called
from .oracles import images


@pytest.mark.parametrize(
    ("change_x", "message"),
    [
        (lambda x: x * 2, r"images must lie in \[0, 1\], got values from .*normalization=\(mean, std\)"),
        (lambda x: x - 1, r"images must lie in \[0, 1\]"),
        (lambda x: x.where(x < 0.9, 1.0000001), r"got values from .* to 1.00000012; .*clip them by `x.clamp\(0, 1\)`$"),
        (lambda x: (x * 255).to(torch.uint8), r"images must be floating point, got torch.uint8; for uint8 use"),
        (lambda x: x.where(x < 0.9, torch.nan), r"images must lie in \[0, 1\], got values from nan"),
        (lambda x: torch.cat([x[:5], x[5:7] / 0 * 0, x[7:]]), "to nan; 2 of 12 images hold NaN, the first is row 5$"),
        (lambda x: x[0, 0, 0], r"images must be a batch"),
        (lambda x: x.numpy(), r"images must be a tensor, got ndarray"),
    ],
)
def test_images_that_are_none_are_refused(
    net: nn.Module, x: Tensor, y: Tensor, change_x: Callable[[Tensor], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(net, change_x(x), y, {"pgd": PGD_5})


class Kind(torch.Tensor):
    """Whatever is computed of it is one, as of torchvision's `Mask` of pixels that are classes."""


def test_tensors_of_a_kind_of_their_own_are_measured_as_plain_ones(net: nn.Module, x: Tensor, y: Tensor) -> None:
    ids = torch.arange(len(x))
    expected = evaluate(net, x, y, {"pgd": PGD_5}, keep_adversarial=True)
    own = [tensor.as_subclass(Kind) for tensor in (x, y, ids)]
    report = evaluate(net, own[0], own[1], {"pgd": PGD_5}, sample_ids=own[2], keep_adversarial=True)
    assert "pgd" in str(report)
    of_pgd = (report.robust, report.success, report.x_adv, report.margin_left)
    found = [report.clean_correct, report.worst_case, report.label, report.sample_id, *(part["pgd"] for part in of_pgd)]
    found += [PGD_5(net, own[0], own[1]), dream(net, "0", own[0], num_steps=1)]
    found += [smallest_eps(net, own[0], own[1], PGD_5, largest=0.1, num_rounds=2)]
    assert [type(tensor) for tensor in found] == [torch.Tensor] * len(found)
    assert torch.equal(report.x_adv["pgd"], expected.x_adv["pgd"])


@pytest.mark.parametrize(
    ("change_y", "message"),
    [
        (lambda y: y.float(), r"labels must be class numbers.*got torch.float32"),
        (lambda y: y.float(), r"labels must be class numbers.*`y.long\(\)` makes such.*as in a regression"),
        (lambda y: nn.functional.one_hot(y, 4).float(), r"got torch.float32 \(12, 4\); for one-hot use `y.argmax"),
        (lambda y: nn.functional.one_hot(y, 4).float(), r"several labels of one sample are not measured"),
        (lambda y: nn.functional.one_hot(y, 4), r"labels must be class numbers.*for one-hot.*several labels of one"),
        (lambda y: torch.rand(len(y), 1, 6, 6), r"float32 \(12, 1, 6, 6\); classes of pixels, as in a segmentation"),
        (lambda y: y[:, None, None].expand(-1, 6, 6), r"\(12, 6, 6\); classes of pixels, as in a segmentation"),
        (lambda y: y[:, None], r"labels must be `\(N,\)`, got a column \(12, 1\)"),
        (lambda y: y[:-1], r"one label per image, got 12 images and 11 labels"),
        (lambda y: y + 4, r"labels must be classes of the model, 0 to 3; sample id \d+ has the label \d"),
        (lambda y: y - 9, r"labels must be classes of the model, 0 to 3; sample id 0 has the label -"),
        (lambda y: y > 1, r"got torch.bool"),
    ],
)
def test_labels_that_are_none_are_refused(
    net: nn.Module, x: Tensor, y: Tensor, change_y: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(net, x, change_y(y), {"pgd": PGD_5})


def test_a_label_that_is_no_class_is_named_by_the_id_of_its_sample(net: nn.Module, x: Tensor, y: Tensor) -> None:
    y[5] = 12
    with pytest.raises(ValueError, match="0 to 3; sample id 305 has the label 12"):
        evaluate(net, x, y, {}, sample_ids=torch.arange(300, 312))


def test_a_token_that_the_vocabulary_lacks_is_named_by_the_id_of_its_text() -> None:
    class Even(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(*tokens.shape, 12)

    tokens = torch.zeros(12, 3, dtype=torch.int64)
    following = tokens.clone()
    following[5, -1] = 12
    with pytest.raises(ValueError, match="0 to 11; sample id 305 has the label 12"):
        evaluate_language(Even(), tokens, following, {}, sample_ids=torch.arange(300, 312), batch_size=4)


def nan_for_the_eighth(x: Tensor) -> Tensor:
    logits = x.flatten(1)[:, :4] * 3
    return torch.where(x.flatten(1).sum(1, keepdim=True) == images(12)[7].sum(), torch.nan, logits)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.flatten(1)[:, :4].softmax(1), "probabilities where logits are due"),
        (lambda x: (x.flatten(1)[:, :4], x), r"returned a tuple of \(5, 4\) and \(5, 1, 6, 6\): let its .*wrap it"),
        (lambda x: {"scores": x.flatten(1)[:, :4]}, r"it returned a dict with the keys \['scores'\]"),
        (
            lambda x: x.flatten(1)[:, 0],
            r"logits of shape \(5, classes\) with 2 classes or more, got \(5,\).*of one logit z",
        ),
        (lambda x: x.flatten(1)[:, :1], r"got \(5, 1\).*of one logit z.*`torch.stack"),
        (lambda x: x.flatten(1)[:3, :4], r"logits of shape \(5, classes\)"),
        (lambda x: x[:, :, :2, :2], r"got \(5, 1, 2, 2\)"),
        (
            lambda x: x.flatten(1)[:, :4] * torch.inf,
            "NaN or infinite logits for 5 of 5 samples .*batch 0 of samples 100 to 104, first sample id 100",
        ),
        (
            nan_for_the_eighth,
            r"NaN or infinite logits for 1 of 5 samples \(.*, batch 1 of samples 105 to 109, first sample id 107",
        ),
        (lambda x: x.flatten(1)[:, :4].argmax(1, keepdim=True).expand(-1, 4), "must return floating point logits"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(x: Tensor, function: Callable[[Tensor], Any], message: str) -> None:
    ids, y = torch.arange(100, 112), torch.zeros(12, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        evaluate(Called(function), x, y, {"pgd": PGD_5}, sample_ids=ids, batch_size=5)


def test_nan_logits_after_an_attack_name_the_attack(x: Tensor) -> None:
    def fragile(x: Tensor) -> Tensor:
        logits = x.flatten(1)[:, :4]
        return torch.where(x.flatten(1).amax(1, keepdim=True) > 0.96, logits / 0, logits)

    y = fragile(x).argmax(1)
    with pytest.raises(ValueError, match="NaN or infinite logits.*after attack 'noise'"):
        evaluate(Called(fragile), x, y, {"noise": RandomNoise(threat=Linf(eps=0.3))})


def test_one_image_without_its_batch_is_told_how(net: nn.Module, x: Tensor, y: Tensor) -> None:
    with pytest.raises(ValueError, match=r"for one image give `x\[None\], y\[None\]`"):
        evaluate(net, x[0], y[0], {"pgd": PGD_5})


def test_two_logits_that_look_like_probabilities_by_chance_are_none() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[0.3, 0.7]]).expand(len(x), -1) + 0 * x.flatten(1)[:, :1]

    assert evaluate(Fixed(), images(1), torch.tensor([1]), {}).clean_correct.all()
    with pytest.raises(ValueError, match="returned probabilities"):
        evaluate(Fixed(), images(4), torch.ones(4, dtype=torch.int64), {})
