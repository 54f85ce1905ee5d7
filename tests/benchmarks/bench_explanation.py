"""Likelihood, uncertainty and attribution of a window beside the way of the released code.

Run by hand, on a quiet machine: `python tests/benchmarks/bench_explanation.py`. Windows have the
size and layers of `magmatic_nickel_mini`, the network is that of preset `paper`, and both ways take
turns in one run on a sample, so a ratio says more than the seconds do. The released way is 100 full
passes with dropout and Integrated Gradients in 12 steps, in batches of 8 windows, the fastest that
was measured of it. MPM_THREADS sets the number of threads.
"""

import os
import statistics
import sys

import numpy as np
import torch
from captum.attr import IntegratedGradients
from ratios import by_turns, child, peak_memory, random_windows, ratio, report

from mpm import explain, mae
from mpm.classifier import Classifier
from mpm.devices import device_of
from mpm.mapping import predict
from mpm.windows import Windows

LAYERS, SAMPLES, STEPS, BATCH = 14, 100, 12, 8
PASSES = 5  # of 100 full passes those that are made; their time is multiplied


def main() -> None:
    """Print medians, ratios, differences and limits."""
    device_of("cpu")
    os.environ["MPM_RUN"] = "1"  # no progress bars
    bench_ways(mae.preset("paper", LAYERS), 16, repeats=3)
    for count in (32, 96):
        print(child(__file__, f"memory of {count}"), end="", flush=True)


def bench_ways(config: mae.MAEConfig, count: int, *, repeats: int) -> None:
    """Time both ways on the same windows, and compare what they find."""
    model, index = Classifier(mae.build(config, seed=0).encoder).eval(), np.arange(count)
    windows = random_windows((20, 20), config.layers, config.window)
    passes, theirs, ours, likelihoods = by_turns(
        lambda: released_samples(model, windows, index, PASSES),
        lambda: released_attribution(model, windows, index),
        lambda: contributions(model, windows, index),
        lambda: predict(model, windows, index, samples=SAMPLES),
        repeats=repeats,
    )
    slow = [SAMPLES / PASSES * each for each in passes]
    whole = [a + b for a, b in zip(slow, theirs, strict=True)]
    fast = [a + b for a, b in zip(likelihoods, ours, strict=True)]
    report(f"{count} windows: likelihood and uncertainty (s)", statistics.median(likelihoods))
    report(f"  {SAMPLES} full passes, from {PASSES} (ratio)", ratio(slow, likelihoods), 50,
           least=True)  # fmt: skip
    report("  with attribution, ours (s)", statistics.median(fast))
    report("  with attribution, as released (ratio)", ratio(whole, fast), 5, least=True)
    known = released_attribution(model, windows, index)
    away = np.abs(known - contributions(model, windows, index)).max() / np.abs(known).max()
    report("  attributions of layers differ, of the largest, by at most", float(away), 1e-4)
    report("  likelihoods differ, in standard errors, by at most", errors(model, windows, index), 5)


def released_samples(
    model: Classifier, windows: Windows, index: np.ndarray, passes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and spread over full passes in which the head's dropout is active."""
    mean, spread = np.empty((2, len(index)))
    torch.manual_seed(0)
    for k, part in enumerate(windows.batches(index, BATCH)):
        model.dropout.train()
        with torch.no_grad():
            drawn = torch.stack([model(*part).sigmoid() for _ in range(passes)])
        here = slice(k * BATCH, k * BATCH + len(drawn[0]))
        mean[here], spread[here] = drawn.mean(dim=0), drawn.std(dim=0)
    model.eval()
    return mean, spread


def released_attribution(model: Classifier, windows: Windows, index: np.ndarray) -> np.ndarray:
    """Return summed attributions (n, layers), all steps of a batch at once."""
    parts = []
    for values, observed in windows.batches(index, BATCH):
        given = {"additional_forward_args": (observed,), "n_steps": STEPS}
        found = IntegratedGradients(model).attribute(values, torch.zeros_like(values), **given)
        parts.append(found.detach().sum(dim=(2, 3)).numpy())
    return np.concatenate(parts)


def contributions(model: Classifier, windows: Windows, index: np.ndarray) -> np.ndarray:
    """Return our attributions (n, layers) in as many steps."""
    return explain.layer_contributions(model, windows, index, steps=STEPS, most_steps=STEPS)[0]


def errors(model: Classifier, windows: Windows, index: np.ndarray) -> float:
    """Return the largest difference of the likelihoods of both ways, in standard errors."""
    few = 20
    mean, spread = released_samples(model, windows, index, few)
    likelihood, _ = predict(model, windows, index, samples=SAMPLES)
    return float((np.abs(mean - likelihood) / (spread * (1 / few + 1 / SAMPLES) ** 0.5)).max())


def bench_memory(config: mae.MAEConfig, count: int) -> None:
    """Predict and explain in a process of its own."""
    model, index = Classifier(mae.build(config, seed=0).encoder).eval(), np.arange(count)
    windows = random_windows((20, 20), config.layers, config.window)
    predict(model, windows, index, samples=SAMPLES)
    contributions(model, windows, index)
    report(f"peak memory of {count} windows, with attribution (GB)", peak_memory(), 3)


if __name__ == "__main__":
    if sys.argv[1:]:
        device_of("cpu")
        bench_memory(mae.preset("paper", LAYERS), int(sys.argv[1].removeprefix("memory of ")))
    else:
        main()
