"""Likelihood, uncertainty and attribution of a window beside the way of the released code.

Run by hand, on a quiet machine: `python tests/benchmarks/bench_explanation.py`. Windows are those
of `magmatic_nickel_mini` where its files are (in the folder that `MPM_MIRROR` names), else random
ones of the same size and layers. The network is that of preset `paper`, and both ways take turns in
one run on a sample, so a ratio says more than the seconds do. Memory is flat if twice the windows
take no more. The released way is 100 full
passes with dropout and Integrated Gradients in 12 steps, in batches of 8 windows, the fastest that
was measured of it. MPM_THREADS sets the number of threads.
"""

import os
import platform
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients
from ratios import by_turns, child, peak_memory, random_windows, ratio, report

from mpm import datacube, explain, fetch, mae
from mpm.classifier import Classifier
from mpm.devices import device_of
from mpm.mapping import predict
from mpm.scaling import apply_scaling, fit_scaling
from mpm.study import load
from mpm.windows import Windows, make_windows

STUDY, LAYERS, SAMPLES, STEPS, BATCH = "magmatic_nickel_mini", 14, 100, 12, 8
COUNTS = 48, 96  # windows whose memory is compared
GROWTH = 0.1  # GB that the larger number may take more: noise of the allocator
PASSES = 5  # of 100 full passes those that are made; their time is multiplied


def main() -> None:
    """Print medians, ratios, differences and limits."""
    device_of("cpu")
    os.environ["MPM_RUN"] = "1"  # no progress bars
    print(f"processor: {processor()}, {torch.get_num_threads()} threads")
    windows = study_windows()
    bench_ways(mae.preset("paper", windows.layers), windows, 32, repeats=3)
    peaks = [float(child(__file__, f"memory of {count}")) for count in COUNTS]
    for count, peak in zip(COUNTS, peaks, strict=True):
        report(f"peak memory of {count} windows, with attribution (GB)", peak, 3)
    report("  it grows by (GB)", peaks[1] - peaks[0], GROWTH)


def processor() -> str:
    """Return the name of the processor, on Linux."""
    place = Path("/proc/cpuinfo")
    lines = place.read_text().splitlines() if place.exists() else []
    named = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def study_windows() -> Windows:
    """Return all windows of the study, standardised, or random ones if its files are not there."""
    study, size = load(STUDY), mae.MAEConfig().window
    try:
        fetch.fetch(study)
    except (OSError, ValueError) as error:
        print(f"{STUDY} is not at hand ({error}); windows are random")
        return random_windows((20, 20), LAYERS, size)
    cubes = [datacube.build(study, region) for region in study.regions]
    scaling = fit_scaling(cubes, [cube["valid"].values for cube in cubes])
    return make_windows([apply_scaling(cube, scaling) for cube in cubes], size)


def some(windows: Windows, count: int) -> np.ndarray:
    """Return evenly spread centres, (count,)."""
    return np.linspace(0, len(windows) - 1, count).astype(int)


def bench_ways(config: mae.MAEConfig, windows: Windows, count: int, *, repeats: int) -> None:
    """Time both ways on the same windows, and compare what they find."""
    model, index = Classifier(mae.build(config, seed=0).encoder).eval(), some(windows, count)
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


def bench_memory(config: mae.MAEConfig, windows: Windows, count: int) -> float:
    """Predict and explain in a process of its own, and return its peak memory (GB)."""
    model, index = Classifier(mae.build(config, seed=0).encoder).eval(), some(windows, count)
    predict(model, windows, index, samples=SAMPLES)
    contributions(model, windows, index)
    return peak_memory()


if __name__ == "__main__":
    if sys.argv[1:]:
        device_of("cpu")
        # of random windows: reading a study takes memory of its own
        bare = random_windows((20, 20), LAYERS, mae.MAEConfig().window)
        size = mae.preset("paper", LAYERS)
        print(bench_memory(size, bare, int(sys.argv[1].removeprefix("memory of "))))
    else:
        main()
