"""Put evidence layers, as people have them, on a region's grid, and check a whole study."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from rasterio.features import rasterize

from mpm import artefacts, kinds, places, rasters, resample, vector_files, vectors
from mpm.deposits import read_deposits
from mpm.layers import Layer
from mpm.places import Part
from mpm.study import Region, Study

TILED = ("continuous", "categorical", "fraction")  # kinds that read no more than a part needs


def grid(region: Region) -> xr.DataArray:
    """Make a region's grid: one value a cell, north up, cell centres as coordinates.

    Parameters
    ----------
    region : Region
        CRS, cell size (m) and bounds (m).

    Returns
    -------
    DataArray (y, x)
        float32 zeros; only the geometry matters.
    """
    west, _, _, north = region.bounds
    return places.grid(region.crs, (west, north), region.resolution, region.shape)


def align_layer(
    study: Study, layer: Layer, region: str, cells: xr.DataArray, *, part: Part | None = None
) -> xr.DataArray:
    """Put one evidence layer on a region's grid.

    Parameters
    ----------
    study : Study
        Says where the files lie.
    layer : Layer
        Which file, and how it is to be read (`layer.kind`).
    region : str
        Name of the region.
    cells : DataArray (y, x)
        The region's whole grid, of `grid`.
    part : tuple of slice, optional
        Rows and columns that are wanted, by default all; the values are those of the whole. Kinds
        in `TILED` read what the part needs; others are computed whole and cut.

    Returns
    -------
    DataArray (layer, y, x)
        float32, NaN where unobserved; one plane, or one a class for kind "categorical". Coordinates
        along `layer`: group, units, kind ("continuous" or "binary"), origin, method, source,
        checksum (SHA-256 of the file, of its parts for a shapefile, first 12 digits) and why.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it cannot be read, has no CRS, misses the column, does not touch the region or has no
        value there (which a part need not). Every message names file and layer.
    """
    facts = coordinates(study, layer, region, cells)
    rows, columns = part or (slice(None), slice(None))
    coords = {"y": cells.y[rows], "x": cells.x[columns]}
    coords |= {key: ("layer", fact) for key, fact in facts.items()}
    values = planes(study, layer, region, cells, part=part)
    return xr.DataArray(values, coords, ("layer", "y", "x"))


def coordinates(
    study: Study, layer: Layer, region: str, cells: xr.DataArray
) -> dict[str, list[str]]:
    """Say what planes a layer becomes, without making them.

    Parameters
    ----------
    study, layer, region, cells
        As for `align_layer`.

    Returns
    -------
    dict of list
        By name of the coordinate, one value a plane.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `align_layer`, of what is known before values are read.
    """
    path = study.file(layer, region)
    with vector_files.reading(path, f"layer {layer.name!r}", study.remedy):
        names, kind, method = kinds.describe(study, layer, region, cells)
        parts = tuple(artefacts.parts(path))
        checksum = _checksum(parts, max(part.stat().st_mtime_ns for part in parts))
    facts = {"group": layer.group, "units": layer.units, "kind": kind, "origin": layer.name}
    facts |= {"method": method, "source": layer.source, "checksum": checksum, "why": layer.why}
    return {"layer": names} | {key: [fact] * len(names) for key, fact in facts.items()}


def planes(
    study: Study, layer: Layer, region: str, cells: xr.DataArray, *, part: Part | None = None
) -> np.ndarray:
    """Return the values of `align_layer` alone: float32 (layer, y, x).

    Parameters
    ----------
    study, layer, region, cells, part
        As for `align_layer`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `align_layer`.
    """
    path = study.file(layer, region)
    with vector_files.reading(path, f"layer {layer.name!r}", study.remedy):
        values = np.asarray(kinds.read(study, layer, region, cells, part), "float32")
    if part is None and not np.isfinite(values).any():
        verb, remedy = _lack(layer, path, cells)
        raise ValueError(f"layer {layer.name!r}: {path} {verb} the region{remedy}")
    return values


@lru_cache(maxsize=512)
def _checksum(parts: tuple[Path, ...], _modified: int) -> str:
    if len(parts) == 1:
        return artefacts.sha256(parts[0])[:12]
    together = "".join(artefacts.sha256(part) for part in parts)  # e.g. of a shapefile
    return hashlib.sha256(together.encode()).hexdigest()[:12]


def _lack(layer: Layer, path: Path, cells: xr.DataArray) -> tuple[str, str]:
    is_raster = layer.kind in TILED and kinds.format_of(path) == "raster"
    if is_raster and not resample.touches(rasters.describe(layer, path), cells):
        return "does not touch", "; check its CRS and the region's bounds"
    return "has no value in", ""


def area_mask(study: Study, region: str, cells: xr.DataArray) -> np.ndarray:
    """Return the cells (y, x) whose centre lies in the region's study area.

    Raises
    ------
    FileNotFoundError
        If the file of the area is missing.
    ValueError
        If it cannot be read, holds anything but polygons, or none of them touches the region.
    """
    path = study.area(region)
    if path is None:
        return np.ones(cells.shape, bool)
    what = f"area of region {region!r}"
    with vector_files.reading(path, what, study.remedy):
        shapes = vectors.features(path, what, cells)
    if (shapes.geometry.type.str.contains("Polygon") == 0).any():
        raise ValueError(f"{what}: {path} must hold polygons only; lines and points bound no area")
    burnt = rasterize(shapes.geometry, out_shape=cells.shape, transform=cells.rio.transform())
    return burnt.astype(bool)


def check(study: Study) -> pd.DataFrame:
    """Open every file of a study and say what it holds, or everything that is wrong with it.

    Returns
    -------
    DataFrame
        region, layer, CRS, resolution, method, coverage (% of the study area), min, max, units.
        `attrs["deposits"]` holds the deposits by region.

    Raises
    ------
    ValueError
        If anything is wrong: one line a problem.
    """
    rows, problems = [], []
    for region, spec in study.regions.items():
        cells = grid(spec)
        try:
            inside = area_mask(study, region, cells)
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"region {region!r}: {error}")
            continue
        for layer in study.layers:
            try:
                rows.append(_describe(study, layer, region, cells, inside))
            except (ValueError, FileNotFoundError) as error:
                problems.append(f"region {region!r}, {error}")
    deposits, more = _deposits(study)
    problems += more
    if problems:
        raise ValueError(
            f"{study.path} has {len(problems)} problem(s):\n  " + "\n  ".join(problems)
        )
    table = pd.DataFrame(rows)
    table.attrs["deposits"] = deposits
    return table


def _describe(
    study: Study, layer: Layer, region: str, cells: xr.DataArray, inside: np.ndarray
) -> dict:
    aligned, path = align_layer(study, layer, region, cells), study.file(layer, region)
    observed = np.isfinite(aligned.values).any(axis=0) & inside
    if not observed.any():
        raise ValueError(f"layer {layer.name!r}: {path} has no value inside the study area")
    crs, resolution = _geometry(study, layer, path)
    return {
        "region": region,
        "layer": layer.name,
        "CRS": crs,
        "resolution": resolution,
        "method": aligned["method"].values[0],
        "coverage": round(100 * observed.sum() / inside.sum(), 1),
        "min": float(np.nanmin(aligned.values[:, inside])),
        "max": float(np.nanmax(aligned.values[:, inside])),
        "units": layer.units,
    }


def _geometry(study: Study, layer: Layer, path: Path) -> tuple[str, str]:
    """CRS and resolution of a layer's file, for people."""
    while layer.of is not None:
        layer = study.layer(layer.of)
    form = kinds.format_of(path)
    if form == "hexagons":
        return "EPSG:4326", "H3 cells"
    if form == "vector":
        with vector_files.opened(path, f"layer {layer.name!r}") as (_, info):
            return _short(info["crs"]), "vector"
    if layer.kind == "points":
        return _short(layer.crs or "EPSG:4326"), "points"
    source = rasters.describe(layer, path)
    name = pyproj.CRS(source.crs).axis_info[0].unit_name
    unit = {"degree": "deg", "metre": "m"}.get(name, name)
    sides = dict.fromkeys(f"{side:.4g}" for side in (source.dx, source.dy))
    return _short(source.crs), f"{' x '.join(sides)} {unit}"


def _short(crs: object) -> str:
    crs = pyproj.CRS(crs)
    name = crs.name if crs.name.lower() not in ("", "unknown", "unnamed") else "custom"
    return ":".join(crs.to_authority() or (name,))


def _deposits(study: Study) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Read the deposits of each region, and list what is wrong with them."""
    tables, problems = {}, []
    for region, spec in study.regions.items():
        try:
            tables[region] = read_deposits(study, region, grid(spec))
        except (ValueError, FileNotFoundError) as error:
            problems.append(str(error))
    if problems:
        return tables, list(dict.fromkeys(problems))  # regions may share a file
    known = pd.concat(tables.values())
    for name, target in study.targets.items():
        if target.of(known).empty:
            wanted = "" if target.types is None else f" of type {' or '.join(target.types)}"
            there = ", ".join(sorted(known["type"].dropna().unique())) or "none"
            hints = {
                table.attrs["hint"]: None for table in tables.values() if "hint" in table.attrs
            }
            problems.append(
                f"target {name!r} has no deposits{wanted} inside {', '.join(tables)}; "
                f"types inside: {'; '.join([there, *hints])}"
            )
    return tables, problems


_SENTINELS = (-9999.0, -99999.0, -32768.0, 32767.0, -999.0)


def remarks(study: Study, table: pd.DataFrame) -> list[str]:
    """Return what is not wrong but looks odd in a checked study, a line each.

    Parameters
    ----------
    study : Study
    table : DataFrame
        Of `check`.
    """
    found = []
    for row in table.itertuples():
        for value in (row.min, row.max):
            if value in _SENTINELS or abs(value) > 1e20:
                found.append(
                    f"layer {row.layer!r}, region {row.region!r}: {value:g} looks like a code for "
                    "missing values; declare it as nodata, or set `valid_range`"
                )
    for region, part in table[table["coverage"] < 5].groupby("region", sort=False):
        most = part["coverage"].max()
        found.append(
            f"{', '.join(part['layer'])}: no more than {most:g} % of region {region!r} covered; "
            "are its bounds (west, south, east, north) right?"
        )
    for region, known in table.attrs["deposits"].items():
        found.append(_deposit_remark(study, region, known))
    return found


def _deposit_remark(study: Study, region: str, known: pd.DataFrame) -> str:
    counts = []
    for name, target in study.targets.items():
        counts.append(f"{target.of(known)['deposit'].nunique()} {name}")
    text = f"deposits in {region}: {', '.join(counts)}"
    for what in ("dropped", "merged"):
        names = known.attrs.get(f"{what}_names", [])
        if names:
            shown = ", ".join(map(str, names[:5])) + (" ..." if len(names) > 5 else "")
            verb = "lie outside" if what == "dropped" else "repeat another"
            text += f"; {len(names)} {verb} ({shown})"
    if beside := known.attrs.get("beside_names"):
        text += (
            f"; {len(beside)} of those outside lie within a target's radius of the grid, yet make "
            f"no cell inside positive ({', '.join(beside[:5])}); widen `bounds` to hold them"
        )
    if "hint" in known.attrs:
        text += f"; {known.attrs['hint']}"
    return text
