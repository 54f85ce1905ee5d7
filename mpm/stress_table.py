"""Draws of scores under stress become values with intervals, and a table that is kept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mpm import artefacts, metrics
from mpm.study import Study
from mpm.trial_folds import Bench, Key

COLUMNS = "study target split fold seed method stress level name metric value low high".split()
KEYS = COLUMNS[:3] + COLUMNS[4:7]  # of what is scored together, all folds at once
Drawn = dict[str, np.ndarray]  # metric to its value and bootstrap draws, (1 + draws,)


@dataclass(frozen=True)
class Plan:
    """What methods are put through.

    Attributes
    ----------
    shares : tuple of float
        Of the training deposits that are known.
    noise : tuple of float
        Standard deviations of noise on test evidence, in those of the training cells.
    draws : int
        Random draws of deposits, of halves of the layers and of noise.
    most : int
        Unlabeled test cells that are scored where evidence is lost, a random sample; all positive
        ones are. AUC does not change by that; average precision is that of the sample.
    areas : tuple of float
        Shares of the area for capture rates.
    scored : tuple of str
        Metrics.
    bootstrap : int
        Draws of test deposits behind intervals.
    """

    shares: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    noise: tuple[float, ...] = (0.1, 0.3, 1.0)
    draws: int = 3
    most: int = 1000
    areas: tuple[float, ...] = (0.05,)
    scored: tuple[str, ...] = ("auc", "average_precision", "capture_05")
    bootstrap: int = 200


def draw(
    fold: str, positive: np.ndarray, likelihood: np.ndarray, deposit: np.ndarray, plan: Plan
) -> Drawn:
    """Each metric on some test cells, (n,) each, and on its bootstrap draws.

    Parameters
    ----------
    fold : str
        Split and number, which decide the deposits that are drawn.
    positive, likelihood, deposit : array (n,)
    plan : Plan
    """
    prediction = metrics.Prediction(positive, likelihood, deposit, threshold=np.nan)
    names = (*plan.scored, "deposits")
    return metrics.draw_fold(fold, prediction, plan.areas, plan.bootstrap, 0, names=names)


def score_predictions(
    rows: pd.DataFrame, stress: str, level: float, name: str, plan: Plan
) -> pd.DataFrame:
    """Score the predictions of one fold: rows as of `record`.

    Parameters
    ----------
    rows : DataFrame
        Columns of `mapping.PREDICTION_COLUMNS`.
    stress, level, name
        What was done, how much of it and to which layers: columns of the result.
    plan : Plan
    """
    fold = f"{rows['split'].iloc[0]} {rows['fold'].iloc[0]}"
    positive, likelihood, deposit = (
        rows[key].to_numpy() for key in ("positive", "likelihood", "deposit")
    )
    drawn = draw(fold, positive, likelihood, deposit, plan)
    return pd.DataFrame(record(stress, level, name, drawn, plan))


def mixed(several: Sequence[Drawn]) -> Drawn:
    """Mean of several random draws, with the spread of a single one.

    The k-th bootstrap draw is that of the (k mod n)-th of them, so that the interval holds both the
    luck of the draw and that of the test deposits.
    """
    found = {}
    for metric in several[0]:
        values = np.stack([drawn[metric] for drawn in several])
        turn = np.arange(values.shape[1] - 1)
        found[metric] = np.append(values[:, 0].mean(), values[turn % len(values), 1 + turn])
    return found


def record(
    stress: str, level: float, name: str, drawn: Drawn, plan: Plan, *, suffix: str = ""
) -> list[dict]:
    """Rows stress, level, name, deposits, metric, draws (list: the value, then the bootstrap).

    Parameters
    ----------
    stress, level, name
        What was done, how much of it and to which layers.
    drawn : dict
        Of `draw`.
    plan : Plan
    suffix : str
        Added to the names of metrics.
    """
    shared = {"stress": stress, "level": float(level), "name": name}
    shared |= {"deposits": int(drawn["deposits"][0])}
    return [
        shared | {"metric": metric + suffix, "draws": drawn[metric].astype("float32").tolist()}
        for metric in plan.scored
    ]


def tidy(bench: Bench, made: Iterable[tuple[Key, pd.DataFrame]]) -> pd.DataFrame:
    """Turn the draws of folds into values with intervals, with their mean over folds.

    Folds without a value, for want of one class, are left out of the mean. Its interval is NaN if
    a fold has a single deposit, whose spread nobody knows. Intervals are those of
    `metrics.interval`, of the deposits that took part.
    """
    parts = [
        rows.assign(split=split, fold=str(fold), method=method)
        for (split, fold, method), rows in made
    ]
    every = pd.concat(parts, ignore_index=True)
    draws = np.array(every["draws"].tolist())
    keys = ["split", "method", "stress", "level", "name", "metric"]
    means, rows, free = [], [], (every.pop("deposits") - 1).to_numpy()
    for key, group in every.groupby(keys, sort=False, dropna=False):
        own = draws[group.index]
        scored = ~np.isnan(own[:, 0])
        if scored.any():
            own, of = own[scored], free[group.index][scored]
            free = np.append(free, of.sum() + max(0, (of == 0).sum() - 1))  # as `freedom` counts
            rows.append(dict(zip(keys, key, strict=True)) | {"fold": "mean"})
            means.append(own.mean(axis=0))
    table = pd.concat([every.drop(columns="draws"), pd.DataFrame(rows)], ignore_index=True)
    draws = np.concatenate([draws, means]) if means else draws
    found = np.array([metrics.interval(*each) for each in zip(draws, free, strict=True)])
    least = np.where(table["metric"].str.endswith("_change"), -1, 0)
    ends = np.clip(found[:, 1:].T, least, 1)
    table["value"], table["low"], table["high"] = found[:, 0], ends[0], ends[1]
    table = table.assign(study=bench.study.name, target=bench.target, seed=bench.seed)
    return table[COLUMNS]


def path(study: Study) -> Path:
    """Return where a study's table lies."""
    return study.processed / "stress.parquet"


def keep(study: Study, table: pd.DataFrame) -> None:
    """Put rows of `COLUMNS` into the study's table, in place of older ones."""
    place = path(study)
    if place.exists():
        old = read(study)
        same = pd.MultiIndex.from_frame(old[KEYS]).isin(pd.MultiIndex.from_frame(table[KEYS]))
        table = pd.concat([old[~same], table], ignore_index=True)
    ordered = table.sort_values(COLUMNS[:-3], kind="stable").reset_index(drop=True)
    artefacts.write_table(ordered, place)


def read(study: Study) -> pd.DataFrame:
    """Read the study's table: `COLUMNS`.

    Raises
    ------
    FileNotFoundError
        If notebook 05 has not run.
    """
    return artefacts.read_table(path(study), "05_evaluation")
