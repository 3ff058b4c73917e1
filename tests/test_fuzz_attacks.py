"""Images, texts and labels drawn at random: the judge gives verdicts that hold, or says what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from touchstone.attacks import (
    FGSM,
    L1,
    L2,
    PGD,
    Attack,
    HotFlip,
    Linf,
    RandomFlips,
    RandomNoise,
    Report,
    Square,
    Targeted,
    TokenFlips,
    evaluate,
)

from .fuzzing import ask, for_each, fuzzed
from .oracles import small_net
from .tokens_table import LENGTH, NUM_CLASSES, NUM_TOKENS, text_net

ON_IMAGES: dict[str, Attack] = {
    "fgsm": FGSM(threat=Linf(eps=0.1)),
    "pgd": PGD(threat=Linf(eps=0.1), num_steps=3),
    "l2": PGD(threat=L2(eps=1.0), num_steps=3, num_restarts=2),
    "l1": PGD(threat=L1(eps=2.0), num_steps=3),
    "targeted": PGD(threat=Linf(eps=0.3), num_steps=3, objective=Targeted(target=1)),
    "noise": RandomNoise(threat=Linf(eps=0.2)),
    "square": Square(threat=Linf(eps=0.2), num_queries=5),
}
FLIPS = TokenFlips(2, vocab_size=NUM_TOKENS)
ON_TEXTS: dict[str, Attack] = {"hot": HotFlip(threat=FLIPS, num_candidates=3), "random": RandomFlips(threat=FLIPS)}
ODD_PIXELS = [0.0, 1.0, -0.0, 1e-45, 1e-38, 0.5, 1 - 2**-24, 1 / 3, -1e-3, 1.001, 255.0, float("nan"), float("inf")]


@st.composite
def image_cases(draw: Any) -> tuple[Tensor, Tensor, str]:
    """Images, labels and the name of an attack: mostly as they should be, now and then with something odd."""
    num_images = draw(st.integers(0, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    x = torch.rand(num_images, 1, 6, 6, generator=generator)
    y = torch.randint(4, (num_images,), generator=generator)
    for _ in range(draw(st.integers(0, 3)) if num_images else 0):
        where = (draw(st.integers(0, num_images - 1)), 0, slice(draw(st.integers(0, 5)), None))
        x[where] = draw(st.sampled_from(ODD_PIXELS[:8] if draw(st.integers(0, 2)) else ODD_PIXELS))
    oddity = draw(st.sampled_from(["none"] * 9 + ["dtype", "shape", "labels", "kind of labels", "number"]))
    if oddity == "dtype":
        x = x.to(draw(st.sampled_from([torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool])))
    elif oddity == "shape":
        others = [x[0] if num_images else x, x[:, 0], x[..., :5], x.expand(-1, 3, -1, -1), x.flatten(1)]
        x = draw(st.sampled_from(others))
    elif oddity == "labels":
        y = y + draw(st.sampled_from([-1, 4, -(2**62), 2**62]))
    elif oddity == "kind of labels":
        y = draw(st.sampled_from([y.float(), y[:, None], y.bool(), torch.eye(4)[y], y.int()]))
    elif oddity == "number":
        y = torch.cat([y, torch.zeros(1, dtype=torch.int64)])
    return x, y, draw(st.sampled_from(sorted(ON_IMAGES)))


def check_report(report: Report, x: Tensor, y: Tensor, name: str) -> None:
    """What holds of every verdict, by the images that came back."""
    x_adv = report.x_adv[name]
    assert x_adv.shape == x.shape
    assert bool(report.attacks[name].threat.contains(x_adv, x.to(x_adv)).all())
    assert not bool((report.robust[name] & ~report.clean_correct).any())
    assert not bool((report.success[name] & report.robust[name]).any())
    assert report.clean_correct.tolist() == (report.clean_prediction == y).tolist()
    assert report.sample_id.tolist() == list(range(len(y)))


@fuzzed(60, 800)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_the_judge_measures_images_or_says_what_is_wrong_with_them(num_cases: int) -> None:
    net = small_net(7).eval()

    def holds(case: tuple[Tensor, Tensor, str]) -> None:
        x, y, name = case
        before = x.clone()
        attacks = {name: ON_IMAGES[name]}
        refuses_by = (ValueError,) if x.shape[1:] == (1, 6, 6) else (ValueError, RuntimeError)  # the net's own words
        answer = ask(lambda: evaluate(net, x, y, attacks, keep_adversarial=True, probe_masking=False), refuses_by)
        if answer.refusal is None:
            assert bool(((x >= 0) & (x <= 1)).all())
            check_report(answer.value, x, y, name)
            if len(x):
                with torch.no_grad():
                    again = net(answer.value.x_adv[name].float()).argmax(1) == y
                assert bool((again | ~answer.value.robust[name]).all())
        assert answer.refusal != ""
        assert torch.equal(x.nan_to_num(), before.nan_to_num())

    for_each(image_cases(), num_cases, holds)


@st.composite
def text_cases(draw: Any) -> tuple[Tensor, Tensor, str]:
    num_texts = draw(st.integers(0, 4))
    odd = st.sampled_from([-1, NUM_TOKENS, 2**40]) if draw(st.integers(0, 5)) == 0 else st.just(1)
    token = st.one_of(st.integers(0, NUM_TOKENS - 1), odd)
    rows = [[draw(token) for _ in range(LENGTH)] for _ in range(num_texts)]
    x = torch.tensor(rows, dtype=torch.int64).reshape(num_texts, LENGTH)
    x = draw(st.sampled_from([x] * 5 + [x[:, :0], x[:, :1], x.float(), x.int()]))
    y = torch.tensor([draw(st.integers(0, NUM_CLASSES - 1)) for _ in range(num_texts)], dtype=torch.int64)
    return x, y, draw(st.sampled_from(sorted(ON_TEXTS)))


@fuzzed(25, 400)
def test_the_judge_measures_texts_or_says_what_is_wrong_with_them(num_cases: int) -> None:
    net = text_net()

    def holds(case: tuple[Tensor, Tensor, str]) -> None:
        x, y, name = case
        attacks = {name: ON_TEXTS[name]}
        answer = ask(lambda: evaluate(net, x, y, attacks, keep_adversarial=True, probe_masking=False))
        assert answer.refusal != ""
        if answer.refusal is None:
            check_report(answer.value, x, y, name)

    for_each(text_cases(), num_cases, holds)
