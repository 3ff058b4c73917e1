"""The rules of the house: who imports whom, under which name, and what lies in the repository."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BELOW_ALL = {"float64", "options", "own_class"}
"""Files in `touchstone/` that every folder may import, and that import none."""
MAY_IMPORT: dict[str, set[str]] = {
    "attacks": set(),
    "nets": set(),
    "callbacks": {"attacks", "nets", "runs"},
    "lightning_modules": {"attacks", "nets", "runs"},
    "datamodules": {"attacks", "nets", "runs"},
}
LIGHTNING = {"lightning", "lightning_fabric", "lightning_utilities", "pytorch_lightning"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """`attacks/core/threat.py` is `touchstone.attacks.core.threat`, `attacks/__init__.py` is `touchstone.attacks`."""
    parts = path.with_suffix("").parts
    return ".".join(("touchstone", *(part for part in parts if part not in ("__init__", "touchstone"))))


MODULES = [module_name(path) for path in python_files("touchstone", *MAY_IMPORT)]


def imports(source: str, path: Path) -> Iterator[tuple[str, bool]]:
    """The dotted name of everything that a file imports anywhere in it, and whether it is written relatively."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.parts if path.parts[0] == "touchstone" else ("touchstone", *path.parts)
            start = package[: -node.level] if node.level else ()
            module = ".".join((*start, *filter(None, [node.module])))
            yield from ((f"{module}.{alias.name}", bool(node.level)) for alias in node.names)


def violations(source: str, path: Path) -> list[str]:
    """What a file's imports do that they may not."""
    folder, found = path.parts[0], []
    for name, relative in imports(source, path):
        first, second = (*name.split("."), "")[:2]
        if first in MAY_IMPORT or first == "train" and folder != "tests":
            found.append(f"imports {name} under a second name: it is touchstone.{name}")
        inside = second == folder if folder in MAY_IMPORT else second not in MAY_IMPORT
        if folder in MAY_IMPORT | {"touchstone": set()} and relative != (first == "touchstone" and inside):
            found.append(f"imports {name}: relative inside {folder}, touchstone.X across folders")
        place = path.with_suffix("").parts[1]
        if folder == first == "touchstone" and place in BELOW_ALL | {"runs"} and second not in BELOW_ALL | {"runs"}:
            found.append(f"imports {name}: {place} may import no other folder")
        if folder not in MAY_IMPORT:
            continue
        if first == "touchstone" and second not in {folder, "__version__"} | BELOW_ALL | MAY_IMPORT[folder]:
            found.append(f"imports {name}: {folder} may import {sorted(MAY_IMPORT[folder]) or 'no other folder'}")
        elif first in LIGHTNING and folder in ("attacks", "nets"):
            found.append(f"imports {name}: {folder} is pure torch")
    return [f"{path} {what}" for what in found]


@pytest.mark.parametrize("folder", ["touchstone", "tests", "benchmarks", *MAY_IMPORT])
def test_imports_run_downwards_only(folder: str) -> None:
    found = [line for path in python_files(folder) for line in violations((ROOT / path).read_text(), path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("attacks/a.py", "import lightning.pytorch as pl"),
        ("attacks/a.py", "def f():\n    from touchstone.nets import SmallCNN"),
        ("attacks/core/a.py", "from ...callbacks import Probe"),
        ("attacks/core/a.py", "from touchstone.attacks import PGD"),
        ("callbacks/a.py", "from touchstone.datamodules.digits import DigitsDataModule"),
        ("callbacks/a.py", "from touchstone import datamodules"),
        ("datamodules/a.py", "import callbacks.probe"),
        ("callbacks/a.py", "from touchstone.cli import main"),
        ("nets/a.py", "from train import main"),
        ("touchstone/runs/a.py", "from touchstone.callbacks import Probe"),
        ("touchstone/runs/a.py", "from ..cli.mistakes import UsageError"),
        ("touchstone/own_class.py", "from .cli.mistakes import UsageError"),
        ("nets/a.py", "from touchstone.runs.durable import damage"),
        ("touchstone/cli/a.py", "from ...attacks import PGD"),
        ("touchstone/cli/a.py", "from touchstone.cli.b import c"),
        ("tests/a.py", "from attacks import PGD"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str) -> None:
    assert violations(source, Path(path))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("attacks/a.py", "import torch\nfrom .core.attack import Attack"),
        ("attacks/core/a.py", "from ..objectives import untargeted\nfrom . import checks"),
        ("callbacks/a.py", "import lightning.pytorch as pl\nfrom touchstone.attacks import PGD"),
        ("callbacks/a.py", "from touchstone import __version__, attacks"),
        ("nets/a.py", "from touchstone.own_class import put_before"),
        ("callbacks/a.py", "from touchstone.runs.run_folder import run_folder"),
        ("touchstone/runs/a.py", "import lightning.pytorch as pl\nfrom .durable import damage"),
        ("touchstone/cli/a.py", "from touchstone.callbacks import RunRecord\nfrom .b import c\nfrom .. import d"),
        ("tests/attacks/a.py", "from touchstone.attacks import PGD\nfrom .oracles import images"),
    ],
)
def test_an_allowed_import_is_not_found(path: str, source: str) -> None:
    assert violations(source, Path(path)) == []


def python(code: str, *args: str) -> str:
    """What a fresh Python prints that runs `code` in the project's folder."""
    run = subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def loaded() -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Names and files of what a process has loaded, once for the lower floors alone, and then with all the others."""
    code = """
import importlib, json, sys
for part in sys.argv[1:]:
    for name in part.split():
        importlib.import_module(name)
    print(json.dumps({name: getattr(module, "__file__", None) for name, module in sys.modules.items()}))
"""
    lower = [name for name in MODULES if name.startswith(("touchstone.attacks", "touchstone.nets"))]
    first, second = python(code, " ".join(lower), " ".join([*MODULES, "train"])).splitlines()[-2:]
    return json.loads(first), json.loads(second)


def test_no_module_is_loaded_under_two_names(loaded: Any) -> None:
    names: dict[Path, list[str]] = {}
    for name, file in loaded[1].items():
        if file and Path(file).is_file() and "site-packages" not in file and ROOT in Path(file).resolve().parents:
            names.setdefault(Path(file).resolve(), []).append(name)
    expected = {ROOT / path: [module_name(path)] for path in python_files("touchstone", *MAY_IMPORT)}
    assert names == expected | {ROOT / "train.py": ["train"]}


def test_attacks_and_nets_load_without_lightning(loaded: Any) -> None:
    assert "touchstone.attacks" in loaded[0]
    assert LIGHTNING.isdisjoint(loaded[0])


def test_every_public_method_has_a_docstring_of_its_own_or_of_what_it_overrides() -> None:
    bare = []
    for name in MODULES:
        module = importlib.import_module(name)
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == name and not cls.__name__.startswith("_"):
                members = {key: value for key, value in vars(cls).items() if not key.startswith("_")}
                bare += [
                    f"{name}.{cls.__name__}.{key}"
                    for key, value in members.items()
                    if (inspect.isfunction(value) or isinstance(value, property)) and not inspect.getdoc(value)
                ]
    assert not bare, "\n".join(bare)


@pytest.fixture(scope="module")
def repository() -> list[Path]:
    """Every file that git has or would take."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_file_is_larger_than_a_megabyte(repository: list[Path]) -> None:
    assert [path for path in repository if path.stat().st_size > 1_000_000] == []


def test_no_file_names_a_place_on_some_machine_or_a_package_index(repository: list[Path]) -> None:
    place = re.compile(r"""(?:^|[\s"'`=:(])/(?:home|root|Users|opt|work)/\w|file:/{2}|(?:find-link|index-ur)[ls]\b""")
    found = []
    for path in repository:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        lines = enumerate(text.splitlines(), start=1)
        found += [f"{path.relative_to(ROOT)}:{number} {line.strip()}" for number, line in lines if place.search(line)]
    assert not found, "\n".join(found)


def test_fields_are_keywords_one_by_one() -> None:
    """Python 3.10 cannot evaluate the annotation `_: KW_ONLY` where annotations are postponed, and so no other."""
    found = [str(path) for path in python_files(*MAY_IMPORT) if "KW_ONLY" in (ROOT / path).read_text()]
    assert not found
