"""Figures of how cells are divided: the folds on the map, and how far layers are correlated."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from mpm import plots
from mpm.correlation_range import FALLEN
from mpm.leaks import Split

# Okabe and Ito's, in an order that parts neighbours for every kind of sight; no red, no black
FOLD_COLORS = ["#0072B2", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "0.55"]
HATCH, VALIDATION = "////////", "....."
WIDE = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))]  # layers beyond a block
SPELLED = {
    "blocks": "squares dealt to folds",
    "random": "single cells dealt to folds",
    "latitude": "bands of latitude",
    "district": "districts of deposits",
    "region": "one region tested",
}


def fold_maps(
    cubes: Mapping[str, xr.Dataset],
    numbers: Mapping[str, Sequence[np.ndarray]],
    first: Mapping[str, Split],
    deposits: Mapping[str, pd.DataFrame],
) -> Figure:
    """Draw which fold tests each cell: kinds of split down, regions across; kinds, if one region.

    Parameters
    ----------
    cubes : mapping of Dataset
        By region.
    numbers : mapping of sequence of array (y, x)
        Kind of split to the fold of each cell, a region each, as `splits.fold_numbers` gives them;
        at most eight folds.
    first : mapping of Split
        Kind of split to its fold 0, whose dead zone is hatched and whose validation cells are
        dotted; kinds may be left out.
    deposits : mapping of DataFrame
        Region to its known deposits (columns x, y in m), drawn as hollow circles.

    Raises
    ------
    ValueError
        If a kind has more than eight folds, which no eye tells apart.
    """
    folds = {kind: 1 + max(int(number.max()) for number in each) for kind, each in numbers.items()}
    many = [kind for kind, count in folds.items() if count > len(FOLD_COLORS)]
    if many:
        raise ValueError(f"{folds[many[0]]} folds of {many[0]!r}: eight colours are told apart")
    tall = max(cube.sizes["y"] / cube.sizes["x"] for cube in cubes.values())
    shape, single = (len(numbers), len(cubes)), len(cubes) == 1
    fig, axes = plots.grid(*(shape[::-1] if single else shape), (2.7, 2.5 * tall + 0.1))
    axes = axes.T if single else axes
    for row, (kind, each) in zip(axes, numbers.items(), strict=True):
        for k, (ax, (region, cube)) in enumerate(zip(row, cubes.items(), strict=True)):
            _show_folds(cube, each[k], ax)
            if kind in first:
                _hatch_dead_zone(cube, first[kind], k, ax)
                _hatch(cube, cube["valid"] & first[kind].validation[k], ax, VALIDATION)
            plots.show_deposits(deposits[region], ax, color="black")
        row[0].set_ylabel(f"{kind}:\n{SPELLED[kind]}" if kind in SPELLED else kind)
    for ax, (region, cube) in zip(axes[0], cubes.items(), strict=True):
        ax.set_title(plots.readable(region))
        plots.scale_bar(ax, cube)
        plots.note_crs(cube["valid"], ax)
    _name_folds(fig, max(folds.values()), hatched=bool(first))
    return fig


def _show_folds(cube: xr.Dataset, number: np.ndarray, ax: Axes) -> None:
    plane = plots.thinned(cube["valid"].copy(data=number))
    count = len(FOLD_COLORS)
    colors, norm = ListedColormap(FOLD_COLORS), BoundaryNorm(np.arange(-0.5, count), count)
    shown = np.ma.masked_less(plane.values, 0)
    ax.imshow(shown, extent=plots.extent_km(plane), cmap=colors, norm=norm, alpha=0.75)
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.set_facecolor("white")


def _hatch_dead_zone(cube: xr.Dataset, split: Split, region: int, ax: Axes) -> None:
    held = split.train[region] | split.validation[region] | split.test[region]
    _hatch(cube, cube["valid"] & ~held, ax, HATCH)


def _hatch(cube: xr.Dataset, cells: xr.DataArray, ax: Axes, hatch: str) -> None:
    plane = plots.thinned(cells)
    if plane.any():
        x, y = plane["x"] / 1e3, plane["y"] / 1e3
        inside = plane.astype(float)
        ax.contourf(x, y, inside, levels=[0.5, 1.5], colors="none", hatches=[hatch])


def _name_folds(fig: Figure, count: int, *, hatched: bool) -> None:
    marks = [Patch(facecolor=color, alpha=0.75) for color in FOLD_COLORS[:count]]
    names = [f"fold {k}" if k == 0 else str(k) for k in range(count)]
    if hatched:
        marks.append(Patch(facecolor="0.6", edgecolor="white", hatch=HATCH))
        marks.append(Patch(facecolor="0.6", edgecolor="white", hatch=VALIDATION))
        names += ["dead zone of fold 0", "validates fold 0"]
    style = {"fontsize": 8, "handlelength": 1.2, "columnspacing": 1.2}
    fit = int(1.5 * fig.get_figwidth())
    fig.legend(marks, names, loc="outside lower center", ncols=min(len(names), fit), **style)


def correlation_ranges(ranges: pd.DataFrame, block_km: float) -> Figure:
    """Draw how the correlation of each layer falls with distance, a panel a region.

    Parameters
    ----------
    ranges : DataFrame
        Of `correlation_range.of_layers`.
    block_km : float
        Side of a block, drawn as a vertical line.
    """
    regions = ranges["region"].unique()
    fig, axes = plots.panels(len(regions), size=(4.6, 3.4), sharey=True)
    for ax, region in zip(axes, regions, strict=True):
        own = ranges[(ranges["region"] == region) & ranges["range_km"].notna()]
        wide = own["range_km"] > block_km
        for row in own[~wide].itertuples():
            ax.plot(row.lags, row.correlations, color="0.65", linewidth=0.7)
        for k, row in enumerate(own[wide].sort_values("range_km", ascending=False).itertuples()):
            look = {"color": "C3", "linewidth": 1.2, "linestyle": WIDE[k % len(WIDE)]}
            ax.plot(row.lags, row.correlations, label=plots.readable(row.layer), **look)
        if wide.any():
            ax.legend(fontsize=6.5, loc="upper right", handlelength=2.6)
        ax.axvline(block_km, color="black", linestyle="--", linewidth=1)
        ax.axhline(FALLEN, color="black", linestyle=":", linewidth=0.8)
        ax.annotate(
            f"block side, {block_km:g} km ", (block_km, 0.02),
            xycoords=("data", "axes fraction"), ha="right", va="bottom", fontsize=8,
        )  # fmt: skip
        title = f"{plots.readable(region)}: {wide.sum()} of {len(own)} layers reach beyond a block"
        ax.set(xscale="log", xlabel="distance (km)", title=title)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[0].set_ylabel("rank correlation of cells (1)")
    axes[0].annotate(
        "1/e", (0.01, FALLEN), xycoords=("axes fraction", "data"), va="bottom", fontsize=8
    )
    sns.despine(fig)
    return fig
