import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
from affine import Affine
from shapely.geometry import LineString, Point, box

from mpm import align
from mpm.study import Region, Study

WEST, NORTH, STEP = 500_000, 5_006_000, 1000
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


def write_tif(path, values, *, step=STEP, west=WEST, north=NORTH, **profile):
    "A raster of one band, or (band, y, x), north up by default"
    values = np.asarray(values)
    bands = values if values.ndim == 3 else values[None]
    profile = {"crs": "EPSG:32633", "transform": Affine(step, 0, west, 0, -step, north)} | profile
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(bands),
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=bands.dtype,
        **profile,
    ) as target:
        target.write(bands)


def at(left, top, right, bottom):
    "A rectangle in cells from the region's north-west corner"
    return box(WEST + left * STEP, NORTH - bottom * STEP, WEST + right * STEP, NORTH - top * STEP)


def spot(row, col):
    "The centre of a cell"
    return Point(WEST + (col + 0.5) * STEP, NORTH - (row + 0.5) * STEP)


def write_shapes(path, shapes, crs="EPSG:32633", **columns):
    gpd.GeoDataFrame(columns or {"id": range(len(shapes))}, geometry=shapes, crs=crs).to_file(path)


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


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2263"])
def test_region_in_degrees_or_feet_is_refused(crs):
    "Distances need metres, and the message says so"
    with pytest.raises(ValueError, match=f"{crs} is not projected in metres"):
        align.grid(Region(**SQUARE | {"crs": crs}))


def test_region_of_unknown_crs_is_refused():
    "The message repeats what is not a CRS"
    with pytest.raises(ValueError, match="'EPSG:1' is not a CRS"):
        align.grid(Region(**SQUARE | {"crs": "EPSG:1"}))


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
    assert found["method"].item() == "bilinear"


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
    # GDAL's own tolerance is an eighth of a cell, here 125 m or 0.0016 degrees
    np.testing.assert_allclose(aligned(study).values[0], to_degrees.transform(x, y)[0], atol=0.0016)


def test_finer_raster_is_averaged(tmp_path):
    "Pixels of 250 m: each cell is the mean of its 16, and the method is recorded"
    study = make_study(tmp_path, {"file": "thing.tif"})
    values = np.random.default_rng(0).normal(size=(24, 24)).astype("float32")
    write_tif(study.raw / "thing.tif", values, step=250)
    found = aligned(study)
    means = values.reshape(6, 4, 6, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(found.values[0], means, rtol=1e-4, atol=1e-6)
    assert found["method"].item() == "average"


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
    "`band: 2` reads 2, and the facts of the layer come along"
    study = make_study(tmp_path, {"file": "thing.tif", "band": 2, "units": "nT", "source": "me"})
    write_tif(study.raw / "thing.tif", np.stack([np.full((6, 6), k, "float32") for k in (1, 2)]))
    found = aligned(study)
    assert (found.values == 2).all() and found.dtype == "float32"
    facts = {name: found[name].item() for name in ("layer", "group", "units", "kind", "origin")}
    assert facts == {
        "layer": "thing",
        "group": "geology",
        "units": "nT",
        "kind": "continuous",
        "origin": "thing",
    }
    assert found["source"].item() == "me"


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
    assert set(found["method"].values) == {"one-hot by nearest"}


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
    assert set(found["method"].values) == {"one-hot by mode"}


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


def test_fraction_counts_the_named_classes_only(tmp_path):
    "Granite covers 0.4 of column 2, shale the rest"
    layer = {"file": "a.gpkg", "kind": "fraction", "column": "rock", "classes": ["granite"]}
    study = make_study(tmp_path, layer)
    write_shapes(
        study.raw / "a.gpkg", [at(0, 0, 2.4, 6), at(2.4, 0, 6, 6)], rock=["granite", "shale"]
    )
    np.testing.assert_allclose(aligned(study).values[0], [[1, 1, 0.4, 0, 0, 0]] * 6, rtol=1e-6)


def test_overlapping_polygons_cover_a_cell_once(tmp_path):
    "Two copies of a polygon are no more than one"
    study = make_study(tmp_path, {"file": "a.gpkg", "kind": "fraction"})
    write_shapes(study.raw / "a.gpkg", [at(0, 0, 2.4, 6)] * 2)
    np.testing.assert_allclose(aligned(study).values[0, 0], [1, 1, 0.4, 0, 0, 0], rtol=1e-6)


def hand_distance(row, col):
    rows, cols = np.indices((6, 6))
    return STEP * np.hypot(rows - row, cols - col)


@pytest.mark.parametrize(("row", "col"), [(2, 1), (0, 0), (3, -2), (-1, 7)])
def test_distance_is_exact_in_metres(tmp_path, row, col):
    "From a point in or just outside the region to every cell centre"
    study = make_study(tmp_path, {"file": "a.gpkg", "kind": "distance", "units": "m"})
    write_shapes(study.raw / "a.gpkg", [spot(row, col)])
    np.testing.assert_allclose(aligned(study).values[0], hand_distance(row, col), rtol=1e-6)


def test_distance_is_to_the_nearest_of_the_named_classes(tmp_path):
    "A fault in column 1 counts, a road in column 4 does not"
    layer = {"file": "a.gpkg", "kind": "distance", "column": "what", "classes": ["fault"]}
    study = make_study(tmp_path, layer)
    lines = [LineString([spot(-1, col), spot(6, col)]) for col in (1, 4)]
    write_shapes(study.raw / "a.gpkg", lines, what=["fault", "road"])
    np.testing.assert_allclose(aligned(study).values[0], [[1e3, 0, 1e3, 2e3, 3e3, 4e3]] * 6)


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


def test_raster_without_crs_is_named(tmp_path):
    study = make_study(tmp_path)
    write_tif(study.raw / "thing.tif", ONES, crs=None)
    refused(study, "has no CRS")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rotated_raster_is_named(tmp_path):
    study = make_study(tmp_path)
    turned = Affine.translation(WEST, NORTH) * Affine.rotation(10) * Affine.scale(1000, -1000)
    write_tif(study.raw / "thing.tif", ONES, transform=turned)
    refused(study, "rotated")


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
    [("fraction", "no polygon"), ("categorical", "no polygon"), ("distance", "no feature")],
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


def test_damaged_area_is_named(tmp_path):
    study, cells = with_area(tmp_path)
    (study.raw / "here_land.gpkg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="area of region 'here': .*here_land.gpkg cannot be read"):
        align.area_mask(study, "here", cells)


# ---- deposits


def write_deposits(study, places, **columns):
    "A table of points at (row, col) of the grid, in metres"
    x = [WEST + (col + 0.5) * STEP for _, col in places]
    y = [NORTH - (row + 0.5) * STEP for row, _ in places]
    pd.DataFrame({"x": x, "y": y} | columns).to_csv(study.raw / "deposits.csv", index=False)


def deposits(study):
    return align.read_deposits(study, "here", align.grid(study.regions["here"]))


FOUR = [(0, 0), (2, 3), (5, 5), (4.4, 1.4)]


def test_points_fall_into_their_cells(tmp_path):
    "Four deposits, one 0.4 cells off a centre; names and types come along"
    study = make_study(tmp_path, deposits={"type": "kind", "name": "who"})
    write_deposits(study, FOUR, kind=["MVT", "MVT", "CD", "CD"], who=list("abcd"))
    found = deposits(study)
    assert found[["row", "col"]].values.tolist() == [[0, 0], [2, 3], [5, 5], [4, 1]]
    assert found["deposit"].tolist() == [0, 1, 2, 3]
    assert found["name"].tolist() == list("abcd")
    assert found["type"].tolist() == ["MVT", "MVT", "CD", "CD"]
    np.testing.assert_allclose(found["x"], [500_500, 503_500, 505_500, 501_900])


def test_points_in_degrees_are_brought_to_the_grid(tmp_path):
    "The same cell whether the point is given in metres or in longitude and latitude"
    study = make_study(tmp_path, deposits={"crs": "EPSG:4326"})
    to_degrees = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    x, y = to_degrees.transform(503_500, 5_003_500)
    (study.raw / "deposits.csv").write_text(f"x,y\n{x},{y}\n")
    assert deposits(study)[["row", "col"]].values.tolist() == [[2, 3]]


def test_points_outside_are_dropped_and_the_rest_renumbered(tmp_path):
    "One deposit beyond each edge, one inside"
    study = make_study(tmp_path)
    write_deposits(study, [(-1, 2), (2, -1), (3, 4), (6, 2), (2, 6)])
    found = deposits(study)
    assert found[["deposit", "row", "col"]].values.tolist() == [[0, 3, 4]]


def test_table_of_no_deposits_is_empty(tmp_path):
    "Headings alone are a region without known deposits"
    study = make_study(tmp_path)
    (study.raw / "deposits.csv").write_text("x,y\n")
    found = deposits(study)
    assert found.empty and found["row"].dtype == int


@pytest.mark.parametrize("entry", ["x", "y", "type", "name"])
def test_wrong_column_of_the_table_is_named(tmp_path, entry):
    study = make_study(tmp_path, deposits={entry: "easting"})
    write_deposits(study, FOUR)
    with pytest.raises(ValueError, match=r"deposits: .*csv has no column 'easting'; it has \['x'"):
        deposits(study)


@pytest.mark.parametrize("bad", ["unknown", ""])
def test_coordinate_that_is_no_number_is_named_with_its_line(tmp_path, bad):
    study = make_study(tmp_path)
    (study.raw / "deposits.csv").write_text(f"x,y\n500500,5000500\n500500,{bad}\n")
    with pytest.raises(ValueError, match="deposits.csv, line 3: column 'y' is not a number"):
        deposits(study)


def test_missing_deposits_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="deposits: .*deposits.csv is missing"):
        deposits(make_study(tmp_path))


def test_empty_table_is_named(tmp_path):
    study = make_study(tmp_path)
    (study.raw / "deposits.csv").write_text("")
    with pytest.raises(ValueError, match="deposits: .*deposits.csv cannot be read"):
        deposits(study)


def test_deposits_of_unknown_crs_are_refused(tmp_path):
    study = make_study(tmp_path, deposits={"crs": "EPSG:1"})
    write_deposits(study, FOUR)
    with pytest.raises(ValueError, match="deposits: .*'EPSG:1' is not a CRS"):
        deposits(study)


def test_touching_cells_of_a_label_raster_are_one_deposit(tmp_path):
    "Cells that touch at a corner share a number, a cell apart has its own, nodata has none"
    study = make_study(tmp_path, deposits={"file": "labels.tif"})
    codes = np.zeros((6, 6), "uint8")
    codes[0, 0] = codes[1, 1] = codes[1, 2] = 1
    codes[4, 4] = 1
    codes[5, :2] = 255
    write_tif(study.raw / "labels.tif", codes, nodata=255)
    found = deposits(study)
    assert found[["deposit", "row", "col"]].values.tolist() == [
        [0, 0, 0],
        [0, 1, 1],
        [0, 1, 2],
        [1, 4, 4],
    ]
    np.testing.assert_allclose(found["x"].iloc[-1], WEST + 4500)
    np.testing.assert_allclose(found["y"].iloc[-1], NORTH - 4500)


def test_label_raster_of_floats_with_nan_has_no_deposit_there(tmp_path):
    study = make_study(tmp_path, deposits={"file": "labels.tif"})
    codes = np.full((6, 6), np.nan, "float32")
    codes[3, 2] = 1
    write_tif(study.raw / "labels.tif", codes, nodata=np.nan)
    assert deposits(study)[["row", "col"]].values.tolist() == [[3, 2]]


def test_label_raster_without_crs_is_named(tmp_path):
    study = make_study(tmp_path, deposits={"file": "labels.tif"})
    write_tif(study.raw / "labels.tif", ONES, crs=None)
    with pytest.raises(ValueError, match="deposits: .*labels.tif has no CRS"):
        deposits(study)


def test_damaged_label_raster_is_named(tmp_path):
    study = make_study(tmp_path, deposits={"file": "labels.tif"})
    (study.raw / "labels.tif").write_bytes(b"II*\x00")
    with pytest.raises(ValueError, match="deposits: .*labels.tif cannot be read"):
        deposits(study)


# ---- the check of a whole study


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
        "coverage": 83.3,
        "min": 1.0,
        "max": 5.0,
        "units": "nT",
    }


def test_check_lists_every_problem_at_once(tmp_path):
    "A missing file, no CRS, a wrong column, a bad region and bad deposits: five lines"
    study = make_study(
        tmp_path,
        {"name": "gone", "file": "gone.tif"},
        {"name": "bare", "file": "bare.tif"},
        {"name": "rocks", "file": "a.gpkg", "kind": "fraction", "column": "unit"},
        {"name": "sound", "file": "sound.tif"},
        regions={"here": SQUARE, "globe": SQUARE | {"crs": "EPSG:4326"}},
    )
    write_tif(study.raw / "bare.tif", ONES, crs=None)
    write_tif(study.raw / "sound.tif", ONES)
    write_shapes(study.raw / "a.gpkg", [at(0, 0, 3, 3)], rock=["granite"])
    (study.raw / "deposits.csv").write_text("longitude,latitude\n1,2\n")
    with pytest.raises(ValueError) as caught:
        align.check(study)
    first, *lines = str(caught.value).splitlines()
    assert "mine.yaml has 5 problem(s)" in first
    for part in ("'gone'", "'bare'", "'rocks'", "region 'globe'", "deposits: "):
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
    study = make_study(tmp_path)
    write_tif(study.raw / "thing.tif", ONES * np.nan)
    write_deposits(study, FOUR)
    with pytest.raises(ValueError, match="'thing': .*thing.tif has no value inside"):
        align.check(study)
