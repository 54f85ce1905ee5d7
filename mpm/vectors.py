"""Vector layers on a region's grid: area shares, distances and densities of features."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
import xarray as xr
from affine import Affine
from rasterio.features import rasterize

from mpm import geography, places, planar
from mpm.layers import Layer
from mpm.places import Part
from mpm.vector_files import check_place, column, opened, read_part

SUPERSAMPLE = 5  # polygons are burnt on cells this many times finer, then counted
_GLOBE = 4e7  # m: nothing lies farther away
_FARTHEST = 2  # diagonals of the region: a map of what lies farther is no evidence


def features(path: Path, what: str, cells: xr.DataArray, margin: float = 0) -> gpd.GeoDataFrame:
    """Read a vector file's features near a region, in the region's CRS.

    They are clipped in the file's CRS before they are projected, so that nothing from the far side
    of the globe is thrown across the map; long edges keep their course; invalid polygons are
    repaired. A feature that a region across 180 degrees meets twice comes in two rows.

    Parameters
    ----------
    path : Path
        GeoPackage, GeoJSON, FlatGeobuf or shapefile; a shapefile may lack its .shx or .dbf.
    what : str
        Who needs it, for messages, e.g. "layer 'faults'".
    cells : DataArray (y, x)
        The region's grid.
    margin : float
        How far around the region to look, in cells.

    Returns
    -------
    GeoDataFrame
        In the file's order, all columns kept.

    Raises
    ------
    ValueError
        If the file has no CRS, or one that its coordinates can't be in, no feature or several
        layers, or no feature lies near the region.
    """
    found, noun = _near(path, what, cells, margin, edges=False)
    if found.empty:
        raise ValueError(
            f"{what}: no {noun} of {path} touches the region; is the file's CRS right?"
        )
    return found


def shares(
    layer: Layer,
    path: Path,
    cells: xr.DataArray,
    classes: list | None,
    part: Part | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the area share of each class, and of all polygons together, in every cell.

    Polygons are burnt on cells `SUPERSAMPLE` times finer by the centre rule, and counted. Where
    polygons of classes overlap, the later one in the file wins; those of no class in the list
    lose to any.

    Parameters
    ----------
    layer : Layer
        Names the column.
    path : Path
        Its file.
    cells : DataArray (y, x)
        The whole grid of a region.
    classes : list, optional
        Classes to count.
    part : tuple of slice, optional
        Rows and columns that are wanted, by default all. It may hold no polygon.

    Returns
    -------
    list of array (y, x)
        float32, 0 to 1, one a class.
    array (y, x)
        The share of all polygons, overlaps counted once.

    Raises
    ------
    ValueError
        If the file holds no polygons, none touches the region, or the column is missing.
    """
    what, here, count = f"layer {layer.name!r}", places.cut(cells, part), len(classes or ())
    shapes, _ = _near(path, what, here, 0, edges=False)
    shapes = shapes[_dimension(shapes) == 2]
    if shapes.empty and 2 not in _dimensions(path, what, cells):
        raise ValueError(f"{what}: {path} holds no polygons; area shares need some")
    numbers = np.full(len(shapes), count + 1)
    if classes is not None and len(shapes):
        number = {name: k + 1 for k, name in enumerate(classes)}
        values = column(shapes, layer.column, what, path)
        numbers = np.array([number.get(name, count + 1) for name in values])
    order = np.argsort(numbers <= count, kind="stable")
    burnt = _burnt(shapes.iloc[order], numbers[order], here, SUPERSAMPLE)
    return _counted(burnt, SUPERSAMPLE, count)


def _dimensions(path: Path, what: str, cells: xr.DataArray) -> frozenset[int]:
    """Return of what dimensions a file's features in a region are; raises as `features` does."""
    to = cells.rio.transform()
    corner = to.c, to.f
    modified = path.stat().st_mtime_ns
    return _found(path, what, modified, cells.rio.crs.to_wkt(), corner, to.a, cells.shape)


@lru_cache(maxsize=64)
def _found(path: Path, what: str, _modified: int, *place: Any) -> frozenset[int]:
    # many a tile holds nothing: the whole region is looked at once
    return frozenset(_dimension(features(path, what, places.grid(*place))).tolist())


def distance(layer: Layer, path: Path, cells: xr.DataArray) -> np.ndarray:
    """Return the distance from every cell's centre to the nearest feature.

    Lines and outlines are cut into pieces; a k-d tree finds those nearest to a cell, and the
    distance is right to 1 % of a cell. Features outside the region count: the search widens until
    nothing nearer can have been missed.

    Parameters
    ----------
    layer : Layer
        `edges`: to the outlines of polygons; else polygons are 0 inside. `classes` of `column`
        select features.
    path : Path
        Its file.
    cells : DataArray (y, x)
        The region's grid.

    Returns
    -------
    array (y, x)
        float32, m.

    Raises
    ------
    ValueError
        As for `features`; but they may lie outside the region, at most twice its diagonal. Also if
        the column is missing.
    """
    what, step = f"layer {layer.name!r}", cells.rio.transform().a
    centres = np.stack(np.meshgrid(cells["x"], cells["y"]), axis=-1).reshape(-1, 2)
    away = np.full(len(centres), np.inf)
    settled, margin = 0.0, float(max(cells.shape))
    while (left := away > settled).any() and settled < _GLOBE:
        shapes = _selected(_near(path, what, cells, margin, layer.edges)[0], layer, path, what)
        # what is left lies farther than `settled`: longer pieces are then short enough
        pieces = zip(*_pieces(shapes, max(step / 2, settled / 50)), strict=True)
        start, along = (np.concatenate(part) for part in pieces)
        away[left] = planar.to_nearest(centres[left], start, along, step / 100)
        inside = _burnt(shapes[_dimension(shapes) == 2], 1, cells, 1)
        away[inside.ravel() > 0] = 0
        settled, margin = margin * step, margin * 8
    if not np.isfinite(away).all():
        raise ValueError(f"{what}: no feature of {path} can be shown in the region's CRS")
    west, south, east, north = cells.rio.bounds()
    if away.min() > _FARTHEST * np.hypot(east - west, north - south):
        raise ValueError(
            f"{what}: the nearest feature of {path} lies {away.min() / 1000:.0f} km away; is the "
            "file's CRS right?"
        )
    return away.reshape(cells.shape).astype("float32")


def density(layer: Layer, path: Path, cells: xr.DataArray) -> np.ndarray:
    """Return how much of the features lies within `layer.reach` (m) of every cell's centre.

    Parameters
    ----------
    layer, path, cells
        As for `distance`. `classes` of `column` select features.

    Returns
    -------
    array (y, x)
        float32: km of line per km2, number of points per km2, or the share of the circle's area
        that polygons cover. Features outside the region count.

    Raises
    ------
    ValueError
        As for `features`, and if the circle is smaller than a cell or the column is missing.
    """
    what, step, reach = f"layer {layer.name!r}", cells.rio.transform().a, layer.reach
    assert reach is not None  # `layers.Layer` asks for it
    if reach < step / 2:
        raise ValueError(f"{what}: reach {reach:g} m is less than half a cell of {step:g} m")
    shapes = features(path, what, cells, margin=reach / step)
    dimension = _dimension(shapes).max()
    shapes = _selected(shapes[_dimension(shapes) == dimension], layer, path, what)
    if dimension == 2:
        n = SUPERSAMPLE if reach < 20 * step else 1
        burnt = _burnt(shapes, 1, planar.padded(cells, reach), n)
        return planar.mean_within(burnt, n, cells, reach)
    total = np.zeros(cells.shape)
    for start, along in _pieces(shapes, reach / 25):
        # a piece lies in a circle if its middle does: pieces are short, so that it matters little
        weights = np.hypot(*along.T) / 1000 if dimension == 1 else np.ones(len(start))
        total += planar.sum_within(start + along / 2, weights, cells, reach)
    return (total / (np.pi * (reach / 1000) ** 2)).astype("float32")


def _near(
    path: Path, what: str, cells: xr.DataArray, margin: float, edges: bool
) -> tuple[gpd.GeoDataFrame, str]:
    """Return the features near the region, maybe none, and what they are: "line", "polygon" ..."""
    found = [gpd.GeoDataFrame(geometry=[], crs=cells.rio.crs)]
    with opened(path, what) as (place, info):
        crs = pyproj.CRS(info["crs"])
        check_place(info["total_bounds"], crs, f"{what}: {path}", cells)
        box = geography.window(cells, crs, margin * cells.rio.transform().a)
        for turn in geography.turns(box, info["total_bounds"], crs) if box else []:
            assert box is not None  # without it there are no turns
            table = read_part(place, info, np.add(box, [turn, 0, turn, 0]))
            shapes, rows = geography.to_plane(
                np.array(table.geometry), crs, cells, box, turn=turn, edges=edges
            )
            found.append(table.iloc[rows].set_geometry(shapes, crs=cells.rio.crs))
    merged = pd.concat([part for part in found if len(part)] or found).sort_index(kind="stable")
    west, south, east, north = cells.rio.bounds()
    reach = margin * cells.rio.transform().a
    around = shapely.box(west - reach, south - reach, east + reach, north + reach)
    kinds = [kind for kind in ("polygon", "line", "point") if kind in info["geometry_type"].lower()]
    return merged[merged.intersects(around)].reset_index(drop=True), [*kinds, "feature"][0]


def _dimension(shapes: gpd.GeoDataFrame) -> np.ndarray:
    """Return 0 for points, 1 for lines and 2 for polygons: (n,)."""
    return shapely.get_dimensions(shapes.geometry.values)


def _selected(shapes: gpd.GeoDataFrame, layer: Layer, path: Path, what: str) -> gpd.GeoDataFrame:
    if layer.classes is None:
        return shapes
    return shapes[column(shapes, layer.column, what, path).isin(layer.classes)]


def _burnt(
    shapes: gpd.GeoDataFrame, numbers: np.ndarray | int, cells: xr.DataArray, n: int
) -> np.ndarray:
    """Burn polygons, by the centre rule, on cells cut into n x n: numbers (y * n, x * n)."""
    numbers = np.broadcast_to(numbers, len(shapes))
    shape = (cells.shape[0] * n, cells.shape[1] * n)
    dtype = "uint8" if numbers.max(initial=0) < 256 else "uint16"
    if shapes.empty:
        return np.zeros(shape, dtype)
    to = cells.rio.transform()
    # off by a hair, in no likely direction: an edge through the very centre of a subcell, as of
    # polygons drawn on the same grid, then falls on the same side in a part as in the whole
    off = 1e-6 * to.a
    transform = Affine(to.a / n, 0, to.c + off, 0, to.e / n, to.f + 0.618 * off)
    pairs = zip(shapes.geometry, numbers.tolist(), strict=True)
    return rasterize(pairs, out_shape=shape, transform=transform, dtype=dtype)


def _counted(burnt: np.ndarray, n: int, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the share of each number, 1 to `count`, among the n x n subcells of every cell.

    And the share of all numbers but 0.
    """
    rows, columns = burnt.shape[0] // n, burnt.shape[1] // n
    found = np.empty((count + 1, rows, columns), "float32")
    start = np.repeat(np.arange(columns), n) * (count + 2)
    for row in range(rows):
        numbers = (start + burnt[row * n : (row + 1) * n]).ravel()
        times = np.bincount(numbers, minlength=columns * (count + 2)).reshape(columns, count + 2)
        times[:, -1] = n**2 - times[:, 0]
        found[:, row] = times[:, 1:].T / n**2
    return list(found[:-1]), found[-1]


def _pieces(shapes: gpd.GeoDataFrame, longest: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut lines and outlines into pieces, those of some lines at a time: memory stays flat.

    Yields the vertices (n, 2) in order, and what leads from each to the next (n, 2): nothing from
    the last vertex of a line, nor from a point.
    """
    kind, geometry = _dimension(shapes), shapes.geometry.values
    points = shapely.get_coordinates(geometry[kind == 0])
    yield points, np.zeros_like(points)
    parts = shapely.get_parts(np.append(geometry[kind == 1], shapely.boundary(geometry[kind == 2])))
    parts = shapely.get_parts(parts)  # of collections of collections
    batch = np.cumsum(shapely.length(parts) / longest) // planar.BATCH
    for number in np.unique(batch):
        some = geography.segmentized(parts[batch == number], longest)
        xy, part = shapely.get_coordinates(some, return_index=True)
        along = np.diff(xy, axis=0, append=xy[-1:])
        along[np.diff(part, append=-1) != 0] = 0
        yield xy, along
