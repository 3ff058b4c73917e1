"""The layers for sequences beside torch's, and how their cost grows with length: `python benchmarks/sequences.py`.

Every layer computes the same forward and backward as the one of torch beside it, with the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from memory import peak
from timing import RATIO_HEADERS, ratio_cells, set_up, show, take_turns
from torch import Tensor, nn

from touchstone.nets import GRU, LSTM, RNN, TransformerBlock

PAIRS = {"RNN": (RNN, nn.RNN), "GRU": (GRU, nn.GRU), "LSTM": (LSTM, nn.LSTM)}
SETTING = """
import torch
from touchstone.nets import LSTM

torch.set_num_threads(1)
net = LSTM(128, 256)
net(torch.randn(8, 4, 128))[0].sum().backward()
before = kilobytes("VmHWM")
x = torch.randn(8, int(sys.argv[1]), 128, requires_grad=True)
"""


def step(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """A forward and a backward with respect to input and weights."""

    def run() -> None:
        output = net(x)
        (output[0] if isinstance(output, tuple) else output).sum().backward()

    return run


def recurrent(num_turns: int, clock: Callable[[], float], sizes: tuple[int, int, int, int]) -> None:
    """The table of the recurrent layers, with the plain steps for comparison."""
    num_batch, num_steps, num_features, num_units = sizes
    x = torch.randn(num_batch, num_steps, num_features, requires_grad=True)
    rows = []
    for name, (own, of_torch) in PAIRS.items():
        oracle = of_torch(num_features, num_units, batch_first=True)
        net, plain = (own(num_features, num_units, hand_written=fast) for fast in (True, False))
        for module in (net, plain):
            module.load_state_dict(oracle.state_dict())
        candidates = {f"nn.{name}": step(oracle, x), name: step(net, x), f"{name}, plain steps": step(plain, x)}
        seconds = take_turns(candidates, num_turns, clock)
        rows += [(candidate, *ratio_cells(seconds, candidate, f"nn.{name}")) for candidate in candidates]
    title = f"forward and backward, batch {num_batch}, {num_steps} steps, {num_features} features, {num_units} units"
    show(title, ("", *RATIO_HEADERS), rows)


def blocks(num_turns: int, clock: Callable[[], float], sizes: tuple[int, int, int, int]) -> None:
    """The table of the transformer block."""
    num_batch, num_tokens, dim, num_heads = sizes
    x, rows = torch.randn(num_batch, num_tokens, dim, requires_grad=True), []
    for norm in ("pre", "post"):
        oracle = nn.TransformerEncoderLayer(
            dim, num_heads, 4 * dim, dropout=0.0, batch_first=True, norm_first=norm == "pre"
        )
        net = TransformerBlock(dim, num_heads, norm=norm)
        candidates = {f"nn.TransformerEncoderLayer, {norm}-norm": step(oracle, x)}
        candidates[f"TransformerBlock, {norm}-norm"] = step(net, x)
        seconds = take_turns(candidates, num_turns, clock)
        rows += [(candidate, *ratio_cells(seconds, candidate, next(iter(candidates)))) for candidate in candidates]
    show(
        f"forward and backward, batch {num_batch}, {num_tokens} tokens, {dim} features, {num_heads} heads",
        ("", *RATIO_HEADERS),
        rows,
    )


def growth(num_turns: int, lengths: list[int]) -> None:
    """Time and memory of the LSTM against length; both should double with it."""
    torch.set_num_threads(1)
    rows = []
    for length in lengths:
        net, x = LSTM(128, 256), torch.randn(8, length, 128, requires_grad=True)
        run = step(net, x)
        seconds = min(take_turns({"": run}, num_turns, time.process_time)[""])
        kilobytes = peak("net(x)[0].sum().backward()", length, SETTING)
        a_step = (f"{1e6 * seconds / length:.0f}", f"{kilobytes / length:.0f}")
        rows.append((f"{length} steps", f"{1000 * seconds:.0f}", f"{kilobytes / 1024:.1f}", *a_step))
    headers = ("", "CPU ms", "peak, MiB", "us a step", "KiB a step")
    show("LSTM, batch 8, 128 features, 256 units, one thread", headers, rows)


def generation(num_turns: int, lengths: list[int]) -> None:
    """What one more token costs, with the cache of the tokens before it and without."""
    torch.set_num_threads(1)
    block, rows = TransformerBlock(128, 4, causal=True).eval(), []
    for length in lengths:
        x = torch.randn(1, length, 128)
        with torch.inference_mode():
            _, cache = block.extend(x, None)
            candidates = {
                "with": lambda x=x, cache=cache: block.extend(x[:, -1:], cache),
                "without": lambda x=x: block(x),
            }
            seconds = take_turns(candidates, num_turns, time.perf_counter)
        rows.append((f"{length} tokens", *(f"{1e6 * min(seconds[name]):.0f}" for name in candidates)))
    show("one more token through a block of 128 features", ("", "with a cache, us", "without, us"), rows)


def main(num_turns: int = 9, num_threads: int | None = 2, small: bool = False) -> None:
    """Measures all of them.

    Args:
        num_turns: how often each candidate is measured.
        num_threads: threads of torch; 1 for CPU seconds on a machine with other work.
        small: whether to shrink everything, to see that it runs.
    """
    torch.manual_seed(0)
    clock = set_up(num_threads)
    recurrent(num_turns, clock, (2, 4, 8, 8) if small else (32, 128, 128, 256))
    blocks(num_turns, clock, (2, 4, 8, 2) if small else (32, 128, 256, 4))
    growth(num_turns, [4, 8] if small else [64, 256, 1024, 4096])
    generation(num_turns, [4, 8] if small else [64, 256, 1024])


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main)
