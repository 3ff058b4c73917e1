"""Configs drawn at random: valid ones train a step, others give an error in words; no traceback, ever."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .command_lines import LINF, TINY
from .fuzzing import for_each, fuzzed

pytestmark = pytest.mark.filterwarnings("ignore")  # of a net that has hardly begun to learn, and of what values cause

Config = dict[str, Any]
OPTIONS = ("--trainer.max_steps=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1")


def of(class_path: str, **init_args: Any) -> Config:
    return {"class_path": class_path, "init_args": init_args}


def threats() -> SearchStrategy[Config]:
    eps = st.sampled_from([1e-6, 0.1, 1.0, "8/255"])
    names = st.sampled_from(["Linf", "L1", "L2"])
    return st.builds(lambda name, eps: of(f"touchstone.attacks.{name}", eps=eps), names, eps)


def attacks() -> SearchStrategy[Config]:
    few = st.integers(1, 3)
    return st.one_of(
        st.builds(lambda t: of("touchstone.attacks.FGSM", threat=t), threats()),
        st.builds(lambda t, n, r: of("touchstone.attacks.PGD", threat=t, num_steps=n, random_start=r),
                  threats(), few, st.booleans()),
        st.builds(lambda t: of("touchstone.attacks.RandomNoise", threat=t), threats()),
    )  # fmt: skip


def callbacks() -> SearchStrategy[Config]:
    samples = st.sampled_from([None, 1, 7])
    return st.one_of(
        st.builds(
            lambda a, n, s: of("touchstone.callbacks.RobustAccuracy", attacks={"a": a}, num_images=n, max_samples=s),
            attacks(), st.integers(0, 2), st.sampled_from([1, 7]),
        ),
        st.builds(lambda n: of("touchstone.callbacks.GradientNorm", max_samples=n), samples),
        st.builds(lambda p: of("touchstone.callbacks.NotFinite", policy=p), st.sampled_from(["stop", "skip", "keep"])),
        st.builds(lambda s: of("touchstone.callbacks.Health", min_accuracy=s), st.sampled_from([0.0, 0.5, 1.0])),
    )  # fmt: skip


def strategies() -> SearchStrategy[Config | None]:
    inside = "touchstone.lightning_modules.adversarial_training."
    return st.one_of(
        st.none(),
        st.builds(lambda a: of(inside + "PGDAT", attack=a), attacks()),
        st.builds(lambda t: of(inside + "FGSMRS", threat=t), threats()),
        st.builds(lambda t, m: of(inside + "Free", threat=t, num_repeats=m), threats(), st.integers(1, 2)),
    )


def optimizers() -> SearchStrategy[Config]:
    names = st.sampled_from(["SGD", "Adam", "AdamW", "RMSprop"])
    return st.builds(
        lambda name, lr: of(f"torch.optim.{name}", lr=lr), names, st.sampled_from([0.0, 1e-3, 10.0, "1e-2"])
    )


def nets() -> SearchStrategy[Config]:
    few = st.integers(1, 5)
    return st.one_of(
        st.builds(lambda w, h: of("touchstone.nets.SmallCNN", width=w, hidden=h), few, few),
        st.just(of("touchstone.nets.MLP", shape=[1, 8, 8], num_classes=10)),
    )


@st.composite
def valid(draw: Any) -> Config:
    config = copy.deepcopy(TINY)
    trainer, model = config["trainer"], config["model"]["init_args"]
    found = draw(st.lists(callbacks(), max_size=2, unique_by=lambda c: c["class_path"]))
    trainer["callbacks"] = found
    trainer["accumulate_grad_batches"] = draw(st.integers(1, 2))
    trainer["gradient_clip_val"] = draw(st.sampled_from([None, 0.0, 0.5]))
    trainer["precision"] = draw(st.sampled_from(["32-true", "bf16-mixed"]))
    config["seed_everything"] = draw(st.integers(0, 2**32 - 1))
    model.update(net=draw(nets()), optimizer=draw(optimizers()), strategy=draw(strategies()))
    model["label_smoothing"] = draw(st.sampled_from([0.0, 0.1, 0.99]))
    config["data"]["init_args"] = {"batch_size": draw(st.sampled_from([1, 3, 64]))}
    return config


def places(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The ways to every value of a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*way, key)
        yield from places(child, (*way, key))


ODD = st.one_of(
    st.sampled_from(
        [None, True, False, -1, 0, 0.5, -0.5, 1e-30, float("nan"), float("inf"), "", " ", "abc", "null", "1e-3",
         "8/255",
         "touchstone", "touchstone.attacks", "touchstone.attacks.PGD", "torch.nn.ReLU", "os.getcwd", "a.b.c", ".", "..",
         [], [1], ["abc"], {}, {"a": 1}, {"class_path": "touchstone.nets.SmallCNN"}, {"class_path": None},
         {"init_args": {}}, "${a}", "\t", "\x1b[31m", "é\u202e", "!!python/object/apply:os.getcwd []"]
    ),
    st.text(max_size=8),
)  # fmt: skip


@st.composite
def damaged(draw: Any) -> Config:
    """The tiny config with one to three places changed, taken away, misspelt or added."""
    config = copy.deepcopy(TINY)
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(config))
        if not ways:
            break
        *way, key = draw(st.sampled_from(ways))
        owner = config
        for step in way:
            owner = owner[step]
        kind = draw(st.sampled_from(["change", "take away", "misspell", "add"]))
        if kind == "change":
            owner[key] = draw(ODD)
        elif kind == "take away":
            del owner[key]
        elif isinstance(owner, list):
            owner.append(draw(ODD))
        else:
            owner[f"{key}x" if kind == "misspell" else draw(st.text(max_size=5))] = (
                owner.pop(key) if kind == "misspell" else draw(ODD)
            )
    return config


def fitted(run: Any, config: Config | bytes) -> Any:
    shutil.rmtree("logs", ignore_errors=True)
    content = config if isinstance(config, bytes) else yaml.safe_dump(config, allow_unicode=True).encode()
    Path("drawn.yaml").write_bytes(content)
    return run("fit", "--config", "drawn.yaml", *OPTIONS)


def modulo_by_zero() -> str:
    """How this Python words it: 3.10 says more than later ones."""
    with pytest.raises(ZeroDivisionError) as error:
        1 % 0  # noqa: B018
    return str(error.value)


# What nothing can refuse before a training uses it, which ends a run with 1.
UNKNOWN_BEFORE = "could not find the monitored key in the returned metrics"  # modules log what they like, as they run
REFUSED_IN_USE = {
    "a step of no epochs": (
        {"lr_scheduler": of("torch.optim.lr_scheduler.StepLR", step_size=0)},
        f"error: ZeroDivisionError: {modulo_by_zero()}",  # torch divides by it after the first epoch
    ),
    "a period of no epochs": (
        {"lr_scheduler": of("torch.optim.lr_scheduler.CosineAnnealingLR", T_max=0)},
        f"error: ZeroDivisionError: {modulo_by_zero()}",  # likewise
    ),
}
REFUSED_LATE = {
    "a negative rate": ({"optimizer": of("torch.optim.SGD", lr=-0.5)}, "error: SGD: Invalid learning rate: -0.5"),
    "a beta above 1": (
        {"optimizer": of("torch.optim.AdamW", betas=[2.0, 0.1])},
        "error: AdamW: Invalid beta parameter",
    ),
    "a cycle of unknown length": (
        {"lr_scheduler": of("torch.optim.lr_scheduler.OneCycleLR", max_lr=0.1)},
        "error: OneCycleLR: You must define either total_steps OR (epochs AND steps_per_epoch)",
    ),
    "a negative warm-up": (
        {"lr_scheduler": of("touchstone.lightning_modules.WarmupCosine", warmup_steps=-1, num_steps=3)},
        "error: WarmupCosine(warmup_steps=...) must be >= 0, got -1",
    ),
    "no optimizer": ({"optimizer": None}, "model.optimizer must be Callable[[Iterable], Optimizer], got null"),
}


def check_in_words(ended: Any) -> None:
    assert ended.code in (0, 2) or (ended.code == 1 and UNKNOWN_BEFORE in ended.first_line), ended
    assert "Traceback" not in ended.err + ended.out
    if ended.code:
        assert ended.first_line.startswith("error: "), ended.err
        assert len(ended.err.splitlines()) <= 5, ended.err


@fuzzed(3, 200)
def test_a_valid_config_trains_a_step(num_cases: int, run: Any) -> None:
    def holds(config: Config) -> None:
        ended = fitted(run, config)
        assert ended.code == 0, (ended.err, json.dumps(config))

    for_each(valid(), num_cases, holds, shrinks=False)


@fuzzed(8, 500)
def test_a_damaged_config_gives_an_error_in_words(num_cases: int, run: Any) -> None:
    for_each(damaged(), num_cases, lambda config: check_in_words(fitted(run, config)), shrinks=False)


@pytest.mark.parametrize("case", REFUSED_LATE)
def test_a_value_that_is_refused_when_the_optimizer_is_made_is_a_usage_error(case: str, run: Any) -> None:
    values, problem = REFUSED_LATE[case]
    config = copy.deepcopy(TINY)
    config["model"]["init_args"].update(values)
    ended = fitted(run, config)
    check_in_words(ended)
    assert ended.code == 2
    assert problem in ended.first_line


@pytest.mark.parametrize("case", REFUSED_IN_USE)
def test_a_value_that_torch_refuses_in_use_ends_the_run_with_words(case: str, run: Any) -> None:
    values, problem = REFUSED_IN_USE[case]
    config = copy.deepcopy(TINY)
    config["model"]["init_args"].update(values)
    ended = fitted(run, config)
    assert (ended.code, ended.first_line) == (1, problem)
    assert len(ended.err.splitlines()) <= 5


def test_a_control_character_in_a_config_is_a_usage_error(run: Any) -> None:
    ended = fitted(run, b"model:\n  class_path: touch\x11stone.nets.MLP\n")
    check_in_words(ended)
    problem = "error: drawn.yaml: this is not YAML: unacceptable character #x0011: special characters are not allowed"
    assert (ended.code, ended.first_line) == (2, problem)


@st.composite
def damaged_bytes(draw: Any) -> bytes:
    content = bytearray(yaml.safe_dump(draw(st.sampled_from([TINY, {"trainer": LINF}]))).encode())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 5))] = draw(st.one_of(st.binary(max_size=4), st.sampled_from(
            [b"\t", b"&a", b"*a", b"<<: *a", b"!!python/name:os.system ", b"[", b"}", b"- ", b": ", b"\n\n", b"\xff"]
        )))  # fmt: skip
    return bytes(content)


@fuzzed(20, 300)
def test_a_config_of_damaged_bytes_gives_an_error_in_words(num_cases: int, run: Any) -> None:
    for_each(damaged_bytes(), num_cases, lambda content: check_in_words(fitted(run, content)), shrinks=False)
