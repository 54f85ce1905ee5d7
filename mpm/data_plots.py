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
from scipy.ndimage import binary_dilation

from mpm import plots


def scaled_distributions(
    cubes: Mapping[str, xr.Dataset], scaled: Mapping[str, xr.Dataset], layers: Sequence[str]
) -> Figure:
    """Draw the distribution of layers before scaling (above) and after (below), by region.

    Values beyond the drawn range (before: the 0.1st to 99.9th percentile) count in its outermost
    bar.

    Parameters
    ----------
    cubes, scaled : mapping
        Region to a cube as it was built, and to the same after `scaling.apply_scaling`; in memory,
        or lazy: a plane at a time is computed.
    layers : sequence of str
        Continuous planes, one a column.
    """
    size = (2.1 * len(layers) + 0.6, 4.6)
    fig, axes = plt.subplots(2, len(layers), figsize=size, layout="constrained", squeeze=False)
    fig.set_layout_engine("constrained", hspace=0.06)
    for k, name in enumerate(layers):
        before, after = ([_observed(cube, name) for cube in by.values()] for by in (cubes, scaled))
        together = np.concatenate(before)
        units = str(next(iter(cubes.values()))["units"].sel(layer=name).item())
        divisor, units = plots.readable_units(units, together)
        low, high = np.percentile(together, [0.1, 99.9]) / divisor if together.size else (0, 1)
        _overlaid(axes[0, k], [values / divisor for values in before], np.linspace(low, high, 41))
        _overlaid(axes[1, k], after, np.linspace(-4.5, 4.5, 61))
        title = f"{plots.readable(name)} ({units})"
        axes[0, k].set_title("\n".join(textwrap.wrap(title, 20)), fontsize=9)
        axes[1, k].set_xlabel("standard deviations", fontsize=9)
    axes[0, 0].set_ylabel("before\nshare of cells")
    axes[1, 0].set_ylabel("after\nshare of cells")
    if len(cubes) > 1:
        names = [plots.readable(region) for region in cubes]
        fig.legend(axes[0, 0].patches, names, loc="outside upper center", ncols=len(cubes))
    return fig


def _observed(cube: xr.Dataset, name: str) -> np.ndarray:
    values = cube["evidence"].sel(layer=name).values[cube["valid"].values]
    return values[np.isfinite(values)]


def _overlaid(ax: plt.Axes, regions: Sequence[np.ndarray], edges: np.ndarray) -> None:
    for k, values in enumerate(regions):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        shares = counts / max(values.size, 1)
        ax.stairs(shares, edges, fill=True, color=f"C{k}", alpha=0.6)
    ax.set_yticks([])
    ax.margins(x=0.03)
    ax.tick_params(labelsize=7)
    ax.locator_params(axis="x", nbins=5)


def correlation_map(correlation: pd.DataFrame, groups: Sequence[str]) -> Figure:
    """Draw rank correlations of layers, those of a group side by side, with lines between groups.

    Groups follow each other as they first occur, the layers of each as given.

    Parameters
    ----------
    correlation : DataFrame (layers, layers)
    groups : sequence of str
        Group of each layer.
    """
    code, groups = pd.factorize(np.asarray(groups))
    order = np.argsort(code, kind="stable")
    names = [plots.readable(name) for name in correlation.columns[order]]
    fig, ax = plt.subplots()
    image = ax.imshow(correlation.to_numpy()[order][:, order], cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ends = np.bincount(code).cumsum()
    for end in ends[:-1]:
        ax.axhline(end - 0.5, color="black", linewidth=0.8)
        ax.axvline(end - 0.5, color="black", linewidth=0.8)
    middles = ends - np.bincount(code) / 2 - 0.5
    top = ax.secondary_xaxis("top")
    top.set_xticks(middles, [plots.readable(group) for group in groups], fontsize=8)
    top.tick_params(length=0, labelrotation=45)
    for label in top.get_xticklabels():  # slanting, names over a single layer have room
        label.set(horizontalalignment="left", rotation_mode="anchor")
    side = max(0.2 * len(names), 2.5)
    bar = fig.colorbar(image, cax=ax.inset_axes((1 + 0.15 / side, 0, 0.15 / side, 1)))
    bar.set_label("rank correlation (Spearman)")
    plots.fit(np.array([[ax]]), (side, side))
    return fig


def class_layer(cube: xr.Dataset) -> str | None:
    """Return the origin of the first one-hot planes ("lithology=shale"), None if there are none.

    Yes/no layers that are not classes of one layer do not count.
    """
    pairs = zip(cube["origin"].values, cube["layer"].values, strict=True)
    return next((str(origin) for origin, plane in pairs if "=" in plane), None)


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
        Origin of one-hot planes, such as `class_layer` finds.
    deposits : mapping
        Region to the table of known deposits.
    targets : mapping
        Target names to targets.

    Raises
    ------
    ValueError
        If the layer has no one-hot planes.
    """
    first = next(iter(cubes.values()))
    own = first["layer"].values[first["origin"].values == layer]
    planes = [plane for plane in own if "=" in plane]
    if not planes:
        raise ValueError(f"layer {layer!r} has no planes of classes; draw it with deposit_maps")
    names = [plane.split("=", 1)[1] for plane in planes]
    scale = ListedColormap(_pale(len(planes)))
    fig, axes = plots.panels(len(cubes))
    for ax, (region, cube) in zip(axes, cubes.items(), strict=True):
        code = _class_codes(cube, planes)
        norm = BoundaryNorm(np.arange(-0.5, len(planes)), len(planes))
        image = ax.imshow(code, extent=plots.extent_km(code), cmap=scale, norm=norm)
        plots.show_targets(ax, deposits[region], targets, region)
        plots.kilometres(ax)
        plots.note_crs(cube["valid"], ax)
        ax.set_facecolor(plots.NODATA)
    bar = fig.colorbar(image, ax=list(axes), ticks=range(len(planes)), shrink=0.8)
    bar.ax.set_yticklabels(names, fontsize=7)
    plots.name_targets(fig, axes[0])
    return fig


def _pale(count: int) -> list[tuple[float, ...]]:
    """Return pale colours, on which deposits stand out: no pinks, of neighbours one is darker."""
    hues = np.linspace(0.13, 0.87, count)
    return [
        sns.husl_palette(1, h=hue, l=(0.93, 0.78)[k % 2], s=0.6)[0] for k, hue in enumerate(hues)
    ]


def _class_codes(cube: xr.Dataset, planes: Sequence[str]) -> xr.DataArray:
    """Return the number of each valid cell's class (y, x), NaN where it has none of them."""
    valid = plots.thinned(cube["valid"]).values
    code = np.full(valid.shape, np.nan)
    for k, name in enumerate(planes):  # one at a time: a lazy cube may be larger than memory
        plane = plots.thinned(cube["evidence"].sel(layer=name))
        code[valid & (plane.values > 0.5)] = k
    return plane.copy(data=code)


def neighbourhoods(cube: xr.Dataset, target: str, *, cells: int = 30) -> Figure:
    """Draw the cells of the densest district, coloured by the deposit they belong to.

    Of all squares about a positive cell, the one that holds most positive cells is drawn. Up to
    twenty deposits have a colour each; of more, those at most two cells apart still differ, unless
    twenty others lie as near.

    Parameters
    ----------
    cube : Dataset
        With `<target>` and `<target>_deposit`.
    target : str
    cells : int
        Side of the square that is shown.

    Raises
    ------
    ValueError
        If the region has no positive cell of the target.
    """
    number = cube[f"{target}_deposit"].values
    if not (number >= 0).any():
        raise ValueError(f"no cell is positive for {target!r} here; draw another region")
    half = cells // 2
    row, col = _densest(number >= 0, half)
    part = cube.isel(
        y=slice(max(row - half, 0), row + half + 1), x=slice(max(col - half, 0), col + half + 1)
    )
    shown = part[f"{target}_deposit"].values
    fig, ax = plt.subplots(figsize=(5, 4.4), layout="constrained")
    ax.imshow(np.where(part["valid"], 0.97, np.nan), extent=plots.extent_km(part), cmap="gray",
              vmin=0, vmax=1)  # fmt: skip
    ax.imshow(_colours(shown), extent=plots.extent_km(part), cmap="tab20", vmin=0, vmax=19)
    plots.kilometres(ax)
    plots.note_crs(part["valid"], ax)
    ax.set_facecolor(plots.NODATA)
    count = len(np.unique(shown[shown >= 0]))
    ax.set_title(f"{count} {target} deposits, {int((shown >= 0).sum())} positive cells")
    return fig


def _densest(positive: np.ndarray, half: int) -> tuple[int, int]:
    """Return the positive cell with most positive cells at most `half` rows and columns away."""
    side = 2 * half + 1
    sums = np.pad(positive, (half + 1, half)).cumsum(axis=0, dtype="int32").cumsum(axis=1)
    counts = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    row, col = np.unravel_index(np.where(positive, counts, 0).argmax(), positive.shape)
    return int(row), int(col)


def _colours(number: np.ndarray) -> np.ndarray:
    """Return the colour (0 to 19, NaN for none) of each cell (y, x) by its deposit's number.

    Each deposit gets, of the colours that no deposit at most two cells away has, the rarest.
    """
    code = np.full(number.shape, np.nan)
    known = np.unique(number[number >= 0])
    order = np.r_[0:20:2, 1:20:2]  # the colours are pairs of a vivid and a pale one
    used = np.zeros(20, int)  # deposits of each colour
    for own in known:
        near = code[binary_dilation(number == own, np.ones((5, 5)))]
        cost = used + len(known) * np.isin(order, near)
        code[number == own] = order[cost.argmin()]
        used[cost.argmin()] += 1
    return code
