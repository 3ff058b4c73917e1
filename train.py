"""The entry: `python train.py` fits and tests `configs/digits.yaml`; with arguments it is a LightningCLI."""

from __future__ import annotations

import sys
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

from touchstone.callbacks import RunRecord


def main(args=None):
    default = not args
    cli = LightningCLI(
        save_config_callback=RunRecord,
        auto_configure_optimizers=False,
        args=args or ["fit", "--config", "configs/digits.yaml"],
    )
    if default:
        cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path="best")


if __name__ == "__main__":
    a = sys.argv[1:]
    sys.argv = sys.argv[:1]
    main(a)
