"""Time windows on a cube of a published size: 202 x 277 cells, 14 layers.

Run by hand, on a quiet machine: `python tests/benchmarks/bench_windows.py`. Every ratio compares
two things timed in the same run, so it says more than the seconds do. MPM_THREADS sets the number
of threads.
"""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

from mpm.training import device_of
from mpm.windows import Windows, make_windows, window_centres

SHAPE, LAYERS, SIZE = (202, 277), 14, 33
GATHERED, LOOPED = 10_000, 1_000  # windows gathered at once, and one by one
BATCH = 1024  # windows a training step takes


def main() -> None:
    """Print a table of medians, first calls and ratios."""
    device_of("cpu")
    os.environ["MPM_RUN"] = "1"  # no progress bars
    cube = make_cube()
    windows = make_windows([cube], SIZE)
    print(
        f"{SHAPE[0]} x {SHAPE[1]} cells, {LAYERS} layers, {len(windows)} windows of {SIZE} x {SIZE}"
        f"; {torch.get_num_threads()} threads"
    )
    print(f"{'':<44}{'first (s)':>10}{'median (s)':>12}{'ratio':>9}")
    bench_listing(cube)
    bench_gathering(cube, windows)


def make_cube() -> xr.Dataset:
    """Random evidence with a tenth missing; a border and a fifth of the cells are not valid."""
    rng = np.random.default_rng(0)
    evidence = rng.normal(size=(LAYERS, *SHAPE)).astype("float32")
    evidence[rng.random(evidence.shape) < 0.1] = np.nan
    valid = rng.random(SHAPE) < 0.8
    valid[:, :20] = False
    return xr.Dataset(
        {"evidence": (("layer", "y", "x"), evidence), "valid": (("y", "x"), valid)},
        coords={"layer": [f"layer {k}" for k in range(LAYERS)]},
    )


def bench_listing(cube: xr.Dataset) -> None:
    """List the centres whose window is valid enough, beside counting each window's cells."""
    valid = cube["valid"].values

    def loop():
        padded = np.pad(valid, SIZE // 2)
        rows, cols = np.nonzero(valid)
        counts = (padded[r : r + SIZE, c : c + SIZE].sum() for r, c in zip(rows, cols, strict=True))
        kept = np.array([count >= 0.25 * SIZE * SIZE for count in counts])
        return rows[kept], cols[kept]

    first, ours = timed(lambda: window_centres(valid, SIZE))
    report("list all windows", first, ours, target=0.1)
    slow, _ = timed(loop, repeats=1)
    report("  a Python loop over windows", slow, slow, slow / ours)
    assert all(map(np.array_equal, window_centres(valid, SIZE), loop()))


def bench_gathering(cube: xr.Dataset, windows: Windows) -> None:
    """Gather windows at once, in the batches of a training step, and one by one."""
    index = np.random.default_rng(1).choice(len(windows), GATHERED, replace=False)

    def loop():
        values, observed = [], []
        padded = np.pad(cube["evidence"].values, [(0, 0)] + 2 * [(SIZE // 2,) * 2], "constant",
                        constant_values=np.nan)  # fmt: skip
        for r, c in zip(windows.row[index[:LOOPED]], windows.col[index[:LOOPED]], strict=True):
            window = padded[:, r : r + SIZE, c : c + SIZE]
            values.append(torch.from_numpy(np.nan_to_num(window)))
            observed.append(torch.from_numpy(~np.isnan(window)))
        return torch.stack(values), torch.stack(observed)

    def batches():
        for start in range(0, GATHERED, BATCH):
            windows.gather(index[start : start + BATCH])

    first, ours = timed(lambda: windows.gather(index))
    report(f"gather {GATHERED} windows", first, ours, target=1)
    first, parts = timed(batches)
    report(f"  the same in batches of {BATCH}", first, parts, parts / ours)
    first, slow = timed(loop, repeats=3)
    scale = GATHERED / LOOPED
    report(f"  a Python loop (from {LOOPED})", first * scale, slow * scale, slow * scale / ours)
    for fast, plain in zip(windows.gather(index[:LOOPED]), loop(), strict=True):
        assert torch.equal(fast, plain)


def timed(work: Callable, *, repeats: int = 5) -> tuple[float, float]:
    """Return the seconds of the first call and the median of all calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds[0], statistics.median(seconds)


def report(
    name: str, first: float, median: float, ratio: float = 1.0, *, target: float | None = None
) -> None:
    """Print one row; the target is that of the median."""
    judged = (
        "" if target is None else f"  target {target:g} s {'met' if median < target else 'MISSED'}"
    )
    print(f"{name:<44}{first:>10.3f}{median:>12.3f}{ratio:>9.1f}{judged}", flush=True)


if __name__ == "__main__":
    main()
