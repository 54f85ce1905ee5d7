"""What a method said about the test cells of one fold, and what follows from it at once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

BINS = 10  # of the calibration error


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

    @property
    def is_probability(self) -> bool:
        """Whether all p lie between 0 and 1."""
        return bool(self.p.min() >= 0 and self.p.max() <= 1)

    @cached_property
    def index(self) -> np.ndarray:
        """Deposit of each positive cell, 0 to deposits - 1, (positives,)."""
        return np.unique(self.deposit[self.y], return_inverse=True)[1]

    @property
    def deposits(self) -> int:
        """Number of deposits."""
        return int(self.index.max(initial=-1)) + 1


def best_cells(prediction: Prediction) -> np.ndarray:
    """Return the likelihood of each deposit's best cell, (deposits,)."""
    best = np.full(prediction.deposits, -np.inf)
    np.maximum.at(best, prediction.index, prediction.p[prediction.y])
    return best


def captured(prediction: Prediction, areas: np.ndarray) -> np.ndarray:
    """Return whether each deposit's best cell lies in top shares of the area, (areas, deposits).

    A fraction where the area's edge falls into cells of equal score: their order is unknown, and a
    given one of them is inside with that probability.
    """
    p = np.sort(prediction.p)
    best = best_cells(prediction)
    above = len(p) - np.searchsorted(p, best, "right")
    equal = len(p) - np.searchsorted(p, best, "left") - above
    return np.clip((np.asarray(areas)[:, None] * len(p) - above) / equal, 0, 1)


def calibration_edges(p: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the inner edges of bins of equal count of p (n,), ascending; equal p share a bin."""
    return np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"))


def best_threshold(y: np.ndarray, p: np.ndarray, weight: np.ndarray | float = 1.0) -> float:
    """Return the threshold t of the largest F1 with the rule p >= t; for validation cells only.

    All distinct p are tried; of equal F1 the highest threshold wins, which calls the fewest cells.

    Parameters
    ----------
    y : ndarray (n,)
        True in positive cells.
    p : ndarray (n,)
        Likelihood.
    weight : ndarray (n,), optional
        How many cells each of a sample stands for, as of `labels.sample_cells`.

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
    weight = np.broadcast_to(weight, p.shape)[order]
    found = np.cumsum(weight * y[order])
    f1 = 2 * found / (np.cumsum(weight) + found[-1])
    return float(p[order][last][np.argmax(f1[last])])
