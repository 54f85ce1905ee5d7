from pathlib import Path

import numpy as np
import pyproj
import pytest

from mpm import places
from mpm.rasters import Source

UTM = pyproj.CRS("EPSG:32633").to_wkt()
DEGREES = pyproj.CRS("EPSG:4326").to_wkt()


def source(crs=UTM, west=500_000.0, north=5_006_000.0, step=500.0, size=12, period=None) -> Source:
    place = {"crs": crs, "west": west, "north": north, "dx": step, "dy": step}
    rest = {"is_south_up": False, "variable": None, "band": 1, "valid_range": None}
    size = {"rows": size, "columns": size, "period": period}
    return Source(path=Path("a.tif"), modified=0, **place, **size, **rest)


@pytest.fixture
def cells():
    "3 x 4 cells of 1 km"
    return places.grid("EPSG:32633", (500_000, 5_006_000), 1000, (3, 4))


def strip_of(cells, part=None):
    (strip,) = places.strips(cells, part)
    return strip


def test_cell_centres_lie_half_a_cell_inside_the_edges(cells):
    np.testing.assert_array_equal(cells["x"], 500_500 + np.arange(4) * 1000)
    np.testing.assert_array_equal(cells["y"], 5_005_500 - np.arange(3) * 1000)
    assert cells.rio.bounds() == (500_000, 5_003_000, 504_000, 5_006_000)
    assert cells.rio.crs.to_epsg() == 32633


def test_a_grid_takes_no_memory(cells):
    "All cells share one zero, which nobody can change, also in a grid made of its coordinates"
    for each in (cells, places.padded(cells, 2), places.plane(cells.coords.to_dataset())):
        assert each.values.strides == (0, 0) and (each == 0).all() and each.dtype == "float32"
        with pytest.raises(ValueError, match="read-only"):
            each.values[0, 0] = 1
    assert each.identical(cells) and each.rio.transform() == cells.rio.transform()


def test_a_part_of_a_grid_is_a_grid(cells):
    "Rows 1 and 2, columns 2 and 3: its own corner, not that of the whole"
    part = places.cut(cells, (slice(1, 3), slice(2, None)))
    assert part.rio.bounds() == (502_000, 5_003_000, 504_000, 5_005_000)
    assert part.rio.transform()[:6] == (1000, 0, 502_000, 0, -1000, 5_005_000)
    assert places.cut(cells, None) is cells


def test_a_margin_lies_on_every_side(cells):
    wide = places.padded(cells, 2)
    assert wide.shape == (7, 8)
    assert wide.rio.bounds() == (498_000, 5_001_000, 506_000, 5_008_000)
    np.testing.assert_array_equal(wide[2:-2, 2:-2]["x"], cells["x"])


def test_positions_count_pixels_from_the_north_west(cells):
    "Two pixels along a cell: centres fall on the edges 1, 3, 5 ..."
    rows, columns, known = places.centres(source(), strip_of(cells), 0)
    assert known.all()
    np.testing.assert_allclose(rows, np.tile([[1], [3], [5]], 4))
    np.testing.assert_allclose(columns, np.tile([1, 3, 5, 7], (3, 1)))
    rows, columns, _ = places.corners(source(), strip_of(cells), 0)
    np.testing.assert_allclose(rows[:, 1, 2], [2, 2, 4, 4])
    np.testing.assert_allclose(columns[:, 1, 2], [4, 6, 4, 6])


def test_points_are_spread_evenly_over_a_cell(cells):
    "Of cell (1, 2), 2 x 2 pixels from (2, 4): four points at the pixels' centres"
    *corners, _ = places.corners(source(), strip_of(cells), 0)
    found = [(rows[1, 2], columns[1, 2]) for rows, columns in places.points(*corners, 2)]
    np.testing.assert_allclose(found, [(2.5, 4.5), (2.5, 5.5), (3.5, 4.5), (3.5, 5.5)])


def test_a_part_has_the_positions_of_the_whole():
    "To the last bit, also of corners, in a CRS that bends the grid and a step that no binary holds"
    cells = places.grid("ESRI:102008", (-3e6 + 0.1, 3e6 + 0.3), 10_000 / 3, (40, 50))
    raster = source(DEGREES, -180.0, 90.0, 0.1, 3600)
    part = (slice(7, 30), slice(11, 50))
    for find in (places.centres, places.corners):
        whole, some = (find(raster, strip_of(cells, each), -100) for each in (None, part))
        for a, b in zip(whole, some, strict=True):
            np.testing.assert_array_equal(a[..., 7:30, 11:50], b)


def test_strips_make_up_the_part(cells, monkeypatch):
    "Two rows of four cells at a time"
    monkeypatch.setattr(places, "STRIP", 8)
    first, last = places.strips(cells)
    np.testing.assert_array_equal(np.concatenate([first.y, last.y]), cells["y"])
    assert first.y_edges[-1] == last.y_edges[0] == 5_004_000


def test_longitudes_keep_within_half_a_turn():
    "Across 180 degrees, columns of a raster that starts at 0 run on beyond 180"
    around = "+proj=laea +lon_0=180 +lat_0=0"
    cells = places.grid(around, (-200_000, 50_000), 100_000, (1, 4))
    _, columns, _ = places.centres(source(DEGREES, 0.0, 90.0, 1.0, 360, 360), strip_of(cells), 180)
    degree = 111_195
    np.testing.assert_allclose(
        columns[0], 180 + np.array([-1.5, -0.5, 0.5, 1.5]) * 1e5 / degree, rtol=1e-3
    )


def test_a_cell_at_the_jump_of_longitudes_is_put_together():
    "Cut at 0 by longitudes around 180: the corners of a cell across 0 stay side by side"
    cells = places.grid("+proj=laea +lon_0=0 +lat_0=0", (-50_000, 50_000), 100_000, (1, 1))
    _, columns, _ = places.corners(source(DEGREES, 0.0, 90.0, 1.0, 360, 360), strip_of(cells), 180)
    width = columns[:, 0, 0] - columns[0, 0, 0]
    np.testing.assert_allclose(width, [0, 0.9, 0, 0.9], atol=0.01)


def test_places_that_the_raster_cannot_know_are_told():
    "East of 105 degrees west lies the far side of an orthographic map around 165 east"
    near = pyproj.CRS("+proj=ortho +lat_0=0 +lon_0=165").to_wkt()
    cells = places.grid("+proj=laea +lon_0=-105 +lat_0=0", (-2.6e6, 1e6), 1e6, (2, 4))
    rows, columns, known = places.centres(source(near, -7e6, 7e6, 1e5, 140), strip_of(cells), 0)
    np.testing.assert_array_equal(known, [[True, True, True, False]] * 2)
    assert np.isfinite(rows).all() and columns.max() < 140
    rows, columns, known = places.corners(source(near, -7e6, 7e6, 1e5, 140), strip_of(cells), 0)
    np.testing.assert_array_equal(known, [[True, True, False, False]] * 2)
