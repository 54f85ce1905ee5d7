"""The cube: all evidence layers of one region on one grid, in memory or a tile at a time."""

import os
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
import zarr
from numcodecs import Zstd
from rasterio.enums import Resampling

from mpm import align, artefacts
from mpm.bars import tqdm
from mpm.layers import Layer
from mpm.places import Part
from mpm.study import Study

MIN_OBSERVED = 0.5  # share of evidence layers that a valid cell must have
STORED = 1024  # cells along a stored chunk of a cube that was in memory
CODEC = Zstd(level=1, checksum=True)  # Blosc, the default, reads on behind a chunk cut short
_WHOLE = "every chunk is stored"  # attribute of what `write` wrote
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
    facts = [align.coordinates(study, layer, region, cells) for layer in study.layers]
    counts = [len(each["layer"]) for each in facts]
    if chunks is None:
        inside, evidence = _filled(study, region, cells, counts)
    else:
        inside, evidence = _promised(study, region, counts, chunks)
    coords: dict[str, tuple[str, Any]] = {
        key: ("layer", sum((each[key] for each in facts), [])) for key in facts[0]
    }
    coords |= {axis: (axis, cells[axis].values) for axis in "yx"}
    # the planes of a layer of classes are one layer: many classes outvote nobody
    first = np.cumsum([0, *counts[:-1]])
    observed = sum(np.isfinite(evidence[k]).astype("uint16") for k in first)
    valid = (observed >= MIN_OBSERVED * len(first)) & inside
    if chunks is None and not valid.any():
        raise ValueError(f"region {region!r}: no cell has half of the layers; see `mpm check`")
    planes = {"evidence": (("layer", "y", "x"), evidence), "valid": (("y", "x"), valid)}
    cube = xr.Dataset(planes, coords, {"study": study.name, "region": region})
    # in place: rioxarray would copy the values
    cube.rio.write_crs(cells.rio.crs, inplace=True)
    return cube.rio.write_transform(cells.rio.transform(), inplace=True)


def _filled(
    study: Study, region: str, cells: xr.DataArray, counts: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Align the study area (y, x) and all layers (layer, y, x), one after the other."""
    inside = align.area_mask(study, region, cells)
    evidence = np.empty((sum(counts), *cells.shape), "float32")
    starts = np.cumsum([0, *counts])
    hidden = artefacts.quiet()
    bars = tqdm(study.layers, desc=region, unit="layer", leave=False, disable=hidden)
    for layer, start, stop in zip(bars, starts[:-1], starts[1:], strict=True):
        evidence[start:stop] = align.planes(study, layer, region, cells)
        evidence[start:stop, ~inside] = np.nan
    return inside, evidence


def _promised(study: Study, region: str, counts: list[int], chunks: int) -> tuple:
    """Return area (y, x) and layers (layer, y, x) as Dask arrays."""
    import dask
    import dask.array as da

    _use_named_cluster()
    shape = study.regions[region].shape
    # every task needs the study: it is sent to each worker once
    shared = dask.delayed(study, traverse=False)
    mask = da.from_delayed(dask.delayed(_area)(shared, region), shape, bool)
    inside = mask.rechunk(chunks)

    def task(layer: Layer, count: int, part: Part | None) -> da.Array:
        values = dask.delayed(_aligned)(shared, layer, region, part)
        sides = [len(range(size)[span]) for size, span in zip(shape, part or _ALL, strict=True)]
        return da.from_delayed(values, (count, *sides), "float32")

    planes = []
    for layer, count in zip(study.layers, counts, strict=True):
        if layer.kind in align.TILED:
            rows, columns = (_spans(size, chunks) for size in shape)
            values = da.block([[task(layer, count, (row, col)) for col in columns] for row in rows])
        else:
            values = task(layer, count, None).rechunk((1, chunks, chunks))
        planes.append(da.where(inside, values, np.float32(np.nan)))
    return inside, da.concatenate(planes)


_ALL = (slice(None), slice(None))


def _area(study: Study, region: str) -> np.ndarray:
    return align.area_mask(study, region, align.grid(study.regions[region]))


def _aligned(study: Study, layer: Layer, region: str, part: Part | None) -> np.ndarray:
    return align.planes(study, layer, region, align.grid(study.regions[region]), part=part)


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
        cube[name].encoding = {"compressors": [CODEC]}
        if cube[name].ndim > 1:
            tile = _stored(cube[name])
            if cube[name].chunks is not None:
                cube[name] = cube[name].chunk(tile)
            cube[name].encoding["chunks"] = tuple(tile.values())
    with artefacts.atomic(Path(place).absolute()) as fresh, _threads(cube):
        # every chunk, the empty ones too: one that is gone is seen to be
        cube.attrs[_WHOLE] = "yes"
        cube.to_zarr(fresh, zarr_format=2, consolidated=True, write_empty_chunks=True)


@contextmanager
def _threads(cube: xr.Dataset) -> Iterator[None]:
    """Give a lazy cube threads of its own, all of which are done before an error is passed on."""
    if not cube.chunks:
        yield
        return
    import dask

    with ThreadPoolExecutor(dask.system.CPU_COUNT) as pool, dask.config.set(pool=pool):
        yield


def _stored(planes: xr.DataArray) -> dict[Hashable, int]:
    """Sizes of stored chunks: tiles of one plane."""
    lazy = planes.chunksizes
    tile: dict[Hashable, int] = {
        name: max(lazy[name]) if lazy else min(STORED, planes.sizes[name]) for name in "yx"
    }
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
                _whole(cube, place).load()
        except _BROKEN as error:
            if _version(place) == before:
                raise ValueError(
                    f"{place} is damaged ({error}); run notebook {notebook} again"
                ) from error
        else:
            if _version(place) == before:  # else another process has replaced it meanwhile
                return cube


def _whole(cube: xr.Dataset, place: Path) -> xr.Dataset:
    """Return a dataset that was opened, if no chunk of it is gone; Zarr takes those for empty."""
    if cube.attrs.pop(_WHOLE, None):  # else written by an earlier version
        for name, array in zarr.open_group(place, mode="r").arrays():
            if array.nchunks_initialized < array.nchunks:
                lost = array.nchunks - array.nchunks_initialized
                raise ValueError(f"{lost} of {array.nchunks} chunks of {name} are gone")
    return cube


def _version(place: Path) -> tuple[int, int] | None:
    """What tells a folder from the one that lay there before."""
    try:
        facts = place.stat()
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _open(place: Path, chunks: int, version: tuple[int, int] | None) -> xr.Dataset:
    cube = xr.open_zarr(place, consolidated=True, decode_coords="all", chunks=None)
    cube = _whole(cube, place)
    cube = cube.assign_coords({name: cube[name].load() for name in cube.coords})
    for name, planes in cube.data_vars.items():
        stored = dict(zip(planes.dims, planes.encoding["chunks"], strict=True))
        tile = {dim: -(-chunks // size) * size for dim, size in stored.items() if dim in ("y", "x")}
        lazy = planes.chunk(stored | tile)
        data = lazy.data.map_blocks(_same, place, version, dtype=lazy.dtype, meta=lazy.data._meta)
        cube[name] = lazy.copy(data=data)
    return cube


def _same(block: np.ndarray, place: Path, version: tuple[int, int] | None) -> np.ndarray:
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


def sample(cubes: dict[str, xr.Dataset], *, cells: int, seed: int) -> pd.DataFrame:
    """Draw valid cells of all regions at random and read their evidence.

    Parameters
    ----------
    cubes : dict of Dataset
        By region, with the same layers; of lazy ones, a plane at a time is computed.
    cells : int
        How many; all if there are no more.
    seed : int

    Returns
    -------
    DataFrame (cells, layers)
        In the regions' order, NaN where missing.
    """
    places = [np.flatnonzero(cube["valid"].values) for cube in cubes.values()]
    ends = np.cumsum([0] + [len(each) for each in places])
    drawn = np.random.default_rng(seed).choice(ends[-1], min(cells, ends[-1]), replace=False)
    parts = []
    for cube, own, first, end in zip(cubes.values(), places, ends[:-1], ends[1:], strict=True):
        here = own[np.sort(drawn[(drawn >= first) & (drawn < end)]) - first]
        names = cube["layer"].values
        columns = {
            name: plane.values.ravel()[here]
            for name, plane in zip(names, cube["evidence"], strict=True)
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def write_geotiff(layers: xr.DataArray, place: Path, *, names: list[str]) -> None:
    """Write planes as a Cloud-Optimized GeoTIFF with overviews and named bands.

    Parameters
    ----------
    layers : DataArray (band, y, x)
        Values in memory (GDAL writes empty overviews from lazy arrays), NaN where missing.
    place : Path
    names : list of str
        One a band.

    Raises
    ------
    ValueError
        If the values are lazy, or names and bands differ in number.
    """
    if layers.chunks is not None:
        raise ValueError(f"{place}: load the values first; overviews of lazy ones come out empty")
    if len(names) != len(layers):
        raise ValueError(f"{place}: {len(names)} names for {len(layers)} bands; name each once")
    layers = layers.astype("float32").assign_attrs(long_name=tuple(names))
    with artefacts.atomic(place) as fresh:
        # blocks of 256 cells: a map wider than one has overviews
        layers.rio.write_nodata(np.nan).rio.to_raster(
            fresh,
            driver="COG",
            compress="DEFLATE",
            predictor="YES",
            blocksize=256,
            overview_resampling=Resampling.average.name,
        )
