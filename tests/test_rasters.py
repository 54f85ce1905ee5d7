import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr
from affine import Affine
from helpers import described, refused

from mpm import rasters

UTM = "EPSG:32633"
CORNER = Affine(1000, 0, 500_000, 0, -1000, 5_006_000)


@pytest.fixture
def tif(tmp_path):
    "Write a raster of one band, or (band, y, x), of 1 km pixels; return its path"

    def tif(values, *, scale=None, offset=None, **profile):
        path = tmp_path / "thing.tif"
        bands = np.asarray(values)
        bands = bands if bands.ndim == 3 else bands[None]
        size = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
        profile = size | {"crs": UTM, "transform": CORNER, "dtype": bands.dtype} | profile
        with rasterio.open(path, "w", driver="GTiff", **profile) as target:
            target.write(bands)
            if scale is not None:
                target.scales, target.offsets = [scale] * len(bands), [offset] * len(bands)
        return path

    return tif


@pytest.fixture
def globe(tmp_path):
    "Write a GMT-like grid of the whole Earth that holds its own longitude, 30 degrees a pixel"

    def globe(longitude, latitude):
        values = np.tile(np.asarray(longitude, "float32"), (len(latitude), 1))
        grid = xr.DataArray(values, {"lat": latitude, "lon": longitude}, ("lat", "lon"), "z")
        grid.to_dataset().to_netcdf(tmp_path / "thing.nc", engine="h5netcdf")
        return tmp_path / "thing.nc"

    return globe


NINE = np.arange(9, dtype="float32").reshape(3, 3)


def test_a_geotiff_says_where_its_pixels_lie(tif):
    source = described(tif(NINE))
    assert (source.west, source.north, source.dx, source.dy) == (500_000, 5_006_000, 1000, 1000)
    assert (source.rows, source.columns, source.period) == (3, 3, None)
    assert pyproj.CRS(source.crs).to_epsg() == 32633 and not source.is_geographic


def test_a_window_may_reach_beyond_the_raster(tif):
    "One pixel to the north and west is missing, the rest is as written"
    found = rasters.read(described(tif(NINE)), (-1, 2), (-1, 2))
    assert np.isnan(found[0]).all() and np.isnan(found[:, 0]).all()
    np.testing.assert_array_equal(found[1:, 1:], NINE[:2, :2])


@pytest.mark.parametrize(("rows", "columns"), [((3, 5), (0, 3)), ((0, 3), (-4, 0))])
def test_a_window_outside_is_all_missing(tif, rows, columns):
    found = rasters.read(described(tif(NINE)), rows, columns)
    assert found.shape == (rows[1] - rows[0], columns[1] - columns[0]) and np.isnan(found).all()


def test_a_raster_stored_south_up_is_read_north_up(tif):
    "Its first row is the southernmost; parts of it are turned too"
    source = described(tif(NINE, transform=Affine(1000, 0, 500_000, 0, 1000, 5_003_000)))
    assert source.north == 5_006_000
    np.testing.assert_array_equal(rasters.read(source, (0, 3), (0, 3)), NINE[::-1])
    np.testing.assert_array_equal(rasters.read(source, (0, 1), (1, 3)), NINE[2:, 1:])


def test_what_is_missing_in_a_file_is_missing(tif):
    "Integer nodata, and scale and offset that turn 10 into 10 * 0.5 + 3"
    path = tif(np.array([[10, -32768]], "int16"), nodata=-32768, scale=0.5, offset=3)
    found = rasters.read(described(path), (0, 1), (0, 2))
    np.testing.assert_array_equal(found, [[8, np.nan]])
    assert found.dtype == "float32"


def test_infinite_values_and_those_out_of_range_are_missing(tif):
    "A range of 0 to 9 in the file's own values, both ends included"
    path = tif(np.array([[np.inf, -np.inf, -1, 0, 9, 9.5]], "float32"))
    found = rasters.read(described(path, valid_range=[0, 9]), (0, 1), (0, 6))
    np.testing.assert_array_equal(found, [[np.nan, np.nan, np.nan, 0, 9, np.nan]])


def test_large_codes_stay_what_they_are(tif):
    "16777217 is no float32"
    codes = np.array([[16777217, 3]], "int32")
    source = described(tif(codes))
    np.testing.assert_array_equal(rasters.read(source, (0, 1), (0, 2)), codes)
    assert rasters.codes(source) == (3, 16777217)


def test_codes_are_whole_numbers(tif):
    with pytest.raises(ValueError, match="holds 2.5; classes are whole numbers, so use kind: cont"):
        rasters.codes(described(tif(np.array([[1, 2.5]], "float32"))))


def test_codes_leave_nodata_out(tif):
    source = described(tif(np.array([[5, 2], [255, 2]], "uint8"), nodata=255))
    assert rasters.codes(source) == (2, 5)


def test_the_asked_band_is_read(tif):
    source = described(tif(np.stack([NINE, NINE + 10])), band=2)
    np.testing.assert_array_equal(rasters.read(source, (0, 3), (0, 3)), NINE + 10)


def test_a_changed_file_is_read_anew(tif):
    "What is known of a file holds for that state of it"
    assert described(tif(NINE)).columns == 3
    assert described(tif(NINE[:, :2])).columns == 2


# ---- around the Earth


@pytest.mark.parametrize("first", [0, -180])
def test_a_globe_has_no_seam(globe, first):
    "Twelve columns of 30 degrees; those before the first are the last, those after the last recur"
    longitude = first + 15 + 30 * np.arange(12)
    source = described(globe(longitude, [-45, 45]), file="thing.nc")
    assert (source.period, source.columns, source.west) == (12, 12, first)
    found = rasters.read(source, (0, 1), (-2, 3))[0]
    np.testing.assert_array_equal(found, longitude[[-2, -1, 0, 1, 2]])
    np.testing.assert_array_equal(rasters.read(source, (0, 1), (11, 13))[0], longitude[[11, 0]])
    twice = rasters.read(source, (0, 1), (-12, 12))[0]
    np.testing.assert_array_equal(twice, np.tile(longitude, 2))


def test_a_node_registered_globe_repeats_no_column(globe):
    "0, 30 ... 360: 360 is 0 again and is dropped; the first pixel reaches from -15 to 15"
    source = described(globe(np.arange(0, 361, 30), np.arange(-90, 91, 30)), file="thing.nc")
    assert (source.columns, source.period, source.west, source.north) == (12, 12, -15, 105)
    np.testing.assert_array_equal(rasters.read(source, (0, 1), (10, 14))[0], [300, 330, 0, 30])


def test_part_of_the_earth_ends_where_it_ends(globe):
    "330 degrees are no globe: beyond the last column nothing is known"
    source = described(globe(np.arange(0, 330, 30), [-45, 45]), file="thing.nc")
    assert source.period is None
    np.testing.assert_array_equal(rasters.read(source, (0, 1), (10, 12))[0], [300, np.nan])


# ---- what can be wrong


def test_a_raster_without_crs_may_be_told_one(tif):
    path = tif(NINE, crs=None)
    refused(path, "has no CRS", "`crs`")
    assert pyproj.CRS(described(path, crs=UTM).crs).to_epsg() == 32633


def test_a_crs_that_contradicts_the_files_own_is_refused(tif):
    "In words of another kind it may say the same"
    path = tif(NINE)
    refused(path, "its own CRS (WGS 84 / UTM zone 33N)", "(WGS 84)", crs="EPSG:4326")
    same = "+proj=utm +zone=33 +datum=WGS84 +units=m +type=crs"
    assert pyproj.CRS(described(path, crs=same).crs).to_epsg() == 32633


def test_a_table_is_no_raster(tif):
    path = tif(NINE).with_suffix(".csv")
    path.write_text("x,y,code\n1,2,3\n")
    refused(path, "is a table; use kind: points")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_without_a_place_is_refused(tif):
    refused(tif(NINE, transform=Affine.identity()), "does not say where it lies")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_rotated_raster_is_refused(tif):
    refused(tif(NINE, transform=Affine(985, 174, 500_000, 174, -985, 5_006_000)), "is rotated")


def test_pixels_must_be_square_in_metres_but_not_in_degrees(tif):
    "A hundredth of difference is rounding"
    refused(
        tif(NINE, transform=Affine(1000, 0, 5e5, 0, -2000, 5e6)), "pixels of 1000 x 2000", "square"
    )
    assert described(tif(NINE, transform=Affine(1000, 0, 5e5, 0, -1005, 5e6))).dy == 1005
    degrees = tif(NINE, crs="EPSG:4326", transform=Affine(1.25, 0, 10, 0, -0.5, 50))
    assert (described(degrees).dx, described(degrees).dy) == (1.25, 0.5)


def test_degrees_that_are_called_metres_are_refused(tif):
    "Bounds of 10 to 13 and 47 to 50 m would be a spot beside the projection's origin"
    path = tif(NINE, transform=Affine(1, 0, 10, 0, -1, 50))
    refused(path, "projected (WGS 84 / UTM zone 33N)", "10, 47, 13, 50 look like degrees")


def test_metres_that_are_called_degrees_are_refused(tif):
    refused(tif(NINE, crs="EPSG:4326"), "in degrees (WGS 84)", "503000", "correct its CRS")


def test_a_continent_in_kilometres_is_not_in_degrees(tif):
    "Bounds of 300 km around the projection's origin; pixels are compared in the CRS's own unit"
    crs = "+proj=laea +lat_0=45 +lon_0=15 +datum=WGS84 +units=km"
    source = described(tif(NINE, crs=crs, transform=Affine(200, 0, -300, 0, -200, 300)))
    assert (source.west, source.north, source.dx) == (-300, 300, 200)


def test_a_local_crs_leads_nowhere(tif):
    "Metres from the corner of a mine"
    refused(tif(NINE, crs='LOCAL_CS["mine grid",UNIT["metre",1]]'), "own (mine grid)")


def test_an_unknown_band_or_variable_is_named(tif):
    refused(tif(NINE), "no band 2 of 1", band=2)
    refused(tif(NINE), "is no NetCDF file; leave `variable` out", variable="z")


@pytest.mark.parametrize("share", [0.9, 0.5, 0.01])
def test_a_truncated_geotiff_cannot_be_read(tif, share):
    path = tif(np.random.default_rng(0).integers(0, 9, (60, 60), "uint8"))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(OSError):
        rasters.read(described(path), (0, 60), (0, 60))
