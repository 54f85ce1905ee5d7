"""What all benchmarks need: works timed by turns, memory of an own process, rows of a table."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mpm.windows import Windows


def by_turns(*works: Callable, repeats: int = 9) -> list[list[float]]:
    """Return the seconds of each work at every turn but the first, in changing order."""
    seconds = [[] for _ in works]
    for turn in range(repeats + 1):
        for k in np.random.default_rng(turn).permutation(len(works)):
            started = time.perf_counter()
            works[k]()
            if turn:
                seconds[k].append(time.perf_counter() - started)
    return seconds


def ratio(ours: list[float], others: list[float]) -> float:
    """Return the median over turns of the ratio within a turn: slow minutes fall on both."""
    return statistics.median(a / b for a, b in zip(ours, others, strict=True))


def child(script: str, *words: str) -> str:
    """Run a benchmark in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, script, *words]
    quiet = os.environ | {"MPM_RUN": "1"}  # no progress bars
    return subprocess.run(command, env=quiet, check=True, stdout=-1, text=True).stdout


def peak_memory() -> float:
    """Return the largest memory that this process has had (GB), on Linux."""
    # not by getrusage, whose peak starts at that of the parent
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1e6


def random_windows(shape: tuple[int, int], layers: int, size: int) -> Windows:
    """Return windows of random evidence; every cell is a centre."""
    side = size - 1
    canvas = torch.empty(layers, shape[0] + side, shape[1] + side)
    canvas.normal_(generator=torch.Generator().manual_seed(0))
    row, col = (place.ravel() for place in np.indices(shape))
    seen = torch.ones(canvas.shape, dtype=torch.bool)
    return Windows(canvas, seen, size, np.zeros(len(row), int), row, col, (shape,))


def report(name: str, value: float, limit: float | None = None, *, least: bool = False) -> None:
    """Print one row: a value, and whether it keeps its limit."""
    verdict = ""
    if limit is not None:
        met = value >= limit if least else value <= limit
        verdict = f"  {'at least' if least else 'at most'} {limit:g}: {'met' if met else 'MISSED'}"
    print(f"{name:<62}{value:>10.4g}{verdict}", flush=True)
