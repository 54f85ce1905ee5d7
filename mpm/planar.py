"""Distances to points and lines on a plane, and what lies in a circle around every cell."""

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from mpm import places

BATCH = 400_000  # pieces of lines, or distances to them, held at a time


def to_nearest(
    points: np.ndarray, start: np.ndarray, along: np.ndarray, tolerance: float
) -> np.ndarray:
    """Return each point's distance to the nearest piece of a line.

    Vertices are looked at in the order of their distance. The nearest point of a piece is a vertex,
    or lies within half its length h of one, across from the point: if both ends of a piece are
    farther than sqrt(d**2 + h**2), it is farther than d, and so are all that follow.

    Parameters
    ----------
    points : array (n, 2)
        x, y (m).
    start : array (m, 2)
        Vertices in their order along lines; single points are lines of one.
    along : array (m, 2)
        What leads from each vertex to the next, 0 from the last of a line. Short pieces are fast.
    tolerance : float
        How wrong (m) a distance may be, at most.

    Returns
    -------
    array (n,)
        m; infinite if there is no vertex.
    """
    away = np.full(len(points), np.inf)
    if not len(start):
        return away
    square = np.maximum((along**2).sum(axis=1), 1e-12)  # of a point, too
    tree = cKDTree(start)
    left, tried = np.arange(len(points)), 2
    while len(left):
        tried, open_ = min(tried, tree.n), []
        for some in np.array_split(left, 1 + len(left) * tried // BATCH):
            vertex, near = tree.query(points[some], k=range(1, tried + 1))
            near = np.hstack([near, near - 1])  # the pieces that leave a vertex and that reach it
            offset = points[some][:, None] - start[near]
            share = np.clip((offset * along[near]).sum(axis=2) / square[near], 0, 1)
            apart = offset - share[..., None] * along[near]
            away[some] = np.hypot(apart[..., 0], apart[..., 1]).min(axis=1)
            enough = np.maximum(away[some] - tolerance, 0) ** 2 + square.max() / 4
            open_.append(some[vertex[:, -1] ** 2 < enough])
        left = np.concatenate(open_) if tried < tree.n else left[:0]
        tried *= 4
    return away


def sum_within(
    points: np.ndarray, weights: np.ndarray, cells: xr.DataArray, reach: float
) -> np.ndarray:
    """Sum the weights of the points that lie within `reach` of every cell's centre.

    In one row of the grid, the centres within reach of a point are a run of cells: the weight is
    added where the run starts and taken off behind its end, and a running sum along the rows gives
    all sums at once. Exact, and as fast for wide circles as for small ones.

    Parameters
    ----------
    points : array (n, 2)
        x, y (m), anywhere.
    weights : array (n,)
    cells : DataArray (y, x)
        The grid.
    reach : float
        Radius (m).

    Returns
    -------
    array (y, x)
        float64.
    """
    rows, columns = cells.shape
    step, radius = cells.rio.transform().a, reach / cells.rio.transform().a
    across = (points[:, 0] - float(cells["x"][0])) / step  # in cells from the first centre
    down = (float(cells["y"][0]) - points[:, 1]) / step
    ends = np.zeros(rows * (columns + 1))
    top = np.ceil(down - radius)
    for offset in range(int(2 * radius) + 1):
        row = top + offset
        half = np.sqrt(np.maximum(radius**2 - (row - down) ** 2, 0))
        first, after = np.ceil(across - half), np.floor(across + half) + 1
        meets = (row >= 0) & (row < rows) & (row <= down + radius) & (first < after)
        meets &= (first < columns) & (after > 0)
        start = row[meets].astype(int) * (columns + 1)
        for sign, column in ((1, first), (-1, after)):
            place = start + np.clip(column[meets], 0, columns).astype(int)
            ends += sign * np.bincount(place, weights[meets], minlength=len(ends))
    total = np.cumsum(ends.reshape(rows, columns + 1), axis=1)[:, :columns]
    # rounding leaves some 1e-16 of what was taken off
    return np.where(total > 1e-9 * np.max(weights, initial=0), total, 0)


def padded(cells: xr.DataArray, reach: float) -> xr.DataArray:
    """Return a grid (y, x) with a rim as wide as `reach` (m), in whole cells, around all sides."""
    return places.padded(cells, _rim(cells, reach))


def mean_within(fine: np.ndarray, n: int, cells: xr.DataArray, reach: float) -> np.ndarray:
    """Return the share of a circle around every cell's centre that a fine mask covers.

    Parameters
    ----------
    fine : array (y, x)
        0 or 1, on `padded(cells, reach)` with each cell cut into n x n, n odd.
    n : int
    cells : DataArray (y, x)
        The grid.
    reach : float
        Radius (m).

    Returns
    -------
    array (y, x)
        float32, 0 to 1.

    Raises
    ------
    ValueError
        If n is even.
    """
    if n % 2 == 0:
        raise ValueError(f"{n} subcells a cell have none at its centre; take an odd number")
    rows, columns = cells.shape
    radius, first = n * reach / cells.rio.transform().a, n * _rim(cells, reach) + n // 2
    running = np.zeros((fine.shape[0], fine.shape[1] + 1), "int32")
    np.cumsum(fine, axis=1, out=running[:, 1:])
    total, count = np.zeros(cells.shape, "int32"), 0
    for offset in range(-int(radius), int(radius) + 1):
        half = int(np.sqrt(radius**2 - offset**2))
        line = running[first + offset :: n][:rows]
        inside = slice(first - half, None, n), slice(first + half + 1, None, n)
        total += line[:, inside[1]][:, :columns] - line[:, inside[0]][:, :columns]
        count += 2 * half + 1
    return (total / count).astype("float32")


def _rim(cells: xr.DataArray, reach: float) -> int:
    return int(np.ceil(reach / cells.rio.transform().a)) + 1
