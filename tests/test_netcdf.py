import numpy as np
import pyproj
import pytest
import xarray as xr
from helpers import described, refused

from mpm import netcdf, rasters

LONGITUDE, LATITUDE = np.array([10.0, 11, 12]), np.array([50.0, 51])
SIX = np.arange(6, dtype="float32").reshape(2, 3)


@pytest.fixture
def write(tmp_path):
    "Write variables (name: (dims, values, attributes)) and coordinates; return the path"

    def write(variables=None, *, engine="h5netcdf", encoding=None, **coords):
        path = tmp_path / "thing.nc"
        coords = coords or {"lat": LATITUDE, "lon": LONGITUDE}
        data = xr.Dataset(variables or {"z": (tuple(coords), SIX)}, coords)
        data.to_netcdf(path, engine=engine, encoding=encoding)
        return path

    return write


def values(path, **content):
    source = described(path, **content)
    return rasters.read(source, (0, source.rows), (0, source.columns))


@pytest.mark.parametrize(("engine", "reader"), [("h5netcdf", "h5netcdf"), ("scipy", "scipy")])
def test_both_formats_are_read_north_up(write, engine, reader):
    "Coordinates are pixel centres, so the outline lies half a pixel outside"
    path = write(engine=engine)
    assert netcdf.engine(path) == reader
    source = described(path)
    assert (source.west, source.north, source.dx, source.dy) == (9.5, 51.5, 1, 1)
    assert source.is_south_up and pyproj.CRS(source.crs).to_epsg() == 4326
    np.testing.assert_array_equal(values(path), SIX[::-1])


def test_what_is_no_netcdf_has_no_engine(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"II*\x00 a tiff")
    assert netcdf.engine(tmp_path / "a.nc") is None


def test_a_file_stored_north_up_or_by_longitude_is_read_the_same(write):
    "The order of rows and of dimensions does not matter"
    path = write({"z": (("lon", "lat"), SIX[::-1].T)}, lat=LATITUDE[::-1], lon=LONGITUDE)
    assert not described(path).is_south_up
    np.testing.assert_array_equal(values(path), SIX[::-1])


def test_packed_numbers_are_unpacked_and_fill_values_missing(write):
    "Stored as tenths in integers, with 32000 for nothing"
    packed = {"z": {"dtype": "int16", "scale_factor": 0.1, "_FillValue": 32000}}
    stored = np.array([[1.5, np.nan, 3], [4, 5, 6]])
    path = write({"z": (("lat", "lon"), stored)}, encoding=packed)
    np.testing.assert_allclose(values(path), stored[::-1], rtol=1e-6)


def stored(values, kind, **attributes):
    "Stored numbers as they are, on latitude and longitude"
    return {"z": (("lat", "lon"), np.array(values, kind), attributes)}


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
@pytest.mark.parametrize(
    "limits",
    [
        {"valid_range": np.array([-10, 20], "i2")},
        {"valid_min": np.int16(-10), "valid_max": np.int16(20)},
        {"valid_range": np.array([99, 102], "f8")},
    ],
    ids=["range", "ends", "unpacked"],
)
def test_packed_numbers_out_of_their_valid_range_are_missing(write, engine, limits):
    "Stored -10 to 20 in tenths from 100 on, ends included: 99 to 102"
    packed = {"scale_factor": np.float32(0.1), "add_offset": np.float32(100)} | limits
    path = write(stored([[-11, -10, 0], [20, 21, 102]], "i2", **packed), engine=engine)
    right = [[102, np.nan, np.nan], [np.nan, 99, 100]]
    np.testing.assert_allclose(values(path), right, rtol=1e-6)


@pytest.mark.parametrize(
    ("limits", "right"),
    [
        ({"valid_min": 0.1}, [[0.3, 0.4, 0.5], [np.nan, 0.1, 0.2]]),
        ({"valid_max": 0.3}, [[0.3, np.nan, np.nan], [0, 0.1, 0.2]]),
        ({"valid_range": [0.1, 0.4]}, [[0.3, 0.4, np.nan], [np.nan, 0.1, 0.2]]),
        ({"valid_range": "0.1 to 0.4"}, [[0.3, 0.4, 0.5], [0, 0.1, 0.2]]),
    ],
    ids=["min", "max", "range", "text"],
)
def test_numbers_out_of_their_valid_range_are_missing(write, limits, right):
    "In single precision, with ends in double precision; text says nothing"
    path = write(stored(SIX / 10, "f4", **limits))
    np.testing.assert_allclose(values(path), right, rtol=1e-6)


def test_valid_whole_numbers_may_be_half_a_range(write):
    path = write(stored(SIX, "i2", valid_min=np.int16(2)))
    np.testing.assert_array_equal(values(path), [[3, 4, 5], [np.nan, np.nan, 2]])


def test_unsigned_numbers_have_an_unsigned_valid_range(write):
    "Bytes 0, 127, 200 and 255 are stored as 0, 127, -56 and -1, and the highest, 200, as -56"
    limits = {"_Unsigned": "true", "valid_range": np.array([1, -56], "i1")}
    path = write(stored([[0, 127, -56], [-1, 1, 2]], "i1", **limits), engine="scipy")
    np.testing.assert_array_equal(values(path), [[np.nan, 1, 2], [np.nan, 127, 200]])


def test_the_variable_is_named_where_there_are_several(write):
    "Variables on other coordinates do not count"
    dims = ("lat", "lon")
    two = {"a": (dims, SIX), "b": (dims, SIX + 10), "names": ("kind", [1, 2])}
    path = write(two, lat=LATITUDE, lon=LONGITUDE)
    refused(path, "several variables", "['a', 'b']")
    refused(path, "no variable 'c'; it has ['a', 'b']", variable="c")
    np.testing.assert_array_equal(values(path, variable="b"), SIX[::-1] + 10)


def test_a_band_is_a_position_along_the_third_dimension(write):
    "The first is 1; a dimension of one value is none"
    stack = np.stack([SIX, SIX + 10])[:, None]
    dims = ("rock", "time", "lat", "lon")
    path = write({"z": (dims, stack)}, lat=LATITUDE, lon=LONGITUDE)
    np.testing.assert_array_equal(values(path, band=2), SIX[::-1] + 10)
    refused(path, "no band 3 of 2", band=3)


def test_two_more_dimensions_are_refused(write):
    dims = ("rock", "time", "lat", "lon")
    path = write({"z": (dims, np.zeros((2, 2, 2, 3)))}, lat=LATITUDE, lon=LONGITUDE)
    refused(path, "has the dimensions", "keep one besides lat and lon")


def test_a_file_without_coordinates_is_refused(write):
    path = write({"z": (("row", "column"), SIX)}, time=[1])
    refused(path, "no variable on longitude and latitude")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_may_differ_but_not_vary(write, dtype):
    "1.25 by 0.942 degrees in single precision is regular; Gaussian latitudes are not"
    even = {"lat": np.linspace(-90, 90, 192).astype(dtype), "lon": np.arange(288, dtype=dtype)}
    source = described(write({"z": (("lat", "lon"), np.zeros((192, 288)))}, **even))
    np.testing.assert_allclose([source.dx, source.dy], [1, 180 / 191], rtol=1e-6)
    gaussian = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(32)[0])).astype(dtype)
    path = write({"z": (("lat", "lon"), np.zeros((32, 3)))}, lat=gaussian, lon=LONGITUDE)
    refused(path, "unevenly spaced along lat", "regular grid")


def test_longitudes_must_run_east(write):
    path = write({"z": (("lat", "lon"), SIX)}, lat=LATITUDE, lon=LONGITUDE[::-1])
    refused(path, "from east to west")


def test_one_row_is_no_grid(write):
    path = write({"z": (("lat", "lon"), SIX[:1])}, lat=LATITUDE[:1], lon=LONGITUDE)
    refused(path, "fewer than two values along lat")


METRES = {"y": np.array([5_000_000.0, 5_001_000]), "x": np.array([5e5, 501_000, 502_000])}


def test_metres_need_a_crs_which_the_file_or_the_study_may_give(write):
    "By a grid mapping, as in CF, or under `crs`"
    path = write({"z": (("y", "x"), SIX)}, **METRES)
    refused(path, "has no CRS")
    assert pyproj.CRS(described(path, crs="EPSG:32633").crs).to_epsg() == 32633
    mapping = pyproj.CRS("EPSG:32755").to_cf()
    both = {"z": (("y", "x"), SIX, {"grid_mapping": "utm"}), "utm": ((), 0, mapping)}
    assert pyproj.CRS(described(write(both, **METRES)).crs).to_epsg() == 32755


def test_degrees_may_be_of_another_datum(write):
    "Longitudes and latitudes are taken for WGS 84 unless the study says otherwise"
    path = write({"z": (("y", "x"), SIX)}, y=LATITUDE, x=LONGITUDE)
    refused(path, "has no CRS")  # x and y say nothing
    assert pyproj.CRS(described(path, crs="EPSG:4283").crs).to_epsg() == 4283
    assert pyproj.CRS(described(write(), crs="EPSG:4283").crs).to_epsg() == 4283


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
@pytest.mark.parametrize("share", [0.95, 0.5, 0.1])
def test_a_truncated_file_cannot_be_read(write, engine, share):
    "Whether the header or the numbers are cut off"
    big = {"z": (("lat", "lon"), np.random.default_rng(0).normal(size=(200, 300)))}
    path = write(big, engine=engine, lat=np.arange(200) * 0.1, lon=np.arange(300) * 0.1)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(OSError):
        values(path)
