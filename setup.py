"""What pyproject.toml cannot say: in the wheel, `touchstone.attacks` is the folder `attacks/`, and so on."""

from setuptools import find_namespace_packages, setup

FOLDERS = ("attacks", "callbacks", "datamodules", "lightning_modules", "nets")


def packages_of(folder: str) -> list[str]:
    """The folder and every folder below it, with or without an `__init__.py`."""
    return find_namespace_packages(include=[folder, f"{folder}.*"], exclude=["*__pycache__*"])


setup(
    packages=[
        *packages_of("touchstone"),
        *(f"touchstone.{package}" for folder in FOLDERS for package in packages_of(folder)),
    ],
    package_dir={f"touchstone.{folder}": folder for folder in FOLDERS},
)
