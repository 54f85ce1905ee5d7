"""Train, validation and test cells, so that no window reaches from one into another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from scipy.ndimage import label, maximum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class SplitSettings:
    """How cells are divided; written once by notebook 02 and read by those after it.

    Attributes
    ----------
    folds : int
        Folds of each split; one is the test, the next the validation, the others train.
    block_km : float
        Side of a spatial block (km).
    dead_cells : int
        Cells between training and held-out cells: half a window plus the label radius.
    seed : int
    random_folds : int
        How many folds of the random split, shown for contrast only, are run.
    """

    folds: int = 5
    block_km: float = 200.0
    dead_cells: int = 7
    seed: int = 7
    random_folds: int = 1

    def runs(self) -> list[tuple[str, int]]:
        """List what is trained and scored: (split, fold), and ("final", 0) for the map."""
        blocks = [("blocks", fold) for fold in range(self.folds)]
        return blocks + [("random", fold) for fold in range(self.random_folds)] + [("final", 0)]


@dataclass(frozen=True)
class Split:
    """One division of the cells of all regions.

    Attributes
    ----------
    train, validation, test : tuple of array (y, x)
        bool, one a region. Cells in none of them are in the dead zone or not valid.
    """

    train: tuple[np.ndarray, ...]
    validation: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]


def auto_block_km(cubes: Sequence[xr.Dataset], folds: int) -> float:
    """Return the block side (km, in tens) at which the valid area makes five blocks a fold."""
    area = sum(int(cube["valid"].sum()) * cell_km(cube) ** 2 for cube in cubes)
    return max(10.0, round((area / (5 * folds)) ** 0.5, -1))


def dead_cells(cubes: Sequence[xr.Dataset], window: int, radius_m: float) -> int:
    """Return half a window plus the label radius, in cells."""
    return window // 2 + int(np.ceil(radius_m / 1000 / min(cell_km(cube) for cube in cubes)))


def make_split(
    cubes: Sequence[xr.Dataset],
    kind: Literal["blocks", "random", "region", "final"],
    fold: int,
    settings: SplitSettings,
    *,
    targets: Sequence[str],
) -> Split:
    """Divide the valid cells of all regions.

    Parameters
    ----------
    cubes : sequence of Dataset
        With `valid` and the targets' positive cells.
    kind : {"blocks", "random", "region", "final"}
        "blocks": 2-D squares dealt to folds, with a dead zone. "random": single cells dealt to
        folds, as published, deposits parted, for contrast only. "region": one region is tested, and
        in the others the blocks of fold 0 validate. "final": the blocks of one fold validate, all
        others train, and nothing is tested: the model behind the map.
    fold : int
        The fold that is tested; with "region" the number of the region.
    settings : SplitSettings
    targets : sequence of str
        Targets whose deposits must stay whole. One split serves them all, so that one backbone
        does.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        If the kind or fold is unknown, or a fold would hold no deposit.
    """
    known = kind in ("blocks", "random", "region", "final")
    if kind == "region" and len(cubes) < 2:
        raise ValueError("a study of one region has none to test on; use split 'blocks'")
    if not known or not 0 <= fold < (len(cubes) if kind == "region" else settings.folds):
        raise ValueError(f"there is no fold {fold} of split {kind!r}")
    numbers = fold_numbers(cubes, "random" if kind == "random" else "blocks", settings, targets)
    if kind == "region":
        return _by_region(numbers, fold, settings.dead_cells)
    validation_fold = fold if kind == "final" else (fold + 1) % settings.folds
    gap = 0 if kind == "random" else settings.dead_cells
    parts = []
    for number in numbers:
        test = np.zeros(number.shape, bool) if kind == "final" else number == fold
        validation = (number == validation_fold) & ~_near(test, gap)
        train = (number >= 0) & ~test & (number != validation_fold)
        train &= ~_near(test, gap) & ~_near(validation, gap)
        parts.append((train, validation, test))
    return Split(*(tuple(part) for part in zip(*parts, strict=True)))


def _by_region(numbers: list[np.ndarray], tested: int, gap: int) -> Split:
    parts = []
    for k, number in enumerate(numbers):
        nothing = np.zeros(number.shape, bool)
        if k == tested:  # no window reaches into another region
            parts.append((nothing, nothing, number >= 0))
            continue
        validation = number == 0
        parts.append(((number > 0) & ~_near(validation, gap), validation, nothing))
    return Split(*(tuple(part) for part in zip(*parts, strict=True)))


def check(split: Split, gap: int) -> None:
    """Raise if cells overlap or training cells lie within `gap` cells of held-out ones.

    Parameters
    ----------
    split : Split
    gap : int
        Dead zone (cells); 0 for the random split.

    Raises
    ------
    ValueError
        Naming the parts and the first cell at fault.
    """
    for k, (train, validation, test) in enumerate(
        zip(split.train, split.validation, split.test, strict=True)
    ):
        pairs = {
            "train and test": (train, test),
            "train and validation": (train, validation),
            "validation and test": (validation, test),
        }
        for names, (one, other) in pairs.items():
            wrong = np.argwhere(one & _near(other, gap))
            if len(wrong):
                row, col = wrong[0]
                raise ValueError(
                    f"leak: {names} cells of region {k} lie within {gap} cells of each other, "
                    f"first at row {row}, column {col}"
                )


def fold_numbers(
    cubes: Sequence[xr.Dataset], kind: str, settings: SplitSettings, targets: Sequence[str]
) -> list[np.ndarray]:
    """Number every cell by its fold: (y, x) int per region, -1 where not valid.

    Under blocks, touching deposits with their positive neighbourhoods stay in one fold, and so do
    parts of a neighbourhood that invalid cells cut through. The random split deals single cells, as
    published: cells of one deposit part, which is what it is here to show.
    """
    rng = np.random.default_rng(settings.seed)
    units = _units(cubes, kind, settings, targets)
    counts, sizes = _unit_counts(cubes, units, targets)
    fold_of = _deal(counts, sizes, settings.folds, rng)
    empty = [
        f"{target} in fold {fold}"
        for t, target in enumerate(targets)
        for fold in range(settings.folds)
        if counts[fold_of == fold, t].sum() == 0 and counts[:, t].sum() > 0
    ]
    if empty:
        raise ValueError(
            f"no deposit of {', '.join(empty)} ({kind} split): use fewer folds or smaller blocks"
        )
    return [
        np.where(cube["valid"], fold_of[unit], -1) for cube, unit in zip(cubes, units, strict=True)
    ]


def _units(cubes, kind: str, settings: SplitSettings, targets: Sequence[str]):
    """Number what is dealt: cells, or blocks in which touching deposits share a number; (y, x)."""
    units, offset = [], 0
    for cube in cubes:
        shape = cube["valid"].shape
        side = 1 if kind == "random" else max(1, round(settings.block_km / cell_km(cube)))
        across = -(-shape[1] // side)
        rows, cols = np.indices(shape) // side
        unit = offset + rows * across + cols
        offset = int(unit.max()) + 1
        units.append(unit)
        if kind == "random":
            continue
        group = _groups(cube, targets)
        positive = group >= 0
        # a group goes where most of its cells lie
        pairs, often = np.unique([group[positive], unit[positive]], axis=1, return_counts=True)
        most = np.lexsort((pairs[1], -often, pairs[0]))
        _, first = np.unique(pairs[0][most], return_index=True)
        unit[positive] = pairs[1][most][first][group[positive]]
    return units


def _groups(cube: xr.Dataset, targets: Sequence[str]) -> np.ndarray:
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


def _unit_counts(cubes, units, targets):
    """Deposit groups per unit and target (units, targets), and valid cells per unit."""
    total = max(int(unit.max()) for unit in units) + 1
    counts = np.zeros((total, len(targets)))
    sizes = np.zeros(total)
    for cube, unit in zip(cubes, units, strict=True):
        valid = cube["valid"].values
        np.add.at(sizes, unit[valid], 1)
        for t, target in enumerate(targets):
            number = cube[f"{target}_deposit"].values
            here = number >= 0
            # a deposit counts once, however many cells it has
            _, first = np.unique(number[here], return_index=True)
            np.add.at(counts[:, t], unit[here][first], 1)
    return counts, sizes


def _deal(counts: np.ndarray, sizes: np.ndarray, folds: int, rng) -> np.ndarray:
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


def _near(cells: np.ndarray, gap: int) -> np.ndarray:
    """Cells within `gap` cells of any of `cells`, in the square sense of a window."""
    if gap == 0 or not cells.any():
        return cells
    return maximum_filter(cells, size=2 * gap + 1)


def cell_km(cube: xr.Dataset) -> float:
    """Return the size of a cube's cells (km)."""
    return abs(float(cube["x"][1] - cube["x"][0])) / 1000
