"""Figures of what a backbone learned: components, clusters, and what they say about layers."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from mpm import plots


def component_maps(
    maps: Mapping[str, xr.Dataset], shares: Sequence[float], meanings: pd.DataFrame
) -> Figure:
    """Draw principal components of the backbone's features, regions down.

    Parameters
    ----------
    maps : mapping
        Region to a dataset with `pc1`, `pc2` ... (y, x).
    shares : sequence of float
        Share of the variance of each component that is drawn.
    meanings : DataFrame
        Index layer, columns 1, 2 ...: correlations, the two largest of which are written down.
    """
    fig, axes = plots.grid(len(maps), len(shares), (3.5, 3.3), beside=0.6)
    for k, (column, share) in enumerate(zip(axes.T, shares, strict=True), start=1):
        values = np.concatenate([made[f"pc{k}"].values.ravel() for made in maps.values()])
        top = float(np.nanpercentile(np.abs(values), 98))
        closest = meanings[k].dropna().sort_values(key=abs, ascending=False)[:2]
        told = "\n".join(f"{plots.readable(name)} {r:+.2f}" for name, r in closest.items())
        for ax, (region, made) in zip(column, maps.items(), strict=True):
            look: dict[str, Any] = {"cmap": "RdBu_r", "bar": False, "axes": False}
            plots.show_map(made[f"pc{k}"], ax, label="", limits=(-top, top), **look)
            ax.set_ylabel(plots.readable(region) if k == 1 else "")
        column[0].set_title(f"component {k} ({share:.0%} of the variance)\n{told}", fontsize=9)
        bar = fig.colorbar(column[-1].images[0], ax=list(column), location="bottom", shrink=0.8)
        bar.set_label("score (no units)", fontsize=8)
    plots.scale_bar(axes[0, 0], next(iter(maps.values())))
    return fig


def cluster_maps(
    maps: Mapping[str, xr.Dataset], classes: tuple[str, Sequence[str]] | None
) -> Figure:
    """Draw clusters of the backbone's features, and the classes of a layer below.

    Parameters
    ----------
    maps : mapping
        Region to a dataset with `cluster` (y, x), from 1, and `code` (y, x), from 0, if there are
        classes.
    classes : (str, sequence of str), optional
        A layer of classes and their names.
    """
    count = int(max(made["cluster"].max() for made in maps.values()))
    rows: dict[str, tuple[Sequence, int, Any]] = {}
    rows["cluster"] = (range(1, count + 1), 1, sns.color_palette("colorblind", count))
    layer = ""
    if classes is not None:
        layer = plots.readable(classes[0])
        colors = sns.husl_palette(len(classes[1]), l=0.75, s=0.7)
        rows["code"] = (classes[1], 0, colors)
    fig, axes = plots.grid(len(rows), len(maps), (4, 3.6), beside=1)
    for row, (name, (ticks, first, colors)) in zip(axes, rows.items(), strict=True):
        edges = np.arange(len(ticks) + 1) + first - 0.5
        scale, norm = ListedColormap(colors), BoundaryNorm(edges, len(ticks))
        for ax, (region, made) in zip(row, maps.items(), strict=True):
            image = ax.imshow(made[name], extent=plots.extent_km(made), cmap=scale, norm=norm)
            what = "clusters" if name == "cluster" else layer
            ax.set(title=f"{plots.readable(region)}: {what}", xticks=[], yticks=[], aspect="equal")
            ax.set_facecolor(plots.NODATA)
        bar = fig.colorbar(image, ax=list(row), ticks=np.arange(len(ticks)) + first, shrink=0.8)
        bar.ax.set_yticklabels(map(str, ticks), fontsize=8)
    plots.scale_bar(axes[0, 0], next(iter(maps.values())))
    return fig


def class_table(counts: pd.DataFrame, *, layer: str) -> Figure:
    """Draw the share of each cluster's cells that each class has.

    Parameters
    ----------
    counts : DataFrame
        Cells, clusters down and classes across.
    layer : str
        Whose classes they are.
    """
    shares = counts.div(counts.sum(axis=1), axis=0)
    shares.index = [f"{k} ({n} cells)" for k, n in counts.sum(axis=1).items()]
    size = (0.75 * shares.shape[1] + 2.2, 0.35 * len(shares) + 1.6)
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    sns.heatmap(
        100 * shares,
        annot=True,
        fmt=".0f",
        cmap="Blues",
        vmin=0,
        vmax=100,
        ax=ax,
        cbar_kws={"label": "share of the cluster (%)"},
        annot_kws={"size": 8},
    )
    ax.set(xlabel=plots.readable(layer), ylabel="cluster")
    ax.tick_params(axis="y", rotation=0)
    texts = [text.get_text() for text in ax.get_xticklabels()]
    ax.set_xticks(ax.get_xticks(), texts, rotation=30, ha="right")
    return fig


def layers_explained(shares: pd.DataFrame) -> Figure:
    """Draw how much of each layer features explain, a marker a network.

    Parameters
    ----------
    shares : DataFrame
        Index layer; columns "pretrained" and "random": R² on held-out cells.
    """
    shares = shares.dropna()
    gain = shares["pretrained"] - shares["random"]
    ordered, gain = shares.loc[gain.sort_values().index], gain.sort_values()
    height = np.arange(len(ordered))
    fig, ax = plt.subplots(figsize=(7, 0.24 * len(ordered) + 1.4), layout="constrained")
    colors = np.where(gain > 0, "C0", "C3")
    ax.hlines(height, ordered["random"], ordered["pretrained"], color=colors)
    ax.plot(ordered["random"], height, "|", color="0.3", markersize=8, label="random network")
    for better, color, label in [(True, "C0", "more"), (False, "C3", "less")]:
        rows = (gain > 0).to_numpy() == better
        name = f"pretrained, {label}"
        ax.plot(ordered["pretrained"][rows], height[rows], "o", color=color, label=name)
    ax.axvline(0, color="0.6", linewidth=0.8, linestyle=":")
    ax.set_yticks(height, [plots.readable(name) for name in ordered.index], fontsize=8)
    ax.set(xlabel="share of the variance explained on held-out cells (R², 1)")
    ax.set_xlim(max(-0.5, float(ordered.min().min()) - 0.05), 1)
    ax.set_ylim(-0.5, len(ordered) - 0.5)
    ax.grid(axis="y", color="0.92")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)
    sns.despine(fig)
    return fig


def differences(table: pd.DataFrame, *, control: str) -> Figure:
    """Draw how far each way of making features is ahead of a control, with its interval.

    Parameters
    ----------
    table : DataFrame
        Rows of one metric of `comparison_table.summary`; each variant and head gets a line, each
        study, target and split a panel, all on one scale. Lines of a head stand together, below its
        control if the table holds that. Hollow: one seed only, whose interval knows nothing of the
        luck of training.
    control : str
        What the control is called on the axis.
    """
    panels = list(table.groupby(["study", "target", "split"], sort=False))
    ways = list(dict.fromkeys(zip(table["variant"], table["head"], strict=True)))
    heads = list(dict.fromkeys(table["head"]))
    ways.sort(key=lambda way: heads.index(way[1]))
    names = [f"{variant}, {head}" if len(heads) > 1 else variant for variant, head in ways]
    across = min(5, len(panels))
    down = -(-len(panels) // across)
    size = (max(5.5, 2.4 + 1.9 * across), down * (0.2 * len(ways) + 0.6) + 0.7)
    fig, axes = plt.subplots(
        down, across, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (keys, rows) in zip(axes.flat, panels, strict=False):
        _show_differences(ax, rows, ways)
        study, target, split = map(plots.readable, keys)
        ax.set_title(f"{study}\n{target}, {split}", fontsize=8)
    axes[0, 0].set_yticks(range(len(ways)), names)
    axes[0, 0].set_ylim(len(ways) - 0.5, -0.5)
    metric = {"auc": "AUC"}.get(table["metric"].iloc[0], plots.readable(table["metric"].iloc[0]))
    hollow = "; hollow: one seed" if (table["seeds"] == 1).any() else ""
    fig.supxlabel(f"{metric}, difference to {control}{hollow}", fontsize=9)
    sns.despine(fig)
    return fig


def _show_differences(ax: Axes, rows: pd.DataFrame, ways: list[tuple[str, str]]) -> None:
    """Draw a panel of `differences`; a control, which differs by nothing, is a diamond."""
    height = np.array([ways.index(way) for way in zip(rows["variant"], rows["head"], strict=True)])
    gap, low, high = (
        rows[name].to_numpy() for name in ("difference", "difference_low", "difference_high")
    )
    colors = np.where(low > 0, "C0", np.where(high < 0, "C3", "0.45"))
    held = (low == 0) & (high == 0)
    faces = np.where(rows["seeds"] == 1, "white", colors)
    ax.hlines(height[~held], low[~held], high[~held], color=colors[~held], linewidth=1.5)
    look = {"s": 18, "color": faces[~held], "edgecolor": colors[~held], "zorder": 3}
    ax.scatter(gap[~held], height[~held], **look)
    ax.plot(gap[held], height[held], "d", color="0.2", markersize=4)
    for y in np.flatnonzero([one[1] != two[1] for one, two in pairwise(ways)]):
        ax.axhline(y + 0.5, color="0.6", linewidth=0.8)
    ax.axvline(0, color="0.6", linewidth=0.8)
    ax.grid(axis="y", color="0.92")
    ax.tick_params(labelsize=7, labelbottom=True)
    ax.locator_params(axis="x", nbins=4)
