"""The judge: the same verdicts in every form of batch, model and precision."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import FGSM, Linf, RandomNoise, Strongest, evaluate

from .judged import LINF, PGD_5, Called
from .oracles import images


@pytest.fixture
def expected(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    robust = evaluate(net, x, y, {"pgd": PGD_5}).robust["pgd"]
    assert robust.any()
    assert not robust.all()
    return robust


def test_channels_last_and_non_contiguous_batches(net: nn.Module, x: Tensor, y: Tensor, expected: Tensor) -> None:
    for form in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(evaluate(net, form, y, {"pgd": PGD_5}).robust["pgd"], expected)


def test_a_double_batch_for_a_float_model(net: nn.Module, x: Tensor, y: Tensor, expected: Tensor) -> None:
    report = evaluate(net, x.double(), y, {"pgd": PGD_5}, keep_adversarial=True)
    assert torch.equal(report.robust["pgd"], expected)
    assert report.x_adv["pgd"].dtype == torch.float32


def test_a_half_batch_is_computed_in_float32(net: nn.Module, x: Tensor, y: Tensor) -> None:
    half = x.half()
    report = evaluate(net, half, y, {"pgd": PGD_5}, keep_adversarial=True)
    assert report.x_adv["pgd"].dtype == torch.float32
    assert torch.equal(report.robust["pgd"], evaluate(net, half.float(), y, {"pgd": PGD_5}).robust["pgd"])


def test_a_model_of_bfloat16_weights_keeps_x_in_float32(net: nn.Module, x: Tensor, y: Tensor) -> None:
    report = evaluate(net.bfloat16(), x, y, {"pgd": PGD_5}, keep_adversarial=True)
    assert report.x_adv["pgd"].dtype == torch.float32
    assert LINF.contains(report.x_adv["pgd"], x).all()


def test_a_model_without_parameters(x: Tensor) -> None:
    model = Called(lambda x: x.flatten(1)[:, :4] * 9)
    report = evaluate(model, x, model(x).argmax(1), {"pgd": PGD_5})
    assert not report.worst_case.all()


def test_an_output_with_logits(net: nn.Module, x: Tensor, y: Tensor, expected: Tensor) -> None:
    @dataclass
    class Output:
        logits: Tensor

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: Tensor) -> Output:
            return Output(self.inner(x))

    assert torch.equal(evaluate(Wrapped(), x, y, {"pgd": PGD_5}).robust["pgd"], expected)


def test_any_batch_size_gives_the_same_verdicts(net: nn.Module, x: Tensor, y: Tensor, expected: Tensor) -> None:
    for batch_size in (1, 5, 12, 1000):
        assert torch.equal(evaluate(net, x, y, {"pgd": PGD_5}, batch_size=batch_size).robust["pgd"], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_active_autocast_changes_nothing(net: nn.Module, x: Tensor, y: Tensor, dtype: torch.dtype) -> None:
    attacks = {"fgsm": FGSM(threat=LINF), "pgd": PGD_5, "strongest": Strongest(threat=LINF)}
    plain = evaluate(net, x, y, attacks, keep_adversarial=True)
    with torch.autocast("cpu", dtype=dtype):
        inside = evaluate(net, x, y, attacks, keep_adversarial=True)
        assert net.eval()(x).dtype == dtype
    assert torch.equal(inside.clean_prediction, plain.clean_prediction)
    for name in attacks:
        assert torch.equal(inside.x_adv[name], plain.x_adv[name])
        assert torch.equal(inside.robust[name], plain.robust[name])


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_a_seed_may_be_one_of_numpy(net: nn.Module, x: Tensor, y: Tensor, kind: type) -> None:
    threes = (evaluate(net, x, y, {"pgd": PGD_5}, seed=seed, keep_adversarial=True) for seed in (3, kind(3)))
    assert torch.equal(*(report.x_adv["pgd"] for report in threes))


def test_sample_ids_may_be_an_array_that_runs_backwards(net: nn.Module, x: Tensor, y: Tensor) -> None:
    backwards = np.arange(12)[::-1]
    assert evaluate(net, x, y, {"pgd": PGD_5}, sample_ids=backwards).sample_id.tolist() == list(range(11, -1, -1))
    with pytest.raises(ValueError, match=r"sample_ids must be integers \(12,\), got torch.float64 \(12,\)"):
        evaluate(net, x, y, {"pgd": PGD_5}, sample_ids=backwards / 2)


def test_sample_ids_may_be_a_list(net: nn.Module, x: Tensor, y: Tensor) -> None:
    assert evaluate(net, x, y, {"pgd": PGD_5}, sample_ids=list(range(5, 17))).sample_id.tolist() == list(range(5, 17))
    with pytest.raises(ValueError, match=r"sample_ids must be integers \(12,\), got torch.int64 \(3,\)"):
        evaluate(net, x, y, {"pgd": PGD_5}, sample_ids=[1, 2, 3])
    with pytest.raises(ValueError, match="sample_ids must be integers"):
        evaluate(net, x, y, {"pgd": PGD_5}, sample_ids=["a"] * 12)  # type: ignore[list-item]


def test_an_empty_batch_may_have_an_empty_list_of_ids(net: nn.Module, x: Tensor, y: Tensor) -> None:
    report = evaluate(net, x[:0], y[:0], {"pgd": PGD_5}, sample_ids=[])
    assert report.sample_id.dtype == torch.int64
    assert report.sample_id.shape == report.worst_case.shape == (0,)


def test_images_that_need_a_gradient_are_judged_without_a_warning(
    net: nn.Module, x: Tensor, y: Tensor, expected: Tensor
) -> None:
    assert torch.equal(evaluate(net, x.requires_grad_(), y, {"pgd": PGD_5}).robust["pgd"], expected)
    assert x.grad is None


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
def test_models_of_every_make(net: nn.Module, x: Tensor, y: Tensor) -> None:
    expected = evaluate(net, x, y, {"pgd": PGD_5}).robust["pgd"]
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and people have its files
        made = {"scripted": torch.jit.script(net), "traced": torch.jit.trace(net, x)}
        made["frozen"] = torch.jit.freeze(made["scripted"])  # which takes the flag `training` away
    made |= {"compiled": torch.compile(net, backend="eager"), "parallel": nn.DataParallel(net)}
    for name, model in made.items():
        report = evaluate(model, x, y, {"pgd": PGD_5})
        assert torch.equal(report.robust["pgd"], expected), name
        assert not report.warnings, name
        assert PGD_5(model, x, y).shape == x.shape, name


def test_a_training_net_with_dropout_is_judged_as_in_evaluation(net: nn.Module, x: Tensor, y: Tensor) -> None:
    training = evaluate(net.train(), x, y, {"pgd": PGD_5}).robust["pgd"]
    assert net.training
    assert torch.equal(training, evaluate(net.eval(), x, y, {"pgd": PGD_5}).robust["pgd"])


class Noisy(nn.Module):
    """Logits of the mean of a pixel row, drowned in noise."""

    def forward(self, x: Tensor) -> Tensor:
        size = x.flatten(1).mean(1)
        noisy = size - 0.5 + torch.randn_like(size)
        return torch.stack([-noisy, noisy], dim=1)


def test_a_model_that_draws_is_measured_again_by_other_numbers_alone_as_in_a_batch() -> None:
    """Half of its answers are right by chance, and half of these again: a change of nothing leaves a quarter."""
    x, y, noise = images(400), torch.ones(400, dtype=torch.int64), {"n": RandomNoise(threat=Linf(eps=1e-6))}
    together = evaluate(Noisy(), x, y, noise, probe_masking=False)
    alone = [
        evaluate(Noisy(), x[i : i + 1], y[i : i + 1], noise, seed=i, probe_masking=False).robust["n"]
        for i in range(len(x))
    ]
    for robust in (together.robust["n"], torch.cat(alone)):
        assert 0.18 < float(robust.float().mean()) < 0.32
