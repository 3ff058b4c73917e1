"""What `RobustnessCurves` refuses, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from touchstone.attacks import (
    APGD,
    FAB,
    L0,
    L2,
    PGD,
    CarliniWagner,
    EmbeddingBall,
    HotFlip,
    InBfloat16,
    Linf,
    RandomNoise,
    Strongest,
    TokenFlips,
    Universal,
)
from touchstone.callbacks import RobustnessCurves

from .curves_setting import LINF, PGD_20, Linear, linear_loader
from .lightning_programs import trainer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": LINF}, r"RobustnessCurves\(attack=...\) must be an attack such as PGD\(...\), got Linf"),
        ({"attack": PGD(threat=LINF, step_size=0.01)}, "give its rel_step_size, got step_size=0.01"),
        ({"attack": InBfloat16(attack=PGD(threat=LINF, step_size=0.01))}, "give its rel_step_size, got step_size=0.01"),
        ({"attack": PGD(threat=Linf(eps=torch.rand(23)))}, r"Linf\(eps=...\) must hold one row per sample"),
        ({"eps": []}, r"RobustnessCurves\(eps=...\) must name at least one radius, got none"),
        ({"eps": ["wide"]}, r"RobustnessCurves\(eps=...\) must be a number such as 0.03 or 8/255, got 'wide'"),
        ({"eps": [0]}, r"RobustnessCurves\(eps=...\): Linf\(eps=...\) must be > 0"),
        ({"eps": [8]}, r"RobustnessCurves\(eps=...\): .* did you mean 8/255"),
        ({"levels": [1]}, r"RobustnessCurves\(levels=...\) must be in \(0, 1\), got 1"),
        ({"steps": [0]}, r"RobustnessCurves\(steps=...\) must be >= 1, got 0"),
        ({"batch_size": 0}, r"RobustnessCurves\(batch_size=...\) must be >= 1, got 0"),
        ({"max_samples": 0}, r"RobustnessCurves\(max_samples=...\) must be >= 1"),
        (
            {"attack": RandomNoise(threat=LINF)},
            r"must be empty for RandomNoise, which has no field num_steps, got \[2\]",
        ),
        ({"attack": Strongest(threat=LINF)}, "must be empty for Strongest, which has no field"),
        (
            {"attack": HotFlip(threat=TokenFlips(2, vocab_size=9)), "steps": []},
            r"\(attack=...\) must have a threat with an eps, such as Linf or EmbeddingBall, got TokenFlips\(2",
        ),
        (
            {"attack": FAB(threat=LINF)},
            r"\(steps=...\) must be empty for FAB\(.* as PGD and APGD\(num_targets=0\) do, got \[2\]$",
        ),
        (
            {"attack": APGD(threat=LINF, num_targets=3)},
            r"\(steps=...\) must be empty for APGD\(.* climbs its objective",
        ),
        (
            {"attack": Universal(threat=LINF), "steps": []},
            r"\(attack=...\) must be an attack that needs no samples, got Universal\(.*what its `.prepare` returns",
        ),
        (
            {"attack": CarliniWagner(threat=L2(eps=1))},
            r"\(attack=...\) must go steps that grow with eps.*: CarliniWagner has none, got step_size=",
        ),
        (
            {"attack": PGD(threat=L0(eps=3))},
            r"RobustnessCurves\(eps=...\): L0\(eps=...\) must be a whole number of pixels",
        ),
        ({"compare_with": ["nowhere"]}, r"\(compare_with=...\) must be folders of runs.*there is no such file"),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RobustnessCurves(**{"attack": PGD_20, "eps": [0.1], "steps": [2], **options})


def test_curves_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustnessCurves(attack=PGD_20, eps=[0.1]))
    run.validate(Linear(), linear_loader(), verbose=False)
    folder = str(run.log_dir)
    with pytest.raises(ValueError, match=r"must be runs attacked inside L2 as this one, got Linf in .*curves.json"):
        RobustnessCurves(attack=PGD(threat=L2(eps=1)), eps=[1], compare_with=[folder])
    for broken in ("{", "[]", '{"run": "a"}'):
        (Path(folder) / "curves.json").write_text(broken)
        with pytest.raises(ValueError, match=r"must be folders of runs that have drawn curves; .* cannot be read"):
            RobustnessCurves(attack=PGD_20, eps=[0.1], compare_with=[folder])


def test_a_model_that_cannot_be_attacked_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    curves = RobustnessCurves(attack=PGD(threat=EmbeddingBall(eps=1)), eps=[0.1])
    run = trainer(tmp_path, curves, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match="attack 'PGD': EmbeddingBall needs a model whose tokens go"):
        run.fit(Linear(), linear_loader(), linear_loader())
    assert run.global_step == 0


class Pair(Linear):
    """Gives a tuple where it is measured, and not where it is trained."""

    def forward(self, x: torch.Tensor) -> Any:
        logits = super().forward(x)
        return logits if self.training else (logits, logits)


def test_an_output_that_cannot_be_attacked_ends_the_fit_after_its_first_step_in_its_own_name(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustnessCurves(attack=PGD_20, eps=[0.1]), num_sanity_val_steps=0)
    with pytest.raises(ValueError, match="^RobustnessCurves: the model must return a tensor of logits"):
        run.fit(Pair(), linear_loader(), linear_loader())
    assert run.global_step == 1


def test_a_fit_without_a_validation_is_ended_by_nothing_that_is_measured_there(tmp_path: Path) -> None:
    curves = RobustnessCurves(attack=PGD(threat=EmbeddingBall(eps=1)), eps=[0.1])
    run = trainer(tmp_path, curves, max_epochs=1, limit_val_batches=0)
    run.fit(Pair(), linear_loader(), linear_loader())
    assert run.global_step == 3
