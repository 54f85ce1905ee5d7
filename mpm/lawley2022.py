"""The data cube of Lawley et al. 2022: from the published CSV to labels and raster cubes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
import zarr
from h3.api import basic_int as h3
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from mpm import artefacts, datacube, hexagons, lawley_table, places
from mpm.lawley_facts import TEXT, facts, features, schema

TILE = 1024  # rows and columns of a raster cube's chunk
METHOD = "value of the H3 hexagon under the cell centre"


def build(
    path: Path, out: Path, *, degrees: float = 0.02, words: str = "preferred"
) -> pd.DataFrame:
    """Make all there is to make from the published CSV.

    Parameters
    ----------
    path : Path
        `2021_Table04_Datacube.csv`.
    out : Path
        Folder of `datacube.parquet`, `deposits.csv` and a raster cube a continent.
    degrees : float
        Cell size of the raster cubes.
    words : str
        Their layers, as `lawley_facts.features` reads it; "none" for no raster cubes.

    Returns
    -------
    DataFrame
        Of `count_labels`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `lawley_table.write_parquet`, `lawley_facts.features` and `write_cubes`.
    """
    names = [] if words == "none" else features(words)  # what is wrong is said before the work
    _check_degrees(degrees)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the table is {facts()['cube']['doi']}")
    parquet = out / "datacube.parquet"
    lawley_table.write_parquet(path, parquet)
    found = find_deposits(parquet)
    with artefacts.atomic(out / "deposits.csv") as fresh:
        found.to_csv(fresh, index=False)
    if names:
        write_cubes(parquet, found, out, degrees=degrees, names=names)
    return count_labels(found)


def find_deposits(parquet: Path) -> pd.DataFrame:
    """List the labelled cells of each deposit type and the cells of the table that touch them.

    Two hexagons that share a corner share an edge, so that these neighbours are those of the
    published models, which compared corners.

    Parameters
    ----------
    parquet : Path
        Of `lawley_table.write_parquet`.

    Returns
    -------
    DataFrame
        One row a cell and type: h3 (address), longitude, latitude (degrees, the cell's centre),
        type, status ("deposit", "occurrence" or "neighbour"), group (a number for labelled cells
        that touch each other, and their neighbours; a neighbour of two groups is in the first).
    """
    tables = []
    for kind, (deposit, occurrence) in facts()["labels"]["table"].items():
        known = _labelled(parquet, deposit, occurrence)
        touching = hexagons.neighbours(known.index.to_numpy("uint64"))
        around = np.setdiff1d(np.unique(touching), known.index.to_numpy("uint64"))
        known["group"] = _groups(known.index.to_numpy("uint64"), touching)
        pairs = pd.DataFrame({"h3": touching.reshape(-1), "group": np.repeat(known["group"], 6)})
        first = pairs.groupby("h3")["group"].min().reindex(_present(parquet, around))
        near = pd.DataFrame({"group": first, "status": "neighbour"})
        tables.append(pd.concat([known, near]).assign(type=kind))
    return _number(pd.concat(tables))


def _number(found: pd.DataFrame) -> pd.DataFrame:
    """Number the groups through all types, and add what places a cell."""
    group = found.groupby(["type", "group"], sort=False).ngroup()
    points = np.array([h3.cell_to_latlng(cell) for cell in found.index.tolist()]).reshape(-1, 2)
    table = {
        "h3": [f"{cell:x}" for cell in found.index],
        "longitude": points[:, 1].round(6),
        "latitude": points[:, 0].round(6),
        "type": found["type"].to_numpy(),
        "status": found["status"].to_numpy(),
        "group": group.to_numpy(),
    }
    return pd.DataFrame(table)


def _labelled(parquet: Path, deposit: str, occurrence: str) -> pd.DataFrame:
    """Return the cells marked as deposit or occurrence, sorted, with their status."""
    parts = []
    with pq.ParquetFile(parquet) as table:
        for batch in table.iter_batches(columns=[hexagons.KEY, deposit, occurrence]):
            part = batch.to_pandas().set_index(hexagons.KEY).eq(True)  # missing is not labelled
            parts.append(part[part.any(axis=1)])
    marks = pd.concat(parts).sort_index()
    return pd.DataFrame({"status": np.where(marks[deposit], "deposit", "occurrence")}, marks.index)


def _present(parquet: Path, wanted: np.ndarray) -> np.ndarray:
    """Return those of the wanted cells that the table holds."""
    with pq.ParquetFile(parquet) as table:
        batches = table.iter_batches(columns=[hexagons.KEY])
        found = [np.intersect1d(batch.column(0).to_numpy(), wanted) for batch in batches]
    return np.unique(np.concatenate(found))


def _groups(cells: np.ndarray, touching: np.ndarray) -> np.ndarray:
    """Number the clusters (n,) of cells that touch each other, given each one's neighbours."""
    other = hexagons.find(touching, cells)
    one, side = np.nonzero(other >= 0)
    links = coo_array((np.ones(len(one)), (one, other[one, side])), shape=(len(cells),) * 2)
    return connected_components(links, directed=False)[1]


def count_labels(found: pd.DataFrame) -> pd.DataFrame:
    """Count cells a type: labelled, with neighbours, groups; and the published counts, or NaN."""
    rows = []
    for kind in facts()["labels"]["table"]:
        part = found[found["type"] == kind]
        published = facts()["labels"]["published"].get(kind, {})
        rows.append(
            {
                "type": kind,
                "labelled": int((part["status"] != "neighbour").sum()),
                "published": published.get("labelled", np.nan),
                "with neighbours": len(part),
                "published with neighbours": published.get("with_neighbours", np.nan),
                "groups": part["group"].nunique(),
            }
        )
    return pd.DataFrame(rows).astype({"published": "Int64", "published with neighbours": "Int64"})


def write_cubes(
    parquet: Path, found: pd.DataFrame, out: Path, *, degrees: float, names: list[str]
) -> list[Path]:
    """Write a raster cube a continent in longitude and latitude, one layer at a time.

    Parameters
    ----------
    parquet : Path
        Of `lawley_table.write_parquet`.
    found : DataFrame
        Of `find_deposits`.
    out : Path
        Folder of `north_america.zarr` and `australia.zarr` (Zarr format 2).
    degrees : float
        Cell size.
    names : list of str
        Columns, of `lawley_facts.features`; a column of text becomes a layer a class.

    Returns
    -------
    list of Path
        Cubes with `evidence (layer, y, x)` float32, `valid (y, x)` and, a deposit type, cells that
        are labelled or touch one that is; along `layer` the coordinates origin, units and kind.

    Raises
    ------
    ValueError
        If a column is a label or not in the table, or the cell size is not above 0.
    """
    _check_degrees(degrees)
    layers = pd.concat([_layers(parquet, name) for name in names], ignore_index=True)
    written = []
    for continent, known in facts()["continents"]["table"].items():
        cells = _grid(known["bounds"], degrees)
        written.append(out / f"{continent}.zarr")
        with artefacts.atomic(written[-1]) as fresh:
            _write_empty(layers, cells, fresh, continent)
            _fill(fresh, parquet, found, layers, hexagons.rows_on_grid(parquet, cells), continent)
    return written


def _check_degrees(degrees: float) -> None:
    if not 0 < degrees <= 5:
        raise ValueError(f"cells of {degrees:g} degrees make no map; take 0.02, about 2 km")


def _layers(parquet: Path, name: str) -> pd.DataFrame:
    field = hexagons.check_column(parquet, name)
    made, units = [name], schema().field(name).metadata[b"units"].decode() or "not stated"
    if field.type == TEXT:
        made, units = [f"{name}={text}" for text in hexagons.classes(parquet, name)], "1"
    kind = "continuous" if pa.types.is_floating(field.type) else "binary"
    return pd.DataFrame({"layer": made, "origin": name, "units": units, "kind": kind})


def _grid(bounds: list[float], degrees: float) -> xr.DataArray:
    """Make a grid from the north-west corner, as large as covers the bounds."""
    west, south, east, north = bounds
    rows, cols = (int(np.ceil(side / degrees - 1e-6)) for side in (north - south, east - west))
    return places.grid("EPSG:4326", (west, north), degrees, (rows, cols))


def _write_empty(layers: pd.DataFrame, cells: xr.DataArray, place: Path, continent: str) -> None:
    """Write a cube's coordinates and attributes, and the shapes of its variables."""
    shape, chunks = (len(layers), *cells.shape), (1, TILE, TILE)
    evidence = dask.array.zeros(shape, chunks=chunks, dtype="float32")
    flags = dask.array.zeros(cells.shape, chunks=TILE, dtype=bool)
    cube = xr.Dataset({"evidence": (("layer", "y", "x"), evidence)}, cells.coords)
    cube = cube.assign({name: (("y", "x"), flags) for name in ("valid", *_types())})
    cube = cube.assign_coords(
        {name: ("layer", layers[name].to_numpy().astype("U")) for name in layers}
    )
    known = facts()["cube"]
    cube.attrs = {
        "title": f"Data cube of Lawley et al. 2022, {continent}",
        "source": f"{known['file']}, {known['doi']}",
        "inputs": f"input layers: {known['inputs']}",
        "references": known["paper"],
        "method": METHOD,
    }
    encoding: dict = {name: {"compressors": [datacube.CODEC]} for name in cube.variables}
    encoding["evidence"] |= {"_FillValue": np.float32(np.nan), "chunks": chunks}
    cube.to_zarr(place, compute=False, zarr_format=2, consolidated=True, encoding=encoding)


def _types() -> list[str]:
    return list(facts()["labels"]["table"])


def _fill(
    place: Path,
    parquet: Path,
    found: pd.DataFrame,
    layers: pd.DataFrame,
    rows: np.ndarray,
    continent: str,
) -> None:
    cube: Any = zarr.open_group(place, mode="r+")  # zarr's own type allows groups in groups
    cube["valid"][:] = rows >= 0
    table = pq.read_table(parquet, columns=[hexagons.KEY]).column(0).to_numpy()
    for kind in _types():
        marked = np.zeros(len(table), "float32")
        cells = found.loc[found["type"] == kind, "h3"].map(lambda text: int(text, 16))
        marked[hexagons.find(cells.to_numpy("uint64"), table)] = 1
        cube[kind][:] = hexagons.spread(marked, rows) == 1
    bar = tqdm(total=len(layers), desc=continent, unit="layer", disable=artefacts.quiet() or None)
    with bar:
        for name, part in layers.groupby("origin", sort=False):
            for k, values in zip(part.index, _planes(parquet, name), strict=True):
                cube["evidence"][k] = hexagons.spread(values, rows)
                bar.update()


def _planes(parquet: Path, name: str) -> Iterator[np.ndarray]:
    """Yield the values (n,) of a column's layers: the column, or each class against the others."""
    if schema().field(name).type != TEXT:
        yield hexagons.read_column(parquet, name)
        return
    codes, texts = hexagons.read_codes(parquet, name)
    for k in range(len(texts)):
        yield np.where(codes < 0, np.float32(np.nan), (codes == k).astype("float32"))
