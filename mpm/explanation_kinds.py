"""Kinds of explanations: which sorts of promising ground a model sees, and by what evidence."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from mpm.layers import SYSTEM

UNASSIGNED = "unassigned"
NEEDED = ("source", "pathway", "trap")  # without which there is no ore
SILENT, ALONE = 0.05, 0.75  # shares of what speaks for a kind


def kinds(values: pd.DataFrame, count: int, *, seed: int) -> np.ndarray:
    """Sort cells into kinds by what speaks for and against them, by k-means.

    Parameters
    ----------
    values : DataFrame (n, layers)
        Signed contributions; taken as shares of a cell's contributions, so that the kind does not
        depend on how high the cell scores.
    count : int
        Kinds, at most as many as there are different cells.
    seed : int

    Returns
    -------
    array (n,) of int
        From 0, the most common first.
    """
    size = values.abs().sum(axis=1).clip(lower=1e-12)
    shares = values.div(size, axis=0).to_numpy("float64")
    count = min(count, len(np.unique(shares, axis=0)))
    found = KMeans(count, n_init=10, random_state=seed).fit_predict(shares)
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    return np.argsort(order)[found]


def kinds_table(
    values: pd.DataFrame,
    found: np.ndarray,
    region: Sequence[str],
    positive: np.ndarray,
    *,
    leading: int = 3,
) -> pd.DataFrame:
    """Tabulate kinds: how many cells, where, and which layers lead.

    Parameters
    ----------
    values : DataFrame (n, layers)
    found : array (n,) of int
        Of `kinds`.
    region : sequence of str, (n,)
    positive : array (n,) of bool
        Cells of known deposits.
    leading : int
        Layers named, those of the largest mean contribution whatever its sign.

    Returns
    -------
    DataFrame
        Index kind, from 1: cells, known (cells of known deposits), one column a region (% of the
        kind's cells), leading layers with their mean contribution to the logit.
    """
    rows = {}
    regions = list(dict.fromkeys(region))
    for kind in np.unique(found):
        own = found == kind
        mean = values[own].mean()
        first = mean.reindex(mean.abs().sort_values(ascending=False, kind="stable").index)[:leading]
        row = {"cells": int(own.sum()), "known": int(positive[own].sum())}
        row |= {f"{name} (%)": round(100 * (np.asarray(region)[own] == name).mean())
                for name in regions}  # fmt: skip
        named = (f"{name.replace('_', ' ')} {part:+.2f}" for name, part in first.items())
        rows[kind + 1] = row | {"leading layers": ", ".join(named)}
    return pd.DataFrame(rows).T.rename_axis("kind")


def by_system(values: pd.DataFrame, part_of: Mapping[str, str | None]) -> pd.DataFrame:
    """Sum contributions over the parts of the mineral system that a study assigns to layers.

    Parameters
    ----------
    values : DataFrame (n, layers)
    part_of : mapping
        Layer to "source", "pathway", "trap", "preservation", or None.

    Returns
    -------
    DataFrame (n, parts)
        Those that occur, in that order, then "unassigned".
    """
    parts = [part_of.get(name) or UNASSIGNED for name in values.columns]
    summed = values.T.groupby(np.array(parts), sort=False).sum().T
    return summed[[name for name in (*SYSTEM, UNASSIGNED) if name in summed]]


def reading(parts: pd.DataFrame) -> list[str]:
    """Say which parts of the mineral system speak for each kind of ground, and which do not.

    Parameters
    ----------
    parts : DataFrame (kinds, parts)
        Mean contributions, of `by_system`; index kind.

    Returns
    -------
    list of str
        A sentence a kind. Shares are of what speaks for it; a part below 5 % of that is silent, and
        a kind of which one part holds three quarters rests on that part alone.
    """
    return [f"kind {kind}: {_read(row)}" for kind, row in parts.iterrows()]


def _read(row: pd.Series) -> str:
    speaks = row.clip(lower=0)
    if not speaks.sum() > 0:
        return "nothing speaks for it"
    share = (speaks / speaks.sum()).sort_values(ascending=False, kind="stable")
    told = ", ".join(f"{name} {part:.0%}" for name, part in share.items() if part >= SILENT)
    lacking = [name for name in NEEDED if share.get(name, 0) < SILENT]
    if share.iloc[0] >= ALONE:
        sense = f"it rests on {share.index[0]} alone"
    elif lacking:
        sense = f"no {' and no '.join(lacking)} speaks for it"
    else:
        sense = "source, pathway and trap all speak for it, as ore needs"
    against = [name for name in row.index if row[name] < 0]
    return f"{told} of what speaks for it; {sense}" + f"; {' and '.join(against)} against" * bool(
        against
    )
