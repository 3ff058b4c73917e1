"""`RobustAccuracy(warm_start=True)`: what one validation of a fit knows of the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from touchstone.attacks import FGSM, PGD, Attack, Linf, RandomNoise, Report, SampleRng, Targeted, evaluate
from touchstone.callbacks import RobustAccuracy
from touchstone.callbacks.parts.passes.samples import Samples
from touchstone.callbacks.parts.passes.warm_starts import WarmStarts

from .lightning_programs import OrdinaryModule, Still, samples, train_loader, trainer, val_loader, weights
from .oracles import images

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these
LINF = Linf(eps=0.04)
PGD_5 = PGD(threat=LINF, num_steps=5, early_stop=False)
PLACE = "touchstone/warm_starts"


class Recording(RobustAccuracy):
    """Remembers the reports of all passes."""

    def __init__(self, attacks: dict[str, Attack], **options: Any) -> None:
        super().__init__(attacks, num_images=0, **options)
        self.reports: list[Report] = []

    def _publish(self, trainer: Any, stage: str, loader_index: int, report: Report, origin: Any) -> None:
        self.reports.append(report)


def fit(
    folder: Path, callback: RobustAccuracy, module: pl.LightningModule | None = None, loader: Any = None, **options: Any
) -> pl.Trainer:
    pl.seed_everything(3)
    run = trainer(folder, callback, **options)
    run.fit(Still() if module is None else module, train_loader(), loader or val_loader(), ckpt_path=None)
    return run


def test_warm_is_never_more_robust_than_cold_and_changes_no_training(tmp_path: Path) -> None:
    passes, trained = {}, {}
    suite = {
        "pgd": PGD(threat=LINF, num_steps=2),
        "targeted": PGD(threat=LINF, num_steps=2, objective=Targeted(target="random")),
        "fgsm": FGSM(threat=LINF),
    }
    for warm in (False, True):
        module, callback = OrdinaryModule(), Recording(suite, warm_start=warm)
        loader = DataLoader(samples(200, seed=2), 64)
        fit(tmp_path / str(warm), callback, module, loader, max_epochs=6)
        passes[warm], trained[warm] = callback.reports, weights(module)
    assert all(torch.equal(trained[False][key], trained[True][key]) for key in trained[False])
    for cold, warm in zip(passes[False], passes[True], strict=True):
        assert torch.equal(cold.clean_correct, warm.clean_correct)
        for name in suite:
            assert not (warm.robust[name] & ~cold.robust[name]).any(), name
            assert not (cold.success[name] & ~warm.success[name]).any(), name
            assert warm.cost[name].num_backwards <= cold.cost[name].num_backwards
    cold, warm = (passes[number][-1].cost for number in (False, True))
    assert warm["pgd"].num_backwards < cold["pgd"].num_backwards
    assert warm["fgsm"].num_forwards == cold["fgsm"].num_forwards  # it is kept of gradient attacks alone


def test_what_falls_again_costs_a_forward_instead_of_an_attack(tmp_path: Path) -> None:
    callback = Recording({"pgd": PGD_5}, warm_start=True)
    fit(tmp_path, callback, max_epochs=3)
    cold, *warm = callback.reports
    num_fallen = int(cold.success["pgd"].sum())
    assert 5 < num_fallen < 18
    assert (cold.cost["pgd"].num_forwards, cold.cost["pgd"].num_backwards) == (23 * 5, 23 * 5)
    for report in warm:
        assert torch.equal(report.robust["pgd"], cold.robust["pgd"])
        assert report.cost["pgd"].num_backwards == 5 * (23 - num_fallen)
        assert report.cost["pgd"].num_forwards == 23 + 5 * (23 - num_fallen)


def test_it_is_off_by_default_and_outside_of_a_fit(tmp_path: Path) -> None:
    callback = Recording({"pgd": PGD_5})
    run = fit(tmp_path / "cold", callback)
    assert callback.reports[1].cost["pgd"].num_backwards == 23 * 5
    run.save_checkpoint(tmp_path / "cold.ckpt")
    assert PLACE not in torch.load(tmp_path / "cold.ckpt", weights_only=True)

    callback = Recording({"pgd": PGD_5}, warm_start=True)
    run = fit(tmp_path / "warm", callback)
    run.save_checkpoint(tmp_path / "warm.ckpt")
    for stage in (run.validate, run.test):
        stage(Still(), val_loader(), ckpt_path=tmp_path / "warm.ckpt", weights_only=True, verbose=False)
        assert callback.reports[-1].cost["pgd"].num_backwards == 23 * 5


def test_a_resumed_fit_goes_on_with_them(tmp_path: Path) -> None:
    suite = {"pgd": PGD_5, "noise": RandomNoise(threat=LINF)}
    first = fit(tmp_path / "first", Recording(suite, warm_start=True), max_epochs=1)
    first.save_checkpoint(tmp_path / "a.ckpt")
    kept = torch.load(tmp_path / "a.ckpt", weights_only=True)[PLACE]
    assert list(kept) == [0]
    assert list(kept[0]) == ["pgd"]
    assert kept[0]["pgd"]["_id"].tolist() == list(range(23))
    assert kept[0]["pgd"]["change"].dtype == torch.float16
    assert kept[0]["pgd"]["change"].abs().max() <= 0.0401

    callback, others = Recording(suite, warm_start=True), Recording({"other": PGD_5}, warm_start=True)
    for resumed in (callback, others):
        run = trainer(tmp_path / "resumed", resumed, max_epochs=2)
        run.fit(Still(), train_loader(), val_loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    num_standing = int(callback.reports[0].robust["pgd"].sum())
    assert callback.reports[0].cost["pgd"].num_backwards == 5 * num_standing < 5 * 23
    assert others.reports[0].cost["other"].num_backwards == 5 * 23  # nothing is known of it


def test_what_a_stronger_attack_has_found_is_not_lost_on_a_weaker_one(tmp_path: Path) -> None:
    strong, weak = PGD(threat=LINF, num_steps=20), PGD(threat=LINF, num_steps=1, rel_step_size=0.01)
    fit(tmp_path, Recording({"a": strong}, warm_start=True), max_epochs=1).save_checkpoint(tmp_path / "a.ckpt")
    reports = {}
    for warm in (False, True):
        callback = Recording({"a": weak}, warm_start=warm)
        run = trainer(tmp_path, callback, max_epochs=2)
        run.fit(Still(), train_loader(), val_loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
        reports[warm] = callback.reports[0]
    expected = evaluate(Still(), *val_loader().dataset.tensors, {"a": strong}).robust["a"]  # type: ignore[attr-defined]
    assert torch.equal(reports[True].robust["a"], expected)
    assert reports[True].robust["a"].sum() + 3 < reports[False].robust["a"].sum()


def test_a_checkpoint_of_a_validation_holds_what_that_validation_found(tmp_path: Path) -> None:
    keeper = ModelCheckpoint(dirpath=tmp_path / "kept", filename="a", save_on_train_epoch_end=False)
    run = trainer(tmp_path, Recording({"pgd": PGD_5}, warm_start=True), keeper, enable_checkpointing=True, max_epochs=1)
    run.fit(Still(), train_loader(), val_loader())
    assert len(torch.load(tmp_path / "kept/a.ckpt", weights_only=True)[PLACE][0]["pgd"]["_id"]) == 23


def test_entries_of_one_pass_have_one_memory(tmp_path: Path) -> None:
    first, second = Recording({"pgd": PGD_5}, warm_start=True), RobustAccuracy({"other": PGD_5})
    run = trainer(tmp_path, first, second)
    run.fit(Still(), train_loader(), val_loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    assert set(torch.load(tmp_path / "a.ckpt", weights_only=True)[PLACE][0]) == {"pgd", "other"}
    assert first.reports[1].cost["other"].num_backwards < first.reports[0].cost["other"].num_backwards


def test_each_loader_has_a_memory_of_its_own(tmp_path: Path) -> None:
    callback = Recording({"pgd": PGD_5}, warm_start=True)
    fit(tmp_path, callback, loader=[val_loader(), DataLoader(samples(7, seed=5), 4)])
    assert [len(report.label) for report in callback.reports] == [23, 7, 23, 7]
    for cold, warm in (callback.reports[::2], callback.reports[1::2]):
        assert warm.cost["pgd"].num_backwards == 5 * int(cold.robust["pgd"].sum())


# The memory itself.


class Threshold(nn.Module):
    """Class 1 where the first pixel exceeds a level."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), x.flatten(1)[:, 0] - self.level], 1)


def a_pass(memory: WarmStarts, model: nn.Module, part: Samples) -> Report:
    suite = {"pgd": PGD(threat=Linf(eps=0.125), num_steps=3)}
    found = evaluate(model, part.x, part.y, memory.applied(suite, part, 0), sample_ids=part.ids, keep_adversarial=True)
    memory.take_in(part, found, 0)
    memory.conclude(0)
    return found


def test_a_sample_that_was_wrong_meanwhile_is_tried_with_what_was_found_before() -> None:
    memory = WarmStarts({"pgd": PGD_5})
    part = Samples(images(4, shape=(1, 1, 2)), torch.tensor([0, 0, 1, 1]), torch.tensor([5, 9, 2, 7]))
    part.x[:, 0, 0, 0] = torch.tensor([0.45, 0.3, 0.55, 0.9])
    usual, odd = Threshold(0.5), Threshold(0.6)  # to which 0.55 is wrong
    assert a_pass(memory, usual, part).success["pgd"].tolist() == [True, False, True, False]
    assert a_pass(memory, odd, part).clean_correct.tolist() == [True, True, False, True]
    shuffled = part.take(torch.tensor([3, 2, 0, 1]))  # other places, the same ids
    last = a_pass(memory, usual, shuffled)
    assert last.success["pgd"].tolist() == [False, True, True, False]
    assert last.cost["pgd"].num_backwards == 3 * 2
    assert last.cost["pgd"].num_forwards == 4 + 3 * 2


def test_perturbations_of_samples_of_another_shape_are_left_alone() -> None:
    memory, model, y, ids = WarmStarts({"pgd": PGD_5}), Threshold(0.5), torch.tensor([0]), torch.tensor([3])
    small, large = (Samples(torch.full((1, 1, side, side), 0.45), y, ids) for side in (2, 3))
    a_pass(memory, model, small)
    memory.forget_pass()
    assert a_pass(memory, model, large).cost["pgd"].num_backwards > 0
    with pytest.raises(ValueError, match=r"\(warm_start=...\) must be False.*got \(1, 3, 3\) and \(1, 2, 2\)"):
        a_pass(memory, model, small)


def test_a_change_beyond_half_precision_stays_finite() -> None:
    threat = Linf(eps=1e6, box=None)
    suite: dict[str, Attack] = {"pgd": PGD(threat=threat, num_steps=3, random_start=False)}
    memory, part = WarmStarts(suite), Samples(torch.zeros(1, 1, 1, 2), torch.tensor([0]), torch.tensor([0]))
    report = evaluate(Threshold(2e6), part.x, part.y, suite, keep_adversarial=True)
    memory.take_in(part, report, 0)
    memory.conclude(0)
    again = memory.applied(suite, part, 0)["pgd"](Threshold(2e6), part.x, part.y, SampleRng.numbered(1))
    assert again.isfinite().all()
