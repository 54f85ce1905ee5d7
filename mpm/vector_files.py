"""Open vector files as people have them: shapefiles in part, several layers, no CRS."""

import difflib
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import rasterio
import shapely
import xarray as xr
from pyogrio.errors import DataLayerError, DataSourceError

from mpm import geography

UNREADABLE = (  # what libraries raise on damaged files, or on such as nobody may read
    rasterio.errors.RasterioError,
    DataSourceError,
    DataLayerError,  # and those for features, fields and geometries, which are its kinds
    shapely.errors.ShapelyError,
    OSError,
    UnicodeError,
    pd.errors.ParserError,
    pd.errors.EmptyDataError,
)
VECTORS = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
_SWITCH = threading.Lock()  # GDAL's settings are those of the whole process
_TABLES = (".csv", ".tsv", ".txt")
_RASTERS = (".tif", ".tiff", ".nc", ".grd", ".vrt", ".img", ".asc")


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Say whose file is missing or cannot be read, of any format.

    Parameters
    ----------
    path : Path
    what : str
        Who needs it, for messages, e.g. "layer 'faults'".
    remedy : str
        What to do if it is missing.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    ValueError
        If it cannot be read.
    """
    try:
        if not path.exists():
            raise FileNotFoundError(f"{what}: {path} is missing; {remedy}")
        yield
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise ValueError(f"{what}: {path} cannot be read ({error})") from error


@contextmanager
def opened(path: Path, what: str) -> Iterator[tuple[Path, dict]]:
    """Yield a path that GDAL can open, and what the file holds.

    A shapefile without its .shx is restored in a copy: nothing is written beside the user's file.

    Parameters
    ----------
    path : Path
        GeoPackage, GeoJSON, FlatGeobuf or shapefile.
    what : str
        Who needs it, for messages, e.g. "layer 'faults'".

    Raises
    ------
    ValueError
        If the file has no CRS, no feature with a geometry, or several layers, or is a folder, a
        table or a raster.
    """
    _check_form(path, what)
    beside = list(path.parent.glob(f"{escape(path.stem)}.*"))
    if path.suffix.lower() != ".shp" or any(each.suffix.lower() == ".shx" for each in beside):
        yield path, _content(path, path, what)
        return
    with tempfile.TemporaryDirectory() as folder:
        for each in beside:
            shutil.copyfile(each, Path(folder) / each.name)
        copy = Path(folder) / path.name
        with _SWITCH:
            pyogrio.set_gdal_config_options({"SHAPE_RESTORE_SHX": "YES"})
            try:
                info = _content(copy, path, what)
            finally:
                pyogrio.set_gdal_config_options({"SHAPE_RESTORE_SHX": None})
        yield copy, info


def read(path: Path, what: str) -> gpd.GeoDataFrame:
    """Read all features of a vector file that have a geometry, in the file's own CRS.

    Raises
    ------
    ValueError
        As for `opened`.
    """
    with opened(path, what) as (place, info):
        return read_part(place, info)


def read_part(place: Path, info: dict, bbox: Iterable[float] | None = None) -> gpd.GeoDataFrame:
    """Read the features of an opened file that meet a rectangle; their numbers are the index."""
    box = None if bbox is None else tuple(map(float, bbox))
    table = pyogrio.read_dataframe(place, layer=info["layer_name"], bbox=box, fid_as_index=True)
    return table[~(table.geometry.isna() | table.geometry.is_empty)]


def classes(path: Path, name: str | None, what: str) -> set:
    """Return the classes that occur in a column of a vector file; whole numbers as int.

    Raises
    ------
    ValueError
        As for `opened` and `column`.
    """
    with opened(path, what) as (place, info):
        table = pyogrio.read_dataframe(place, layer=info["layer_name"], read_geometry=False)
    values = column(table, name, what, path).dropna()
    if values.dtype.kind == "f" and (values % 1 == 0).all():
        values = values.astype(int)  # integers with gaps come as floats
    return set(values)


def column(table: pd.DataFrame, name: str | None, what: str, path: Path) -> pd.Series:
    """Return a table's column by name.

    Parameters
    ----------
    table : DataFrame
    name : str or None
    what, path
        Whose column it is, and its file, for the message.

    Raises
    ------
    ValueError
        If there is none of that name (the message lists those there are and the nearest, and names
        the line that holds it in `attrs["below"]` of a table that `points.read` has read) or two.
    """
    there = [str(each) for each in table.columns if each != "geometry"]
    if name is None:
        raise ValueError(f"{what}: name the column of {path} to use; it has {there}")
    if name not in there:
        near = nearest(name, there)
        below = [line for line, names in table.attrs.get("below", {}).items() if name in names]
        lower = f"; line {below[0]} holds the names; delete the lines above it" if below else ""
        raise ValueError(f"{what}: {path} has no column {name!r}; it has {there}{near}{lower}")
    if there.count(name) > 1:
        raise ValueError(f"{what}: {path} has {there.count(name)} columns {name!r}; rename them")
    return table[name]


def check_place(
    bounds: tuple[float, ...], crs: pyproj.CRS, where: str, cells: xr.DataArray
) -> None:
    """Refuse coordinates that can't be in the CRS that their file states.

    Parameters
    ----------
    bounds : tuple of float
        West, south, east, north of all that the file holds.
    crs : CRS
        Of the file.
    where : str
        Who needs it, and the file, for messages.
    cells : DataArray (y, x)
        The region's grid.

    Raises
    ------
    ValueError
        If degrees are passed off as metres or the other way round, or the CRS is none of the Earth.
    """
    west, south, east, north = np.abs(bounds)
    if crs.is_geographic:
        if max(west, east) > 540 or max(south, north) > 90 + 1e-6:
            looks = "look like metres" if max(west, south, east, north) > 540 else "look exchanged"
            raise ValueError(f"{where}: its coordinates {looks}, but {_corrected(bounds, crs)}")
    elif not crs.is_projected:
        raise ValueError(f"{where} has a CRS of its own ({crs.name}); give it one of the Earth")
    # in kilometres, a continent has such coordinates
    elif max(west, south, east, north) <= 360 and crs.axis_info[0].unit_conversion_factor < 100:
        if not _is_small_and_near(bounds, crs, cells):
            raise ValueError(
                f"{where}: its coordinates look like degrees, but {_corrected(bounds, crs)}"
            )


def nearest(name: str | int, there: list) -> str:
    """Return "; did you mean 'this' or 'that'?" for a misspelt name, or nothing."""
    folded = {str(each).casefold(): repr(each) for each in there}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(folded[each] for each in near)}?" if near else ""


def _corrected(bounds: tuple[float, ...], crs: pyproj.CRS) -> str:
    west, south, east, north = bounds
    return (
        f"the CRS is {crs.name} (x from {west:g} to {east:g}, y from {south:g} to {north:g}); "
        "correct it"
    )


def _is_small_and_near(bounds: tuple[float, ...], crs: pyproj.CRS, cells: xr.DataArray) -> bool:
    """Say whether a few hundred metres around a CRS's origin may well be in the region.

    Of a continent whose CRS has its origin in its middle, they are not: there, too, they are
    degrees.
    """
    west, south, east, north = cells.rio.bounds()
    if max(east - west, north - south) > 100 * 720:
        return False
    box = geography.window(cells, crs, np.hypot(east - west, north - south))
    return box is not None and shapely.box(*box).intersects(shapely.box(*bounds))


def _check_form(path: Path, what: str) -> None:
    """Raise if a file is, by its name, none of vectors."""
    if path.is_dir():
        raise ValueError(f"{what}: {path} is a folder; name the file")
    suffix, is_layer = path.suffix.lower(), what.startswith("layer")
    for suffixes, form, kind in (
        (_TABLES, "table", "points"),
        (_RASTERS, "raster", "continuous or categorical"),
    ):
        if suffix in suffixes:
            remedy = f"use kind: {kind}" if is_layer else "it must be a vector file"
            raise ValueError(f"{what}: {path} is a {form}; {remedy}")


def _content(place: Path, path: Path, what: str) -> dict:
    """Describe a vector file's only layer with geometries, or say what is wrong."""
    _check_length(place)
    layers = [name for name, geometry in pyogrio.list_layers(place) if geometry is not None]
    if len(layers) != 1:
        names = ", ".join(layers) or "none"
        raise ValueError(f"{what}: {path} must hold one layer of features; it has {names}")
    info = pyogrio.read_info(place, layer=layers[0], force_total_bounds=True)
    if info["crs"] is None:
        raise ValueError(f"{what}: {path} has no CRS; add a .prj or set it in a GIS")
    if info["total_bounds"] is None or info["features"] == 0:  # bounds of an empty shapefile are 0
        raise ValueError(f"{what}: {path} holds no feature with a geometry")
    if path.suffix.lower() == ".fgb" and pyogrio.read_dataframe(place, max_features=1).empty:
        raise DataSourceError("it is cut short")  # GDAL takes one without its end for empty
    return info


def _check_length(path: Path) -> None:
    """Raise if a shapefile is shorter than it says: GDAL reads what it can of some, silently."""
    if path.suffix.lower() != ".shp":
        return
    with path.open("rb") as file:
        told = 2 * int.from_bytes(file.read(28)[24:], "big")  # a number of 16-bit words
    there = path.stat().st_size
    if there < told:
        raise DataSourceError(f"it is cut short: {there} of {told} bytes")
