"""Figures of notebooks 02 and 03: splits, masking, losses, reconstructions, fine-tuning."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, StrMethodFormatter

from mpm import plots
from mpm.leaks import Split
from mpm.scenes import Scene

MARKED = 400  # negatives of a region that a map shows at most
FILLED = {"MAE": "network", "bilinear": "interpolated"}


def split_maps(
    cubes: Mapping[str, xr.Dataset], split: Split, *, positives: Sequence[np.ndarray], title: str
) -> Figure:
    """Draw train, validation, test and dead-zone cells, with positive cells, a panel a region.

    Parameters
    ----------
    cubes : mapping of Dataset
        By region.
    split : Split
    positives : sequence of array (y, x)
        bool, a region each.
    title : str
    """
    names = ["dead zone", "train", "validation", "test"]
    colors = ["0.75", "#56B4E9", "#E69F00", "#CC79A7"]
    scale, norm = ListedColormap(colors), BoundaryNorm(np.arange(-0.5, 4), 4)
    fig, axes = plots.panels(len(cubes))
    for k, (ax, (region, cube)) in enumerate(zip(axes, cubes.items(), strict=True)):
        code = np.where(cube["valid"], 0.0, np.nan)
        for number, part in enumerate([split.train, split.validation, split.test], start=1):
            code[part[k]] = number
        image = ax.imshow(code, extent=plots.extent_km(cube), cmap=scale, norm=norm)
        plots.show_cells(positives[k], cube, ax)
        ax.set_title(region)
        plots.kilometres(ax)
        ax.set_facecolor("white")
        plots.note_crs(cube["valid"], ax)
    bar = fig.colorbar(image, ax=list(axes), ticks=range(4), shrink=0.6)
    bar.ax.set_yticklabels(names)
    fig.suptitle(title)
    return fig


def masked_window(
    values: np.ndarray, hidden: np.ndarray, names: Sequence[str], *, patch: int, cell_km: float
) -> Figure:
    """Draw layers of one window cut into patches: all of them above, those left visible below.

    Parameters
    ----------
    values : array (layers, H, W)
        Standardised evidence, NaN where missing.
    hidden : array (H, W)
        bool, the same for all layers.
    names : sequence of str
    patch : int
        Cells along one side of a patch.
    cell_km : float
    """
    size = (2.05 * len(names) + 0.6, 4.5)
    fig, axes = plt.subplots(2, len(names), figsize=size, layout="constrained", squeeze=False)
    side = values.shape[1] * cell_km / 2
    cuts = np.arange(-side, side + cell_km / 2, patch * cell_km)
    for k, name in enumerate(names):
        limits = _range(values[k])
        for ax, plane in zip(axes[:, k], [values[k], _without(values[k], hidden)], strict=True):
            _show_window(ax, plane, side, limits)
            ax.hlines(cuts, -side, side, color="white", linewidth=0.5)
            ax.vlines(cuts, -side, side, color="white", linewidth=0.5)
        axes[0, k].set_title("\n".join(textwrap.wrap(plots.readable(name), 20)), fontsize=9)
    axes[0, 0].set_ylabel("what is there\nkm from centre", fontsize=8)
    axes[1, 0].set_ylabel("what the network sees\nkm from centre", fontsize=8)
    return fig


def loss_curves(
    histories: Mapping[str, pd.DataFrame], *, plain: Mapping[str, float] | None = None
) -> Figure:
    """Draw training and held-out loss of each pretraining run.

    Parameters
    ----------
    histories : mapping
        Name of the run, split first, to a table with step, loss, held_out.
    plain : mapping, optional
        Ways to fill in, the network ("MAE") and plain fills, to their loss on the same windows:
        they get a panel of their own, as those windows are of one fold.
    """
    ratios = [1, 1, 0.45] if plain else [1, 1]
    shape: dict[str, Any] = {"figsize": (9 + bool(plain), 3.6), "width_ratios": ratios}
    fig, panels = plt.subplots(1, len(ratios), layout="constrained", sharey=True, **shape)
    axes = panels[:2]
    for name, history in histories.items():
        style = "--" if name.startswith("random") else ":" if name.startswith("final") else "-"
        dot = "o" if len(history) == 1 else ""  # a backbone taken as it was has no curve
        axes[0].plot(history["step"], history["loss"], style, marker=dot, label=name)
        axes[1].plot(history["step"], history["held_out"], style, marker=dot, label=name)
    if plain:
        _show_fills(panels[2], plain)
    for ax, title in zip(axes, ["training windows", "held-out windows"], strict=True):
        ax.set(xlabel="step", title=title, yscale="log")
        ax.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        for axis_part in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
            axis_part(StrMethodFormatter("{x:g}"))
        ax.tick_params(axis="y", which="minor", labelsize=7)
    axes[0].set_ylabel("masked loss (standard deviations²)")
    handles, texts = axes[0].get_legend_handles_labels()
    fig.legend(handles, texts, title="split, fold", fontsize=7, loc="outside right")
    sns.despine(fig)
    return fig


def _show_fills(ax: Axes, losses: Mapping[str, float]) -> None:
    """Mark the loss of the network (dot) and of plain fills on the same windows."""
    for name, loss in losses.items():
        own = name == "MAE"
        ax.plot([0], [loss], "o" if own else "_", color="C0" if own else "0.35", markersize=7)
        look: dict[str, Any] = {"va": "center", "fontsize": 8, "color": "C0" if own else "0.35"}
        ax.annotate(FILLED[name] if own else name, (0.12, loss), **look)
    ax.set(xticks=[], xlim=(-0.2, 1), title="ways to fill in", xlabel="test, block fold 0")


def reconstructions(
    scenes: Mapping[str, Scene], around: Mapping[str, xr.DataArray], *, cell_km: float
) -> Figure:
    """Draw windows in their surroundings, masked, and filled in two ways: a row each.

    Parameters
    ----------
    scenes : mapping
        Row title to one layer of a window.
    around : mapping
        The same titles to the layer (y, x) about the window's centre, standardised.
    cell_km : float
        Cell size, for the axes (km).
    """
    size = (11, 2.35 * len(scenes) + 0.3)
    fig, axes = plt.subplots(len(scenes), 5, figsize=size, layout="constrained", squeeze=False)
    for row, (title, scene) in zip(axes, scenes.items(), strict=True):
        side = scene.truth.shape[0] * cell_km / 2
        limits = _range(scene.truth)
        _show_around(row[0], around[title], scene, limits)
        filled = [f"{name}, error {scene.errors[which]:.2f}" for which, name in FILLED.items()]
        planes = [scene.truth, scene.masked, *(scene.fills[which] for which in FILLED)]
        for ax, plane, heading in zip(
            row[1:], planes, ["the window", "masked", *filled], strict=True
        ):
            _show_window(ax, plane, side, limits)
            ax.set_title(heading, fontsize=9)
        row[0].set_ylabel("\n".join(textwrap.wrap(title, 24)), fontsize=9)
        bar = fig.colorbar(row[1].images[0], ax=row[-1], pad=0.02)
        bar.set_label("standard deviations", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    for ax in axes[-1, 1:]:
        ax.set_xlabel("km from centre", fontsize=8)
    return fig


def _show_around(ax: Axes, plane: xr.DataArray, scene: Scene, limits: tuple[float, float]) -> None:
    """Draw where a window lies."""
    name = plots.readable(plane["layer"].item())
    plots.show_map(plane, ax, label="", title=name, limits=limits, bar=False, axes=False)
    ax.set_title("\n".join(textwrap.wrap(name, 24)), fontsize=9)
    side = scene.truth.shape[0] * abs(plane.rio.resolution()[0]) / 1e3
    west, south = (middle / 1e3 - side / 2 for middle in (plane.attrs["x"], plane.attrs["y"]))
    ax.add_patch(Rectangle((west, south), side, side, fill=False, color="red", linewidth=1.5))
    plots.scale_bar(ax, plane)


def _show_window(ax: Axes, plane: np.ndarray, side: float, limits: tuple[float, float]) -> None:
    """Draw a window that reaches `side` kilometres from its centre."""
    extent = (-side, side, -side, side)
    ax.imshow(plane, cmap="viridis", vmin=limits[0], vmax=limits[1], extent=extent)
    ax.set_facecolor(plots.NODATA)
    ax.tick_params(labelsize=7)
    ax.locator_params(nbins=4)


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return the colour range of a window: that of its values, 0 to 1 where it has none."""
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _without(values: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    return np.where(hidden, np.nan, values)


def layer_errors(errors: pd.DataFrame, verdicts: pd.DataFrame) -> Figure:
    """Draw each layer's error by the network and by the plain fills, and say which is lower.

    Parameters
    ----------
    errors : DataFrame
        Index layer, a column a fill: root mean squared error on masked cells.
    verdicts : DataFrame
        Of `reconstruction.verdicts`; decides the order, the colours and what stands at the right.
    """
    ordered = errors.loc[verdicts.index]
    height = np.arange(len(ordered))
    fig, ax = plt.subplots(figsize=(8, 0.24 * len(ordered) + 1.6), layout="constrained")
    markers = {"layer mean": "|", "window mean": "x", "bilinear": "s"}
    for name, marker in markers.items():
        empty: dict[str, Any] = {"markerfacecolor": "none"} if marker == "s" else {}
        ax.plot(ordered[name], height, marker, color="0.45", label=name, markersize=5, **empty)
    kinds = {"better": "C0", "worse": "C3", "cannot be told": "0.45"}
    for kind, color in kinds.items():
        rows = (verdicts["verdict"] == kind).to_numpy()
        if not rows.any():
            continue
        ax.hlines(height[rows], verdicts["MAE"][rows], verdicts["plain"][rows], color=color)
        label = f"network, {kind}"
        ax.plot(ordered["MAE"][rows], height[rows], "o", color=color, label=label, markersize=6)
    for y, row in zip(height, verdicts.itertuples(), strict=True):
        text = "fill is exact"
        if np.isfinite(row.ratio):
            text = f"{100 * (row.ratio - 1):+.0f} %"
        if np.isfinite(row.ratio) and np.isfinite(row.low):
            text += f" ({100 * (row.low - 1):+.0f} to {100 * (row.high - 1):+.0f})"
        ax.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=7)
    ax.annotate("network vs.\nbest plain fill", (1.01, 1.0), xycoords="axes fraction", fontsize=7)
    ax.set_yticks(height, [plots.readable(name) for name in ordered.index], fontsize=8)
    ax.set(xlabel="error on masked cells (standard deviations; classes: 1)", xlim=(0, None))
    ax.set_ylim(len(ordered) - 0.5, -0.5)
    ax.grid(axis="y", color="0.92")
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize=8, columnspacing=1)
    sns.despine(fig)
    return fig


def negative_maps(
    distance: Mapping[str, xr.Dataset],
    positive: Sequence[np.ndarray],
    negative: Sequence[np.ndarray],
) -> Figure:
    """Draw training cells by their distance to the deposits, and what was drawn as negatives.

    Parameters
    ----------
    distance : mapping
        Region to a dataset with `distance (y, x)`, standard deviations, NaN outside training cells.
    positive, negative : sequence of array (y, x)
        Training positives and negatives, a region each. Of the negatives every n-th is drawn, such
        that what lies beneath is seen.
    """
    fig, axes = plots.panels(len(distance))
    step = -(-max(1, *(int(part.sum()) for part in negative)) // MARKED)
    high = max(float(np.nanpercentile(result["distance"], 98)) for result in distance.values())
    low = min(float(np.nanpercentile(result["distance"], 2)) for result in distance.values())
    for k, (ax, (region, result)) in enumerate(zip(axes, distance.items(), strict=True)):
        label = "mean distance to the deposits (standard deviations)"
        plots.show_map(result["distance"], ax, label=label, title=region, limits=(low, high))
        some = np.zeros_like(negative[k])
        some.flat[np.flatnonzero(negative[k])[::step]] = True
        plots.show_cells(some, result, ax, color="black")
        plots.show_cells(positive[k], result, ax, color="red")
    if step > 1:
        fig.supxlabel(f"red: all positive cells; black: one negative in {step}", fontsize=9)
    return fig


def learning_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw loss and validation average precision of each fine-tuning run."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name, history in histories.items():
        style = "--" if name.startswith("random") else ":" if name.startswith("final") else "-"
        axes[0].plot(history["step"], history["loss"], style, label=name)
        (line,) = axes[1].plot(history["step"], history["average_precision"], style, label=name)
        best = history.loc[history["average_precision"].idxmax()]
        axes[1].plot(
            best["step"], best["average_precision"], "o", color=line.get_color(), markersize=4
        )
    axes[0].set(xlabel="step", ylabel="loss (smoothed labels)", title="training cells")
    axes[1].set(xlabel="step", ylabel="average precision", title="validation cells (dot: kept)")
    axes[0].legend(title="split, fold", fontsize=7)
    sns.despine(fig)
    return fig
