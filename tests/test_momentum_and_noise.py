"""`MIFGSM` against its algorithm in numpy, and what normal noise looks like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import L2, MIFGSM, GaussianNoise, Linf, Margin, SampleRng, Untargeted, evaluate

from .oracles import images, own_labels, small_net


class Bowl(nn.Module):
    """Logits (0, sum of slope * (x - centre)^2 - 9): never the second class inside [0, 1]."""

    slope = torch.tensor([3.0, -2.0, 1.0, 0.5, -4.0, 2.0], dtype=torch.float64)
    centre = torch.tensor([0.45, 0.55, 0.5, 0.1, 0.6, 0.9], dtype=torch.float64)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        height = (self.slope * (x - self.centre).square()).sum(1) - 9
        return torch.stack([torch.zeros_like(height), height], 1) + self.weight


@pytest.mark.parametrize("p", [np.inf, 2])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_mifgsm_is_its_algorithm(p: float, decay: float) -> None:
    x = 0.3 + 0.4 * torch.rand(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope, centre = Bowl.slope.numpy(), Bowl.centre.numpy()
    eps, num_steps = 0.2, 6
    points, gathered = x.numpy(), np.zeros((8, 6))
    for _ in range(num_steps):
        grad = 2 * slope * (points - centre)
        gathered = decay * gathered + grad / np.abs(grad).sum(1, keepdims=True)
        unit = np.sign(gathered) if p == np.inf else gathered / np.linalg.norm(gathered, axis=1, keepdims=True)
        points = points + eps / num_steps * unit  # never outside: the steps add up to eps
    attack = MIFGSM(
        threat=Linf(eps=eps) if p == np.inf else L2(eps=eps),
        objective=Untargeted(loss=Margin()),
        num_steps=num_steps,
        decay=decay,
    )
    assert np.allclose(attack(Bowl(), x, torch.zeros(8, dtype=torch.int64)).numpy(), points, atol=1e-12)


def test_mifgsm_to_the_end_goes_on_after_the_fall() -> None:
    net, x = small_net().eval(), images(24)
    y = own_labels(net, x)
    threat = Linf(eps=0.1)
    attacks = {"stops": MIFGSM(threat=threat), "goes_on": MIFGSM(threat=threat, to_the_end=True)}
    report = evaluate(net, x, y, attacks, keep_adversarial=True)
    assert report.cost["goes_on"].num_backwards == 10 * 24 > report.cost["stops"].num_backwards
    loss = {name: nn.functional.cross_entropy(net(x_adv), y, reduction="none") for name, x_adv in report.x_adv.items()}
    fell = report.success["stops"]
    assert fell.sum() > 5
    assert (loss["goes_on"] > loss["stops"])[fell].float().mean() > 0.9


def test_normal_noise_has_its_deviation_and_the_projection_its_edges() -> None:
    x = torch.full((2000, 1, 3, 3), 0.5)
    small = GaussianNoise(threat=Linf(eps=0.4), rel_sigma=0.2).draw(x, SampleRng.numbered(2000)) - 0.5
    assert float(small.std()) == pytest.approx(0.08, rel=0.02)
    assert float((small.abs() > 0.08).float().mean()) == pytest.approx(0.3173, abs=0.01)
    whole = GaussianNoise(threat=Linf(eps=0.4)).draw(x, SampleRng.numbered(2000)) - 0.5
    assert float((whole.abs() > 0.399999).float().mean()) == pytest.approx(0.3173, abs=0.01)
    length = GaussianNoise(threat=L2(eps=0.3)).draw(x, SampleRng.numbered(2000)).sub(0.5).flatten(1).norm(dim=1)
    assert float((length > 0.2999).float().mean()) > 0.95


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MIFGSM(threat=Linf(eps=0.1), decay=-1), r"MIFGSM\(decay=...\) must be >= 0 and finite, got -1"),
        (
            lambda: MIFGSM(threat=Linf(eps=0.1), to_the_end="no"),  # type: ignore[arg-type]
            r"MIFGSM\(to_the_end=...\) must be True or False, got 'no'",
        ),
        (lambda: MIFGSM(threat=Linf(eps=0.1), num_steps=0), r"MIFGSM\(num_steps=...\) must be >= 1, got 0"),
        (lambda: GaussianNoise(threat=Linf(eps=0.1), rel_sigma=0), r"GaussianNoise\(rel_sigma=...\) must be > 0"),
        (lambda: GaussianNoise(threat=Linf(eps=0.1), num_tries=0), r"GaussianNoise\(num_tries=...\) must be >= 1"),
    ],
)
def test_what_cannot_be_is_an_error_of_the_constructor(make: type, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
