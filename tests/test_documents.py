"""What the README shows is what happens: its files are written as a user would, and its commands run."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from touchstone.attacks import PGD, HotFlip, L1Adam, Linf, Surprise, TokenFlips
from touchstone.callbacks import (
    AttentionMaps,
    AugmentationGallery,
    CatastrophicOverfitting,
    DeepDream,
    FindLearningRate,
    Health,
    InputGradients,
    LeastVisible,
    NamedPredictions,
    PerClass,
    RecurrentJacobian,
    RobustAccuracy,
    RobustLanguage,
    RobustnessCurves,
    Saturation,
    StandardAgainstRobust,
    TargetedPictures,
)
from touchstone.datamodules import PicturesDataModule, TextDataModule
from touchstone.datamodules.augmentations import RandomFlip
from touchstone.lightning_modules import LanguageModel
from touchstone.nets import RecurrentLM, TransformerLM

from .command_lines import NARROW, SHORT, after_two_steps
from .lightning_programs import Still, seen_tags, train_loader, trainer, val_loader
from .oracles import small_net
from .picture_folders import RED, Classes
from .shown_files import DOCUMENTS, blocks

HINT = re.compile(r"pip install (--[^']*'[^']*'|\S+)")
ROOT = Path(__file__).parents[1]


def test_what_is_missing_is_installed_by_the_same_words_everywhere() -> None:
    folders = ("attacks", "benchmarks", "callbacks", "configs", "datamodules", "docs", "lightning_modules", "nets")
    files = [ROOT / name for name in ("README.md", "requirements.txt", "train.py")]
    for folder in (*folders, "touchstone"):
        files += [file for file in (ROOT / folder).rglob("*") if file.suffix in (".md", ".py", ".yaml")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    begun = [(text[match.start() - 10 : match.start()], match[0]) for text in texts for match in HINT.finditer(text)]
    assert {before for before, _ in begun} == {"python -m "}
    of_extra = {hint for _, hint in begun if "[" in hint}
    assert of_extra == {"pip install --constraint constraints.txt --editable '.[imagenet]'"}


FEW_STEPS = {"num_steps": 2}


@pytest.fixture
def readme(root: Path) -> dict[str, str]:
    return blocks(root / "README.md")


def test_a_model_of_ones_own_is_attacked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(folder / "attack_my_model.py"))
    assert re.search(r"clean \d+\.\d%, worst case 0\.0%", capsys.readouterr().out)


@after_two_steps
def test_an_attack_is_added_in_under_20_lines_and_one_entry(folder: Path, readme: dict[str, str]) -> None:
    import train

    code = [line for line in readme["blend.py"].splitlines() if line.strip()]
    assert len(code) < 20
    assert readme["blend.yaml"].count("class_path: blend.") == 1
    arguments = shlex.split(readme["command"])
    assert arguments[:2] == ["python", "train.py"]
    assert train.main([*arguments[2:], NARROW, "--trainer.max_epochs=1"]) == 0
    verdicts = np.load(next(folder.rglob("verdicts.npz")))
    assert {"robust_blend", "robust_pgd"} <= set(verdicts)
    clean = verdicts["clean_prediction"] == verdicts["label"]
    assert verdicts["robust_blend"].sum() < clean.sum()


@after_two_steps
def test_a_measurement_is_added_in_one_method(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import train

    probe = "--trainer.callbacks+=confidence.Confidence"
    assert train.main(["fit", "--config", "configs/digits.yaml", NARROW, *SHORT, probe]) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(folder.rglob("version_0"))))
    events.Reload()
    value = events.Scalars("val/confidence")[0].value
    assert 0.1 < value <= 1
    assert f"\nval/confidence: {value:.4g}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_the_curves_of_two_runs_are_drawn_by_two_commands(root: Path, folder: Path) -> None:
    import train

    for name in ("digits", "digits_robust"):
        assert train.main(["fit", "--config", f"configs/{name}.yaml", "--trainer.max_epochs=1"]) == 0
    commands = [shlex.split(line) for line in blocks(root / "docs/curves.md")["curves"].splitlines()]
    assert len(commands) == 2
    for command in commands:
        assert command[:2] == ["python", "train.py"]
        assert train.main(command[2:]) == 0
    last = folder / "logs/digits_robust/curves"
    found = json.loads((last / "curves.json").read_text())
    assert found["run"] == "digits_robust/curves"
    assert sorted(found["accuracy_at_eps"], reverse=True) == found["accuracy_at_eps"]
    assert (last / "figures/curves.png").stat().st_size > 10_000


def test_every_command_and_file_that_a_document_names_exists(root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), flags=re.MULTILINE))
    for document in (path for pattern in DOCUMENTS for path in root.glob(pattern)):
        text = document.read_text()
        commands = re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", text, flags=re.MULTILINE)
        assert {first or second for first, second in commands} <= targets, document.name
        for config in re.findall(r"configs/(?!NAME)[\w/]+\.yaml", text):
            assert (root / config).is_file(), f"{document.name}: {config}"
        for script in re.findall(r"python ((?:benchmarks/)?\w+\.py)", text):
            assert (root / script).is_file(), f"{document.name}: {script}"
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def train_commands(root: Path) -> dict[str, str]:
    """Every `python train.py SUBCOMMAND ...` of the documents that is whole and asks no shell, with where it stands."""
    found = {}
    for document in sorted(path for pattern in DOCUMENTS for path in root.glob(pattern)):
        text = document.read_text().replace("\\\n", " ")
        for command in re.findall(r"python train\.py ((?:fit|validate|test|predict) [^`\n]*)", text):
            if "..." not in command and "--help" not in command and "$" not in command:
                found.setdefault(command.strip(), document.name)
    return found


def test_every_command_of_the_documents_is_understood(
    root: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import train

    monkeypatch.setenv("COLUMNS", "200")
    commands = train_commands(root)
    assert len(commands) >= 10
    for command, document in commands.items():
        if any(other.startswith(f"{command} ") for other in commands):  # it is understood with what goes on from it
            continue
        asks_for_help = ".help" in command
        arguments = [*shlex.split(command), *(() if asks_for_help else ("--print_config",))]
        assert train.main(arguments) == 0, (document, command, capsys.readouterr().err)
        assert ("Help for" if asks_for_help else "class_path") in capsys.readouterr().out, (document, command)


def unnamed_fragments(root: Path) -> dict[str, str]:
    """The Python blocks of the documents that no test names: they use `model`, `x`, `y` and torch."""
    found = {}
    for document in (path for pattern in DOCUMENTS for path in root.glob(pattern)):
        text = re.sub(r"<!-- test: .*?```\w+\n.*?```", "", document.read_text(), flags=re.DOTALL)
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)):
            found[f"{document.name}, block {number + 1}"] = code
    return found


def test_every_fragment_of_the_documents_runs(root: Path) -> None:
    fragments = unnamed_fragments(root)
    assert fragments
    for place, code in fragments.items():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
        x = torch.rand(4, 3, 32, 32)
        names: dict[str, Any] = {"torch": torch, "model": model, "x": x, "y": model(x).argmax(1)}
        exec(compile(f"from touchstone.attacks import *\n{code}", place, "exec"), names)


OF_LIGHTNING = r"epoch|hp_metric|lr-.*|custom_scalars__config__|_hparams_/.*"


def documented_tags(root: Path, table: int) -> list[str]:
    """The tags in a table of docs/tensorboard.md, as patterns; those of both stages, once for each."""
    text = (root / "docs/tensorboard.md").read_text().split("| Tag | Is | From |")[1:][table]
    rows = re.findall(r"^\| (`.*?) \|", text.split("\n\n")[0], flags=re.MULTILINE)
    tags = [tag for row in rows for tag in re.findall(r"`([^`]+)`", row)]
    both = [re.sub(r"\bS\b", stage, tag) for tag in tags for stage in ("val", "test")]
    named = [re.sub(r"\b(?:A|LAYER|NAME|NET|KIND)(_before)?\b", r"[\\w.-]+\1", tag) for tag in dict.fromkeys(both)]
    return [re.sub(r"(?<=_)(?:K|E|LEVEL)\b|(?<=l)N\b", r"[\\d.]+", tag) for tag in named]


def check_tags(documented: list[str], seen: set[str], *, elsewhere: Sequence[str] = ()) -> None:
    """Holds that a run has every tag of a table, and none beside but those that stand in other tables."""
    assert len(documented) > 15
    assert not [tag for tag in documented if not any(re.fullmatch(tag, other) for other in seen)]
    known = (*documented, *elsewhere, OF_LIGHTNING)
    assert not [tag for tag in seen if not any(re.fullmatch(pattern, tag) for pattern in known)]


@after_two_steps
def test_the_tags_of_the_document_are_the_tags_of_a_run(root: Path, folder: Path) -> None:
    import train

    config = ["--config", "configs/digits.yaml", NARROW]
    assert train.main(["fit", *config, *SHORT]) == 0
    config += ["--trainer.limit_test_batches=1"]
    assert train.main(["test", *config, "--ckpt_path", str(next(folder.rglob("last.ckpt")))]) == 0
    check_tags(documented_tags(root, 0), seen_tags(folder))


def test_the_tags_of_texts_are_those_of_their_runs(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("".join(f"{number} is one more than {number - 1}. " for number in range(300)), encoding="utf-8")
    recurrent = RecurrentLM(256, cell="rnn", dim=8, hidden=8, num_layers=2)
    transformer = TransformerLM(256, dim=8, num_heads=2, num_layers=1, context=16)
    attack = HotFlip(threat=TokenFlips(2, vocab_size=256), objective=Surprise(), num_candidates=2)
    attacked = RobustLanguage({"flips": attack}, max_samples=2)
    for net, callbacks in (
        (recurrent, [attacked, RecurrentJacobian(), Saturation()]),
        (transformer, [AttentionMaps()]),
    ):
        data = TextDataModule(files=[str(path)], tokens="bytes", context=16, batch_size=8, token_folder=str(tmp_path))
        run = trainer(tmp_path, *callbacks, Health(), num_sanity_val_steps=0, max_epochs=1, limit_train_batches=2)
        module = LanguageModel(net)
        run.fit(module, datamodule=data)
        run.test(module, datamodule=data, verbose=False)
    check_tags(documented_tags(root, 1), seen_tags(tmp_path))


class Silent(Still):
    """Logs nothing itself, and stays right on all samples, which an attack then takes below any level."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        pass

    test_step = validation_step


def test_the_tags_of_other_callbacks_are_those_of_their_runs(root: Path, tmp_path: Path) -> None:
    linf, small = Linf(eps=0.1), small_net(seed=5)
    ascent = PGD(threat=linf, num_steps=2)
    run = trainer(
        tmp_path,
        RobustAccuracy({"pgd": ascent}, per_class=True, num_images=0),
        PerClass(),
        CatastrophicOverfitting(linf, num_steps=2),
        RobustnessCurves(attack=ascent, eps=[0.01, 1.0], steps=[2], levels=[0.1]),
        StandardAgainstRobust(
            {"other": small}, attack=ascent, target=2, layers={"standard": "net.0", "other": "0"}, options=FEW_STEPS
        ),
        DeepDream(["net.0"], options=FEW_STEPS),
        DeepDream(["net.0"], options=FEW_STEPS, name="again"),
        InputGradients(),
        AugmentationGallery({"flip": RandomFlip()}),
        max_epochs=1,
    )
    run.fit(Silent(), train_loader(), val_loader())
    run.test(Silent(), val_loader(), verbose=False)
    trainer(tmp_path, FindLearningRate(num_training_steps=13)).fit(Silent(), train_loader(), val_loader())
    Image.new("RGB", (16, 16), RED).save(tmp_path / "red.png")
    pictures = PicturesDataModule(str(tmp_path), image_size=16, resize=16, class_names=["red", "green", "blue"])
    trainer(
        tmp_path,
        NamedPredictions(top_k=2),
        TargetedPictures("green", attacks={"pgd": ascent}),
        LeastVisible(["green"], attack=L1Adam(threat=Linf(eps=1), num_steps=2, penalty=0.1), num_rounds=1),
    ).predict(Classes(), pictures)
    check_tags(
        documented_tags(root, 2), seen_tags(tmp_path), elsewhere=[*documented_tags(root, 0), *documented_tags(root, 1)]
    )
