"""What stands in the picture of an attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch.utils.data import DataLoader, TensorDataset

from touchstone.attacks import FGSM, PGD, Linf, Targeted, evaluate
from touchstone.callbacks import RobustAccuracy
from touchstone.callbacks.parts.pictures import attack_pictures as module_under_test
from touchstone.callbacks.parts.pictures.attack_picture import Attacked, attack_picture, enlarged, for_display
from touchstone.callbacks.parts.pictures.choice import Choice

from .lightning_programs import OrdinaryModule, samples, train_loader, trainer, val_loader


def picture(target: int, change: float = 0.1, class_names: tuple[str, ...] | None = None) -> list[str]:
    """The texts in a picture of two samples, the second of which was wrong before and left alone."""
    before = torch.full((2, 1, 6, 6), 0.5)
    after = before.clone()
    after[0, 0, 0, 0] += change
    logits_before, logits_after = torch.zeros(2, 3), torch.zeros(2, 3)
    logits_before[:, 0], logits_after[:, 2] = 9.0, 9.0
    label = torch.tensor([0, 1])
    attacked = Attacked(before, after, logits_before, logits_after, label, torch.tensor([target, target]))
    figure = attack_picture(attacked, title="pgd, test: Linf", class_names=class_names)
    return [text.get_text() for text in figure.axes[0].texts] + [figure.get_suptitle()]


def test_true_class_wanted_class_and_predictions_stand_in_the_picture() -> None:
    texts = picture(2, class_names=("zero", "one", "two"))
    assert {"true\n→ wanted", "zero\n→ two", "one\n→ two", "zero (100%)", "two (100%)", "pgd, test: Linf"} <= set(texts)


def test_an_untargeted_attack_wants_any_other_class() -> None:
    assert "0\n→ any other" in picture(-1)


def test_grey_and_the_enlargement_are_explained() -> None:
    texts = picture(2)
    assert {"difference\n(grey: none)", "x 5", "left as it was"} <= set(texts)


def test_one_value_far_above_all_others_hides_no_change() -> None:
    change = torch.zeros(1, 1, 50, 40)
    change[0, 0, :25] = torch.linspace(-0.02, 0.02, 1000).view(25, 40)
    change[0, 0, 0, 0] = 0.5
    sizes = np.sort(np.abs(change.numpy()[change.numpy() != 0]))
    full = float(sizes[998 - 1])  # of the 1,000 that change
    shown = enlarged(change)
    assert shown.min() == 0
    assert shown.max() == 1
    assert torch.allclose(shown[0, 0, 7, 3], 0.5 + change[0, 0, 7, 3] / (2 * full))
    assert (shown[0, 0, 25:] == 0.5).all()
    logits, label = torch.zeros(1, 3), torch.tensor([0])
    before = torch.full_like(change, 0.5)
    attacked = Attacked(before, before + change, logits, logits, label, label)
    texts = [text.get_text() for text in attack_picture(attacked, title="pgd").axes[0].texts]
    assert f"x {0.5 / full:.3g}, 0.2%\ncut off" in texts


@pytest.mark.parametrize(("num_samples", "side"), [(1, 6), (1, 96), (2, 96)])
def test_a_title_is_no_wider_than_its_picture(num_samples: int, side: int) -> None:
    before, logits = torch.rand(num_samples, 1, side, side), torch.zeros(num_samples, 3)
    label = torch.zeros(num_samples, dtype=torch.int64)
    title = "until_it_switches: towards American Staffordshire terrier"
    figure = attack_picture(Attacked(before, before, logits, logits, label, label), title=title)
    FigureCanvasAgg(figure).draw()
    assert figure._suptitle is not None  # type: ignore[attr-defined]
    box = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    texts = [text.get_window_extent() for text in figure.axes[0].texts]
    assert max(text.y1 for text in texts) <= box.y0
    assert min(text.y0 for text in texts) >= 0
    assert "".join(figure.get_suptitle().split()) == "".join(title.split())


def test_values_that_are_one_but_for_rounding_are_not_called_cut_off() -> None:
    before, logits, label = torch.zeros(1, 1, 50, 50), torch.zeros(1, 3), torch.tensor([0])
    after = before + 8 / 255
    after[0, 0, 0, 0] += 1e-7
    attacked = Attacked(before, after, logits, logits, label, label)
    assert "x 15.9" in [text.get_text() for text in attack_picture(attacked, title="pgd").axes[0].texts]


@given(st.integers(1, 499))
def test_of_few_values_the_largest_fills_the_range(num_values: int) -> None:
    change = torch.zeros(1, 900)
    change[0, :num_values] = torch.linspace(0.01, 0.4, num_values)
    assert torch.allclose(enlarged(change), 0.5 + change / (2 * change.max()))


def test_pictures_of_half_precision_are_shown_as_others_are() -> None:
    image = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 2, 2)
    assert (for_display(image.bfloat16()) == image[0].numpy()).all()


def test_signals_are_lines_at_their_values() -> None:
    before = torch.tensor([[[0.0, 0.5, 1.0], [0.25, 0.25, 0.25]]])
    logits, label = torch.zeros(1, 3), torch.tensor([0])
    attacked = Attacked(before, before + 0.0, logits, logits, label, torch.tensor([-1]))
    (axes,) = attack_picture(attacked, title="pgd").axes
    frames, lines = axes.lines[::3], [line for place, line in enumerate(axes.lines) if place % 3]
    assert (len(frames), len(lines)) == (3, 6)
    bottom = min(frames[0].get_ydata())
    assert [list(line.get_ydata() - bottom) for line in lines[:2]] == before[0].tolist()
    assert list(lines[0].get_xdata()) == [0, 0.5, 1]


@pytest.mark.parametrize(
    "names",
    [
        ("American Staffordshire terrier", "black and gold garden spider", "soft-coated wheaten terrier"),
        ("American_Staffordshire_terrier", "Norwegian_elkhound", "leatherback_turtle"),
    ],
)
def test_texts_of_long_names_do_not_overlap(names: tuple[str, ...]) -> None:
    for side in (6, 96):
        x, logits = torch.rand(3, 3, side, side), 9 * torch.eye(3)
        attacked = Attacked(x, 1 - x, logits, logits.flip(0), torch.arange(3), torch.tensor([1, 2, 0]))
        figure = attack_picture(attacked, title="towards another", class_names=names, notes=["alpha 0.01, L1 123"] * 3)
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        texts = [text for text in figure.axes[0].texts if text.get_text()]
        assert any("Staffordshire" in text.get_text() for text in texts)
        boxes = [text.get_window_extent(renderer) for text in texts]
        boxes += [picture.get_window_extent(renderer).shrunk(0.99, 0.99) for picture in figure.axes[0].images]
        overlapping = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        assert not overlapping
        assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)


@pytest.mark.parametrize("target", ["random", "runner_up", "least_likely", 2])
def test_the_wanted_class_is_the_one_that_the_judge_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: int | str
) -> None:
    """Whoever was turned is now where the picture says that the attack wanted it."""
    drawn: list[tuple[Attacked, str]] = []

    def keep(attacked: Attacked, *, title: str, class_names: object) -> object:
        drawn.append((attacked, title))
        return attack_picture(attacked, title=title)

    monkeypatch.setattr(module_under_test, "attack_picture", keep)
    attack = PGD(threat=Linf(eps=0.3), objective=Targeted(target), num_steps=20)  # type: ignore[arg-type]
    module = OrdinaryModule()
    run = trainer(tmp_path, RobustAccuracy({"to": attack}, num_images=23, seed=4))
    run.validate(module, val_loader(), verbose=False)
    (attacked, title), (x, y) = drawn[0], samples(23, seed=2).tensors
    assert title.startswith("to, validation: Linf(eps=0.3")
    reached = evaluate(module, x, y, {"to": attack}, seed=4).success["to"]
    assert reached.sum() > 5
    hit = (attacked.logits_after.argmax(1) == attacked.target) & (attacked.target != attacked.label)
    assert torch.equal(hit, reached)


def test_the_title_says_in_which_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    real = attack_picture
    monkeypatch.setattr(
        module_under_test, "attack_picture", lambda a, title, class_names: titles.append(title) or real(a, title=title)
    )
    run = trainer(tmp_path, RobustAccuracy({"pgd": PGD(threat=Linf(eps=0.1), num_steps=2)}), max_epochs=2)
    module = OrdinaryModule()
    run.fit(module, train_loader(), val_loader())
    run.test(module, val_loader(), verbose=False)
    places = ["validation in epoch 1", "validation in epoch 2", "test"]
    assert [title.split(":")[0] for title in titles] == [f"pgd, {place}" for place in places]


@pytest.mark.parametrize("batch_size", [1, 4, 23])
def test_samples_that_were_right_are_shown_of_all_classes_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    drawn: list[Attacked] = []
    monkeypatch.setattr(
        module_under_test,
        "attack_picture",
        lambda a, title, class_names: drawn.append(a) or attack_picture(a, title=title),
    )
    module, (x, _) = OrdinaryModule(), samples(23, seed=2).tensors
    with torch.no_grad():
        predicted = module.eval()(x).argmax(1)
    x, y = x[predicted.argsort(stable=True)], predicted.sort(stable=True).values
    classes = y.unique().tolist()
    assert len(classes) >= 2
    y[0] = classes[-1]  # wrong
    order = {c: (y == c).nonzero()[:, 0].tolist() for c in classes}
    order[classes[-1]].remove(0)
    rounds = [of_class[n] for n in range(23) for of_class in order.values() if n < len(of_class)]
    for num_images, expected in ((len(classes) + 1, sorted(rounds[: len(classes) + 1])), (23, [*range(23)])):
        measuring = RobustAccuracy({"fgsm": FGSM(threat=Linf(eps=0.3))}, num_images=num_images, batch_size=batch_size)
        trainer(tmp_path, measuring).validate(module, DataLoader(TensorDataset(x, y), batch_size), verbose=False)
        assert torch.equal(drawn.pop().before, x[expected])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30), st.integers(0, 6), st.integers(1, 30))
def test_the_choice_of_samples_is_that_of_one_batch(
    stream: list[tuple[bool, int]], num_samples: int, batch_size: int
) -> None:
    chosen = []
    for size in (batch_size, 30):
        choice = Choice[int](num_samples)
        for first in range(0, len(stream), size):
            if choice.is_final:
                continue
            part = stream[first : first + size]
            for row, rank in choice.take_in([right for right, _ in part], [label for _, label in part]).items():
                choice.keep(rank, first + row)
        chosen.append(choice.in_order())
    assert chosen[0] == chosen[1] == sorted(chosen[0])
    assert len(chosen[0]) == min(num_samples, len(stream))
    right = [label for is_right, label in stream if is_right]
    shown = [stream[place][1] for place in chosen[0] if stream[place][0]]
    assert len(shown) == min(num_samples, len(right))
    assert len(set(shown)) == min(num_samples, len(set(right)))
