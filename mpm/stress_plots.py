"""Figures of how scores hold up, and of what the published protocol adds to them."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpm.as_released import RULE, STEPS
from mpm.method_names import CONTROLS, NAMES
from mpm.plots import METHODS, readable

SCORES = {"auc": "AUC", "average_precision": "average precision", "capture_05": "capture at 5 %"}
SCORES |= {"mcc": "MCC", "f1": "F1"}
CHANCE = {"auc": 0.5}
KINDS = {"layer": "lost: ", "group": "lost group: ", "shift": "moved a cell "}
MARKERS = "osD^vP*X<>"


def scarcity_curves(table: pd.DataFrame, *, metric: str) -> Figure:
    """Draw scores against the share of training deposits that are known, a panel a method.

    Parameters
    ----------
    table : DataFrame
        `stress.COLUMNS` of one target, split and seed.
    metric : str
    """
    rows = _means(table, "scarcity", metric)
    fig, axes = _panels(rows)
    for ax in axes:
        ax.set_xscale("log")
        shares = sorted(rows["level"].unique())
        ax.set_xticks(shares, [f"{100 * share:g}" for share in shares])
        ax.xaxis.set_minor_locator(plt.NullLocator())
    fig.supxlabel("training deposits known (%); band: 95 % interval of a single draw", fontsize=9)
    return _finished(fig, axes, metric)


def block_side_curves(table: pd.DataFrame, *, metric: str, chosen_km: float) -> Figure:
    """Draw scores against the side of blocks, single cells at 0, a panel a method.

    Parameters
    ----------
    table : DataFrame
        `stress.COLUMNS` of one target and seed.
    metric : str
    chosen_km : float
        Side of the blocks of the other notebooks; their score, with the dead zone, is a diamond.
    """
    rows = _means(table, "block_side", metric)
    behind = rows["name"] == "dead zone"
    fig, axes = _panels(rows[~behind])
    sides = sorted(rows.loc[~behind, "level"].unique())
    # a small region may hold the blocks of no side at all
    least = min((side for side in sides if side > 0), default=chosen_km)
    for ax, (_, own) in zip(axes, _by_method(rows[behind], rows), strict=True):
        ax.axvline(chosen_km, color="0.6", linewidth=0.8, linestyle=":")
        ax.vlines(own["level"], own["low"], own["high"], color="C1", linewidth=1.2)
        ax.plot(own["level"], own["value"], "D", color="C1", markersize=4)
        # 0 has its place as far left of the smallest block as its half
        ax.set_xscale("symlog", linthresh=least, linscale=0.4)
        ax.set_xticks(sides, [f"{side:g}" for side in sides], rotation=60)
        ax.xaxis.set_minor_locator(plt.NullLocator())
        ax.set_xlim(left=-0.1 * least)
    fig.supxlabel(
        "side of blocks (km; 0: single cells at random), no dead zone; "
        f"diamond: blocks of {chosen_km:g} km behind a dead zone\n"
        "band and bar: 95 % interval over deposits",
        fontsize=9,
    )
    return _finished(fig, axes, metric)


def lost_evidence(table: pd.DataFrame, *, metric: str) -> Figure:
    """Draw what lost, noisy and shifted evidence costs each method.

    Bold where the interval of a change leaves zero out and the change does not round to zero.

    Parameters
    ----------
    table : DataFrame
        `stress.COLUMNS` of one target, split and seed.
    metric : str
        Without "_change".
    """
    rows = table[(table["fold"] == "mean") & (table["metric"] == f"{metric}_change")]
    rows = rows.assign(what=[_what(row) for row in rows.itertuples()])
    whats, methods = rows["what"].drop_duplicates().tolist(), _ordered(rows)
    value, low, high = (
        rows.pivot(index="what", columns="method", values=name).loc[whats, methods]
        for name in ("value", "low", "high")
    )
    top = max(0.02, float(np.nanpercentile(value.abs(), 98)))
    size = (3.2 + 0.62 * len(methods), 0.21 * len(whats) + 2.2)
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    image = ax.imshow(value, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
    for (row, column), change in np.ndenumerate(value.to_numpy()):
        if np.isnan(change):
            continue
        sure = low.iloc[row, column] > 0 or high.iloc[row, column] < 0
        sure &= abs(round(change, 2)) > 0  # what is written as no change is none worth a mark
        ink = "white" if abs(change) > 0.75 * top else "black"
        weight = "bold" if sure else "normal"
        text = f"{change:+.2f}".replace("-", "−")
        ax.text(column, row, text, ha="center", va="center", size=6.5, color=ink, weight=weight)
    ax.set_yticks(range(len(whats)), whats, fontsize=7)
    labels = [_label(name) for name in methods]
    ax.set_xticks(range(len(methods)), labels, rotation=40, ha="right", fontsize=7)
    first = rows.drop_duplicates("what")["stress"].to_numpy()
    for row in np.flatnonzero(first[1:] != first[:-1]):
        ax.axhline(row + 0.5, color="0.2", linewidth=0.8)
    ax.tick_params(length=0)
    fig.colorbar(image, ax=ax, label=f"change of {SCORES.get(metric, metric)}", extend="both")
    return fig


def protocol_ladder(
    scores: pd.DataFrame, *, metrics: Sequence[str] = ("auc", "average_precision", "mcc")
) -> Figure:
    """Draw scores as the faults of the published protocol are repaired one by one.

    Methods of a step stand below each other, with their 95 % intervals.

    Parameters
    ----------
    scores : DataFrame
        Of `as_released.score`. What learns nothing from evidence is drawn in grey and black.
    metrics : sequence of str
    """
    mean = scores[scores["fold"] == "mean"]
    steps = [step for step in STEPS if step in set(mean["split"])]
    counts = mean.pivot_table(index="split", columns="metric", values="value", aggfunc="first")
    height = np.arange(len(steps))[::-1]
    size = (2.4 + 2.6 * len(metrics), 0.85 * len(steps) + 1.6)
    fig, axes = plt.subplots(1, len(metrics), figsize=size, sharey=True, layout="constrained")
    for ax, metric in zip(np.atleast_1d(axes), metrics, strict=True):
        styled = _styled(mean[mean["metric"] == metric])
        apart = np.linspace(0.24, -0.24, len(styled)) if len(styled) > 1 else [0.0]
        for down, (style, (method, own)) in zip(apart, styled, strict=True):
            own, at = own.set_index("split").reindex(steps), height + down
            ax.hlines(at, own["low"], own["high"], color=style["color"], linewidth=1)
            ax.plot(own["value"], at, label=_label(method), markersize=4.5, linewidth=0.6, **style)
        if metric in CHANCE:
            ax.axvline(CHANCE[metric], color="0.6", linewidth=0.8, linestyle=":")
        ax.set(xlabel=SCORES.get(metric, metric), xlim=(min(0, ax.get_xlim()[0]), 1.03))
        if metric == "auc":
            least = mean.loc[mean["metric"] == "auc", ["value", "low"]].min().min()
            ax.set_xlim(left=min(0.45, least - 0.02))
        for edge in height[:-1] - 0.5:
            ax.axhline(edge, color="0.9", linewidth=0.8, zorder=0)
    names = [
        f"{STEPS[step].title}\n{counts.loc[step, 'positives']:.0f} positive,"
        f" {counts.loc[step, 'negatives']:,.0f} other cells tested"
        for step in steps
    ]
    np.atleast_1d(axes)[0].set_yticks(height, names, fontsize=8)
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
    sns.despine(fig)
    return fig


def _means(table: pd.DataFrame, stress: str, metric: str) -> pd.DataFrame:
    here = (table["fold"] == "mean") & (table["stress"] == stress) & (table["metric"] == metric)
    return table[here].sort_values("level")


def _panels(rows: pd.DataFrame) -> tuple[Figure, list[Axes]]:
    """Draw each method's value and interval against the level, the others behind it in grey."""
    methods = _ordered(rows)
    across = min(4, len(methods))
    down = -(-len(methods) // across)
    fig, axes = plt.subplots(
        down,
        across,
        figsize=(2.5 * across + 0.6, 2.1 * down + 0.7),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, (method, own) in zip(axes.flat, _by_method(rows, rows), strict=False):
        for _, other in _by_method(rows, rows):
            ax.plot(other["level"], other["value"], color="0.85", linewidth=0.8)
        ax.fill_between(own["level"], own["low"], own["high"], color="C0", alpha=0.2, linewidth=0)
        ax.plot(own["level"], own["value"], "o-", color="C0", markersize=3.5)
        ax.set_title(_label(method), fontsize=8)
        ax.tick_params(labelsize=7)
    for ax in axes.flat[len(methods) :]:
        ax.set_visible(False)
    for ax in axes.flat[max(0, len(methods) - across) : len(methods)]:  # the lowest of a column
        ax.tick_params(labelbottom=True)
    return fig, list(axes.flat[: len(methods)])


def _finished(fig: Figure, axes: list[Axes], metric: str) -> Figure:
    for ax in axes:
        if metric in CHANCE:
            ax.axhline(CHANCE[metric], color="0.6", linewidth=0.8, linestyle=":")
    fig.supylabel(SCORES.get(metric, metric), fontsize=9)
    sns.despine(fig)
    return fig


def _by_method(rows: pd.DataFrame, all_rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(method, rows[rows["method"] == method]) for method in _ordered(all_rows)]


def _ordered(rows: pd.DataFrame) -> list[str]:
    """Methods in the order of `methods.NAMES`, others after them."""
    there = rows["method"].unique().tolist()
    return [name for name in NAMES if name in there] + [n for n in there if n not in NAMES]


def _label(method: str) -> str:
    if method == RULE:
        return "rule that picks negatives (no learning)"
    return METHODS.get(method) or NAMES.get(method) or readable(method)


def _styled(rows: pd.DataFrame) -> list[tuple[dict, tuple[str, pd.DataFrame]]]:
    """Line styles: black and grey for what learns nothing from evidence, colours for the others."""
    plain = [name for name in (RULE, *CONTROLS) if name in set(rows["method"])]
    learnt = [name for name in _ordered(rows) if name not in plain]
    styles = {
        name: {"color": ("black", "0.55", "0.75")[k], "linestyle": "--", "marker": "x+1"[k]}
        for k, name in enumerate(plain)
    }
    styles |= {
        name: {"color": f"C{k}", "linestyle": "-", "marker": MARKERS[k % len(MARKERS)]}
        for k, name in enumerate(learnt)
    }
    return [(styles[name], (name, rows[rows["method"] == name])) for name in plain + learnt]


def _what(row: Any) -> str:
    """Name what was done to the evidence."""
    if row.stress == "half":
        return "lost: a random half of the layers"
    if row.stress == "noise":
        return f"noise of {row.level:g} standard deviations"
    return KINDS[row.stress] + readable(row.name)
