"""Signs of gradient masking: models that mask on purpose raise one, honest ones none."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from touchstone.attacks import (
    EAD,
    FGSM,
    L1,
    L2,
    PGD,
    Attack,
    Linf,
    Margin,
    RandomNoise,
    Strongest,
    Untargeted,
    evaluate,
)

from .masking_nets import (
    Before,
    Counting,
    Crowded,
    Exploding,
    Faint,
    Quantised,
    Randomised,
    Rippled,
    Shattered,
    Squashed,
    Standardised,
    Tempered,
    warnings_of,
)
from .oracles import LinearModel, images, own_labels, small_net

LINF = Linf(eps=0.1)
PGD_10 = PGD(threat=LINF, num_steps=10)


@pytest.mark.parametrize(
    ("masking", "eps", "sign"),
    [
        (Quantised, 0.1, "100% of its gradients were exactly zero"),
        (Tempered, 0.1, "20 steps on the margin turned|were exactly zero"),
        (Shattered, 0.03, "gradients are shattered"),
        (Rippled, 0.08, r"half an eps from \d+ of \d+ samples .* points elsewhere"),
        (Randomised, 0.1, "it draws random numbers"),
        (Squashed, 0.1, r"outputs all lie in \[0, 1\]"),
        (Crowded, 0.1, "depends on the other images of the batch"),
        (Counting, 0.1, r"changes its own state in evaluation mode \(num_calls\)"),
        (Exploding, 0.1, "gradients exploded, or were not finite"),
    ],
)
def test_a_model_that_masks_shows_a_sign(masking: type[Before], eps: float, sign: str) -> None:
    warnings = warnings_of(masking(small_net()), {"pgd": PGD(threat=Linf(eps=eps), num_steps=10)})
    assert any(re.search(sign, warning) for warning in warnings), warnings


@pytest.mark.parametrize("eps", [0.005, 0.02, 0.05, 0.1])
@pytest.mark.parametrize(
    "make_net",
    [*(partial(small_net, seed) for seed in range(3)), partial(LinearModel, 36, 4, dtype=torch.float32)],
    ids=["0", "1", "2", "linear"],
)
def test_an_honest_net_shows_no_sign(eps: float, make_net: Callable[[], nn.Module]) -> None:
    threat = Linf(eps=eps)
    attacks: dict[str, Attack] = {
        "noise": RandomNoise(threat=threat),
        "fgsm": FGSM(threat=threat),
        "pgd": PGD(threat=threat, num_steps=10),
        "l2": PGD(threat=L2(eps=4 * eps), num_steps=10),
        "strongest": Strongest(threat=threat),
    }
    assert warnings_of(make_net(), attacks) == []


def test_what_a_probe_finds_far_off_ends_no_evaluation() -> None:
    """Plain grey, which the samples cannot become, has no logits here."""
    model = Standardised(small_net()).eval()
    with torch.no_grad():
        assert not model(torch.full((1, 1, 6, 6), 0.5)).isfinite().any()
    assert warnings_of(model, {"pgd": PGD(threat=Linf(eps=0.002)), "l2": PGD(threat=L2(eps=0.01))}) == []


def test_logits_that_hardly_differ_are_a_sign_where_the_margin_turns_more() -> None:
    """Where all classes seem equally likely, cross-entropy climbs towards all at once, and not to the nearest."""
    net, pgd = small_net(num_classes=10), PGD(threat=Linf(eps=0.03))
    assert warnings_of(net, {"pgd": pgd}, num_samples=96) == []
    warnings = warnings_of(Faint(net), {"pgd": pgd}, num_samples=96)
    assert any("20 steps on the margin turned" in warning for warning in warnings), warnings


@pytest.mark.parametrize("scale", [1e-20, 1e-9, 1e6])
def test_the_scale_of_an_honest_net_is_no_sign(scale: float) -> None:
    class Scaled(Before):
        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * scale

    attacks: dict[str, Attack] = {"pgd": PGD(threat=LINF, objective=Untargeted(loss=Margin()))}
    assert warnings_of(Scaled(small_net()), attacks) == []


@pytest.mark.parametrize("eps", [0.1, 0.3, 1.0])
def test_pixels_that_cannot_move_on_are_no_sign(eps: float) -> None:
    """Of black and white pixels the steepest one lies as often as not at the end of the box that it leads to."""
    model = LinearModel(num_features=64, num_classes=10, dtype=torch.float32).centred()
    x = images(100, seed=1, shape=(1, 8, 8)).round()
    attacks = {"pgd": PGD(threat=L1(eps=eps), objective=Untargeted(loss=Margin()))}
    assert evaluate(model, x, own_labels(model, x), attacks).warnings == []


class OneClass(Before):
    """Gives class 0 to every image, by logits that do depend on it; `hidden` gives plain grey another class."""

    hidden = False

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x).tanh() * 0.1
        is_grey = (x - 0.5).abs().flatten(1).amax(1) < 1e-3
        offset = torch.where(is_grey & self.hidden, -1.0, 1.0)
        return torch.cat([logits[:, :1] + offset[:, None], logits[:, 1:] - offset[:, None]], 1)


@pytest.mark.parametrize("hidden", [False, True])
def test_standing_at_a_large_eps_is_a_sign_only_where_the_model_is_known_to_err(hidden: bool) -> None:
    model = OneClass(small_net()).eval()
    model.hidden = hidden
    x = images(48)
    warnings = evaluate(model, x, torch.zeros(48, dtype=torch.long), {"pgd": PGD_10}).warnings
    assert any("they do not lead to the errors that are there" in warning for warning in warnings) is hidden, warnings


class NoNumbers(OneClass):
    """As `OneClass`, but for what is plain grey, or at the ends of the box, where it gives no numbers."""

    at_grey = False

    def forward(self, x: Tensor) -> Tensor:
        far = (x - 0.5).abs().flatten(1).amax(1)
        return torch.where(((far < 1e-3) if self.at_grey else far > 0.49)[:, None], torch.nan, super().forward(x))


@pytest.mark.parametrize("at_grey", [False, True])
@pytest.mark.parametrize("label", [0, 1])
def test_where_a_probe_meets_no_numbers_it_has_found_nothing(at_grey: bool, label: int) -> None:
    """Neither an error that is there to be found, nor a sample that stands."""
    model = NoNumbers(small_net()).eval()
    model.at_grey, model.hidden = at_grey, not at_grey
    shown = model if label == 0 else nn.Sequential(model, Swapped())
    warnings = evaluate(shown, images(48), torch.full((48,), label), {"pgd": PGD(threat=Linf(eps=0.02))}).warnings
    assert not any("they do not lead to the errors" in warning for warning in warnings), warnings


class Swapped(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, [1, 0, 2, 3]]


def test_waves_show_where_pixels_lie_at_the_end_of_the_box() -> None:
    """From there a random start moves half of them, and the gradients of the others agree."""
    model, x = Rippled(small_net()).eval(), images(48).round()
    observed = evaluate(model, x, own_labels(model, x), {"pgd": PGD(threat=Linf(eps=0.08))}).observed
    assert any("half an eps" in sign for sign in observed), observed


class Bending(nn.Module):
    """Its gradient turns, on the way through a ball, as the gradients of honest nets do."""

    def forward(self, x: Tensor) -> Tensor:
        flat = (x - 0.5).flatten(1)
        along, across = flat[:, ::2].sum(1), flat[:, 1::2].sum(1)
        margin = 5000 - along - self.bend * across.square()
        return torch.stack([margin, -margin], 1)

    bend = 0.0


@pytest.mark.parametrize(("bend", "is_a_sign"), [(0.0, False), (8.0, False), (100.0, True)])
def test_gradients_that_turn_by_less_than_a_right_angle_are_no_sign(bend: float, is_a_sign: bool) -> None:
    """At the sample the gradient leads along; half an eps on, across by `2 * bend` times how far across that is."""
    model = Bending()
    model.bend = bend
    x, y = torch.full((48, 1, 8, 8), 0.5), torch.zeros(48, dtype=torch.int64)
    observed = evaluate(model, x, y, {"pgd": PGD(threat=LINF, objective=Untargeted(loss=Margin()))}).observed
    assert any("half an eps" in sign for sign in observed) is is_a_sign, observed


def test_noise_beating_the_gradient_is_a_sign() -> None:
    class Misleading(nn.Module):
        """Noise turns it, but its gradient leads back to the centre."""

        def forward(self, x: Tensor) -> Tensor:
            away = (x - 0.5).abs().flatten(1).mean(1)
            margin = torch.where(away > 0.02, -1.0, 1.0) + (away - away.detach()) * 1e-3
            return torch.stack([margin, -margin], 1)

    x = torch.full((40, 1, 4, 4), 0.5)
    y = torch.zeros(40, dtype=torch.int64)
    attacks = {"noise": RandomNoise(threat=LINF), "pgd": PGD(threat=LINF, num_steps=5, random_start=False)}
    warnings = evaluate(Misleading(), x, y, attacks).warnings
    assert any("noise (control) turned 40 samples more than pgd (gradient)" in warning for warning in warnings)


def test_verdicts_of_chance_are_a_sign() -> None:
    """A few random pixels decide, and a single try seldom meets the same samples twice."""
    net = small_net()
    attack = PGD(threat=LINF, num_steps=1, step_size=1e-9)
    warnings = warnings_of(net, {"pgd": attack}, num_samples=400)
    assert any("from other random starts" in warning for warning in warnings), warnings


def test_a_model_that_draws_gives_the_same_verdicts_whatever_was_drawn_before() -> None:
    model, x = Randomised(small_net()).eval(), images(24)
    y = own_labels(model.inner, x)
    seen = []
    for draws in (0, 5):
        torch.rand(draws)
        seen.append(evaluate(model, x, y, {"pgd": PGD_10}).robust["pgd"])
    assert torch.equal(*seen)
    alone = evaluate(model, x, y, {"noise": RandomNoise(threat=LINF), "pgd": PGD_10}).robust["pgd"]
    assert torch.equal(alone, seen[0])


class Tossing(Before):
    """Mirrors all images of a forward, or none, by one coin."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flip(3) if torch.rand(()) < 0.5 else x)


@pytest.mark.parametrize("num_samples", [5, 48])
def test_a_model_that_tosses_one_coin_for_each_forward_draws_and_depends_on_no_other_image(num_samples: int) -> None:
    model = Tossing(small_net()).eval()
    x = images(num_samples)
    y, attacks = own_labels(model.inner, x), {"noise": RandomNoise(threat=LINF)}
    signs = [" ".join(evaluate(model, x, y, attacks, seed=seed).warnings) for seed in range(40)]
    assert sum("draws random numbers" in sign for sign in signs) >= 39
    assert not any("other images of the batch" in sign for sign in signs)


@pytest.mark.parametrize("num_samples", [2, 3, 4, 5, 9, 13, 25, 31, 32, 33])
def test_a_model_that_sees_its_batch_draws_no_numbers_and_is_asked_of_no_image_alone(num_samples: int) -> None:
    """A norm over the batch refuses a batch of one."""
    model, sizes = Crowded(small_net()).eval(), []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    x = images(num_samples)
    (warning,) = evaluate(model, x, own_labels(model, x), {}).warnings
    assert "depends on the other images of the batch" in warning
    assert num_samples < 4 or min(sizes) > 1


def test_a_hinge_that_is_satisfied_is_no_sign() -> None:
    threat = L1(eps=4)
    attack = EAD(threat=threat, num_steps=30, num_rounds=3, first_weight=1.0)
    assert warnings_of(small_net(), {"ead": attack}, num_samples=12) == []


def test_probes_can_be_left_out() -> None:
    model = Tempered(small_net())
    assert not any("20 steps" in warning for warning in warnings_of(model, {"pgd": PGD_10}, probe_masking=False))


class Turning(nn.Module):
    """Leads towards the boundary until the changes add up to a sixth, and away from it beyond."""

    def forward(self, x: Tensor) -> Tensor:
        added = (x - 0.5).flatten(1).sum(1)
        gain = added - 3 * added.square() - 1
        return torch.stack([-gain, gain], 1)


@pytest.mark.parametrize("pixels_per_eps", [3, None])
def test_inside_l1_the_look_nearby_goes_no_further_than_it_says_whatever_the_steps_of_the_attack(
    pixels_per_eps: int | None,
) -> None:
    """Steps along the gradient itself would go all the way to eps, where the margin is lower."""
    x, y = torch.full((16, 1, 48, 48), 0.5), torch.zeros(16, dtype=torch.int64)
    attack = PGD(threat=L1(eps=1, pixels_per_eps=pixels_per_eps), num_steps=5)
    observed = evaluate(Turning(), x, y, {"pgd": attack}).observed
    assert not [sign for sign in observed if "within 5% of eps" in sign]
