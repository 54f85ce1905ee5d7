"""Figures of explanations: which layers speak, where, by how much, and for which values."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from mpm.plots import (
    extent_km,
    grid,
    largest,
    panels,
    readable,
    readable_units,
    show_deposits,
    show_ground,
    show_map,
)


def layer_attribution(result: xr.Dataset, name: str, origin: Sequence[str]) -> xr.DataArray:
    """Contribution of one evidence layer (y, x), its planes summed; NaN where not explained."""
    planes = [k for k, of in enumerate(origin) if of == name]
    return result["attribution"].isel(layer=planes).sum("layer", min_count=1)


def over_blocks(plane: xr.DataArray, ground: xr.DataArray, every: int) -> xr.DataArray:
    """Let each cell of an explained coarse grid stand for the unexplained ones of its block.

    Parameters
    ----------
    plane : DataArray (y, x)
        NaN where not explained.
    ground : DataArray (y, x)
        NaN where nothing is predicted.
    every : int
        As for `explained_cells.on_grid`; 0 leaves the plane as it is.

    Returns
    -------
    DataArray (y, x)
        For drawing: explained cells keep their value.
    """
    if every < 2:
        return plane
    row, col = (np.arange(plane.sizes[axis]) // every * every + every // 2 for axis in "yx")
    inside = np.ix_(row < plane.sizes["y"], col < plane.sizes["x"])
    coarse = np.full(plane.shape, np.nan, plane.dtype)
    coarse[inside] = plane.values[np.ix_(row[row < plane.sizes["y"]], col[col < plane.sizes["x"]])]
    return plane.where(plane.notnull(), coarse).where(ground.notnull())


def attribution_maps(
    maps: Mapping[str, xr.Dataset],
    names: Sequence[str],
    origin: Sequence[str],
    *,
    every: int = 0,
    deposits: Mapping[str, pd.DataFrame] | None = None,
) -> Figure:
    """Draw contributions of some evidence layers, layers across and regions down.

    Parameters
    ----------
    maps : mapping
        Region to a dataset with `attribution (layer, y, x)` in logits and `likelihood (y, x)`.
    names : sequence of str
        Evidence layers; the planes of a layer of classes are summed.
    origin : sequence of str
        Evidence layer of each plane.
    every : int
        Of `over_blocks`.
    deposits : mapping of DataFrame, optional
        Columns x, y (m), by region.
    """
    planes = {
        (region, name): layer_attribution(result, name, origin)
        for region, result in maps.items()
        for name in names
    }
    top = largest(planes.values())
    fig, axes = grid(len(maps), len(names), (4.2, 4), beside=0.8)
    for ax, ((region, name), plane) in zip(axes.flat, planes.items(), strict=True):
        title = f"{readable(region)}: {readable(name)}"
        drawn = over_blocks(plane, maps[region]["likelihood"], every)
        show_map(
            drawn, ax, label="", title=title, limits=(-top, top), bar=False, cmap="RdBu_r",
            deposits=None if deposits is None else deposits[region], deposit_color="black",
        )  # fmt: skip
        show_ground(maps[region], ax)
    fig.colorbar(
        axes[0][0].images[0], ax=list(axes.flat), shrink=0.7,
        label="raises (red) or lowers (blue) the score (log of the odds)",
    )  # fmt: skip
    return fig


def importance_bars(
    importances: Mapping[str, pd.Series], *, roles: Mapping[str, str] | None = None
) -> Figure:
    """Draw mean absolute contributions by layer, a panel a method, in one order.

    Parameters
    ----------
    importances : mapping
        Method to importance by evidence layer; drawn as shares of the sum.
    roles : mapping, optional
        Layer to "causal", "proxy" or "distractor", where the truth is known; colours the bars.
    """
    shares = pd.DataFrame({name: values / values.sum() for name, values in importances.items()})
    shares = shares.loc[shares.mean(axis=1).sort_values().index]
    palette = {"causal": "C2", "proxy": "C1", "distractor": "0.6"}
    size = (4.5, 0.26 * len(shares) + 1.2)
    fig, axes = panels(len(importances), size=size, sharex=True, sharey=True)
    for ax, name in zip(axes, shares, strict=True):
        colors = [palette[roles[layer]] if roles else "C0" for layer in shares.index]
        ax.barh([readable(layer) for layer in shares.index], 100 * shares[name], color=colors)
        ax.set(xlabel="share of all contributions (%)", title=name)
    if roles:
        handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in palette.values()]
        axes[-1].legend(handles, palette, title="true role", loc="lower right")
    sns.despine(fig)
    return fig


def beeswarm(
    contributions: pd.DataFrame, values: pd.DataFrame, ax: Axes, *, title: str, layers: int = 10
) -> Axes:
    """Draw every cell's contribution of each layer as a dot, coloured by the layer's value.

    Parameters
    ----------
    contributions : DataFrame (n, evidence layers)
    values : DataFrame (n, planes)
        In any units: colours are ranks among the cells. Layers of classes, which are no columns,
        are grey.
    ax : Axes
    title : str
    layers : int
        The most important ones are drawn.
    """
    order = contributions.abs().mean().sort_values(ascending=False, kind="stable").index[:layers]
    for row, name in enumerate(reversed(order)):
        moved = contributions[name].to_numpy()
        height = row + 0.8 * _spread(moved, contributions[order].to_numpy())
        rank = (
            values[name].rank(pct=True).to_numpy()
            if name in values
            else np.full(len(moved), np.nan)
        )
        known = ~np.isnan(rank)
        ax.scatter(moved[~known], height[~known], s=5, color="0.6", linewidths=0)
        dots = ax.scatter(
            moved[known], height[known], s=5, c=rank[known], cmap="cividis", vmin=0, vmax=1,
            linewidths=0,
        )  # fmt: skip
    ax.axvline(0, color="0.4", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(order)), [readable(name) for name in reversed(order)])
    ax.set(xlabel="contribution to the score (log of the odds)", title=title)
    bar = ax.figure.colorbar(dots, ax=ax, ticks=[0, 1], pad=0.01)
    bar.ax.set_yticklabels(["low", "high"])
    bar.set_label("value of the layer, rank among these cells", labelpad=-12)
    sns.despine(ax=ax, left=True)
    return ax


def _spread(moved: np.ndarray, every: np.ndarray, bins: int = 80) -> np.ndarray:
    """Return heights (n,) between -0.5 and 0.5 at which dots of one bin lie beside each other."""
    low, high = float(every.min()), float(every.max())
    place = np.floor((moved - low) / max(high - low, 1e-12) * bins).astype(int)
    height = np.zeros(len(moved))
    most = np.bincount(place).max()
    for each in np.unique(place):
        own = np.flatnonzero(place == each)
        side = np.arange(1, len(own) + 1) // 2 * np.where(np.arange(len(own)) % 2, 1, -1)
        height[own] = side / max(most, 20)
    return height


def dependence(
    contributions: Mapping[str, pd.DataFrame],
    values: pd.DataFrame,
    units: Mapping[str, str],
    layers: Sequence[str],
) -> Figure:
    """Draw contributions against a layer's value in its own units, a panel a layer.

    Parameters
    ----------
    contributions : mapping
        Method to contributions (n, evidence layers) of the same cells.
    values : DataFrame (n, planes)
        At the cells' centres, unscaled.
    units : mapping
        Layer to units.
    layers : sequence of str
        Columns of both tables.
    """
    fig, axes = panels(len(layers), size=(3.6, 3.2), sharey=True)
    for ax, name in zip(axes, layers, strict=True):
        divisor, shown = readable_units(units[name], values[name].to_numpy())
        for k, (method, table) in enumerate(contributions.items()):
            ax.plot(
                values[name] / divisor, table[name], "os"[k % 2], markersize=3, alpha=0.6,
                color=f"C{k}", markeredgewidth=0, label=method,
            )  # fmt: skip
        ax.axhline(0, color="0.4", linewidth=0.8, zorder=0)
        ax.set(xlabel=f"{readable(name)} ({shown})")
    axes[0].set_ylabel("contribution to the score (log of the odds)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    sns.despine(fig)
    return fig


def group_maps(
    maps: Mapping[str, xr.Dataset],
    owner: Mapping[str, str],
    origin: Sequence[str],
    *,
    every: int = 0,
    deposits: Mapping[str, pd.DataFrame] | None = None,
) -> Figure:
    """Draw contributions summed over groups of layers, groups across and regions down.

    Parameters
    ----------
    maps, every, deposits
        As for `attribution_maps`.
    owner : mapping
        Evidence layer to its group.
    origin : sequence of str
    """
    groups = [owner[name] for name in origin]
    names = list(dict.fromkeys(groups))
    return attribution_maps(maps, names, groups, every=every, deposits=deposits)


def kind_maps(
    cubes: Mapping[str, xr.Dataset],
    kinds: Mapping[str, xr.DataArray],
    parts: pd.DataFrame,
    deposits: Mapping[str, pd.DataFrame],
) -> Figure:
    """Draw where each kind of explanation lies, and what its cells' evidence is made of.

    Parameters
    ----------
    cubes : mapping of Dataset
    kinds : mapping
        Region to number of the kind (y, x), from 1; NaN elsewhere.
    parts : DataFrame (kinds, parts)
        Mean contribution of each part (of the mineral system, or a group), index kind.
    deposits : mapping of DataFrame
        Known ones by region: columns x, y (m).
    """
    fig, axes = panels(len(cubes) + 1, size=(4.4, 4.2))
    colors = [f"C{k}" for k in range(len(parts))]
    look: dict[str, Any] = {"cmap": ListedColormap(colors), "bar": False}
    look["limits"] = (0.5, len(parts) + 0.5)
    for ax, (region, cube) in zip(axes, cubes.items(), strict=False):
        show_map(kinds[region], ax, label="", title=readable(region), **look)
        ax.imshow(
            xr.where(cube["valid"], 1.0, np.nan), extent=extent_km(cube), cmap="gray", vmin=0,
            vmax=1, zorder=-1,
        )  # fmt: skip
        show_deposits(deposits[region], ax, color="black")
    ax, width = axes[-1], 0.8 / len(parts)
    for k, (kind, row) in enumerate(parts.iterrows()):
        heights = np.arange(len(row))[::-1] + 0.4 - (k + 0.5) * width
        ax.barh(heights, row, height=width, color=colors[k], label=f"kind {kind}")
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(np.arange(parts.shape[1])[::-1], [readable(name) for name in parts])
    ax.set(xlabel="mean contribution to the score (log of the odds)", title="what speaks for them")
    ax.legend(title="circles: known deposits", fontsize=7)
    sns.despine(ax=ax)
    return fig
