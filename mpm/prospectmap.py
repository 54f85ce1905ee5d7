"""Turn a ProspectMap cube, one JSON of all layers and deposits, into files that GIS reads."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from rasterio.transform import from_bounds, xy

from mpm import artefacts


def convert_cube(path: Path, folder: Path) -> list[Path]:
    """Write the layers of a ProspectMap cube as GeoTIFFs and its deposits as a table.

    Outputs that are all there and not older than `path` are left alone.

    Parameters
    ----------
    path : Path
        JSON with `nx`, `ny`, `box` (west, south, east, north, crs), `layers` (id, name, values:
        row-major from the north-west, null where missing) and `depositIdx` (flat indices).
    folder : Path
        Where `<id>.tif` (float32, NaN where missing) and `deposit_cells.csv` (cell centres, row
        and column, type "MVT_CD") go.

    Returns
    -------
    list of Path
        The GeoTIFFs in the cube's order, then the table.

    Raises
    ------
    ValueError
        If a key is missing, or lengths, layer names or deposit indices do not fit.

    Source: CAOS_ProspectMap, schema "prospectmap.realcube/v1".
    """
    cube = _read_cube(Path(path))
    tifs = [Path(folder) / f"{layer['id']}.tif" for layer in cube["layers"]]
    table = Path(folder) / "deposit_cells.csv"
    made = Path(path).stat().st_mtime_ns
    if any(not p.exists() or p.stat().st_mtime_ns < made for p in [*tifs, table]):
        for tif, layer in zip(tifs, cube["layers"], strict=True):
            _write_layer(tif, layer, cube)
        _write_deposit_cells(table, cube)
    return [*tifs, table]


def _read_cube(path: Path) -> dict:
    """Read a ProspectMap cube and check everything that the conversion relies on."""
    cube = artefacts.read_json(path)
    _need(cube, ("nx", "ny", "box", "layers", "depositIdx"), str(path))
    _need(cube["box"], ("west", "south", "east", "north", "crs"), f"{path}: box")
    cells = cube["nx"] * cube["ny"]
    for number, layer in enumerate(cube["layers"], 1):
        _check_layer(layer, f"{path}: layer number {number}", cube)
    ids = [layer["id"].lower() for layer in cube["layers"]]
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: two layers share an id: {', '.join(ids)}")
    outside = [i for i in cube["depositIdx"] if not (isinstance(i, int) and 0 <= i < cells)]
    if outside:
        raise ValueError(f"{path}: depositIdx {outside[0]!r} is no cell number (0 to {cells - 1})")
    return cube


def _check_layer(layer: dict, where: str, cube: dict) -> None:
    _need(layer, ("id", "values"), where)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", str(layer["id"])):
        raise ValueError(f"{where}: id {layer['id']!r} cannot be a file name; rename it")
    values, rows, columns = layer["values"], cube["ny"], cube["nx"]
    if len(values) != rows * columns:
        raise ValueError(
            f"{where} ({layer['id']}) has {len(values)} values, but {rows} rows of {columns} "
            f"columns are {rows * columns}; fetch the file again"
        )
    wrong = [value for value in values if not (value is None or isinstance(value, int | float))]
    if wrong:
        raise ValueError(
            f"{where} ({layer['id']}) holds {wrong[0]!r}, which is neither number nor null"
        )


def _need(content: object, keys: tuple[str, ...], where: str) -> None:
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{where} has no {', '.join(missing)}; is this a ProspectMap cube?")


def _cube_transform(cube: dict) -> rasterio.Affine:
    sides = (cube["box"][side] for side in ("west", "south", "east", "north"))
    return from_bounds(*sides, width=cube["nx"], height=cube["ny"])


def _write_layer(tif: Path, layer: dict, cube: dict) -> None:
    # None becomes NaN
    values = np.array(layer["values"], dtype="float32").reshape(cube["ny"], cube["nx"])
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "nodata": np.nan}
    profile |= {"width": cube["nx"], "height": cube["ny"], "compress": "deflate"}
    profile |= {"crs": cube["box"]["crs"], "transform": _cube_transform(cube)}
    with artefacts.atomic(tif) as fresh, rasterio.open(fresh, "w", **profile) as raster:
        raster.write(values, 1)
        raster.set_band_description(1, layer.get("name", layer["id"]))


def _write_deposit_cells(table: Path, cube: dict) -> None:
    row, col = np.divmod(np.array(cube["depositIdx"], dtype=int), cube["nx"])
    longitude, latitude = xy(_cube_transform(cube), row, col)
    columns = {"longitude": longitude, "latitude": latitude, "row": row, "col": col}
    cells = pd.DataFrame(columns).assign(type="MVT_CD").round(6)  # 1e-6 degree is 0.1 m
    with artefacts.atomic(table) as fresh:
        cells.to_csv(fresh, index=False, lineterminator="\n")
