"""Prediction with dropout samples beside none, and likely negatives among five million cells.

Run by hand, on a quiet machine: `python tests/benchmarks/bench_prediction.py [PART ...]` with the
parts dropout and negatives, both by default. What is compared takes turns in one run, so a ratio
says more than the seconds do. MPM_THREADS sets the number of threads of torch, OMP_NUM_THREADS that
of numpy, which on busy cores had better be the same.
"""

import os
import statistics
import sys
import time

import numpy as np
import torch
from ratios import by_turns, child, peak_memory, random_windows, ratio, report

from mpm import mae
from mpm.classifier import Classifier
from mpm.devices import device_of
from mpm.fine_tuning import FineTuneSettings
from mpm.folds import Fold
from mpm.mapping import predict
from mpm.pu_selection import choose_negatives

LAYERS, SAMPLES = 14, 100
PREDICTED = {"paper": 512, "demo": 8192}  # windows, by preset
PASSES = 2  # of 100 full passes two are timed
CELLS, POSITIVES = (2000, 2500), 500


def main(parts: list[str]) -> None:
    """Print medians, ratios and limits."""
    device_of("cpu")
    os.environ["MPM_RUN"] = "1"  # no progress bars
    if "dropout" in parts:
        for preset, count in PREDICTED.items():
            bench_dropout(preset, mae.preset(preset, LAYERS), count)
    if "negatives" in parts:
        for by in ("cells", "backbone"):
            print(child(__file__, f"negatives by {by}"), end="", flush=True)


def bench_dropout(name: str, config: mae.MAEConfig, count: int) -> None:
    """Predict without samples, with samples of the head, and with full passes, by turns."""
    model, index = Classifier(mae.build(config, seed=0).encoder), np.arange(count)
    windows = random_windows((100, 100), config.layers, config.window)

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
    report(f"{name}: {count} windows predicted, no dropout samples (s)", statistics.median(plain))
    report("  the same once more (ratio)", ratio(again, plain))
    report(f"  {SAMPLES} samples of the head (ratio)", ratio(head, plain), 1.1)
    report(f"  {SAMPLES} full passes, from {PASSES} of an eighth (ratio)",
           scale * ratio(passes, plain))  # fmt: skip


def bench_negatives(by: str, shape: tuple[int, int] = CELLS, positives: int = POSITIVES) -> None:
    """Choose negatives in a process of its own; the backbone is tiny, which memory does not see."""
    layers = {"cells": LAYERS, "backbone": 2}[by]
    windows = random_windows(shape, layers, 9)
    config = mae.MAEConfig(layers=layers, window=9, width=16, depth=1, heads=2)
    positive = np.zeros(len(windows), bool)
    positive[np.random.default_rng(0).choice(len(windows), positives, replace=False)] = True
    none, encoder = np.array([], int), mae.build(config, seed=0).encoder
    fold = Fold("blocks", 0, None, windows, np.arange(len(windows)), none, none)
    started = time.perf_counter()
    choose_negatives(fold, positive, FineTuneSettings(negatives_by=by), seed=0, encoder=encoder)
    took = time.perf_counter() - started
    report(f"negatives by {by}: {len(windows)} x {positives}, {layers} layers (s)", took)
    report("  its peak memory, evidence included (GB)", peak_memory(), 2)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("negatives by "):
        device_of("cpu")
        bench_negatives(sys.argv[1].removeprefix("negatives by "))
    else:
        main(sys.argv[1:] or ["dropout", "negatives"])
