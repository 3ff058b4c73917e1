"""Options of public classes: a value of the wrong kind is refused by name, and not taken for another one."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from touchstone import attacks, callbacks, datamodules, lightning_modules, nets
from touchstone.attacks import FGSM, L1, L2, PGD, L1Adam, Linf, NextToken, Surprise, TokenFlips
from touchstone.datamodules import augmentations
from touchstone.lightning_modules import PGDAT, Strategy
from touchstone.nets import MLP, RecurrentLM
from touchstone.nets.handmade import SGD
from touchstone.options import check_between, check_choice

from .oracles import small_net

LINF, BALL = Linf(eps=8 / 255), L2(eps=1.0)
FLIPS = TokenFlips(num_flips=1, vocab_size=8)
STEPS = PGD(threat=LINF, num_steps=2)
GIVEN: dict[str, dict[str, Any]] = {
    # attacks
    "FeatureDistance": {"threat": LINF, "layer": "0", "objective": attacks.Targeted(target=1)},
    "GaussianNoise": {"threat": BALL, "rel_sigma": 0.1},
    "HopSkipJump": {"threat": BALL},
    "DeepFool": {"threat": BALL},
    "CarliniWagner": {"threat": BALL},
    "EAD": {"threat": L1(eps=1.0)},
    "L1Adam": {"threat": LINF, "penalty": 0.1},
    "HotFlip": {"threat": FLIPS},
    "RandomFlips": {"threat": FLIPS},
    "Surrogate": {"threat": LINF, "net": small_net()},
    "Targeted": {"target": 1},
    "AnyOf": {"targets": [1, 2]},
    **{name: {"target": 1} for name in ("NextToken", "Towards")},
    **{name: {"eps": 1.0} for name in ("Linf", "L2", "L1", "L0", "EmbeddingBall")},
    "TokenFlips": {"num_flips": 1, "vocab_size": 8},
    # callbacks
    "AugmentationGallery": {"augmentations": {"flip": nn.Identity()}},
    "CatastrophicOverfitting": {"threat": LINF},
    "RobustnessCurves": {"attack": STEPS, "eps": [0.1], "steps": [1]},
    "DeepDream": {"layers": ["0"]},
    "Finetuning": {"train": ["fc"]},
    "LeastVisible": {"targets": [1], "attack": L1Adam(threat=LINF, penalty=0.1)},
    "PerClass": {},
    "RobustAccuracy": {"attacks": {"fgsm": FGSM(threat=LINF)}},
    "RobustLanguage": {"attacks": {"hot_flip": attacks.HotFlip(threat=FLIPS, objective=Surprise())}},
    "StandardAgainstRobust": {
        "beside": {"robust": small_net()},
        "attack": STEPS,
        "target": 1,
        "layers": {"standard": "0", "robust": "0"},
    },
    "TargetedPictures": {"target": 1, "attacks": {"pgd": STEPS}},
    # lightning_modules
    "AWP": {"strategy": Strategy()},
    "EpsWarmup": {"strategy": PGDAT(STEPS), "num_batches": 2},
    "Mixed": {"strategy": PGDAT(STEPS)},
    "FGSMRS": {"threat": LINF},
    "Free": {"threat": LINF},
    "MART": {"attack": STEPS},
    "PGDAT": {"attack": STEPS},
    "TRADES": {"attack": PGD(threat=LINF, num_steps=2, start_std=0.001)},
    "Classifier": {"net": nn.Identity()},
    "LanguageModel": {"net": RecurrentLM(8, dim=2, hidden=2)},
    "WarmupCosine": {
        "optimizer": torch.optim.SGD([torch.zeros(1)], lr=0.1),
        "warmup_steps": 1,
        "num_steps": 2,
    },
    # datamodules
    "ImagesDataModule": {"source": None},
    "ImageTree": {"root": str(Path(__file__).parent)},
    "NpzImages": {"train": __file__},
    "TorchvisionImages": {"name": "MNIST", "root": "."},
    # augmentations
    "Distort": {"name": "Rotate"},
    "EachImage": {"transform": nn.Identity()},
    # nets
    "AdaptedNet": {"name": "resnet18", "weights": None},
    "Attention": {"dim": 8, "num_heads": 2},
    "Faster": {"net": nn.Identity()},
    "GraphNet": {"adjacency": [[0, 0], [1, 0]], "num_inputs": 1, "num_outputs": 1},
    "TransformerLM": {"vocab_size": 8, "dim": 8},
    "RecurrentLM": {"vocab_size": 8},
    "MLP": {"shape": [2, 2]},
    "NewHead": {"net": MLP([2, 2]), "num_classes": 3},
    "RNN": {"input_size": 2, "hidden_size": 2},
    "LSTM": {"input_size": 2, "hidden_size": 2},
    "GRU": {"input_size": 2, "hidden_size": 2},
    "SetClassifier": {"num_features": 2, "num_classes": 2},
    "TextClassifier": {"vocab_size": 8, "num_classes": 2, "dim": 8},
    "TransformerBlock": {"dim": 8, "num_heads": 2},
}
"""What a class must be given, beside a threat; every other option is as it is where none is given."""

FROM_ELSEWHERE = {
    "Cost": "is what a judge has counted",
    "LanguageReport": "is what a judge has found",
    "Distortion": "is an entry of a table",
    "InnerAttack": "is a base; PGDAT has its options",
    "Learned": "is what a strategy has learned",
    "Report": "is what a judge has found",
    "SampleRng": "is made by a judge",
    "RunRecord": "is given what Lightning's command line has parsed",
    "Trained": "reads a checkpoint before all",
    "PublicCheckpoint": "reads a checkpoint before all",
}


def public_classes() -> list[type]:
    """Of the folders, those that can be made."""
    named = [
        value
        for module in (attacks, callbacks, datamodules, augmentations, lightning_modules, nets)
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__.startswith("touchstone.")
    ]
    return [
        kind for kind in dict.fromkeys(named) if not inspect.isabstract(kind) and kind.__name__ not in FROM_ELSEWHERE
    ]


def options_of(kind: type) -> Mapping[str, Any]:
    """The options of a class by their names, and what they are annotated with; those that it passes on are counted."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)  # of every base in its own module
        return {field.name: hints[field.name] for field in fields(kind) if field.init}
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        make = vars(base).get("__init__")
        if make is None or not base.__module__.startswith("touchstone."):
            continue
        hints = get_type_hints(make)
        parameters = list(inspect.signature(make).parameters.values())
        found = {p.name: hints.get(p.name) for p in parameters if p.kind != p.VAR_KEYWORD} | found
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return found


def wrong_values(annotation: Any) -> Iterator[Any]:
    """Values that are none of what an option is annotated with."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if bool in kinds:
        yield "no"
    if int in kinds and float not in kinds and Tensor not in kinds:
        yield 1.5
    if {int, float} & {*kinds} and not {str} & {*kinds}:
        yield "many"
    if words and str not in kinds:
        yield f"{words[0]}x"


CASES = [
    pytest.param(kind, name, value, id=f"{kind.__name__}({name}={value!r})")
    for kind in public_classes()
    for name, annotation in options_of(kind).items()
    for value in wrong_values(annotation)
]


def given(kind: type) -> dict[str, Any]:
    needed = GIVEN.get(kind.__name__, {})
    return needed if needed or "threat" not in options_of(kind) else {"threat": LINF}


@pytest.mark.parametrize("kind", public_classes(), ids=lambda kind: kind.__name__)
def test_a_class_is_made_of_what_stands_in_the_table(kind: Any) -> None:
    if kind is nets.EfficientNetLite0:
        pytest.importorskip("efficientnet_lite_pytorch")
    if any(kind is case.values[0] for case in CASES):
        kind(**given(kind))


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_a_value_of_the_wrong_kind_is_refused_by_the_name_of_its_option(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"\b{name}=") as caught:
        kind(**{**given(kind), name: value})
    if isinstance(value, str) and value.endswith("x"):
        assert f"did you mean {value[:-1]!r}?" in str(caught.value)


NOT_OF_ITS_KIND: dict[str, tuple[Callable[[], Any], str]] = {
    "layers as one text": (lambda: callbacks.Finetuning("fc"), "train=...) must be a list of layers, at least one"),
    "layers to unfreeze as one text": (
        lambda: callbacks.Finetuning(["fc"], unfreeze={1: "layer4"}),
        "unfreeze=...): epoch 1 must be a list of layers",
    ),
    "a net by its name": (
        lambda: lightning_modules.Classifier("resnet"),
        "net=...) must be an instance of Module, got 'resnet'",
    ),
    "an attack by its name": (lambda: PGDAT("pgd"), r"attack=...) must be an instance of Attack, got 'pgd'"),  # type: ignore[arg-type]
    "a strategy by its name": (lambda: lightning_modules.AWP("pgd"), "strategy=...) must be an instance of Strategy"),
    "another attack": (
        lambda: callbacks.LeastVisible([1], attack=STEPS),
        "attack=...) must be an instance of L1Adam, got PGD(",
    ),
    "no number": (lambda: lightning_modules.TRADES(STEPS, beta=None), "beta=...) must be a number >= 0 and finite"),
    "no number in a range": (lambda: callbacks.Health(min_accuracy=None), "must be a number in [0, 1], got None"),
    "not a number": (lambda: callbacks.Health(min_accuracy=float("nan")), "must be in [0, 1], got nan"),
}


@pytest.mark.parametrize("case", NOT_OF_ITS_KIND)
def test_what_is_not_of_its_kind_is_refused_in_words(case: str) -> None:
    make, message = NOT_OF_ITS_KIND[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(("ends", "allowed"), [("[]", [0, 0.5, 1]), ("[)", [0, 0.5]), ("(]", [0.5, 1]), ("()", [0.5])])
def test_the_ends_of_a_range_belong_to_it_where_they_are_said_to(ends: str, allowed: list[float]) -> None:
    as_tensors = [torch.tensor(value) for value in (-0.1, 0, 0.5, 1, 1.1)]
    for value in (-0.1, 0, 0.5, np.float32(0.5), 1, 1.1, float("nan"), float("inf"), *as_tensors):
        if value in allowed:
            check_between("f(x=...)", value, 0, 1, ends)
        else:
            with pytest.raises(ValueError, match=re.escape(f"f(x=...) must be in {ends[0]}0, 1{ends[1]}, got")):
                check_between("f(x=...)", value, 0, 1, ends)


def test_the_nearest_choice_is_named_in_its_own_case_of_letters() -> None:
    with pytest.raises(ValueError, match="must be one of 'MNIST', 'CIFAR10', got 'cifar'; did you mean 'CIFAR10'?"):
        check_choice("f(x=...)", "cifar", ("MNIST", "CIFAR10"))


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    assert NextToken(np.int64(3)).target == attacks.Targeted(target=np.int64(3)).target == 3  # type: ignore[arg-type]
    assert datamodules.DigitsDataModule(batch_size=np.int64(3)).batch_size == 3  # type: ignore[arg-type]


def test_tensors_of_one_number_are_numbers() -> None:
    labels = torch.arange(10)
    net = nets.SmallCNN(labels.max() + 1)  # type: ignore[arg-type]
    assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert SGD([torch.zeros(1)], lr=torch.tensor(0.05)).defaults["lr"] == torch.tensor(0.05)  # type: ignore[arg-type]
    assert lightning_modules.AWP(PGDAT(STEPS), gamma=torch.tensor(0.01)).gamma == torch.tensor(0.01)  # type: ignore[arg-type]
    assert NextToken(labels[3]).target == 3  # type: ignore[arg-type]
    assert attacks.AnyOf([labels[3], labels[4]]).targets == (3, 4)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="two or more different classes"):
        attacks.AnyOf([labels[3], labels[3]])  # type: ignore[list-item]
    for value in (torch.tensor(True), torch.tensor(1.5), torch.tensor([3])):
        with pytest.raises(ValueError, match=r"num_classes=...\) must be a whole number >= 2"):
            nets.SmallCNN(value)  # type: ignore[arg-type]


def test_the_side_of_an_image_that_is_too_small_is_told_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"image_size=...\) must be >= 2, got 0"):
        nets.SmallCNN(image_size=0)


def test_thresholds_may_be_infinite() -> None:
    assert callbacks.FindLearningRate(early_stop_threshold=float("inf"))
    stable = callbacks.RecurrentJacobian(tolerance=float("inf"))
    assert stable.verdict({10: 1e9}).startswith("stable")
    for value in (float("nan"), 0):
        with pytest.raises(ValueError, match=r"tolerance=...\) must be > 0, got"):
            callbacks.RecurrentJacobian(tolerance=value)


def test_whole_shares_of_steps_are_steps() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    for steps in (0.1 * 100, 0.07 * 100):  # the second one is 7.000000000000001
        lightning_modules.WarmupCosine(optimizer, steps, 100.0)  # type: ignore[arg-type]
    for wrong in (1.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"warmup_steps=...\) must be a whole number >= 0"):
            lightning_modules.WarmupCosine(optimizer, wrong, 100)  # type: ignore[arg-type]


def test_layers_may_be_a_set_and_none_at_an_epoch() -> None:
    made = callbacks.Finetuning({"fc", "a"}, unfreeze={3: [], 4: {"c", "b"}})  # type: ignore[arg-type, dict-item]
    assert made.train == ("a", "fc")  # in one order, whatever the hashes, since a checkpoint keeps that of parameters
    assert made.unfreeze_at == {3: (), 4: ("b", "c")}
