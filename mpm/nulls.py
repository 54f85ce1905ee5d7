"""What scores are worth when labels mean nothing: labels shifted around the map, or shuffled."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mpm import curves
from mpm.bootstrap import draw_fold
from mpm.metrics import AREAS
from mpm.prediction import Prediction

CURVES = {
    "roc": curves.roc,
    "precision_recall": curves.precision_recall,
    "capture": curves.capture_efficiency,
}
CELL = ["region", "row", "col"]
TRIES = 1000


def torus_shifts(
    planes: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
    *,
    draws: int = 100,
    seed: int = 0,
    kept: float = 0.5,
) -> pd.DataFrame:
    """Shift the deposits of each region around its map, as if its edges were joined.

    All deposits of a region move together, so that they are as clustered as they were, but on other
    ground: what a ranking scores then is owed to clusters that happen to meet its smooth patches.
    Cells that land on invalid ground are dropped, and with its last cell a deposit. Shifts that
    keep too few deposits are drawn anew.

    Parameters
    ----------
    planes : sequence of array (y, x)
        Number of the deposit of each positive cell, -1 elsewhere, a region each.
    valid : sequence of array (y, x)
        bool, cells that may be predicted.
    draws : int
    seed : int
    kept : float
        Share of a region's deposits that a shift must keep.

    Returns
    -------
    DataFrame
        One row a positive cell of a draw: draw, region, row, col, deposit; no two regions share a
        deposit's number.

    Raises
    ------
    ValueError
        If a region's valid ground is too ragged for such shifts.

    Source: Harms et al. 2001, doi:10.1111/j.1365-2745.2001.00615.x (torus translations).
    """
    rng = np.random.default_rng(seed)
    first = np.cumsum([0, *(int(plane.max(initial=-1)) + 1 for plane in planes)])
    tables = [
        _shift(plane, ground, rng, kept, region).assign(draw=draw, region=region)
        for draw in range(draws)
        for region, (plane, ground) in enumerate(zip(planes, valid, strict=True))
    ]
    table = pd.concat(tables, ignore_index=True)
    table["deposit"] += first[table["region"]]
    return table[["draw", *CELL, "deposit"]]


def _shift(
    plane: np.ndarray, valid: np.ndarray, rng: np.random.Generator, kept: float, region: int
) -> pd.DataFrame:
    """Positive cells of a region after a random shift: row, col, deposit."""
    row, col = np.nonzero(plane >= 0)
    deposit = plane[row, col].astype("int64")
    wanted = kept * len(np.unique(deposit))
    for _ in range(TRIES):
        down, right = (int(rng.integers(size)) for size in plane.shape)
        moved = (row + down) % plane.shape[0], (col + right) % plane.shape[1]
        here = valid[moved]
        if (down or right) and len(np.unique(deposit[here])) >= wanted:
            cells = {"row": moved[0][here], "col": moved[1][here], "deposit": deposit[here]}
            return pd.DataFrame(cells)
    raise ValueError(
        f"{TRIES} shifts of region {region} kept less than {100 * kept:.0f} % of its deposits on "
        "valid cells; lower `kept`"
    )


def band(
    rows: pd.DataFrame,
    shifts: pd.DataFrame,
    grid: np.ndarray,
    *,
    areas: Sequence[float] = AREAS,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Score predictions against shifted labels: what no better than chance looks like.

    Each shift is scored like the true labels: a value a fold, averaged over the folds in which it
    leaves both classes. Cells that are positive in truth count as unlabeled unless a shift says
    otherwise.

    Parameters
    ----------
    rows : DataFrame
        Predictions of one split and method, columns of `mapping.PREDICTION_COLUMNS`.
    shifts : DataFrame
        Of `torus_shifts`.
    grid : array (points,)
        Of the curves.
    areas : sequence of float
        As for `metrics.scores`.

    Returns
    -------
    DataFrame
        metric, low, middle, high: 2.5, 50 and 97.5 % of the shifts.
    dict of array (2, points)
        Lower and upper end of the band of each curve of `CURVES`.
    """
    scores = []
    drawn: dict[str, list[np.ndarray]] = {kind: [] for kind in CURVES}
    for _, part in rows.groupby("fold", sort=True):
        for draw, fold in _shifted(part, shifts):
            values = draw_fold("", fold, areas, 0, 0)
            scores.append({name: value[0] for name, value in values.items()} | {"draw": draw})
            for kind, curve in CURVES.items():
                drawn[kind].append(curve(fold, grid))
    draws = np.array([row["draw"] for row in scores])  # a list would be taken for names of columns
    table = pd.DataFrame(scores).groupby("draw").mean().quantile([0.025, 0.5, 0.975]).T
    table = table.set_axis(["low", "middle", "high"], axis=1).rename_axis("metric").reset_index()
    ends = {
        kind: pd.DataFrame(lines).groupby(draws).mean().quantile([0.025, 0.975]).to_numpy()
        for kind, lines in drawn.items()
    }
    return table, ends


def _shifted(part: pd.DataFrame, shifts: pd.DataFrame) -> Iterator[tuple[int, Prediction]]:
    """Yield the draws that leave a fold both classes, as (draw, Prediction)."""
    cells = part[CELL].assign(place=np.arange(len(part)))
    met = shifts.merge(cells, on=CELL)
    p, threshold = part["likelihood"].to_numpy("float64"), float(part["threshold"].iloc[0])
    for draw, labelled in met.groupby("draw", sort=True):
        deposit = np.full(len(part), -1)
        deposit[labelled["place"]] = labelled["deposit"]
        fold = Prediction(deposit >= 0, p, deposit, threshold)
        if fold.both_classes:
            yield draw, fold


def check_shuffled(mean: pd.DataFrame, bands: pd.DataFrame | None = None) -> list[str]:
    """Say of methods that learned from shuffled labels whether they score as chance does.

    Their AUC should be 0.5. The interval over deposits is too narrow to ask for that: a model of
    nothing still draws smooth patches, and all deposits of a cluster lie in the same one, so that
    they hit or miss together (on the demo, AUC of a logistic regression varies over shuffles by
    about twice what the interval says). The band of shifted labels, which keeps clusters and map,
    knows that.

    Parameters
    ----------
    mean : DataFrame
        Rows of the score table with fold "mean", of these methods only.
    bands : DataFrame, optional
        Columns split, method, metric, low, high: of `band`.

    Returns
    -------
    list of str
        A sentence for each method and split that leaves 0.5 out, saying whether it fails; one that
        all pass if there is none.
    """
    auc = mean[mean["metric"] == "auc"].sort_values(["split", "method"])
    sentences = [_judge(row, _limits(bands, row)) for row in auc.itertuples()]
    sentences = [sentence for sentence in sentences if sentence]
    return sentences or [f"all {len(auc)} scores on shuffled labels hold 0.5 in their interval"]


def _judge(row: Any, limits: tuple[float, float] | None) -> str:
    """Say what is wrong with one score on shuffled labels; nothing if it holds 0.5."""
    said = f"{row.method} under {row.split}: AUC {row.value:.3f}"
    if np.isnan(row.low):
        return f"{said} without an interval, too few deposits to check"
    if row.low <= 0.5 <= row.high:
        return ""
    said += f", 95 % interval {row.low:.3f} to {row.high:.3f}, leaves out 0.5"
    if limits and limits[0] <= row.value <= limits[1]:
        said += f"; it lies within {limits[0]:.3f} to {limits[1]:.3f}, the band of shifted labels"
        return f"{said}: clustered deposits, no leak"
    return (
        f"{said}: it fails; shuffle again with other seeds, and if it still does, look for a way "
        "from test labels to the model"
    )


def _limits(bands: pd.DataFrame | None, row: Any) -> tuple[float, float] | None:
    """Band of the AUC of a method under a split, if there is one."""
    if bands is None:
        return None
    own = bands[(bands["split"] == row.split) & (bands["method"] == row.method)]
    own = own[own["metric"] == "auc"]
    return (own["low"].item(), own["high"].item()) if len(own) else None
