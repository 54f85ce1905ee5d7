"""What a comparison of backbones says: means, paired differences and their intervals."""

from pathlib import Path

import numpy as np
import pandas as pd

from mpm import artefacts

PRESET = "as the preset"  # the choice of fine-tuning that others are compared with
COLUMNS = ["study", "target", "split", "metric", "variant", "head", "choice"]
COLUMNS += ["configuration", "folds", "seeds", "deposits"]
COLUMNS += ["prevalence", "value", "low", "high", "difference", "difference_low", "difference_high"]


def summary(table: pd.DataFrame, control: str, *, seed: int = 0) -> pd.DataFrame:
    """Average over folds and seeds, with 95 % intervals over deposits and seeds.

    Parameters
    ----------
    table : DataFrame
        Of `comparison.compare`.
    control : str
        The variant that others are compared with, under the same head and on the same deposits. A
        choice of fine-tuning is compared with the preset's, of the same variant and head.
    seed : int
        Of the draws of seeds.

    Returns
    -------
    DataFrame
        `COLUMNS`. Rows whose control was made in another configuration (other settings, data or
        code) are left out, and named.
    """
    rows = []
    table = _comparable(table, control).sort_values(["fold", "seed"])
    for keys, part in table.groupby(["study", "target", "split", "metric"], sort=False):
        for way, own in part.groupby(["variant", "head", "choice", "configuration"], sort=False):
            other = _control(part, control, *way)
            one = own.drop_duplicates("fold")
            counts = [len(one), own["seed"].nunique(), one["deposits"].sum()]
            row = [*keys, *way, *counts, one["prevalence"].mean()]
            pair = [_shared(own, other), _shared(other, own)]
            gap = np.full(2, np.nan)
            if len(pair[0]):  # the same generator: the same seeds are drawn of both
                gap = np.subtract(*(_draws(rows, np.random.default_rng(seed)) for rows in pair))
            drawn = _draws(own, np.random.default_rng(seed))
            rows.append([*row, *_interval(drawn), *_interval(gap)])
    return pd.DataFrame(rows, columns=COLUMNS)


def _control(
    part: pd.DataFrame, control: str, variant: str, head: str, choice: str, configuration: str
) -> pd.DataFrame:
    """Return what a way is compared with: another choice with the preset's, same network."""
    name = variant if choice != PRESET else control
    same = (part["variant"] == name) & (part["head"] == head) & (part["choice"] == PRESET)
    return part[same & (part["configuration"] == configuration)]


def _comparable(table: pd.DataFrame, control: str) -> pd.DataFrame:
    """Leave out what has no control of its configuration, though one of another is there."""
    keys = ["study", "target", "split", "metric", "head"]
    held = table["variant"].where(table["choice"] != PRESET, control)
    controls = table[table["choice"] == PRESET]
    marks = [keys, [*keys, "configuration"]]
    any_of_it, same = (
        pd.MultiIndex.from_frame(table[mark].assign(held=held)).isin(
            pd.MultiIndex.from_frame(controls[[*mark, "variant"]])
        )
        for mark in marks
    )
    stale = any_of_it & ~same
    for way, _ in table[stale].groupby(["target", "split", "variant", "head", "choice"]):
        print(f"left out, its control is of another configuration: {', '.join(way)}", flush=True)
    return table[~stale]


def _shared(rows: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of folds and seeds that the other has too."""
    there = pd.MultiIndex.from_frame(other[["fold", "seed"]])
    return rows[pd.MultiIndex.from_frame(rows[["fold", "seed"]]).isin(there)]


def _draws(rows: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Mean over folds of the value and its draws, each draw with other seeds: (1 + draws,)."""
    values = []
    for _, fold in rows.groupby("fold", sort=True):
        plain, drawn = fold["value"].to_numpy(), np.stack(fold["draws"].to_list())
        chosen = rng.integers(len(fold), size=(len(fold), drawn.shape[1]))
        several = np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)
        values.append(np.concatenate([[plain.mean()], several]))
    return np.mean(values, axis=0)


def _interval(values: np.ndarray) -> list[float]:
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return [float(values[0]), float(low), float(high)]


def write(table: pd.DataFrame, folder: Path, facts: dict) -> Path:
    """Write a summary as <study>.csv, with what it was made of beside it; returns its path."""
    path = folder / f"{table['study'].iloc[0]}.csv"
    with artefacts.atomic(path) as fresh:
        table.round(4).to_csv(fresh, index=False)
    artefacts.write_json(path.with_suffix(".json"), facts)
    return path


def read(folder: Path) -> pd.DataFrame:
    """Read the summaries of all studies.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    found = sorted(folder.glob("*.csv"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no comparison: run `mpm compare STUDY`")
    table = pd.concat([pd.read_csv(path) for path in found], ignore_index=True)
    # what was asked most comes first, and gives variants their order
    rows = table.groupby(["study", "target", "split"])["value"].transform("size")
    return table.loc[rows.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def facts(folder: Path) -> dict[str, dict]:
    """Return what each study's summary was made with, as `write` kept it, by study."""
    return {path.stem: artefacts.read_facts(path) for path in sorted(folder.glob("*.json"))}


def layout(table: pd.DataFrame, metric: str = "average_precision") -> pd.DataFrame:
    """Lay out a summary for reading: variants and heads down; studies, targets, splits across.

    Returns
    -------
    DataFrame of str
        "value (difference to the control, low to high)"; behind it a `*` where the row rests on
        other folds or seeds than the control of its column and head: then values are not to be
        compared, differences are.
    """
    rows = table[table["metric"] == metric]
    keys = ["study", "target", "split", "head"]
    # the control differs from itself by nothing
    control = rows[(rows["difference_low"] == 0) & (rows["difference_high"] == 0)]
    basis = control.drop_duplicates(keys).set_index(keys)[["folds", "seeds"]]
    held = basis.reindex(pd.MultiIndex.from_frame(rows[keys]))
    same = (held.to_numpy() == rows[["folds", "seeds"]].to_numpy()).all(axis=1)
    alike = same | held.isna().all(axis=1).to_numpy()
    text = [
        f"{value:.3f}" if np.isnan(low) or (low == high == 0)
        else f"{value:.3f} ({gap:+.3f}, {low:+.3f} to {high:+.3f}){'' if fair else ' *'}"
        for (value, gap, low, high), fair in zip(
            rows[["value", "difference", "difference_low", "difference_high"]].itertuples(
                index=False
            ),
            alike,
            strict=True,
        )
    ]  # fmt: skip
    rows = rows.assign(text=text)
    keys = ["variant", "head"]
    if table["choice"].nunique() > 1:
        keys.append("choice")
    order = rows.drop_duplicates(keys)[keys]
    wide = rows.pivot(index=keys, columns=["study", "target", "split"], values="text")
    return wide.loc[pd.MultiIndex.from_frame(order)].fillna("")
