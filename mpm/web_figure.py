"""What is drawn on the web map: images that the page fills, lines, targets and deposits."""

from typing import Any

import geopandas as gpd
import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from bokeh.models import (
    BoxZoomTool,
    ColorBar,
    ColumnDataSource,
    GlyphRenderer,
    HoverTool,
    LinearColorMapper,
    PanTool,
    ResetTool,
    WheelZoomTool,
)
from bokeh.plotting import figure
from matplotlib.colors import to_hex

from mpm import map_styles, web_layers
from mpm.geography import crs_code

LONGEST = 760  # screen pixels of the longer side of a map
GROUND = "#e6e6e6"  # no data: light grey, as in the figures
CLEAR = "rgba(0, 0, 0, 0)"
NAMED = 20  # targets whose rank is written beside them


def draw(result: xr.Dataset, known: pd.DataFrame, found: gpd.GeoDataFrame) -> dict:
    """Draw a region's map; what needs a value (images, their colours) the page fills.

    Parameters
    ----------
    result : Dataset
        Its grid is the map's.
    known : DataFrame
        Deposits: name, type, x, y (m).
    found : GeoDataFrame
        Of `targets.find`.

    Returns
    -------
    dict
        The figure and its parts, by the names that the page's code knows.
    """
    west, south, east, north = (side / 1e3 for side in result.rio.bounds())
    scale = LONGEST / max(east - west, north - south)
    plot = figure(
        frame_width=round(scale * (east - west)),
        frame_height=round(scale * (north - south)),
        x_range=(west, east),
        y_range=(south, north),
        x_axis_label=f"Easting (km), {crs_code(result.rio.crs) or 'local CRS'}",
        y_axis_label="Northing (km)",
        background_fill_color=GROUND,
        tools=[PanTool(), BoxZoomTool(match_aspect=True), ResetTool()],
        toolbar_location="above",
    )
    wheel = WheelZoomTool()
    plot.add_tools(wheel)
    plot.toolbar.active_scroll, plot.toolbar.logo = wheel, None
    plot.grid.visible = False
    parts = {"figure": plot}
    for name in ("evidence", "map"):
        image, bar = _image(plot, result)
        parts |= {f"{name}_image": image, f"{name}_bar": bar}
    return parts | _lines(plot, result) | _targets(plot, found) | _deposits(plot, known)


def _image(plot: figure, grid: xr.Dataset) -> tuple[GlyphRenderer, ColorBar]:
    """Add an image without values, which the page fills, and its colour bar."""
    west, south, east, north = (side / 1e3 for side in grid.rio.bounds())
    empty = np.zeros((grid.sizes["y"], grid.sizes["x"]), "float32")
    place = {"x": [west], "y": [south], "dw": [east - west], "dh": [north - south]}
    mapper = LinearColorMapper(palette=palette("viridis"), low=0, high=1, nan_color=CLEAR)
    source = ColumnDataSource({"image": [empty]} | place)
    image = plot.image("image", "x", "y", "dw", "dh", source=source, color_mapper=mapper)
    bar = ColorBar(color_mapper=mapper, title="", width=14, title_text_font_size="12px", padding=6)
    plot.add_layout(bar, "right")
    return image, bar


def _lines(plot: figure, grid: xr.Dataset) -> dict:
    lines = web_layers.graticule(grid)
    look: dict[str, Any] = {"line_color": "#404040", "line_alpha": 0.45, "line_width": 0.7}
    source = {"xs": [x for _, x, _ in lines], "ys": [y for _, _, y in lines]}
    drawn = plot.multi_line("xs", "ys", source=ColumnDataSource(source), **look)
    at = ColumnDataSource(_starts(lines, abs(plot.y_range.end - plot.y_range.start) / 25))
    names = plot.text(
        "x", "y", "name", source=at, text_font_size="10px", x_offset=3,
        y_offset=-2, text_color="#303030", **_PLATE,
    )  # fmt: skip
    return {"lines_shown": drawn, "line_names_shown": names}


def _starts(lines: list, apart: float) -> dict:
    """Where the names of lines go: at their first point, unless another (km) is too near."""
    at: dict[str, list] = {"x": [], "y": [], "name": []}
    for name, x, y in lines:
        first = int(np.flatnonzero(np.isfinite(x))[0])
        away = np.hypot(np.array(at["x"]) - x[first], np.array(at["y"]) - y[first])
        if (away > apart).all():
            for key, value in zip(at, (x[first], y[first], name), strict=True):
                at[key].append(value)
    return at


# a light ground behind a name: an outline would cover the letters
_PLATE: dict[str, Any] = {"background_fill_color": "white", "background_fill_alpha": 0.75}


def _targets(plot: figure, found: gpd.GeoDataFrame) -> dict:
    """Add outlines: red for new ground, black where a deposit is known, on white."""
    outlines: dict[str, list] = {"xs": [], "ys": []}
    for shape in found.geometry:
        rings = [[polygon.exterior, *polygon.interiors] for polygon in shape.geoms]
        for axis, name in enumerate(outlines):
            outlines[name].append(
                [[[point[axis] / 1e3 for point in ring.coords] for ring in part] for part in rings]
            )
    colours = np.where(found["known"] > 0, map_styles.KNOWN, map_styles.NEW).tolist()
    source = ColumnDataSource(outlines | {"colour": colours})
    shared: dict[str, Any] = {"source": source, "fill_color": None}
    halo = plot.multi_polygons("xs", "ys", line_color="white", line_width=3.2, **shared)
    outline = plot.multi_polygons("xs", "ys", line_color="colour", line_width=1.6, **shared)
    sides = found.geometry.bounds.head(NAMED) / 1e3
    at = {"x": sides["maxx"].tolist(), "y": sides[["miny", "maxy"]].mean(axis=1).tolist()}
    at |= {"colour": colours[:NAMED], "rank": found["rank"].head(NAMED).astype(str).tolist()}
    rank = plot.text(
        "x", "y", "rank", source=ColumnDataSource(at), text_color="colour", x_offset=3,
        text_font_size="12px", text_font_style="bold", text_baseline="middle", **_PLATE,
    )  # fmt: skip
    return {"halo_shown": halo, "outline_shown": outline, "rank_shown": rank}


def _deposits(plot: figure, known: pd.DataFrame) -> dict:
    texts = {name: known[name].astype(str).tolist() for name in ("name", "type")}
    place = {"x": (known["x"] / 1e3).tolist(), "y": (known["y"] / 1e3).tolist()}
    source = ColumnDataSource(place | texts)
    drawn = plot.scatter(
        "x", "y", source=source, size=7, fill_color="white", line_color="black", line_width=1.5
    )
    plot.add_tools(HoverTool(renderers=[drawn], tooltips="@name @type"))
    return {"deposits": source, "deposits_shown": drawn}


def palette(name: str) -> list[str]:
    """Return 256 colours of a colour map."""
    return [to_hex(colour) for colour in matplotlib.colormaps[name](np.linspace(0, 1, 256))]
