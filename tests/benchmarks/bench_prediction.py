"""Prediction with dropout samples beside none, and likely negatives among five million cells.

Run by hand, on a quiet machine: `python tests/benchmarks/bench_prediction.py [PART ...]` with the
parts dropout and negatives, both by default. What is compared takes turns in one run, so a ratio
says more than the seconds do. MPM_THREADS sets the number of threads of torch, OMP_NUM_THREADS that
of numpy, which on busy cores had better be the same.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from mpm import mae
from mpm.fine_tuning import Classifier, FineTuneSettings, choose_negatives
from mpm.folds import Fold
from mpm.mapping import predict
from mpm.training import device_of
from mpm.windows import Windows

LAYERS, SAMPLES = 14, 100
PREDICTED = {"paper": 512, "demo": 8192}  # windows, by preset
REPEATS = 9
PASSES = 2  # of 100 full passes two are timed
CELLS, POSITIVES = (2000, 2500), 500


def main(parts: list[str]) -> None:
    """Print a table of medians, ratios and limits."""
    device_of("cpu")
    os.environ["MPM_RUN"] = "1"  # no progress bars
    print(f"{torch.get_num_threads()} threads, {REPEATS} turns each")
    print(f"{'':<56}{'median':>9}{'ratio':>9}")
    if "dropout" in parts:
        for preset in PREDICTED:
            bench_dropout(preset)
    if "negatives" in parts:
        for by in ("cells", "backbone"):
            subprocess.run([sys.executable, __file__, f"negatives by {by}"], check=True)


def bench_dropout(preset: str) -> None:
    """Predict without samples, with samples of the head, and with full passes, by turns."""
    config = mae.preset(preset, LAYERS)
    model, count = Classifier(mae.build(config, seed=0).encoder), PREDICTED[preset]
    windows, index = make_windows((100, 100), LAYERS, config.window), np.arange(count)

    @torch.no_grad()
    def full():
        model.train()
        for _ in range(PASSES):
            for part in windows.batches(index[: count // 8], 256):
                model(*part).sigmoid()

    plain, again, head, passes = by_turns(
        lambda: predict(model, windows, index, samples=0),
        lambda: predict(model, windows, index, samples=0),
        lambda: predict(model, windows, index, samples=SAMPLES),
        full,
    )
    scale = SAMPLES / PASSES * 8
    report(f"{preset}: {count} windows, no samples (s)", plain)
    report("  the same once more (s)", again, ratios(again, plain))
    report(f"  {SAMPLES} samples of the head (s)", head, ratios(head, plain), limit=1.1)
    report(f"  {SAMPLES} full passes, from {PASSES} of an eighth (s)",
           [scale * took for took in passes], scale * ratios(passes, plain))  # fmt: skip


def bench_negatives(by: str) -> None:
    """Choose negatives in a process of its own; the backbone is tiny, which memory does not see."""
    layers = {"cells": LAYERS, "backbone": 2}[by]
    windows = make_windows(CELLS, layers, 9)
    config = mae.MAEConfig(layers=layers, window=9, width=16, depth=1, heads=2)
    positive = np.zeros(len(windows), bool)
    positive[np.random.default_rng(0).choice(len(windows), POSITIVES, replace=False)] = True
    none, encoder = np.array([], int), mae.build(config, seed=0).encoder
    fold = Fold("blocks", 0, None, windows, np.arange(len(windows)), none, none)
    started = time.perf_counter()
    choose_negatives(fold, positive, FineTuneSettings(negatives_by=by), seed=0, encoder=encoder)
    took = time.perf_counter() - started
    report(f"negatives by {by}: {len(windows)} x {POSITIVES}, {layers} layers (s)", [took])
    # of the whole process, evidence included
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    report("  its peak memory (GB)", [peak], limit=2)


def make_windows(shape: tuple[int, int], layers: int, size: int) -> Windows:
    """Random evidence; every cell is a centre."""
    side = size - 1
    canvas = torch.empty(layers, shape[0] + side, shape[1] + side)
    canvas.normal_(generator=torch.Generator().manual_seed(0))
    row, col = (place.ravel() for place in np.indices(shape))
    seen = torch.ones(canvas.shape, dtype=torch.bool)
    return Windows(canvas, seen, size, np.zeros(len(row), int), row, col, (shape,))


def by_turns(*works: Callable) -> list[list[float]]:
    """Return the seconds of each work at every turn but the first, in changing order."""
    seconds = [[] for _ in works]
    for turn in range(REPEATS + 1):
        for k in np.random.default_rng(turn).permutation(len(works)):
            started = time.perf_counter()
            works[k]()
            if turn:
                seconds[k].append(time.perf_counter() - started)
    return seconds


def ratios(ours: list[float], others: list[float]) -> float:
    """Return the median over turns of the ratio within a turn: slow minutes fall on both."""
    return statistics.median(a / b for a, b in zip(ours, others, strict=True))


def report(
    name: str, values: list[float], ratio: float | None = None, *, limit: float | None = None
) -> None:
    """Print one row; the limit is that of the ratio, or of the median where there is none."""
    median = statistics.median(values)
    judged = median if ratio is None else ratio
    shown = "" if ratio is None else f"{ratio:.3f}"
    verdict = "" if limit is None else f"  limit {limit:g} {'met' if judged <= limit else 'MISSED'}"
    print(f"{name:<56}{median:>9.3f}{shown:>9}{verdict}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("negatives by "):
        os.environ["MPM_RUN"] = "1"
        device_of("cpu")
        bench_negatives(sys.argv[1].removeprefix("negatives by "))
    else:
        main(sys.argv[1:] or ["dropout", "negatives"])
