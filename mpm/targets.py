"""Targets: the most likely ground as areas with their facts, for a GIS and for a table."""

from collections.abc import Mapping
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import rioxarray  # noqa: F401  (adds the .rio accessor)
import shapely
import xarray as xr
from rasterio.features import shapes
from scipy.ndimage import find_objects, label
from shapely.geometry import MultiPolygon, shape

from mpm import artefacts, map_styles

LEADING = 3  # layers named for a target
COLUMNS = ["rank", "area_km2", "peak", "uncertainty", "leading", "nearest_km", "nearest", "known"]
COLUMNS += ["known_names", "longitude", "latitude"]
_DATED = "2000-01-01T00:00:00.000Z"  # a GeoPackage holds a time; this one is the same in every run


def find(
    maps: Mapping[str, xr.Dataset],
    cubes: Mapping[str, xr.Dataset],
    deposits: Mapping[str, pd.DataFrame],
    *,
    share: float = 0.02,
    min_cells: int = 3,
) -> dict[str, gpd.GeoDataFrame]:
    """Outline the most likely ground of each region.

    A target is a contiguous area (8 neighbours) of cells that belong to the most likely share of
    the region. Cells as likely as the last of them belong to it, too.

    Parameters
    ----------
    maps : dict of Dataset
        By region: `likelihood (y, x)`, NaN where nothing was predicted; `uncertainty` and
        `attribution (layer, y, x)` if they are known.
    cubes : dict of Dataset
        By region; their coordinate `origin` joins the classes of one layer.
    deposits : dict of DataFrame
        By region, of `labels.read_deposits`: deposit, name, x, y (m), row, col.
    share : float
        Share of the predicted cells of a region.
    min_cells : int
        Smaller areas are left out.

    Returns
    -------
    dict of GeoDataFrame
        By region, in the region's CRS, one row a target, by falling peak: rank (1 and up, within
        the region), area_km2 (on the grid), peak (highest likelihood), uncertainty (mean), leading
        (the up to three evidence layers that speak most for it, on average over its explained
        cells; empty where none was explained), nearest_km (from its edge to the nearest known
        deposit, 0 if one lies inside, NaN without any), nearest (its name), known (number of known
        deposits in its cells: 0 is new ground), known_names, longitude and latitude (degrees, of
        the peak cell), geometry.

    Raises
    ------
    ValueError
        If the share does not lie between 0 and 1, or a region's map is empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share} must lie between 0 and 1, e.g. 0.02 for 2 % of the area")
    found = {}
    for region, result in maps.items():
        number, count = _areas(result["likelihood"], share, min_cells, region)
        outlines = _outlines(number, count, result)
        spoken = by_origin(result, cubes[region])
        known = deposits[region]
        home = number[known["row"], known["col"]]
        rows = []
        for k, (outline, (y, x)) in enumerate(zip(outlines, find_objects(number), strict=True)):
            # a target's own corner of the map: a continent has hundreds of them
            corner = result.isel(y=y, x=x)
            own = spoken if spoken is None else spoken.isel(y=y, x=x)
            facts = _facts(number[y, x] == k + 1, corner, own)
            rows.append(facts | _deposits(outline, known, known[home == k + 1]))
        table = gpd.GeoDataFrame(rows, columns=COLUMNS[1:], geometry=outlines, crs=result.rio.crs)
        table = table.sort_values(["peak", "area_km2"], ascending=False, kind="stable")
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        found[region] = table.reset_index(drop=True)
    return found


def _areas(
    likelihood: xr.DataArray, share: float, min_cells: int, region: str
) -> tuple[np.ndarray, int]:
    """Number the areas (y, x), 1 and up, 0 elsewhere, and count them."""
    values = likelihood.values
    seen = np.sort(values[np.isfinite(values)])
    if not seen.size:
        raise ValueError(f"region {region!r}: no cell of its map is predicted; run notebook 03")
    threshold = seen[-max(1, round(share * seen.size))]
    number, _ = label(values >= threshold, structure=np.ones((3, 3)))  # NaN is never above
    sizes = np.bincount(number.ravel())
    sizes[0] = 0  # all the rest
    kept = np.flatnonzero(sizes >= max(min_cells, 1))
    new = np.zeros(len(sizes), "int32")
    new[kept] = np.arange(1, len(kept) + 1)
    return new[number], len(kept)


def _outlines(number: np.ndarray, count: int, grid: xr.Dataset) -> list[MultiPolygon]:
    """Outline numbered areas along the edges of their cells."""
    parts: list[list] = [[] for _ in range(count)]
    # by 4 neighbours: parts that touch at a corner make a valid polygon only as two
    cut = shapes(number, mask=number > 0, connectivity=4, transform=grid.rio.transform())
    for geometry, value in cut:
        parts[int(value) - 1].append(shape(geometry))
    return [MultiPolygon(own) for own in parts]


def by_origin(result: xr.Dataset, cube: xr.Dataset) -> xr.DataArray | None:
    """Return attribution (layer, y, x), classes of one layer summed, or None if it is not known."""
    if "attribution" not in result:
        return None
    own = result["attribution"].assign_coords(layer=cube["origin"].values)
    return own.groupby("layer").sum(skipna=False)


def leading(values: pd.Series, count: int = LEADING) -> list[str]:
    """Name the layers that speak most for a place, of contributions by layer; NaN is silent."""
    for_it = values[values > 0].sort_values(ascending=False, kind="stable")
    return for_it.index[:count].tolist()


def _facts(inside: np.ndarray, result: xr.Dataset, spoken: xr.DataArray | None) -> dict:
    """Return what the maps say of one area; `inside (y, x)` marks its cells."""
    likelihood = np.where(inside, result["likelihood"].values, -np.inf)
    row, col = np.unravel_index(likelihood.argmax(), inside.shape)
    spread = result["uncertainty"].values[inside] if "uncertainty" in result else np.nan
    facts: dict[str, float | str]
    facts = {"peak": float(likelihood[row, col]), "uncertainty": float(np.mean(spread))}
    facts["leading"] = ""
    if spoken is not None:
        cells = spoken.values[:, inside]
        cells = cells[:, np.isfinite(cells).all(axis=0)]
        if cells.size:
            names = leading(pd.Series(cells.mean(axis=1), spoken["layer"].values))
            facts["leading"] = ", ".join(names)
    there = pyproj.Transformer.from_crs(result.rio.crs, "EPSG:4326", always_xy=True)
    longitude, latitude = there.transform(float(result["x"][col]), float(result["y"][row]))
    return facts | {"longitude": round(longitude, 4), "latitude": round(latitude, 4)}


def _deposits(outline: MultiPolygon, known: pd.DataFrame, inside: pd.DataFrame) -> dict:
    """Name the known deposits inside an area, or the nearest and how far it is from the edge."""
    own = inside.drop_duplicates("deposit")
    facts = {"area_km2": round(outline.area / 1e6, 3), "nearest_km": np.nan, "nearest": ""}
    facts |= {"known": len(own), "known_names": ", ".join(own["name"])}
    if len(own):
        return facts | {"nearest_km": 0.0, "nearest": own["name"].iloc[0]}
    if known.empty:
        return facts
    away = shapely.distance(outline, shapely.points(known["x"], known["y"]))
    nearest = int(np.argmin(away))
    away_km = round(float(away[nearest]) / 1e3, 3)
    return facts | {"nearest_km": away_km, "nearest": known["name"].iloc[nearest]}


def write(found: Mapping[str, gpd.GeoDataFrame], place: Path) -> None:
    """Write targets as a GeoPackage, and beside it their QGIS style (`.qml`).

    One layer a region, in the region's own CRS: cells stay square, areas and distances are those of
    the table, and QGIS lays regions beside each other by itself.

    Parameters
    ----------
    found : dict of GeoDataFrame
        Of `find`.
    place : Path
        Ends in `.gpkg`.
    """
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _DATED})
    try:
        with artefacts.atomic(place) as fresh:
            for region, own in found.items():
                own.to_file(fresh, layer=region, driver="GPKG", geometry_type="MultiPolygon")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
    artefacts.write_text(place.with_suffix(".qml"), map_styles.target_style())


def table(found: Mapping[str, gpd.GeoDataFrame], *, count: int = 10) -> pd.DataFrame:
    """Tabulate the first targets of each region for reading.

    Returns
    -------
    DataFrame
        Columns as of `find`, after the region; without geometry, rounded.
    """
    parts = [own.head(count).drop(columns="geometry").assign(region=r) for r, own in found.items()]
    rows = pd.DataFrame(pd.concat(parts, ignore_index=True))
    digits = {"area_km2": 0, "peak": 3, "uncertainty": 3, "nearest_km": 0}
    return rows[["region", *COLUMNS]].round(digits | {"longitude": 2, "latitude": 2})
