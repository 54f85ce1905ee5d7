"""Figures: style, saving, maps and their parts, baselines."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import AbstractPathEffect, withStroke
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from mpm import artefacts
from mpm.geography import crs_code
from mpm.method_names import NAMES

DPI = 150
DRAWN = 1000  # cells along a side of a map that are drawn: more than a panel has pixels
NODATA = "0.90"  # light grey, no colour of any scale
UNEXPLAINED = 0.65  # mid-grey: predicted ground without an explanation
TARGET_COLORS = ["red", "black", "magenta", "orange", "blue", "saddlebrown", "green", "purple"]
# names of layers that a reader may not know for what they are
_SPELT_OUT = {"lab": "LAB depth", "moho": "Moho depth", "lab_depth": "LAB depth"}
_SPELT_OUT |= {"moho_depth": "Moho depth"}
SCALES = {"likelihood": "viridis", "uncertainty": "magma"}
METHODS = {"oracle": "oracle (true probability)"} | NAMES


def house_style() -> None:
    """Set fonts and sizes of all figures."""
    sns.set_theme(style="ticks", palette="colorblind", font_scale=0.85)
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": DPI,
            "axes.titlesize": "medium",
            "axes.facecolor": "white",
            "legend.frameon": False,
            "image.interpolation": "nearest",
            # text in figures must not depend on fonts that happen to be installed
            "font.family": "DejaVu Sans",
        }
    )


def save(fig: Figure, study: str, name: str) -> Path:
    """Save a figure as `figures/<study>/<name>.png`, atomically, the same bytes for the same data.

    Parameters
    ----------
    fig : Figure
    study : str
        Name of the study.
    name : str
        "NN_what", NN being the notebook's number.
    """
    place = artefacts.figures(study) / f"{name}.png"
    with artefacts.atomic(place) as fresh:
        with io.BytesIO() as drawn:
            fig.savefig(drawn, dpi=DPI, format="png")
            picture = artefacts.fewer_colours(drawn)
        # no software version and no date go into the file
        picture.save(fresh, dpi=(DPI, DPI), optimize=True)
    return place


def show_map(
    layer: xr.DataArray,
    ax: Axes | None = None,
    *,
    label: str,
    title: str = "",
    cmap: str | Colormap = "viridis",
    limits: tuple[float | None, float | None] | None = None,
    deposits: pd.DataFrame | None = None,
    deposit_color: str = "red",
    bar: bool = True,
    axes: bool = True,
) -> Axes:
    """Draw one layer (y, x) in kilometres with a colour bar.

    Parameters
    ----------
    layer : DataArray (y, x)
        With a projected CRS, in memory or a Dask array, of which at most `DRAWN` cells a side
        are kept; NaN is drawn in light grey.
    ax : Axes, optional
    label : str
        Of the colour bar, with units.
    title : str
    cmap : str or Colormap
    limits : (float, float), optional
        Colour range; by default the 2nd to 98th percentile.
    deposits : DataFrame, optional
        Columns x, y (m); drawn as hollow circles.
    deposit_color : str
    bar, axes : bool
        Whether to draw the colour bar, and the kilometre axes.

    Returns
    -------
    Axes
    """
    ax = ax or plt.subplots(figsize=(5, 4.5), layout="constrained")[1]
    layer = thinned(layer)
    values = layer.values
    if limits is None:
        limits = tuple(np.nanpercentile(values, [2, 98])) if np.isfinite(values).any() else (0, 1)
    image = ax.imshow(values, extent=extent_km(layer), cmap=cmap, vmin=limits[0], vmax=limits[1])
    ax.set_facecolor(NODATA)
    if bar:
        norm = image.norm
        low, high = bool((values < norm.vmin).any()), bool((values > norm.vmax).any())
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[low, high]
        ax.figure.colorbar(image, ax=ax, label=label, extend=extend, shrink=0.85, pad=0.02)
    if deposits is not None and len(deposits):
        show_deposits(deposits, ax, color=deposit_color)
    ax.set_title(title)
    if axes:
        kilometres(ax)
        note_crs(layer, ax)
    else:
        ax.set(aspect="equal", xticks=[], yticks=[])
    return ax


def show_deposits(deposits: pd.DataFrame, ax: Axes, *, color: str = "red", label: str = "") -> None:
    """Draw deposits as hollow circles above a map in kilometres.

    Parameters
    ----------
    deposits : DataFrame
        Columns x, y (m).
    ax : Axes
    color : str
    label : str
        For the legend.
    """
    ax.plot(
        deposits["x"] / 1e3,
        deposits["y"] / 1e3,
        "o",
        markersize=3.5,
        markerfacecolor="none",
        markeredgecolor=color,
        markeredgewidth=0.7,
        label=label or None,
        path_effects=halo("white", 1.4),
    )


def fit(axes: np.ndarray, size: tuple[float, float], *, gap: float = 0.12) -> None:
    """Give all panels of a figure one size and even gaps, and the figure the size that takes.

    What sticks out of the panels (labels, titles, bars) is measured, so that none is cut off or
    overlaps another, whatever its length.

    Parameters
    ----------
    axes : array (rows, columns) of Axes
        All panels of one figure without a layout engine, drawn on and labelled.
    size : (float, float)
        Width and height of a panel (inches).
    gap : float
        Between what sticks out of neighbouring panels (inches).
    """
    fig = axes[0, 0].figure
    whole = fig.get_size_inches()
    for ax in axes.flat:
        ax.set_position([0, 0, *(np.array(size) / whole)])
    inner = np.array([ax.get_window_extent().extents for ax in axes.flat])
    outer = np.array([ax.get_tightbbox().extents for ax in axes.flat])
    # text is a little longer at other resolutions than the one it is measured at
    left, bottom, right, top = 1.05 * abs(outer - inner).max(axis=0) / fig.dpi + gap / 2
    title = fig._suptitle.get_window_extent() if fig.get_suptitle() else None
    above, across = (title.height / fig.dpi + gap, title.width / fig.dpi + gap) if title else (0, 0)
    rows, columns = axes.shape
    step = np.array([left + size[0] + right, bottom + size[1] + top])
    whole = np.array([max(columns * step[0], across), rows * step[1] + above])
    fig.set_size_inches(whole)
    for (row, column), ax in np.ndenumerate(axes):
        corner = step * (column, rows - 1 - row) + (left, bottom)
        ax.set_position([*(corner / whole), *(np.array(size) / whole)])
    if title:
        fig._suptitle.set(y=1 - gap / 2 / whole[1], verticalalignment="top")


def readable_units(units: str, values: np.ndarray) -> tuple[float, str]:
    """Return what to divide values (any shape) by, and their units then, for a reader.

    Nobody reads distances of a continent in metres; values without units are shares if they lie
    between 0 and 1.
    """
    low, high = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
    if units == "m" and max(-low, high) >= 20_000:
        return 1000, "km"
    if units == "1":
        return 1, "share" if low >= 0 and high <= 1 else "no units"
    return 1, units


def show_targets(ax: Axes, deposits: pd.DataFrame, targets: Mapping, region: str) -> None:
    """Draw a region's known deposits, a colour a target (see `name_targets`), and count them.

    Parameters
    ----------
    ax : Axes
    deposits : DataFrame
        Columns x, y (m), type.
    targets : mapping
        Of the study.
    region : str
    """
    counts = []
    for color, (name, target) in zip(TARGET_COLORS, targets.items(), strict=False):
        own = target.of(deposits)
        show_deposits(own, ax, color=color, label=name)
        counts.append(f"{own['deposit'].nunique()} {name}")
    ax.set_title(": ".join(filter(None, [readable(region), ", ".join(counts)])))


def name_targets(fig: Figure, ax: Axes) -> None:
    """Say below a figure which colour is which target's, of one of its maps."""
    handles, names = ax.get_legend_handles_labels()
    if names:  # outside, where it hides no deposit, on ground of its own
        fig.set_figheight(fig.get_figheight() + 0.4)
        fig.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4))


def panels(
    count: int,
    *,
    size: tuple[float, float] = (5.2, 4.6),
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Return a figure with panels side by side, and their axes (count,).

    Parameters
    ----------
    count : int
    size, sharex, sharey
        As for `grid`.
    """
    fig, axes = grid(1, count, size, sharex=sharex, sharey=sharey)
    return fig, axes[0]


def grid(
    rows: int,
    columns: int,
    size: tuple[float, float],
    *,
    beside: float = 0,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Return a figure with rows of panels, and their axes (rows, columns).

    Parameters
    ----------
    rows, columns : int
    size : (float, float)
        Width and height of a panel (inches).
    beside : float
        Room beside them (inches).
    sharex, sharey : bool
    """
    whole = size[0] * columns + beside, size[1] * rows
    return plt.subplots(
        rows, columns, figsize=whole, layout="constrained", sharex=sharex, sharey=sharey,
        squeeze=False,
    )  # fmt: skip


def kilometres(ax: Axes) -> None:
    """Label the axes of a map in kilometres, the same length in both directions."""
    ax.set(aspect="equal", xlabel="Easting (km)", ylabel="Northing (km)")
    ax.locator_params(nbins=6)


def thinned(layer: xr.DataArray) -> xr.DataArray:
    """Return every second, third ... cell of a map (y, x): at most `DRAWN` a side remain.

    Figures hold what they draw, and a map of a cube larger than memory must not be held.
    """
    step = -(-max(layer.sizes["y"], layer.sizes["x"]) // DRAWN)
    if step <= 1:
        return layer
    middle = slice(step // 2, None, step)  # of the cells that the kept one stands for
    few = layer.isel(y=middle, x=middle)
    return few.rio.write_transform(few.rio.transform(recalc=True))


def extent_km(layer: xr.DataArray | xr.Dataset) -> tuple[float, float, float, float]:
    """Return west, east, south, north of a grid (y, x) in km, as `imshow` wants them."""
    west, south, east, north = layer.rio.bounds()
    return west / 1e3, east / 1e3, south / 1e3, north / 1e3


def note_crs(layer: xr.DataArray, ax: Axes) -> None:
    """Write the authority's code of a map's (y, x) projection into its corner."""
    name = crs_code(layer.rio.crs) or "local CRS"
    note = ax.annotate(name, (0.99, 0.01), xycoords="axes fraction", fontsize=6.5, ha="right")
    note.set_path_effects(halo("white", 1.5))


def scale_bar(ax: Axes, layer: xr.DataArray | xr.Dataset) -> None:
    """Draw a bar of about a quarter of the width of a map (y, x), with its length in kilometres."""
    west, east, _, _ = extent_km(layer)
    length = float(f"{(east - west) / 4:.0e}")
    bar = AnchoredSizeBar(
        ax.transData, length, f"{length:g} km", "lower left", label_top=True, sep=2, pad=0.3,
        size_vertical=0, fontproperties=FontProperties(size=7),
    )  # fmt: skip
    bar.patch.set(facecolor="white", edgecolor="none", alpha=0.8)  # read on any ground
    ax.add_artist(bar)


def show_cells(
    cells: np.ndarray, grid: xr.Dataset | xr.DataArray, ax: Axes, color: str = "black"
) -> None:
    """Draw cells of a grid as dots on a map in kilometres.

    Parameters
    ----------
    cells : array (y, x) of bool
    grid : Dataset or DataArray (y, x)
        Coordinates in m.
    ax : Axes
    color : str
    """
    rows, cols = np.nonzero(cells)
    x, y = grid["x"].values[cols] / 1e3, grid["y"].values[rows] / 1e3
    ax.plot(x, y, ".", color=color, markersize=1.5)


def readable(name: str) -> str:
    """Return a layer's name as a reader would write it."""
    return _SPELT_OUT.get(str(name)) or str(name).replace("_", " ").replace("=", ": ")


def halo(color: str, linewidth: float) -> list[AbstractPathEffect]:
    """Effect that draws a wider line beneath, so that lines and text are seen on any ground."""
    return [withStroke(linewidth=linewidth, foreground=color)]


def show_ground(result: xr.Dataset, ax: Axes) -> None:
    """Show in mid-grey, beneath a map, where there is a prediction that was not explained."""
    ground = np.where(result["likelihood"].notnull(), UNEXPLAINED, np.nan)
    ax.imshow(ground, extent=extent_km(result), cmap="gray", vmin=0, vmax=1, zorder=-1)


def largest(planes: Iterable[xr.DataArray]) -> float:
    """End of a scale around zero for maps (y, x): the largest 98th percentile of sizes, or 1."""
    parts = (np.abs(plane.values[np.isfinite(plane.values)]) for plane in planes)
    return max((float(np.percentile(part, 98)) for part in parts if part.size), default=0) or 1.0
