"""The cube: all evidence layers of one region on one grid, in memory or a tile at a time."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from rasterio.enums import Resampling
from tqdm.auto import tqdm

from mpm import align, artefacts
from mpm.layers import Layer
from mpm.places import Part
from mpm.study import Study

MIN_OBSERVED = 0.5  # share of evidence layers that a valid cell must have
STORED = 1024  # cells along a stored chunk of a cube that was in memory
_BROKEN = (KeyError, ValueError, OSError, RuntimeError)  # Runtime: a broken chunk


def build(study: Study, region: str, *, chunks: int | None = None) -> xr.Dataset:
    """Align every evidence layer of a region into one cube.

    Parameters
    ----------
    study : Study
    region : str
        Name of the region.
    chunks : int, optional
        Cells along one side of a tile. If given, the cube is lazy: Dask aligns a tile of a layer
        when it is asked for (`write` streams them), on the machine's cores or on the cluster that
        `DASK_SCHEDULER_ADDRESS` or a `dask.distributed.Client` names. Kinds of layers that are not
        in `align.TILED` are aligned whole, one at a time. By default all is done now, in memory.

    Returns
    -------
    Dataset
        `evidence (layer, y, x)` float32, NaN where missing and outside the study area;
        `valid (y, x)` bool, cells inside it with at least half of the layers; along `layer` the
        coordinates of `align.align_layer`: group, units, kind, origin, method and others.

    Raises
    ------
    FileNotFoundError, ValueError
        As `align.align_layer`; ValueError too if no cell is valid, which a lazy cube cannot know.
    """
    cells = align.grid(study.regions[region])
    if chunks is None:
        inside = xr.DataArray(align.area_mask(study, region, cells), dims=("y", "x"))
        hidden = artefacts.quiet()
        bars = tqdm(study.layers, desc=region, unit="layer", leave=False, disable=hidden)
        planes = [align.align_layer(study, layer, region, cells).where(inside) for layer in bars]
    else:
        inside, planes = _promised(study, region, cells.coords.to_dataset(), chunks)
    # coordinates are copied from one grid, so "exact" holds and nothing drifts apart
    evidence = xr.concat(planes, "layer", join="exact").astype("float32")
    # the planes of a layer of classes are one layer: many classes outvote nobody
    _, first = np.unique(evidence["origin"].values, return_index=True)
    observed = np.isfinite(evidence.isel(layer=first)).sum("layer", dtype="uint16")
    valid = (observed >= MIN_OBSERVED * len(first)) & inside
    if chunks is None and not valid.any():
        raise ValueError(f"region {region!r}: no cell has half of the layers; see `mpm check`")
    cube = xr.Dataset({"evidence": evidence, "valid": valid})
    cube.attrs = {"study": study.name, "region": region}
    return cube.rio.write_crs(cells.rio.crs).rio.write_transform(cells.rio.transform())


def _promised(
    study: Study, region: str, grid: xr.Dataset, chunks: int
) -> tuple[xr.DataArray, list[xr.DataArray]]:
    """Return area (y, x) and layers (layer, y, x) as Dask arrays."""
    import dask
    import dask.array as da

    _use_named_cluster()
    shape = tuple(grid.sizes[name] for name in "yx")
    # every task needs study and grid: they are sent to each worker once
    shared = dask.delayed((study, grid), traverse=False)
    mask = da.from_delayed(dask.delayed(_area)(shared, region), shape, bool)
    inside = xr.DataArray(mask.rechunk(chunks), dims=("y", "x"))

    def task(layer: Layer, planes: int, part: Part | None) -> da.Array:
        values = dask.delayed(_aligned)(shared, layer, region, part)
        sides = [len(range(size)[span]) for size, span in zip(shape, part or _ALL, strict=True)]
        return da.from_delayed(values, (planes, *sides), "float32")

    planes = []
    for layer in study.layers:
        # one cell tells names and coordinates
        corner = align.align_layer(study, layer, region, _cells(grid), part=_CORNER)
        count = corner.sizes["layer"]
        if layer.kind in align.TILED:
            rows, columns = (_spans(size, chunks) for size in shape)
            values = da.block([[task(layer, count, (row, col)) for col in columns] for row in rows])
        else:
            values = task(layer, count, None).rechunk((1, chunks, chunks))
        facts = {name: fact for name, fact in corner.coords.items() if fact.dims == ("layer",)}
        coords = {"y": grid["y"], "x": grid["x"]} | facts
        planes.append(xr.DataArray(values, coords, ("layer", "y", "x")).where(inside))
    return inside, planes


_ALL = (slice(None), slice(None))
_CORNER = (slice(0, 1), slice(0, 1))


def _cells(grid: xr.Dataset) -> xr.DataArray:
    """Return a grid that takes no memory, as only its geometry matters."""
    shape = grid.sizes["y"], grid.sizes["x"]
    return xr.DataArray(np.broadcast_to(np.float32(0), shape), grid.coords, ("y", "x"))


def _area(shared: tuple[Study, xr.Dataset], region: str) -> np.ndarray:
    study, grid = shared
    return align.area_mask(study, region, _cells(grid))


def _aligned(
    shared: tuple[Study, xr.Dataset], layer: Layer, region: str, part: Part | None
) -> np.ndarray:
    study, grid = shared
    return align.align_layer(study, layer, region, _cells(grid), part=part).values


def _spans(size: int, chunks: int) -> list[slice]:
    return [slice(start, min(start + chunks, size)) for start in range(0, size, chunks)]


_CLIENTS: dict[str, object] = {}  # by address; a client that nobody holds is closed


def _use_named_cluster() -> None:
    """Let Dask compute on the scheduler that `DASK_SCHEDULER_ADDRESS` names, if it does."""
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        return
    from distributed import get_client

    try:
        get_client()  # the caller's own comes first
    except ValueError:
        _CLIENTS[address] = get_client(address)


def path(study: Study, region: str) -> Path:
    """Return where a region's cube lies."""
    return study.processed / f"{region}.zarr"


def write(cube: xr.Dataset, place: Path) -> None:
    """Write a dataset on a grid as Zarr, so that a reader sees the old one or the new one.

    A lazy dataset is computed and written a tile at a time. On a cluster all workers must see
    `place` under the same path.
    """
    cube = cube.copy()
    for name in cube.variables:
        if cube[name].dtype.kind in "OT" or cube[name].dtype.name == "str":
            cube[name] = cube[name].astype(str).astype("U")
        cube[name].encoding = {}
        if cube[name].ndim > 1:
            tile = _stored(cube[name])
            if cube[name].chunks is not None:
                cube[name] = cube[name].chunk(tile)
            cube[name].encoding = {"chunks": tuple(tile.values())}
    with artefacts.atomic(Path(place).absolute()) as fresh, _threads(cube):
        cube.to_zarr(fresh, zarr_format=2, consolidated=True)


@contextmanager
def _threads(cube: xr.Dataset) -> Iterator[None]:
    """Give a lazy cube threads of its own, all of which are done before an error is passed on."""
    if not cube.chunks:
        yield
        return
    import dask

    with ThreadPoolExecutor(dask.system.CPU_COUNT) as pool, dask.config.set(pool=pool):
        yield


def _stored(planes: xr.DataArray) -> dict[str, int]:
    """Sizes of stored chunks: tiles of one plane."""
    lazy = planes.chunksizes
    tile = {name: max(lazy[name]) if lazy else min(STORED, planes.sizes[name]) for name in "yx"}
    return {name: tile.get(name, 1) for name in planes.dims}


def read(
    place: Path, *, notebook: str = "01_data_preparation", chunks: int | None = None
) -> xr.Dataset:
    """Read a dataset written by `write`.

    Parameters
    ----------
    place : Path
    notebook : str
        The notebook that writes it, for the message when it is missing.
    chunks : int, optional
        If given, the dataset is lazy: tiles of at least so many cells along a side (as many stored
        chunks as that takes) are read when they are asked for. By default all is read now.

    Raises
    ------
    FileNotFoundError
        If it is missing; says which notebook to run.
    ValueError
        If it is damaged; says to run that notebook again. Tiles of a lazy dataset raise it too, if
        it was written anew since it was opened.
    """
    place = Path(place).absolute()  # workers may have another working directory
    while True:
        before = _version(artefacts.require(place, notebook))
        try:
            if chunks is not None:
                _use_named_cluster()
                return _open(place, chunks, before)
            with xr.open_zarr(place, consolidated=True, decode_coords="all") as cube:
                cube.load()
        except _BROKEN as error:
            if _version(place) == before:
                raise ValueError(
                    f"{place} is damaged ({error}); run notebook {notebook} again"
                ) from error
        else:
            if _version(place) == before:  # else another process has replaced it meanwhile
                return cube


def _version(place: Path) -> tuple[int, int] | None:
    """What tells a folder from the one that lay there before."""
    try:
        facts = place.stat()
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _open(place: Path, chunks: int, version: tuple[int, int]) -> xr.Dataset:
    cube = xr.open_zarr(place, consolidated=True, decode_coords="all", chunks=None)
    cube = cube.assign_coords({name: cube[name].load() for name in cube.coords})
    for name, planes in cube.data_vars.items():
        stored = dict(zip(planes.dims, planes.encoding["chunks"], strict=True))
        tile = {dim: -(-chunks // size) * size for dim, size in stored.items() if dim in "yx"}
        lazy = planes.chunk(stored | tile)
        data = lazy.data.map_blocks(_same, place, version, dtype=lazy.dtype, meta=lazy.data._meta)
        cube[name] = lazy.copy(data=data)
    return cube


def _same(block: np.ndarray, place: Path, version: tuple[int, int]) -> np.ndarray:
    """Pass a tile on, if the folder that it was read from is still there: else it may be empty."""
    if _version(place) != version:
        raise ValueError(f"{place} was written anew since it was opened; read it again")
    return block


def read_cubes(study: Study, *, chunks: int | None = None) -> dict[str, xr.Dataset]:
    """Read the cubes of all regions, by name; lazily if `chunks` is given, as `read` does."""
    return {region: read(path(study, region), chunks=chunks) for region in study.regions}


def coverage(cubes: dict[str, xr.Dataset]) -> pd.DataFrame:
    """Tabulate what each layer holds inside the study area.

    Parameters
    ----------
    cubes : dict of Dataset
        By region; of lazy ones, a plane at a time is computed.

    Returns
    -------
    DataFrame
        One row a layer and region: layer, group, region, units, method, missing (% of valid cells),
        min, median, max.
    """
    rows = []
    for region, cube in cubes.items():
        valid = cube["valid"].values
        for plane in cube["evidence"]:
            values = plane.values[valid]
            seen = values[~np.isnan(values)]
            low, middle, high = np.quantile(seen, [0, 0.5, 1]) if seen.size else [np.nan] * 3
            facts = {key: str(plane[key].item()) for key in ("layer", "group", "units", "method")}
            missing = round(100 * np.isnan(values).mean(), 1) if values.size else np.nan
            rows.append(
                facts
                | {"region": region, "missing": missing, "min": low, "median": middle, "max": high}
            )
    return pd.DataFrame(rows)


def write_geotiff(layers: xr.DataArray, place: Path, *, names: list[str]) -> None:
    """Write planes as a Cloud-Optimized GeoTIFF with overviews and named bands.

    Parameters
    ----------
    layers : DataArray (band, y, x)
        Values in memory (GDAL writes empty overviews from lazy arrays), NaN where missing.
    place : Path
    names : list of str
        One a band.
    """
    layers = layers.astype("float32").assign_attrs(long_name=tuple(names))
    with artefacts.atomic(place) as fresh:
        layers.rio.write_nodata(np.nan).rio.to_raster(
            fresh, driver="COG", compress="DEFLATE", overview_resampling=Resampling.average.name
        )
