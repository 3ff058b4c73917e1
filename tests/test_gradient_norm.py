"""`GradientNorm` against gradients taken by hand."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import PGD, Linf
from touchstone.callbacks import GradientNorm, RobustAccuracy
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.nets import RecurrentLM, SetClassifier

from .lightning_programs import OrdinaryModule, events, samples, train_loader, trainer, val_loader


def total_norm_by_hand(module: OrdinaryModule) -> float:
    return sum(float((p.grad.abs().double() ** 2).sum()) for p in module.parameters() if p.grad is not None) ** 0.5


def test_training_norms_are_accumulated_and_before_clipping(tmp_path: Path) -> None:
    by_hand: list[float] = []

    class Watching(OrdinaryModule):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            by_hand.append(total_norm_by_hand(self))

    run = trainer(tmp_path, GradientNorm(), accumulate_grad_batches=2, gradient_clip_val=1e-3, max_epochs=2)
    run.fit(Watching(), train_loader(4), val_loader())
    logged = [event.value for event in events(tmp_path).Scalars("grad_norm/train/total")]
    assert len(logged) == 10
    assert logged == pytest.approx(by_hand, rel=1e-5)
    assert min(logged) > 1e-3


class Filtered(OrdinaryModule):
    """Weighs the frequencies of its images first, by numbers that stand first or last among the parameters."""

    def __init__(self, is_first: bool) -> None:
        super().__init__()
        self.filter, self.is_first = torch.nn.Parameter(torch.randn(6, 6, dtype=torch.complex64)), is_first

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.fft.ifft2(torch.fft.fft2(x) * self.filter).abs())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(sorted(self.parameters(), key=Tensor.is_complex, reverse=self.is_first), lr=0.05)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.norm = total_norm_by_hand(self)


@pytest.mark.parametrize("is_first", [True, False])
def test_complex_parameters_count_by_their_absolute_values(tmp_path: Path, is_first: bool) -> None:
    module = Filtered(is_first)
    before = module.filter.detach().clone()
    trainer(tmp_path, GradientNorm(), max_steps=1).fit(module, train_loader(), val_loader())
    seen = events(tmp_path)
    assert seen.Scalars("grad_norm/train/total")[0].value == pytest.approx(module.norm, rel=1e-5)
    ratio = ((module.filter.detach() - before).abs() ** 2).sum().sqrt() / (before.abs() ** 2).sum().sqrt()
    assert seen.Scalars("update_ratio/filter")[0].value == pytest.approx(float(ratio), rel=1e-4)


def test_layers_add_up_to_the_total_and_update_ratios_are_those_of_sgd(tmp_path: Path) -> None:
    module = OrdinaryModule()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.01)  # type: ignore[method-assign]
    weight_before = module.net[5].weight.detach().clone(), module.net[5].bias.detach().clone()
    trainer(tmp_path, GradientNorm(), max_steps=1).fit(module, train_loader(), val_loader())
    seen = events(tmp_path)

    def value(tag: str) -> float:
        return seen.Scalars(tag)[0].value

    layers = [tag for tag in seen.Tags()["scalars"] if tag.startswith("grad_norm/train/net.")]
    assert sorted(layers) == ["grad_norm/train/net.0", "grad_norm/train/net.1", "grad_norm/train/net.5"]
    assert sum(value(tag) ** 2 for tag in layers) == pytest.approx(value("grad_norm/train/total") ** 2, rel=1e-5)
    size = sum(float((p.double() ** 2).sum()) for p in weight_before) ** 0.5
    assert value("update_ratio/net.5") == pytest.approx(0.01 * value("grad_norm/train/net.5") / size, rel=1e-3)


class Manual(OrdinaryModule):
    """Steps by two optimizers in turn: SGD on the convolution and BatchNorm, twice, and SGD on the head."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.by_hand: list[dict[str, float]] = []

    def configure_optimizers(self) -> Any:
        body = [*self.net[0].parameters(), *self.net[1].parameters()]
        return torch.optim.SGD(body, lr=0.01), torch.optim.SGD(self.net[5].parameters(), lr=0.1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        found: dict[str, float] = {}
        body, head = self.optimizers()
        for optimizer, layers, scale in ((body, (0, 1), 1), (body, (0, 1), 100), (head, (5,), 1)):
            optimizer.zero_grad()
            self.manual_backward(scale * self._loss(batch))
            for layer in layers:
                parameters = list(self.net[layer].parameters())
                norm = sum(float((p.grad.double() ** 2).sum()) for p in parameters) ** 0.5  # type: ignore[union-attr]
                size = sum(float((p.detach().double() ** 2).sum()) for p in parameters) ** 0.5
                found[f"grad_norm/train/net.{layer}"] = norm
                found[f"update_ratio/net.{layer}"] = optimizer.param_groups[0]["lr"] * norm / size
            optimizer.step()
        norms = [value for tag, value in found.items() if tag.startswith("grad_norm")]
        self.by_hand.append({**found, "grad_norm/train/total": sum(norm**2 for norm in norms) ** 0.5})


def test_several_optimizers_of_a_batch_count_together_each_by_its_last_step(tmp_path: Path) -> None:
    module = Manual()
    run = trainer(tmp_path, GradientNorm(), max_epochs=1)
    run.fit(module, train_loader(), val_loader())
    assert len(module.by_hand) == 5
    for tag in module.by_hand[0]:
        logged = [event.value for event in events(tmp_path).Scalars(tag)]
        assert logged == pytest.approx([found[tag] for found in module.by_hand], rel=1e-3), tag


@pytest.mark.parametrize("batch_size", [5, 23])
def test_validation_norms_equal_those_taken_by_hand(tmp_path: Path, batch_size: int) -> None:
    module = OrdinaryModule().eval()
    x, y = val_loader().dataset.tensors  # type: ignore[attr-defined]
    norms: list[Tensor] = []
    for i in range(len(x)):
        xi = x[i : i + 1].clone().requires_grad_()
        F.cross_entropy(module(xi), y[i : i + 1]).backward()
        norms.append(xi.grad.norm())  # type: ignore[union-attr]
    module.zero_grad()
    F.cross_entropy(module(x), y).backward()
    parameters = total_norm_by_hand(module)
    module.zero_grad()
    run = trainer(tmp_path, GradientNorm())
    run.validate(module, val_loader(batch_size), verbose=False)
    assert float(run.callback_metrics["grad_norm/val/input"]) == pytest.approx(
        float(torch.stack(norms).mean()), rel=1e-5
    )
    assert float(run.callback_metrics["grad_norm/val/parameters"]) == pytest.approx(parameters, rel=1e-4)
    assert all(p.grad is None for p in module.parameters())


def test_images_that_seem_normalized_are_warned_of_once(tmp_path: Path) -> None:
    x, y = samples(23).tensors
    loader = DataLoader(TensorDataset((x - 0.5) / 0.25, y), 10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, GradientNorm()).validate(OrdinaryModule(), loader, verbose=False)
    (said,) = [str(warning.message) for warning in caught if "outside [0, 1]" in str(warning.message)]
    assert "give `normalization=(mean, std)`" in said
    normalized = GradientNorm(normalization=([0.5], [0.25]))
    trainer(tmp_path, normalized).validate(OrdinaryModule(), loader, verbose=False)


def test_a_net_with_frozen_weights_still_has_an_input_gradient(tmp_path: Path) -> None:
    module = OrdinaryModule().requires_grad_(False)
    run = trainer(tmp_path, GradientNorm())
    run.validate(module, val_loader(), verbose=False)
    assert float(run.callback_metrics["grad_norm/val/input"]) > 0
    assert "grad_norm/val/parameters" not in run.callback_metrics


def test_the_parameter_that_is_first_not_finite_is_named(tmp_path: Path) -> None:
    class Breaking(OrdinaryModule):
        def on_after_backward(self) -> None:
            if self.global_step == 3:
                self.net[5].weight.grad[0, 0] = torch.nan

    pl.seed_everything(0)
    with pytest.raises(UserWarning, match="at step 3 the gradient of 'net.5.weight' was not finite"):  # made an error
        trainer(tmp_path, GradientNorm(), max_epochs=1).fit(Breaking(), train_loader(), val_loader())


def test_gradients_that_stay_not_finite_are_said_once(tmp_path: Path) -> None:
    class Broken(OrdinaryModule):
        def on_after_backward(self) -> None:
            if self.global_step >= 1:
                self.net[5].weight.grad[0, 0] = torch.nan

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, GradientNorm(validation=False), max_epochs=1).fit(Broken(), train_loader())
    said = [str(warning.message) for warning in caught if "was not finite" in str(warning.message)]
    assert [text.partition(" the gradient")[0] for text in said] == ["GradientNorm: at step 1"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(10) // 7 * 4, "labels must be classes of the model, 0 to 3; sample id 7 has the label 4"),
        (torch.zeros(10, 1, dtype=torch.int64), r"labels must be `\(N,\)`, got a column \(4, 1\)"),
        (torch.zeros(10, 4), "labels must be class numbers, int64"),
    ],
)
def test_labels_that_are_no_classes_are_named(tmp_path: Path, labels: Tensor, message: str) -> None:
    class Unlabelled(OrdinaryModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self(batch[0])

    loader = DataLoader(TensorDataset(samples(10).tensors[0], labels), 4)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, GradientNorm()).validate(Unlabelled(), loader, verbose=False)


class Autoencoder(OrdinaryModule):
    """Validates on images without labels."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self(batch[0])


class Masked(OrdinaryModule):
    """Is called with a mask besides its images."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.net(x * mask)

    def _loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch[0], torch.ones(6, 6)), batch[1])


@pytest.mark.parametrize(
    "callback",
    [GradientNorm(), RobustAccuracy({"pgd": PGD(threat=Linf(eps=0.1), num_steps=1)})],
    ids=["norm", "robust"],
)
def test_a_forward_that_needs_more_than_the_samples_is_named_before_training(tmp_path: Path, callback: Any) -> None:
    run, message = trainer(tmp_path, callback, max_epochs=1), "must take the samples alone, got forward.*'mask'"
    with pytest.raises(ValueError, match=f"{type(callback).__name__}: the model's forward {message}"):
        run.fit(Masked(), train_loader(), val_loader())
    assert run.global_step == 0
    trainer(tmp_path, GradientNorm(validation=False), max_epochs=1).fit(Masked(), train_loader(), val_loader())


@pytest.mark.parametrize("num_sanity_val_steps", [0, 1])
def test_the_training_alone_is_measured_whatever_validation_batches_are(
    tmp_path: Path, num_sanity_val_steps: int
) -> None:
    unlabelled = DataLoader(TensorDataset(samples(23).tensors[0]), 10)
    options: dict[str, Any] = {"max_epochs": 1, "num_sanity_val_steps": num_sanity_val_steps}
    with pytest.raises(ValueError, match=r"must be \(images, labels\).*, got list; .*GradientNorm\(validation=False\)"):
        trainer(tmp_path / "both", GradientNorm(), **options).fit(Autoencoder(), train_loader(), unlabelled)
    module = Autoencoder()
    run = trainer(tmp_path / "alone", GradientNorm(validation=False), **options)
    run.fit(module, train_loader(), unlabelled)
    run.validate(module, unlabelled, verbose=False)
    run.validate(module, [unlabelled, unlabelled], verbose=False)
    assert len(events(tmp_path / "alone").Scalars("grad_norm/train/total")) == 5
    assert not [tag for tag in events(tmp_path / "alone").Tags()["scalars"] if tag.startswith("grad_norm/val")]


@pytest.mark.parametrize("frozen", [False, True])
def test_of_texts_the_input_gradient_is_taken_at_the_embedding(tmp_path: Path, frozen: bool) -> None:
    """Of a language model: labels are the tokens that follow, and a text's loss their mean."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = RecurrentLM(11, cell="gru", dim=5, hidden=7)
    net.embedding.weight.requires_grad_(not frozen)
    ids = torch.randint(11, (10, 7), generator=torch.Generator().manual_seed(0))
    x, y = ids[:, :-1], ids[:, 1:]
    run = trainer(tmp_path, GradientNorm())
    run.validate(LanguageModel(net, sample_tokens=0), DataLoader(TensorDataset(x, y), 4), verbose=False)
    norms, of_head = [], torch.zeros_like(net.head.weight)
    for text, following in zip(x, y, strict=True):
        vectors = net.embedding.weight[text].detach().requires_grad_()
        logits = net.head(net.recurrent(vectors[None])[0])[0]
        loss = -logits.log_softmax(1)[torch.arange(6), following].mean()
        of_vectors, part = torch.autograd.grad(loss, [vectors, net.head.weight])
        norms.append(float(of_vectors.norm()))
        of_head += part / 10
    assert float(run.callback_metrics["grad_norm/val/input"]) == pytest.approx(sum(norms) / 10, rel=1e-4)
    assert float(run.callback_metrics["grad_norm/val/parameters"]) > float(of_head.norm())
    assert not net.embedding._forward_hooks


def test_of_several_embeddings_one_must_be_named(tmp_path: Path) -> None:
    net = torch.nn.ModuleDict({"words": torch.nn.Embedding(3, 2), "places": torch.nn.Embedding(3, 2)})

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = net

        def forward(self, tokens: Tensor) -> Tensor:
            return (net["words"](tokens) + net["places"](tokens)).sum(1)

    data = DataLoader(TensorDataset(torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)), 4)
    with pytest.raises(ValueError, match=r"GradientNorm\(embedding=...\): must name one of several embeddings"):
        trainer(tmp_path, GradientNorm()).validate(Classifier(Both()), data, verbose=False)
    run = trainer(tmp_path, GradientNorm(embedding="net.parts.words"))
    run.validate(Classifier(Both()), data, verbose=False)
    assert float(run.callback_metrics["grad_norm/val/input"]) > 0


class Renaming(TensorBoardLogger):
    """A logger of a user's own."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({name.upper(): value for name, value in metrics.items()}, step)


def test_every_logger_gets_the_norms_of_layers(tmp_path: Path) -> None:
    plain = TensorBoardLogger(tmp_path, name="plain")
    prefixed = TensorBoardLogger(tmp_path, name="prefixed", prefix="mine")
    renaming, table = Renaming(tmp_path, name="renaming"), CSVLogger(tmp_path, name="table")
    run = trainer(tmp_path, GradientNorm(), max_steps=1, logger=[plain, prefixed, renaming, table])
    run.fit(OrdinaryModule(), train_loader(), val_loader())
    with open(Path(table.log_dir, "metrics.csv")) as file:
        (row,) = [row for row in csv.DictReader(file) if row["grad_norm/train/net.0"]]
    for tag in ("grad_norm/train/net.0", "grad_norm/train/net.5", "update_ratio/net.5"):
        (event,) = events(tmp_path / "plain").Scalars(tag)
        (other,) = events(tmp_path / "prefixed").Scalars(f"mine-{tag}")
        (renamed,) = events(tmp_path / "renaming").Scalars(tag.upper())
        assert event.value == other.value == renamed.value == pytest.approx(float(row[tag]))
        assert event.step == other.step == int(row["step"]) == 0


def test_features_of_sets_are_no_images(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    x, y = 7 * torch.randn(8, 5, 3), torch.arange(8) % 4
    module = Classifier(SetClassifier(3, 4, dim=8), lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    run = trainer(tmp_path, GradientNorm(), max_epochs=1)
    run.fit(module, DataLoader(TensorDataset(x, y), 4), DataLoader(TensorDataset(x, y), 4))
    assert float(run.callback_metrics["grad_norm/val/input"]) > 0
    assert not [warning for warning in recwarn if "GradientNorm" in str(warning.message)]


def test_in_a_net_of_half_precision_the_gradients_of_many_batches_add_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(9, (1200, 6))
    module = LanguageModel(RecurrentLM(9, dim=8, hidden=8), sample_tokens=0)
    loss = F.cross_entropy(module(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    expected = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(module.parameters()))])
    run = trainer(tmp_path, GradientNorm(max_samples=None), precision="bf16-true")
    run.validate(module, DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), 2), verbose=False)
    assert float(run.callback_metrics["grad_norm/val/parameters"]) == pytest.approx(float(expected.norm()), rel=1e-2)


def test_in_a_net_of_half_precision_the_norm_of_a_gradient_at_an_embedding_has_its_digits(tmp_path: Path) -> None:
    module = OrdinaryModule()
    embedding, read_out = torch.nn.Embedding(3, 6), torch.nn.Linear(6, 2, bias=False)
    with torch.no_grad():
        embedding.weight.zero_()
        read_out.weight.copy_(torch.tensor([[0.0], [1.0]]))
    module.net = torch.nn.Sequential(embedding, torch.nn.Flatten(), read_out)
    texts = TensorDataset(torch.ones(4, 1, dtype=torch.int64), torch.tensor([0, 1, 0, 1]))
    run = trainer(tmp_path, GradientNorm(), precision="bf16-true")
    run.validate(module, DataLoader(texts, 2), verbose=False)
    # Both classes are as likely, so that each gradient is half the difference of the rows of the weights.
    assert float(run.callback_metrics["grad_norm/val/input"]) == pytest.approx(0.5 * 6**0.5, rel=1e-6)
