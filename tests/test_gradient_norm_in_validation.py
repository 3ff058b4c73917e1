"""`GradientNorm` during validation: norms against gradients taken by hand, and what it cannot measure."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import PGD, Linf
from touchstone.callbacks import GradientNorm, RobustAccuracy
from touchstone.lightning_modules import Classifier, LanguageModel
from touchstone.nets import RecurrentLM, SetClassifier

from .lightning_programs import OrdinaryModule, events, samples, total_norm_by_hand, train_loader, trainer, val_loader


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
