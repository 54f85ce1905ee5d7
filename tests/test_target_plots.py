import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from helpers import texts
from matplotlib.colors import to_hex
from rasterio.transform import from_origin
from shapely.geometry import MultiPolygon, box

from mpm import map_styles, target_plots


@pytest.fixture
def drawn():
    "Ten targets in a row, the second holding a deposit, the first with a hole"
    squares = [box(1e4 * k, 0, 1e4 * (k + 0.8), 1e4) for k in range(10)]
    squares[0] = squares[0].difference(box(2e3, 2e3, 5e3, 5e3))
    columns = {"rank": np.arange(1, 11), "known": [int(k == 1) for k in range(10)]}
    shapes = [MultiPolygon([each]) for each in squares]
    found = gpd.GeoDataFrame(columns, geometry=shapes, crs=3577)
    result = xr.Dataset({"likelihood": (("y", "x"), np.full((10, 12), 0.4))})
    result = result.assign_coords(x=5e3 + 1e4 * np.arange(12), y=5e4 - 1e4 * np.arange(10))
    result = result.rio.write_crs(3577).rio.write_transform(from_origin(0, 5.5e4, 1e4, 1e4))
    known = pd.DataFrame({"x": [15e3], "y": [5e3]})
    parts = ({"far_west": each} for each in (result, found, known))
    fig = target_plots.target_maps(*parts, title="MVT")
    yield fig
    plt.close(fig)


def test_targets_are_outlined_by_what_they_hold(drawn):
    "Red on new ground, black where a deposit is known; holes have their outline too; km"
    ax = drawn.axes[0]
    rings = [line for line in ax.lines if line.get_linestyle() != "None"]
    colours = [to_hex(line.get_color()) for line in rings]
    assert colours == [map_styles.NEW] * 2 + [map_styles.KNOWN] + [map_styles.NEW] * 8
    assert (rings[1].get_xdata().min(), rings[1].get_xdata().max()) == (2, 5)
    assert rings[2].get_xdata().max() == 18


def test_the_first_targets_are_numbered_and_all_are_counted(drawn):
    ax = drawn.axes[0]
    assert [text for text in texts(ax) if text.isdigit()] == [str(k) for k in range(1, 10)]
    assert ax.get_title() == "far west: 10 targets, 9 on new ground (red)"
    assert drawn.get_suptitle() == "MVT"


def test_likelihood_lies_beneath_from_0_to_1(drawn):
    "With its deposits in km"
    (image,) = drawn.axes[0].images
    assert image.get_clim() == (0, 1) and image.cmap.name == "viridis"
    (dots,) = [line for line in drawn.axes[0].lines if line.get_linestyle() == "None"]
    assert dots.get_xydata().tolist() == [[15, 5]]
