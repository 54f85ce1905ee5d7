"""The study's table of scores: one Parquet file, one row a metric, fold, split, method and seed."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mpm import artefacts

SCORE_COLUMNS = "study target split fold seed method metric value low high".split()
RUN = ["study", "target", "split", "seed", "method"]  # what is written and replaced together


def append_scores(path: Path, table: pd.DataFrame, keys: Mapping[str, str | int]) -> None:
    """Put scores into the study's table, in place of older ones of the same run.

    Rows of the same study, target, split, seed and method are replaced, all folds of them, so give
    all folds at once.

    Parameters
    ----------
    path : Path
        Parquet file; made if missing.
    table : DataFrame
        From `score_folds`, or from `scores` with `fold` among the keys.
    keys : mapping
        The columns that `table` lacks: study, target, split, seed, method.

    Raises
    ------
    ValueError
        If a column is missing or unknown, or a metric of a fold is given twice.
    """
    _put(path, table, keys, RUN)


def add_scores(path: Path, table: pd.DataFrame, keys: Mapping[str, str | int]) -> None:
    """Put further metrics of runs into the study's table; the other metrics of a run stay.

    Parameters
    ----------
    path, table, keys
        As for `append_scores`.

    Raises
    ------
    ValueError
        As `append_scores`.
    """
    _put(path, table, keys, [*RUN, "metric"])


def _put(
    path: Path, table: pd.DataFrame, keys: Mapping[str, str | int], replaced: list[str]
) -> None:
    """Put rows in place of older ones that agree in some columns."""
    fresh = table.assign(**keys)
    missing = [name for name in SCORE_COLUMNS if name not in fresh]
    unknown = [name for name in fresh if name not in SCORE_COLUMNS]
    if missing or unknown:
        raise ValueError(
            f"scores for {path} need the columns {', '.join(SCORE_COLUMNS)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    texts = [name for name in SCORE_COLUMNS[:7] if name != "seed"]
    types = {name: "str" for name in texts} | {"seed": "int64"}
    types |= {name: "float64" for name in SCORE_COLUMNS[7:]}
    fresh = fresh[SCORE_COLUMNS].astype(types)
    if fresh.duplicated(SCORE_COLUMNS[:7]).any():
        twice = fresh[fresh.duplicated(SCORE_COLUMNS[:7])].iloc[0]
        raise ValueError(f"metric {twice['metric']} of fold {twice['fold']} is given twice")
    if Path(path).exists():
        old = read_scores(path)
        given = pd.MultiIndex.from_frame(fresh[replaced])
        same = pd.MultiIndex.from_frame(old[replaced]).isin(given)
        fresh = pd.concat([old[~same], fresh]) if not same.all() else fresh
    fresh = fresh.sort_values(SCORE_COLUMNS[:7]).reset_index(drop=True)
    artefacts.write_table(fresh, path)


def read_scores(path: Path) -> pd.DataFrame:
    """Read the study's table of scores.

    Returns
    -------
    DataFrame
        Columns study, target, split, fold, seed, method, metric, value, low, high.

    Raises
    ------
    FileNotFoundError
        If there is none yet.
    ValueError
        If the file is damaged or holds other columns.
    """
    table = artefacts.read_table(path, "05_evaluation")
    if list(table.columns) != SCORE_COLUMNS:
        raise ValueError(
            f"{path} holds {', '.join(table.columns)} instead of {', '.join(SCORE_COLUMNS)}; "
            "delete it and run notebook 05_evaluation again"
        )
    return table
