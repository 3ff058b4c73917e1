"""The wheel: complete, importable anywhere, and a good neighbour to a user's own folders."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from touchstone import FOLDERS


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints, with nothing in the environment that leads back to the clone."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names(requirements: list[str]) -> set[str]:
    """The normalized names of the projects in lines of requirements."""
    matches = (re.match(r"[\w.-]+", line) for line in requirements)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in matches if match}


def of_extras(root: Path) -> list[str]:
    """What the extras that a user may take require."""
    extras = r"^(?:imagenet|heic|text) = (\[.*\])"
    found = re.findall(extras, (root / "pyproject.toml").read_text(), flags=re.MULTILINE)
    return [line for extra in found for line in ast.literal_eval(extra)]


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the tree as it is, built in a copy: a build leaves files behind that the next one would pack."""
    work = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "logs")
    source = shutil.copytree(root, work / "source", ignore=ignored)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", work, source, cwd=work)
    return next(work.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of a fresh environment that holds the wheel, and borrows its dependencies from this one."""
    env = tmp_path_factory.mktemp("env")
    run(sys.executable, "-m", "venv", "--without-pip", env, cwd=env)
    site = next(env.glob("[Ll]ib*/**/site-packages"))
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel, cwd=env)
    borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    return site


def test_the_wheel_holds_every_module_and_nothing_else(root: Path, wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    own = {path.relative_to(root).as_posix() for path in (root / "touchstone").rglob("*.py")}
    modules = {path.relative_to(root).as_posix() for folder in FOLDERS for path in (root / folder).rglob("*.py")}
    assert packed == own | {f"touchstone/{module}" for module in modules} | {"touchstone/py.typed"}


ORDINARY_PROGRAM = """
import lightning.pytorch as pl, torch
from lightning.pytorch import Trainer as LightningTrainer
from callbacks import Greeting
from datamodules import Colours

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 3))
    def forward(self, x):
        return self.net(x)
    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)

class Trainer(LightningTrainer):  # quieter and shorter, for the test
    def __init__(self, callbacks, **options):
        super().__init__(callbacks=[*callbacks, Greeting()], accelerator="cpu", enable_progress_bar=False, **options)

model, data = Model(), Colours()
"""
COLOURS = """
import lightning.pytorch as pl, torch
from torch.utils.data import DataLoader, TensorDataset

class Colours(pl.LightningDataModule):
    def dataset(self, seed):
        y = torch.arange(60) % 3
        x = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) / 2
        x[torch.arange(60), y] += 0.5  # the brightest channel is the class
        mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])
        return TensorDataset((x - mean[:, None, None]) / std[:, None, None], y)
    def train_dataloader(self):
        return DataLoader(self.dataset(0), batch_size=6, shuffle=True)
    def val_dataloader(self):
        return DataLoader(self.dataset(1), batch_size=16)
"""
GREETING = "import lightning.pytorch as pl\n\nclass Greeting(pl.Callback):\n    pass\n"
IMPORTS = f"""
import sys
import {", ".join(FOLDERS)}
import {", ".join(f"touchstone.{folder}" for folder in FOLDERS)}
assert {" and ".join(f"{folder}.mine" for folder in FOLDERS)}
print(*(module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "touchstone" \
    and getattr(module, "__file__", None)), sep="\\n")
"""


@pytest.fixture(scope="module")
def code(root: Path) -> str:
    """The program of docs/own_program.md."""
    text = (root / "docs" / "own_program.md").read_text()
    (code,) = re.findall(r"<!-- test: own_program -->\n```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(code.splitlines()) <= 15
    return code


@pytest.fixture(scope="module")
def printed(site: Path, code: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What that program prints, on batches that are normalised, beside folders of the same names; imports come last."""
    place = tmp_path_factory.mktemp("program")
    own = {"callbacks": GREETING, "datamodules": COLOURS}
    for folder in FOLDERS:
        (place / folder).mkdir()
        (place / folder / "__init__.py").write_text(own.get(folder, "") + "mine = True\n")
    (place / "program.py").write_text(ORDINARY_PROGRAM + code + IMPORTS)
    python = next(path for path in site.parents if (path / "pyvenv.cfg").exists()) / "bin" / "python"
    return run(python, "program.py", cwd=place).splitlines()


def test_an_installed_wheel_is_imported_beside_a_users_own_folders(site: Path, printed: list[str]) -> None:
    files = [Path(line) for line in printed if line.endswith(".py")]
    assert len(files) > len(FOLDERS)
    assert {file for file in files if site not in file.parents} == set()


def test_the_callbacks_work_in_an_ordinary_program_with_folders_of_the_same_names(printed: list[str]) -> None:
    figures = ast.literal_eval(next(line for line in printed if line.startswith("{")))
    assert figures["val/clean_accuracy"] > 0.9
    assert figures["val/robust_accuracy/pgd"] <= figures["val/robust_accuracy/fgsm"] <= figures["val/clean_accuracy"]
    assert figures["val/robust_accuracy/worst_case"] > 0.5  # an eps of 8/255 in pixels: normalised, it would be 0.12


def test_every_package_that_the_code_imports_is_a_declared_dependency(root: Path) -> None:
    folders = ("touchstone", *FOLDERS)
    sources = [root / "train.py", *(path for folder in folders for path in (root / folder).rglob("*.py"))]
    imported = set()
    for node in (node for path in sources for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(str(node.module).split(".")[0])
    declared = names((root / "requirements.txt").read_text().splitlines())
    files = (file for name in declared for file in importlib.metadata.files(name) or ())
    provided = {file.parts[0].removesuffix(".py") for file in files}
    optional = {name.replace("-", "_") for name in names(of_extras(root))}
    assert optional
    assert imported - sys.stdlib_module_names - {"touchstone"} <= provided | optional


def test_every_dependency_has_a_tested_version_and_a_reason(root: Path, wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, flags=re.MULTILINE)
    declared = names((root / "requirements.txt").read_text().splitlines())
    assert names([line for line in required if "extra ==" not in line]) == declared
    pinned = names((root / "constraints.txt").read_text().splitlines())
    assert names([line for line in required if "benchmarks" not in line]) <= pinned
    reasons = re.findall(r"^\| `([^`]+)`", (root / "docs" / "dependencies.md").read_text(), flags=re.MULTILINE)
    assert names(required) == names(reasons)


def test_the_lowest_versions_that_are_tested_are_those_that_the_ranges_allow(root: Path) -> None:
    """`make test-oldest` installs them."""
    lines = (root / "requirements.txt").read_text().splitlines() + of_extras(root)
    ranges = [match for line in lines if (match := re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", line))]
    assert names([match[1] for match in ranges]) == names(lines)
    tested = re.findall(r"^([\w.-]+)==([\d.]+)$", (root / "constraints-oldest.txt").read_text(), flags=re.MULTILINE)
    assert dict(tested) == {match[1]: match[2] for match in ranges}
