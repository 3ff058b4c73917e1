"""The means of an epoch under every precision of a trainer, against a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.lightning_modules.parts.full_mean import FullMean
from touchstone.nets import RecurrentLM

from .lightning_programs import trainer

every_precision = pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed", "16-true", "64-true"])


def by_hand(seen: list[Tensor], y: Tensor) -> tuple[float, float]:
    """Loss and accuracy of the logits that a net gave, batch by batch, in float64."""
    logits = torch.cat([part.detach().double().flatten(0, -2) for part in seen]).numpy()
    rows, labels = np.arange(len(logits)), y.flatten().numpy()
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[rows, labels]
    return float(losses.mean()), float((logits.argmax(1) == labels).mean())


def watch(net: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    net.register_forward_hook(lambda module, args, output: seen.append(output))
    return seen


@every_precision
def test_the_figures_of_a_classifier_are_means_over_many_batches(tmp_path: Path, precision: Any) -> None:
    torch.manual_seed(0)
    num_batches = 270  # bfloat16 counts no further than to 256
    x, y = torch.randn(3 * num_batches, 5), torch.randint(3, (3 * num_batches,))
    module = Classifier(nn.Linear(5, 3))
    seen = watch(module.net)
    run = trainer(tmp_path, precision=precision)
    found = run.validate(module, [DataLoader(TensorDataset(x, y), 3)] * 2, verbose=False)
    # The means of the second loader are made on the way.
    for number, part in enumerate((seen[:num_batches], seen[num_batches:])):
        loss, accuracy = by_hand(part, y)
        assert found[number][f"val/loss/dataloader_idx_{number}"] == pytest.approx(loss, abs=1e-4)
        assert found[number][f"val/accuracy/dataloader_idx_{number}"] == pytest.approx(accuracy, abs=1e-5)


@every_precision
def test_the_figures_of_a_language_model_are_means_over_many_batches(tmp_path: Path, precision: Any) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(7, (540, 9))
    module = LanguageModel(RecurrentLM(7, cell="gru", dim=4, hidden=4), sample_tokens=0)
    seen = watch(module.net)
    run = trainer(tmp_path, precision=precision)
    found = run.test(module, DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), 2), verbose=False)[0]
    loss, _ = by_hand(seen, tokens[:, 1:])
    assert found["test/loss"] == pytest.approx(loss, abs=1e-4)
    assert found["test/perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16-true", torch.float32), ("16-true", torch.float32), ("64-true", torch.float64)]
)
@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
def test_predicted_probabilities_add_up_to_one_in_float32_or_wider(
    tmp_path: Path, precision: Any, dtype: torch.dtype, kind: Any
) -> None:
    torch.manual_seed(0)
    if kind is LanguageModel:
        module, x = (
            LanguageModel(RecurrentLM(300, cell="gru", dim=4, hidden=4), sample_tokens=0),
            torch.ones(5, 6).long(),
        )
    else:
        module, x = Classifier(nn.Linear(6, 300)), torch.rand(5, 6)
    (probabilities,) = trainer(tmp_path, precision=precision).predict(module, DataLoader(x, 5))  # type: ignore[misc]
    assert probabilities.dtype == dtype  # type: ignore[union-attr]
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5, dtype=dtype))  # type: ignore[union-attr]


@pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.bfloat16, lambda module: module.to(torch.bfloat16)])
def test_no_conversion_costs_what_was_added_up_its_digits(convert: Any) -> None:
    mean = FullMean()
    mean.update(torch.tensor(1 / 3), weight=1000)
    convert(nn.ModuleList([mean]))
    for _ in range(1000):
        mean.update(torch.tensor(0.7))
    assert float(mean.compute()) == pytest.approx((1 / 3 + 0.7) / 2, abs=1e-4)
    mean.reset()
    mean.update(torch.tensor(1 / 3))
    assert float(mean.compute()) == pytest.approx(1 / 3, abs=1e-7)


def test_a_mean_that_is_made_where_half_precision_is_the_default_has_its_digits(tmp_path: Path) -> None:
    with trainer(tmp_path, precision="bf16-true").init_module():
        mean = FullMean()
    mean.update(torch.tensor(1 / 3))
    assert float(mean.compute()) == pytest.approx(1 / 3, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_a_mean_of_half_precision_had_added_up_is_taken_up_in_float32(dtype: torch.dtype) -> None:
    half, mean = MeanMetric().set_dtype(dtype), FullMean()
    half.update(torch.tensor(0.5))
    half.persistent(True)
    mean.load_state_dict(half.state_dict())
    for _ in range(999):
        mean.update(torch.tensor(0.7))
    assert float(mean.compute()) == pytest.approx(0.6998, abs=1e-5)


def test_a_mean_in_float64_stays_there() -> None:
    mean = FullMean()
    nn.ModuleList([mean]).double()
    mean.update(torch.tensor(1 / 3, dtype=torch.float64))
    assert float(mean.compute()) == 1 / 3
