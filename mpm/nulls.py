"""What scores are worth when labels mean nothing: labels shifted around the map, or shuffled."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mpm import curves
from mpm.bootstrap import capture_name
from mpm.metrics import AREAS
from mpm.ranking import Ranking

CURVES = ("roc", "precision_recall", "capture")
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
    drawn: bool = True,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Score predictions against shifted labels: what no better than chance looks like.

    Each shift is scored like the true labels: a value a fold, averaged over the folds in which it
    leaves both classes. Cells that are positive in truth count as unlabeled unless a shift says
    otherwise. The cells of a fold are ranked once, whatever the number of shifts.

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
    drawn : bool
        Whether curves are wanted, too, which take longer than scores.

    Returns
    -------
    DataFrame
        metric (auc, average_precision, capture_01 ...), low, middle, high: 2.5, 50 and 97.5 % of
        the shifts.
    dict of array (2, points)
        Lower and upper end of the band of each curve of `CURVES`, if they are drawn.
    """
    scores, draws = [], []
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in CURVES} if drawn else {}
    for _, part in rows.groupby("fold", sort=True, observed=True):
        ranking = Ranking(part["likelihood"].to_numpy("float64"))
        for draw, place, deposit in _shifted(part, shifts):
            captured = ranking.captured(place, deposit, areas)
            shares = dict(zip(map(capture_name, areas), captured, strict=True))
            scores.append(ranking.scores(place) | shares)
            draws.append(draw)
            for kind, curve in _curves(ranking, place, deposit, grid).items() if drawn else ():
                found[kind].append(curve)
    number = np.array(draws)  # a list would be taken for names of columns
    table = pd.DataFrame(scores).groupby(number).mean().quantile([0.025, 0.5, 0.975]).T
    table = table.set_axis(["low", "middle", "high"], axis=1).rename_axis("metric").reset_index()
    ends = {
        kind: pd.DataFrame(lines).groupby(number).mean().quantile([0.025, 0.975]).to_numpy()
        for kind, lines in found.items()
    }
    return table, ends


def _shifted(
    part: pd.DataFrame, shifts: pd.DataFrame
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the draws that leave a fold both classes: draw, positive cells, their deposits."""
    cells = part[CELL].astype("int64").assign(place=np.arange(len(part)))
    met = shifts.merge(cells, on=CELL).sort_values("draw", kind="stable")
    place, deposit = met["place"].to_numpy(), met["deposit"].to_numpy()
    draws, first = np.unique(met["draw"].to_numpy(), return_index=True)
    parts = zip(np.split(place, first[1:]), np.split(deposit, first[1:]), strict=True)
    for draw, (own, of) in zip(draws.tolist(), parts, strict=True):
        if len(own) < len(part):
            yield draw, own, of


def _curves(
    ranking: Ranking, place: np.ndarray, deposit: np.ndarray, grid: np.ndarray
) -> dict[str, np.ndarray]:
    """Draw each curve of `CURVES` for labels on ranked cells."""
    steps = ranking.steps(place)
    return {
        "roc": curves.roc_of(steps, ranking.cells - len(place), grid),
        "precision_recall": curves.precision_recall_of(steps, grid),
        "capture": ranking.captured(place, deposit, grid),
    }


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
