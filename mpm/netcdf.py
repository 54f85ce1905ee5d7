"""NetCDF files and GMT grids: which variable, on which coordinates, and its values."""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import xarray as xr

from mpm.layers import Layer

_ENGINES = {b"\x89HDF": "h5netcdf", b"CDF\x01": "scipy", b"CDF\x02": "scipy"}
_X_NAMES = ("lon", "longitude", "x", "easting")
_Y_NAMES = ("lat", "latitude", "y", "northing")


def engine(path: Path) -> str | None:
    """Return what reads a file, by its first bytes; None if it is no NetCDF."""
    with path.open("rb") as stream:
        return _ENGINES.get(stream.read(4))


def facts(layer: Layer, path: Path, what: str) -> dict:
    """Find out where a layer's pixels lie: the fields of `rasters.Source`, CRS as an object.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it lacks the band or variable, the variable is of text, or its coordinates are not evenly
        spaced.
    """
    with _opened(path) as data:
        array = data[_variable(data, layer.variable, what)]
        _select(array, layer.band, what)
        if array.dtype.kind not in "biufmM":
            raise ValueError(f"{what}: variable {array.name!r} holds text; it must hold numbers")
        x, y = _axes(array)
        crs = _crs_of_grid(data, array)
        if crs is None and layer.crs is None and _is_in_degrees(array[x]):
            crs = pyproj.CRS("EPSG:4326")
        west, dx = _regular(array[x], what)
        first, dy = _regular(array[y], what)
    if dx < 0:
        raise ValueError(f"{what} runs from east to west; turn it first")
    rows, columns = array.sizes[y], array.sizes[x]
    return {
        "crs": crs,
        "west": west - dx / 2,
        "north": max(first, first + dy * (rows - 1)) + abs(dy) / 2,
        "dx": dx,
        "dy": abs(dy),
        "rows": rows,
        "columns": columns,
        "is_south_up": dy > 0,
        "variable": array.name,
    }


def pixels(path: Path, variable: str, band: int, window: tuple[slice, slice]) -> np.ndarray:
    """Read a window (row, column) of one plane, in the file's order of rows.

    Parameters
    ----------
    path : Path
    variable : str
    band : int
        Position along the third dimension, from 1.
    window : tuple of slice
        Rows and columns.

    Returns
    -------
    array (row, column)
        float32 (float64 if the file's type does not fit), scaled, NaN where missing or out of the
        range that the file calls valid.
    """
    with _opened(path, mask_and_scale=False) as data:
        stored = _select(data[variable], band, str(path))[window].load()
    decoded = xr.decode_cf(stored.to_dataset(name="of"), decode_times=False, decode_coords=False)
    values = decoded["of"].values
    values = values.astype(np.result_type(values, "float32"))
    return np.where(_is_invalid(stored, values), np.float32(np.nan), values)


def _is_invalid(stored: xr.DataArray, values: np.ndarray) -> np.ndarray:
    """Say which numbers of a variable lie out of its valid range: bool (y, x).

    The range is in the units of the stored numbers, but if these are integers and the range is not,
    in those of the unpacked `values`.

    Source: CF conventions, sections 2.5.1 and 8.1; NetCDF-Java, rules for missing data.
    """
    told, kept = stored.attrs, stored.values
    ends = told.get("valid_range", (told.get("valid_min", -np.inf), told.get("valid_max", np.inf)))
    if np.shape(ends) != (2,) or np.asarray(ends).dtype.kind not in "iuf":
        return np.zeros(values.shape, bool)
    low, high = ends
    if kept.dtype.kind == "f":  # 0.1 in double precision is less than in single
        low, high = np.asarray(ends).astype(kept.dtype)
    elif any(np.isfinite(end) and not isinstance(end, Integral) for end in ends):
        slack = abs(told.get("scale_factor", 0)) / 4  # of a step: unpacking rounds
        kept, low, high = values, low - slack, high + slack
    elif told.get("_Unsigned") == "true":
        unsigned = f"u{kept.dtype.itemsize}"
        kept = kept.astype(unsigned)
        low, high = (np.asarray(end).astype(unsigned) if np.isfinite(end) else end for end in ends)
    return (kept < low) | (kept > high)


def _variable(data: xr.Dataset, name: str | None, what: str) -> str:
    there = [str(key) for key, array in data.data_vars.items() if all(_axes(array))]
    if name is None and len(there) == 1:
        return there[0]
    if not there:
        raise ValueError(f"{what} has no variable on longitude and latitude, or on x and y")
    if name is None:
        raise ValueError(f"{what} has several variables; name one under `variable`: {there}")
    if name not in there:
        raise ValueError(f"{what} has no variable {name!r}; it has {there}")
    return name


def _axes(array: xr.DataArray) -> tuple[str | None, str | None]:
    """Names of the dimensions that run east and north, where there are such."""
    known = [str(name) for name in array.dims if name in array.coords]
    x = next((name for name in known if name.lower() in _X_NAMES), None)
    y = next((name for name in known if name.lower() in _Y_NAMES), None)
    return x, y


def _select(array: xr.DataArray, band: int, what: str) -> xr.DataArray:
    """One plane (y, x) of a variable, by its position along the third dimension."""
    x, y = _axes(array)
    others = [name for name in array.dims if name not in (x, y) and array.sizes[name] > 1]
    if len(others) > 1:
        raise ValueError(f"{what} has the dimensions {array.dims}; keep one besides {y} and {x}")
    count = array.sizes[others[0]] if others else 1
    if band > count:
        raise ValueError(f"{what} has no band {band} of {count}")
    single = {name: 0 for name in array.dims if name not in (x, y)}
    return array.isel(single | {name: band - 1 for name in others}).transpose(y, x)


def _crs_of_grid(data: xr.Dataset, array: xr.DataArray) -> pyproj.CRS | None:
    name = array.encoding.get("grid_mapping", array.attrs.get("grid_mapping"))
    if name not in data.variables:
        return None
    try:
        return pyproj.CRS.from_cf(data[name].attrs)
    except (pyproj.exceptions.CRSError, KeyError):
        return None


def _is_in_degrees(axis: xr.DataArray) -> bool:
    named = str(axis.name).lower() in ("lon", "longitude")
    return named or str(axis.attrs.get("units", "")).startswith("degree")


def _regular(axis: xr.DataArray, what: str) -> tuple[float, float]:
    """First value and step of evenly spaced coordinates, which are pixel centres."""
    values = axis.values.astype("float64")
    if values.size < 2:
        raise ValueError(f"{what} has fewer than two values along {axis.name}")
    step = (values[-1] - values[0]) / (values.size - 1)
    single = np.finfo("float32").eps if axis.dtype == "float32" else np.finfo("float64").eps
    slack = 0.002 * abs(step) + 4 * single * np.abs(values).max()
    if not (np.abs(np.diff(values) - step) <= slack).all() or step == 0:
        raise ValueError(f"{what} is unevenly spaced along {axis.name}; put it on a regular grid")
    return float(values[0]), float(step)


@contextmanager
def _opened(path: Path, **options: Any) -> Iterator[xr.Dataset]:
    options |= {"engine": engine(path), "decode_times": False, "cache": False}
    try:
        data = xr.open_dataset(path, **options)
    except (ValueError, TypeError, KeyError, IndexError) as error:  # cut off in the header
        raise OSError(f"damaged NetCDF: {error}") from error
    with data:
        yield data
