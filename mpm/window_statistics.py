"""Statistics of windows, for methods that take a table: what lies around a cell, in two numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import correlate1d

if TYPE_CHECKING:
    from mpm.windows import Windows


def names(layers: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of `statistics`."""
    kinds = ("", ", window mean", ", window spread")
    return tuple(f"{layer}{kind}" for kind in kinds for layer in layers)


def statistics(windows: "Windows", index: np.ndarray) -> np.ndarray:
    """Return the centre cell, and mean and standard deviation over the window, of each layer.

    Only observed cells count. Sums are taken over the canvas, first along its columns and then
    along its rows, so that no window is copied; each is summed by itself, and nothing outside of it
    moves even its last digit.

    Parameters
    ----------
    windows : Windows
    index : array (n,) of int
        Numbers of centres.

    Returns
    -------
    array (n, 3 * layers)
        float32: all centres, all means, all spreads; NaN where there is no observed cell.
    """
    count, half = windows.layers, windows.size // 2
    rows, cols = (np.asarray(corner) + half for corner in windows.corners(index))
    table = np.empty((len(index), 3 * count), "float32")
    table[:, :count] = windows.centres(index)
    for k in range(count):  # a layer at a time, to spare memory
        seen = windows.seen[k].cpu().numpy().astype("float64")
        values = windows.canvas[k].cpu().numpy().astype("float64")
        cells, total, squares = (
            _sums(plane, windows.size)[rows, cols] for plane in (seen, values, values**2)
        )
        with np.errstate(invalid="ignore"):  # no observed cell: 0 / 0
            mean = total / cells
            table[:, count + k] = mean
            table[:, 2 * count + k] = np.sqrt(np.maximum(squares / cells - mean**2, 0))
    return table


def _sums(plane: np.ndarray, size: int) -> np.ndarray:
    """Sum a plane (rows, cols) over the square around each cell."""
    ones = np.ones(size)
    for axis in (0, 1):
        plane = correlate1d(plane, ones, axis=axis, mode="constant")
    return plane
