import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import Delaunay
from shapely.geometry import Point

from mpm import gridding, places
from mpm.layers import Layer

WEST, NORTH, STEP = 500_000, 5_006_000, 1000
CELLS = places.grid("EPSG:32633", (WEST, NORTH), STEP, (6, 6))
ROW, COL = np.mgrid[:6, :6]


def layer(**fields):
    fields = {"x": "x", "y": "y", "crs": "EPSG:32633", "column": "value", "reach": 20_000} | fields
    return Layer(name="heat", group="thermal", units="mW/m2", file="a.csv", kind="points", **fields)


def gridded(folder, places_, values, sep=",", **fields):
    "Values at (row, col) of the grid"
    row, col = np.array(places_, float).T
    table = {"x": WEST + (col + 0.5) * STEP, "y": NORTH - (row + 0.5) * STEP, "value": values}
    pd.DataFrame(table).to_csv(folder / "a.csv", index=False, sep=sep)
    return gridding.grid_points(layer(**fields), folder / "a.csv", CELLS)


CORNERS = [(-2, -2), (-2, 8), (8, -2), (8, 8), (3, 3)]


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_plane_through_points_is_kept(tmp_path, method):
    "Four points beside the region and one inside, on a plane: each cell has the plane's value"
    plane = [2 * row + 3 * col for row, col in CORNERS]
    found = gridded(tmp_path, CORNERS, plane, method=method)
    np.testing.assert_allclose(found, 2 * ROW + 3 * COL, atol=1e-4)


def test_nearest_takes_the_nearest_value(tmp_path):
    found = gridded(tmp_path, [(2, 0), (2, 5)], [1, 2], method="nearest")
    np.testing.assert_array_equal(found, np.tile([1, 1, 1, 2, 2, 2], (6, 1)))


def test_cells_farther_than_reach_from_any_point_are_missing(tmp_path):
    "2 km around the cell (2, 2) are 13 cells"
    found = gridded(tmp_path, [(2, 2)], [5], method="nearest", reach=2000)
    np.testing.assert_array_equal(np.isfinite(found), np.hypot(ROW - 2, COL - 2) <= 2)
    assert np.nansum(found) == 65


def test_nothing_is_extrapolated_beyond_the_convex_hull(tmp_path):
    "A triangle over the north-western half"
    corners = [(-0.1, -0.1), (-0.1, 5.1), (5.1, -0.1)]
    found = gridded(tmp_path, corners, [7, 7, 7])
    inside = Delaunay(corners).find_simplex(np.stack([ROW, COL], axis=-1)) >= 0
    np.testing.assert_array_equal(np.isfinite(found), inside)


def test_median_of_a_cell_counts_once_however_many_points(tmp_path):
    "Nine low values and duplicates in one cell against its neighbours: the median is 1"
    crowd = [(2, 2)] * 5 + [(2.1, 2.2), (1.9, 1.8), (2.2, 2.1), (2, 2)]
    found = gridded(tmp_path, [*crowd, (2, 5)], [1] * 8 + [100, 4], method="nearest")
    assert found[2, 2] == 1 and found[2, 5] == 4


def test_missing_values_and_those_out_of_range_are_left_out(tmp_path):
    "Of six points two are left; the rest of the table says nothing"
    (tmp_path / "a.csv").write_text(
        "x;y;value\n500500;5003500;10,5\n505500;5003500;20\n501500;5003500;-999\n"
        "502500;5003500;\n;5003500;70\n504500;;70\n"
    )
    found = gridding.grid_points(
        layer(method="nearest", valid_range=(0, 300)), tmp_path / "a.csv", CELLS
    )
    assert set(np.unique(found)) == {10.5, 20}


def test_points_beside_the_region_count_and_those_beyond_twice_the_reach_do_not(tmp_path):
    near = gridded(tmp_path, [(2, -2)], [5], method="nearest", reach=3000)
    assert np.isfinite(near).any(axis=0).tolist() == [True, True, False, False, False, False]
    with pytest.raises(
        ValueError, match="'heat': no value of .*a.csv lies within 3000 m of the region"
    ):
        gridded(tmp_path, [(2, -8)], [5], method="nearest", reach=3000)


def test_cubic_does_not_overshoot(tmp_path):
    "A cliff between columns 2 and 3: no value beyond 0 and 1"
    spots = [(row, col) for row in range(-2, 9) for col in range(-2, 9)]
    found = gridded(tmp_path, spots, [float(col > 2) for _, col in spots], method="cubic")
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_too_few_points_for_a_triangle_are_named(tmp_path, method):
    for spots in ([(2, 2), (3, 3)], [(0, 0), (1, 1), (4, 4)]):
        with pytest.raises(ValueError, match=f"'heat': the points of .*a.csv .* method '{method}'"):
            gridded(tmp_path, spots, range(len(spots)), method=method)


def test_points_of_a_vector_file_are_gridded(tmp_path):
    path = tmp_path / "a.gpkg"
    spots = [Point(WEST + 500, NORTH - 500), Point(WEST + 5500, NORTH - 500)]
    gpd.GeoDataFrame({"value": [1, 2]}, geometry=spots, crs="EPSG:32633").to_file(path)
    found = gridding.grid_points(layer(method="nearest"), path, CELLS)
    assert found[0].tolist() == [1, 1, 1, 2, 2, 2]


def test_missing_column_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"'heat': .*a.csv has no column 'valve'.*did you mean 'value'\?"
    ):
        gridded(tmp_path, CORNERS, range(5), column="valve")


def test_value_that_is_no_number_is_named(tmp_path):
    with pytest.raises(ValueError, match="'heat': .*a.csv, line 4: column 'value' is not a number"):
        gridded(tmp_path, CORNERS, [1, 2, "<3", 4, 5])


def test_heat_flow_of_north_america_is_low_on_the_shield(mirror):
    "Basin and Range against Superior, from a table parted by blanks with gaps"
    (path,) = mirror.glob("MareenLoesing/GHF-Antarctica-MachineLearning/*/Combined_HF.txt")
    cells = places.grid("ESRI:102008", (-3_000_000, 3_000_000), 50_000, (100, 110))
    heat = layer(
        x="Lon", y="Lat", column="HF", crs="EPSG:4326", reach=100_000, valid_range=(5, 250)
    )
    found = gridding.grid_points(heat, path, cells)
    spots = gpd.GeoSeries([Point(-117, 40), Point(-80, 49)], crs="EPSG:4326").to_crs("ESRI:102008")
    basin, shield = (
        np.nanmedian(found[row - 3 : row + 4, col - 3 : col + 4])
        for row, col in zip(
            (3_000_000 - spots.y) // 50_000, (spots.x + 3_000_000) // 50_000, strict=True
        )
        for row, col in [(int(row), int(col))]
    )
    assert basin > 60 > 50 > shield
    assert 5 <= np.nanmin(found) and np.nanmax(found) <= 250
