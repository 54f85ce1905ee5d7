import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rasterio.transform import from_origin
from shapely.geometry import MultiPolygon, box

from mpm import map_styles, web_figure

KNOWN = pd.DataFrame({"name": ["A"], "type": ["MVT"], "x": [50_000.0], "y": [-2_030_000.0]})


def targets(count) -> gpd.GeoDataFrame:
    "Squares of 10 km, the second holding a deposit, the first with a hole"
    squares = [box(1e4 * k, -2.02e6, 1e4 * (k + 1), -2.01e6) for k in range(count)]
    squares[0] = squares[0].difference(box(2e3, -2.018e6, 8e3, -2.012e6))
    known = [int(k == 1) for k in range(count)]
    columns = {"rank": np.arange(1, count + 1), "known": known}
    return gpd.GeoDataFrame(columns, geometry=[MultiPolygon([each]) for each in squares], crs=3577)


def draw(count=3) -> dict:
    "200 km x 400 km in Australia's Albers"
    result = xr.Dataset({"likelihood": (("y", "x"), np.ones((40, 20)))})
    result = result.assign_coords(x=5e3 + 1e4 * np.arange(20), y=-2.005e6 - 1e4 * np.arange(40))
    result = result.rio.write_crs(3577).rio.write_transform(from_origin(0, -2e6, 1e4, 1e4))
    return web_figure.draw(result, KNOWN, targets(count))


def test_a_kilometre_is_as_long_in_both_directions():
    "The frame has the shape of the grid, and the axes name units and CRS"
    figure = draw()["figure"]
    assert (figure.frame_width, figure.frame_height) == (web_figure.LONGEST / 2, web_figure.LONGEST)
    assert (figure.x_range.start, figure.x_range.end) == (0, 200)
    assert (figure.y_range.start, figure.y_range.end) == (-2400, -2000)
    assert figure.xaxis.axis_label == "Easting (km), EPSG:3577"


def test_outlines_tell_new_ground_and_keep_holes():
    "In km, rings after the outer one being holes; red, black, red"
    source = draw()["outline_shown"].data_source.data
    assert source["colour"] == [map_styles.NEW, map_styles.KNOWN, map_styles.NEW]
    ((outer, hole),) = source["xs"][0]
    assert (min(outer), max(outer), min(hole), max(hole)) == (0, 10, 2, 8)
    assert len(source["xs"][1][0]) == 1
    assert min(source["ys"][2][0][0]) == -2020


def test_only_the_first_targets_are_numbered():
    "At the middle of their eastern edge; a continent has too many"
    ranks = draw(web_figure.NAMED + 5)["rank_shown"].data_source.data
    assert ranks["rank"] == [str(k + 1) for k in range(web_figure.NAMED)]
    assert (ranks["x"][1], ranks["y"][1]) == (20, -2015)


def test_a_figure_without_targets_is_drawn():
    none = targets(2).iloc[:0]
    assert len(none) == 0
    grid = xr.Dataset({"likelihood": (("y", "x"), np.ones((4, 4)))})
    grid = grid.assign_coords(x=np.arange(4.0), y=-np.arange(4.0))
    grid = grid.rio.write_crs(3577).rio.write_transform(from_origin(0, -2e6, 1e4, 1e4))
    parts = web_figure.draw(grid, KNOWN.iloc[:0], none)
    assert parts["outline_shown"].data_source.data["colour"] == []
    assert parts["deposits"].data["name"] == []


def test_deposits_are_in_kilometres_with_name_and_type():
    data = draw()["deposits"].data
    assert {key: data[key] for key in data} == {
        "x": [50], "y": [-2030], "name": ["A"], "type": ["MVT"],
    }  # fmt: skip


def test_names_of_lines_keep_apart():
    "Of two that start within 10 km the second has no name"
    x, y = np.array([np.nan, 1.0, 2.0]), np.array([np.nan, 5.0, 6.0])
    made = web_figure._starts([("a", x, y), ("b", x + 3, y), ("c", x + 30, y)], 10)
    assert made == {"x": [1, 31], "y": [5, 5], "name": ["a", "c"]}


def test_a_palette_has_the_colours_of_its_map():
    made = web_figure.palette("viridis")
    assert len(made) == 256 and (made[0], made[-1]) == ("#440154", "#fde725")
    with pytest.raises(KeyError):
        web_figure.palette("no such")
