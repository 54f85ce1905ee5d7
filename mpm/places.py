"""Grids, parts of grids, and where their cells lie in a raster: the same for a part as for all."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyproj
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from affine import Affine

from mpm.rasters import Source

STRIP = 250_000  # cells at a time

Part = tuple[slice, slice]


def grid(crs: object, corner: tuple[float, float], step: float, shape: tuple) -> xr.DataArray:
    """Make a grid of cells: one value a cell, north up, cell centres as coordinates.

    Parameters
    ----------
    crs : object
        Anything pyproj reads.
    corner : tuple of float
        West and north edge (m).
    step : float
        Cell size (m).
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    DataArray (y, x)
        As `plane`.
    """
    (west, north), (rows, columns) = corner, shape
    y, x = north - step * (np.arange(rows) + 0.5), west + step * (np.arange(columns) + 0.5)
    to = Affine(step, 0, west, 0, -step, north)
    # first the place, then the plane: rioxarray would copy its values
    return plane(xr.Dataset(coords={"y": y, "x": x}).rio.write_crs(crs).rio.write_transform(to))


def plane(place: xr.Dataset) -> xr.DataArray:
    """Make a grid (y, x) of the coordinates of one: float32 zeros that can't be written to.

    They take no memory, as only the geometry matters.
    """
    shape = place.sizes["y"], place.sizes["x"]
    return xr.DataArray(np.broadcast_to(np.float32(0), shape), place.coords, ("y", "x"))


def cut(cells: xr.DataArray, part: Part | None) -> xr.DataArray:
    """Cut a part out of a grid (y, x), as a grid: slicing alone would keep the old corner."""
    if part is None:
        return cells
    top, left = (side.indices(size)[0] for side, size in zip(part, cells.shape, strict=True))
    to = cells.rio.transform()
    west, north = to.c + to.a * left, to.f + to.e * top
    return cells[part].rio.write_transform(Affine(to.a, 0, west, 0, to.e, north))


def padded(cells: xr.DataArray, margin: int) -> xr.DataArray:
    """Make a grid (y, x) with so many more cells on each side."""
    to = cells.rio.transform()
    corner = to.c - margin * to.a, to.f - margin * to.e
    return grid(cells.rio.crs, corner, to.a, tuple(size + 2 * margin for size in cells.shape))


@dataclass(frozen=True)
class Strip:
    """Some rows of the wanted part: cell centres and edges in metres, and the grid's CRS."""

    x: np.ndarray
    y: np.ndarray
    x_edges: np.ndarray
    y_edges: np.ndarray
    crs: str


def strips(cells: xr.DataArray, part: Part | None = None) -> Iterator[Strip]:
    """Cut the wanted part (rows, columns) of a region's whole grid into strips, from the north."""
    rows, columns = part or (slice(None), slice(None))
    top, bottom, _ = rows.indices(cells.shape[0])
    left, right, _ = columns.indices(cells.shape[1])
    x, y = cells["x"].values, cells["y"].values
    to = cells.rio.transform()
    # edges are counted from the whole grid's corner, so neighbours share them to the last bit
    x_edges = to.c + to.a * np.arange(left, right + 1)
    height = max(1, STRIP // (right - left))
    for first in range(top, bottom, height):
        last = min(first + height, bottom)
        y_edges = to.f + to.e * np.arange(first, last + 1)
        yield Strip(x[left:right], y[first:last], x_edges, y_edges, cells.rio.crs.to_wkt())


def centres(source: Source, strip: Strip, longitude: float) -> tuple[np.ndarray, ...]:
    """Return rows and columns (y, x) of the cells' centres in the raster, and which it can know.

    Pixel k reaches from k to k + 1. A cell without a place in the raster's CRS takes that of
    another cell.

    Parameters
    ----------
    source : Source
    strip : Strip
    longitude : float
        Places of a raster in degrees keep within 180 of it.
    """
    return _positions(source, strip.x, strip.y, strip.crs, longitude)


def corners(source: Source, strip: Strip, longitude: float) -> tuple[np.ndarray, ...]:
    """Return rows and columns of each cell's corners, (4, y, x): NW, NE, SW and SE.

    And as third which cells (y, x) have all of them in the raster's CRS.
    """
    rows, columns, known = (
        np.stack([edge[:-1, :-1], edge[:-1, 1:], edge[1:, :-1], edge[1:, 1:]])
        for edge in _positions(source, strip.x_edges, strip.y_edges, strip.crs, longitude)
    )
    if source.is_geographic:  # a cell that is cut where longitudes jump is put together again
        around = 360 / source.dx
        columns -= around * np.round((columns - columns[0]) / around)
    return rows, columns, np.all(known, axis=0)


def points(rows: np.ndarray, columns: np.ndarray, count: int) -> Iterator[tuple]:
    """Yield rows and columns (y, x) of count x count points spread evenly over each cell.

    Across a cell the map between two CRSs bends by metres: corners are enough.
    """
    shares = (np.arange(count) + 0.5) / count
    for down in shares:
        west, east = (
            [axis[side] + (axis[side + 2] - axis[side]) * down for axis in (rows, columns)]
            for side in (0, 1)
        )
        across = [b - a for a, b in zip(west, east, strict=True)]
        for right in shares:
            yield tuple(a + side * right for a, side in zip(west, across, strict=True))


def _positions(
    source: Source, x: np.ndarray, y: np.ndarray, crs: str, longitude: float
) -> tuple[np.ndarray, ...]:
    x, y, known = _transformed(x.tobytes(), y.tobytes(), crs, source.crs)
    if source.is_geographic:
        x = x - 360 * np.round((x - longitude) / 360)
    return (source.north - y) / source.dy, (x - source.west) / source.dx, known


@lru_cache(maxsize=32)
def _transformed(x: bytes, y: bytes, crs: str, to_crs: str) -> tuple[np.ndarray, ...]:
    # most layers of a study share a CRS: the same places are asked for again and again
    cells = np.meshgrid(np.frombuffer(x), np.frombuffer(y))
    there = pyproj.Transformer.from_crs(crs, to_crs, always_xy=True).transform(*cells)
    known = np.isfinite(there[0]) & np.isfinite(there[1])
    some = np.argmax(known)
    east, north = (np.where(known, axis, axis.flat[some] if known.any() else 0) for axis in there)
    return east, north, known
