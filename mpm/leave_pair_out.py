"""Spatial leave-pair-out AUC, for studies with too few deposits to average over folds."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import xarray as xr
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler

from mpm import baselines
from mpm.metrics import Interval, mean_interval
from mpm.workers import in_processes


def leave_pair_out_auc(
    place: np.ndarray,
    deposit: np.ndarray,
    fit_score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    dead_cells: int,
    pairs: int = 200,
    draws: int = 1000,
    seed: int = 0,
    processes: int = 1,
) -> Interval:
    """Ask models that saw neither which of a deposit and an unlabeled cell ranks higher.

    Each pair is held out with all that lies within the dead zone of either, and a model fitted on
    the rest ranks the two. Scores of different models are never compared: leaving out single cells
    and pooling them does so, and a learner that predicts the training prevalence gets AUC 0 by it,
    for leaving out a positive cell lowers the prevalence. Here it gets 0.5.

    A deposit is held out whole, and wins by the share of its cells that score above the other cell,
    a half for equal scores. Every deposit gets as many pairs, the unlabeled cells being drawn at
    random: a model for every pair of all is more than anyone can fit.

    Parameters
    ----------
    place : array (n, 3) of int
        Region, row and column of each cell.
    deposit : array (n,) of int
        Number of the deposit, -1 in unlabeled cells.
    fit_score : callable
        Takes the cells to train on and the cells to score, arrays of positions; returns the scores
        of the latter. Everything fitted, such as a scaling, must be fitted inside.
    dead_cells : int
        Half a window plus the label radius (cells), as `splits.dead_cells`.
    pairs : int
        Models to fit, about.
    draws : int
        Bootstrap draws of deposits.
    seed : int
    processes : int
        Pairs worked on at a time, as of `workers.in_processes`; changes no result.

    Returns
    -------
    Interval
        AUC and its 95 % interval over deposits; the ends are NaN with fewer than two.

    Raises
    ------
    ValueError
        If a class is missing, scores are not one a cell, or a pair leaves nothing to train on.

    Source: Airola et al. 2018, doi:10.1007/s10618-018-00607-x, section 3.
    """
    numbers, unlabeled = np.unique(deposit[deposit >= 0]), np.flatnonzero(deposit < 0)
    if not len(numbers) or not len(unlabeled):
        raise ValueError(f"{len(numbers)} deposits and {len(unlabeled)} unlabeled cells: no pair")
    rng = np.random.default_rng(seed)
    each = min(-(-pairs // len(numbers)), len(unlabeled))
    held = [
        np.append(np.flatnonzero(deposit == number), other)
        for number in numbers
        for other in rng.choice(unlabeled, each, replace=False)
    ]
    won = partial(_won, place, deposit, fit_score, dead_cells)
    pool = in_processes(won, [(pair,) for pair in held], processes, "pairs", ordered=True)
    wins = np.reshape(list(pool), (len(numbers), each))
    possible = ~np.isnan(wins).all(axis=1)
    if not possible.any():
        return Interval(np.nan, np.nan, np.nan)
    return mean_interval(np.nanmean(wins[possible], axis=1), draws=draws, seed=seed)


def _won(
    place: np.ndarray,
    deposit: np.ndarray,
    fit_score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    dead_cells: int,
    pair: np.ndarray,
) -> float:
    """Share of a deposit's cells above the other, the last of a pair; NaN if nothing is trained."""
    train = _rest(place, pair, dead_cells)
    if not 0 < (deposit[train] >= 0).sum() < len(train):
        return np.nan  # no deposit or no unlabeled cell is left to train on
    score = np.asarray(fit_score(train, pair), dtype="float64")
    if score.shape != pair.shape:
        raise ValueError(f"fit_score gave {score.shape} scores for {len(pair)} cells")
    return float(np.mean((score[:-1] > score[-1]) + (score[:-1] == score[-1]) / 2))


def tabular_auc(
    method: str,
    cubes: Mapping[str, xr.Dataset],
    target: str,
    *,
    dead_cells: int,
    cells: int = 3000,
    pairs: int = 100,
    draws: int = 1000,
    seed: int = 0,
    processes: int = 1,
) -> Interval:
    """Score a method on the values of single cells by leaving out pairs, see `leave_pair_out_auc`.

    Parameters
    ----------
    method : str
        One of `baselines.CANDIDATES`, with its default settings: no cells are left to choose by.
    cubes : mapping of Dataset
        By region, not scaled: values are standardised by the cells that a model is fitted on.
    target : str
    dead_cells, pairs, draws, seed, processes
        As for `leave_pair_out_auc`.
    cells : int
        Unlabeled valid cells that take part, a random sample.

    Returns
    -------
    Interval
    """
    regions = list(cubes.values())
    start = np.cumsum([0, *(int(cube[f"{target}_deposit"].max()) + 1 for cube in regions)])
    places, values, deposit = [], [], []
    for k, cube in enumerate(regions):
        row, col = np.nonzero(cube["valid"].values)
        number = cube[f"{target}_deposit"].values[row, col]
        places.append(np.column_stack([np.full(len(row), k), row, col]))
        values.append(cube["evidence"].values[:, row, col].T)
        deposit.append(np.where(number >= 0, number + start[k], -1))
    place, table, number = (np.concatenate(each) for each in (places, values, deposit))
    known, others = np.flatnonzero(number >= 0), np.flatnonzero(number < 0)
    drawn = np.random.default_rng(seed).choice(others, min(cells, len(others)), replace=False)
    kept = np.sort(np.concatenate([known, drawn]))
    layers = regions[0]["layer"].values.tolist()
    make = partial(baselines.make, method, seed, layers)
    binary = regions[0]["kind"].values == "binary"  # classes stay what they are, 0 or 1
    return leave_pair_out_auc(
        place[kept],
        number[kept],
        partial(_fit_score, make, table[kept], number[kept] >= 0, binary),
        dead_cells=dead_cells,
        pairs=pairs,
        draws=draws,
        seed=seed,
        processes=processes,
    )


def _fit_score(
    make: Callable[[], BaseEstimator],
    table: np.ndarray,
    positive: np.ndarray,
    binary: np.ndarray,
    train: np.ndarray,
    pair: np.ndarray,
) -> np.ndarray:
    """Standardise and fit on some rows of a table, score others."""
    scaler = StandardScaler().fit(table[train])
    learnt, asked = (np.where(binary, table[i], scaler.transform(table[i])) for i in (train, pair))
    return make().fit(learnt, positive[train]).predict_proba(asked)[:, 1]


def _rest(place: np.ndarray, pair: np.ndarray, dead_cells: int) -> np.ndarray:
    """Positions of cells farther than the dead zone, in the square sense, from all of a pair."""
    near = np.zeros(len(place), bool)
    for region, row, col in place[pair]:
        away = np.maximum(abs(place[:, 1] - row), abs(place[:, 2] - col))
        near |= (place[:, 0] == region) & (away <= dead_cells)
    return np.flatnonzero(~near)
