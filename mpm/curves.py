"""Curves of one fold on a common grid, so that folds can be averaged, and calibration."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mpm.bootstrap import deposit_weights
from mpm.prediction import BINS, Prediction, best_cells, calibration_edges, captured
from mpm.ranking import Ranking, Steps


def roc(prediction: Prediction, grid: np.ndarray) -> np.ndarray:
    """Return the true positive rate at the false positive rates of `grid`, (grid,).

    On one grid the curves of folds can be averaged. NaN without both classes.
    """
    if not prediction.both_classes:
        return np.full(len(grid), np.nan)
    return roc_of(_steps(prediction), int(np.count_nonzero(~prediction.y)), grid)


def roc_of(steps: Steps, negatives: int, grid: np.ndarray) -> np.ndarray:
    """Return the curve of `roc` from its steps, (points,).

    Parameters
    ----------
    steps : Steps
    negatives : int
        Unlabeled cells.
    grid : array (points,)
    """
    hits, above, with_equal = steps
    # the curve runs level to each step, and up (aslant through cells of equal score)
    false = np.stack([above, with_equal], axis=1).ravel() / negatives
    true = np.stack([np.append(0, hits[:-1]), hits], axis=1).ravel() / hits[-1]
    return np.interp(grid, [0, *false, 1], [0, *true, 1])


def precision_recall(prediction: Prediction, grid: np.ndarray) -> np.ndarray:
    """Return the precision at the recalls of `grid`, (grid,).

    Steps, as precision must not be interpolated: the precision where that recall is first reached,
    so that the area below is the average precision. NaN without both classes.
    """
    if not prediction.both_classes:
        return np.full(len(grid), np.nan)
    return precision_recall_of(_steps(prediction), grid)


def precision_recall_of(steps: Steps, grid: np.ndarray) -> np.ndarray:
    """Return the curve of `precision_recall` from its steps, (points,).

    Parameters
    ----------
    steps : Steps
    grid : array (points,)
    """
    hits, _, with_equal = steps
    precision, recall = hits / (hits + with_equal), hits / hits[-1]
    return precision[np.searchsorted(recall, np.asarray(grid) - 1e-12)]


def _steps(prediction: Prediction) -> Steps:
    return Ranking(prediction.p).steps(np.flatnonzero(prediction.y))


def capture_efficiency(prediction: Prediction, grid: np.ndarray) -> np.ndarray:
    """Return the share of deposits captured in the best shares of the test area, (grid,).

    A deposit is captured with its best cell. Where the area's edge falls into cells of equal score
    it counts by the share of them inside, so that a constant prediction captures what chance does.
    NaN without deposits.
    """
    if not prediction.y.any():
        return np.full(len(grid), np.nan)
    return captured(prediction, grid).mean(axis=1)


def prediction_area(prediction: Prediction, grid: np.ndarray) -> np.ndarray:
    """Return what lies at or above thresholds: (2, grid).

    First the share of deposits whose best cell does, then one less the share of cells. The higher
    both are where they cross, the better: many deposits in little area. Thresholds are quantiles of
    the likelihood, so that folds and methods of different scales can be compared. NaN without
    deposits.

    Parameters
    ----------
    prediction : Prediction
    grid : array (grid,)
        Quantiles, 0 to 1.

    Source: Yousefi and Carranza 2015, doi:10.1016/j.cageo.2015.03.007.
    """
    if not prediction.y.any():
        return np.full((2, len(grid)), np.nan)
    thresholds = np.quantile(prediction.p, grid, method="inverted_cdf")
    cells, best = np.sort(prediction.p), np.sort(best_cells(prediction))
    found = 1 - np.searchsorted(best, thresholds) / len(best)
    return np.stack([found, np.searchsorted(cells, thresholds) / len(cells)])


def reliability(
    folds: Mapping[str, Prediction], *, bins: int = BINS, draws: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Compare predicted with observed rates of all folds, with intervals over deposits.

    Cells of all folds are binned together: a probability means the same in every fold, as a rank
    does not. In a bin without positives the upper end is the rule of three: were three deposits
    expected there, one would be seen with 95 %.

    Parameters
    ----------
    folds : mapping of Prediction
    bins : int
        Of equal count.
    draws, seed
        Of the bootstrap.

    Returns
    -------
    DataFrame
        One row a bin: predicted, observed, cells, positives, low, high (95 % interval of the
        observed rate; NaN with fewer than two deposits).
    """
    y, p = (np.concatenate([getattr(fold, name) for fold in folds.values()]) for name in "yp")
    table = calibration_table(y, p, bins=bins)
    start = np.cumsum([0, *(fold.deposits for fold in folds.values())])
    index = np.concatenate(
        [at + fold.index for at, fold in zip(start, folds.values(), strict=False)]
    )
    number, count = start[-1], len(table)
    place = index * count + np.searchsorted(calibration_edges(p, bins), p[y])
    cells = np.bincount(place, minlength=number * count).reshape(number, count)
    found = deposit_weights("", number, draws, seed)[1:] @ cells
    with np.errstate(invalid="ignore"):  # no deposit drawn where there is nothing else: 0 / 0
        rate = found / (found + (table["cells"] - table["positives"]).to_numpy())
    low, high = np.nanpercentile(rate, [2.5, 97.5], axis=0)
    none = (table["positives"] == 0).to_numpy()
    high[none] = np.minimum(1, 3 * y.sum() / max(number, 1) / table["cells"][none])
    few = np.full(count, np.nan)
    return table.assign(low=low if number > 1 else few, high=high if number > 1 else few)


def calibration_table(y: np.ndarray, p: np.ndarray, *, bins: int = BINS) -> pd.DataFrame:
    """Compare predicted with observed rates in bins of equal count.

    Bins of equal width would leave all but the lowest empty when positives are rare. Cells of equal
    p share a bin, so there may be fewer bins.

    Parameters
    ----------
    y : ndarray (n,)
        True in positive cells.
    p : ndarray (n,)
        Probability.
    bins : int
        Number of bins.

    Returns
    -------
    DataFrame
        One row a bin: predicted (mean p), observed (share of positives), cells, positives.
    """
    y, p = np.asarray(y, dtype=bool), np.asarray(p, dtype="float64")
    edges = calibration_edges(p, bins)
    cells = pd.DataFrame({"bin": np.searchsorted(edges, p), "predicted": p, "observed": y})
    table = cells.groupby("bin").agg(
        predicted=("predicted", "mean"),
        observed=("observed", "mean"),
        cells=("observed", "size"),
        positives=("observed", "sum"),
    )
    return table.reset_index(drop=True)


def expected_calibration_error(y: np.ndarray, p: np.ndarray, *, bins: int = BINS) -> float:
    """Return the mean distance of predicted from observed rate, bins weighted by their cells.

    The observed rate is that of positives y (n,) among cells of likelihood p (n,), not the
    accuracy, which is near 1 for rare events whatever p says. See `calibration_table`.
    """
    table = calibration_table(y, p, bins=bins)
    gap = (table["predicted"] - table["observed"]).abs()
    return float(np.average(gap, weights=table["cells"]))
