"""Figures of scores: dots with intervals, curves, prediction-area, reliability, gaps of splits."""

import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mpm.evaluation import SPLITS, in_order, is_control
from mpm.plots import METHODS, grid, readable

OTHER = "0.72"  # methods that are not picked out
NULL = "0.90"  # what labels shifted around the map score
BAND, SHIFTED = "0.85", "95 % of shifts of the labels"
CONTROL_LINES = {"oracle": "--", "distance_to_deposit": "-.", "shuffled_labels": ":"}
SPLIT_MARKERS = dict(zip(SPLITS, "oDvPs", strict=True))
Curves = Mapping[str, Mapping[str, np.ndarray]]


def named(method: str) -> str:
    """Return a method's name as a reader would write it."""
    return METHODS.get(method, readable(method))


def score_dots(
    scores: pd.DataFrame,
    metrics: Mapping[str, str],
    *,
    chance: Mapping[str, float],
    nulls: pd.DataFrame | None = None,
    own_axis: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Figure:
    """Draw scores averaged over folds with 95 % intervals: a column a split, a row a method.

    Controls are hollow, the best method of a panel bears a star.

    Parameters
    ----------
    scores : DataFrame
        Rows of the score table with fold "mean".
    metrics : mapping
        Metric to axis title; a row of panels each.
    chance : mapping
        Metric to the value of a random ranking, dotted.
    nulls : DataFrame, optional
        Columns split, metric, low, high: bands of shifted labels, in grey.
    own_axis : mapping, optional
        Metric to the splits whose scores are so far from the others' that they have an axis of
        their own; not the first split.
    """
    scores = scores[scores["metric"].isin(list(metrics))]
    splits = in_order(scores["split"], SPLITS)
    order = in_order(scores["method"], list(METHODS))[::-1]
    size = (2.4, 0.2 * len(order) + 0.75)
    fig, axes = grid(len(metrics), len(splits), size, beside=2, sharey=True)
    for row, (metric, title) in zip(axes, metrics.items(), strict=True):
        for ax, split in zip(row, splits, strict=True):
            apart = split in own_axis.get(metric, ())
            if not apart:
                ax.sharex(row[0])
            own = scores[(scores["metric"] == metric) & (scores["split"] == split)]
            _dots(ax, own.set_index("method").reindex(order))
            if metric in chance:
                ax.axvline(chance[metric], color="0.6", linewidth=0.8, linestyle=":")
            for low, high in _bands(nulls, split, metric):
                ax.axvspan(low, high, color=NULL, linewidth=0, zorder=0)
            ax.set(xlabel=f"{title}, own axis" if apart else title)
    for ax, split in zip(axes[0], splits, strict=True):
        ax.set_title(f"{readable(split)} split")
    note = "star: best method; blue: the pretrained network, fine-tuned; hollow: controls"
    note += "; dotted: a random ranking" if chance else ""
    note += f"; grey: {SHIFTED}" if nulls is not None else ""
    fig.supxlabel(textwrap.fill(note, int(13 * fig.get_figwidth())), fontsize=8)
    sns.despine(fig)
    return fig


def _dots(ax: Axes, rows: pd.DataFrame) -> None:
    """One panel: a row a method, in the order of the index."""
    height = np.arange(len(rows))
    control = np.array([is_control(name) for name in rows.index])
    best = rows["value"].where(~control).idxmax() if rows["value"][~control].notna().any() else ""
    colors = [
        "0.4" if is_control(name) else "C0" if name == "mae" else "0.55" for name in rows.index
    ]
    ax.hlines(height, rows["low"], rows["high"], color=colors, linewidth=1.3)
    fills = ["white" if hollow else color for hollow, color in zip(control, colors, strict=True)]
    ax.scatter(rows["value"], height, c=fills, edgecolors=colors, s=22, zorder=3)
    if best:
        ax.plot(
            rows.loc[best, "value"], list(rows.index).index(best), "*", color="C1", markersize=9
        )
    ax.set_yticks(height, [named(name) for name in rows.index], fontsize=8)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(axis="y", color="0.93")
    ax.set_axisbelow(True)


def _bands(nulls: pd.DataFrame | None, split: str, metric: str) -> list[tuple[float, float]]:
    if nulls is None:
        return []
    own = nulls[(nulls["split"] == split) & (nulls["metric"] == metric)]
    return [(own["low"].min(), own["high"].max())] if len(own) else []


def fold_curves(
    curves: Mapping[str, Curves],
    grid: np.ndarray,
    *,
    splits: Sequence[str] = (),
    nulls: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Figure:
    """Draw ROC, precision-recall and capture-efficiency curves, a row a split.

    The pretrained network, the best other method (the largest area below the mean ROC curve of the
    first split, the same in all panels) and the controls are picked out; all other methods are grey
    and named below.

    Parameters
    ----------
    curves : mapping
        Of `evaluation.curves_by_split`.
    grid : array (points,)
        Common x values, 0 to 1.
    splits : sequence of str
        Which to draw; by default all.
    nulls : mapping, optional
        Split to kind to band (2, points), of `nulls.band`.
    """
    labels = {
        "roc": ("false positive rate", "true positive rate", "ROC"),
        "precision_recall": ("recall", "precision", "precision-recall"),
        "capture": (
            "share of area, most likely first",
            "share of deposits captured",
            "capture-efficiency",
        ),
    }
    splits = list(splits or curves)
    best = _best(curves[splits[0]]["roc"])
    size = (12, 3.4 * len(splits) + 1.2)
    fig, axes = plt.subplots(len(splits), 3, figsize=size, layout="constrained", squeeze=False)
    for row, split in zip(axes, splits, strict=True):
        for ax, (kind, (x, y, title)) in zip(row, labels.items(), strict=True):
            if nulls and kind in nulls.get(split, {}):
                ends = nulls[split][kind]
                ax.fill_between(grid, *ends, color=BAND, linewidth=0, label=SHIFTED)
            _mean_curves(ax, curves[split][kind], grid, best)
            if kind != "precision_recall":
                ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
            ax.set(xlabel=x, ylabel=y, title=f"{readable(split)}: {title}", xlim=(0, 1))
            ax.set_ylim(0, 1.02)
    _name_curves(fig, axes, splits, curves, best)
    sns.despine(fig)
    return fig


def _best(methods: Mapping[str, np.ndarray]) -> str:
    """Return the method, no control and not the network, whose ROC curves hold the largest area."""
    scored = [name for name, values in methods.items() if not np.isnan(values).all()]
    others = [name for name in scored if name != "mae" and not is_control(name)]
    return max(others, key=lambda name: np.nanmean(methods[name]), default="")


def _name_curves(
    fig: Figure,
    axes: np.ndarray,
    splits: Sequence[str],
    curves: Mapping[str, Curves],
    best: str,
) -> None:
    """Write one legend for all panels above them, and below them which methods are grey."""
    looks: dict[str, Any] = {}
    for ax in axes.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            looks.setdefault(label, handle)
    order = [named(best), *(label for label in looks if label != named(best))]
    order = [label for label in order if label in looks]
    fig.legend(
        [looks[label] for label in order], order, loc="outside upper center", ncols=3, fontsize=8
    )
    grey = in_order((m for split in splits for m in curves[split]["roc"]), list(METHODS))
    grey = [named(name) for name in grey if name not in ("mae", best) and not is_control(name)]
    note = textwrap.fill(f"grey: {'; '.join(grey)}", 150)
    fig.supxlabel(note if grey else "", fontsize=8)


def _mean_curves(ax: Axes, methods: Mapping[str, np.ndarray], grid: np.ndarray, best: str) -> None:
    """Draw means over folds (folds, points), and the range over folds of the network."""
    # a fold without deposits has no curve
    held = {name: values[~np.isnan(values).any(axis=1)] for name, values in methods.items()}
    mean = {name: values.mean(axis=0) for name, values in held.items() if len(values)}
    others = [name for name in mean if name != "mae" and not is_control(name)]
    for name in in_order(mean, [name for name in others if name != best]):
        if name == "mae":
            look: dict[str, Any] = {"color": "C0", "label": named(name)}
            ax.fill_between(
                grid,
                held[name].min(axis=0),
                held[name].max(axis=0),
                color="C0",
                alpha=0.15,
                linewidth=0,
                label=f"{named(name)}: range over folds",
            )
        elif name == best:
            look = {"color": "C1", "label": named(name)}
        elif is_control(name):
            style = CONTROL_LINES.get(name, (0, (1, 1)))
            look = {"color": "0.2", "label": named(name), "linestyle": style}
        else:
            look = {"color": OTHER, "linewidth": 0.9}
        ax.plot(grid, mean[name], **look)


def prediction_area(methods: Mapping[str, np.ndarray], quantiles: np.ndarray) -> Figure:
    """Draw prediction-area plots of one split, a panel a method.

    Parameters
    ----------
    methods : mapping
        Method to (folds, 2, points), of `curves.prediction_area`.
    quantiles : array (points,)
        Of the likelihood, 0 to 1.

    Source: Yousefi and Carranza 2015, doi:10.1016/j.cageo.2015.03.007, figure 4.
    """
    order = in_order(methods, list(METHODS))
    columns = min(5, len(order))
    fig, axes = grid(-(-len(order) // columns), columns, (2.3, 2.45), sharey=True)
    for ax, name in zip(axes.flat, order, strict=False):
        values = methods[name]
        captured, outside = values[~np.isnan(values).any(axis=(1, 2))].mean(axis=0)
        ax.plot(quantiles, captured, color="C0", label="deposits captured")
        ax.plot(quantiles, outside, color="C1", linestyle="--", label="area left out")
        at, share = crossing(quantiles, captured, outside)
        ax.plot(at, share, "o", color="black", markersize=4)
        whole = round(100 * share)
        found = f"{whole} % of deposits in {100 - whole} % of area"
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1])
        ax.set_title(f"{named(name)}\n{found}", fontsize=8)
    for ax in axes.flat[len(order) :]:
        ax.axis("off")
    fig.supxlabel("threshold (quantile of the likelihood)", fontsize=9)
    fig.supylabel("share at or above it; of area, below it", fontsize=9)
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    sns.despine(fig)
    return fig


def crossing(
    quantiles: np.ndarray, captured: np.ndarray, outside: np.ndarray
) -> tuple[float, float]:
    """Return where the two lines of a prediction-area plot cross: quantile and height.

    Parameters
    ----------
    quantiles, captured, outside : array (points,)
        The first falls where the second rises; between points both run straight.
    """
    gap = captured - outside
    after = int(np.argmax(gap <= 0)) if (gap <= 0).any() else len(gap) - 1
    before = max(after - 1, 0)
    step = gap[before] - gap[after]
    share = gap[before] / step if step > 0 else 0.0
    at = quantiles[before] + share * (quantiles[after] - quantiles[before])
    height = captured[before] + share * (captured[after] - captured[before])
    return float(at), float(height)


def reliability(tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Draw observed against predicted rates, a panel a method, on logarithmic axes.

    Parameters
    ----------
    tables : mapping
        Kind of likelihood, such as "raw" and "corrected", to method to the table of
        `curves.reliability`. A bin without positives has no place on these axes: its interval is
        drawn from the lower edge, without a dot. Less than 1e-5 is drawn at that edge.
    """
    order = in_order((method for own in tables.values() for method in own), list(METHODS))
    every = pd.concat([table for own in tables.values() for table in own.values()])
    rates = every[["predicted", "observed"]].to_numpy()
    low = max(1e-5, 10 ** np.floor(np.log10(rates[rates > 0].min(initial=1e-1))))
    columns = min(5, len(order))
    fig, axes = grid(-(-len(order) // columns), columns, (2.3, 2.4), sharey=True)
    for ax, method in zip(axes.flat, order, strict=False):
        ax.plot([low, 1], [low, 1], color="0.6", linewidth=0.8, linestyle=":")
        for k, (kind, own) in enumerate(tables.items()):
            if method not in own:
                continue
            rows = own[method]
            x, ends = rows["predicted"].clip(low), rows[["low", "high"]].clip(low)
            ax.vlines(x, ends["low"], ends["high"], color=f"C{k}", linewidth=1)
            seen = rows["observed"].where(rows["observed"] > 0)
            mark = {"marker": "os"[k % 2], "color": f"C{k}", "markersize": 4, "clip_on": False}
            ax.plot(x, seen, linestyle="", label=kind, zorder=3, **mark)  # whole at the edges
        ax.set(xscale="log", yscale="log", xlim=(low, 1.3), ylim=(low, 1.3))
        ax.set_title(named(method), fontsize=8)
    for ax in axes.flat[len(order) :]:
        ax.axis("off")
    fig.supxlabel("mean predicted likelihood in the bin (1)", fontsize=9)
    fig.supylabel("share of positive cells (1)", fontsize=9)
    if len(tables) > 1:  # a single kind needs no name
        fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    sns.despine(fig)
    return fig


def split_gap(scores: pd.DataFrame, metric: str, title: str) -> Figure:
    """Draw each method's score under all splits, joined by a line: what the split alone gives.

    Parameters
    ----------
    scores : DataFrame
        Rows of the score table with fold "mean"; a panel for each study and target.
    metric : str
    title : str
        Of the axis.
    """
    scores = scores[scores["metric"] == metric]
    splits = in_order(scores["split"], SPLITS)
    order = in_order(scores["method"], list(METHODS))[::-1]
    panels = list(scores.groupby(["study", "target"], sort=False))
    size = (max(6.5, 2.2 + 2.7 * len(panels)), 0.24 * len(order) + 1.2)
    fig, axes = plt.subplots(
        1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (names, own) in zip(axes[0], panels, strict=True):
        _gaps(ax, own.pivot(index="method", columns="split", values="value").reindex(order), splits)
        ax.set(xlabel=title, title=", ".join(names) if len(panels) > 1 else "")
    handles = [Line2D([], [], linestyle="", label=split, **_look(split)) for split in splits]
    fig.legend(handles=handles, loc="outside upper right", ncols=len(splits), title="split")
    sns.despine(fig)
    return fig


def _gaps(ax: Axes, rows: pd.DataFrame, splits: Sequence[str]) -> None:
    """Draw scores (methods down, splits across) from the lowest row up."""
    height = np.arange(len(rows))
    ax.hlines(height, rows.min(axis=1), rows.max(axis=1), color="0.75", linewidth=1.5)
    for split in in_order(rows.columns, splits):
        ax.plot(rows[split], height, linestyle="", label=split, **_look(split))
    ax.set_yticks(height, [named(name) for name in rows.index], fontsize=8)
    ax.grid(axis="y", color="0.93")


def _look(split: str) -> dict[str, Any]:
    """Marker of a split, the same in all panels."""
    number = list(SPLIT_MARKERS).index(split) if split in SPLIT_MARKERS else len(SPLIT_MARKERS)
    color = "black" if split == "random" else f"C{number}"
    return {"marker": SPLIT_MARKERS.get(split, "X"), "color": color, "markersize": 6}
