"""Figures of targets."""

from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from mpm import map_styles, plots

NAMED = 9  # targets whose rank is written beside them


def target_maps(
    maps: Mapping[str, xr.Dataset],
    found: Mapping[str, gpd.GeoDataFrame],
    deposits: Mapping[str, pd.DataFrame],
    *,
    title: str = "",
) -> Figure:
    """Draw targets over the likelihood, a panel a region, with known deposits.

    Parameters
    ----------
    maps : dict of Dataset
        By region: `likelihood (y, x)`.
    found : dict of GeoDataFrame
        By region, of `targets.find`.
    deposits : dict of DataFrame
        By region: x, y (m).
    title : str

    Returns
    -------
    Figure
        New ground is outlined in red, ground that holds known deposits in black; numbers are ranks.
    """
    fig, axes = plots.panels(len(maps))
    for ax, (region, result) in zip(axes, maps.items(), strict=True):
        own = found[region]
        plots.show_map(result["likelihood"], ax, label="likelihood (1)", limits=(0, 1))
        plots.show_deposits(deposits[region], ax, color="black")
        for target in own.itertuples():
            _outline(target, ax)
        new = int((own["known"] == 0).sum())
        ax.set_title(f"{plots.readable(region)}: {len(own)} targets, {new} on new ground (red)")
    fig.suptitle(title)
    return fig


def _outline(target: Any, ax: Axes) -> None:
    """Draw one target (row of `targets.find`) and, of the first ones, its rank."""
    color = map_styles.KNOWN if target.known else map_styles.NEW
    halo = [withStroke(linewidth=2.4, foreground="white")]
    for polygon in target.geometry.geoms:
        for ring in (polygon.exterior, *polygon.interiors):
            x, y = ring.xy
            ax.plot([a / 1e3 for a in x], [b / 1e3 for b in y], color=color, lw=1.1,
                    path_effects=halo)  # fmt: skip
    if target.rank <= NAMED:
        _, south, east, north = (side / 1e3 for side in target.geometry.bounds)
        ax.annotate(
            str(target.rank), (east, (south + north) / 2), (2, 0), textcoords="offset points",
            color=color, fontsize=8, fontweight="bold", va="center", path_effects=halo,
        )  # fmt: skip
