"""Every metric of a fold on resampled deposits, and of the mean over folds."""

import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mpm.prediction import Prediction, calibration_edges, captured

Drawn = dict[str, np.ndarray]
RANKING = ("auc", "average_precision", "auc_deposit", "average_precision_deposit")
DECISIONS = ("f1", "mcc", "balanced_accuracy", "accuracy")
RATES = ("brier", "calibration_error", "prevalence", "deposits")
AT_ONCE = 30_000  # draws x positive cells ranked together: what caches hold


def draw_fold(
    name: str,
    fold: Prediction,
    areas: Sequence[float],
    draws: int,
    seed: int,
    *,
    names: Sequence[str] = (),
) -> Drawn:
    """Return each metric of `metrics.scores` on a fold itself and on its draws: (1 + draws,).

    The same deposits are drawn for all methods that are tested on the fold. NaN in the draws of a
    fold with fewer than two deposits, whose spread nobody knows.

    Parameters
    ----------
    name : str
        Of the fold; decides which deposits are drawn.
    fold : Prediction
    areas : sequence of float
        As for `metrics.scores`.
    draws : int
    seed : int
    names : sequence of str
        Metrics; by default all.
    """
    drawn = _draw(fold, deposit_weights(name, fold.deposits, draws, seed), areas, names)
    return _blank(drawn) if fold.deposits < 2 else drawn


def draw_folds(
    folds: Mapping[str, Prediction],
    areas: Sequence[float],
    draws: int,
    seed: int,
    *,
    names: Sequence[str] = (),
) -> tuple[dict[str, Drawn], Drawn]:
    """Draw every fold, and the mean over the folds that hold both classes.

    In a fold of two or more deposits these are resampled, see `deposit_weights`. A fold with a
    single deposit borrows its spread, as surveys do for strata with one unit: its score varies by
    what one deposit alone makes of the score in the other folds, see `_lend`. Without that the mean
    of many small folds, such as districts, would have no interval; were such a fold taken as it is,
    one that is too narrow.

    Parameters
    ----------
    folds : mapping of Prediction
        By name.
    areas, draws, seed, names
        As for `draw_fold`.

    Returns
    -------
    own : dict
        Fold to metric to (1 + draws,), as of `draw_fold`.
    mean : dict
        Metric to (1 + draws,); empty without a fold of both classes. NaN draws if there is but one
        deposit in all folds together.

    Source: Rao and Wu 1988, doi:10.1080/01621459.1988.10478591, for the draws; Cochran 1977,
    Sampling Techniques, section 5A.12, for strata with a single unit.
    """
    scored = [name for name, fold in folds.items() if fold.both_classes]
    lent = any(folds[name].deposits == 1 for name in scored)
    own, alone = {}, {}
    for name, fold in folds.items():
        weights = deposit_weights(name, fold.deposits, draws, seed)
        rows = np.concatenate([weights, np.eye(fold.deposits)]) if lent else weights
        drawn = _draw(fold, rows, areas, names)
        alone[name] = {metric: values[1 + draws :] for metric, values in drawn.items()}
        own[name] = {metric: values[: 1 + draws] for metric, values in drawn.items()}
    mean = {}
    for metric in own[scored[0]] if scored else ():
        mean[metric] = np.mean([own[name][metric] for name in scored], axis=0)
        if lent:
            spread = _lend([alone[name][metric] for name in scored], draws, seed)
            mean[metric][1:] += spread / len(scored)
    few = [name for name, fold in folds.items() if fold.deposits < 2]
    return own | {name: _blank(own[name]) for name in few}, mean


def freedom(folds: Iterable[Prediction]) -> int:
    """Count what can vary in the mean over folds: deposits less folds of both classes.

    Folds with a single deposit count as one fold together.
    """
    numbers = [fold.deposits for fold in folds if fold.both_classes]
    singles = numbers.count(1)
    return sum(numbers) - len(numbers) + max(0, singles - 1)


def _blank(drawn: Drawn) -> Drawn:
    """Values without draws."""
    blank = {name: np.full_like(values, np.nan) for name, values in drawn.items()}
    for name, values in drawn.items():
        blank[name][0] = values[0]
    return blank


def _lend(alone: Sequence[np.ndarray], draws: int, seed: int) -> np.ndarray:
    """Return what the scores of all folds with a single deposit vary by, summed: (draws,).

    Each varies by the deviation of a deposit, drawn at random, from its fold's mean, where the fold
    is scored with one deposit at a time, (deposits,) a fold. Folds with a single deposit count as
    one fold together.
    """
    singles = [fold for fold in alone if len(fold) == 1]
    groups = [fold for fold in alone if len(fold) > 1]
    groups += [np.concatenate(singles)] if len(singles) > 1 else []
    if not groups:
        return np.full(draws, np.nan)
    # n / (n - 1): the mean is that of the same deposits
    apart = [(of - of.mean()) * np.sqrt(len(of) / (len(of) - 1)) for of in groups]
    pool = np.concatenate(apart)
    # the same deposits for all metrics and methods, so that differences are paired
    chosen = np.random.default_rng([seed, len(pool)]).integers(
        len(pool), size=(len(singles), draws)
    )
    return pool[chosen].sum(axis=0)


def deposit_weights(name: str, number: int, draws: int, seed: int) -> np.ndarray:
    """Weights of a fold's deposits: as they are, and drawn, (1 + draws, n).

    One deposit fewer is drawn than there are, and weights are scaled up to n. Drawing n would make
    the spread too small by (n - 1) / n: a half in a fold of two.

    Parameters
    ----------
    name : str
        Of the fold; decides which deposits are drawn.
    number : int
        Deposits of the fold, n.
    draws : int
    seed : int
    """
    drawn: np.ndarray = np.ones((draws, number))
    if number > 1:
        # seeded by its name, so that a fold draws the same whichever other folds are there
        rng = np.random.default_rng([seed, zlib.crc32(str(name).encode())])
        chosen = rng.integers(number, size=(draws, number - 1))
        chosen += number * np.arange(draws)[:, None]
        often = np.bincount(chosen.ravel(), minlength=draws * number).reshape(draws, number)
        drawn = often * (number / (number - 1))
    return np.concatenate([np.ones((1, number)), drawn])


def _draw(
    fold: Prediction, weights: np.ndarray, areas: Sequence[float], names: Sequence[str] = ()
) -> Drawn:
    """Each metric at each row of weights (rows, deposits): (rows,); some of them, if named."""
    positive, index, negative = fold.p[fold.y], fold.index, np.sort(fold.p[~fold.y])
    known = (*RANKING, *DECISIONS, *RATES, *map(capture_name, areas))
    wanted = set(names or known)
    if unknown := sorted(wanted.difference(known)):
        raise ValueError(f"no metric is called {unknown[0]!r}; there are {', '.join(known)}")
    metrics: Drawn = {}
    if wanted.intersection(RANKING):
        metrics |= _ranking(positive, index, negative, weights, wanted)
    if wanted.intersection(DECISIONS):
        metrics |= _decisions(positive, index, negative, weights, fold.threshold)
    if wanted.intersection(RATES):
        metrics |= _rates(fold, positive, index, negative, weights)
    total = weights.sum(axis=1)
    for area, share in zip(areas, captured(fold, np.asarray(areas)), strict=True):
        rate = weights @ share / total if len(share) else np.full(len(weights), np.nan)
        metrics[capture_name(area)] = rate
    return {name: values for name, values in metrics.items() if name in wanted}


def capture_name(area: float) -> str:
    """Name the capture rate of a share of the area: capture_05 for 5 %, capture_2.5 for 2.5 %."""
    percent = round(100 * area, 6)
    return f"capture_{int(percent):02d}" if percent == int(percent) else f"capture_{percent:g}"


def _by_deposit(values: np.ndarray, index: np.ndarray, number: int) -> np.ndarray:
    """Add up values of positive cells (positives,) by deposit, (deposits,)."""
    return np.bincount(index, values, number)


def _ranking(
    positive: np.ndarray,
    index: np.ndarray,
    negative: np.ndarray,
    weights: np.ndarray,
    wanted: set[str],
) -> Drawn:
    """AUC and average precision, by cells and by deposits; `negative` is sorted."""
    if not len(positive) or not len(negative):
        return {name: np.full(len(weights), np.nan) for name in RANKING}
    number = weights.shape[1]
    below, not_above = (np.searchsorted(negative, positive, side) for side in ("left", "right"))
    beaten = (below + not_above) / (2 * len(negative))  # share of unlabeled cells, by each cell
    size = np.bincount(index, minlength=number)
    beaten = _by_deposit(beaten, index, number)
    order = np.argsort(-positive, kind="stable")
    descending = -positive[order]
    last = np.searchsorted(descending, descending, "right") - 1  # equal scores come in together
    false_alarms = len(negative) - below[order]
    found = {
        "auc": weights @ beaten / (weights @ size),
        "auc_deposit": weights @ (beaten / size) / weights.sum(axis=1),
    }
    of_cells = {"average_precision": weights, "average_precision_deposit": weights / size}
    for name, weight in of_cells.items():
        if name in wanted:
            found[name] = _average_precision(weight, index[order], last, false_alarms)
    return {name: found[name] for name in RANKING if name in found}


def _average_precision(
    weights: np.ndarray, index: np.ndarray, last: np.ndarray, false_alarms: np.ndarray
) -> np.ndarray:
    """Average precision at each row of weights (rows, deposits).

    Parameters
    ----------
    weights : ndarray (rows, deposits)
        Weight of each cell of a deposit.
    index, last, false_alarms : ndarray (positives,)
        Of positive cells from the likeliest on: their deposit, the last cell of equal score, and
        the unlabeled cells that score as much or more.
    """
    found = []
    for part in np.array_split(
        weights, min(len(weights), -(-len(weights) * len(index) // AT_ONCE))
    ):
        cells = part[:, index]
        hits = np.cumsum(cells, axis=1)
        total = hits[:, -1].copy()
        if (np.diff(last) == 0).any():
            hits = hits[:, last]
        # 0 / 0 has weight 0
        precision = np.divide(hits, hits + false_alarms, out=np.zeros_like(hits), where=hits > 0)
        found.append(np.einsum("ij,ij->i", cells, precision) / total)
    return np.concatenate(found)


def _decisions(
    positive: np.ndarray,
    index: np.ndarray,
    negative: np.ndarray,
    weights: np.ndarray,
    threshold: float,
) -> Drawn:
    """Metrics of the weighted confusion table at p >= threshold."""
    if np.isnan(threshold):
        return {name: np.full(len(weights), np.nan) for name in DECISIONS}
    called = np.count_nonzero(negative >= threshold)
    hit = (positive >= threshold).astype("float64")
    tp, fn = (weights @ _by_deposit(of, index, weights.shape[1]) for of in (hit, 1 - hit))
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
    return dict(zip(DECISIONS, (f1, mcc, balanced, accuracy), strict=True))


def _rates(
    fold: Prediction,
    positive: np.ndarray,
    index: np.ndarray,
    negative: np.ndarray,
    weights: np.ndarray,
) -> Drawn:
    """Brier score, calibration error, prevalence and number of deposits."""
    number = weights.shape[1]
    cells = weights @ np.bincount(index, minlength=number)
    brier = weights @ _by_deposit((1 - positive) ** 2, index, number) + (negative**2).sum()
    brier /= cells + len(negative)
    error = _calibration_error(fold, index, negative, weights)
    if not fold.is_probability:  # a score such as a distance
        brier[:], error[:] = np.nan, np.nan
    return {
        "brier": brier,
        "calibration_error": error,
        "prevalence": cells / (cells + len(negative)),
        "deposits": np.full(len(weights), float(number)),
    }


def _calibration_error(
    fold: Prediction, index: np.ndarray, negative: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Mean |predicted - observed rate| over bins, see `curves.expected_calibration_error`."""
    edges, number = calibration_edges(fold.p), weights.shape[1]
    bins = len(edges) + 1
    positive = fold.p[fold.y]
    place = index * bins + np.searchsorted(edges, positive)
    # p - y and p - 0, added up by deposit and bin
    excess = np.bincount(place, positive - 1, number * bins).reshape(number, bins)
    other = np.bincount(np.searchsorted(edges, negative), negative, bins)
    gap = np.abs(weights @ excess + other).sum(axis=1)
    return gap / (weights @ np.bincount(index, minlength=number) + len(negative))
