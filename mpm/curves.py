"""Curves of one fold on a common grid, so that folds can be averaged, and calibration."""

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from mpm.metrics import Prediction, captured


def roc(prediction: Prediction, grid: np.ndarray) -> np.ndarray:
    """Return the true positive rate at the false positive rates of `grid`, (grid,).

    On one grid the curves of folds can be averaged. NaN without both classes.
    """
    if not prediction.both_classes:
        return np.full(len(grid), np.nan)
    false, true, _ = sklearn_metrics.roc_curve(prediction.y, prediction.p)
    return np.interp(grid, false, true)


def precision_recall(prediction: Prediction, grid: np.ndarray) -> np.ndarray:
    """Return the precision at the recalls of `grid`, (grid,).

    Steps, as precision must not be interpolated: the precision where that recall is first reached,
    so that the area below is the average precision. NaN without both classes.
    """
    if not prediction.both_classes:
        return np.full(len(grid), np.nan)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(prediction.y, prediction.p)
    precision, recall = precision[-2::-1], recall[-2::-1]  # without the made-up end (1, 0)
    return precision[np.searchsorted(recall, np.asarray(grid) - 1e-12)]


def capture_efficiency(prediction: Prediction, grid: np.ndarray) -> np.ndarray:
    """Return the share of deposits captured in the best shares of the test area, (grid,).

    A deposit is captured with its best cell. Where the area's edge falls into cells of equal score
    it counts by the share of them inside, so that a constant prediction captures what chance does.
    NaN without deposits.
    """
    if not prediction.y.any():
        return np.full(len(grid), np.nan)
    return captured(prediction, grid).mean(axis=1)


def calibration_table(y: np.ndarray, p: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
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
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"))
    cells = pd.DataFrame({"bin": np.searchsorted(edges, p), "predicted": p, "observed": y})
    table = cells.groupby("bin").agg(
        predicted=("predicted", "mean"),
        observed=("observed", "mean"),
        cells=("observed", "size"),
        positives=("observed", "sum"),
    )
    return table.reset_index(drop=True)


def expected_calibration_error(y: np.ndarray, p: np.ndarray, *, bins: int = 10) -> float:
    """Return the mean of |predicted - observed rate| over the bins, weighted by their cells.

    The observed rate is that of positives, not the accuracy, which is near 1 for rare events
    whatever p says. See `calibration_table`.
    """
    table = calibration_table(y, p, bins=bins)
    gap = (table["predicted"] - table["observed"]).abs()
    return float(np.average(gap, weights=table["cells"]))
