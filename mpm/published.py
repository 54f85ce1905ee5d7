"""Published scores, with their sources, beside what the same methods score here."""

from typing import Any

import numpy as np
import pandas as pd

from mpm import artefacts

COLUMNS = "source link deposit_type region method label split metric value prevalence note".split()
SAME_DATA = "lawley2022"  # the study whose data cube is that of the publication
BEFORE = ["deposit_type", "label", "split", "metric", "value", "prevalence", "source"]


def scores() -> pd.DataFrame:
    """Return published scores: facts, from `data/published_scores.json`.

    Returns
    -------
    DataFrame
        source, link (paper's DOI, repository or notebook), deposit_type, region, method (of
        `methods.NAMES`), label (the method as the source calls it), split, metric (of
        `metrics.scores`; "train_auc" for training cells), value, prevalence (share of positives
        among test cells, NaN where the source does not tell), note.

    Raises
    ------
    ValueError
        If a row lacks a column or has an unknown one.
    """
    path = artefacts.home() / "data" / "published_scores.json"
    rows = artefacts.read_json(path)
    for number, row in enumerate(rows):
        wrong = sorted(set(row) ^ set(COLUMNS))
        if wrong:
            raise ValueError(f"row {number} of {path}: {', '.join(wrong)} missing or unknown")
    return pd.DataFrame(rows, columns=COLUMNS).astype({"value": float, "prevalence": float})


def beside(ours: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """Lay our scores beside published ones of the same method and metric.

    Parameters
    ----------
    ours : DataFrame
        Mean scores: study, split, method, metric, value, low, high; one seed.
    published : DataFrame, optional
        Of `scores`.

    Returns
    -------
    DataFrame
        One row a published score: deposit_type, label, split, metric, value, prevalence, source;
        reproduced, which is ours of the study `lawley2022` under the same split, empty without its
        data; then a column "study: split" for each of ours, "value (low to high)", empty where that
        method was not run. A score says little beside one of another prevalence or deposit type:
        what is to be read is how ours change from split to split.

    Raises
    ------
    ValueError
        If one of our scores is given twice, as with two seeds or targets.
    """
    table = scores() if published is None else published
    keys = ["study", "split", "method", "metric"]
    if ours.duplicated(keys).any():
        twice = ", ".join(map(str, ours.loc[ours.duplicated(keys), keys].iloc[0]))
        raise ValueError(f"{twice} is there twice; give the mean over folds of one target and seed")
    found = table[BEFORE].assign(reproduced=_reproduced(table, ours))
    for (study, split), own in ours.groupby(["study", "split"], sort=False):
        texts = {(row.method, row.metric): _text(row) for row in own.itertuples()}
        pairs = zip(table["method"], table["metric"], strict=True)
        found[f"{study}: {split}"] = [texts.get(pair, "") for pair in pairs]
    return found


def _reproduced(table: pd.DataFrame, ours: pd.DataFrame) -> list[str]:
    """Ours on the published data, and under the published split, of each published score."""
    own = ours[ours["study"] == SAME_DATA]
    texts = {(row.split, row.method, row.metric): _text(row) for row in own.itertuples()}
    keys = zip(table["split"], table["method"], table["metric"], strict=True)
    return [texts.get(key, "") for key in keys]


def _text(row: Any) -> str:
    interval = "" if np.isnan(row.low) else f" ({row.low:.3f} to {row.high:.3f})"
    return f"{row.value:.3f}{interval}"
