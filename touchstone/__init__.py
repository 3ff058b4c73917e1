"""The import name: `touchstone.attacks` is the folder `attacks/` beside this one, in a clone and in a wheel."""

from pathlib import Path

__version__ = "0.1.0"
FOLDERS = ("attacks", "callbacks", "datamodules", "lightning_modules", "nets")
_root = Path(__file__).resolve().parent.parent
if (_root / "attacks" / "core").is_dir() and (_root / "train.py").is_file():  # a clone, not a wheel
    __path__.append(str(_root))
