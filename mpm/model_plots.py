"""Figures of the method chapters: splits, pretraining, what was learned, fine-tuning."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from mpm import plots


def split_maps(
    cubes: Mapping[str, xr.Dataset], split, *, positives: Sequence[np.ndarray], title: str
) -> Figure:
    """Draw train, validation, test and dead-zone cells, with positive cells, a panel a region."""
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


def loss_curves(histories: Mapping[str, pd.DataFrame], *, naive: float | None = None) -> Figure:
    """Draw training and held-out loss of each pretraining run."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    for name, history in histories.items():
        style = "--" if name.startswith("random") else ":" if name.startswith("final") else "-"
        axes[0].plot(history["step"], history["loss"], style, label=name)
        axes[1].plot(history["step"], history["held_out"], style, label=name)
    for ax, title in zip(axes, ["training windows", "held-out windows"], strict=True):
        if naive is not None:
            ax.axhline(naive, color="0.5", linewidth=0.8)
            ax.annotate(
                "layer mean",
                (1, naive),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                color="0.4",
                fontsize=8,
            )
        ax.set(xlabel="step", title=title, yscale="log")
    axes[0].set_ylabel("masked loss (standard deviations²)")
    axes[1].legend(title="split, fold", fontsize=7)
    sns.despine(fig)
    return fig


def reconstructions(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    cell_km: float,
    units: str = "standard deviations",
) -> Figure:
    """Draw input, masked input, reconstruction and error of windows, a row each.

    Parameters
    ----------
    panels : mapping
        Row title to {"input", "masked", "reconstructed", "error"} of arrays (H, W).
    cell_km : float
        Cell size, for the axes (km).
    """
    fig, axes = plt.subplots(
        len(panels), 4, figsize=(9.5, 2.15 * len(panels) + 0.4), layout="constrained", squeeze=False
    )
    for row, (title, parts) in zip(axes, panels.items(), strict=True):
        top = np.nanmax(np.abs(parts["input"]))
        side = parts["input"].shape[0] * cell_km / 2
        for ax, name in zip(row, ["input", "masked", "reconstructed", "error"], strict=True):
            image = ax.imshow(
                parts[name], cmap="RdBu_r", vmin=-top, vmax=top, extent=(-side, side, -side, side)
            )
            ax.set_facecolor(plots.NODATA)
            ax.tick_params(labelsize=7)
        row[0].set_ylabel(title + "\nkm from centre", fontsize=8)
        fig.colorbar(image, ax=row[-1], label=units, pad=0.02)
    for ax, name in zip(axes[0], ["input", "masked input", "reconstructed", "error"], strict=True):
        ax.set_title(name)
    return fig


def layer_errors(errors: pd.DataFrame) -> Figure:
    """Draw each layer's reconstruction error against the plain fills.

    Parameters
    ----------
    errors : DataFrame
        Index layer; one column a fill, root mean squared error (standard deviations).
    """
    ordered = errors.sort_values("MAE")
    fig, ax = plt.subplots(figsize=(7, 0.24 * len(errors) + 1.2), layout="constrained")
    markers = {"layer mean": "|", "window mean": "x", "bilinear": "s", "MAE": "o"}
    height = np.arange(len(ordered))
    for name, marker in markers.items():
        if name in ordered:
            ax.plot(
                ordered[name],
                height,
                marker,
                label=name,
                markersize=6,
                markerfacecolor="none" if marker == "s" else None,
            )
    ax.set_yticks(height, [plots.readable(name) for name in ordered.index], fontsize=8)
    ax.set(xlabel="error on masked cells (standard deviations)", xlim=(0, None))
    ax.grid(axis="y", color="0.92")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
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
        Training positives and negatives, a region each.
    """
    fig, axes = plots.panels(len(distance))
    high = max(float(np.nanpercentile(result["distance"], 98)) for result in distance.values())
    low = min(float(np.nanpercentile(result["distance"], 2)) for result in distance.values())
    for k, (ax, (region, result)) in enumerate(zip(axes, distance.items(), strict=True)):
        label = "mean distance to the deposits (standard deviations)"
        plots.show_map(result["distance"], ax, label=label, title=region, limits=(low, high))
        plots.show_cells(negative[k], result, ax, color="black")
        plots.show_cells(positive[k], result, ax, color="red")
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
