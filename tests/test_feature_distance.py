"""`FeatureDistance` against a layer whose farthest answer is known, and what it says of layers that are not there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from touchstone.attacks import EmbeddingBall, FeatureDistance, Linf, Untargeted, evaluate
from touchstone.attacks.objectives.endless import Endless
from touchstone.nets import TextClassifier

from .oracles import images, own_labels, small_net


def test_it_moves_a_linear_layer_as_far_as_the_threat_allows() -> None:
    """One row of weights of both signs: the farthest answer is eps times the sum of their sizes away."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 1, bias=False), nn.Linear(1, 2))
    x, eps = images(8), 0.04
    attack = FeatureDistance(threat=Linf(eps=eps), layer="1", num_steps=20, objective=Endless(Untargeted()))
    x_adv = attack(net, x, own_labels(net, x))
    moved = (net[:2](x_adv) - net[:2](x)).abs()[:, 0]
    assert torch.allclose(moved, eps * net[1].weight.abs().sum().expand(8), rtol=1e-3)


def test_a_layer_is_heard_before_the_next_one_writes_into_what_it_gave() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))
    in_place = nn.Sequential(plain[0], plain[1], nn.ReLU(inplace=True), plain[3])
    x, attack = images(8), FeatureDistance(threat=Linf(eps=0.04), layer="1", objective=Endless(Untargeted()))
    y = own_labels(plain, x)
    assert torch.equal(attack(in_place, x, y), attack(plain, x, y))


def test_a_layer_has_its_own_name_inside_an_embedding_ball_too() -> None:
    torch.manual_seed(0)
    net = TextClassifier(vocab_size=12, num_classes=2, body="gru", dim=8).eval()
    tokens = torch.arange(24).reshape(4, 6) % 12
    attack = FeatureDistance(threat=EmbeddingBall(eps=2.0), layer="recurrent", num_steps=3)
    with pytest.raises(ValueError, match="must be a layer that gives a tensor"):  # it gives two, and is known
        attack(net, tokens, own_labels(net, tokens))


def test_it_turns_a_model_whose_loss_is_masked() -> None:
    class Rounded(nn.Module):
        """Logits without a gradient after a layer that has one."""

        def __init__(self) -> None:
            super().__init__()
            self.body = small_net().eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.body(x)
            return logits.detach().round(decimals=2) + 0 * logits

    net, x = Rounded().eval(), images(24)
    attack = FeatureDistance(threat=Linf(eps=0.2), layer="body.5")
    report = evaluate(net, x, own_labels(net, x), {"features": attack})
    assert report.success["features"].float().mean() > 0.5


def test_a_layer_that_is_not_there_is_an_error_that_names_the_nearest() -> None:
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), images(2)
    with pytest.raises(ValueError, match=r"FeatureDistance\(layer=...\) must be a layer of the model, got '7'; did"):
        FeatureDistance(threat=Linf(eps=0.1), layer="7")(net, x, own_labels(net, x))
    with pytest.raises(ValueError, match=r"FeatureDistance\(layer=...\) must be an instance of str, got 7"):
        FeatureDistance(threat=Linf(eps=0.1), layer=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"FeatureDistance\(num_steps=...\) must be >= 1, got 0"):
        FeatureDistance(threat=Linf(eps=0.1), layer="1", num_steps=0)
