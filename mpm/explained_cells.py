"""Which cells are explained, and which ground they are compared with."""

import numpy as np
import torch
from torch import Tensor

from mpm.classifier import Classifier
from mpm.windows import Windows

SHARE = 0.1  # of a region's cells, the most likely ones, that are explained where all take long
BASELINES = 4  # typical cells that a cell is compared with
EVERY = 10  # rows and columns between the cells of the grid that is explained beside them


def likely(windows: Windows, likelihood: np.ndarray, share: float) -> np.ndarray:
    """Return the most likely cells of every region, and those that are as likely as the last.

    Parameters
    ----------
    windows : Windows
    likelihood : array (n,)
        Of all centres; NaN is never chosen.
    share : float
        Of each region's predicted cells, 0 to 1: 1 is all of them, 0 none.

    Returns
    -------
    array (m,) of int
        Numbers of centres, ascending.
    """
    chosen = np.zeros(len(windows), bool)
    for number in range(len(windows.shapes)):
        here = (windows.region == number) & np.isfinite(likelihood)
        if here.any():
            chosen |= here & (likelihood >= lowest(likelihood[here], share))
    return np.flatnonzero(chosen)


def lowest(likelihood: np.ndarray, share: float) -> float:
    """Return the likelihood from which cells belong to the most likely share; NaN is no cell.

    Parameters
    ----------
    likelihood : array (n,) or (y, x)
    share : float
        0 to 1; 0 gives infinity.

    Raises
    ------
    ValueError
        If the share is no share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share} must lie between 0 (no cell) and 1 (all cells)")
    seen = np.sort(likelihood[np.isfinite(likelihood)], axis=None)
    count = min(round(share * seen.size), seen.size)
    return float(seen[-count]) if count else np.inf


def on_grid(row: np.ndarray, col: np.ndarray, every: int) -> np.ndarray:
    """Say which cells lie on a coarse grid: the middle of each block of `every` x `every` cells.

    Parameters
    ----------
    row, col : array (n,) or (y, x) of int
        Of the region's grid, counted from 0; their shapes broadcast.
    every : int
        Rows and columns between two cells of the grid; 1 is every cell, 0 none.

    Returns
    -------
    array (n,) or (y, x) of bool
    """
    if every < 1:
        return np.zeros(np.broadcast_shapes(np.shape(row), np.shape(col)), bool)
    return (row % every == every // 2) & (col % every == every // 2)


@torch.no_grad()
def typical_cells(
    classifier: Classifier, windows: Windows, index: np.ndarray, *, count: int, seed: int
) -> np.ndarray:
    """Choose real background cells to compare a prediction with.

    A window of layer means is no ground the network has seen, and may score high. These are the
    cells whose logit lies nearest to the background's median.

    Parameters
    ----------
    classifier : Classifier
    windows : Windows
    index : array (n,) of int
        Background centres, e.g. unlabeled training cells; at most 2000 are looked at.
    count : int
        How many to choose.
    seed : int
        Decides which are looked at.

    Returns
    -------
    array (count,) of int
        Members of `index`, the most typical first.
    """
    rng = np.random.default_rng(seed)
    some = np.sort(rng.choice(index, min(2000, len(index)), replace=False))
    logits = torch.cat(list(windows.map(classifier.eval(), some, 256)))
    nearest = (logits - logits.median()).abs().argsort(stable=True)[:count]
    return some[nearest.numpy()]


def mean_window(windows: Windows, index: np.ndarray) -> Tensor:
    """Average windows over the cells that are observed: (layers, size, size), 0 where none is.

    Parameters
    ----------
    windows : Windows
    index : array (n,) of int
        Centres, e.g. likely negatives.
    """
    total = torch.zeros(windows.layers, windows.size, windows.size, dtype=torch.float64)
    seen = torch.zeros_like(total)
    for values, observed in windows.batches(index, 256):  # 0 where missing
        total += values.sum(dim=0, dtype=torch.float64).cpu()
        seen += observed.sum(dim=0).cpu()
    return (total / seen.clamp(min=1)).float()
