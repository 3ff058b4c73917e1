"""What callbacks log on CUDA, and what is learned there, is what is on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from touchstone.attacks import PGD, EmbeddingBall, HotFlip, Linf, Surprise, TokenFlips
from touchstone.callbacks import (
    AttentionMaps,
    GradientNorm,
    PerClass,
    RecurrentJacobian,
    RobustAccuracy,
    RobustLanguage,
    RobustnessCurves,
    Saturation,
)
from touchstone.lightning_modules import LanguageModel
from touchstone.nets import RecurrentLM, TransformerLM

from .lightning_programs import OrdinaryModule, trainer, val_loader
from .small_language import text_data

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:signs of gradient masking")]

LINF = Linf(eps=0.08)
OF_IMAGES: dict[str, Callable[[], pl.Callback]] = {
    "robust accuracy": lambda: RobustAccuracy({"pgd": PGD(threat=LINF, num_steps=5)}, per_class=True),
    "curves": lambda: RobustnessCurves(attack=PGD(threat=LINF), eps=[0.02, 0.3], steps=[1, 3], levels=[0.3]),
    "per class": PerClass,
    "norms": GradientNorm,
    "saturation": Saturation,
}
OF_TEXTS: dict[str, Callable[[], pl.Callback]] = {
    "robust language": lambda: RobustLanguage(
        {
            "pgd": PGD(threat=EmbeddingBall(eps=0.1), objective=Surprise(), num_steps=3),
            "flip": HotFlip(threat=TokenFlips(1, vocab_size=256), objective=Surprise()),
        },
        max_samples=4,
    ),
    "norms": GradientNorm,
    "saturation": Saturation,
    "jacobian": RecurrentJacobian,
    "attention": AttentionMaps,
}


def figures(folder: Path, module: pl.LightningModule, callback: pl.Callback, accelerator: str, data: Any) -> dict:
    run = trainer(folder / accelerator, callback, accelerator=accelerator)
    run.validate(module, data, verbose=False)
    return {tag: float(figure) for tag, figure in run.callback_metrics.items()}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_of_images(tmp_path: Path, name: str) -> None:
    on_cpu, on_gpu = (
        figures(tmp_path, OrdinaryModule(), OF_IMAGES[name](), kind, val_loader()) for kind in ("cpu", "gpu")
    )
    assert len(on_cpu) > 1
    is_share = name in ("robust accuracy", "curves", "per class")  # of few samples, one of them at a near-zero margin
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3, abs=0.15 if is_share else 1e-4)


@pytest.mark.parametrize(
    ("name", "net"),
    [
        *((name, "recurrent") for name in ("robust language", "norms", "saturation", "jacobian")),
        *((name, "transformer") for name in ("robust language", "norms", "attention")),
    ],
)
def test_of_texts(tmp_path: Path, name: str, net: str) -> None:
    def module() -> LanguageModel:
        torch.manual_seed(0)
        if net == "recurrent":
            return LanguageModel(RecurrentLM(256, cell="lstm", dim=8, hidden=8), sample_tokens=8)
        rotary = TransformerLM(256, dim=16, num_heads=2, num_layers=1, context=16, positions="rotary")
        return LanguageModel(rotary, sample_tokens=8)

    on_cpu, on_gpu = (
        figures(tmp_path, module(), OF_TEXTS[name](), kind, text_data(tmp_path)) for kind in ("cpu", "gpu")
    )
    assert len(on_cpu) > 1
    assert on_gpu == pytest.approx(on_cpu, rel=2e-3, abs=1e-4)
