import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr
from affine import Affine

from mpm import places, rasters, resample
from mpm.layers import Layer

WEST, NORTH, STEP = 500_000, 5_006_000, 1000
ALASKA = (-2_600_000, 3_600_000)  # north-west of the map: north is 40 degrees off the grid's


@pytest.fixture
def cells():
    "6 x 6 cells of 1 km"
    return places.grid("EPSG:32633", (WEST, NORTH), STEP, (6, 6))


@pytest.fixture
def raster(tmp_path):
    "Write pixels of `step` m (or degrees) from a north-west corner, and describe them"

    def raster(values, *, step=STEP, west=WEST, north=NORTH, crs="EPSG:32633", **profile):
        values = np.asarray(values)
        profile |= {"transform": Affine(step, 0, west, 0, -step, north), "crs": crs}
        size = {"height": values.shape[0], "width": values.shape[1], "dtype": values.dtype}
        with rasterio.open(
            tmp_path / "a.tif", "w", driver="GTiff", count=1, **size, **profile
        ) as f:
            f.write(values, 1)
        return described(tmp_path / "a.tif")

    return raster


@pytest.fixture
def globe(tmp_path):
    "Write a function of longitude and latitude (degrees) on a grid of the Earth"

    def globe(function, longitude, latitude):
        values = function(*np.meshgrid(longitude, latitude))
        grid = xr.DataArray(values, {"lat": latitude, "lon": longitude}, ("lat", "lon"), "z")
        grid.to_dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        return described(tmp_path / "a.nc")

    return globe


def described(path) -> rasters.Source:
    layer = Layer(name="thing", group="g", units="1", file=path.name)
    return rasters.describe(layer, path)


def lonlat(cells):
    "Longitude and latitude of every cell's centre"
    to_degrees = pyproj.Transformer.from_crs(cells.rio.crs, "EPSG:4326", always_xy=True)
    return to_degrees.transform(*np.meshgrid(cells["x"], cells["y"]))


def wave(longitude, latitude):
    "Smooth, and the same at 0 and 360"
    return np.cos(np.radians(longitude)) + 2 * np.sin(np.radians(latitude))


# ---- the plan


@pytest.mark.parametrize(
    ("step", "is_finer", "blocks", "size"),
    [
        (3000, False, (1, 1), "3 km"),
        (1000, False, (1, 1), "1 km"),
        (700, False, (1, 1), "700 m"),
        (600, True, (1, 1), "600 m"),
        (250, True, (1, 1), "250 m"),
        (100, True, (1, 1), "100 m"),
        (50, True, (3, 3), "50 m"),
    ],
)
def test_more_than_one_and_a_half_pixels_a_cell_are_averaged(
    cells, raster, step, is_finer, blocks, size
):
    "Blocks are a sixth of a cell at most"
    how = resample.plan(raster(np.zeros((6000 // step, 6000 // step)), step=step), cells)
    assert (how.is_finer, how.blocks, how.size) == (is_finer, blocks, size)


def test_pixels_are_measured_at_the_region(globe):
    "0.25 degrees of a global grid at 60 north: 13.9 km wide, 27.9 km high"
    whole = globe(wave, np.arange(0, 360.1, 0.25), np.arange(-90, 90.1, 0.25))
    cells = places.grid("+proj=laea +lon_0=25 +lat_0=60", (-5e5, 5e5), 50_000, (20, 20))
    how = resample.plan(whole, cells)
    assert how.size == "13.9 x 27.9 km" and how.is_finer
    assert (how.blocks, how.points) == ((1, 1), 8)  # 50 / 13.9 is 3.6: 4, twice
    cells = places.grid("+proj=laea +lon_0=25 +lat_0=60", (-5e5, 5e5), 40_000, (20, 20))
    assert not resample.plan(whole, cells).is_finer  # not both ways


# ---- numbers


def test_interpolation_does_not_smooth(cells, raster):
    "1.25 pixels along a cell: at cell centres on pixel centres the value is the pixel's own"
    values = np.random.default_rng(0).normal(size=(12, 12)).astype("float32")
    source = raster(values, step=800, west=WEST + 100, north=NORTH - 100)
    found = resample.continuous(source, cells)
    # cell 0 has its centre 400 m inside the raster, on pixel 0; cell 4 on pixel 5
    np.testing.assert_allclose(found[::4, ::4], values[:6:5, :6:5], rtol=1e-6)


def test_interpolation_weighs_what_is_observed(cells, raster):
    "A quarter of a pixel from (1, 1) to the missing (1, 2): the others keep their weights"
    values = np.array([[0, 0, 0], [0, 8, np.nan], [0, 4, 4]], "float32")
    source = raster(values, west=WEST - 1250, north=NORTH + 1250)
    # weights: 9/16 of 8, 3/16 missing, 3/16 of 4, 1/16 of 4
    found = resample.continuous(source, cells)[0, 0]
    np.testing.assert_allclose(found, (9 * 8 + 3 * 4 + 4) / 13, rtol=1e-6)


def test_a_cell_with_less_than_half_of_its_weight_is_missing(cells, raster):
    "Nearer to the missing column than to the observed one"
    values = np.tile(np.array([5, np.nan], "float32"), (8, 4))
    for shift, missing in [(400, False), (500, False), (600, True)]:
        source = raster(values, west=WEST - 1000 - shift, north=NORTH + 1000)
        found = resample.continuous(source, cells)
        assert np.isnan(found[0, 1]) == missing
        assert set(found[np.isfinite(found)]) == {5}


def test_the_rim_of_a_raster_is_where_it_ends(cells, raster):
    "Pixels of 2 km end at 3.4 or 3.6 cells: half of the weight is on the outline"
    for edge, columns in [(3400, 3), (3600, 4)]:
        source = raster(np.ones((6, 3)), step=2000, west=WEST + edge - 6000, north=NORTH + 3000)
        found = resample.continuous(source, cells)
        np.testing.assert_array_equal(np.isfinite(found[2]), np.arange(6) < columns)


def test_cubic_interpolation_keeps_parabolas(cells, raster):
    "x squared on pixels of 2.5 km comes out exactly, and one missing pixel of 16 counts"
    x = np.arange(-4, 6) * 2.5
    values = np.tile(x**2, (10, 1))
    place = {"step": 2500, "west": WEST - 11_250, "north": NORTH + 11_250}
    found = resample.continuous(raster(values, **place), cells, cubic=True)
    np.testing.assert_allclose(found, np.tile((np.arange(6) + 0.5) ** 2, (6, 1)), rtol=1e-6)
    values[3, 3] = np.nan
    found = resample.continuous(raster(values, **place), cells, cubic=True)
    assert np.isnan(found[0, 0]) and np.isfinite(found[5, 5])


def test_an_average_is_over_the_whole_cell_whatever_way_it_lies(raster):
    """Over a square around 0 the mean of x y is 0, and that of x squared a twelfth of its side's.

    Over a box between two corners, in a map that is turned by 40 degrees against the raster, the
    mean of x y would be a twelfth of the side's square, too.
    """
    cells = places.grid("ESRI:102008", ALASKA, 10_000, (3, 3))
    longitude, latitude = lonlat(cells)
    longitude = np.arange(longitude.min() - 0.5, longitude.max() + 0.5, 0.01)
    latitude = np.arange(latitude.max() + 0.2, latitude.min() - 0.2, -0.01)
    to_grid = pyproj.Transformer.from_crs("EPSG:4326", cells.rio.crs, always_xy=True)
    x, y = to_grid.transform(*np.meshgrid(longitude, latitude))
    x, y = x - cells["x"].values[1], y - cells["y"].values[1]
    place = {"step": 0.01, "west": longitude[0] - 0.005, "north": latitude[0] + 0.005}
    for values, mean in [(x * y, 0), (x**2, 10_000**2 / 12)]:
        source = raster(values, crs="EPSG:4326", **place)
        assert resample.plan(source, cells).is_finer
        found = resample.continuous(source, cells)[1, 1]
        np.testing.assert_allclose(found, mean, atol=0.05 * 10_000**2 / 12)


@pytest.mark.parametrize("step", [500, 250, 100, 50, 40])
def test_fine_pixels_are_averaged_also_by_blocks(cells, raster, step):
    "A plane's mean over a cell is its value at the centre; points place it to 3 % of a cell"
    count = 8000 // step
    axis = (np.arange(count) + 0.5) * step - 1000
    values = 2 * axis[None] - 3 * axis[:, None]
    found = resample.continuous(
        raster(values, step=step, west=WEST - 1000, north=NORTH + 1000), cells
    )
    middle = (np.arange(6) + 0.5) * 1000
    np.testing.assert_allclose(
        found, 2 * middle[None] - 3 * middle[:, None], atol=0.03 * (2000 + 3000)
    )
    assert abs(found.mean() - (2 - 3) * 3000) < 50


@pytest.mark.parametrize("step", [250, 50])
def test_a_mean_is_of_what_is_observed(cells, raster, step):
    "7 west of the middle of cell (0, 0), nothing east of it: 7, and missing where a bit more goes"
    count = 6000 // step
    for lost, missing in [(500, False), (600 if step == 50 else 750, True)]:
        values = np.full((count, count), 7, "float32")
        values[:, : lost // step] = np.nan
        found = resample.continuous(raster(values, step=step), cells)
        assert np.isnan(found[:, 0]).all() == missing
        assert set(found[np.isfinite(found)]) == {7}


# ---- around the Earth


@pytest.mark.parametrize("middle", [180, 0, -100])
@pytest.mark.parametrize("first", [0, -180])
@pytest.mark.parametrize("step", [2.0, 0.25])
def test_a_globe_is_seamless_wherever_a_region_lies(globe, middle, first, step):
    "Across 180 degrees and across Greenwich, interpolated and averaged, from either kind of file"
    node_registered = first + np.arange(0, 360 + step / 2, step)
    source = globe(wave, node_registered, np.arange(-90, 90 + step / 2, step))
    cells = places.grid(f"+proj=laea +lon_0={middle} +lat_0=-20", (-1e6, 1e6), 100_000, (20, 20))
    assert resample.plan(source, cells).is_finer == (step == 0.25)
    np.testing.assert_allclose(resample.continuous(source, cells), wave(*lonlat(cells)), atol=2e-3)


def test_a_region_may_hold_a_pole(globe):
    "All longitudes meet in it; the raster's own latitude comes back"
    source = globe(lambda x, y: y, np.arange(0.5, 360), np.arange(-89.5, 90))
    cells = places.grid("EPSG:3413", (-1e6, 1e6), 50_000, (40, 40))
    found, latitude = resample.continuous(source, cells), lonlat(cells)[1]
    np.testing.assert_allclose(found[latitude < 89.4], latitude[latitude < 89.4], atol=0.01)
    fine = globe(lambda x, y: y, np.arange(0.05, 360, 0.1), np.arange(-89.95, 90, 0.1))
    cells = places.grid("EPSG:3413", (-1e6, 1e6), 100_000, (20, 20))
    assert resample.plan(fine, cells).is_finer
    found, latitude = resample.continuous(fine, cells), lonlat(cells)[1]
    np.testing.assert_allclose(found[latitude < 89], latitude[latitude < 89], atol=0.1)
    assert (found[latitude > 89] > 89).all()


def test_longitudes_beyond_180_lie_where_they_lie(globe):
    "A file of 190 to 290 east for a region at 120 west"
    source = globe(wave, np.arange(190, 291), np.arange(0, 81))
    cells = places.grid("+proj=laea +lon_0=-120 +lat_0=40", (-1e6, 1e6), 50_000, (40, 40))
    np.testing.assert_allclose(resample.continuous(source, cells), wave(*lonlat(cells)), atol=1e-3)


# ---- classes


def test_shares_of_codes_are_counted(cells, raster):
    "Of 4 pixels in cell (0, 0) 3 are 9 and one is 2; in (0, 1) one is unknown, one missing"
    codes = np.full((12, 12), 2, "uint8")
    codes[0, :2] = codes[1, 0] = 9
    codes[0, 2:4] = 5, 255
    (nine, two), seen = resample.class_shares(raster(codes, step=500, nodata=255), cells, [9, 2])
    assert (nine[0, 0], two[0, 0], seen[0, 0]) == (0.75, 0.25, 1)
    assert (nine[0, 1], two[0, 1], seen[0, 1]) == (0, 0.5, 0.75)
    assert (two[1:] == 1).all() and (seen[1:] == 1).all()


def test_a_code_at_the_centre_has_the_whole_of_a_small_cell(cells, raster):
    "Pixels of 2 km that end in the middle of the region: nothing beyond"
    codes = np.array([[4, 6], [8, 4]], "int16")
    source = raster(codes, step=2000, north=NORTH)
    shares, seen = resample.class_shares(source, cells, [4, 6, 8])
    for share, code in zip(shares, [4, 6, 8], strict=True):
        expected = np.kron(codes == code, np.ones((2, 2)))
        np.testing.assert_array_equal(share[:4, :4], expected)
    np.testing.assert_array_equal(seen, np.pad(np.ones((4, 4)), (0, 2)))


# ---- parts


CASES = {"coarse": 0.5, "alike": 0.1, "fine": 0.02, "blocks": 0.006}


@pytest.mark.parametrize("step", CASES.values(), ids=CASES)
def test_a_part_is_a_part_of_the_whole(raster, monkeypatch, step):
    "Bit by bit, with gaps, in strips, in a map that bends, partly beyond the raster"
    rng = np.random.default_rng(0)
    cells = places.grid("ESRI:102008", ALASKA, 10_000, (24, 30))
    longitude, latitude = lonlat(cells)
    values = rng.normal(size=(int(4 / step), int(5 / step))).astype("float32")
    values[rng.random(values.shape) < 0.2] = np.nan
    place = {"west": longitude.min() - 0.5, "north": latitude.max() - 0.5}
    source = raster(values, step=step, crs="EPSG:4326", **place)
    whole = resample.continuous(source, cells)
    assert 0.1 < np.isfinite(whole).mean() < 0.99
    monkeypatch.setattr(places, "STRIP", 100)
    part = (slice(5, 20), slice(9, 28))
    np.testing.assert_array_equal(resample.continuous(source, cells, part), whole[part])
    np.testing.assert_array_equal(resample.continuous(source, cells), whole)


@pytest.mark.parametrize("step", CASES.values(), ids=CASES)
def test_a_part_has_the_shares_of_the_whole(raster, monkeypatch, step):
    cells = places.grid("ESRI:102008", ALASKA, 10_000, (24, 30))
    longitude, latitude = lonlat(cells)
    shape = int(4 / step), int(5 / step)
    codes = np.random.default_rng(0).integers(0, 4, shape, dtype="uint8")
    place = {"west": longitude.min() - 0.5, "north": latitude.max() - 0.5}
    source = raster(codes, step=step, crs="EPSG:4326", nodata=0, **place)
    shares, seen = resample.class_shares(source, cells, [1, 2, 3])
    monkeypatch.setattr(places, "STRIP", 100)
    part = (slice(5, 20), slice(9, 28))
    some, some_seen = resample.class_shares(source, cells, [1, 2, 3], part)
    np.testing.assert_array_equal(some_seen, seen[part])
    for whole, found in zip(shares, some, strict=True):
        np.testing.assert_array_equal(found, whole[part])


# ---- elsewhere


@pytest.mark.parametrize(
    ("place", "touches"),
    [
        ({}, True),
        ({"west": WEST + 5000, "north": NORTH - 5000}, True),
        ({"west": WEST + 700_000}, False),
        ({"crs": "EPSG:32756"}, False),
        ({"crs": "+proj=ortho +lat_0=-45 +lon_0=-165", "west": 0, "north": 0}, False),
    ],
)
def test_a_raster_elsewhere_touches_no_cell(cells, raster, place, touches):
    "And leaves all cells missing; the last one is a map of the far hemisphere"
    source = raster(np.ones((6, 6), "float32"), **place)
    assert resample.touches(source, cells) == touches
    assert np.isfinite(resample.continuous(source, cells)).any() == touches
    assert (resample.class_shares(source, cells, [1])[1] > 0).any() == touches


@pytest.mark.parametrize("step", [2e6, 2e4])
def test_cells_without_a_place_in_the_rasters_crs_are_missing(raster, step):
    "East of 105 degrees west lies the far side of an orthographic map around 165 east"
    near = "+proj=ortho +lat_0=0 +lon_0=165"
    count = int(14e6 / step)
    source = raster(np.ones((count, count), "uint8"), step=step, west=-7e6, north=7e6, crs=near)
    cells = places.grid("+proj=laea +lon_0=-105 +lat_0=0", (-3.6e6, 1e6), 1e6, (2, 6))
    found = resample.continuous(source, cells)
    assert resample.plan(source, cells).is_finer == (step == 2e4)
    assert np.isnan(found[:, 4:]).all() and (found[:, :3] == 1).all()
    seen = resample.class_shares(source, cells, [1])[1]
    assert (seen[:, 4:] == 0).all() and (seen[:, :3] == 1).all()


def test_a_region_across_the_seam_reads_no_more_than_it_needs(globe, monkeypatch):
    "20 degrees around 180 of a file from -180 to 180"
    source = globe(wave, np.arange(-179.5, 180), np.arange(-89.5, 90))
    cells = places.grid("+proj=laea +lon_0=180 +lat_0=0", (-1e6, 1e6), 50_000, (40, 40))
    asked, read = [], rasters.read
    monkeypatch.setattr(rasters, "read", lambda *window: asked.append(window) or read(*window))
    resample.continuous(source, cells)
    (_, _, (first, last)) = asked[0]
    assert last - first < 30
