"""Several entries of `RobustAccuracy` in one trainer: one pass, and one set of options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from touchstone.attacks import evaluate
from touchstone.callbacks import RobustAccuracy

from .lightning_programs import OrdinaryModule, trainer, val_loader
from .measured_runs import ATTACKS

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these


def test_several_entries_form_one_pass(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy({"fgsm": ATTACKS["fgsm"]}), RobustAccuracy({"pgd": ATTACKS["pgd"]}))
    module = OrdinaryModule()
    run.test(module, val_loader(), verbose=False)
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    plain = evaluate(module, x, y, {"fgsm": ATTACKS["fgsm"], "pgd": ATTACKS["pgd"]})
    worst = float(run.callback_metrics["test/robust_accuracy/worst_case"])
    assert worst == pytest.approx(plain.worst_case.float().mean().item())
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    assert {"robust_fgsm", "robust_pgd"} <= set(stored)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (RobustAccuracy({"pgd": ATTACKS["pgd"]}), "two RobustAccuracy entries name an attack 'pgd'"),
        (RobustAccuracy({"b": ATTACKS["pgd"]}, seed=1), r"\(seed=...\) must be the same.*first has 0, another 1"),
        (RobustAccuracy({"b": ATTACKS["pgd"]}, max_samples=5), "the first has 9, another 5"),
        (RobustAccuracy({"b": ATTACKS["pgd"]}, batch_size=5), r"\(batch_size=...\) must be the same"),
        (RobustAccuracy({"b": ATTACKS["pgd"]}, num_images=5), r"\(num_images=...\) must be the same"),
        (
            RobustAccuracy({"b": ATTACKS["pgd"]}, normalization=([0.5], [0.5])),
            r"\(normalization=...\) must be the same",
        ),
    ],
)
def test_entries_that_disagree_are_refused(tmp_path: Path, second: RobustAccuracy, message: str) -> None:
    run = trainer(tmp_path, RobustAccuracy({"pgd": ATTACKS["pgd"]}, max_samples=9), second)
    with pytest.raises(ValueError, match=message):
        run.validate(OrdinaryModule(), val_loader(), verbose=False)


def test_an_entry_without_options_follows_the_first(tmp_path: Path) -> None:
    first = RobustAccuracy({"pgd": ATTACKS["pgd"]}, max_samples=9, seed=5, batch_size=4, normalization=([0.0], [1.0]))
    repeated = RobustAccuracy({"c": ATTACKS["noise"]}, seed=5, normalization=((0.0,), (1.0,)))
    run = trainer(tmp_path, first, RobustAccuracy({"b": ATTACKS["noise"]}), repeated)
    run.validate(OrdinaryModule(), val_loader(), verbose=False)
    stored = np.load(Path(run.log_dir) / "verdicts.npz")  # type: ignore[arg-type]
    assert stored["sample_id"].tolist() == list(range(9))
    assert {"robust_pgd", "robust_b", "robust_c"} <= set(stored)
