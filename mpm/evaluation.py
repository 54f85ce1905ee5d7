"""Put the predictions of all methods side by side: tables, differences, curves, held-out maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from scipy.stats import spearmanr

from mpm import curves, demo, deposits
from mpm.metrics import Prediction, best_threshold, paired_difference, score_folds
from mpm.splits import SplitSettings, make_split
from mpm.study import Study

Folds = dict[str, Prediction]


def by_fold(rows: pd.DataFrame) -> Folds:
    """Split one method's predictions (columns of `mapping.PREDICTION_COLUMNS`) into folds."""
    return {
        fold: Prediction(
            part["positive"].to_numpy(),
            part["likelihood"].to_numpy(),
            part["deposit"].to_numpy(),
            float(part["threshold"].iloc[0]),
        )
        for fold, part in rows.groupby("fold", sort=True)
    }


def score_table(mean: pd.DataFrame, shown: Sequence[str], methods: Sequence[str]) -> pd.DataFrame:
    """Lay out mean scores for reading: "value (low to high)", methods down, metrics across.

    Parameters
    ----------
    mean : DataFrame
        Rows of the score table with fold "mean".
    shown : sequence of str
        Metrics, in order.
    methods : sequence of str
        Methods, in order.

    Returns
    -------
    DataFrame of str
        Index split and method.
    """
    rows = mean[mean["metric"].isin(shown)]
    text = [
        f"{value:.3f}" + ("" if np.isnan(low) else f" ({low:.3f} to {high:.3f})")
        for value, low, high in rows[["value", "low", "high"]].itertuples(index=False)
    ]
    table = rows.assign(text=text).pivot(index=["split", "method"], columns="metric", values="text")
    order = [key for split in ("blocks", "random") for key in table.index if key[0] == split]
    order.sort(key=lambda key: (key[0], list(methods).index(key[1])))
    return table.loc[order, [name for name in shown if name in table]].fillna("")


def differences(
    folds: Mapping[tuple[str, str], Folds],
    pairs: Sequence[tuple[str, str]],
    names: Sequence[str],
    *,
    split: str = "blocks",
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Compare pairs of methods on the same folds and the same resampled deposits.

    Returns
    -------
    DataFrame
        method, other, metric, difference (first less second), low, high (95 % interval).
    """
    rows = []
    for one, other in pairs:
        for metric in names:
            gap = paired_difference(
                folds[split, one], folds[split, other], metric, draws=draws, seed=seed
            )
            rows.append((one, other, metric, *gap))
    return pd.DataFrame(rows, columns=["method", "other", "metric", "difference", "low", "high"])


def curves_by_split(
    folds: Mapping[tuple[str, str], Folds], methods: Sequence[str], grid: np.ndarray
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return all curves: split to kind to method to (folds, points)."""
    kinds = {
        "roc": curves.roc,
        "precision_recall": curves.precision_recall,
        "capture": curves.capture_efficiency,
    }
    return {
        split: {
            kind: {
                method: np.stack([draw(fold, grid) for fold in folds[split, method].values()])
                for method in methods
            }
            for kind, draw in kinds.items()
        }
        for split in dict.fromkeys(split for split, _ in folds)
    }


def held_out(rows: pd.DataFrame, cubes: Mapping[str, xr.Dataset], *columns: str) -> dict:
    """Lay one method's test-cell predictions on the grids.

    Parameters
    ----------
    rows : DataFrame
        One split and method, each cell at most once.
    cubes : mapping of Dataset
    *columns : str
        Columns to lay out, e.g. "likelihood", "uncertainty".

    Returns
    -------
    dict of Dataset
        Region to `(y, x)` float32 per column; NaN where not tested.
    """
    maps = {}
    for number, (region, cube) in enumerate(cubes.items()):
        own = rows[rows["region"] == number]
        planes = {}
        for column in columns:
            plane = np.full(cube["valid"].shape, np.nan, "float32")
            plane[own["row"], own["col"]] = own[column]
            planes[column] = cube["valid"].copy(data=plane)
        maps[region] = xr.Dataset(planes)
    return maps


def held_out_ranks(
    rows: pd.DataFrame, cubes: Mapping[str, xr.Dataset], methods: Sequence[str]
) -> dict[str, dict[str, xr.DataArray]]:
    """Lay each method's rank within the fold, 0 to 1, on the grids: method to region to (y, x)."""
    ranked = rows.assign(rank=rows.groupby(["method", "fold"])["likelihood"].rank(pct=True))
    return {
        method: {
            region: maps["rank"]
            for region, maps in held_out(ranked[ranked["method"] == method], cubes, "rank").items()
        }
        for method in methods
    }


def oracle(
    study: Study,
    cubes: Mapping[str, xr.Dataset],
    target: str,
    rows: pd.DataFrame,
    settings: SplitSettings,
) -> pd.DataFrame:
    """Predict the demo's test cells by their true probability, as a method named "oracle".

    Parameters
    ----------
    study : Study
        The demo.
    cubes : mapping of Dataset
    target : str
    rows : DataFrame
        Predictions of any methods; their test cells are predicted.
    settings : SplitSettings
        To find each fold's validation cells, where the threshold is chosen.
    """
    truth = [demo.read_truth(study.raw, region)[target].values for region in cubes]
    cells = rows[rows["method"] == rows["method"].iloc[0]].copy()
    cells["method"] = "oracle"
    cells["uncertainty"] = np.float32(np.nan)
    cells["likelihood"] = _read(truth, cells).astype("float32")
    regions = list(cubes.values())
    for (split, fold), part in cells.groupby(["split", "fold"]):
        parts = make_split(regions, split, int(fold), settings, targets=list(study.targets))
        triples = zip(truth, parts.validation, regions, strict=True)
        chosen = [(p[v], cube[target].values[v]) for p, v, cube in triples]
        guess, label = (np.concatenate(column) for column in zip(*chosen, strict=True))
        cells.loc[part.index, "threshold"] = np.float32(best_threshold(label, guess))
    return cells


def undiscovered(study: Study, cubes: Mapping[str, xr.Dataset], target: str) -> list[np.ndarray]:
    """Number the cells of the demo's undiscovered deposits: (y, x) int, -1 elsewhere, per region.

    No two regions share a number. Cells that are positive for a known deposit are left out.
    """
    every = demo.read_true_deposits(study.raw)
    hidden = every[~every["discovered"] & (every["type"] == target)].reset_index(drop=True)
    planes = []
    for region, cube in cubes.items():
        own = hidden[hidden["region"] == region]
        to_grid = pyproj.Transformer.from_crs("EPSG:4326", cube.rio.crs, always_xy=True)
        x, y = to_grid.transform(own["longitude"].to_numpy(), own["latitude"].to_numpy())
        placed = deposits.locate(own.assign(x=x, y=y), cube["valid"])
        plane = np.full(cube["valid"].shape, -1)
        plane[placed["row"], placed["col"]] = placed.index
        plane[cube[target].values] = -1
        planes.append(plane)
    return planes


def score_against_truth(
    rows: pd.DataFrame,
    hidden: list[np.ndarray],
    truth: list[np.ndarray],
    *,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Score one method on what only the demo knows.

    Parameters
    ----------
    rows : DataFrame
        One split and method.
    hidden, truth : list of array (y, x)
        Of `undiscovered`, and the true probability, a region each.

    Returns
    -------
    DataFrame
        fold, metric, value, low, high; metrics `<metric>_undiscovered` (known positive cells left
        out) and `correlation_with_truth` (Spearman).
    """
    number = _read(hidden, rows).astype(int)
    unknown = rows.assign(positive=number >= 0, deposit=number)[~rows["positive"].to_numpy()]
    table = score_folds(by_fold(unknown), draws=draws, seed=seed)
    table["metric"] += "_undiscovered"
    true = pd.Series(_read(truth, rows), index=rows.index)
    found = {
        fold: spearmanr(part["likelihood"], true[part.index], nan_policy="omit").statistic
        for fold, part in rows.groupby("fold", sort=True)
    }
    found["mean"] = np.mean(list(found.values()))
    correlation = pd.DataFrame({"fold": list(found), "value": list(found.values())})
    correlation = correlation.assign(metric="correlation_with_truth", low=np.nan, high=np.nan)
    return pd.concat([table, correlation[table.columns]], ignore_index=True)


def _read(planes: list[np.ndarray], rows: pd.DataFrame) -> np.ndarray:
    """Read planes (y, x), a region each, at the rows' cells."""
    values = np.empty(len(rows))
    for number, plane in enumerate(planes):
        here = (rows["region"] == number).to_numpy()
        values[here] = plane[rows["row"].to_numpy()[here], rows["col"].to_numpy()[here]]
    return values


def findings(mean: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    """Say in a few sentences what the scores show.

    Parameters
    ----------
    mean : DataFrame
        Rows of the score table with fold "mean".
    compared : DataFrame
        Of `differences`, with "mae" against "vit_scratch".
    """
    trained = mean[mean["method"] != "oracle"]
    block = trained[(trained["split"] == "blocks") & (trained["metric"] == "average_precision")]
    first, second = block.nlargest(2, "value").itertuples()
    auc = trained[trained["metric"] == "auc"].pivot(index="method", columns="split", values="value")
    gain = auc["random"] - auc["blocks"]
    control = compared[
        (compared["other"] == "vit_scratch") & (compared["metric"] == "average_precision")
    ].iloc[0]
    lines = [
        f"best average precision under blocks: {first.method} ({first.value:.3f}), "
        f"then {second.method} ({second.value:.3f})",
        f"AUC that the random split adds: {gain.min():+.3f} to {gain.max():+.3f}",
        f"pretraining adds {control.difference:+.3f} average precision under blocks "
        f"(95 % interval {control.low:+.3f} to {control.high:+.3f})",
    ]
    every = mean[mean["metric"] == "auc"].pivot(index="method", columns="split", values="value")
    if "oracle" in every.index:
        beat = every.index[every["random"] > every.loc["oracle", "random"]]
        lines.append(
            "above the true probability under the random split (leak, discovery bias or chance): "
            + (", ".join(beat) or "none")
        )
    return lines
