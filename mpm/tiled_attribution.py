"""Reasons for chosen cells of a map larger than memory, tile by tile."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from mpm import explain
from mpm.classifier import Classifier
from mpm.explained_cells import lowest, on_grid
from mpm.scaling import Scaling, apply_scaling
from mpm.tiled_maps import MIN_VALID, TURN, as_map, by_tile, tile_windows
from mpm.windows import make_windows


def choose(likelihood: xr.DataArray, *, share: float, every: int) -> np.ndarray:
    """Choose the cells of a region's map that are explained.

    Parameters
    ----------
    likelihood : DataArray (y, x)
        NaN where nothing is predicted; a plane fits into memory where a cube does not.
    share : float
        Of the predicted cells, the most likely ones: 1 is all of them, 0 none.
    every : int
        Rows and columns between the cells of a grid that is explained beside them; 0 for none.

    Returns
    -------
    array (y, x) of bool
    """
    values = likelihood.values
    rows, cols = (np.arange(length) for length in values.shape)
    chosen = on_grid(rows[:, None], cols, every)
    return np.isfinite(values) & (chosen | (values >= lowest(values, share)))


def typical_windows(
    cubes: Mapping[str, xr.Dataset],
    likelihood: Mapping[str, xr.DataArray],
    scaling: Scaling,
    window: int,
    *,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the windows of cells whose likelihood is nearest to the median of all maps.

    Where a study fits into memory, background cells of usual score are compared with; here nothing
    else of the cube is read.

    Parameters
    ----------
    cubes : mapping of Dataset
        By region, unscaled, lazy.
    likelihood : mapping of DataArray (y, x)
        By region.
    scaling : Scaling
    window : int
        Cells along one side.
    count : int

    Returns
    -------
    values, observed : Tensor (count, layers, size, size)
        Of `Windows.gather`.

    Raises
    ------
    ValueError
        If no cell of any map is predicted.
    """
    planes = {region: plane.values for region, plane in likelihood.items()}
    seen = np.concatenate([plane[np.isfinite(plane)] for plane in planes.values()])
    if not seen.size:
        raise ValueError("no cell of any map is predicted; there is nothing to explain")
    middle, nearest = np.median(seen), []
    for region, plane in planes.items():
        away = np.abs(plane - middle)
        order = np.argsort(np.where(np.isfinite(away), away, np.inf), axis=None, kind="stable")
        places = zip(*np.unravel_index(order[:count], plane.shape), strict=True)
        nearest += [(away[cell], region, *cell) for cell in places if np.isfinite(away[cell])]
    nearest.sort(key=lambda each: each[0])
    parts = [
        _window(cubes[region], row, col, scaling, window) for _, region, row, col in nearest[:count]
    ]
    values, observed = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(observed)


def _window(
    cube: xr.Dataset, row: int, col: int, scaling: Scaling, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the one window (1, layers, size, size) around a cell."""
    top, left, half = max(0, row - window // 2), max(0, col - window // 2), window // 2
    here = {"y": slice(top, row + half + 1), "x": slice(left, col + half + 1)}
    near = apply_scaling(cube[["evidence", "valid"]].isel(here).load(), scaling)
    windows = make_windows([near], window, min_valid=0)
    return windows.gather(np.flatnonzero((windows.row == row - top) & (windows.col == col - left)))


def attribute_tiled(
    members: Sequence[Classifier],
    cube: xr.Dataset,
    scaling: Scaling,
    chosen: np.ndarray,
    baselines: tuple[torch.Tensor, torch.Tensor],
    *,
    min_valid: float = MIN_VALID,
    device: str = "cpu",
) -> xr.Dataset:
    """Promise contributions to the score of chosen cells of a lazy cube.

    Parameters
    ----------
    members, cube, scaling, min_valid, device
        As for `tiled_maps.predict_tiled`; reasons of several networks are averaged.
    chosen : array (y, x) of bool
        Of `choose`.
    baselines : Tensor, Tensor (k, layers, size, size)
        Of `typical_windows`.

    Returns
    -------
    Dataset
        `attribution (layer, y, x)` in logits, and `gap (y, x)`, what its sums miss of the score's
        difference as a share of it, the largest of all networks: float32, Dask arrays, NaN where
        a cell is not explained; the numbers of `explain.layer_contributions`.

    Raises
    ------
    ValueError
        As for `tiled_maps.predict_tiled`.
    """
    count = cube.sizes["layer"]
    planes = by_tile(
        _attribute_tile, members, cube, scaling, planes=count + 1, extra=[chosen],
        baselines=baselines, min_valid=min_valid, device=device,
    )  # fmt: skip
    drawn = {"attribution": (("layer", "y", "x"), planes[:count]), "gap": (("y", "x"), planes[-1])}
    return as_map(drawn, cube).assign_coords(layer=cube["layer"])


def _attribute_tile(
    tile: np.ndarray,
    *,
    members: Sequence[Classifier],
    baselines: tuple[torch.Tensor, torch.Tensor],
    min_valid: float,
    device: str,
) -> np.ndarray:
    """Explain the chosen inner cells of a tile (layer, chosen and valid, y, x): (layers + 1, y, x).

    The last plane is the gap.
    """
    window, layers = members[0].encoder.config.window, len(tile) - 2
    found = np.full((layers + 1, *tile.shape[1:]), np.nan, "float32")
    cells = tile_windows(tile, tile[-2] == 1, window, layers=layers, min_valid=min_valid)
    if cells is not None:
        windows, index = cells
        total, gaps = np.zeros((len(index), layers)), []
        with TURN:
            for member in members:
                signed, _, gap = explain.layer_contributions(
                    member, windows, index, baselines=baselines, device=device, label="tile"
                )
                total += signed / len(members)
                gaps.append(gap)
        place = windows.row[index], windows.col[index]
        found[:layers, *place], found[-1, *place] = total.T, np.max(gaps, axis=0)
    half = window // 2
    return found[:, half:-half, half:-half]
