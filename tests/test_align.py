import hashlib

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import xarray as xr
from affine import Affine
from helpers import NORTH, STEP, WEST, at, spot, write_shapes, write_tif

from mpm import align
from mpm.study import Region, Study

ALBERS = "+proj=aea +lat_1=40 +lat_2=50 +lat_0=45 +lon_0=15 +datum=WGS84 +units=m"
SQUARE = {"crs": "EPSG:32633", "resolution": STEP, "bounds": (WEST, NORTH - 6000, 506_000, NORTH)}
LAYER = {"name": "thing", "group": "geology", "units": "1"}


def make_study(folder, *layers, regions=None, deposits=None, targets=None) -> Study:
    "A study of 6 x 6 cells of 1 km whose files lie in folder/mine"
    (folder / "mine").mkdir(exist_ok=True)
    return Study(
        name="mine",
        regions=regions or {"here": SQUARE},
        layers=[LAYER | layer for layer in layers] or [LAYER | {"file": "thing.tif"}],
        deposits={"file": "deposits.csv", "x": "x", "y": "y", "crs": "EPSG:32633"}
        | (deposits or {}),
        targets=targets or {"MVT": {}},
        path=folder / "mine.yaml",
    )


def aligned(study, region="here"):
    layer = study.layers[0]
    return align.align_layer(study, layer, region, align.grid(study.regions[region]))


# ---- the grid


def test_cell_centres_lie_half_a_cell_inside_the_bounds():
    "West and north bounds plus and minus 500 m are the first centres"
    cells = align.grid(Region(**SQUARE))
    np.testing.assert_array_equal(cells["x"], WEST + np.arange(500, 6000, 1000))
    np.testing.assert_array_equal(cells["y"], NORTH - np.arange(500, 6000, 1000))
    assert cells.rio.bounds() == (500_000, 5_000_000, 506_000, 5_006_000)
    assert cells.rio.crs.to_epsg() == 32633


# ---- continuous rasters


def ramp(height, width, *, step, west, north):
    x = west + step * (np.arange(width) + 0.5) - WEST
    y = north - step * (np.arange(height) + 0.5) - NORTH
    return ((2 * x[None] + 3 * y[:, None]) / 1000).astype("float32")


@pytest.mark.parametrize(("step", "shift"), [(1500, 0), (1500, 400), (1000, 0), (1000, 300)])
def test_linear_ramp_is_interpolated_exactly(tmp_path, step, shift):
    "Bilinear interpolation of a plane is that plane: nothing moves by half a pixel"
    study = make_study(tmp_path, {"file": "thing.tif"})
    place = {"step": step, "west": WEST - 3000 + shift, "north": NORTH + 3000}
    write_tif(study.raw / "thing.tif", ramp(14, 14, **place), **place)
    found = aligned(study)
    x, y = np.arange(0.5, 6), -np.arange(0.5, 6)
    np.testing.assert_allclose(found.values[0], 2 * x[None] + 3 * y[:, None], atol=1e-4)
    assert found["method"].item() == f"bilinear from {step / 1000:g} km"


def test_raster_in_degrees_lands_where_its_longitudes_say(tmp_path):
    "A raster that holds its own longitude gives each cell centre's longitude"
    region = SQUARE | {"crs": ALBERS, "bounds": (200_000, 100_000, 206_000, 106_000)}
    study = make_study(tmp_path, {"file": "thing.tif"}, regions={"here": region})
    bounds = align.grid(study.regions["here"]).rio.transform_bounds("EPSG:4326")
    place = {"step": 0.01, "west": bounds[0] - 0.1, "north": bounds[3] + 0.1}
    longitude = place["west"] + 0.01 * (np.arange(40) + 0.5)
    values = np.tile(longitude, (40, 1)).astype("float64")
    write_tif(study.raw / "thing.tif", values, crs="EPSG:4326", **place)
    cells = align.grid(study.regions["here"])
    x, y = np.meshgrid(cells["x"], cells["y"])
    to_degrees = pyproj.Transformer.from_crs(ALBERS, "EPSG:4326", always_xy=True)
    np.testing.assert_allclose(aligned(study).values[0], to_degrees.transform(x, y)[0], atol=2e-6)


def test_finer_raster_is_averaged(tmp_path):
    "Pixels of 250 m: each cell is the mean of its 16, and the method is recorded"
    study = make_study(tmp_path, {"file": "thing.tif"})
    values = np.random.default_rng(0).normal(size=(24, 24)).astype("float32")
    write_tif(study.raw / "thing.tif", values, step=250)
    found = aligned(study)
    means = values.reshape(6, 4, 6, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(found.values[0], means, rtol=1e-4, atol=1e-6)
    assert found["method"].item() == "average of 250 m"


@pytest.mark.parametrize(
    ("step", "shift"), [(1000, 0), (1000, 300), (250, 0), (250, 130), (3000, 0)]
)
def test_nodata_collar_of_integers_never_becomes_a_number(tmp_path, step, shift):
    "Of 100 ringed by -32768, only 100 and missing come out"
    study = make_study(tmp_path, {"file": "thing.tif"})
    size = 12_000 // step
    values = np.full((size, size), 100, "int16")
    rim = max(3000 // step, 1)
    values[:rim] = values[-rim:] = values[:, :rim] = values[:, -rim:] = -32768
    place = {"step": step, "west": WEST - 3000 + shift, "north": NORTH + 3000}
    write_tif(study.raw / "thing.tif", values, nodata=-32768, **place)
    found = aligned(study).values[0]
    assert set(found[np.isfinite(found)]) == {100.0}
    assert np.isfinite(found[1:-1, 1:-1]).all()


def test_gap_keeps_its_size_under_interpolation(tmp_path):
    "Shifted by 300 m, a gap of two pixels stays the two cells nearest to it"
    study = make_study(tmp_path, {"file": "thing.tif"})
    values = np.full((10, 10), 7, "float32")
    values[4, 4:6] = np.nan
    # pixel (r, c) has its centre 300 m east of cell (r - 2, c - 2)
    write_tif(study.raw / "thing.tif", values, west=WEST - 1700, north=NORTH + 2000)
    missing = np.zeros((6, 6), bool)
    missing[2, 2:4] = True
    found = aligned(study).values[0]
    np.testing.assert_array_equal(np.isnan(found), missing)
    np.testing.assert_allclose(found[~missing], 7)


@pytest.mark.parametrize(("lost", "missing"), [(1, False), (2, False), (3, True), (4, True)])
def test_cell_is_missing_if_most_of_its_pixels_are(tmp_path, lost, missing):
    "Of 4 columns of fine pixels in cell (2, 2), `lost` are gaps: half observed is enough"
    study = make_study(tmp_path, {"file": "thing.tif"})
    values = np.full((24, 24), 7, "float32")
    values[8:12, 8 : 8 + lost] = np.nan
    write_tif(study.raw / "thing.tif", values, step=250)
    found = aligned(study).values[0]
    assert np.isnan(found[2, 2]) == missing
    assert np.isnan(found).sum() == int(missing)


def test_raster_that_covers_half_of_the_region_leaves_the_rest_missing(tmp_path):
    "Columns beyond the raster are missing, not stretched"
    study = make_study(tmp_path, {"file": "thing.tif"})
    write_tif(study.raw / "thing.tif", np.full((6, 3), 7, "float32"))
    found = aligned(study).values[0]
    assert (found[:, :3] == 7).all() and np.isnan(found[:, 3:]).all()


def test_infinite_pixels_are_missing(tmp_path):
    "An infinity spoils neither its own cell's neighbours nor an average"
    study = make_study(tmp_path, {"file": "thing.tif"})
    values = np.full((24, 24), 7, "float32")
    values[8, 8] = np.inf
    write_tif(study.raw / "thing.tif", values, step=250)
    np.testing.assert_allclose(aligned(study).values[0], 7)


def test_second_band_is_read_if_asked_for(tmp_path):
    "`band: 2` reads 2"
    study = make_study(tmp_path, {"file": "thing.tif", "band": 2})
    write_tif(study.raw / "thing.tif", np.stack([np.full((6, 6), k, "float32") for k in (1, 2)]))
    assert (aligned(study).values == 2).all() and aligned(study).dtype == "float32"


def test_the_facts_of_a_layer_come_along(tmp_path):
    "Units, group, source, reason, and the checksum of the very file"
    facts = {"units": "nT", "source": "me", "why": "because"}
    study = make_study(tmp_path, facts | {"file": "thing.tif"})
    write_tif(study.raw / "thing.tif", ONES)
    digest = hashlib.sha256((study.raw / "thing.tif").read_bytes()).hexdigest()
    found = aligned(study)
    assert {name: array.item() for name, array in found.coords.items() if array.size == 1} == {
        "layer": "thing",
        "group": "geology",
        "units": "nT",
        "kind": "continuous",
        "origin": "thing",
        "method": "bilinear from 1 km",
        "source": "me",
        "checksum": digest[:12],
        "why": "because",
    }
    write_tif(study.raw / "thing.tif", ONES + 1)
    assert aligned(study)["checksum"].item() != digest[:12]


def test_what_a_layer_becomes_is_known_without_its_values(tmp_path, monkeypatch):
    "Two classes of one file are two planes, of which all facts are told; values are not hashed"
    study = make_study(tmp_path, {"file": "thing.tif", "kind": "categorical"})
    write_tif(study.raw / "thing.tif", np.arange(36).reshape(6, 6) // 18 + 4)
    cells, found = align.grid(study.regions["here"]), aligned(study)
    facts = align.coordinates(study, study.layers[0], "here", cells)
    assert facts["layer"] == ["thing=4", "thing=5"]
    assert facts == {name: found[name].values.tolist() for name in facts}
    assert set(facts) == set(found.coords) - {"x", "y", "spatial_ref"}
    monkeypatch.setattr(align, "_checksum", None)
    values = align.planes(study, study.layers[0], "here", cells)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, found.values)


def test_a_derived_layer_has_the_checksum_of_its_parents_file(tmp_path):
    "And its own units and group"
    steep = {"name": "steep", "derive": "hgm", "of": "thing", "units": "nT/km", "group": "edges"}
    study = make_study(tmp_path, {"file": "thing.tif", "units": "nT"}, steep)
    place = {"step": STEP, "west": WEST - 3000, "north": NORTH + 3000}
    write_tif(study.raw / "thing.tif", ramp(12, 12, **place), **place)
    parent = aligned(study)
    found = align.align_layer(study, study.layers[1], "here", align.grid(study.regions["here"]))
    np.testing.assert_allclose(found.values, np.hypot(2, 3), rtol=1e-5)
    assert found["checksum"].item() == parent["checksum"].item()
    assert (found["units"].item(), found["group"].item()) == ("nT/km", "edges")


def test_the_checksum_of_a_shapefile_is_of_all_its_parts(tmp_path):
    "A new attribute table is another layer, though the outlines are the same"
    study = make_study(tmp_path, {"file": "a.shp", "kind": "fraction"})
    sums = []
    for rock in ("granite", "shale"):
        write_shapes(study.raw / "a.shp", [at(0, 0, 3, 3)], rock=[rock])
        sums.append(aligned(study)["checksum"].item())
    assert sums[0] != sums[1]


def test_a_part_of_a_layer_lies_where_it_lies(tmp_path):
    "Rows 1 to 3, columns 4 and 5, with their coordinates; a part may be empty, the whole may not"
    study = make_study(tmp_path)
    values = np.arange(36, dtype="float32").reshape(6, 6)
    values[1:4, 4:] = np.nan
    write_tif(study.raw / "thing.tif", values)
    cells = align.grid(study.regions["here"])
    for rows, columns in [(slice(1, 4), slice(4, 6)), (slice(0, 2), slice(0, 3))]:
        part = align.align_layer(study, study.layers[0], "here", cells, part=(rows, columns))
        xr.testing.assert_identical(part, aligned(study)[:, rows, columns])


# ---- categories, fractions, distances


def test_classes_of_a_raster_are_never_interpolated(tmp_path):
    "Codes 1 and 5, shifted by 300 m, become two layers of 0 and 1 that sum to 1"
    codes = np.random.default_rng(1).choice([1, 5], (10, 10)).astype("uint8")
    study = make_study(tmp_path, {"file": "thing.tif", "kind": "categorical"})
    write_tif(study.raw / "thing.tif", codes, west=WEST - 1700, north=NORTH + 2000)
    found = aligned(study)
    assert found["layer"].values.tolist() == ["thing=1", "thing=5"]
    np.testing.assert_array_equal(found.values[1], codes[2:8, 2:8] == 5)
    np.testing.assert_array_equal(found.values.sum(axis=0), 1)
    assert set(found["kind"].values) == {"binary"}
    assert set(found["method"].values) == {"one-hot by nearest of 1 km"}


def test_classes_of_a_finer_raster_go_by_majority_and_nodata_is_missing(tmp_path):
    "3 of 4 pixels win cell (0, 0); a cell of nodata alone is missing in every class"
    codes = np.full((12, 12), 2, "uint8")
    codes[0, :2] = codes[1, 0] = 9
    codes[2:4, :2] = 255
    study = make_study(tmp_path, {"file": "thing.tif", "kind": "categorical"})
    write_tif(study.raw / "thing.tif", codes, step=500, nodata=255)
    found = aligned(study)
    assert found["layer"].values.tolist() == ["thing=2", "thing=9"]
    assert found.values[:, 0, 0].tolist() == [0, 1]
    assert np.isnan(found.values[:, 1, 0]).all()
    assert np.isnan(found.values).sum() == 2
    assert (found.values[0, 2:] == 1).all()
    assert set(found["method"].values) == {"one-hot by mode of 500 m"}


@pytest.mark.parametrize(("mapped", "missing"), [(1, True), (2, False)])
def test_class_of_a_finer_raster_needs_half_of_the_cell(tmp_path, mapped, missing):
    "`mapped` of 4 pixels of cell (1, 1) hold a class, the others nodata"
    codes = np.full((12, 12), 2, "uint8")
    codes[2:4, 2:4] = np.where(np.arange(4).reshape(2, 2) < mapped, 2, 255)
    study = make_study(tmp_path, {"file": "thing.tif", "kind": "categorical"})
    write_tif(study.raw / "thing.tif", codes, step=500, nodata=255)
    found = aligned(study).values[0]
    assert np.isnan(found[1, 1]) == missing
    assert np.isnan(found).sum() == int(missing)


def test_classes_are_the_same_in_every_region(tmp_path):
    "A class that only the other region holds is a layer of zeros here"
    there = SQUARE | {"bounds": (600_000, NORTH - 6000, 606_000, NORTH)}
    layer = {"file": "{region}.tif", "kind": "categorical"}
    study = make_study(tmp_path, layer, regions={"here": SQUARE, "there": there})
    write_tif(study.raw / "here.tif", np.full((6, 6), 1, "uint8"))
    write_tif(study.raw / "there.tif", np.full((6, 6), 2, "uint8"), west=600_000)
    here, there = aligned(study), aligned(study, "there")
    assert here["layer"].values.tolist() == there["layer"].values.tolist() == ["thing=1", "thing=2"]
    assert (here.values[0] == 1).all() and (here.values[1] == 0).all()
    assert (there.values[0] == 0).all() and (there.values[1] == 1).all()


def test_polygons_win_a_cell_by_majority(tmp_path):
    "The contact at 2.4 cells gives column 2 to the eastern unit; nothing is mapped south of row 3"
    study = make_study(tmp_path, {"file": "a.gpkg", "kind": "categorical", "column": "rock"})
    shapes = [at(0, 0, 2.4, 3.4), at(2.4, 0, 6, 3.4)]
    write_shapes(study.raw / "a.gpkg", shapes, rock=["granite", "shale"])
    found = aligned(study)
    assert found["layer"].values.tolist() == ["thing=granite", "thing=shale"]
    np.testing.assert_array_equal(found.values[0, :3], [[1, 1, 0, 0, 0, 0]] * 3)
    np.testing.assert_array_equal(found.values[1, :3], [[0, 0, 1, 1, 1, 1]] * 3)
    assert np.isnan(found.values[:, 3:]).all()
    assert set(found["method"].values) == {"one-hot by majority of polygons"}


def test_polygons_in_degrees_are_brought_to_the_grid(tmp_path):
    "The same contact, stored in longitude and latitude, gives the same cells"
    study = make_study(tmp_path, {"file": "a.geojson", "kind": "categorical", "column": "rock"})
    shapes = gpd.GeoSeries([at(-1, -1, 3, 7), at(3, -1, 7, 7)], crs="EPSG:32633")
    write_shapes(study.raw / "a.geojson", shapes.to_crs("EPSG:4326"), None, rock=["a", "b"])
    np.testing.assert_array_equal(aligned(study).values[0], [[1, 1, 1, 0, 0, 0]] * 6)


def test_fraction_is_the_share_of_the_cell(tmp_path):
    "A polygon over 2.4 columns and 3 rows covers 1, 1, 0.4, 0, 0, 0 there and 0 elsewhere"
    study = make_study(tmp_path, {"file": "a.gpkg", "kind": "fraction"})
    write_shapes(study.raw / "a.gpkg", [at(0, 0, 2.4, 3)])
    found = aligned(study)
    np.testing.assert_allclose(found.values[0, :3], [[1, 1, 0.4, 0, 0, 0]] * 3, rtol=1e-6)
    assert (found.values[0, 3:] == 0).all()
    assert found["kind"].item() == "continuous"


# ---- what can be wrong with a layer


def refused(study, *parts, error=ValueError):
    "Every message names the layer, the file and the rest of `parts`"
    with pytest.raises(error) as caught:
        aligned(study)
    for part in ("'thing'", study.layers[0].file, *parts):
        assert part in str(caught.value)


ONES = np.ones((6, 6), "float32")


def test_missing_file_is_named(tmp_path):
    refused(make_study(tmp_path), "is missing", error=FileNotFoundError)


def test_a_file_that_nobody_may_look_at_is_named(tmp_path, monkeypatch):
    "Not even whether it exists can be said"

    def denied(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    study = make_study(tmp_path, {"file": "thing.tif"})
    monkeypatch.setattr(type(tmp_path), "exists", denied)
    with pytest.raises(ValueError, match="'thing': .*thing.tif cannot be read .*denied"):
        aligned(study)


def test_raster_without_crs_is_named(tmp_path):
    study = make_study(tmp_path)
    write_tif(study.raw / "thing.tif", ONES, crs=None)
    refused(study, "has no CRS")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rotated_raster_is_named(tmp_path):
    study = make_study(tmp_path)
    turned = Affine(985, 174, WEST, 174, -985, NORTH)
    write_tif(study.raw / "thing.tif", ONES, transform=turned)
    refused(study, "rotated")


def test_pixels_that_are_not_square_are_named(tmp_path):
    study = make_study(tmp_path)
    write_tif(study.raw / "thing.tif", ONES, transform=Affine(1000, 0, WEST, 0, -500, NORTH))
    refused(study, "pixels of 1000 x 500")


def test_degrees_tagged_as_metres_are_named(tmp_path):
    study = make_study(tmp_path)
    write_tif(study.raw / "thing.tif", ONES, step=0.01, west=15, north=45.2)
    refused(study, "look like degrees")


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_layer_that_is_missing_in_the_whole_region_is_named(tmp_path, kind):
    "Two columns of values lie west of it"
    study = make_study(tmp_path, {"file": "thing.tif", "kind": kind})
    values = np.zeros((6, 8), "uint8")
    values[:, :2] = 1
    write_tif(study.raw / "thing.tif", values, west=WEST - 2000, nodata=0)
    refused(study, "has no value in the region")


def test_unknown_variable_is_named(tmp_path):
    study = make_study(tmp_path, {"file": "thing.nc", "variable": "depth"})
    grid = xr.DataArray(ONES, {"lat": np.arange(6) + 42, "lon": np.arange(6) + 12}, name="z")
    grid.to_netcdf(study.raw / "thing.nc", engine="h5netcdf")
    refused(study, "no variable 'depth'", "['z']")


def test_missing_band_is_named(tmp_path):
    study = make_study(tmp_path, {"file": "thing.tif", "band": 3})
    write_tif(study.raw / "thing.tif", ONES)
    refused(study, "no band 3 of 1")


@pytest.mark.parametrize(
    "place",
    [
        {"west": 700_000},
        {"crs": "EPSG:32756"},
        {"crs": "EPSG:3577", "west": 0, "north": 0},
        {"crs": "+proj=ortho +lat_0=-45 +lon_0=-165", "west": 0, "north": 0},  # the far hemisphere
    ],
)
def test_raster_elsewhere_is_named(tmp_path, place):
    study = make_study(tmp_path)
    write_tif(study.raw / "thing.tif", ONES, **place)
    refused(study, "does not touch the region")


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
@pytest.mark.parametrize("share", [0.5, 0.001])
def test_truncated_raster_is_named(tmp_path, kind, share):
    study = make_study(tmp_path, {"file": "thing.tif", "kind": kind})
    path = study.raw / "thing.tif"
    write_tif(path, np.random.default_rng(0).integers(0, 9, (60, 60), "uint8"), step=100)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(study, "cannot be read")


@pytest.mark.parametrize("kind", ["categorical", "fraction", "distance"])
def test_damaged_vector_file_is_named(tmp_path, kind):
    study = make_study(tmp_path, {"file": "a.gpkg", "kind": kind, "column": "rock"})
    (study.raw / "a.gpkg").write_bytes(b"SQLite format 3\x00 and no more")
    refused(study, "cannot be read")


@pytest.mark.parametrize("kind", ["categorical", "fraction"])
def test_missing_column_is_named_with_those_there_are(tmp_path, kind):
    study = make_study(tmp_path, {"file": "a.gpkg", "kind": kind, "column": "unit"})
    write_shapes(study.raw / "a.gpkg", [at(0, 0, 3, 3)], rock=["granite"])
    refused(study, "no column 'unit'", "['rock']")


@pytest.mark.parametrize(
    "layer",
    [
        {"kind": "categorical"},
        {"kind": "fraction", "classes": ["granite"]},
        {"kind": "distance", "classes": ["granite"]},
    ],
)
def test_classes_without_a_column_are_refused(tmp_path, layer):
    "Nothing says which attribute holds the class; the message lists the attributes"
    study = make_study(tmp_path, layer | {"file": "a.gpkg"})
    write_shapes(study.raw / "a.gpkg", [at(0, 0, 3, 3)], rock=["granite"])
    refused(study, "name the column", "['rock']")


@pytest.mark.parametrize("kind", ["fraction", "distance"])
def test_vector_file_without_crs_is_named(tmp_path, kind):
    study = make_study(tmp_path, {"file": "a.shp", "kind": kind})
    write_shapes(study.raw / "a.shp", [at(0, 0, 3, 3)], crs=None)
    refused(study, "has no CRS")


@pytest.mark.parametrize(
    ("kind", "told"),
    [("fraction", "no polygon"), ("categorical", "no polygon")],
)
def test_vector_file_elsewhere_is_named(tmp_path, kind, told):
    study = make_study(tmp_path, {"file": "a.gpkg", "kind": kind, "column": "rock"})
    write_shapes(study.raw / "a.gpkg", [at(100, 0, 103, 3)], rock=["granite"])
    refused(study, told)


def test_continuous_values_taken_for_classes_are_refused(tmp_path):
    "101 codes are no map of classes"
    study = make_study(tmp_path, {"file": "thing.tif", "kind": "categorical"})
    write_tif(study.raw / "thing.tif", np.arange(101, dtype="uint8")[None])
    with pytest.raises(ValueError, match="'thing' has 101 classes"):
        aligned(study)


# ---- the study area


def with_area(folder):
    study = make_study(folder, regions={"here": SQUARE | {"area": "{region}_land.gpkg"}})
    return study, align.grid(study.regions["here"])


def test_area_holds_the_cells_whose_centre_it_covers(tmp_path):
    "A permit up to 2.4 columns covers the centres of columns 0 and 1, up to 2.6 that of 2 too"
    study, cells = with_area(tmp_path)
    for edge, columns in [(2.4, 2), (2.6, 3)]:
        write_shapes(study.raw / "here_land.gpkg", [at(0, 0, edge, 6)])
        inside = align.area_mask(study, "here", cells)
        np.testing.assert_array_equal(inside, np.tile(np.arange(6) < columns, (6, 1)))


def test_without_an_area_every_cell_is_inside(tmp_path):
    study = make_study(tmp_path)
    assert align.area_mask(study, "here", align.grid(study.regions["here"])).all()


def test_missing_area_is_named(tmp_path):
    study, cells = with_area(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="area of region 'here': .*here_land.gpkg is missing"
    ):
        align.area_mask(study, "here", cells)


def test_area_elsewhere_is_named(tmp_path):
    study, cells = with_area(tmp_path)
    write_shapes(study.raw / "here_land.gpkg", [at(100, 0, 103, 3)])
    with pytest.raises(ValueError, match="area of region 'here': no polygon of .*here_land.gpkg"):
        align.area_mask(study, "here", cells)


def test_an_area_of_lines_is_refused(tmp_path):
    "A coastline bounds nothing; polygons and lines in one file are refused, too"
    study, cells = with_area(tmp_path)
    coast = at(0, 0, 3, 6).boundary
    for shapes in ([coast], [at(0, 0, 3, 6), coast]):
        write_shapes(study.raw / "here_land.gpkg", shapes)
        with pytest.raises(ValueError, match="must hold polygons only; lines and points bound no"):
            align.area_mask(study, "here", cells)


def test_damaged_area_is_named(tmp_path):
    study, cells = with_area(tmp_path)
    (study.raw / "here_land.gpkg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="area of region 'here': .*here_land.gpkg cannot be read"):
        align.area_mask(study, "here", cells)


# ---- the check of a whole study


def write_deposits(study, places, **columns):
    "A table of points at (row, col) of the grid, in metres"
    x = [WEST + (col + 0.5) * STEP for _, col in places]
    y = [NORTH - (row + 0.5) * STEP for row, _ in places]
    pd.DataFrame({"x": x, "y": y} | columns).to_csv(study.raw / "deposits.csv", index=False)


FOUR = [(0, 0), (2, 3), (5, 5), (4.4, 1.4)]
POINTS = {"file": "flow.csv", "kind": "points", "column": "flow", "x": "x", "y": "y", "reach": 9e3}


def write_points(study):
    "Heat flow of 50 at the corners and in the middle of the region"
    places = [(-1, -1), (-1, 6), (6, -1), (6, 6), (3, 3)]
    x, y = zip(*(spot(*place).coords[0] for place in places), strict=True)
    pd.DataFrame({"x": x, "y": y, "flow": 50}).to_csv(study.raw / "flow.csv", index=False)


def test_check_says_what_a_sound_study_holds(tmp_path):
    "Range, CRS, resolution and coverage of a raster that lacks one column of six"
    study = make_study(tmp_path, {"file": "thing.tif", "units": "nT"})
    values = np.tile(np.arange(6, dtype="float32"), (6, 1))
    values[:, 0] = np.nan
    write_tif(study.raw / "thing.tif", values)
    write_deposits(study, FOUR)
    (row,) = align.check(study).to_dict("records")
    assert row == {
        "region": "here",
        "layer": "thing",
        "CRS": "EPSG:32633",
        "resolution": "1000 m",
        "method": "bilinear from 1 km",
        "coverage": 83.3,
        "min": 1.0,
        "max": 5.0,
        "units": "nT",
    }


def test_check_remarks_on_what_looks_odd(tmp_path):
    "A code for missing values that nobody declared, a layer over one cell of 36, lost deposits"
    study = make_study(tmp_path, {"file": "thing.tif"}, {"name": "small", "file": "small.tif"})
    values = ONES.copy()
    values[0, 0] = -9999
    write_tif(study.raw / "thing.tif", values)
    write_tif(study.raw / "small.tif", np.where(np.arange(36).reshape(6, 6) == 7, 1, np.nan))
    write_deposits(study, [(1, 1), (1.02, 1), (2, 2), (9, 9)])
    code, cover, deposits = align.remarks(study, align.check(study))
    assert "'thing', region 'here': -9999 looks like a code for missing values" in code
    assert cover.startswith("small: no more than 2.8 % of region 'here' covered; are its bounds")
    assert deposits == ("deposits in here: 2 MVT; 1 lie outside (3); 1 repeat another (1)")


def test_check_remarks_on_deposits_just_outside(tmp_path):
    "Their neighbourhood would reach inside, but they make no cell positive"
    study = make_study(tmp_path, {"file": "thing.tif"})
    study = study.model_copy(update={"targets": {"MVT": study.targets["MVT"].model_copy(
        update={"radius": 1500.0})}})  # fmt: skip
    write_tif(study.raw / "thing.tif", ONES)
    write_deposits(study, [(2, 2), (2, 6), (9, 9)])
    (found,) = align.remarks(study, align.check(study))
    assert found.startswith("deposits in here: 1 MVT; 2 lie outside (1, 2); 1 of those outside lie")
    assert "make no cell inside positive (1); widen `bounds`" in found


def test_deposits_are_read_once_to_check_and_remark(tmp_path, monkeypatch):
    study, asked, reads = make_study(tmp_path), [], align.read_deposits
    write_tif(study.raw / "thing.tif", ONES)
    write_deposits(study, FOUR)
    monkeypatch.setattr(align, "read_deposits", lambda *a: asked.append(1) or reads(*a))
    assert align.remarks(study, align.check(study)) == ["deposits in here: 4 MVT"]
    assert len(asked) == 1


def test_a_sound_study_has_its_deposits_counted_and_no_other_remark(tmp_path):
    study = make_study(tmp_path, {"file": "thing.tif"})
    write_tif(study.raw / "thing.tif", ONES)
    write_deposits(study, FOUR)
    assert align.remarks(study, align.check(study)) == ["deposits in here: 4 MVT"]


def test_check_lists_every_problem_at_once(tmp_path):
    "A missing file, no CRS, a wrong column, a region without its area and bad deposits: five lines"
    study = make_study(
        tmp_path,
        {"name": "gone", "file": "gone.tif"},
        {"name": "bare", "file": "bare.tif"},
        {"name": "rocks", "file": "a.gpkg", "kind": "fraction", "column": "unit"},
        {"name": "sound", "file": "sound.tif"},
        regions={"here": SQUARE, "there": SQUARE | {"area": "gone.gpkg"}},
    )
    write_tif(study.raw / "bare.tif", ONES, crs=None)
    write_tif(study.raw / "sound.tif", ONES)
    write_shapes(study.raw / "a.gpkg", [at(0, 0, 3, 3)], rock=["granite"])
    (study.raw / "deposits.csv").write_text("longitude,latitude\n1,2\n")
    with pytest.raises(ValueError) as caught:
        align.check(study)
    first, *lines = str(caught.value).splitlines()
    assert "mine.yaml has 5 problem(s)" in first
    for part in ("'gone'", "'bare'", "'rocks'", "region 'there'", "deposits: "):
        assert sum(part in line for line in lines) == 1, part
    assert "sound" not in str(caught.value)


def test_check_names_a_target_without_deposits_inside(tmp_path):
    "The types that there are inside help to spot a misspelling"
    targets = {"MVT": {"types": ["mvt"]}, "CD": {"types": ["CD"]}}
    study = make_study(tmp_path, deposits={"type": "kind"}, targets=targets)
    write_tif(study.raw / "thing.tif", ONES)
    write_deposits(study, [(1, 1), (2, 2), (9, 9)], kind=["MVT", "CD", "mvt"])
    with pytest.raises(ValueError, match="'MVT' has no deposits of type mvt .*inside: CD, MVT"):
        align.check(study)


def test_check_names_a_study_without_deposits_inside(tmp_path):
    study = make_study(tmp_path)
    write_tif(study.raw / "thing.tif", ONES)
    write_deposits(study, [(9, 9)])
    with pytest.raises(ValueError, match="target 'MVT' has no deposits inside here"):
        align.check(study)


def test_check_names_a_layer_that_is_missing_in_the_whole_area(tmp_path):
    "The study area is the eastern half, the raster covers the western one"
    study, _ = with_area(tmp_path)
    write_shapes(study.raw / "here_land.gpkg", [at(3, 0, 6, 6)])
    write_tif(study.raw / "thing.tif", ONES[:, :3])
    write_deposits(study, FOUR)
    with pytest.raises(ValueError, match="'thing': .*thing.tif has no value inside"):
        align.check(study)


def test_check_describes_files_of_every_kind(tmp_path):
    "CRS and resolution are the file's; a derived layer has those of its parent"
    study = make_study(
        tmp_path,
        {"name": "wide", "file": "wide.tif"},
        {"name": "faults", "file": "a.gpkg", "kind": "distance", "units": "m"},
        POINTS | {"name": "flow", "crs": "EPSG:32633"},
        {"name": "steep", "derive": "hgm", "of": "wide", "units": "1/km"},
    )
    lonlat = {"crs": "EPSG:4326", "transform": Affine(0.5, 0, 12, 0, -0.25, 47)}
    write_tif(study.raw / "wide.tif", np.arange(144, dtype="float32").reshape(12, 12), **lonlat)
    write_shapes(study.raw / "a.gpkg", [spot(2, 1)])
    write_deposits(study, FOUR)
    write_points(study)
    table = align.check(study).set_index("layer")
    assert table["CRS"].tolist() == ["EPSG:4326", "EPSG:32633", "EPSG:32633", "EPSG:4326"]
    assert table["resolution"].tolist() == ["0.5 x 0.25 deg", "vector", "points", "0.5 x 0.25 deg"]
    assert table.loc["wide", "method"] == "bilinear from 39.3 x 27.8 km"
    assert table.loc["faults", ["min", "max"]].tolist() == pytest.approx([0, STEP * np.hypot(3, 4)])
    assert table.loc["flow", ["min", "max"]].tolist() == [50, 50]


# ---- real files


@pytest.mark.parametrize(
    ("file", "place", "low", "high"),
    [
        ("earth-topography-10arcmin.nc", (-104.99, 39.74), 1500, 2000),  # Denver
        ("earth-topography-10arcmin.nc", (-80.19, 25.76), -50, 20),  # Miami
        ("earth-topography-10arcmin.nc", (177.5, -30), -4500, -1500),  # beside the Kermadec ridge
        ("SL2013sv.nc", (-95, 52), 180, 260),  # km: the Superior craton
        ("SL2013sv.nc", (-117, 40), 40, 90),  # the Basin and Range
        ("A2006_lithosphere.grd", (120, -28), 150, 250),  # the Yilgarn craton
        ("slope_PD_SRTM_30min.nc", (-110.3, 44.7), 0.05, 0.3),  # Yellowstone, m/m
    ],
)
def test_public_grids_are_where_they_should_be(tmp_path, mirror, file, place, low, high):
    "Node- and cell-registered, from 0 or -180, south up: known places have known values"
    (path,) = mirror.rglob(file)
    around = f"+proj=laea +lon_0={place[0]} +lat_0={place[1]} +datum=WGS84"
    region = {"crs": around, "resolution": 10_000, "bounds": (-50_000, -50_000, 50_000, 50_000)}
    study = make_study(tmp_path, {"file": str(path)}, regions={"here": region})
    middle = aligned(study).values[0, 4:6, 4:6].mean()
    assert low < middle < high
