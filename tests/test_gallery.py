"""The page of pictures: whole in one file, and made by one command."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import train
from touchstone.attacks.dreaming.layers import responses_to
from touchstone.callbacks.parts.pictures.dream_picture import Dreamt, dream_picture
from touchstone.cli import gallery
from touchstone.cli.gallery_page import Picture, Section, page
from touchstone.cli.mistakes import UsageError
from touchstone.datamodules import PicturesDataModule
from touchstone.nets import EfficientNetLite0

from .picture_folders import needs_imagenet

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ALL_DRAWN = """<script>addEventListener("load", () => {
  const drawn = [...document.images].filter(image => image.complete && image.naturalWidth > 100);
  document.title = `drawn ${drawn.length} of ${document.images.length}, wide ${document.body.scrollWidth}`;
})</script>"""


def pictures_in(text: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


def loaded_from_elsewhere(text: str) -> list[str]:
    return [link for link in re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^">)]+)', text) if link[:5] not in ("data:",)]


def a_page(folder: Path) -> str:
    noise = np.random.default_rng(0).integers(0, 255, (400, 300, 3), dtype=np.uint8)
    Image.new("RGB", (200, 150), "red").save(folder / "plain.png")
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "a.csv").write_text("file,label\n/some/folder/x.jpg,<tabby & co>\n")
    pictures = [Picture(folder / f"{name}.png", f'the "{name}"') for name in ("plain", "noise")]
    sections = [Section("Tables", "Of <all>", "python train.py", pictures, [folder / "a.csv"]), Section("Two", "b")]
    return page("What it sees", sections)


def test_pictures_lie_inside_the_page_and_nothing_is_loaded(tmp_path: Path) -> None:
    text = a_page(tmp_path)
    plain, noise = pictures_in(text)
    assert (plain.format, plain.size) == ("PNG", (200, 150))
    assert (noise.format, noise.size) == ("JPEG", (300, 400))  # which is smaller for what is like a photograph
    assert loaded_from_elsewhere(text) == ["#0", "#1"]
    assert "<td>x.jpg</td><td>&lt;tabby &amp; co&gt;</td>" in text
    assert "some/folder" not in text
    assert 'alt="the &quot;noise&quot;"' in text


def in_chromium(file: Path, folder: Path) -> str:
    """The title of a page whose script has looked at its pictures."""
    copy = folder / "looked_at.html"
    copy.write_text(file.read_text().replace("</body>", f"{ALL_DRAWN}</body>"))
    quiet = [f"--disable-{what}" for what in ("gpu", "background-networking", "component-update", "sync")]
    run = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", *quiet, f"--user-data-dir={folder / 'profile'}",
         "--window-size=1200,900", "--virtual-time-budget=10000", "--dump-dom", str(copy)],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    return re.findall(r"<title>(.*?)</title>", run.stdout)[0]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_page_is_drawn_by_a_browser(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(a_page(tmp_path))
    assert in_chromium(tmp_path / "index.html", tmp_path).startswith("drawn 2 of 2")


@pytest.mark.slow
@needs_imagenet
@pytest.mark.timeout(1800)
def test_one_command_makes_the_gallery(here: Path) -> None:
    started = time.process_time()
    assert train.main(["gallery"]) == 0
    assert time.process_time() - started < 300  # of one thread: 5 minutes on a machine that does nothing else
    text = Path("figures/index.html").read_text()
    shown = pictures_in(text)
    assert len(shown) >= 16
    for picture in shown:  # text on white covers less than a tenth
        assert (np.asarray(picture.convert("RGB")) < 245).any(2).mean() > 0.15
    assert all(not link.startswith(("http", "/", "file")) for link in loaded_from_elsewhere(text))
    for words in ("palace", "tarantula", "tiger cat", "105-115", "49-147", "33-163"):
        assert words in text
    tags = {tag for run in Path("logs/gallery").iterdir() for tag in images_of(run)}
    assert {"predictions", "attack/inside_linf", "attack/least_visible", "deepdream/_fc:76"} <= tags
    assert {"standard_against_robust", "attack/pgd"} <= tags
    if CHROMIUM is not None:
        assert in_chromium(Path("figures/index.html"), here).startswith(f"drawn {len(shown)} of {len(shown)}")


@pytest.mark.slow
@needs_imagenet
@pytest.mark.timeout(600)
def test_a_dream_of_the_gallery_differs_from_its_start_by_more_than_noise(
    run: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise as large as its change moves the layer's response by much less, and what is drawn can be told apart."""
    drawn: list[tuple[Dreamt, np.ndarray]] = []

    def draw(dreamt: Dreamt) -> Any:
        figure = dream_picture(dreamt)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        drawn.append((dreamt, np.asarray(Image.open(buffer).convert("RGB")).astype(float)))
        return figure

    monkeypatch.setattr("touchstone.callbacks.deep_dream.dream_picture", draw)
    ended = run("predict", "--config", str(root / "configs/deep_dream.yaml"), "--num_threads", "1")
    assert ended.code == 0, ended.err
    assert len(drawn) == 7
    net = EfficientNetLite0().eval()
    for dreamt, pixels in drawn:
        change = dreamt.result - dreamt.start
        sizes = change.flatten(1).square().mean(1).sqrt().view(-1, 1, 1, 1)
        noisy = (dreamt.start + sizes * torch.randn(change.shape)).clamp(0, 1)
        with torch.no_grad(), responses_to(net, [dreamt.layer], "l2") as responses:
            by_noise = responses(noisy)[dreamt.layer] - dreamt.value_at_start
        by_dream = dreamt.value - dreamt.value_at_start
        print(f"{dreamt.layer}: {by_dream.tolist()}, by noise {by_noise.tolist()}, size {sizes.flatten().tolist()}")
        assert (by_dream > 2 * by_noise.abs()).all(), dreamt.layer
        assert (sizes > 0.05).all(), dreamt.layer
        half = len(pixels) // 2
        assert np.abs(pixels[half - 250 : half] - pixels[-250:]).mean() > 10, dreamt.layer


def images_of(run: Path) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return accumulator.Tags()["images"]


@pytest.mark.parametrize(
    ("arguments", "problem"), [(["nowhere"], "'nowhere'"), (["a", "b"], "or nothing"), (["--x"], "or")]
)
def test_what_it_is_given_must_be_there(run: Any, arguments: list[str], problem: str) -> None:
    ended = run("gallery", *arguments)
    assert ended.code == 2
    assert problem in ended.first_line


def test_pictures_none_of_which_can_be_read_are_refused_before_anything_runs(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(UsageError, match="gallery could not read .*a.jpg: it is no picture.*, nor the other 1"):
        gallery._pictures(str(tmp_path))


def test_of_a_folder_the_first_pictures_are_shown_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(11):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number:02d}.png")
    options = gallery._pictures(str(tmp_path))
    assert options == [f"--data.root={tmp_path}", "--data.max_pictures=8"]
    assert "has 11 pictures: the first 8 are shown" in capsys.readouterr().out
    data = PicturesDataModule(str(tmp_path), max_pictures=8)
    assert [file.name for file in data.files] == [f"{number:02d}.png" for number in range(8)]
    assert gallery._pictures(str(tmp_path / "03.png")) == [f"--data.root={tmp_path / '03.png'}"]


@pytest.mark.parametrize(
    ("file", "layer"),
    [("deepdream__fc_76", "_fc:76"), ("deepdream__blocks.10_5", "_blocks.10:5"), ("deepdream__blocks.2", "_blocks.2")],
)
def test_a_caption_names_the_layer_as_the_config_does(file: str, layer: str) -> None:
    assert gallery._dream_of(file).startswith(f"What {layer} responds to")


def test_every_exhibit_has_a_config_and_says_what_is_shown() -> None:
    for exhibit in gallery._exhibits():
        assert (gallery.CONFIGS / f"{exhibit.config}.yaml").is_file()
        assert exhibit.text.endswith(".")
