"""Put the predictions of all methods side by side: tables, differences, curves, held-out maps."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyproj
import xarray as xr

from mpm import curves, demo, deposits
from mpm.labels import deposit_numbers
from mpm.metrics import best_threshold, paired_differences
from mpm.score_runs import Folds, read_cells
from mpm.score_runs import by_fold as by_fold
from mpm.score_runs import score_against_truth as score_against_truth
from mpm.score_runs import score_all as score_all
from mpm.splits import SplitSettings, make_split
from mpm.study import Study

SPLITS = ("blocks", "latitude", "district", "region", "random")  # what flatters comes last
CONTROLS = ("oracle", "distance_to_deposit", "shuffled_labels")  # no methods to choose from


def in_order(names: Iterable[str], first: Sequence[str]) -> list[str]:
    """Return each name once: those of `first` in its order, then others as they come."""
    names = list(dict.fromkeys(names))
    return [name for name in first if name in names] + [name for name in names if name not in first]


def is_control(method: str) -> bool:
    """Whether a method is a control: one of `CONTROLS`, or any method on shuffled labels."""
    return method in CONTROLS or method.startswith("shuffled")


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
        Index split, in the order of `SPLITS`, and method; those not asked for come last.
    """
    rows = mean[mean["metric"].isin(shown)]
    text = [
        f"{value:.3f}" + ("" if np.isnan(low) else f" ({low:.3f} to {high:.3f})")
        for value, low, high in rows[["value", "low", "high"]].itertuples(index=False)
    ]
    table = rows.assign(text=text).pivot(index=["split", "method"], columns="metric", values="text")
    splits = in_order(table.index.get_level_values("split"), SPLITS)
    names = in_order(table.index.get_level_values("method"), methods)
    order = [key for key in itertools.product(splits, names) if key in table.index]
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

    Parameters
    ----------
    folds : mapping
        (split, method) to its folds.
    pairs : sequence of (str, str)
        Methods.
    names : sequence of str
        Metrics.
    split : str
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        method, other, metric, difference (first less second), low, high (95 % interval).
    """
    own = {method: folds[split, method] for pair in pairs for method in pair}
    found = paired_differences(own, pairs, names, draws=draws, seed=seed)
    rows = [(*key, *gap) for key, gap in found.items()]
    return pd.DataFrame(rows, columns=["method", "other", "metric", "difference", "low", "high"])


def against_best(
    folds: Mapping[tuple[str, str], Folds],
    mean: pd.DataFrame,
    names: Sequence[str],
    *,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Compare the best method of each split, by average precision, with each other method.

    Parameters
    ----------
    folds : mapping
        (split, method) to its folds.
    mean : DataFrame
        Rows of the score table with fold "mean".
    names : sequence of str
        Metrics.
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        split, and columns of `differences`. The best was chosen by these very scores, which
        flatters it: a difference that holds zero says that the second may be as good.
    """
    tables = []
    rows = mean[(mean["metric"] == "average_precision") & ~mean["method"].map(is_control)]
    for split in in_order(rows["split"], SPLITS):
        scores = rows[rows["split"] == split].set_index("method")["value"].dropna()
        others = [name for of, name in folds if of == split and name != "oracle"]
        if scores.empty or len(others) < 2:
            continue
        best = scores.idxmax()
        pairs = [(best, name) for name in others if name != best]
        found = differences(folds, pairs, names, split=split, draws=draws, seed=seed)
        tables.append(found.assign(split=split))
    columns = ["split", "method", "other", "metric", "difference", "low", "high"]
    return (
        pd.concat(tables)[columns].reset_index(drop=True)
        if tables
        else pd.DataFrame(columns=columns)
    )


def curves_by_split(
    folds: Mapping[tuple[str, str], Folds],
    methods: Sequence[str],
    grid: np.ndarray,
    *,
    splits: Sequence[str] = SPLITS,
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return the curves of some splits: split to kind to method to (folds, points).

    Kinds are roc, precision_recall and capture, and prediction_area with (folds, 2, points), of the
    methods that were run under a split.

    Parameters
    ----------
    folds : mapping
        (split, method) to its folds.
    methods : sequence of str
        Methods, in order.
    grid : array (points,)
        Common x values, 0 to 1.
    splits : sequence of str
        Those that are drawn.
    """
    kinds = {
        "roc": curves.roc,
        "precision_recall": curves.precision_recall,
        "capture": curves.capture_efficiency,
        "prediction_area": curves.prediction_area,
    }
    return {
        split: {
            kind: {
                method: np.stack([draw(fold, grid) for fold in folds[split, method].values()])
                for method in methods
                if (split, method) in folds
            }
            for kind, draw in kinds.items()
        }
        for split in in_order((split for split, _ in folds), SPLITS)
        if split in splits
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
    # not every method need be run under every split
    cells = rows.drop_duplicates(["split", "fold", "region", "row", "col"]).copy()
    cells["method"] = "oracle"
    cells["uncertainty"] = np.float32(np.nan)
    cells["likelihood"] = read_cells(truth, cells).astype("float32")
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

    A hidden deposit has the cells within the label radius of it, as a known one has, each cell that
    of the nearest hidden deposit; so that either is captured by the best of as many cells. No two
    regions share a number. Cells that are positive for a known deposit are left out.
    """
    every = demo.read_true_deposits(study.raw)
    wanted = study.targets[target]
    hidden = wanted.of(every[~every["discovered"]]).reset_index(drop=True)
    planes = []
    for region, cube in cubes.items():
        own = hidden[hidden["region"] == region]
        to_grid = pyproj.Transformer.from_crs("EPSG:4326", cube.rio.crs, always_xy=True)
        x, y = to_grid.transform(own["longitude"].to_numpy(), own["latitude"].to_numpy())
        placed = deposits.locate(own.assign(x=x, y=y, deposit=own.index), cube["valid"])
        plane = deposit_numbers(placed, wanted, cube["valid"]).astype(int)
        plane[cube[target].values | ~cube["valid"].values] = -1
        planes.append(plane)
    return planes


def findings(mean: pd.DataFrame, compared: pd.DataFrame, *, split: str = "blocks") -> list[str]:
    """Say in a few sentences what the scores show.

    Parameters
    ----------
    mean : DataFrame
        Rows of the score table with fold "mean", of any splits and methods.
    compared : DataFrame
        Of `differences`; what pretraining adds is said if "mae" is compared with "vit_scratch".
    split : str
        Of `compared`.
    """
    lines = []
    wide = mean[mean["metric"].isin(["auc", "average_precision"])]
    wide = wide.pivot(index="method", columns=["metric", "split"], values="value")
    methods = [method for method in wide.index if not is_control(method)]
    splits = in_order(mean["split"], SPLITS)
    for each in splits:
        scores = wide.loc[methods, ("average_precision", each)].dropna().nlargest(2)
        named = ", then ".join(f"{method} ({value:.3f})" for method, value in scores.items())
        lines += [f"best average precision under {each}: {named}"] if named else []
    for each in splits:
        if "random" in splits and each != "random":
            gain = (wide["auc", "random"] - wide["auc", each])[methods].dropna()
            span = f"{gain.min():+.3f} to {gain.max():+.3f}"
            lines.append(f"AUC that the random split adds to that under {each}: {span}")
    control = compared[(compared["method"] == "mae") & (compared["other"] == "vit_scratch")]
    for row in control[control["metric"] == "average_precision"].itertuples():
        lines.append(
            f"pretraining adds {row.difference:+.3f} average precision under {split} "
            f"(95 % interval {row.low:+.3f} to {row.high:+.3f})"
        )
    return lines + _against_controls(wide["auc"], splits)


def _against_controls(auc: pd.DataFrame, splits: Sequence[str]) -> list[str]:
    """Say which methods beat the truth, and which are no better than the nearest known deposit."""
    lines = []
    for split in splits:
        scores = auc[split].dropna()
        methods = [name for name in scores.index if not is_control(name)]
        if "oracle" in scores:
            above = [name for name in methods if scores[name] > scores["oracle"]]
            lines.append(
                f"above the true probability under {split} (leak, discovery bias or chance): "
                + (", ".join(above) or "none")
            )
        if "distance_to_deposit" in scores:
            below = [name for name in methods if scores[name] <= scores["distance_to_deposit"]]
            lines.append(
                f"no better than the distance to the nearest known deposit under {split}: "
                + (", ".join(below) or "none")
            )
    return lines
