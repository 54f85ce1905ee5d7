"""Figures of maps: layers and their gaps, deposits, likelihoods, held-out ranks, the overview."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpm.geography import crs_code
from mpm.plots import (
    METHODS,
    SCALES,
    fit,
    grid,
    largest,
    name_targets,
    note_crs,
    panels,
    readable,
    readable_units,
    scale_bar,
    show_cells,
    show_ground,
    show_map,
    show_targets,
    thinned,
)

CELLS_ON_RANKS = "#FF40A0"  # light enough for dark ground, and unlike green and yellow to any eye


def layer_maps(cube: xr.Dataset, layers: Sequence[str], *, title: str, columns: int = 5) -> Figure:
    """Draw several evidence layers of one region, each with its own scale.

    Parameters
    ----------
    cube : Dataset
    layers : sequence of str
    title : str
    columns : int
        Panels in a row.
    """
    rows = -(-len(layers) // columns)
    columns = -(-len(layers) // rows)  # no row that is almost empty
    fig, axes = plt.subplots(rows, columns, squeeze=False)
    for ax, name in zip(axes.flat, layers, strict=False):
        _show_layer(cube["evidence"].sel(layer=name), ax)
    for ax in axes.flat[len(layers) :]:
        ax.axis("off")
    scale_bar(axes.flat[0], cube)
    fig.suptitle(f"{title} ({crs_code(cube.rio.crs) or 'local CRS'})")
    fit(axes, (1.7, 1.7 * cube.sizes["y"] / cube.sizes["x"]))
    return fig


def missing_table(coverage: pd.DataFrame) -> Figure:
    """Draw the share of missing cells per layer and region, of `datacube.coverage`.

    The planes of a layer of classes are missing together and share a row.
    """
    rows = coverage.assign(layer=coverage["layer"].str.split("=").str[0])
    table = rows.pivot_table(
        index="layer", columns="region", values="missing", aggfunc="max", sort=False
    )
    fig, ax = plt.subplots(figsize=(5.5, 0.24 * len(table) + 1), layout="constrained")
    table.index = [readable(name) for name in table.index]
    top = max(1.0, float(table.to_numpy().max()))  # tenths of a per cent are no dark field
    sns.heatmap(
        table,
        annot=True,
        fmt=".1f",
        cmap="Blues",
        vmin=0,
        vmax=top,
        ax=ax,
        cbar_kws={"label": "missing (% of valid cells)"},
        annot_kws={"size": 7},
    )
    ax.set(xlabel="", ylabel="", title="Missing evidence")
    return fig


def deposit_maps(
    cubes: Mapping[str, xr.Dataset],
    deposits: Mapping[str, pd.DataFrame],
    targets: Mapping,
    *,
    over: str,
) -> Figure:
    """Draw known deposits of each target over one evidence layer, a panel a region.

    Parameters
    ----------
    cubes : mapping of Dataset
        By region.
    deposits : mapping of DataFrame
        By region: columns x, y (m), type.
    targets : mapping
        Of the study.
    over : str
        The evidence layer.
    """
    fig, axes = panels(len(cubes))
    for ax, (region, cube) in zip(axes, cubes.items(), strict=True):
        plane = thinned(cube["evidence"].sel(layer=over)).compute()
        divisor, units = readable_units(str(plane["units"].item()), plane.values)
        show_map(plane / divisor, ax, label=f"{readable(over)} ({units})", cmap="cividis")
        show_targets(ax, deposits[region], targets, region)
    name_targets(fig, axes[0])
    return fig


def _show_layer(plane: xr.DataArray, ax: Axes, cmap: str = "viridis") -> None:
    plane = thinned(plane).compute()  # a lazy plane is read once
    heading = "\n".join(textwrap.wrap(readable(plane["layer"].item()), 24))
    if str(plane["kind"].item()) == "binary":
        show_map(plane, ax, label="", limits=(0, 1), axes=False, bar=False, cmap="cividis")
        ax.set_title(heading + "\n(yellow: yes)", fontsize=8)
        return
    divisor, units = readable_units(str(plane["units"].item()), plane.values)
    show_map(plane / divisor, ax, label="", axes=False, bar=False, cmap=cmap)
    ax.set_title(heading, fontsize=8)
    # beside the map itself: as high as it is, whatever the shape of the region
    bar = ax.figure.colorbar(ax.images[0], cax=ax.inset_axes((1.03, 0, 0.05, 1)))
    bar.set_label(units, fontsize=7)
    bar.ax.tick_params(labelsize=7)


def likelihood_maps(
    maps: Mapping[str, xr.Dataset],
    deposits: Mapping[str, pd.DataFrame] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Draw likelihood, and uncertainty if it is there, of all regions."""
    names = [name for name in SCALES if name in next(iter(maps.values()))]
    fig, axes = grid(len(names), len(maps), (5.2, 4.3))
    for row, name in zip(axes, names, strict=True):
        limits = _shared_limits(name, list(maps.values()))
        for ax, (region, result) in zip(row, maps.items(), strict=True):
            known = deposits[region] if deposits is not None and name == "likelihood" else None
            show_map(
                result[name],
                ax,
                label=f"{name} (1)",
                title=f"{region}: {name}",
                cmap=SCALES[name],
                limits=limits,
                deposits=known,
            )
    fig.suptitle(title)
    return fig


def _shared_limits(name: str, results: Sequence[xr.Dataset]) -> tuple[float, float]:
    """Colour range of all regions together: of likelihoods 0 to 1, as on every map of them."""
    if name == "likelihood":
        return 0.0, 1.0
    values = np.concatenate([result[name].values.ravel() for result in results])
    return 0.0, float(np.nanpercentile(values, 99))


def held_out_maps(
    ranks: Mapping[str, Mapping[str, xr.DataArray]],
    positive: Sequence[np.ndarray],
    *,
    across: int = 6,
) -> Figure:
    """Draw the rank of held-out cells, methods across and regions down, in several rows of both.

    Parameters
    ----------
    ranks : mapping
        Method to region to rank (y, x), 0 to 1.
    positive : sequence of array (y, x)
        Positive cells, a region each.
    across : int
        Methods in a row.
    """
    across, down = min(across, len(ranks)), len(positive)
    rows = -(-len(ranks) // across) * down
    fig, axes = grid(rows, across, (1.6, 1.75), beside=0.7)
    for number, (method, maps) in enumerate(ranks.items()):
        column = axes[number // across * down :, number % across]
        for k, (region, rank) in enumerate(maps.items()):
            title = textwrap.fill(f"{region}: {METHODS.get(method, method)}", 24)
            tenths = (10 * rank).round() / 10  # finer ones no eye tells apart at this size
            show_map(tenths, column[k], label="", title=title, limits=(0, 1), bar=False, axes=False)
            column[k].title.set_fontsize(6.5)
            show_cells(positive[k], rank, column[k], color=CELLS_ON_RANKS)
            if number == 0:
                note_crs(rank, column[k])
    for number in range(len(ranks), across * rows // down):
        for ax in axes[number // across * down :, number % across][:down]:
            ax.axis("off")
    scale_bar(axes[0][0], next(iter(next(iter(ranks.values())).values())))
    fig.colorbar(
        axes[0][0].images[0], ax=list(axes.flat), label="rank within the fold (1), in tenths"
    )
    return fig


def contrast_bars(table: pd.DataFrame, *, minimum: float) -> Figure:
    """Draw the contrast of each layer's binary pattern with its standard error."""
    rows = table.sort_values("studentised")
    fig, ax = plt.subplots(figsize=(7, 0.24 * len(rows) + 1.2), layout="constrained")
    error = (rows["contrast"] / rows["studentised"]).abs()
    colors = np.where(rows["used"], "C0", "0.7")
    ax.barh(range(len(rows)), rows["contrast"], color=colors)
    ax.errorbar(
        rows["contrast"], range(len(rows)), xerr=error, fmt="none", ecolor="0.3", linewidth=0.8
    )
    ax.set_yticks(range(len(rows)), [readable(name) for name in rows["layer"]], fontsize=8)
    ax.set(xlabel=f"contrast C = W⁺ − W⁻ (grey, not used: |C / s(C)| below {minimum})")
    sns.despine(fig)
    return fig


def overview(
    cube: xr.Dataset,
    layers: Sequence[str],
    result: xr.Dataset,
    attribution: xr.DataArray,
    deposits: pd.DataFrame,
    *,
    attribution_label: str,
) -> Figure:
    """Draw the whole way on one wide picture: evidence, likelihood, uncertainty, explanation.

    Parameters
    ----------
    cube : Dataset
    layers : sequence of str
        Four evidence layers.
    result : Dataset
        With likelihood and uncertainty.
    attribution : DataArray (y, x)
    deposits : DataFrame
        Columns x, y (m).
    attribution_label : str
        Of its colour bar.
    """
    fig = plt.figure(figsize=(16, 4.4), layout="constrained")
    left, right = fig.subfigures(1, 2, squeeze=False, width_ratios=[1.15, 2.6]).flat
    for ax, name in zip(left.subplots(2, 2).flat, layers, strict=True):
        _show_layer(cube["evidence"].sel(layer=name), ax, cmap="cividis")
    left.suptitle("evidence layers  →")
    axes = right.subplots(1, 3)
    for ax, name in zip(axes, SCALES, strict=False):
        show_map(
            result[name],
            ax,
            label=f"{name} (1)",
            cmap=SCALES[name],
            deposits=deposits if name == "likelihood" else None,
            axes=False,
            limits=_shared_limits(name, [result]),
            title=name,
        )
    top = largest([attribution])
    show_map(
        attribution,
        axes[2],
        label="raises (red) or lowers (blue) the score",
        cmap="RdBu_r",
        axes=False,
        limits=(-top, top),
        title=attribution_label,
    )
    show_ground(result, axes[2])
    scale_bar(axes[0], cube)
    right.suptitle("likelihood (circles: known deposits), uncertainty, explanation")
    return fig
