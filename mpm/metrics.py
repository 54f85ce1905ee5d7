"""Honest scores for rare positives: whole deposits are resampled, folds averaged, never pooled."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from mpm.bootstrap import Drawn, deposit_weights, draw_fold, draw_folds, freedom
from mpm.prediction import Prediction, best_threshold, captured
from mpm.score_store import SCORE_COLUMNS, append_scores, read_scores

__all__ = [
    "AREAS",
    "SCORE_COLUMNS",
    "Interval",
    "Prediction",
    "append_scores",
    "best_threshold",
    "captured",
    "draw_fold",
    "mean_interval",
    "paired_difference",
    "paired_differences",
    "read_scores",
    "score_folds",
    "scores",
]
AREAS = (0.01, 0.02, 0.05, 0.10, 0.20)


class Interval(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def scores(
    y: np.ndarray,
    p: np.ndarray,
    deposit: np.ndarray,
    threshold: float,
    *,
    areas: Sequence[float] = AREAS,
    draws: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Score one fold, with intervals from resampling deposits.

    The cells of a deposit are no independent samples, so the bootstrap draws deposits, with
    replacement, and gives all cells of one the same weight. Negative cells stay: they are many, and
    their share of the uncertainty is small beside that of a few deposits.

    Parameters
    ----------
    y, p, deposit, threshold
        As for `Prediction`.
    areas : sequence of float
        Shares of the test area for the capture rates.
    draws : int
        Bootstrap draws.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        Columns metric, value, low, high (95 % percentile interval). low and high are NaN below two
        deposits; metrics that compare the classes are NaN where one is missing. Metrics:

        auc, average_precision
            Of cells: a positive cell against an unlabeled one.
        auc_deposit, average_precision_deposit
            Of deposits: each weighs 1, shared evenly by its cells, so that a district of 40 cells
            counts once. The cells' mean, not the best of them: the best of 40 cells ranks high by
            chance, so that a random ranking would not score 0.5.
        f1, mcc, balanced_accuracy, accuracy
            At the threshold.
        brier, calibration_error
            NaN where p is no probability. See `curves.expected_calibration_error`.
        prevalence, deposits
            Share of positive cells, which is the average precision of a random ranking, and number
            of deposits. Of deposits it is then deposits / (deposits + unlabeled cells).
        capture_01, ...
            For each area: the share of deposits, not cells, with a cell in that share of the test
            area, see `captured`.

    Raises
    ------
    ValueError
        As in `Prediction`.
    """
    fold = Prediction(y, p, deposit, threshold)
    return _table(draw_fold("", fold, areas, draws, seed), fold.deposits - 1)


def score_folds(
    folds: Mapping[str, Prediction],
    *,
    areas: Sequence[float] = AREAS,
    draws: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Score each fold and average the scores; predictions of different models are never pooled.

    Parameters
    ----------
    folds : mapping of Prediction
        By the name of the fold.
    areas, draws, seed
        As in `scores`.

    Returns
    -------
    DataFrame
        Columns fold, metric, value, low, high. Fold "mean" averages the folds that hold both
        classes, their number being its metric `folds`; its interval comes from averaging the folds'
        draws, the spread of a fold with a single deposit being lent by the others, see
        `bootstrap.draw_folds`.
    """
    own, mean = draw_folds(folds, areas, draws, seed)
    tables = [
        _table(drawn, folds[name].deposits - 1).assign(fold=str(name))
        for name, drawn in own.items()
    ]
    if mean:
        tables.append(_table(mean, freedom(folds.values())).assign(fold="mean"))
    number = sum(fold.both_classes for fold in folds.values())
    count = {"fold": "mean", "metric": "folds", "value": float(number)}
    tables.append(pd.DataFrame([count | {"low": np.nan, "high": np.nan}]))
    table = pd.concat(tables, ignore_index=True)
    return table[["fold", "metric", "value", "low", "high"]]


def paired_difference(
    folds_a: Mapping[str, Prediction],
    folds_b: Mapping[str, Prediction],
    metric: str,
    *,
    areas: Sequence[float] = AREAS,
    draws: int = 500,
    seed: int = 0,
) -> Interval:
    """Mean difference a - b of a metric over folds, both methods scored on the same draws.

    Pairing takes out what both methods share, such as a fold with hard deposits, so that a
    difference may be certain although the two intervals overlap.

    Parameters
    ----------
    folds_a, folds_b : mapping of Prediction
        Two methods on the same cells of the same folds.
    metric : str
        One of those of `scores`.
    areas, draws, seed
        As in `scores`.

    Returns
    -------
    Interval
        NaN if no fold holds both classes.

    Raises
    ------
    ValueError
        If folds, cells or deposits differ, or there is no such metric.
    """
    both = {"a": folds_a, "b": folds_b}
    found = paired_differences(both, [("a", "b")], [metric], areas=areas, draws=draws, seed=seed)
    return found["a", "b", metric]


def paired_differences(
    folds: Mapping[str, Mapping[str, Prediction]],
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    *,
    areas: Sequence[float] = AREAS,
    draws: int = 500,
    seed: int = 0,
) -> dict[tuple[str, str, str], Interval]:
    """Compare pairs of methods as `paired_difference` does, each method drawn once.

    Parameters
    ----------
    folds : mapping
        Method to its folds.
    pairs : sequence of (str, str)
    metrics : sequence of str
    areas, draws, seed
        As for `paired_difference`.

    Returns
    -------
    dict
        By (method, other, metric): method less other.

    Raises
    ------
    ValueError
        As `paired_difference`.
    """
    for one, other in pairs:
        _same_cells(folds[one], folds[other])
    methods = dict.fromkeys(method for pair in pairs for method in pair)
    mean = {
        method: draw_folds(folds[method], areas, draws, seed, names=metrics)[1]
        for method in methods
    }
    return {
        (one, other, metric): _difference(
            mean[one], mean[other], metric, freedom(folds[one].values())
        )
        for one, other in pairs
        for metric in metrics
    }


def _same_cells(folds_a: Mapping[str, Prediction], folds_b: Mapping[str, Prediction]) -> None:
    if set(folds_a) != set(folds_b):
        raise ValueError(f"folds differ: {list(folds_a)} and {list(folds_b)}")
    for name, a in folds_a.items():
        b = folds_b[name]
        if not (np.array_equal(a.y, b.y) and np.array_equal(a.deposit[a.y], b.deposit[b.y])):
            raise ValueError(f"fold {name}: the methods were not scored on the same cells")


def _difference(a: Drawn, b: Drawn, metric: str, free: int) -> Interval:
    if not a:  # no fold holds both classes
        return Interval(*[np.nan] * 3)
    return interval(a[metric] - b[metric], free)


def mean_interval(values: np.ndarray, *, draws: int, seed: int) -> Interval:
    """Return the mean of what each deposit scores, (deposits,), with its interval over deposits."""
    weights = deposit_weights("", len(values), draws, seed)
    drawn = weights @ values / len(values)
    return Interval(drawn[0], *np.clip(interval(drawn, len(values) - 1)[1:], 0, 1))


def _table(drawn: Drawn, free: int) -> pd.DataFrame:
    rows = []
    for name, values in drawn.items():
        value, *ends = interval(values, free)
        # lent spread and wide intervals may reach beyond what a metric can be
        limits = (0, np.inf) if name == "deposits" else (-1 if name == "mcc" else 0, 1)
        rows.append((name, value, *np.clip(ends, *limits)))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


def interval(values: np.ndarray, free: int) -> Interval:
    """Return a value with its 95 % interval; `values` (1 + draws,) has it first, then its draws.

    Percentiles of the draws about their mean, laid around the value: scores that are no plain means
    are a little biased in draws that repeat deposits. For few deposits they are widened as 1.96
    standard errors of a mean are to Student's t of the degrees of freedom `free`.

    Source: Hesterberg 2015, doi:10.1080/00031305.2015.1089789, on why percentile intervals of few
    data are too narrow: by (n - 1) / n, which the draws make good, and by z instead of t.
    """
    if len(values) == 1 or free < 1:
        return Interval(float(values[0]), np.nan, np.nan)
    away = np.percentile(values[1:], [2.5, 97.5]) - values[1:].mean()
    # rounded: what never varies must not vary by the last digit
    low, high = values[0] + np.round(away * stdtrit(free, 0.975) / ndtri(0.975), 15)
    return Interval(float(values[0]), float(low), float(high))
