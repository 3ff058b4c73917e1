"""Attacks that learn, in a real Trainer: what they learn from, and that the training does not notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from touchstone.attacks import PGD, Attack, Linf, SampleRng, Surrogate, Transfer, Universal, evaluate
from touchstone.callbacks import RobustAccuracy
from touchstone.callbacks.parts.passes.own_copy import own_copy
from touchstone.nets import Normalize

from .lightning_programs import OrdinaryModule, samples, train_loader, trainer, val_loader, weights
from .oracles import small_net

pytestmark = pytest.mark.filterwarnings("ignore:signs of gradient masking")  # in nets as small as these
LINF = Linf(eps=0.08)
ATTACKS: dict[str, Attack] = {
    "universal": Universal(threat=LINF),
    "surrogate": Surrogate(threat=LINF, net=small_net(seed=1), num_queries=90),
    "transfer": Transfer(attack=PGD(threat=LINF), source=small_net(seed=7)),
}


class Data(pl.LightningDataModule):
    """Says when it is set up for training, as one that splits anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[str] = []

    def setup(self, stage: str) -> None:
        self.stages.append(stage)
        if stage == "fit":
            self.train = samples(40, seed=1)
            torch.randperm(40)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, 8, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return val_loader()


def stored(run: pl.Trainer) -> dict[str, np.ndarray]:
    return dict(np.load(Path(run.log_dir) / "verdicts.npz"))  # type: ignore[arg-type]


def report_of(run: pl.Trainer) -> dict[str, Any]:
    return json.loads((Path(run.log_dir) / "report.json").read_text())  # type: ignore[arg-type]


@pytest.mark.parametrize("sanity_steps", [0, 1])
def test_attacks_that_learn_do_not_change_training(tmp_path: Path, sanity_steps: int) -> None:
    def fit(name: str, *callbacks: pl.Callback) -> tuple[dict[str, Tensor], Tensor]:
        pl.seed_everything(3)
        module = OrdinaryModule()
        run = trainer(
            tmp_path / name, *callbacks, val_check_interval=2, max_epochs=3, num_sanity_val_steps=sanity_steps
        )
        run.fit(module, train_loader(), val_loader())
        return weights(module), torch.get_rng_state()

    alone, random_state = fit("alone")
    watched, random_state_watched = fit("watched", RobustAccuracy(ATTACKS))
    assert all(torch.equal(alone[key], watched[key]) for key in alone)
    assert torch.equal(random_state, random_state_watched)


def test_they_learn_from_the_first_training_samples_anew_at_each_validation(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = OrdinaryModule()
    run = trainer(
        tmp_path, RobustAccuracy(ATTACKS, num_prepare_samples=30, seed=4, batch_size=7, num_images=0), max_epochs=2
    )
    run.fit(module, train_loader(), val_loader())
    x, y = samples(40, seed=1).tensors
    plain = evaluate(
        module, *samples(23, seed=2).tensors, ATTACKS, seed=4, prepare_on=(x[:30], y[:30]), probe_masking=False
    )
    for name in ATTACKS:
        assert np.array_equal(stored(run)[f"robust_{name}"], plain.robust[name].numpy()), name
        assert 0 < plain.robust[name].sum() < plain.clean_correct.sum()
        cost = report_of(run)["attacks"][name]
        assert cost["num_forwards"] == plain.cost[name].num_forwards
        assert cost["num_backwards"] == plain.cost[name].num_backwards
    assert report_of(run)["attacks"]["surrogate"]["num_forwards"] == 90


def test_where_weights_are_averaged_they_learn_on_the_weights_that_they_attack(tmp_path: Path) -> None:
    learned_on: list[dict[str, Tensor]] = []
    attacked: list[dict[str, Tensor]] = []
    before_averaging: list[dict[str, Tensor]] = []

    class Noting(Universal):
        def learn(self, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRng) -> Attack:
            learned_on.append(weights(model))
            return super().learn(model, x, y, rng)

    class NotingToo(RobustAccuracy):
        def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            before_averaging.append(weights(pl_module))
            super().on_validation_epoch_start(trainer, pl_module)

        def see(self, model: nn.Module, *rest: Any) -> None:
            attacked.append(weights(model))
            super().see(model, *rest)

    measuring = NotingToo({"universal": Noting(threat=LINF)}, num_images=0)
    run = trainer(tmp_path, measuring, EMAWeightAveraging(decay=0.9), max_epochs=2, num_sanity_val_steps=0)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    of_passes = attacked[:: len(attacked) // 2]
    for learned, seen, trained in zip(learned_on, of_passes, before_averaging, strict=True):
        assert all(torch.equal(learned[key], seen[key]) for key in seen)
        assert not any(torch.equal(learned[key], trained[key]) for key in trained)


def test_outside_fit_they_learn_from_the_data_module(tmp_path: Path) -> None:
    module, data = OrdinaryModule(), Data()
    torch.manual_seed(0)
    trainer(tmp_path).validate(module, datamodule=Data(), verbose=False)
    random_state = torch.get_rng_state()
    torch.manual_seed(0)
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, num_images=0))
    run.validate(module, datamodule=data, verbose=False)
    assert torch.equal(random_state, torch.get_rng_state())
    assert data.stages == ["validate", "fit"]
    plain = evaluate(module, *samples(23, seed=2).tensors, ATTACKS, prepare_on=samples(40, seed=1).tensors)  # type: ignore[arg-type]
    for name in ATTACKS:
        assert np.array_equal(stored(run)[f"robust_{name}"], plain.robust[name].numpy()), name


def test_outside_fit_without_training_data_it_says_what_to_do(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    with pytest.raises(
        ValueError, match="attack 'universal' learns from.*give the trainer a datamodule with a train_d"
    ):
        run.validate(OrdinaryModule(), val_loader(), verbose=False)
    trainer(tmp_path, RobustAccuracy({"t": ATTACKS["transfer"]})).validate(
        OrdinaryModule(), val_loader(), verbose=False
    )


def test_a_stream_is_refused_before_training(tmp_path: Path) -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return iter(samples(40, seed=1))

    class Untrained(OrdinaryModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise AssertionError("trained")

    run = trainer(tmp_path, RobustAccuracy(ATTACKS))
    with pytest.raises(ValueError, match="gives a sample by its number, got Stream: .* leave the attack out"):
        run.fit(Untrained(), DataLoader(Stream(), 4), val_loader())


class Counted(Dataset):
    """Augments at random, from the global states and its own, and counts what is drawn from it."""

    def __init__(self) -> None:
        self.tensors, self.drawn = samples(40, seed=1).tensors, list[int]()
        self.random, self.generator = np.random.default_rng(3), torch.Generator()
        self.weaker = torch.ones(40)
        hidden = np.random.default_rng(4)
        self.change = lambda x: (x + 0.02 * hidden.random()).clamp(0, 1).float()

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.drawn.append(index)
        self.weaker[index] *= 0.9
        noise = 0.02 * torch.rand(1) + 0.02 * np.random.rand() + 0.02 * self.random.random()
        noise += self.weaker[index] * 0.02 * torch.rand(1, generator=self.generator)
        return self.change(self.tensors[0][index] + noise), self.tensors[1][index]


def test_drawing_samples_leaves_no_trace_in_a_dataset_that_augments(tmp_path: Path) -> None:
    def fit(name: str, *callbacks: pl.Callback) -> tuple[dict[str, Tensor], list[int]]:
        pl.seed_everything(3)
        module, data = OrdinaryModule(), Counted()
        trainer(tmp_path / name, *callbacks).fit(module, DataLoader(data, 8, shuffle=True), val_loader())
        return weights(module), data.drawn

    alone, drawn = fit("alone")
    monitor = RobustAccuracy({"universal": ATTACKS["universal"]}, num_prepare_samples=9, num_images=0)
    watched, drawn_watched = fit("watched", monitor)
    assert all(torch.equal(alone[key], watched[key]) for key in alone)
    assert drawn_watched == drawn


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # of torch, in Lightning
def test_a_dataset_that_cannot_be_copied_is_warned_of(tmp_path: Path) -> None:
    class Opened(Counted):
        def __init__(self) -> None:
            super().__init__()
            self.file = Path(__file__).open()  # noqa: SIM115

    data = Opened()
    monitor = RobustAccuracy({"universal": ATTACKS["universal"]}, num_prepare_samples=9, num_images=0)
    with data.file, pytest.warns(UserWarning, match=r"cannot be made or read \(.*\): if the Opened counts what"):
        trainer(tmp_path, monitor).fit(OrdinaryModule(), DataLoader(data, 8), val_loader())
    assert data.drawn[:9] == list(range(9))
    assert len(data.drawn) == 9 + 2 * 40  # once, and two epochs


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # of torch, in Lightning
def test_a_dataset_whose_copy_cannot_be_read_is_warned_of(tmp_path: Path) -> None:
    class Reopened(Counted):
        file: Any = None

        def __getstate__(self) -> dict[str, Any]:
            return {key: value for key, value in vars(self).items() if key != "file"}

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            self.file.seek(0)
            return super().__getitem__(index)

    data = Reopened()
    monitor = RobustAccuracy({"universal": ATTACKS["universal"]}, num_prepare_samples=9, num_images=0)
    with Path(__file__).open() as data.file, pytest.warns(UserWarning, match="cannot be made or read .*'seek'"):
        trainer(tmp_path, monitor).fit(OrdinaryModule(), DataLoader(data, 8), val_loader())
    assert data.drawn[:9] == list(range(9))
    assert len(data.drawn) == 9 + 2 * 40  # once, and two epochs


def test_a_copy_of_functions_has_cells_of_its_own_that_they_share_as_before() -> None:
    count = 0

    def up(by: int = 1, *, times: int = 1) -> int:
        nonlocal count
        count += by * times
        return count

    def read() -> int:
        return count

    other_up, other_read = own_copy((up, read))
    assert other_up(2, times=3) == other_read() == other_up(0) == 6
    assert read() == 0


def test_a_copy_of_many_tensors_shares_those_beyond_64_megabytes() -> None:
    many = [torch.zeros(1, 8000) for _ in range(2200)]
    sparse = torch.eye(3).to_sparse()
    other, other_sparse = own_copy((many, sparse))
    shared = [mine is one for mine, one in zip(other, many, strict=True)]
    assert shared == [False] * (2**26 // 32_000) + [True] * (2200 - 2**26 // 32_000)
    assert other_sparse is sparse


def test_a_copy_shares_what_is_large_and_what_never_changes() -> None:
    class Data:
        def __init__(self) -> None:
            self.large, self.small, self.encoded = torch.zeros(20_000), torch.zeros(3), b"1" * 100
            self.array, self.same, self.change = np.zeros(20_000), self.small, lambda x: x

    one = Data()
    other = own_copy(one)
    assert other.large is one.large
    assert other.array is one.array
    assert other.encoded is one.encoded
    assert other.change is one.change
    assert other.small is not one.small
    assert other.small is other.same


def test_training_samples_among_the_measured_are_warned_of(tmp_path: Path) -> None:
    run = trainer(tmp_path, RobustAccuracy(ATTACKS, batch_size=5, num_images=0), max_epochs=1)
    run.fit(OrdinaryModule(), train_loader(), DataLoader(samples(40, seed=1), 10))
    found = [warning for warning in report_of(run)["warnings"] if "it has learned from" in warning]
    assert len(found) == 1
    assert found[0].startswith("universal, surrogate: images of the training data")


def test_batches_that_are_normalized_dicts_are_learned_from_in_pixels(tmp_path: Path) -> None:
    class Named(Dataset):
        def __init__(self, *tensors: Tensor) -> None:
            self.x, self.y = tensors

        def __len__(self) -> int:
            return len(self.x)

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"image": (self.x[index] - 0.5) / 0.25, "label": self.y[index]}

    class Denormalizing(OrdinaryModule):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x * 0.25 + 0.5)

    options: dict[str, Any] = {"normalization": ([0.5], [0.25]), "batch_keys": ("image", "label")}
    module = Denormalizing()
    run = trainer(tmp_path, RobustAccuracy({"universal": ATTACKS["universal"]}, **options), max_epochs=1)
    loaders = (DataLoader(Named(*samples(n, seed=s).tensors), 10) for n, s in ((40, 1), (23, 2)))
    run.fit(module, *loaders)
    model = torch.nn.Sequential(Normalize([0.5], [0.25]), module)
    plain = evaluate(
        model,
        *samples(23, seed=2).tensors,
        {"a": ATTACKS["universal"]},
        prepare_on=samples(40, seed=1).tensors,  # type: ignore[arg-type]
    )
    assert np.array_equal(stored(run)["robust_universal"], plain.robust["a"].numpy())


def test_the_first_of_several_entries_prepares_for_all(tmp_path: Path) -> None:
    first = RobustAccuracy({"pgd": PGD(threat=LINF)}, num_prepare_samples=25, num_images=0)
    run = trainer(tmp_path, first, RobustAccuracy(ATTACKS, num_images=0), max_epochs=1)
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    assert set(report_of(run)["attacks"]) == {"pgd", *ATTACKS}
    with pytest.raises(ValueError, match=r"RobustAccuracy\(num_prepare_samples=...\) must be >= 1, got 0"):
        RobustAccuracy(ATTACKS, num_prepare_samples=0)


def test_training_samples_that_cannot_be_learned_from_are_named(tmp_path: Path) -> None:
    class OneHot(Counted):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return self.tensors[0][index], torch.eye(4)[self.tensors[1][index]]

    run = trainer(tmp_path, RobustAccuracy(ATTACKS), num_sanity_val_steps=0)
    with pytest.raises(
        ValueError, match="'universal' cannot learn from the training data: labels must be class numbers"
    ):
        run.fit(OrdinaryModule(), DataLoader(OneHot(), 8), val_loader())
