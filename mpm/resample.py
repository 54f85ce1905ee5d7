"""Bring rasters to a region's grid: average fine ones, interpolate coarse ones, invent nothing.

Places are transformed exactly, cell by cell, and nothing depends on which part of the grid is
asked for, so tiles join without a seam. GDAL's warper cannot promise that: it widens its bilinear
kernel by the shape of each chunk, and averages over the box between two corners of a cell, which
shrinks to a line where grid north and true north differ by 45 degrees.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyproj
import xarray as xr

from mpm import places, rasters
from mpm.places import Part, Strip
from mpm.rasters import Source

MIN_OBSERVED = 0.5 - 1e-6  # share of a cell's weight that must be observed, less rounding
MOST_POINTS = 16  # a side: classes are looked up at no more points of a cell


@dataclass(frozen=True)
class Plan:
    """How a raster comes to a grid, decided once for a whole region.

    Attributes
    ----------
    is_finer : bool
        More than 1.5 pixels lie along a cell both ways: average, do not interpolate. (Near the
        poles pixels in degrees are narrow, but what they hold is not finer than they are high.)
    blocks : tuple of int
        Pixels (rows, columns) that are averaged before anything else, a sixth of a cell at most.
    points : int
        Points along a cell at which the blocks are looked up for the average.
    class_points : int
        The same for classes; 1 where pixels are as large as cells.
    size : str
        Of a pixel at the region's centre, for people.
    longitude : float
        Places keep within 180 degrees of it before they are given pixels.
    """

    is_finer: bool
    blocks: tuple[int, int]
    points: int
    class_points: int
    size: str
    longitude: float


def plan(source: Source, cells: xr.DataArray) -> Plan:
    """Decide how a raster comes to a grid, by its pixels' size at the grid's centre.

    Parameters
    ----------
    source : Source
    cells : DataArray (y, x)
        The whole grid of a region.

    Returns
    -------
    Plan
    """
    west, south, east, north = cells.rio.bounds()
    step = cells.rio.transform().a
    return _planned(source, cells.rio.crs.to_wkt(), step, ((west + east) / 2, (south + north) / 2))


@lru_cache(maxsize=512)
def _planned(source: Source, crs: str, step: float, centre: tuple[float, float]) -> Plan:
    x, y = pyproj.Transformer.from_crs(crs, source.crs, always_xy=True).transform(*centre)
    width, height = _pixel(source, crs, x, y)
    if not (np.isfinite([width, height]).all() and width * height > 0):
        return Plan(False, (1, 1), 1, 1, "", 0)  # the source's CRS does not reach the region
    blocks = max(1, int(step / height / 6)), max(1, int(step / width / 6))
    left = int(np.ceil(max(step / height / blocks[0], step / width / blocks[1]) - 1e-6))
    middle = source.west + source.dx * source.columns / 2
    return Plan(
        is_finer=bool(step / max(width, height) > 1.5),
        blocks=blocks,
        points=left * -(-6 // left),  # a multiple: pixels that fit a cell weigh the same
        class_points=_class_points(step / width, step / height),
        size=_size(width, height),
        longitude=middle if source.period is None else x,
    )


def _pixel(source: Source, crs: str, x: float, y: float) -> tuple[float, float]:
    """Measure a pixel at a place of the source in metres of the grid: width and height."""
    # longitude has no width at a pole: beside it, it has
    y = np.clip(y, -89, 89) if source.is_geographic else y
    to_grid = pyproj.Transformer.from_crs(source.crs, crs, always_xy=True)
    right, down = np.array([1, -1, 0, 0]) * source.dx / 2, np.array([0, 0, 1, -1]) * source.dy / 2
    x0, y0 = to_grid.transform(x, y)
    x, y = to_grid.transform(x + right, y + down)
    with np.errstate(invalid="ignore"):
        east, west, south, north = 2 * np.hypot(x - x0, y - y0)
    return min(east, west), min(south, north)  # one of them may lie beyond the map


def _class_points(across: float, down: float) -> int:
    if across * down < 1.001:
        return 1
    return min(2 * int(np.ceil(max(across, down) - 1e-6)), MOST_POINTS)


def _size(width: float, height: float) -> str:
    unit, name = (1000, "km") if max(width, height) >= 1000 else (1, "m")
    sides = [f"{side / unit:.3g}" for side in (width, height)]
    return f"{sides[0]} {name}" if sides[0] == sides[1] else f"{sides[0]} x {sides[1]} {name}"


def continuous(
    source: Source, cells: xr.DataArray, part: Part | None = None, *, cubic: bool = False
) -> np.ndarray:
    """Average or interpolate a raster of numbers.

    A cell takes the mean of the pixels in it where the raster is finer than the grid, and the
    bilinear mean of the four pixels around its centre where it is not: of the observed ones, if
    they have half of the weight.

    Parameters
    ----------
    source : Source
    cells : DataArray (y, x)
        The whole grid of a region.
    part : tuple of slice, optional
        Rows and columns that are wanted; by default all.
    cubic : bool
        Interpolate by cubic convolution over 16 pixels, all observed: slopes of a bilinear surface
        jump from pixel to pixel, those of this one do not.

    Returns
    -------
    array (y, x)
        float32 (float64 if `cubic`), NaN where missing.

    Source: Keys 1981, doi:10.1109/TASSP.1981.1163711.
    """
    how = plan(source, cells)
    if how.is_finer:
        strips = [_averaged(source, how, strip) for strip in places.strips(cells, part)]
    else:
        strips = [_interpolated(source, how, strip, cubic) for strip in places.strips(cells, part)]
    return np.concatenate(strips).astype("float64" if cubic else "float32")


def class_shares(
    source: Source, cells: xr.DataArray, codes: list, part: Part | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Look the codes of a raster of classes up at points of each cell; never interpolate them.

    Parameters
    ----------
    source, cells, part
        As for `continuous`.
    codes : list of int

    Returns
    -------
    list of array (y, x)
        Share of the cell that each code takes, float32. Where pixels are as large as cells, the
        code at the cell's centre has all of it.
    array (y, x)
        Share of the cell that has any code.
    """
    how = plan(source, cells)
    counts = np.concatenate(
        [_counted(source, how, codes, strip) for strip in places.strips(cells, part)]
    )
    shares = (counts / how.class_points**2).astype("float32")
    return [shares[..., k] for k in range(len(codes))], shares[..., :-1].sum(axis=-1)


def touches(source: Source, cells: xr.DataArray) -> bool:
    """Whether the centre of any cell (y, x) lies on the raster, or within a pixel of it."""
    how = plan(source, cells)
    for strip in places.strips(cells):
        rows, columns, near = places.centres(source, strip, how.longitude)
        near = near & (rows > -1) & (rows < source.rows + 1)
        if source.period is None:
            near &= (columns > -1) & (columns < source.columns + 1)
        if near.any():
            return True
    return False


def _interpolated(source: Source, how: Plan, strip: Strip, cubic: bool) -> np.ndarray:
    rows, columns, known = places.centres(source, strip, how.longitude)
    rows, columns = rows - 0.5, columns - 0.5  # now pixel k has its centre at k
    window = _window(source, rows, columns)
    if window is None:
        return np.full(rows.shape, np.nan)
    pixels = rasters.read(source, *window)
    north, west = np.floor(rows), np.floor(columns)
    total, seen, weight = np.zeros((3, *rows.shape))
    taps, kernel = (range(-1, 3), _cubic) if cubic else (range(2), _linear)
    across = {tap: kernel(np.abs(columns - west - tap)) for tap in taps}
    for tap in taps:
        down = kernel(np.abs(rows - north - tap))
        for right in taps:
            values = _take(pixels, window, north + tap, west + right)
            share = down * across[right]
            is_seen = np.isfinite(values)
            total += np.where(is_seen, values * share, 0)
            seen += share * is_seen
            weight += np.abs(share) * ~is_seen
    if cubic:
        known = known & (weight < 1e-6)
    return _mean(total, seen * known)


def _linear(distance: np.ndarray) -> np.ndarray:
    return 1 - distance


def _cubic(distance: np.ndarray) -> np.ndarray:
    near = 1 + distance**2 * (1.5 * distance - 2.5)
    far = 2 + distance * (-4 + distance * (2.5 - 0.5 * distance))
    return np.where(distance < 1, near, far)


def _averaged(source: Source, how: Plan, strip: Strip) -> np.ndarray:
    down, right = how.blocks
    all_rows, all_columns, known = places.corners(source, strip, how.longitude)
    window = _window(source, all_rows, all_columns, how.blocks)
    if window is None:
        return np.full(known.shape, np.nan)
    pixels = _blocks(source, window, how.blocks)
    found = np.zeros(known.shape, complex)
    for rows, columns in places.points(all_rows, all_columns, how.points):
        found += _take(pixels, window, np.floor(rows / down), np.floor(columns / right))
    return _mean(found.real, found.imag * known, how.points**2)


def _counted(source: Source, how: Plan, codes: list, strip: Strip) -> np.ndarray:
    """Count points (y, x, code) of each code, of any other, and of none."""
    if how.class_points == 1:
        all_rows, all_columns, known = places.centres(source, strip, how.longitude)
        points: Iterable[tuple[np.ndarray, ...]] = [(all_rows, all_columns)]
    else:
        all_rows, all_columns, known = places.corners(source, strip, how.longitude)
        points = places.points(all_rows, all_columns, how.class_points)
    counts = np.zeros((known.size, len(codes) + 2), "uint16")
    window = _window(source, all_rows, all_columns)
    if window is not None:
        pixels = _numbered(rasters.read(source, *window), codes)
        cell = np.arange(known.size)
        for rows, columns in points:
            counts[cell, _take(pixels, window, np.floor(rows), np.floor(columns)).ravel()] += 1
    counts[~known.ravel()] = 0
    counts[:, -1] = how.class_points**2 - counts[:, :-1].sum(axis=1)
    return counts.reshape(*known.shape, -1)


def _numbered(pixels: np.ndarray, codes: list) -> np.ndarray:
    """Replace codes by their position in the list; others, then missing ones, come after it."""
    order = np.argsort(codes)
    ranks = np.asarray(codes, "float64")[order]
    place = np.searchsorted(ranks, pixels).clip(max=len(codes) - 1)
    numbers = np.where(ranks[place] == pixels, order[place], len(codes))
    return np.where(np.isnan(pixels), len(codes) + 1, numbers).astype("int16")


def _window(
    source: Source, rows: np.ndarray, columns: np.ndarray, blocks: tuple[int, int] = (1, 1)
) -> tuple | None:
    """Pixels, or blocks of them, around all positions: first and one past last row and column.

    There is a margin of a pixel outside the raster, so that whatever lies outside finds no value.
    """
    sides = []
    for positions, size, block in zip(
        (rows, columns), (source.rows, source.columns), blocks, strict=True
    ):
        low = int(np.floor(positions.min() / block)) - 2
        high = int(np.floor(positions.max() / block)) + 4
        if positions is rows or source.period is None:
            low, high = max(low, -1), min(high, -(-size // block) + 1)
        if low >= high:
            return None
        sides.append((low, high))
    return tuple(sides)


def _blocks(source: Source, window: tuple, blocks: tuple[int, int]) -> np.ndarray:
    """Sums over blocks of pixels, divided by their number, + 1j times the share that is observed.

    As one complex number they are looked up at once.
    """
    (top, bottom), (left, right) = window
    down, across = blocks
    height = max(1, 8_000_000 // (down * across * (right - left)))
    strips = []
    for first in range(top, bottom, height):
        last = min(first + height, bottom)
        rows, columns = (first * down, last * down), (left * across, right * across)
        tiles = rasters.read(source, rows, columns)
        tiles = tiles.reshape(last - first, down, right - left, across)
        seen = np.isfinite(tiles)
        sums = np.where(seen, tiles, 0).mean(axis=(1, 3), dtype="float64")
        strips.append(sums + 1j * seen.mean(axis=(1, 3)))
    return np.concatenate(strips)


def _take(pixels: np.ndarray, window: tuple, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Values at whole positions; what lies outside the window takes its rim, which is missing."""
    (top, bottom), (left, right) = window
    rows = (rows - top).clip(0, bottom - top - 1).astype("int32")
    columns = (columns - left).clip(0, right - left - 1).astype("int32")
    return pixels.ravel().take(rows * np.int64(right - left) + columns)


def _mean(total: np.ndarray, weight: np.ndarray, whole: float = 1) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight >= MIN_OBSERVED * whole, total / weight, np.nan)
