"""Known deposits, as people have them, on a region's grid."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import rasterio
import xarray as xr
from rasterio.transform import rowcol
from scipy.ndimage import label
from scipy.spatial import cKDTree

from mpm import points, vector_files
from mpm.study import Deposits, Study

SAME_PLACE = 100.0  # m: deposits of one type closer than this are one


def read_deposits(study: Study, region: str, cells: xr.DataArray) -> pd.DataFrame:
    """Read the deposits that lie on a region's grid.

    Points are a deposit each, or each value of the column `group`. In the file's order, a point
    goes if one that stays has its type and lies within 100 m, or has its type, name and cell.
    Touching cells of a raster (8 neighbours) are one deposit.

    Parameters
    ----------
    study : Study
        Says where the file lies and what its columns mean.
    region : str
        Name of the region.
    cells : DataArray (y, x)
        The region's grid.

    Returns
    -------
    DataFrame
        One row a known deposit cell: deposit (number, 0 and up in the file's order), name, type, x,
        y (m, the region's CRS), row, col. Its `attrs` count what was left out, and list the names:
        `dropped`, `dropped_names` (outside the region), `merged`, `merged_names`; `beside_names`,
        where there are such, of points outside from which a target's radius reaches into the
        region. Where a file of points has none in the region, `hint` says what it holds instead.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If the file cannot be read, its CRS is missing or unknown, a column is missing (the message
        offers the nearest), a coordinate is no number or looks exchanged with the other, or a type
        is missing where targets select by type. The message names the line.
    """
    path = study.file(study.deposits, region)
    with vector_files.reading(path, "deposits", study.remedy):
        is_raster = path.suffix.lower() in (".tif", ".tiff")
        return _of_raster(path, cells) if is_raster else _of_points(study, path, cells)


def locate(found: pd.DataFrame, cells: xr.DataArray) -> pd.DataFrame:
    """Add row and col to a table with x and y (m), and drop what lies outside the grid (y, x)."""
    rows, columns = rowcol(cells.rio.transform(), found["x"], found["y"], op=float)
    found = found.assign(row=np.floor(rows), col=np.floor(columns))
    inside = found["row"].between(0, cells.shape[0] - 1) & found["col"].between(
        0, cells.shape[1] - 1
    )
    return found[inside].astype({"row": int, "col": int})


def _of_points(study: Study, path: Path, cells: xr.DataArray) -> pd.DataFrame:
    table = points.read(path, "deposits")
    listed = _listed(study.deposits, table, path, cells)
    found = locate(listed, cells)
    untyped = np.isin(listed.index, found.index[found["type"] == ""])
    if untyped.any() and any(target.types is not None for target in study.targets.values()):
        raise ValueError(
            f"deposits: {path}, {points.lines(untyped, table)}: {study.deposits.type!r} is "
            "missing, but targets select by it; fill it in, e.g. with 'unknown'"
        )
    kept = found[_first_of_same(found)]
    gone = {"dropped": listed.drop(found.index), "merged": found.drop(kept.index)}
    kept = kept.assign(deposit=pd.factorize(kept["deposit"])[0]).drop(columns="named")
    for what, rows in gone.items():
        kept.attrs |= {what: len(rows), f"{what}_names": rows["name"].tolist()}
    if beside := _beside(study, gone["dropped"], cells):
        kept.attrs["beside_names"] = beside
    if kept.empty:
        kept.attrs["hint"] = _hint(study.deposits, table, path)
    return kept.reset_index(drop=True)


def _beside(study: Study, outside: pd.DataFrame, cells: xr.DataArray) -> list[str]:
    """Name deposits outside the grid from which a target's radius reaches into it."""
    near = np.zeros(len(outside), bool)
    for target in study.targets.values():
        own = outside.index.isin(target.of(outside).index)
        near |= own & points.within(outside[["x", "y"]].to_numpy(), cells, target.radius)
    return outside["name"][near].tolist()


def _hint(spec: Deposits, table: pd.DataFrame, path: Path) -> str:
    """Say what a file holds that has no deposit in the region."""
    if table.empty:
        return "the table has no rows"
    crs, given = points.coordinates(table, path, "deposits", x=spec.x, y=spec.y, crs=spec.crs)
    (west, south), (east, north) = given.min(axis=0), given.max(axis=0)
    unit = "degrees" if np.abs(given).max() <= 360 else "metres"
    return (
        f"{len(table)} rows read, none inside the region; their coordinates look like {unit} (x "
        f"from {west:g} to {east:g}, y from {south:g} to {north:g}), the CRS says {crs.name}"
    )


def _listed(spec: Deposits, table: pd.DataFrame, path: Path, cells: xr.DataArray) -> pd.DataFrame:
    """Return all rows of a file of points, numbered from 0, with what tells deposits apart."""
    there = points.place(table, path, "deposits", cells, x=spec.x, y=spec.y, crs=spec.crs)
    names, groups = _text(table, spec.name, path), _text(table, spec.group, path)
    stand_in = [f"unnamed {k + 1}" if spec.name else str(k) for k in range(len(table))]
    return pd.DataFrame(
        {
            # text and number never meet: a group called 3 is not the fourth row
            "deposit": np.where(groups != "", groups, pd.Series(range(len(table)), dtype="object")),
            "name": np.where(names != "", names, stand_in),
            "type": _text(table, spec.type, path),
            "x": there[:, 0],
            "y": there[:, 1],
            "named": names != "",
        }
    )


def _text(table: pd.DataFrame, name: str | None, path: Path) -> np.ndarray:
    """Return a column as text, blank where it is missing or none is named: (n,)."""
    if name is None:
        return np.full(len(table), "", "object")
    column = vector_files.column(table, name, "deposits", path)
    return column.astype("str").str.strip().where(column.notna(), "").to_numpy("object")


def _first_of_same(found: pd.DataFrame) -> np.ndarray:
    """Say which rows repeat no earlier row that stays: bool (n,)."""
    # pairs of rows, the earlier first
    near = cKDTree(found[["x", "y"]]).query_pairs(SAME_PLACE, output_type="ndarray")
    kind = found["type"].to_numpy()
    near = near[kind[near[:, 0]] == kind[near[:, 1]]]
    name = found["name"].str.casefold().where(found["named"], found.index)
    same = found[["type", "row", "col"]].assign(name=name)
    number = same.groupby(list(same), sort=False).ngroup()
    beside: defaultdict[int, list[int]] = defaultdict(list)
    keep: list[bool] = []
    taken: set[int] = set()
    for earlier, row in near.tolist():
        beside[row].append(earlier)
    for row, own in enumerate(number):
        keep.append(own not in taken and not any(keep[earlier] for earlier in beside[row]))
        if keep[row]:
            taken.add(own)
    return np.array(keep, bool)


def _of_raster(path: Path, cells: xr.DataArray) -> pd.DataFrame:
    with rasterio.open(path) as source:
        if source.crs is None:
            raise ValueError(f"deposits: {path} has no CRS; set it, e.g. with `rio edit-info`")
        # nodata is no deposit: filled() before any comparison
        band = source.read(1, masked=True).filled(0)
        number, _ = label(band > 0, structure=np.ones((3, 3)))
        rows, columns = np.nonzero(number)
        x, y = rasterio.transform.xy(source.transform, rows, columns)
        to_grid = pyproj.Transformer.from_crs(source.crs, cells.rio.crs, always_xy=True)
    x, y = to_grid.transform(np.asarray(x), np.asarray(y))
    deposit = number[rows, columns] - 1
    found = pd.DataFrame(
        {"deposit": deposit, "name": [f"site {k + 1}" for k in deposit], "type": ""}
    )
    found = locate(found.assign(x=x, y=y), cells).drop_duplicates(["deposit", "row", "col"])
    dropped = np.setdiff1d(deposit, found["deposit"])
    found.attrs = {"dropped": len(dropped), "dropped_names": [f"site {k + 1}" for k in dropped]}
    found.attrs |= {"merged": 0, "merged_names": []}
    return found.reset_index(drop=True)
