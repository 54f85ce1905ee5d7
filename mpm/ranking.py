"""One fold's cells, ranked once, so that labels may be put on them again and again."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Steps(NamedTuple):
    """What is counted at the distinct likelihoods of positive cells, from the highest on.

    Attributes
    ----------
    hits : ndarray (steps,)
        Positive cells of that likelihood or more.
    above, with_equal : ndarray (steps,)
        Unlabeled cells of a higher likelihood; and of it or more.
    """

    hits: np.ndarray
    above: np.ndarray
    with_equal: np.ndarray


class Ranking:
    """Cells of one fold, ranked by likelihood; which of them are positive is asked later.

    Sorting is what scoring a fold costs. Where the same likelihoods are scored on many sets of
    labels, it is done once.

    Parameters
    ----------
    likelihood : ndarray (n,)
        Finite.
    """

    def __init__(self, likelihood: np.ndarray):
        ordered = np.sort(likelihood)
        self.cells = len(ordered)
        # cells of a higher likelihood than each, and of its own or higher, itself among them
        self.above = self.cells - np.searchsorted(ordered, likelihood, "right")
        self.level = self.cells - np.searchsorted(ordered, likelihood, "left")

    def steps(self, positive: np.ndarray) -> Steps:
        """Count at the likelihoods of positive cells, given by their numbers (positives,)."""
        level, first, count = np.unique(self.level[positive], return_index=True, return_counts=True)
        hits = np.cumsum(count)
        above = self.above[positive][first]
        return Steps(hits, above - (hits - count), level - hits)

    def scores(self, positive: np.ndarray) -> dict[str, float]:
        """Return auc and average_precision of labels, as `metrics.scores` has them.

        Parameters
        ----------
        positive : ndarray (positives,) of int
            Numbers of the positive cells; fewer than all cells, at least one.
        """
        hits, above, with_equal = self.steps(positive)
        count, negatives = np.diff(hits, prepend=0), self.cells - len(positive)
        beaten = negatives - (above + with_equal) / 2
        return {
            "auc": float((count * beaten).sum() / (len(positive) * negatives)),
            "average_precision": float((count * hits / (hits + with_equal)).sum() / hits[-1]),
        }

    def captured(
        self, positive: np.ndarray, deposit: np.ndarray, areas: Sequence[float] | np.ndarray
    ) -> np.ndarray:
        """Return the share of deposits captured in top shares of the area: (areas,).

        Parameters
        ----------
        positive, deposit : ndarray (positives,) of int
            Numbers of the positive cells, and their deposits.
        areas : sequence of float, or array (areas,)
            A deposit counts as `prediction.captured` says.
        """
        _, own = np.unique(deposit, return_inverse=True)
        order = np.lexsort((self.level[positive], own))
        best = positive[order][np.diff(own[order], prepend=-1) > 0]  # a deposit's likeliest cell
        equal = self.level[best] - self.above[best]
        inside = (np.asarray(areas)[:, None] * self.cells - self.above[best]) / equal
        return np.clip(inside, 0, 1).mean(axis=1)
