"""Every config in configs/ is parsed, built, and run for a moment through the real entry."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import train

CONFIGS = sorted(path.name for path in (Path(__file__).parent.parent / "configs").glob("*.yaml"))
ADD_ONS = sorted(path.name for path in (Path(__file__).parent.parent / "configs/callbacks").glob("*.yaml"))
SHORT = [
    "--trainer.log_every_n_steps=1",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
]


@pytest.mark.parametrize("config", CONFIGS)
def test_config_fits_validates_tests_and_predicts(
    root: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(root / "configs" / config)
    assert train.main(["fit", "--config", path, *SHORT]) == 0
    checkpoint = str(next(tmp_path.rglob("last.ckpt")))
    for stage in ("validate", "test", "predict"):
        assert train.main([stage, "--config", path, "--ckpt_path", checkpoint]) == 0
    first = next(tmp_path.rglob("version_0"))
    names = {item.relative_to(first).as_posix() for item in first.rglob("*")}
    assert {"config.yaml", "report.json", "verdicts.npz", "checkpoints/best.ckpt", "figures/attack_pgd.png"} <= names


@pytest.mark.parametrize("add_on", ADD_ONS)
def test_add_on_is_appended_to_a_run(root: Path, add_on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [str(root / "configs/digits.yaml"), str(root / "configs/callbacks" / add_on)]
    assert train.main(["fit", "--config", configs[0], "--config", configs[1], *SHORT]) == 0
    saved = yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())
    assert len(saved["trainer"]["callbacks"]) > len(
        yaml.safe_load(Path(configs[0]).read_text())["trainer"]["callbacks"]
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_config_says_how_to_run_it(root: Path, config: str) -> None:
    assert f"configs/{config}" in (root / "configs" / config).read_text().split("seed_everything")[0]
