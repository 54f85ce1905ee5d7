"""Deposits as labels of cells, and likely negatives among the unlabeled cells."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from mpm import artefacts, deposits
from mpm.study import Study, Target


def add_labels(cube: xr.Dataset, study: Study) -> tuple[xr.Dataset, pd.DataFrame]:
    """Add each target's positive cells to a cube.

    Parameters
    ----------
    cube : Dataset
        Of `datacube.build`. If it is lazy, `valid` is computed here and evidence is not; a cube
        that was written and read again spares aligning every layer for that.
    study : Study

    Returns
    -------
    cube : Dataset
        With `<target> (y, x)` bool and `<target>_deposit (y, x)` int32, the number of the nearest
        deposit for positive cells and -1 elsewhere. A deposit on a cell that is not valid keeps its
        valid neighbours within the radius.
    known : DataFrame
        The region's known deposits as `deposits.read_deposits` gives them. Its attributes count,
        by target, those without a positive cell: "off_valid" where no cell in reach is valid or
        theirs, "shadowed" where a nearer deposit has taken their own cell.
    """
    cube = cube.assign(valid=cube["valid"].compute())
    valid = cube["valid"].values
    known = deposits.read_deposits(study, cube.attrs["region"], cube["valid"])
    added, off_valid, shadowed = {}, {}, {}
    for name, target in study.targets.items():
        own = target.of(known)
        number = deposit_numbers(known, target, cube["valid"])
        number[~valid] = -1
        added[name] = (("y", "x"), number >= 0)
        added[f"{name}_deposit"] = (("y", "x"), number)
        lost = own[~own["deposit"].isin(number[number >= 0])]
        shadowed[name] = lost["deposit"][valid[lost["row"], lost["col"]]].nunique()
        off_valid[name] = lost["deposit"].nunique() - shadowed[name]
    known.attrs |= {"off_valid": off_valid, "shadowed": shadowed}
    return cube.assign(added), known


def deposit_numbers(known: pd.DataFrame, target: Target, cells: xr.DataArray) -> np.ndarray:
    """Number the positive cells of a target by their nearest deposit.

    Parameters
    ----------
    known : DataFrame
        Columns deposit, type, x, y (m), row, col; a deposit may have several rows.
    target : Target
        Types and radius (m).
    cells : DataArray (y, x)
        The grid.

    Returns
    -------
    array (y, x)
        int32; -1 where there is no deposit of the target within the radius.
    """
    number = np.full(cells.shape, -1, "int32")
    nearest = np.full(cells.shape, np.inf)
    reach = int(np.ceil(target.radius / cells.rio.transform().a))
    x, y = cells["x"].values, cells["y"].values
    for row in target.of(known).itertuples():
        rows = slice(max(row.row - reach, 0), row.row + reach + 1)
        cols = slice(max(row.col - reach, 0), row.col + reach + 1)
        away = np.hypot(x[None, cols] - row.x, y[rows, None] - row.y)
        own = np.zeros(away.shape, bool)
        own[row.row - rows.start, row.col - cols.start] = True
        takes = ((away <= target.radius) | own) & (away < nearest[rows, cols])
        number[rows, cols][takes] = row.deposit
        nearest[rows, cols][takes] = away[takes]
    return number


def likely_negatives(
    features: Callable[[np.ndarray], np.ndarray],
    positives: np.ndarray,
    unlabeled: np.ndarray,
    *,
    quantiles: tuple[float, float] = (0.75, 1.0),
    count: int,
    seed: int,
    chunk: int = 4096,
) -> np.ndarray:
    """Choose unlabeled cells that look unlike the known deposits.

    Every unlabeled cell is ranked by the sum of its distances to the positives in feature space;
    cells within a range of quantiles of that sum are candidates, and `count` of them are drawn.

    Parameters
    ----------
    features : function
        Returns the features of cells, (n,) int -> (n, d) float32: standardised evidence (e.g.
        `Windows.centres`), or a backbone's. It is asked for a chunk of cells at a time, so that
        those of all cells never lie in memory. NaN counts as the training mean, 0.
    positives, unlabeled : array (n,) of int
        Cells to compare with and cells to choose from. Both must come from training cells only.
    quantiles : (float, float)
        Range of the summed distance, 0 most and 1 least like the deposits.
    count : int
        How many to draw, at most all candidates.
    seed : int
    chunk : int
        Cells at a time; memory is chunk x positives.

    Returns
    -------
    array (n,) of int
        Sorted members of `unlabeled`.

    Raises
    ------
    ValueError
        If there are no positives, no unlabeled cells, or none of these within the quantiles.

    Source: GFM4MPM, Daruna et al. 2024, arXiv:2406.12756, positive-unlabeled selection. Unlike the
    released code this runs after the split and never sees a test deposit.
    """
    if len(positives) == 0:
        raise ValueError("no training positives: choose another split seed or larger blocks")
    low, high = quantiles
    if not 0 <= low < high <= 1:
        raise ValueError(f"quantiles {quantiles} must satisfy 0 <= low < high <= 1")
    if len(unlabeled) == 0:
        raise ValueError(
            "no negatives left: every training cell is positive; use a smaller target radius, "
            "larger regions or fewer folds"
        )
    candidates = unlabeled
    if (low, high) != (0, 1):  # else all are candidates, wherever they rank
        total = summed_distance(features, positives, unlabeled, chunk=chunk)
        edges = np.quantile(total, [low, high])
        candidates = unlabeled[(total >= edges[0]) & (total <= edges[1])]
    if len(candidates) == 0:
        raise ValueError(
            f"no negatives left: none of {len(unlabeled)} unlabeled training cells lies within "
            f"quantiles {quantiles} of the summed distance; widen them"
        )
    draw = np.random.default_rng(seed).choice(
        candidates, size=min(count, len(candidates)), replace=False
    )
    return np.sort(draw)


def sample_cells(
    index: np.ndarray, positive: np.ndarray, most: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return all positive cells and at most so many others, drawn: enough to rank them by.

    Parameters
    ----------
    index : array (n,) of int
        Numbers of centres, e.g. of validation cells.
    positive : array (all centres,) of bool
    most : int
        Cells that are not positive.
    seed : int

    Returns
    -------
    cells : array (m,) of int
        Sorted.
    weight : array (m,)
        How many cells of `index` each stands for, 1 for positive ones.
    """
    known, other = index[positive[index]], index[~positive[index]]
    drawn = np.random.default_rng(seed).choice(other, min(most, len(other)), replace=False)
    cells = np.sort(np.concatenate([known, drawn]))
    return cells, np.where(positive[cells], 1.0, len(other) / max(len(drawn), 1))


def summed_distance(
    features: Callable[[np.ndarray], np.ndarray],
    positives: np.ndarray,
    cells: np.ndarray,
    *,
    chunk: int = 4096,
) -> np.ndarray:
    """Sum each cell's Euclidean distances to all positives in feature space: (n,).

    Parameters
    ----------
    features, positives, chunk
        As for `likely_negatives`.
    cells : array (n,) of int
    """
    known = np.nan_to_num(features(positives)).astype("float32")
    middle = known.mean(axis=0)  # small numbers lose little where squares are subtracted
    known -= middle
    square = (known**2).sum(axis=1)
    total = np.empty(len(cells), "float64")
    for start in range(0, len(cells), chunk):
        part = np.nan_to_num(features(cells[start : start + chunk])).astype("float32") - middle
        squared = (part**2).sum(axis=1)[:, None] + square - 2 * part @ known.T
        total[start : start + chunk] = np.sqrt(np.maximum(squared, 0)).sum(axis=1)
    return total


def deposits_path(study: Study, region: str) -> Path:
    """Return where the table of a region's known deposits lies."""
    return study.processed / f"deposits_{region}.parquet"


def read_deposits(study: Study, target: str) -> dict[str, pd.DataFrame]:
    """Read a target's known deposits in all regions, as notebook 01 wrote them."""
    wanted, tables = study.target(target), {}
    for region in study.regions:
        table = artefacts.read_table(deposits_path(study, region), "01_data_preparation")
        tables[region] = wanted.of(table)
    return tables


def counts(cubes: dict[str, xr.Dataset], targets: list[str]) -> pd.DataFrame:
    """Count deposits and positive cells.

    Returns
    -------
    DataFrame
        region, target, deposits, positive cells, prevalence (% of valid cells).
    """
    rows = []
    for region, cube in cubes.items():
        for target in targets:
            number = cube[f"{target}_deposit"].values
            positive = int(cube[target].sum())
            rows.append(
                {
                    "region": region,
                    "target": target,
                    "deposits": len(np.unique(number[number >= 0])),
                    "positive cells": positive,
                    "prevalence (%)": round(100 * positive / int(cube["valid"].sum()), 3),
                }
            )
    return pd.DataFrame(rows)
