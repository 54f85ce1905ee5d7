"""What notebook 05 finds besides scores of methods, as rows of the same table."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mpm.metrics import Interval
from mpm.score_store import SCORE_COLUMNS

ROW = SCORE_COLUMNS[2:4] + SCORE_COLUMNS[5:]  # split, fold, method, metric, value, low, high

SHIFTED, LESS = "_on_shifted_labels", "_less_"  # in the names of metrics
ADDED = f"{SHIFTED}$|{LESS}|^train_auc$"  # metrics that the runs of methods get besides


def of_bands(bands: pd.DataFrame) -> pd.DataFrame:
    """Turn bands of shifted labels into rows: metric `<metric>_on_shifted_labels`.

    Parameters
    ----------
    bands : DataFrame
        Columns split, method, metric, low, middle, high: of `nulls.band`.

    Returns
    -------
    DataFrame
        `ROW`; the value is the middle of the shifts, low and high hold 95 of 100 of them.
    """
    rows = bands.rename(columns={"middle": "value"}).assign(fold="mean")
    return rows.assign(metric=rows["metric"] + SHIFTED)[ROW]


def of_differences(found: pd.DataFrame) -> pd.DataFrame:
    """Turn paired differences into rows: metric `<metric>_less_<other>`.

    Parameters
    ----------
    found : DataFrame
        Columns split, method, other, metric, difference, low, high: of `evaluation.differences`.

    Returns
    -------
    DataFrame
        `ROW`.
    """
    rows = found.rename(columns={"difference": "value"}).assign(fold="mean")
    return rows.assign(metric=rows["metric"] + LESS + rows["other"])[ROW]


def of_pairs(found: Mapping[str, Interval]) -> pd.DataFrame:
    """Turn leave-pair-out AUC, method to Interval, into rows of split "leave_pair_out"."""
    rows = [("leave_pair_out", "mean", name, "auc", *auc) for name, auc in found.items()]
    return pd.DataFrame(rows, columns=ROW)


def of_shuffles(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Turn what models of shuffled labels score into rows of methods "shuffled:NAME".

    Parameters
    ----------
    verdicts : DataFrame
        Of `shuffles.verdicts`.

    Returns
    -------
    DataFrame
        `ROW`; metrics auc (with its interval), auc_sd (of a single deal) and deals.
    """
    rows = verdicts.reset_index().rename(columns={"mean": "value"})
    rows = rows.assign(fold="mean", method="shuffled:" + rows["method"], metric="auc")
    alone = {"low": np.nan, "high": np.nan}
    more = [rows.assign(metric=f"auc_{key}", value=rows[key], **alone) for key in ("sd", "deals")]
    return pd.concat([rows, *more], ignore_index=True)[ROW]
