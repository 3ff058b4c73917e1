"""`RecurrentJacobian`: how far back a recurrent net can be taught: the norm of `dh_T / dh_{T-k}` over the lag k."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from touchstone.attacks import frozen_eval
from touchstone.attacks.core.buffers import buffers_kept
from touchstone.nets.recurrent import Recurrent
from touchstone.options import check_count, check_counts, check_positive
from touchstone.runs.run_folder import run_folder

from .parts.measures.lag_norms import lag_norms
from .parts.measures.recurrent_matrices import singular_values, vanishing_bound
from .parts.passes.averaged_weights import check_order
from .parts.passes.closer_look import CloserLook, is_measured
from .parts.passes.loaders import loader_suffix
from .parts.passes.real_steps import RealSteps, RecurrentCall
from .parts.records.publish import publish_picture, publish_text


class RecurrentJacobian(pl.Callback):
    """Measures, at validations, how a small change of the state is felt k steps later.

    For the last step T of the first sequences of a validation, the last that is no padding (`RealSteps`), and each lag
    k, it logs as `jacobian/S/lag_K` the operator norm of `dh_T / dh_{T-k}`, its geometric mean over the sequences (h is
    all of the state: of an LSTM, c as well); as `jacobian/S/singular_value` the largest singular value of the recurrent
    matrices, of several layers also each one's, `jacobian/S/singular_value/lN`; for an `RNN`, the value below which
    gradients must vanish, as `jacobian/S/vanishing_bound` (`vanishing_bound` in `parts/measures/recurrent_matrices.py`
    has the theorem); and as text a verdict: vanishing, stable or exploding.

    Several data loaders are measured one after another, with tags that end in `/dataloader_idx_N`. Of several
    processes, each with samples of its own, those of the first are measured.

    The norm is found by power iteration with vector-Jacobian products, in float64, and never needs the matrix. Where
    it is 0 for some sequences, as behind relu units that are dead, the mean is that of the others, and the verdict says
    how many there are. TensorBoard keeps figures in float32: norms beyond 1e-45 and 3e38 stand there as 0 and infinite,
    and in the verdict as they are.

    Args:
        layer: the name of the recurrent net in the module; None for the first one that is found.
        lags: the k to measure, each >= 1; each is measured on the sequences that are so long.
        num_sequences: how many sequences of each data loader to measure, >= 1: those of the first call in each batch,
            from as many batches as it takes.
        num_iterations: the most of the power iteration, >= 1; what has converged ends sooner.
        every_n_epochs: during `fit`, measure at the validations of every n-th epoch, >= 1.
        images_every_n_epochs: during `fit`, the picture at the first measured validation, at the first one of every n
            epochs, >= 1, and in the last epoch that is measured; at a validation or test by itself always.
        tolerance: a net is called stable if the norm changes by a factor between `1 / (1 + tolerance)` and
            `1 + tolerance` per step, > 0.

    Warns:
        UserWarning: in a measured pass, no call of the recurrent net was seen.

    Raises:
        ValueError: a value is outside its range, or there is no such recurrent net.
    """

    def __init__(
        self,
        *,
        layer: str | None = None,
        lags: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
        num_sequences: int = 8,
        num_iterations: int = 20,
        every_n_epochs: int = 1,
        images_every_n_epochs: int = 5,
        tolerance: float = 0.05,
    ) -> None:
        check_counts(self, num_sequences=num_sequences, num_iterations=num_iterations)
        check_counts(self, every_n_epochs=every_n_epochs, images_every_n_epochs=images_every_n_epochs)
        if not lags:
            raise ValueError("RecurrentJacobian(lags=...) must be numbers >= 1, at least one, got none")
        for lag in lags:
            check_count("RecurrentJacobian(lags=...)", lag)
        check_positive(self, tolerance=tolerance, or_infinite=True)
        self.layer, self.lags, self.tolerance = layer, sorted(set(lags)), tolerance
        self.num_sequences, self.num_iterations, self.every_n_epochs = num_sequences, num_iterations, every_n_epochs
        self.images_every_n_epochs = images_every_n_epochs
        self._closer_look, self._draws, self._has_warned = self._new_look(), False, False
        self._seen: dict[int, list[RecurrentCall]] = {}  # by data loader
        self._loader_index, self._is_first_call = 0, False
        self._real: RealSteps | None = None
        self._hook: Any = None

    def recurrent(self, module: nn.Module) -> Recurrent:
        """The recurrent net that is measured."""
        found = {name: part for name, part in module.named_modules() if isinstance(part, Recurrent)}
        if not found or self.layer is not None and self.layer not in found:
            raise ValueError(
                f"RecurrentJacobian(layer={self.layer!r}): the module has the recurrent nets {list(found) or 'none'}"
            )
        return found[self.layer or next(iter(found))]

    def verdict(self, norms: dict[int, float]) -> str:
        """What the norm at the longest lag says, in words."""
        lag = max(norms)
        norm = norms[lag]
        if math.isnan(norm):
            return f"unknown: the norm over {lag} steps is not a number, since weights or states are not finite"
        per_step = norm ** (1 / lag)
        stable = 1 / (1 + self.tolerance) <= per_step <= 1 + self.tolerance
        kind = "stable" if stable else "vanishing" if per_step < 1 else "exploding"
        size = f"{norm:.3g}" if 0 < norm < math.inf else "less than 1e-308" if norm < 1 else "more than 1e308"
        return f"{kind}: a change of the state is {size} times as large {lag} steps later"

    # The hooks.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            check_order(self, trainer)
        self._closer_look, self._has_warned = self._new_look(), False

    def _new_look(self) -> CloserLook:
        return CloserLook(self.images_every_n_epochs, self.every_n_epochs, "touchstone/recurrent_jacobian")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.recurrent(pl_module)  # refuses a wrong `layer` before the first epoch

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._let_go()  # an interrupted pass may have left something
        if is_measured(trainer, self.every_n_epochs):
            self._draws = self._closer_look.is_due(trainer)
            self._real = RealSteps(pl_module)
            self._hook = self.recurrent(pl_module).register_forward_pre_hook(self._see, with_kwargs=True)

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._loader_index = dataloader_idx
        self._is_first_call = True  # later ones may be of attacks on the same sequences

    on_test_batch_start = on_validation_batch_start

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._conclude(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._conclude(trainer, pl_module, "test")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._let_go()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._closer_look.save(checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._closer_look.load(checkpoint)

    def _see(self, net: Recurrent, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen = self._seen.setdefault(self._loader_index, [])
        num_missing = self.num_sequences - sum(len(call.x) for call in seen)
        if self._real is None or not self._is_first_call or not num_missing:
            return
        self._is_first_call = False
        call = RecurrentCall.read(net, args, kwargs)
        real = self._real.of(call.x)
        real = torch.ones(call.x.shape[:2], dtype=torch.bool, device=call.x.device) if real is None else real
        lengths = (real * torch.arange(1, real.shape[1] + 1, device=real.device)).amax(1)
        rows = lengths.nonzero()[:num_missing, 0]  # a text of padding alone has no last step
        if len(rows):
            seen.append(call.take(rows, lengths))

    def _let_go(self) -> dict[int, list[RecurrentCall]]:
        seen, self._seen = self._seen, {}
        if self._hook is not None and self._real is not None:
            self._hook.remove()
            self._real.let_go()
            self._hook = self._real = None
        return seen

    def _conclude(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        has_listened = self._hook is not None
        folder, of_loaders = run_folder(trainer), self._let_go()
        if not trainer.is_global_zero:
            return
        if has_listened and not any(of_loaders.values()) and not self._has_warned:
            self._has_warned = True
            rank_zero_warn(
                "RecurrentJacobian measures nothing: no call of the recurrent net was seen, with a step that is no "
                "padding; those of a net that torch.compile has worked on may be hidden"
            )
        for index, calls in of_loaders.items():
            if calls:
                self._measure(trainer, module, stage, folder, _joined(calls), loader_suffix(trainer, index))

    def _measure(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        stage: str,
        folder: Path | None,
        seen: RecurrentCall,
        suffix: str,
    ) -> None:
        net = self.recurrent(module)
        with buffers_kept(module), frozen_eval(module):
            x = seen.x.clone()  # outside of inference mode
            found = lag_norms(net, x, self.lags, self.num_iterations, state=seen.state, lengths=seen.lengths)
            of_layers, bound = singular_values(net), vanishing_bound(net)
        norms = {lag: _geometric_mean(values) for lag, values in found.items()}
        figures = {f"lag_{lag}": norm for lag, norm in norms.items()} | {"singular_value": max(of_layers)}
        if net.num_layers > 1:
            figures |= {f"singular_value/l{layer}": value for layer, value in enumerate(of_layers)}
        if bound is not None:
            figures["vanishing_bound"] = bound
        for name, value in figures.items():
            tag = f"jacobian/{stage}/{name}{suffix}"
            module.log(tag, value, rank_zero_only=True, add_dataloader_idx=False)
        if norms:
            at_longest = found[max(found)]
            num_zero = int((at_longest == 0).sum())
            of_others = f" (0 for {num_zero} of {len(at_longest)} sequences)" if 0 < num_zero < len(at_longest) else ""
            verdict = self.verdict(norms) + of_others
            publish_text(trainer, f"jacobian/{stage}/verdict{suffix}", verdict)
            if self._draws:
                publish_picture(trainer, folder, f"jacobian/{stage}{suffix}", _picture(norms, verdict))


def _joined(calls: Sequence[RecurrentCall]) -> RecurrentCall:
    """The sequences of several calls, with padding behind the shorter ones, as one call."""
    most_steps = max(call.x.shape[1] for call in calls)
    x = torch.cat([F.pad(call.x, (0, 0, 0, most_steps - call.x.shape[1])) for call in calls])
    lengths = torch.cat([call.lengths for call in calls if call.lengths is not None])
    given = next((call.state for call in calls if call.state is not None), None)
    if given is None:
        return RecurrentCall(x, None, lengths)
    parts = []
    for number, like in enumerate(_parts(given)):
        of_calls = [
            like.new_zeros(len(like), len(call.x), like.shape[2]) if call.state is None else _parts(call.state)[number]
            for call in calls
        ]
        parts.append(torch.cat(of_calls, 1))
    return RecurrentCall(x, parts[0] if isinstance(given, Tensor) else tuple(parts), lengths)


def _parts(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


def _geometric_mean(norms: Tensor) -> float:
    """Over those that are not 0; 0 where all of them are."""
    others = norms[norms != 0]
    return float(others.log().mean().exp()) if len(others) else 0.0


def _picture(norms: dict[int, float], title: str) -> Any:
    """The norm against the lag."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import AutoLocator, LogLocator, NullFormatter

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(list(norms), list(norms.values()), marker="o")
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set(xlabel="lag k, steps", ylabel="norm of the change k steps later", yscale="log", title=title)
    axes.title.set_fontsize(9)
    lowest, highest = axes.get_ylim()
    if highest < 1000 * lowest:  # few powers of ten, or none
        axes.yaxis.set_major_locator(AutoLocator() if highest < 10 * lowest else LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    return figure
