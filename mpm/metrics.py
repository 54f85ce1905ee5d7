"""Honest scores for rare positives: whole deposits are resampled, folds averaged, never pooled."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from mpm import artefacts

AREAS = (0.01, 0.05, 0.10)
SCORE_COLUMNS = "study target split fold seed method metric value low high".split()


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a method said about the test cells of one fold, and what is there.

    Attributes
    ----------
    y : ndarray (n,)
        True in positive cells.
    p : ndarray (n,)
        Likelihood, larger where a deposit is more likely; finite.
    deposit : ndarray (n,)
        Number of the deposit that a positive cell belongs to; ignored in other cells.
    threshold : float
        Cells with p >= threshold are called positive. Chosen on validation cells, see
        `best_threshold`; NaN if there was nothing to choose it by.

    Raises
    ------
    ValueError
        If lengths differ, there is no cell, p is not finite, or a positive cell has no deposit.
    """

    y: np.ndarray
    p: np.ndarray
    deposit: np.ndarray
    threshold: float

    def __post_init__(self) -> None:
        y, p, deposit = (np.asarray(item) for item in (self.y, self.p, self.deposit))
        if y.ndim != 1 or not y.shape == p.shape == deposit.shape:
            raise ValueError(
                f"y is {y.shape}, p is {p.shape}, deposit is {deposit.shape}; all must be (n,)"
            )
        if y.size == 0:
            raise ValueError("there is no test cell to score; check the split")
        if not np.isfinite(p).all():
            raise ValueError(
                f"p is not finite in {np.count_nonzero(~np.isfinite(p))} cells; "
                "score only cells that have a prediction"
            )
        y = y.astype(bool)
        if (deposit[y] < 0).any():
            raise ValueError(
                f"{np.count_nonzero(deposit[y] < 0)} positive cells belong to no deposit; "
                "give each positive cell its deposit's number"
            )
        for name, item in {"y": y, "p": p.astype("float64"), "deposit": deposit}.items():
            object.__setattr__(self, name, item)

    @property
    def both_classes(self) -> bool:
        """Whether there are positive and negative cells."""
        return bool(self.y.any() and not self.y.all())


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
        As in `Prediction`.
    areas : sequence of float
        Shares of the test area for the capture rates.
    draws : int
        Bootstrap draws.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        Columns metric, value, low, high (95 % percentile interval). Metrics: auc,
        average_precision, f1, mcc, balanced_accuracy, accuracy, brier, prevalence, deposits
        (number), and capture_01, ... for each area: the share of deposits, not cells, with a cell
        in that share of the test area, see `captured`. low and high are NaN below two
        deposits; metrics that compare the classes are NaN where one is missing; brier is NaN where
        p is no probability.

    Raises
    ------
    ValueError
        As in `Prediction`.
    """
    prediction = Prediction(y, p, deposit, threshold)
    return _table(_draw(prediction, np.random.default_rng(seed), areas, draws))


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
        draws, and is NaN if one of these folds has a single deposit, whose spread nobody knows.
    """
    drawn = {name: draw_fold(name, fold, areas, draws, seed) for name, fold in folds.items()}
    kept = [drawn[name] for name, fold in folds.items() if fold.both_classes]
    tables = [_table(fold).assign(fold=str(name)) for name, fold in drawn.items()]
    if kept:
        mean = {name: np.mean([fold[name] for fold in kept], axis=0) for name in kept[0]}
        tables.append(_table(mean).assign(fold="mean"))
    count = {"fold": "mean", "metric": "folds", "value": float(len(kept))}
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
    if set(folds_a) != set(folds_b):
        raise ValueError(f"folds differ: {list(folds_a)} and {list(folds_b)}")
    differences = []
    for name, a in folds_a.items():
        b = folds_b[name]
        if not (np.array_equal(a.y, b.y) and np.array_equal(a.deposit[a.y], b.deposit[b.y])):
            raise ValueError(f"fold {name}: the methods were not scored on the same cells")
        drawn_a, drawn_b = (draw_fold(name, fold, areas, draws, seed) for fold in (a, b))
        if metric not in drawn_a:
            raise ValueError(f"no metric is called {metric!r}; there are {', '.join(drawn_a)}")
        if a.both_classes:
            differences.append(drawn_a[metric] - drawn_b[metric])
    return _interval(np.mean(differences, axis=0)) if differences else Interval(*[np.nan] * 3)


def draw_fold(
    name: str, fold: Prediction, areas: Sequence[float], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Return each metric of `scores` on a fold itself and on its bootstrap draws: (1 + draws,).

    The same deposits are drawn for all methods that are tested on the fold.
    """
    # seeded by its name, so that a fold draws the same whichever other folds are there
    return _draw(fold, np.random.default_rng([seed, zlib.crc32(str(name).encode())]), areas, draws)


def _table(drawn: Mapping[str, np.ndarray]) -> pd.DataFrame:
    rows = [(name, *_interval(values)) for name, values in drawn.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


def _interval(values: np.ndarray) -> Interval:
    """Value (the first entry) and 95 % percentile interval (of the others)."""
    low, high = np.percentile(values[1:], [2.5, 97.5]) if len(values) > 1 else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def _draw(
    prediction: Prediction, rng: np.random.Generator, areas: Sequence[float], draws: int
) -> dict[str, np.ndarray]:
    """Each metric on the fold itself and on every draw, (1 + draws,)."""
    y, p = prediction.y, prediction.p
    deposits, index = np.unique(prediction.deposit[y], return_inverse=True)
    number = len(deposits)
    weights = np.ones((1 + draws, number))  # times that each deposit is drawn; row 0: as it is
    if number:
        weights[1:] = rng.multinomial(number, np.full(number, 1 / number), size=draws)
    negative = np.sort(p[~y])
    metrics = _ranking(p[y], index, negative, weights)
    metrics |= _decisions(p[y], index, negative, weights, prediction.threshold)
    metrics |= _rates(p[y], index, negative, weights)
    for area, share in zip(areas, captured(prediction, np.asarray(areas)), strict=True):
        rate = weights @ share / number if number else np.full(1 + draws, np.nan)
        metrics[_capture_name(area)] = rate
    if number < 2:
        for values in metrics.values():
            values[1:] = np.nan
    return metrics


def _capture_name(area: float) -> str:
    """capture_05 for 5 %, capture_2.5 for 2.5 %."""
    percent = round(100 * area, 6)
    return f"capture_{int(percent):02d}" if percent == int(percent) else f"capture_{percent:g}"


def _sums(values: np.ndarray, index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum over positive cells (draws,), of values (positives,), added up by deposit."""
    return weights @ np.bincount(index, values, weights.shape[1])


def _ranking(
    positive: np.ndarray, index: np.ndarray, negative: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """AUC and average precision; `negative` is sorted."""
    if not len(positive) or not len(negative):
        return {name: np.full(len(weights), np.nan) for name in ("auc", "average_precision")}
    total = _sums(np.ones(len(positive)), index, weights)
    below, not_above = (np.searchsorted(negative, positive, side) for side in ("left", "right"))
    auc = _sums((below + not_above) / (2 * len(negative)), index, weights) / total

    # precision at the score of each positive cell; cells of equal score come in together
    order = np.argsort(-positive, kind="stable")
    descending = -positive[order]
    last = np.searchsorted(descending, descending, "right") - 1
    cell_weights = weights[:, index[order]]  # (draws, positives)
    hits = np.cumsum(cell_weights, axis=1)[:, last]
    false_alarms = len(negative) - below[order]
    precision = hits / np.maximum(hits + false_alarms, 1)  # 0 / 0 has weight 0
    return {"auc": auc, "average_precision": (cell_weights * precision).sum(axis=1) / total}


def _decisions(
    positive: np.ndarray,
    index: np.ndarray,
    negative: np.ndarray,
    weights: np.ndarray,
    threshold: float,
) -> dict[str, np.ndarray]:
    """Metrics of the weighted confusion table at p >= threshold."""
    if np.isnan(threshold):
        nothing = np.full(len(weights), np.nan)
        names = ("f1", "mcc", "balanced_accuracy", "accuracy")
        return {name: nothing.copy() for name in names}
    called = np.count_nonzero(negative >= threshold)
    tp = _sums((positive >= threshold).astype("float64"), index, weights)
    fn = _sums((positive < threshold).astype("float64"), index, weights)
    fp, tn = np.full_like(tp, called), np.full_like(tp, len(negative) - called)
    accuracy = (tp + tn) / (tp + fp + fn + tn)
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = 2 * tp / (2 * tp + fp + fn)
        mcc = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        balanced = (tp / (tp + fn) + tn / (tn + fp)) / 2
    if len(positive) and len(negative):
        mcc = np.nan_to_num(mcc)  # nothing, or everything, called positive: no correlation
    else:
        f1, mcc = np.full_like(tp, np.nan), np.full_like(tp, np.nan)
    return {"f1": f1, "mcc": mcc, "balanced_accuracy": balanced, "accuracy": accuracy}


def _rates(
    positive: np.ndarray, index: np.ndarray, negative: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Brier score, prevalence and number of deposits."""
    cells = _sums(np.ones(len(positive)), index, weights)
    brier = _sums((1 - positive) ** 2, index, weights) + (negative**2).sum()
    brier /= cells + len(negative)
    if any(((p < 0) | (p > 1)).any() for p in (positive, negative)):
        brier[:] = np.nan  # a score such as a distance, not a probability
    return {
        "brier": brier,
        "prevalence": cells / (cells + len(negative)),
        "deposits": np.full(len(weights), float(weights.shape[1])),
    }


def captured(prediction: Prediction, areas: np.ndarray) -> np.ndarray:
    """Return whether each deposit's best cell lies in top shares of the area, (areas, deposits).

    A fraction where the area's edge falls into cells of equal score: their order is unknown, and a
    given one of them is inside with that probability.
    """
    p = np.sort(prediction.p)
    deposits, index = np.unique(prediction.deposit[prediction.y], return_inverse=True)
    best = np.full(len(deposits), -np.inf)
    np.maximum.at(best, index, prediction.p[prediction.y])
    above = len(p) - np.searchsorted(p, best, "right")
    equal = len(p) - np.searchsorted(p, best, "left") - above
    return np.clip((np.asarray(areas)[:, None] * len(p) - above) / equal, 0, 1)


def best_threshold(y: np.ndarray, p: np.ndarray) -> float:
    """Return the threshold t of the largest F1 with the rule p >= t; for validation cells only.

    All distinct p are tried; of equal F1 the highest threshold wins, which calls the fewest cells.

    Parameters
    ----------
    y : ndarray (n,)
        True in positive cells.
    p : ndarray (n,)
        Likelihood.

    Returns
    -------
    float
        NaN without positive cells.
    """
    y, p = np.asarray(y, dtype=bool), np.asarray(p, dtype="float64")
    if not y.any():
        return float("nan")
    order = np.argsort(-p, kind="stable")
    last = np.append(np.diff(p[order]) != 0, True)  # the last of each group of equal scores
    f1 = 2 * np.cumsum(y[order]) / (np.arange(1, len(p) + 1) + y.sum())
    return float(p[order][last][np.argmax(f1[last])])


def append_scores(path: Path, table: pd.DataFrame, keys: Mapping[str, str | int]) -> None:
    """Put scores into the study's table, in place of older ones of the same run.

    Rows of the same study, target, split, seed and method are replaced, all folds of them, so give
    all folds at once.

    Parameters
    ----------
    path : Path
        Parquet file; made if missing.
    table : DataFrame
        From `score_folds`, or from `scores` with `fold` among the keys.
    keys : mapping
        The columns that `table` lacks: study, target, split, seed, method.

    Raises
    ------
    ValueError
        If a column is missing or unknown, or a metric of a fold is given twice.
    """
    fresh = table.assign(**keys)
    missing = [name for name in SCORE_COLUMNS if name not in fresh]
    unknown = [name for name in fresh if name not in SCORE_COLUMNS]
    if missing or unknown:
        raise ValueError(
            f"scores for {path} need the columns {', '.join(SCORE_COLUMNS)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    texts = [name for name in SCORE_COLUMNS[:7] if name != "seed"]
    types = {name: "str" for name in texts} | {"seed": "int64"}
    types |= {name: "float64" for name in SCORE_COLUMNS[7:]}
    fresh = fresh[SCORE_COLUMNS].astype(types)
    if fresh.duplicated(SCORE_COLUMNS[:7]).any():
        twice = fresh[fresh.duplicated(SCORE_COLUMNS[:7])].iloc[0]
        raise ValueError(f"metric {twice['metric']} of fold {twice['fold']} is given twice")
    run = ["study", "target", "split", "seed", "method"]
    if Path(path).exists():
        old = read_scores(path)
        same = pd.MultiIndex.from_frame(old[run]).isin(pd.MultiIndex.from_frame(fresh[run]))
        fresh = pd.concat([old[~same], fresh]) if not same.all() else fresh
    fresh = fresh.sort_values(SCORE_COLUMNS[:7]).reset_index(drop=True)
    artefacts.write_table(fresh, path)


def read_scores(path: Path) -> pd.DataFrame:
    """Read the study's table of scores.

    Returns
    -------
    DataFrame
        Columns study, target, split, fold, seed, method, metric, value, low, high.

    Raises
    ------
    FileNotFoundError
        If there is none yet.
    ValueError
        If the file holds other columns.
    """
    table = pd.read_parquet(artefacts.require(path, "05_evaluation"))
    if list(table.columns) != SCORE_COLUMNS:
        raise ValueError(
            f"{path} holds {', '.join(table.columns)} instead of {', '.join(SCORE_COLUMNS)}; "
            "delete it and run notebook 05_evaluation again"
        )
    return table
