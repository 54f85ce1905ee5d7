"""Figures of the data chapter: distributions, redundancy, geology, label neighbourhoods."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from mpm import plots


def scaled_distributions(
    cubes: Mapping[str, xr.Dataset], scaled: Mapping[str, xr.Dataset], layers: Sequence[str]
) -> Figure:
    """Draw the distribution of layers before scaling (above) and after (below), by region.

    Parameters
    ----------
    cubes, scaled : mapping
        Region to a cube as it was built, and to the same after `scaling.apply_scaling`.
    layers : sequence of str
        Continuous planes, one a column.
    """
    fig, axes = plt.subplots(
        2, len(layers), figsize=(2.1 * len(layers) + 0.6, 4.4), layout="constrained", squeeze=False
    )
    for k, name in enumerate(layers):
        for ax, source in zip(axes[:, k], (cubes, scaled), strict=True):
            _overlaid(ax, {region: _observed(cube, name) for region, cube in source.items()})
        units = str(next(iter(cubes.values()))["units"].sel(layer=name).item())
        axes[0][k].set_title("\n".join(textwrap.wrap(plots.readable(name), 18)), fontsize=9)
        axes[0][k].set(xlabel=units)
        axes[1][k].set(xlabel="standard deviations", xlim=(-4.5, 4.5))
    axes[0][0].set_ylabel("before\nshare of cells")
    axes[1][0].set_ylabel("after\nshare of cells")
    if len(cubes) > 1:
        axes[0][-1].legend(list(cubes), fontsize=7)
    return fig


def _observed(cube: xr.Dataset, name: str) -> np.ndarray:
    values = cube["evidence"].sel(layer=name).values[cube["valid"].values]
    return values[np.isfinite(values)]


def _overlaid(ax: plt.Axes, values: Mapping[str, np.ndarray]) -> None:
    together = np.concatenate(list(values.values()))
    edges = np.linspace(*np.percentile(together, [0.1, 99.9]), 41) if together.size else [0, 1]
    for color, each in zip(sns.color_palette(), values.values(), strict=False):
        weights = np.full(each.size, 1 / max(each.size, 1))
        ax.hist(
            np.clip(each, edges[0], edges[-1]), bins=edges, weights=weights, color=color, alpha=0.6
        )
    ax.tick_params(labelsize=7)
    ax.set_yticks([])


def correlation_map(correlation: pd.DataFrame, groups: Sequence[str]) -> Figure:
    """Draw rank correlations of layers, in the order given, with lines between groups.

    Parameters
    ----------
    correlation : DataFrame (layers, layers)
    groups : sequence of str
        Group of each layer.
    """
    size = 0.2 * len(correlation) + 2
    fig, ax = plt.subplots(figsize=(size + 1, size), layout="constrained")
    names = [plots.readable(name) for name in correlation]
    image = ax.imshow(correlation.to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    for k in range(1, len(groups)):
        if groups[k] != groups[k - 1]:
            ax.axhline(k - 0.5, color="black", linewidth=0.8)
            ax.axvline(k - 0.5, color="black", linewidth=0.8)
    fig.colorbar(image, ax=ax, label="rank correlation (Spearman)", shrink=0.7)
    return fig


def class_maps(
    cubes: Mapping[str, xr.Dataset],
    layer: str,
    deposits: Mapping[str, pd.DataFrame],
    targets: Mapping,
) -> Figure:
    """Draw the classes of one evidence layer with the known deposits of each target.

    Parameters
    ----------
    cubes : mapping
        Region to a cube.
    layer : str
        Origin of one-hot planes.
    deposits : mapping
        Region to the table of known deposits.
    targets : mapping
        Target names to targets.
    """
    first = next(iter(cubes.values()))
    planes = first["layer"].values[first["origin"].values == layer]
    names = [plane.split("=", 1)[1] for plane in planes]
    scale = ListedColormap(sns.husl_palette(len(planes), l=0.85, s=0.6))  # pale: deposits stand out
    fig, axes = plots.panels(len(cubes))
    for ax, (region, cube) in zip(axes, cubes.items(), strict=True):
        evidence = cube["evidence"].sel(layer=planes).values
        code = np.where(np.isfinite(evidence).any(axis=0), evidence.argmax(axis=0), np.nan)
        code = np.where(cube["valid"], code, np.nan)
        norm = BoundaryNorm(np.arange(-0.5, len(planes)), len(planes))
        image = ax.imshow(code, extent=plots.extent_km(cube), cmap=scale, norm=norm)
        plots.show_targets(ax, deposits[region], targets, region)
        ax.set(aspect="equal", xlabel="Easting (km)", ylabel="Northing (km)")
        ax.set_facecolor(plots.NODATA)
    bar = fig.colorbar(image, ax=list(axes), ticks=range(len(planes)), shrink=0.8)
    bar.ax.set_yticklabels(names, fontsize=7)
    return fig


def neighbourhoods(cube: xr.Dataset, target: str, *, cells: int = 30) -> Figure:
    """Draw the cells of the densest district, coloured by the deposit they belong to.

    Parameters
    ----------
    cube : Dataset
        With `<target>` and `<target>_deposit`.
    target : str
    cells : int
        Side of the square that is shown.
    """
    number = cube[f"{target}_deposit"].values
    rows, cols = np.nonzero(number >= 0)
    close = (abs(rows[:, None] - rows) <= cells // 2) & (abs(cols[:, None] - cols) <= cells // 2)
    centre = close.sum(axis=1).argmax()
    part = cube.isel(
        y=slice(max(rows[centre] - cells // 2, 0), rows[centre] + cells // 2 + 1),
        x=slice(max(cols[centre] - cells // 2, 0), cols[centre] + cells // 2 + 1),
    )
    shown = part[f"{target}_deposit"].values
    known = np.unique(shown[shown >= 0])
    code = np.where(shown >= 0, np.searchsorted(known, shown) % 10, np.nan)
    fig, ax = plt.subplots(figsize=(5, 4.4), layout="constrained")
    ax.imshow(np.where(part["valid"], 0.97, np.nan), extent=plots.extent_km(part), cmap="gray",
              vmin=0, vmax=1)  # fmt: skip
    ax.imshow(code, extent=plots.extent_km(part), cmap="tab10", vmin=0, vmax=9)
    ax.set(xlabel="Easting (km)", ylabel="Northing (km)", aspect="equal")
    ax.set_facecolor(plots.NODATA)
    ax.set_title(f"{len(known)} {target} deposits, {int((shown >= 0).sum())} positive cells")
    return fig
