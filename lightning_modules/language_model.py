"""`LanguageModel`: trains any net that says what token follows, and shows what it would write."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from touchstone.nets.generate import LogitsNotFinite, Sampling, generate
from touchstone.nets.parts.evaluating import evaluating
from touchstone.nets.recurrent import detach_state
from touchstone.options import check_counts, check_flags, check_kind
from touchstone.runs.of_trainer import of_data
from touchstone.runs.run_folder import run_folder

from .every_sample_once import EverySampleOnce
from .parts.full_mean import FullMean
from .parts.samples import encoded_prompt, lacking, publish_sample
from .parts.untrained_positions import say_untrained_positions
from .parts.with_schedule import with_schedule

Batch = tuple[Tensor, Tensor]
LEFT_OUT = -100  # a target that torch's cross-entropy passes over, such as that of padding


class LanguageModel(pl.LightningModule):
    """Minimises the cross-entropy of the next token.

    Logs `train/loss`, and for S val and test `S/loss` (nats per token), `S/perplexity`, and, where the `vocabulary` of
    the data module has `num_characters` of each token, or the data module itself `characters_per_token`,
    `S/bits_per_character`; each over every token of the epoch, but those whose target is -100, as torch's cross-entropy
    has it for padding. At each validation, where there is such a `vocabulary`, it continues `prompt`, shown as the text
    `val/sample` and kept in `samples.txt` of the run folder.

    Args:
        net: token ids, int64 `(B, T)`, to logits `(B, T, V)`; for samples and to carry a state with `extend` and
            `context` as in `nets/language.py`.
        optimizer: makes the optimizer from groups of parameters: matrices, and all others, without weight decay.
        lr_scheduler: makes the scheduler from the optimizer, stepped after every optimizer step; None for none. One
            that waits for a figure, `lightning.pytorch.cli.ReduceLROnPlateau` with `monitor: val/loss`, steps after
            every epoch.
        carry_state: whether each batch begins with the state that the batch before it ended with, its gradient cut
            off there (truncated back-propagation through time); for recurrent nets, and where the rows of a batch
            continue those of the one before it, as those of `TextDataModule(order="streams")` do.
        prompt: text that samples continue; None for a line break, or the first token where there is none.
        sample_tokens: tokens to add to it at each validation; 0 for no samples.
        sampling: how they are drawn.

    Raises:
        ValueError: a value is outside its range, the net cannot write samples, it has another vocabulary than the data,
            or a state is to be carried that the net or the data do not go on with.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        *,
        carry_state: bool = False,
        prompt: str | None = None,
        sample_tokens: int = 200,
        sampling: Sampling = Sampling(temperature=0.8),  # noqa: B008  # frozen
    ) -> None:
        super().__init__()
        check_kind("LanguageModel(net=...)", net, nn.Module)
        check_flags(self, carry_state=carry_state)
        check_counts(self, sample_tokens=sample_tokens, least=0)
        if not callable(optimizer):
            raise ValueError(f"LanguageModel(optimizer=...) must be a function of parameters, got {optimizer!r}")
        context = getattr(net, "context", None)
        if carry_state and context is not None:
            raise ValueError(
                "LanguageModel(carry_state=True): the net must carry a state of one size, as RecurrentLM does; "
                f"{type(net).__name__} carries the keys and values of a context of {context} tokens"
            )
        _check_goes_on(net, sample_tokens=sample_tokens, carry_state=carry_state)
        self.net = net
        self.make_optimizer, self.make_scheduler = optimizer, lr_scheduler
        self.carry_state, self.prompt, self.sample_tokens, self.sampling = carry_state, prompt, sample_tokens, sampling
        self.losses = nn.ModuleDict({f"of_{stage}": FullMean() for stage in ("train", "val", "test")})
        self.characters = FullMean()  # of a token, in a validation or test
        self._carried: dict[str, tuple[Any, int]] = {}  # by stage: the state of the last batch, and its rows
        self._every_text_once = EverySampleOnce(None)
        self._has_warned = self._has_said_none = False

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids, int64 `(B, T)`, to logits `(B, T, V)`."""
        return self.net(tokens)

    def setup(self, stage: str) -> None:
        order = of_data(self._trainer, "order", "streams")
        if self.carry_state and order != "streams" and stage != "predict":
            raise ValueError(
                "LanguageModel(carry_state=True): the rows of a batch must continue those of the one before it, which "
                f"is TextDataModule(order='streams'), got order={order!r}"
            )

    def on_fit_start(self) -> None:
        # A fit or a pass before it may have broken off, or left tensors of inference mode, which nothing outside it may
        # change.
        for metric in (*self.losses.values(), self.characters):
            metric.reset()  # type: ignore[operator]
        self._check_vocabulary()
        window = of_data(self._trainer, "context")
        if self._writes_samples():
            num_read = encoded_prompt(self._vocabulary(), self.prompt).shape[1] + self.sample_tokens - 1
            say_untrained_positions(self.net, window=window, num_read=num_read)

    def on_validation_start(self) -> None:
        self._check_vocabulary()
        if self.sample_tokens and not self._writes_samples() and not self._has_said_none:
            self._has_said_none = True
            vocabulary = self._vocabulary()
            names = " and ".join(lacking(vocabulary, self.prompt))
            lacks = f"; here it lacks {names}" if vocabulary is not None else ""
            rank_zero_warn(
                "LanguageModel writes no samples, which need a data module whose `vocabulary` turns texts into tokens "
                f"and back, as that of TextDataModule does{lacks}; where none are wanted, "
                "LanguageModel(sample_tokens=0)"
            )

    def on_test_start(self) -> None:
        self._check_vocabulary()

    on_predict_start = on_test_start

    def _check_vocabulary(self) -> None:
        """By now the data module has the vocabulary that it will have, that of a checkpoint where there is one."""
        vocabulary = self._vocabulary()
        num_logits = getattr(self.net, "vocab_size", None)
        if vocabulary is None:
            return
        if num_logits is not None and num_logits != len(vocabulary):
            raise ValueError(
                f"the net has {num_logits} tokens and the text {len(vocabulary)}: set vocab_size={len(vocabulary)}"
            )
        if self._writes_samples() and self.prompt is not None:
            encoded_prompt(vocabulary, self.prompt)

    # Steps.

    def on_train_epoch_start(self) -> None:
        self._carried.pop("train", None)

    def on_validation_epoch_start(self) -> None:
        stage = "test" if self.trainer.testing else "val"
        self._carried.pop(stage, None)
        combined = self.trainer._evaluation_loop._combined_loader
        assert combined is not None
        self._every_text_once = EverySampleOnce(combined.flattened[0])
        self._metric(stage).reset()
        self.characters.reset()

    on_test_epoch_start = on_validation_epoch_start

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """The probabilities of the token after each window, `(B, V)`."""
        logits = self(batch[0] if isinstance(batch, (tuple, list)) else batch)[:, -1]
        return logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))

    def on_validation_epoch_end(self) -> None:
        self._log_figures("val")
        if not self._writes_samples() or self.trainer.sanity_checking:
            return
        folder = run_folder(self.trainer)  # a collective: every process asks
        if self.trainer.is_global_zero:
            try:
                publish_sample(self.trainer, folder, self.sample())
            except LogitsNotFinite as error:  # what it means for the training is for others to say
                if not self._has_warned:
                    rank_zero_warn(f"LanguageModel writes no sample while this is so: {error}")
                self._has_warned = True

    def on_test_epoch_end(self) -> None:
        self._log_figures("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": [p for p in trained if p.ndim >= 2]}]
        if others := [p for p in trained if p.ndim < 2]:
            groups.append({"params": others, "weight_decay": 0.0})
        optimizer = self.make_optimizer(groups)
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        return with_schedule(optimizer, scheduler, "epoch" if isinstance(scheduler, ReduceLROnPlateau) else "step")

    def sample(self, prompt: str | None = None, num_tokens: int | None = None, *, seed: int = 0) -> str:
        """A text of the net's own: the prompt and its continuation, the same for the same weights and seed.

        Args:
            prompt: None for the module's.
            num_tokens: how many to add; None for `sample_tokens`.
            seed: of the draws; the random state of the run is left alone.

        Raises:
            ValueError: the prompt has a character that the vocabulary lacks, or the logits are not finite.
        """
        vocabulary = self._vocabulary()
        if vocabulary is None:
            raise ValueError("LanguageModel.sample needs a data module with a `vocabulary`, as TextDataModule has")
        tokens = encoded_prompt(vocabulary, self.prompt if prompt is None else prompt).to(self.device)
        generator = torch.Generator(self.device).manual_seed(seed)
        added = self.sample_tokens if num_tokens is None else num_tokens
        with evaluating(self.net):
            ids = generate(self.net, tokens, added, self.sampling, generator=generator)  # type: ignore[arg-type]
        return vocabulary.decode(ids[0].tolist())

    def _step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch
        if self.carry_state:
            # The last batch of an epoch of other rows, of another number perhaps, follows none.
            state, num_rows = self._carried.get(stage, (None, 0))
            logits, after = self.net.extend(x, state if num_rows == len(x) else None)  # type: ignore[operator]
            self._carried[stage] = detach_state(after), len(x)
        else:
            logits = self(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        num_counted = (y != LEFT_OUT).sum()
        total = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=LEFT_OUT, reduction="sum")
        loss = total / num_counted.clamp(min=1)
        self._metric(stage).update(loss.detach(), weight=num_counted)
        self._log_loss(stage)
        return loss

    def _evaluate(self, batch: Batch, stage: str) -> None:
        x, y = self._every_text_once.take(*batch)
        if len(x):
            self._step((x, y), stage)
            if (counted := self._num_characters()) is not None:
                self.characters.update(torch.as_tensor(counted, device=y.device)[y[y != LEFT_OUT]].float())
        else:
            self._log_loss(stage)  # processes log together

    def _metric(self, stage: str) -> FullMean:
        return self.losses[f"of_{stage}"]  # type: ignore[return-value]

    def _log_loss(self, stage: str) -> None:
        self.log(f"{stage}/loss", self._metric(stage), on_step=False, on_epoch=True, prog_bar=True)

    def process_state(self) -> dict[str, tuple[Any, int]]:
        """What the next batch of the training goes on with; `ExactResume` keeps it."""
        return {stage: carried for stage, carried in self._carried.items() if stage == "train"}

    def load_process_state(self, state: dict[str, tuple[Any, int]]) -> None:
        """Goes on with what `process_state` gave."""
        self._carried = dict(state)

    def _log_figures(self, stage: str) -> None:
        nats = float(self._metric(stage).compute())
        # The same on all processes; without sync_dist, Lightning would take it for a figure of this one.
        self.log(f"{stage}/perplexity", math.exp(min(nats, 700.0)), sync_dist=True)
        per_token = of_data(self.trainer, "characters_per_token", {}).get(stage)
        if self._num_characters() is not None:
            per_token = float(self.characters.compute())
        if per_token:
            self.log(f"{stage}/bits_per_character", nats / math.log(2) / per_token, sync_dist=True)

    def _vocabulary(self) -> Any:
        return of_data(self._trainer, "vocabulary")

    def _writes_samples(self) -> bool:
        """Not where loaders of one's own, or the words of another data module, say nothing of tokens."""
        return self.sample_tokens > 0 and not lacking(self._vocabulary(), self.prompt)

    def _num_characters(self) -> Any:
        return getattr(self._vocabulary(), "num_characters", None)


def _check_goes_on(net: nn.Module, *, sample_tokens: int, carry_state: bool) -> None:
    """Raises ValueError where a net is to go on from a state and does not know how."""
    needed = ("extend", "context") if sample_tokens else ("extend",) if carry_state else ()
    if missing := [name for name in needed if not hasattr(net, name)]:
        option = f"sample_tokens={sample_tokens}" if sample_tokens else "carry_state=True"
        raise ValueError(
            f"LanguageModel({option}): the net must have {' and '.join(map(repr, needed))}, as those of "
            f"nets/language.py do; {type(net).__name__} lacks {' and '.join(map(repr, missing))}"
            + ("; sample_tokens=0 trains it without samples" if sample_tokens and not carry_state else "")
        )
