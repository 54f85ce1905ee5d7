"""Values at points, such as heat flow measured in boreholes, on a region's grid."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import QhullError, cKDTree

from mpm import points
from mpm.layers import Layer
from mpm.vector_files import column


def grid_points(layer: Layer, path: Path, cells: xr.DataArray) -> np.ndarray:
    """Grid values at points: the median of each cell's points, then interpolation between cells.

    Medians keep a crowd of boreholes, or one measured many times, from outweighing its
    surroundings. Nothing is extrapolated: cells farther than `reach` from any point stay missing,
    and so do, but for "nearest", cells outside the convex hull of the points. No value lies beyond
    those of the points.

    Parameters
    ----------
    layer : Layer
        Columns `x`, `y` (in `crs`, by default EPSG:4326) and `column`; `method`; `reach` (m);
        `valid_range` of the values.
    path : Path
        Table or vector file of points, as `points.read` takes.
    cells : DataArray (y, x)
        The region's grid.

    Returns
    -------
    array (y, x)
        float32, NaN where missing.

    Raises
    ------
    ValueError
        As for `points.read`, `points.place` and `points.numbers`, and if too few values lie near
        the region.

    Source: Uieda 2018, Verde, doi:10.21105/joss.00957.
    """
    what, reach = f"layer {layer.name!r}", layer.reach
    assert reach is not None  # `layers.Layer` asks for it
    table = _complete(points.read(path, what), layer, path)
    there = points.place(
        table, path, what, cells, x=layer.x, y=layer.y, crs=layer.crs or "EPSG:4326"
    )
    values = points.numbers(table, layer.column, path, what)
    low, high = layer.valid_range or (-np.inf, np.inf)
    # a triangle over a cell at the rim may need points farther out than the cell reaches
    keep = points.within(there, cells, 2 * reach) & (low <= values) & (values <= high)
    there, values = there[keep], values[keep]
    centres = np.stack(np.meshgrid(cells["x"], cells["y"]), axis=-1).reshape(-1, 2)
    away = np.inf
    if len(there):
        away, _ = cKDTree(there).query(centres, distance_upper_bound=reach * (1 + 1e-9))
    near = np.isfinite(away)
    if not near.any():
        raise ValueError(
            f"{what}: no value of {path} lies within {reach:g} m of the region's cells"
        )
    gridded = np.full(len(centres), np.nan, "float32")
    gridded[near] = _interpolate(layer, path, _medians(there, values, cells, reach), centres[near])
    return gridded.reshape(cells.shape)


def _complete(table: pd.DataFrame, layer: Layer, path: Path) -> pd.DataFrame:
    """Drop rows without value or place: compilations of measurements have some."""
    names = (
        [layer.column] if isinstance(table, gpd.GeoDataFrame) else [layer.x, layer.y, layer.column]
    )
    missing = [column(table, name, f"layer {layer.name!r}", path).isna() for name in names]
    return table[~np.any(missing, axis=0)]


def _medians(
    there: np.ndarray, values: np.ndarray, cells: xr.DataArray, reach: float
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return the median position and value in each cell of the grid, grown to hold all points."""
    import verde  # slow to import, and needed here only

    west, south, east, north = cells.rio.bounds()
    step = cells.rio.transform().a
    rim = np.ceil(2 * reach / step) * step
    blocks = verde.BlockReduce(
        np.median, spacing=step, region=(west - rim, east + rim, south - rim, north + rim)
    )
    return blocks.filter(tuple(there.T), values)


def _interpolate(
    layer: Layer,
    path: Path,
    medians: tuple[tuple[np.ndarray, ...], np.ndarray],
    centres: np.ndarray,
) -> np.ndarray:
    import verde

    coordinates, values = medians
    gridder = {
        "linear": verde.Linear,
        "cubic": verde.Cubic,
        "nearest": lambda: verde.KNeighbors(k=1),
    }[layer.method]()
    try:
        gridder.fit(coordinates, values)
    except QhullError as error:
        raise ValueError(
            f"layer {layer.name!r}: the points of {path} near the region are too few, or lie on a "
            f'line, for method {layer.method!r}; use "nearest"'
        ) from error
    # between steep neighbours a cubic overshoots by any amount
    return np.clip(gridder.predict(tuple(centres.T)), values.min(), values.max())
