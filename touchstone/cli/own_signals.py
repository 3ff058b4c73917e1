"""`OwnSignals`: SIGTERM stays with whoever handled it before Lightning did."""

from __future__ import annotations

import signal
import threading

import lightning.pytorch as pl


class OwnSignals(pl.Callback):
    """Takes back the handler of SIGTERM, which Lightning replaces when a job starts.

    Under DDP, Lightning's handler waits inside a collective that the other processes may never enter.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)

    on_validation_start = on_test_start = on_predict_start = on_train_start
