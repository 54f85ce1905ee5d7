"""Put evidence layers and deposits, as people have them, on a region's grid."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import rasterio
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from affine import Affine
from pyogrio.errors import DataSourceError
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.transform import rowcol
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt, label

from mpm.study import Layer, Region, Study

_UNREADABLE = (rasterio.errors.RasterioError, DataSourceError, OSError)
SUPERSAMPLE = 5  # polygons are burnt on cells this many times finer, then counted


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

    Raises
    ------
    ValueError
        If the CRS is unknown, geographic or not in metres.
    """
    try:
        crs = pyproj.CRS.from_user_input(region.crs)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"{region.crs!r} is not a CRS that pyproj knows") from error
    if not crs.is_projected or crs.axis_info[0].unit_name != "metre":
        raise ValueError(f"{region.crs} is not projected in metres; distances need a projected CRS")
    west, _, _, north = region.bounds
    rows, columns = region.shape
    step = region.resolution
    cells = xr.DataArray(
        np.zeros((rows, columns), "float32"),
        dims=("y", "x"),
        coords={
            "y": north - step * (np.arange(rows) + 0.5),
            "x": west + step * (np.arange(columns) + 0.5),
        },
    )
    cells = cells.rio.write_crs(region.crs)
    return cells.rio.write_transform(Affine(step, 0, west, 0, -step, north))


def align_layer(study: Study, layer: Layer, region: str, cells: xr.DataArray) -> xr.DataArray:
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
        The region's grid, of `grid`.

    Returns
    -------
    DataArray (layer, y, x)
        float32, NaN where unobserved; one plane, or one a class for kind "categorical". Coordinates
        along `layer`: group, units, kind ("continuous" or "binary"), origin, method, source.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it cannot be read, has no CRS, misses the column, or does not touch the region. Every
        message names file and layer.
    """
    path = study.file(layer, region)
    if not path.exists():
        raise FileNotFoundError(f"layer {layer.name!r}: {path} is missing; {_remedy(study)}")
    try:
        names, planes, method = _READERS[layer.kind](study, layer, path, cells)
    except _UNREADABLE as error:
        raise ValueError(f"layer {layer.name!r}: {path} cannot be read ({error})") from error
    aligned = xr.DataArray(
        np.asarray(planes, "float32"),
        dims=("layer", "y", "x"),
        coords={"layer": names, "y": cells.y, "x": cells.x},
    )
    kind = "binary" if layer.kind == "categorical" else "continuous"
    facts = {"group": layer.group, "units": layer.units, "kind": kind, "origin": layer.name}
    facts |= {"method": method, "source": layer.source}
    return aligned.assign_coords(
        {key: ("layer", [fact] * len(names)) for key, fact in facts.items()}
    )


def area_mask(study: Study, region: str, cells: xr.DataArray) -> np.ndarray:
    """Return the cells (y, x) whose centre lies in the region's study area."""
    if study.regions[region].area is None:
        return np.ones(cells.shape, bool)
    path = study.raw / study.regions[region].area.replace("{region}", region)
    if not path.exists():
        raise FileNotFoundError(f"area of region {region!r}: {path} is missing; {_remedy(study)}")
    try:
        shapes = _features(path, f"area of region {region!r}", cells)
    except _UNREADABLE as error:
        raise ValueError(f"area of region {region!r}: {path} cannot be read ({error})") from error
    if shapes.empty:
        raise ValueError(f"area of region {region!r}: no polygon of {path} touches the region")
    burnt = rasterize(shapes.geometry, out_shape=cells.shape, transform=cells.rio.transform())
    return burnt.astype(bool)


def read_deposits(study: Study, region: str, cells: xr.DataArray) -> pd.DataFrame:
    """Read the deposits that lie on a region's grid.

    Parameters
    ----------
    study, region, cells
        As for `align_layer`.

    Returns
    -------
    DataFrame
        One row a known deposit cell: deposit (number), name, type, x, y (m, the region's CRS), row,
        col. Points are a deposit each; touching cells of a raster (8 neighbours) share a number.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If the file cannot be read, its CRS is missing or unknown, a column is missing (the message
        lists those there are) or a coordinate is not a number.
    """
    path = study.file(study.deposits, region)
    if not path.exists():
        raise FileNotFoundError(f"deposits: {path} is missing; {_remedy(study)}")
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            return _deposits_of_raster(path, cells)
        return _deposits_of_table(study, path, cells)
    except (*_UNREADABLE, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as error:
        raise ValueError(f"deposits: {path} cannot be read ({error})") from error


def check(study: Study) -> pd.DataFrame:
    """Open every file of a study and say what it holds, or everything that is wrong with it.

    Returns
    -------
    DataFrame
        region, layer, CRS, resolution, coverage (% of the study area), min, max, units.

    Raises
    ------
    ValueError
        If anything is wrong: one line a problem.
    """
    rows, problems = [], []
    for region, spec in study.regions.items():
        try:
            cells = grid(spec)
            inside = area_mask(study, region, cells)
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"region {region!r}: {error}")
            continue
        for layer in study.layers:
            try:
                rows.append(_describe(study, layer, region, cells, inside))
            except (ValueError, FileNotFoundError) as error:
                problems.append(f"region {region!r}, {error}")
    problems += _deposit_problems(study)
    if problems:
        raise ValueError(
            f"{study.path} has {len(problems)} problem(s):\n  " + "\n  ".join(problems)
        )
    return pd.DataFrame(rows)


def _describe(study: Study, layer: Layer, region: str, cells: xr.DataArray, inside) -> dict:
    aligned = align_layer(study, layer, region, cells)
    observed = np.isfinite(aligned.values).any(axis=0) & inside
    if not observed.any():
        raise ValueError(
            f"layer {layer.name!r}: {study.file(layer, region)} has no value inside the study area"
        )
    crs, resolution = _geometry(study.file(layer, region))
    return {
        "region": region,
        "layer": layer.name,
        "CRS": crs,
        "resolution": resolution,
        "coverage": round(100 * observed.sum() / inside.sum(), 1),
        "min": float(np.nanmin(aligned.values[:, inside])),
        "max": float(np.nanmax(aligned.values[:, inside])),
        "units": layer.units,
    }


def _geometry(path: Path) -> tuple[str, str]:
    if path.suffix.lower() in _VECTORS:
        return _short(gpd.read_file(path, rows=1).crs), "vector"
    with rasterio.open(path) as source:
        unit = "deg" if source.crs.is_geographic else "m"
        return _short(pyproj.CRS(source.crs)), f"{source.res[0]:.4g} {unit}"


def _short(crs: pyproj.CRS) -> str:
    return ":".join(crs.to_authority() or (crs.name,))


def _deposit_problems(study: Study) -> list[str]:
    tables, problems = {}, []
    for region, spec in study.regions.items():
        try:
            cells = grid(spec)
        except ValueError:
            continue  # told already
        try:
            tables[region] = read_deposits(study, region, cells)
        except (ValueError, FileNotFoundError) as error:
            problems.append(str(error))
    if problems or not tables:
        return list(dict.fromkeys(problems))  # regions may share a file
    known = pd.concat(tables.values())
    for name, target in study.targets.items():
        if (
            target.types is None
            and known.empty
            or (target.types is not None and not known["type"].isin(target.types).any())
        ):
            wanted = "" if target.types is None else f" of type {' or '.join(target.types)}"
            there = ", ".join(sorted(known["type"].dropna().unique())) or "none"
            problems.append(
                f"target {name!r} has no deposits{wanted} inside {', '.join(tables)}; "
                f"types inside: {there}"
            )
    return problems


def _remedy(study: Study) -> str:
    if study.fetch == "none":
        return "correct `file` in the study file, or put the file there"
    return f"run `mpm fetch {study.name}`"


_VECTORS = (".geojson", ".json", ".gpkg", ".shp", ".fgb")


def _read_continuous(study: Study, layer: Layer, path: Path, cells: xr.DataArray):
    values, transform, crs = _read_band(layer, path, cells)
    ratio = _fineness(values, transform, crs, cells)
    how = Resampling.average if ratio > 1.5 else Resampling.bilinear
    aligned = _warp(values, transform, crs, cells, how)
    # GDAL stretches data into gaps: keep only cells that are mostly observed
    observed = np.isfinite(values).astype("float32")
    if not observed.all():
        aligned[~(_warp(observed, transform, crs, cells, how) >= 0.5)] = np.nan
    return [layer.name], [aligned], how.name


def _read_categorical(study: Study, layer: Layer, path: Path, cells: xr.DataArray):
    classes = layer_classes(study, layer)
    names = [f"{layer.name}={name}" for name in classes]
    if path.suffix.lower() in _VECTORS:
        shares = np.stack(_shares(layer, path, cells, classes))
        mapped = shares.sum(axis=0) >= 0.5
        winner, method = shares.argmax(axis=0), "majority of polygons"
    else:
        values, transform, crs = _read_band(layer, path, cells)
        how = (
            Resampling.mode if _fineness(values, transform, crs, cells) > 1 else Resampling.nearest
        )
        codes = _warp(values, transform, crs, cells, how)
        matches = np.stack([codes == code for code in classes])
        mapped, winner, method = matches.any(axis=0), matches.argmax(axis=0), how.name
        if how is Resampling.mode and not np.isfinite(values).all():
            # the mode of one mapped pixel is no map of the cell: as for polygons, half must be
            share = _warp(
                np.isfinite(values).astype("float32"), transform, crs, cells, Resampling.average
            )
            mapped &= share >= 0.5
    planes = [np.where(mapped, winner == k, np.nan) for k in range(len(classes))]
    return names, planes, f"one-hot by {method}"


def _read_fraction(study: Study, layer: Layer, path: Path, cells: xr.DataArray):
    if layer.column is None and layer.classes is None:
        shares = _shares(layer, path, cells, None)
    else:
        shares = _shares(layer, path, cells, layer_classes(study, layer))
    share = np.clip(sum(shares), 0, 1)
    return [layer.name], [share], f"area share on {SUPERSAMPLE} x {SUPERSAMPLE} subcells"


def _read_distance(study: Study, layer: Layer, path: Path, cells: xr.DataArray):
    rows, columns = cells.shape
    # the nearest feature may lie outside: look as far as the region is long
    pad = max(rows, columns)
    to = cells.rio.transform()
    transform = Affine(to.a, 0, to.c - pad * to.a, 0, to.e, to.f - pad * to.e)
    shapes = _select(_features(path, f"layer {layer.name!r}", cells, margin=pad), layer, path)
    shape = (rows + 2 * pad, columns + 2 * pad)
    if shapes.empty:
        raise ValueError(f"layer {layer.name!r}: no feature of {path} is near the region")
    burnt = rasterize(shapes.geometry, out_shape=shape, transform=transform, all_touched=True)
    if not burnt.any():
        raise ValueError(f"layer {layer.name!r}: no feature of {path} is near the region")
    distance = distance_transform_edt(burnt == 0) * transform.a
    return [layer.name], [distance[pad : pad + rows, pad : pad + columns]], "distance transform"


_READERS = {
    "continuous": _read_continuous,
    "categorical": _read_categorical,
    "fraction": _read_fraction,
    "distance": _read_distance,
}


def layer_classes(study: Study, layer: Layer) -> list:
    """Return a categorical layer's classes: those the study names, or all in any region, sorted."""
    if layer.classes is not None:
        return list(layer.classes)
    found: set = set()
    for region in study.regions:
        path = study.file(layer, region)
        if path.suffix.lower() in _VECTORS:
            table = gpd.read_file(path, ignore_geometry=True)
            found |= set(_column(table, layer.column, f"layer {layer.name!r}", path).dropna())
        else:
            with rasterio.open(path) as source:
                codes = source.read(layer.band, masked=True).compressed()
            found |= {int(code) for code in np.unique(codes[np.isfinite(codes)])}
    if len(found) > 100:
        raise ValueError(
            f"layer {layer.name!r} has {len(found)} classes; name the ones to keep under `classes`"
        )
    return sorted(found)


def _read_band(layer: Layer, path: Path, cells: xr.DataArray):
    """Read the part of a raster that covers the grid: float32 with NaN, its transform and CRS."""
    with rasterio.open(path) as source:
        if source.crs is None:
            raise ValueError(
                f"layer {layer.name!r}: {path} has no CRS; set it, e.g. `rio edit-info`"
            )
        if layer.band > source.count:
            raise ValueError(
                f"layer {layer.name!r}: {path} has no band {layer.band} of {source.count}"
            )
        if source.transform.b or source.transform.d:
            raise ValueError(f"layer {layer.name!r}: {path} is rotated; warp it north up first")
        window = _window_over(source, cells)
        if window is None:
            raise ValueError(f"layer {layer.name!r}: {path} does not touch the region")
        band = source.read(layer.band, window=window, masked=True)
        values = band.astype("float32").filled(np.nan)
        values[np.isinf(values)] = np.nan
        return values, source.window_transform(window), source.crs


def _window_over(source, cells: xr.DataArray) -> Window | None:
    west, south, east, north = transform_bounds(
        cells.rio.crs, source.crs, *cells.rio.bounds(), densify_pts=51
    )
    if not np.isfinite([west, south, east, north]).all():
        return None  # the source's CRS does not reach the region
    rows, columns = rowcol(source.transform, [west, east], [north, south], op=float)
    margin = 2  # source pixels, for interpolation at the rim
    first_col, last_col = int(min(columns)) - margin, int(max(columns)) + margin + 1
    first_row, last_row = int(min(rows)) - margin, int(max(rows)) + margin + 1
    first_col, first_row = max(first_col, 0), max(first_row, 0)
    last_col, last_row = min(last_col, source.width), min(last_row, source.height)
    if first_col >= last_col or first_row >= last_row:
        return None
    return Window(first_col, first_row, last_col - first_col, last_row - first_row)


def _fineness(values: np.ndarray, transform: Affine, crs, cells: xr.DataArray) -> float:
    """How many source pixels lie along one grid cell."""
    height, width = values.shape
    bounds = rasterio.transform.array_bounds(height, width, transform)
    left, bottom, right, top = transform_bounds(crs, cells.rio.crs, *bounds)
    pixel = np.sqrt((right - left) * (top - bottom) / (width * height))
    return float(cells.rio.transform().a / pixel)


def _warp(values: np.ndarray, transform: Affine, crs, cells: xr.DataArray, how: Resampling):
    aligned = np.full(cells.shape, np.nan, "float32")
    reproject(
        values,
        aligned,
        src_transform=transform,
        src_crs=crs,
        src_nodata=np.nan,
        dst_transform=cells.rio.transform(),
        dst_crs=cells.rio.crs,
        dst_nodata=np.nan,
        resampling=how,
    )
    return aligned


def _features(path: Path, what: str, cells: xr.DataArray, margin: int = 0) -> gpd.GeoDataFrame:
    """Read a vector file's features near the grid (margin in cells), in the grid's CRS."""
    shapes = gpd.read_file(path)
    if shapes.crs is None:
        raise ValueError(f"{what}: {path} has no CRS; add a .prj or set it in a GIS")
    shapes = shapes[~(shapes.geometry.is_empty | shapes.geometry.isna())].to_crs(cells.rio.crs)
    west, south, east, north = cells.rio.bounds()
    reach = margin * cells.rio.transform().a
    return shapes.cx[west - reach : east + reach, south - reach : north + reach]


def _shares(
    layer: Layer, path: Path, cells: xr.DataArray, classes: list | None
) -> list[np.ndarray]:
    """Area share (y, x) of each class, or of all polygons together, in every cell."""
    shapes = _features(path, f"layer {layer.name!r}", cells)
    if shapes.empty:
        raise ValueError(f"layer {layer.name!r}: no polygon of {path} touches the region")
    n = SUPERSAMPLE
    fine = (cells.shape[0] * n, cells.shape[1] * n)
    to = cells.rio.transform()
    transform = Affine(to.a / n, 0, to.c, 0, to.e / n, to.f)
    if classes is None:
        numbered = [(shape, 1) for shape in shapes.geometry]
        count = 1
    else:
        column = _column(shapes, layer.column, f"layer {layer.name!r}", path)
        number = {name: k + 1 for k, name in enumerate(classes)}
        pairs = zip(shapes.geometry, column, strict=True)
        numbered = [(shape, number[name]) for shape, name in pairs if name in number]
        count = len(classes)
    if not numbered:
        return [np.zeros(cells.shape, "float32") for _ in range(count)]
    codes = rasterize(numbered, out_shape=fine, transform=transform, dtype="uint8")
    blocks = codes.reshape(cells.shape[0], n, cells.shape[1], n)
    return [(blocks == k + 1).mean(axis=(1, 3), dtype="float32") for k in range(count)]


def _select(shapes: gpd.GeoDataFrame, layer: Layer, path: Path) -> gpd.GeoDataFrame:
    if layer.classes is None:
        return shapes
    column = _column(shapes, layer.column, f"layer {layer.name!r}", path)
    return shapes[column.isin(layer.classes)]


def _column(table: pd.DataFrame, name: str | None, what: str, path: Path) -> pd.Series:
    there = [column for column in table.columns if column != "geometry"]
    if name is None:
        raise ValueError(f"{what}: name the column of {path} that holds the class; it has {there}")
    if name not in table.columns:
        raise ValueError(f"{what}: {path} has no column {name!r}; it has {there}")
    return table[name]


def _deposits_of_table(study: Study, path: Path, cells: xr.DataArray) -> pd.DataFrame:
    spec, table = study.deposits, pd.read_csv(path)
    for name in (spec.x, spec.y, spec.type, spec.name):
        if name is not None:
            _column(table, name, "deposits", path)
    for name in (spec.x, spec.y):
        numbers = pd.to_numeric(table[name], errors="coerce")
        if numbers.isna().any():
            line = int(numbers.isna().idxmax()) + 2
            raise ValueError(f"deposits: {path}, line {line}: column {name!r} is not a number")
    try:
        to_grid = pyproj.Transformer.from_crs(spec.crs, cells.rio.crs, always_xy=True)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"deposits: {spec.crs!r} is not a CRS that pyproj knows") from error
    x, y = to_grid.transform(*(table[name].to_numpy("float64") for name in (spec.x, spec.y)))
    found = pd.DataFrame(
        {
            "name": table[spec.name].astype(str) if spec.name else [str(k) for k in table.index],
            "type": table[spec.type].astype(str) if spec.type else "",
            "x": x,
            "y": y,
        }
    )
    return locate(found, cells).reset_index(drop=True).rename_axis("deposit").reset_index()


def _deposits_of_raster(path: Path, cells: xr.DataArray) -> pd.DataFrame:
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
    return locate(found.assign(x=x, y=y), cells).reset_index(drop=True)


def locate(found: pd.DataFrame, cells: xr.DataArray) -> pd.DataFrame:
    """Add row and col, and drop what lies outside the grid."""
    rows, columns = rowcol(cells.rio.transform(), found["x"], found["y"], op=float)
    found = found.assign(row=np.floor(rows), col=np.floor(columns))
    inside = found["row"].between(0, cells.shape[0] - 1) & found["col"].between(
        0, cells.shape[1] - 1
    )
    return found[inside].astype({"row": int, "col": int})
