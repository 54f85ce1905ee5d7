"""Maps of a cube larger than memory: Dask goes tile by tile, on one machine or many."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from mpm.classifier import Classifier
from mpm.mapping import predict_ensemble
from mpm.scaling import Scaling, apply_scaling
from mpm.windows import Windows, make_windows, window_centres

MIN_VALID = 0.25  # share of a window's cells that are valid, as of `windows.make_windows`
# a process predicts one tile at a time: torch has the cores, and memory holds one tile's windows
TURN = threading.Lock()
MAPS = ("likelihood", "uncertainty")
SPREAD = "ensemble_spread"  # where several networks draw the map


def predict_tiled(
    members: Sequence[Classifier],
    cube: xr.Dataset,
    scaling: Scaling,
    *,
    samples: int = 100,
    seed: int = 0,
    batch: int = 0,
    min_valid: float = MIN_VALID,
    device: str = "cpu",
) -> xr.Dataset:
    """Promise the map of a lazy cube; `datacube.write` computes and stores it tile by tile.

    Every tile is read with half a window of its neighbours around it, so that windows at its edges
    are those of the whole map. Only as many tiles as there are Dask threads are in memory.

    Parameters
    ----------
    members : sequence of Classifier
        The network, or all networks whose likelihoods are averaged.
    cube : Dataset
        Of `datacube.read(path, chunks=...)`: `evidence (layer, y, x)` unscaled, `valid (y, x)`.
    scaling : Scaling
        The networks' own.
    samples, seed, batch
        As for `mapping.predict_ensemble`. All tiles share their dropout masks, as all cells of a
        map do.
    min_valid : float
        As for `windows.make_windows`.
    device : str
        Of every worker, e.g. "cpu" or "cuda".

    Returns
    -------
    Dataset
        `likelihood` and `uncertainty (y, x)` float32, and `ensemble_spread` of several networks:
        Dask arrays, NaN where nothing is predicted; the numbers of `mapping.predict_ensemble` on
        the whole region, to rounding.

    Raises
    ------
    ValueError
        If the cube is in memory, smaller than half a window, or of other layers than the scaling.
    """
    options = {"samples": samples, "seed": seed, "batch": batch, "device": device}
    names = [*MAPS, *[SPREAD] * (len(members) > 1)]
    planes = by_tile(
        _predict_tile, members, cube, scaling, planes=len(names), min_valid=min_valid,
        options=options,
    )  # fmt: skip
    drawn = {name: (("y", "x"), planes[k]) for k, name in enumerate(names)}
    return as_map(drawn, cube)


def as_map(drawn: dict, cube: xr.Dataset) -> xr.Dataset:
    """Lay planes, by name (dimensions, values), on the grid of a cube."""
    result = xr.Dataset(drawn, {axis: cube[axis] for axis in "yx"}, cube.attrs)
    return result.rio.write_crs(cube.rio.crs).rio.write_transform(cube.rio.transform())


def by_tile(
    work: Callable[..., np.ndarray],
    members: Sequence[Classifier],
    cube: xr.Dataset,
    scaling: Scaling,
    *,
    planes: int,
    extra: Sequence[np.ndarray] = (),
    **given: Any,
) -> da.Array:
    """Promise what a function makes of every tile of a lazy cube, its halo cut off.

    Parameters
    ----------
    work : function
        Tile with its halo (layers + extra + 1, y, x), the last plane being 1 where cells are valid
        and NaN beyond the map; `members`, and what is `given` -> (planes, y, x) without halo.
    members, cube, scaling
        As for `predict_tiled`.
    planes : int
    extra : sequence of array (y, x)
        Read with the evidence, as its last layers.
    given
        Passed on to `work`.

    Returns
    -------
    Dask array (planes, y, x)
        float32.

    Raises
    ------
    ValueError
        As `predict_tiled`.
    """
    if cube["evidence"].chunks is None:
        raise ValueError("the cube is in memory; read it with chunks, or use mapping.predict")
    window = members[0].encoder.config.window
    if min(cube["valid"].shape) < window // 2:
        raise ValueError(
            f"a map of {cube['valid'].shape} cells is narrower than half a window of {window}; "
            "load it and use mapping.predict"
        )
    evidence = apply_scaling(cube, scaling)["evidence"].data.rechunk({0: -1})
    # the layers come last and whole, as one more: what is valid
    more = [da.from_array(plane, evidence.chunks[1:]) for plane in extra]
    more.append(cube["valid"].data.rechunk(evidence.chunks[1:]))
    both = [evidence, *(plane[None].astype("float32") for plane in more)]
    halo = {0: 0, 1: window // 2, 2: window // 2}
    edges = {0: "none", 1: np.nan, 2: np.nan}
    tiles = da.overlap.overlap(da.concatenate(both).rechunk({0: -1}), halo, boundary=edges)
    inner = da.overlap.trim_internal(tiles, halo, boundary=edges)
    # sent to each worker once
    networks = dask.delayed(list(members), traverse=False)
    return tiles.map_blocks(
        work, members=networks, dtype="float32", chunks=((planes,), *inner.chunks[1:]),
        meta=np.empty((0, 0, 0), "float32"), **given,
    )  # fmt: skip


def tile_windows(
    tile: np.ndarray, chosen: np.ndarray, window: int, *, layers: int, min_valid: float
) -> tuple[Windows, np.ndarray] | None:
    """Return the windows of a tile with its halo, and which of its inner cells are chosen.

    Parameters
    ----------
    tile : array (planes, y, x)
        Layers first, last what is valid.
    chosen : array (y, x) of bool
    window : int
        Cells along one side.
    layers : int
    min_valid : float

    Returns
    -------
    Windows and array (n,) of int, or None if there is no such cell
    """
    half, valid = window // 2, tile[-1] == 1  # NaN beyond the map is not
    rows, cols = window_centres(valid, window, min_valid=min_valid)
    inside = np.zeros(valid.shape, bool)
    inside[half:-half, half:-half] = chosen[half:-half, half:-half]
    if not inside[rows, cols].any():
        return None
    planes = {"evidence": (("layer", "y", "x"), tile[:layers]), "valid": (("y", "x"), valid)}
    windows = make_windows([xr.Dataset(planes, {"layer": np.arange(layers)})], window,
                           min_valid=min_valid)  # fmt: skip
    return windows, np.flatnonzero(inside[windows.row, windows.col])


def _predict_tile(
    tile: np.ndarray, *, members: Sequence[Classifier], min_valid: float, options: dict
) -> np.ndarray:
    """Predict the inner cells of a tile (layer and valid, y, x) with its halo: (maps, y, x)."""
    window, count = members[0].encoder.config.window, len(MAPS) + (len(members) > 1)
    found = np.full((count, *tile.shape[1:]), np.nan, "float32")
    everywhere, layers = np.ones(tile.shape[1:], bool), len(tile) - 1
    cells = tile_windows(tile, everywhere, window, layers=layers, min_valid=min_valid)
    if cells is not None:
        windows, index = cells
        with TURN:
            drawn = predict_ensemble(members, windows, index, **options)
        found[:, windows.row[index], windows.col[index]] = drawn[:count]
    half = window // 2
    return found[:, half:-half, half:-half]
