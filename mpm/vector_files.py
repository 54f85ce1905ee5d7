"""Open vector files as people have them: shapefiles in part, several layers, no CRS."""

import difflib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyogrio

_SWITCH = threading.Lock()  # GDAL's settings are those of the whole process


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
        If the file has no CRS, no feature with a geometry, or several layers.
    """
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


def read_part(place: Path, info: dict, bbox: tuple[float, ...] | None = None) -> gpd.GeoDataFrame:
    """Read the features of an opened file that meet a rectangle; their numbers are the index."""
    bbox = None if bbox is None else tuple(map(float, bbox))
    table = pyogrio.read_dataframe(place, layer=info["layer_name"], bbox=bbox, fid_as_index=True)
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

    Raises
    ------
    ValueError
        If there is none of that name (the message lists those there are and the nearest) or two.
    """
    there = [str(each) for each in table.columns if each != "geometry"]
    if name is None:
        raise ValueError(f"{what}: name the column of {path} to use; it has {there}")
    if name not in there:
        near = nearest(name, there)
        raise ValueError(f"{what}: {path} has no column {name!r}; it has {there}{near}")
    if there.count(name) > 1:
        raise ValueError(f"{what}: {path} has {there.count(name)} columns {name!r}; rename them")
    return table[name]


def nearest(name: str | int, there: list) -> str:
    """Return "; did you mean 'this' or 'that'?" for a misspelt name, or nothing."""
    folded = {str(each).casefold(): repr(each) for each in there}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(folded[each] for each in near)}?" if near else ""


def _content(place: Path, path: Path, what: str) -> dict:
    """Describe a vector file's only layer with geometries, or say what is wrong."""
    layers = [name for name, geometry in pyogrio.list_layers(place) if geometry is not None]
    if len(layers) != 1:
        names = ", ".join(layers) or "none"
        raise ValueError(f"{what}: {path} must hold one layer of features; it has {names}")
    info = pyogrio.read_info(place, layer=layers[0], force_total_bounds=True)
    if info["crs"] is None:
        raise ValueError(f"{what}: {path} has no CRS; add a .prj or set it in a GIS")
    if info["total_bounds"] is None:
        raise ValueError(f"{what}: {path} holds no feature with a geometry")
    return info
