"""Train, validation and test cells, so that no window reaches from one into another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mpm.dealing import cell_km, deal_blocks, first_cells
from mpm.districts import district_ground, find_districts, latitude_bands
from mpm.leaks import Split, near
from mpm.leaks import check as check  # this is where it is looked for
from mpm.remembered import remembered

REMEDIES = {
    "blocks": "use fewer folds or smaller blocks",
    "random": "use fewer folds",
    "latitude": "use fewer latitude_groups",
}


@dataclass(frozen=True)
class SplitSettings:
    """How cells are divided; written once by notebook 02 and read by those after it.

    Attributes
    ----------
    folds : int
        Folds of each split; one is the test, the next the validation, the others train.
    block_km : float
        Side of a spatial block (km). 0: single cells, which makes blocks the random split.
    dead_cells : int
        Cells between training and held-out cells: half a window plus the label radius.
    seed : int
    random_folds : int
        How many folds of the random split, shown for contrast only, are run.
    latitude_groups : int
        Folds of the latitude split.
    districts : int
        The most folds of the district split.
    district_km : float
        Deposits closer than this are one district (km); 0: see `districts.find_districts`.
    regions : int
        How many folds of the region split networks are trained for.
    """

    folds: int = 5
    block_km: float = 200.0
    dead_cells: int = 7
    seed: int = 7
    random_folds: int = 1
    latitude_groups: int = 6
    districts: int = 6
    district_km: float = 0.0
    regions: int = 0

    def runs(self) -> list[tuple[str, int]]:
        """List what networks are trained for: (split, fold), and ("final", 0) for the map."""
        counts = {"blocks": self.folds, "random": self.random_folds, "region": self.regions}
        return [(kind, fold) for kind in counts for fold in range(counts[kind])] + [("final", 0)]


def auto_block_km(cubes: Sequence[xr.Dataset], folds: int) -> float:
    """Return the block side (km) at which the valid area makes five blocks a fold.

    It is rounded: to tens if it is 10 km or more, else to one digit, and three cells at least.
    """
    area = sum(int(cube["valid"].sum()) * cell_km(cube) ** 2 for cube in cubes)
    side = (area / (5 * folds)) ** 0.5
    rounded = max(10.0, round(side, -1)) if side >= 9.5 else float(f"{side:.0e}")
    return max(3 * max(cell_km(cube) for cube in cubes), rounded)


def dead_cells(cubes: Sequence[xr.Dataset], window: int, radius_m: float) -> int:
    """Return half a window plus the label radius, in cells."""
    return window // 2 + int(np.ceil(radius_m / 1000 / min(cell_km(cube) for cube in cubes)))


def deals_cells(kind: str, settings: SplitSettings) -> bool:
    """Whether a split deals single cells: it parts deposits and has no dead zone."""
    return kind == "random" or (kind == "blocks" and settings.block_km == 0)


def fold_count(
    kind: str, cubes: Sequence[xr.Dataset], settings: SplitSettings, targets: Sequence[str]
) -> int:
    """Return how many folds of a kind there are; of districts the map decides.

    Parameters
    ----------
    kind, cubes, settings, targets
        As for `make_split`.

    Raises
    ------
    ValueError
        If there is no such kind, a study of one region is split by region, or deposits make fewer
        than three districts.
    """
    if kind == "region" and len(cubes) < 2:
        raise ValueError("a study of one region has none to test on; use split 'blocks'")
    if kind == "district":
        return int(_districts(cubes, settings, targets).max()) + 1
    counts = dict.fromkeys(("blocks", "random", "final"), settings.folds)
    counts |= {"latitude": settings.latitude_groups, "region": len(cubes)}
    if kind not in counts:
        raise ValueError(f"there is no split {kind!r}; there are {', '.join(counts)}, district")
    return counts[kind]


def all_runs(
    kinds: Sequence[str],
    cubes: Sequence[xr.Dataset],
    settings: SplitSettings,
    targets: Sequence[str],
) -> list[tuple[str, int]]:
    """List what methods are scored on: (split, fold) of each kind, in the kinds' order.

    Of "random" there are as many folds as `settings` says, of "final" one.

    Parameters
    ----------
    kinds : sequence of str
    cubes, settings, targets
        As for `make_split`.

    Raises
    ------
    ValueError
        As `fold_count`.
    """
    fixed = {"random": settings.random_folds, "final": 1}
    counts = {
        kind: fixed[kind] if kind in fixed else fold_count(kind, cubes, settings, targets)
        for kind in kinds
    }
    return [(kind, fold) for kind in kinds for fold in range(counts[kind])]


def obstacles(
    kinds: Sequence[str],
    cubes: Sequence[xr.Dataset],
    settings: SplitSettings,
    targets: Sequence[str],
    *,
    tested: Sequence[str] = (),
) -> dict[str, str]:
    """Say of each kind of split why a study does not allow it: "" if it does.

    Parameters
    ----------
    kinds : sequence of str
    cubes, settings, targets
        As for `make_split`.
    tested : sequence of str
        Targets that are trained for and tested: every region must hold deposits of them to be held
        out by itself.
    """
    found: dict[str, str] = dict.fromkeys(kinds, "")
    for kind in kinds:
        try:
            if kind == "region":
                _check_regions(cubes, tested)
            for _, fold in all_runs([kind], cubes, settings, targets):
                make_split(cubes, kind, fold, settings, targets=targets)
        except ValueError as error:
            found[kind] = str(error)
    return found


def _check_regions(cubes: Sequence[xr.Dataset], targets: Sequence[str]) -> None:
    for target in targets:
        for k, cube in enumerate(cubes):
            if not cube[target].values.any():
                name = cube.attrs.get("region", f"number {k + 1}")
                raise ValueError(
                    f"region {name} has no deposit of {target} to learn from or to find"
                )


def make_split(
    cubes: Sequence[xr.Dataset],
    kind: str,
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
    kind : {"blocks", "random", "latitude", "district", "region", "final"}
        "blocks": 2-D squares dealt to folds. "random": single cells dealt to folds, as published,
        deposits parted, for contrast only. "latitude": bands of latitude, of all regions together,
        with equal numbers of deposits, as Lawley et al. 2022. "district": each cluster of deposits
        in turn, with the ground nearest to it. "region": one region is tested, and in the others
        the blocks of one fold validate. "final": the blocks of one fold validate, all others train,
        and nothing is tested: the model behind the map. All but "random" have a dead zone between
        train, validation and test.
    fold : int
        The fold that is tested; with "region" the number of the region, with "final" the fold that
        validates. Else the next one does, or fold 0 with "region"; unless, beyond the dead zone,
        others have positive cells of more targets: then the one of those with the fewest.
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
        As `fold_count`; if there is no such fold, a fold would hold no deposit of a target, or the
        dead zone leaves nothing to train on. The message says what to change.
    """
    count = fold_count(kind, cubes, settings, targets)
    if not 0 <= fold < count:
        raise ValueError(f"there is no fold {fold} of split {kind!r}, which has {count}")
    gap = 0 if deals_cells(kind, settings) else settings.dead_cells
    dealt = "blocks" if kind in ("region", "final") else kind
    numbers = fold_numbers(cubes, dealt, settings, targets)
    if kind == "final":
        test, validates = [np.zeros(number.shape, bool) for number in numbers], [fold]
    elif kind == "region":  # no window reaches into another region
        test = [(number >= 0) & (k == fold) for k, number in enumerate(numbers)]
        validates = list(range(settings.folds))
    else:
        test = [number == fold for number in numbers]
        validates = [(fold + k) % count for k in range(1, count + 1)]
    split = _divide(cubes, numbers, test, validates, gap, targets)
    wanted = [] if kind == "region" else targets  # a region may lack a target, and so may training
    _check_train(split, cubes, wanted, f"split {kind!r}, fold {fold}", gap)
    return split


def _divide(
    cubes: Sequence[xr.Dataset],
    numbers: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    validates: Sequence[int],
    gap: int,
    targets: Sequence[str],
) -> Split:
    """Validate on one of some folds, beyond the dead zone of the test cells; train on the rest."""
    free = [(number >= 0) & ~near(cells, gap) for number, cells in zip(numbers, test, strict=True)]
    held = np.zeros((len(targets), 1 + max(number.max() for number in numbers)))
    for row, target in zip(held, targets, strict=True):
        for number, own, cube in zip(numbers, free, cubes, strict=True):
            row += np.bincount(number[own & cube[target].values], minlength=len(row))
    # the first, unless others serve more targets: then that of them which takes least from training
    kinds, cells = (held > 0).sum(axis=0), held.sum(axis=0)
    chosen = min(validates, key=lambda fold: (-kinds[fold], cells[fold] * (fold != validates[0])))
    validation = [own & (number == chosen) for number, own in zip(numbers, free, strict=True)]
    train = [
        own & (number != chosen) & ~near(cells, gap)
        for number, own, cells in zip(numbers, free, validation, strict=True)
    ]
    return Split(tuple(train), tuple(validation), tuple(test))


def _check_train(
    split: Split, cubes: Sequence[xr.Dataset], targets: Sequence[str], what: str, gap: int
) -> None:
    """Raise if nothing is left to train on, or no deposit of a target that has some."""
    train, lost = split.train, []
    if not any(cells.any() for cells in train):
        lost = ["cell"]
    else:
        for target in targets:
            positive = [cube[target].values for cube in cubes]
            left = any((a & b).any() for a, b in zip(positive, train, strict=True))
            if not left and any(cells.any() for cells in positive):
                lost.append(f"deposit of {target}")
    if lost:
        raise ValueError(
            f"{what}: no {' and no '.join(lost)} is left to train on beyond the dead zone of {gap} "
            "cells; take three folds or more, larger blocks (fewer groups or districts), or a "
            "smaller window"
        )


@remembered
def fold_numbers(
    cubes: Sequence[xr.Dataset], kind: str, settings: SplitSettings, targets: Sequence[str]
) -> list[np.ndarray]:
    """Number every cell by the fold that tests it: (y, x) int per region, -1 where not valid.

    But for the random split, touching deposits with their positive neighbourhoods stay in one fold,
    and so do parts of a neighbourhood that invalid cells cut through.

    Parameters
    ----------
    cubes, kind, settings, targets
        As for `make_split`; "region" and "final" have no folds of their own.

    Raises
    ------
    ValueError
        As `make_split`.
    """
    if kind == "region":
        return [np.where(cube["valid"], k, -1) for k, cube in enumerate(cubes)]
    if kind == "latitude":
        numbers = latitude_bands(cubes, targets, bands=settings.latitude_groups)
    elif kind == "district":
        return district_ground(cubes, targets, _districts(cubes, settings, targets))
    else:
        side = 0.0 if kind == "random" else settings.block_km
        how = {"folds": settings.folds, "seed": settings.seed}
        numbers = deal_blocks(cubes, targets, side_km=side, **how)
    counts = _count(cubes, numbers, fold_count(kind, cubes, settings, targets), targets)
    empty = [
        f"{target} in fold {fold}"
        for target in targets
        for fold in counts.index[counts[target] == 0]
        if counts[target].any()
    ]
    if empty:
        raise ValueError(f"no deposit of {', '.join(empty)} ({kind} split): {REMEDIES[kind]}")
    return numbers


def fold_table(
    cubes: Sequence[xr.Dataset], kind: str, settings: SplitSettings, targets: Sequence[str]
) -> pd.DataFrame:
    """Count the cells, and the deposits of each target, that every fold tests; a row a fold.

    A deposit that is parted counts where its first cell is tested.

    Parameters
    ----------
    cubes, kind, settings, targets
        As for `fold_numbers`.
    """
    numbers = fold_numbers(cubes, kind, settings, targets)
    return _count(cubes, numbers, fold_count(kind, cubes, settings, targets), targets)


def _count(
    cubes: Sequence[xr.Dataset], numbers: list[np.ndarray], folds: int, targets: Sequence[str]
) -> pd.DataFrame:
    cells = np.concatenate([number[number >= 0] for number in numbers])
    table = pd.DataFrame({"cells": np.bincount(cells, minlength=folds)})
    for target in targets:
        planes = [cube[f"{target}_deposit"].values for cube in cubes]
        held = [first_cells(number, own) for number, own in zip(numbers, planes, strict=True)]
        table[target] = np.bincount(np.concatenate(held), minlength=folds)
    return table.rename_axis("fold")


@remembered
def _districts(
    cubes: Sequence[xr.Dataset], settings: SplitSettings, targets: Sequence[str]
) -> np.ndarray:
    """Number deposits by district: (deposits,)."""
    reach = settings.dead_cells * max(cell_km(cube) for cube in cubes)
    rules: dict[str, Any] = {
        "most": settings.districts,
        "km": settings.district_km,
        "dead_km": reach,
    }
    district = find_districts(cubes, targets, **rules)
    if district.max() < 2:
        raise ValueError(
            f"the deposits make {district.max() + 1} of the three districts that it takes to test, "
            "validate and train: use a smaller district_km or more districts, or split 'blocks'"
        )
    return district
