"""Rasters as people have them (GeoTIFF, NetCDF, GMT grids): where the pixels lie, and their values.

Whatever the file's order, a raster is read north up, and one that goes around the Earth is read
across its seam, wherever that is.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from numpy.typing import DTypeLike
from rasterio.windows import Window

from mpm import netcdf
from mpm.layers import Layer


@dataclass(frozen=True)
class Source:
    """Where the pixels of one layer's raster lie, and how to get at them.

    Attributes
    ----------
    path : Path
    modified : int
        When the file was last changed (ns).
    crs : str
        Its CRS, as WKT.
    west, north : float
        Outer edges of the north-west pixel, in the CRS.
    dx, dy : float
        Pixel size, positive.
    rows, columns : int
        Of pixels; a column that repeats the first one is not counted.
    period : int or None
        Columns around the Earth, for a raster that goes around it.
    is_south_up : bool
        Whether the file's first row is the southernmost.
    variable : str or None
        NetCDF variable; None for other formats.
    band : int
    valid_range : tuple of float or None
    """

    path: Path
    modified: int
    crs: str
    west: float
    north: float
    dx: float
    dy: float
    rows: int
    columns: int
    period: int | None
    is_south_up: bool
    variable: str | None
    band: int
    valid_range: tuple[float, float] | None

    @property
    def is_geographic(self) -> bool:
        """Whether coordinates are longitude and latitude."""
        return pyproj.CRS(self.crs).is_geographic


def describe(layer: Layer, path: Path) -> Source:
    """Find out where a layer's pixels lie, without reading them.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it has no CRS or one that its coordinates contradict, is rotated, has pixels that are not
        square (unless in degrees) or rows of uneven spacing, holds complex numbers or text, lacks
        the band or variable, or is a folder.
    """
    return _described(layer, path, path.stat().st_mtime_ns)


@lru_cache(maxsize=512)
def _described(layer: Layer, path: Path, modified: int) -> Source:
    what = f"layer {layer.name!r}: {path}"
    if path.is_dir():
        raise ValueError(f"{what} is a folder; name the file")
    facts = (netcdf.facts if netcdf.engine(path) else _geotiff_facts)(layer, path, what)
    crs, told = facts.pop("crs"), pyproj.CRS(layer.crs) if layer.crs else None
    # longitudes and latitudes of a NetCDF file are WGS 84 only until somebody knows better
    if told is not None and netcdf.engine(path) and crs is not None and crs.is_geographic:
        crs = told
    if crs is not None and told is not None and crs != told:
        raise ValueError(
            f"{what} states its own CRS ({crs.name}), the study file another ({told.name}); leave "
            "`crs` out, or correct the file"
        )
    crs = crs or told
    if crs is None:
        raise ValueError(f"{what} has no CRS; name it under `crs` in the study file")
    _check_place(crs, what, **{key: facts[key] for key in "west north dx dy rows columns".split()})
    facts |= _around_the_earth(crs, facts["dx"], facts["columns"])
    return Source(
        path=path,
        modified=modified,
        crs=crs.to_wkt(),
        band=layer.band,
        valid_range=layer.valid_range,
        **facts,
    )


def _check_place(
    crs: pyproj.CRS,
    what: str,
    west: float,
    north: float,
    dx: float,
    dy: float,
    rows: int,
    columns: int,
) -> None:
    east, south = west + dx * columns, north - dy * rows
    if crs.is_geographic:
        if max(abs(west), abs(east)) > 540 or max(abs(south), abs(north)) > 90 + dy:
            raise ValueError(
                f"{what} says it is in degrees ({crs.name}), but reaches {east:g}, {north:g}; "
                "correct its CRS"
            )
        return
    if not crs.is_projected:
        raise ValueError(f"{what} has a CRS of its own ({crs.name}); give it one of the Earth")
    # in kilometres, a continent has such coordinates
    in_metres = crs.axis_info[0].unit_conversion_factor < 100
    if in_metres and max(map(abs, (west, east, south, north))) <= 360:
        raise ValueError(
            f"{what} says it is projected ({crs.name}), but its bounds {west:g}, {south:g}, "
            f"{east:g}, {north:g} look like degrees; correct its CRS"
        )
    if abs(dx - dy) > 0.01 * max(dx, dy):
        raise ValueError(f"{what} has pixels of {dx:g} x {dy:g}; warp it to square ones first")


def _around_the_earth(crs: pyproj.CRS, dx: float, columns: int) -> dict:
    """Count the columns of a raster around the Earth once; a node-registered one repeats one."""
    around = round(360 / dx) if crs.is_geographic else 0
    if not around or columns < around or abs(around * dx - 360) > 0.1 * dx:
        return {"period": None}
    return {"period": around, "columns": around, "dx": 360 / around}


def _geotiff_facts(layer: Layer, path: Path, what: str) -> dict:
    if path.suffix.lower() in (".csv", ".tsv"):
        raise ValueError(f"{what} is a table; use kind: points")
    with rasterio.open(path) as file:
        if layer.variable is not None:
            raise ValueError(f"{what} is no NetCDF file; leave `variable` out")
        if layer.band > file.count:
            raise ValueError(f"{what} has no band {layer.band} of {file.count}")
        if np.dtype(dtype := file.dtypes[layer.band - 1]).kind == "c":
            raise ValueError(f"{what} holds complex numbers ({dtype}); write its real part first")
        to, rows, columns = file.transform, file.height, file.width
        if (file.crs or layer.crs) and to.is_identity:
            raise ValueError(f"{what} does not say where it lies; georeference it first")
        if max(abs(to.b), abs(to.d)) > 1e-6 * abs(to.a) or to.a < 0:
            raise ValueError(f"{what} is rotated; warp it north up first")
        crs = pyproj.CRS(file.crs.to_wkt()) if file.crs else None
    is_south_up = to.e > 0
    return {
        "crs": crs,
        "west": to.c,
        "north": to.f + to.e * rows if is_south_up else to.f,
        "dx": to.a,
        "dy": abs(to.e),
        "rows": rows,
        "columns": columns,
        "is_south_up": is_south_up,
        "variable": None,
    }


def read(source: Source, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """Read a window of pixels.

    Parameters
    ----------
    source : Source
    rows, columns : tuple of int
        First, and one past the last, counted from the north-west pixel. They may lie outside the
        raster; columns of one that goes around the Earth are counted on beyond its seam.

    Returns
    -------
    array (row, column)
        float32 (float64 if the file's type does not fit), NaN where missing, infinite, out of the
        valid range or outside.

    Raises
    ------
    OSError
        If the file is damaged.
    """
    first, last = max(rows[0], 0), min(rows[1], source.rows)
    around = source.period
    turns = range(columns[0] // around, (columns[1] - 1) // around + 1) if around else range(1)
    values = None
    for turn in turns:
        offset = turn * (around or 0)
        left, right = max(columns[0], offset), min(columns[1], offset + source.columns)
        if first < last and left < right:
            pixels = _pixels(source, first, last, left - offset, right - offset)
            if values is None:
                values = _missing(rows, columns, pixels.dtype)
            values[first - rows[0] : last - rows[0], left - columns[0] : right - columns[0]] = (
                pixels
            )
    return _missing(rows, columns, "float32") if values is None else values


def _missing(rows: tuple[int, int], columns: tuple[int, int], dtype: DTypeLike) -> np.ndarray:
    shape = max(rows[1] - rows[0], 0), max(columns[1] - columns[0], 0)
    return np.full(shape, np.nan, dtype)


def _pixels(source: Source, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Pixels inside the raster, rows counted from the north."""
    if source.is_south_up:
        top, bottom = source.rows - bottom, source.rows - top
    if source.variable is None:
        values = _geotiff_pixels(source, top, bottom, left, right)
    else:
        window = slice(top, bottom), slice(left, right)
        values = netcdf.pixels(source.path, source.variable, source.band, window)
    if source.is_south_up:
        values = values[::-1]
    low, high = source.valid_range or (-np.inf, np.inf)
    return np.where(np.isfinite(values) & (values >= low) & (values <= high), values, np.nan)


def _geotiff_pixels(source: Source, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    with rasterio.open(source.path) as file:
        window = Window(left, top, right - left, bottom - top)
        band = file.read(source.band, window=window, masked=True)
        scale, offset = file.scales[source.band - 1], file.offsets[source.band - 1]
    values = band.astype(np.result_type(band.dtype, "float32")).filled(np.nan)
    return values if (scale, offset) == (1, 0) else values * scale + offset


@lru_cache(maxsize=64)
def codes(source: Source) -> tuple[int, ...]:
    """Return the codes that occur in a raster of classes, sorted.

    Raises
    ------
    ValueError
        If it holds a number that is not whole.
    """
    found: set[int] = set()
    strip = max(1, 4_000_000 // source.columns)
    for top in range(0, source.rows, strip):
        values = np.unique(read(source, (top, top + strip), (0, source.columns)))
        values = values[np.isfinite(values)]
        if (values % 1 != 0).any():
            raise ValueError(
                f"holds {values[values % 1 != 0][0]:g}; classes are whole numbers, so use kind: "
                "continuous"
            )
        found |= {int(code) for code in values}
    return tuple(sorted(found))
