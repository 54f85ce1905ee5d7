"""Time windows on a tile of a published size: 202 x 277 cells, 14 layers.

Run by hand, on a quiet machine: `python tests/benchmarks/bench_windows.py`. Every ratio compares
two things timed in the same run, so it says more than the seconds do. MPM_THREADS sets the number
of threads.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from ratios import by_turns, random_windows, ratio, report

from mpm.devices import device_of
from mpm.windows import Windows, window_centres

SHAPE, LAYERS, SIZE = (202, 277), 14, 33
ROWS = 4  # rows of windows that are read one by one
GATHERED, LOOPED = 10_000, 1_000  # windows gathered at once, and one by one
BATCH = 1024  # windows a training step takes


def main() -> None:
    """Print seconds and ratios."""
    device_of("cpu")
    bench_listing(SHAPE, LAYERS, SIZE)
    bench_gathering(random_windows(SHAPE, LAYERS, SIZE))


def bench_listing(shape: tuple[int, int], layers: int, size: int) -> None:
    """List the windows without a gap, beside reading every window from the file to look at it."""
    evidence = np.random.default_rng(0).normal(size=(layers, *shape)).astype("float32")
    evidence[:, :, :20] = np.nan
    with tempfile.TemporaryDirectory() as folder:
        place = write(evidence, Path(folder) / "tile.tif")
        valid = np.isfinite(evidence).all(axis=0)
        ours, others = by_turns(
            lambda: window_centres(valid, size, min_valid=1.0),
            lambda: read_one_by_one(place, size, ROWS),
            repeats=5,
        )
        check(valid, read_one_by_one(place, size, ROWS), size)
    parts = (shape[0] - size + 1) / ROWS  # windows that reach beyond the map are not read
    name = f"list the windows of {shape[0]} x {shape[1]} cells, {layers} layers"
    report(f"{name} (s)", statistics.median(ours), 0.1)
    report(
        "  reading each of them, as the released code does (s)", parts * statistics.median(others)
    )
    report("  ratio", parts * ratio(others, ours), 100, least=True)


def write(evidence: np.ndarray, place: Path) -> Path:
    """Write all layers into one GeoTIFF, as the released code does."""
    layers, height, width = evidence.shape
    profile = {"count": layers, "height": height, "width": width, "dtype": "float32"}
    profile |= {"crs": "EPSG:32633", "transform": Affine(1000, 0, 500_000, 0, -1000, 5_000_000)}
    with rasterio.open(place, "w", driver="GTiff", nodata=np.nan, **profile) as file:
        file.write(evidence)
    return place


def read_one_by_one(place: Path, size: int, rows: int) -> list[tuple[int, int]]:
    """Return the top left cells of windows without a missing value, in the first rows."""
    found = []
    with rasterio.open(place) as file:
        for row in range(rows):
            for col in range(file.width - size + 1):
                window = file.read(window=rasterio.windows.Window(col, row, size, size))
                if not np.isnan(window).any():
                    found.append((row, col))
    return found


def check(valid: np.ndarray, corners: list[tuple[int, int]], size: int) -> None:
    """Compare the windows read one by one with those listed at once."""
    rows, cols = window_centres(valid, size, min_valid=1.0)
    listed = rows < ROWS + size // 2
    ours = zip(rows[listed] - size // 2, cols[listed] - size // 2, strict=True)
    assert [tuple(map(int, corner)) for corner in ours] == corners


def bench_gathering(windows: Windows, count: int = GATHERED) -> None:
    """Gather windows at once, in the batches of a training step, and one by one."""
    index = np.random.default_rng(1).choice(len(windows), count, replace=False)
    some = index[: min(count, LOOPED)]
    at_once, parts, loop = by_turns(
        lambda: windows.gather(index),
        lambda: list(map(len, windows.batches(index, BATCH))),
        lambda: copy_one_by_one(windows, some),
        repeats=5,
    )
    report(f"gather {count} windows (s)", statistics.median(at_once))
    report(f"  in batches of {BATCH} (ratio)", ratio(parts, at_once))
    report(f"  a Python loop, from {len(some)} (ratio)", count / len(some) * ratio(loop, at_once))
    for fast, plain in zip(windows.gather(some), copy_one_by_one(windows, some), strict=True):
        assert torch.equal(fast, plain)


def copy_one_by_one(windows: Windows, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut windows out of the canvas in a loop and stack them."""
    size, parts = windows.size, ([], [])
    for row, col in zip(windows.row[index], windows.col[index], strict=True):
        for plane, part in zip((windows.canvas, windows.seen), parts, strict=True):
            part.append(plane[:, row : row + size, col : col + size])
    return torch.stack(parts[0]), torch.stack(parts[1])


if __name__ == "__main__":
    main()
