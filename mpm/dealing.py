"""Blocks and single cells, dealt to folds so that deposits and ground are even."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def deal_blocks(
    cubes: Sequence[xr.Dataset], targets: Sequence[str], *, side_km: float, folds: int, seed: int
) -> list[np.ndarray]:
    """Deal squares of ground to folds at random, so that deposits and area are even.

    Parameters
    ----------
    cubes : sequence of Dataset
        With `valid` and the targets' deposits.
    targets : sequence of str
    side_km : float
        Side of a square (km). 0: single cells, which parts deposits, as published.
    folds : int
    seed : int

    Returns
    -------
    list of array (y, x)
        int, a region each: the fold, -1 where not valid. Positive cells that touch, or belong to
        one deposit, are in one fold, also where invalid cells lie between them.
    """
    rng = np.random.default_rng(seed)
    units = _units(cubes, side_km, targets)
    counts, sizes = _unit_counts(cubes, units, targets)
    fold_of = _deal(counts, sizes, folds, rng)
    return [
        np.where(cube["valid"], fold_of[unit], -1) for cube, unit in zip(cubes, units, strict=True)
    ]


def groups(cube: xr.Dataset, targets: Sequence[str]) -> np.ndarray:
    """Number positive cells that touch, or belong to one deposit: (y, x), -1 elsewhere."""
    positive = np.any([cube[target].values for target in targets], axis=0)
    patch, count = label(positive, structure=np.ones((3, 3)))
    # invalid cells may cut a deposit's neighbourhood into patches: its number joins them
    numbers = [cube[f"{target}_deposit"].values for target in targets]
    ties = [np.stack([patch[number >= 0] - 1, number[number >= 0]]) for number in numbers]
    patches, deposits = np.unique(np.concatenate(ties, axis=1), axis=1)
    size = count + int(deposits.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(patches)), (patches, count + deposits)), shape=(size, size))
    _, joined = connected_components(graph, directed=False)
    _, joined = np.unique(joined[:count], return_inverse=True)
    group = np.full(positive.shape, -1)
    group[positive] = joined[patch[positive] - 1]
    return group


def whole(number: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Give all cells of a group the number that most of them have, the lowest of equals: (y, x)."""
    grouped = group >= 0
    pairs, often = np.unique([group[grouped], number[grouped]], axis=1, return_counts=True)
    most = np.lexsort((pairs[1], -often, pairs[0]))
    _, first = np.unique(pairs[0][most], return_index=True)
    made = number.copy()
    made[grouped] = pairs[1][most][first][group[grouped]]
    return made


def cell_km(cube: xr.Dataset) -> float:
    """Return the size of a cube's cells (km)."""
    return abs(float(cube["x"][1] - cube["x"][0])) / 1000


def _units(cubes: Sequence[xr.Dataset], side_km: float, targets: Sequence[str]) -> list[np.ndarray]:
    """Number what is dealt: cells, or blocks in which touching deposits share a number; (y, x)."""
    units, offset = [], 0
    for cube in cubes:
        shape = cube["valid"].shape
        side = max(1, round(side_km / cell_km(cube)))
        rows, cols = np.indices(shape) // side
        unit = offset + rows * -(-shape[1] // side) + cols
        offset = int(unit.max()) + 1
        units.append(whole(unit, groups(cube, targets)) if side_km else unit)
    return units


def _unit_counts(
    cubes: Sequence[xr.Dataset], units: Sequence[np.ndarray], targets: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Deposit groups per unit and target (units, targets), and valid cells per unit."""
    total = max(int(unit.max()) for unit in units) + 1
    counts = np.zeros((total, len(targets)))
    sizes = np.zeros(total)
    for cube, unit in zip(cubes, units, strict=True):
        np.add.at(sizes, unit[cube["valid"].values], 1)
        for t, target in enumerate(targets):
            np.add.at(counts[:, t], first_cells(unit, cube[f"{target}_deposit"].values), 1)
    return counts, sizes


def occupied(
    cubes: Sequence[xr.Dataset], targets: Sequence[str], target: str, *, side_km: float
) -> tuple[int, int]:
    """Count the squares of ground that hold a deposit of one target, and all with valid cells.

    Parameters
    ----------
    cubes, targets, side_km
        As for `deal_blocks`, which deals these squares.
    target : str
        One of the targets.
    """
    units = _units(cubes, side_km, targets)
    counts, sizes = _unit_counts(cubes, units, targets)
    return int((counts[:, list(targets).index(target)] > 0).sum()), int((sizes > 0).sum())


def first_cells(plane: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Read a plane (y, x) at the first cell of each deposit, which counts once: (deposits,)."""
    here = number >= 0
    _, first = np.unique(number[here], return_index=True)
    return plane[here][first]


def _deal(
    counts: np.ndarray, sizes: np.ndarray, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Deal units to folds: shuffled, those with most deposits first, each to the neediest fold."""
    fold_of = np.zeros(len(sizes), int)
    weight = counts / np.maximum(counts.sum(axis=0), 1)
    order = rng.permutation(len(sizes))
    rich = order[np.argsort(-weight[order].sum(axis=1), kind="stable")]
    rich = rich[weight[rich].sum(axis=1) > 0]
    held, cells = np.zeros((folds, counts.shape[1])), np.zeros(folds)
    for unit in rich:
        load = (held * (weight[unit] > 0)).sum(axis=1)
        fold = np.lexsort((cells, load))[0]
        fold_of[unit] = fold
        held[fold] += weight[unit]
        cells[fold] += sizes[unit]
    poor = order[(weight[order].sum(axis=1) == 0) & (sizes[order] > 0)]
    if len(poor) > 1000:  # single cells: dealing in turn is as even and far faster
        fold_of[poor] = np.arange(len(poor)) % folds
        return fold_of
    for unit in poor[np.argsort(-sizes[poor], kind="stable")]:
        fold_of[unit] = cells.argmin()
        cells[cells.argmin()] += sizes[unit]
    return fold_of
