import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
from affine import Affine
from shapely.geometry import Point

from mpm import deposits, places
from mpm.study import Study

WEST, NORTH, STEP = 500_000, 5_006_000, 1000
SQUARE = {"crs": "EPSG:32633", "resolution": STEP, "bounds": (WEST, NORTH - 6000, 506_000, NORTH)}
CELLS = places.grid("EPSG:32633", (WEST, NORTH), STEP, (6, 6))


def make_study(folder, targets=None, **fields) -> Study:
    (folder / "mine").mkdir(exist_ok=True)
    fields = {"file": "deposits.csv", "x": "x", "y": "y", "crs": "EPSG:32633"} | fields
    return Study(
        name="mine",
        regions={"here": SQUARE},
        layers=[{"name": "thing", "group": "geology", "units": "1", "file": "thing.tif"}],
        deposits=fields,
        targets=targets or {"all": {}},
        path=folder / "mine.yaml",
    )


def read(study, content=None):
    if content is not None:
        (study.raw / "deposits.csv").write_text(content, encoding="utf-8")
    return deposits.read_deposits(study, "here", CELLS)


def rows(places_, **columns):
    "A table of points at (row, col) of the grid, in metres"
    x = [WEST + (col + 0.5) * STEP for _, col in places_]
    y = [NORTH - (row + 0.5) * STEP for row, _ in places_]
    return pd.DataFrame({"x": x, "y": y} | columns).to_csv(index=False)


FOUR = [(0, 0), (2, 3), (5, 5), (4.4, 1.4)]
TYPED = {"type": "kind", "name": "who"}


def test_points_fall_into_their_cells(tmp_path):
    "Four deposits, one 0.4 cells off a centre; names and types come along"
    study = make_study(tmp_path, **TYPED)
    found = read(study, rows(FOUR, kind=["MVT", "MVT", "CD", "CD"], who=list("abcd")))
    assert found.columns.tolist() == ["deposit", "name", "type", "x", "y", "row", "col"]
    assert found[["row", "col"]].values.tolist() == [[0, 0], [2, 3], [5, 5], [4, 1]]
    assert found["deposit"].tolist() == [0, 1, 2, 3]
    assert found["name"].tolist() == list("abcd")
    assert found["type"].tolist() == ["MVT", "MVT", "CD", "CD"]
    np.testing.assert_allclose(found["x"], [500_500, 503_500, 505_500, 501_900])
    assert found.attrs == {"dropped": 0, "dropped_names": [], "merged": 0, "merged_names": []}


def test_points_in_degrees_are_brought_to_the_grid(tmp_path):
    "The same cell whether the point is given in metres or in longitude and latitude"
    to_degrees = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    x, y = to_degrees.transform(503_500, 5_003_500)
    found = read(make_study(tmp_path, crs="EPSG:4326"), f"x,y\n{x},{y}\n")
    assert found[["row", "col"]].values.tolist() == [[2, 3]]


@pytest.mark.parametrize("suffix", ["shp", "gpkg", "geojson"])
def test_vector_points_are_deposits(tmp_path, suffix):
    study = make_study(tmp_path, file=f"a.{suffix}", **TYPED)
    shapes = gpd.GeoDataFrame(
        {"kind": ["MVT", "CD"], "who": ["a", None]},
        geometry=[Point(500_500, 5_005_500), Point(503_500, 5_003_500)],
        crs="EPSG:32633",
    )
    shapes.to_crs("EPSG:4326").to_file(study.raw / f"a.{suffix}")
    found = read(study)
    assert found[["row", "col"]].values.tolist() == [[0, 0], [2, 3]]
    assert found["name"].tolist() == ["a", "unnamed 2"] and found["type"].tolist() == ["MVT", "CD"]


def test_points_outside_are_dropped_counted_and_the_rest_renumbered(tmp_path):
    "One deposit beyond each edge, one inside"
    study = make_study(tmp_path, name="who")
    outside = [(-1, 2), (2, -1), (3, 4), (6, 2), (2, 6)]
    found = read(study, rows(outside, who=list("abcde")))
    assert found[["deposit", "row", "col"]].values.tolist() == [[0, 3, 4]]
    assert found.attrs["dropped"] == 4 and found.attrs["dropped_names"] == ["a", "b", "d", "e"]


def test_points_from_which_a_radius_reaches_inside_are_told(tmp_path):
    "900 m west of the grid, of a target 1 km wide: b; a lies too far, c is of another type"
    study = make_study(tmp_path, {"MVT": {"types": ["MVT"], "radius": 1000}}, **TYPED)
    places_ = [(2, -1.6), (2, -1.4), (2, -1.4), (2, 0)]  # of 0.5 is the centre of the first cell
    found = read(study, rows(places_, kind=["MVT", "MVT", "CD", "MVT"], who=list("abcd")))
    assert found["name"].tolist() == ["d"] and found.attrs["beside_names"] == ["b"]


def test_table_of_no_deposits_is_empty(tmp_path):
    "Headings alone are a region without known deposits"
    found = read(make_study(tmp_path), "x,y\n")
    assert found.empty and found["row"].dtype == int and found["deposit"].dtype == int
    assert found.attrs["hint"] == "the table has no rows"


def test_table_without_a_deposit_inside_says_where_they_lie(tmp_path):
    found = read(make_study(tmp_path, crs="EPSG:4326"), "x,y\n-15,44\n-14,45\n")
    assert found.empty and found.attrs["dropped"] == 2
    assert found.attrs["hint"] == (
        "2 rows read, none inside the region; their coordinates look like degrees (x from -15 to "
        "-14, y from 44 to 45), the CRS says WGS 84"
    )


def test_same_type_within_100_m_is_one_deposit(tmp_path):
    "b is 90 m from a; d is of another type, e 200 m farther"
    study = make_study(tmp_path, **TYPED)
    spots = [(2, 2), (2, 2.09), (2, 2.05), (2, 2.29)]
    found = read(study, rows(spots, kind=["MVT", "MVT", "CD", "MVT"], who=list("abde")))
    assert found["name"].tolist() == ["a", "d", "e"] and found["deposit"].tolist() == [0, 1, 2]
    assert found.attrs["merged"] == 1 and found.attrs["merged_names"] == ["b"]


@pytest.mark.parametrize(
    ("order", "kept"), [("abcde", "ace"), ("badce", "bd"), ("bcdea", "bd"), ("edcba", "eca")]
)
def test_deposits_in_a_chain_are_not_one(tmp_path, order, kept):
    "Five, 80 m apart in a row: each is compared with those that stay of the rows above it"
    study = make_study(tmp_path, **TYPED)
    spots = [(2, 2 + 0.08 * "abcde".index(name)) for name in order]
    found = read(study, rows(spots, kind="MVT", who=list(order)))
    assert "".join(found["name"]) == kept


def test_a_name_that_went_leaves_its_cell_to_the_next(tmp_path):
    "The first Q is 80 m from P and goes; the second is 400 m from P, the third of its name"
    study = make_study(tmp_path, **TYPED)
    spots = [(2, 1.8), (2, 1.88), (2, 2.2), (2, 2.4)]
    found = read(study, rows(spots, kind="MVT", who=["P", "Q", "Q", "q"]))
    assert found["name"].tolist() == ["P", "Q"] and found.attrs["merged_names"] == ["Q", "q"]
    np.testing.assert_allclose(found["x"], [502_300, 502_700])


def test_same_name_and_type_in_one_cell_is_one_deposit(tmp_path):
    "800 m apart in a cell; not if in another cell, of another type, or without a name"
    study = make_study(tmp_path, **TYPED)
    spots = [(2, 1.6), (2, 2.4), (2, 3), (2, 2), (4, 4), (4, 4.3)]
    content = rows(
        spots,
        kind=["MVT", "MVT", "MVT", "CD", "CD", "CD"],
        who=["Big Ledge", "big ledge", "Big Ledge", "Big Ledge", "", ""],
    )
    found = read(study, content)
    assert found["name"].tolist() == ["Big Ledge"] * 3 + ["unnamed 5", "unnamed 6"]
    assert found[["col", "type"]].values.tolist()[:3] == [[2, "MVT"], [3, "MVT"], [2, "CD"]]
    assert found.attrs["merged_names"] == ["big ledge"]


def test_rows_of_one_group_are_one_deposit(tmp_path):
    "A group called 2 is not the third row; rows without a group are on their own"
    study = make_study(tmp_path, group="district")
    spots = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]
    found = read(study, rows(spots, district=["2", "", "", "Viburnum", "2", "Viburnum"]))
    assert found["deposit"].tolist() == [0, 1, 2, 3, 0, 3]


@pytest.mark.parametrize("entry", ["x", "y", "type", "name", "group"])
def test_wrong_column_of_the_table_is_named_with_the_nearest(tmp_path, entry):
    study = make_study(tmp_path, **{entry: "XX"})
    with pytest.raises(ValueError, match=r"deposits: .*csv has no column 'XX'; it has \['x'"):
        read(study, rows(FOUR))
    study = make_study(tmp_path, **{entry: "Eastings"})
    with pytest.raises(ValueError, match=r"did you mean 'easting'\?"):
        read(study, rows(FOUR, easting=1))


def test_coordinate_that_is_no_number_is_named_with_its_line(tmp_path):
    with pytest.raises(ValueError, match="deposits.csv, line 4: column 'y' is not a number"):
        read(make_study(tmp_path), "x,y\n500500,5000500\n\n500500,unknown\n")


def test_exchanged_coordinates_are_recognised(tmp_path):
    study = make_study(tmp_path, x="y", y="x")
    with pytest.raises(ValueError, match="deposits: .*csv has no point in the region, but most"):
        read(study, rows(FOUR))


def test_missing_type_matters_where_targets_select_by_it(tmp_path):
    "Lines 3 and 5 have none; line 6 has none either, but lies outside"
    content = rows([*FOUR, (9, 9)], kind=["MVT", "", "CD", " ", ""])
    study = make_study(tmp_path, targets={"MVT": {"types": ["MVT"]}}, type="kind")
    with pytest.raises(
        ValueError, match="deposits.csv, lines 3, 5: 'kind' is missing, but targets"
    ):
        read(study, content)
    assert read(make_study(tmp_path, type="kind"), content)["type"].tolist() == [
        "MVT",
        "",
        "CD",
        "",
    ]


def test_missing_deposits_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="deposits: .*deposits.csv is missing"):
        read(make_study(tmp_path))


def test_empty_table_is_named(tmp_path):
    with pytest.raises(ValueError, match="deposits: .*deposits.csv cannot be read"):
        read(make_study(tmp_path), "")


def test_damaged_vector_file_is_named(tmp_path):
    study = make_study(tmp_path, file="a.gpkg")
    (study.raw / "a.gpkg").write_bytes(b"SQLite format 3\x00 and no more")
    with pytest.raises(ValueError, match="deposits: .*a.gpkg cannot be read"):
        read(study)


def test_unclosed_ring_is_named(tmp_path):
    study = make_study(tmp_path, file="a.geojson")
    ring = '{"type": "Polygon", "coordinates": [[[15, 45], [15.1, 45], [15.1, 45.1]]]}'
    (study.raw / "a.geojson").write_text(
        f'{{"type": "Feature", "properties": {{}}, "geometry": {ring}}}', encoding="utf-8"
    )
    with pytest.raises(ValueError, match="deposits: .*a.geojson cannot be read .*closed"):
        read(study)


def test_file_in_a_folder_that_is_closed_to_us_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    study = make_study(tmp_path)
    monkeypatch.setattr("pathlib.Path.exists", refuse)
    with pytest.raises(ValueError, match="deposits: .*csv cannot be read .*Permission denied"):
        read(study)


def test_deposits_of_unknown_crs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'EPSG:1' is not a CRS"):
        read(make_study(tmp_path, crs="EPSG:1"), rows(FOUR))


def write_tif(study, values, step=STEP, **profile):
    profile = {"crs": "EPSG:32633", "transform": Affine(step, 0, WEST, 0, -step, NORTH)} | profile
    profile |= {"height": values.shape[0], "width": values.shape[1], "dtype": values.dtype}
    with rasterio.open(study.raw / "labels.tif", "w", driver="GTiff", count=1, **profile) as target:
        target.write(values, 1)


def test_touching_cells_of_a_label_raster_are_one_deposit(tmp_path):
    "Cells that touch at a corner share a number, a cell apart has its own, nodata has none"
    study = make_study(tmp_path, file="labels.tif")
    codes = np.zeros((6, 6), "uint8")
    codes[0, 0] = codes[1, 1] = codes[1, 2] = 1
    codes[4, 4] = 1
    codes[5, :2] = 255
    write_tif(study, codes, nodata=255)
    found = read(study)
    assert found[["deposit", "row", "col"]].values.tolist() == [
        [0, 0, 0],
        [0, 1, 1],
        [0, 1, 2],
        [1, 4, 4],
    ]
    np.testing.assert_allclose(found[["x", "y"]].iloc[-1], [WEST + 4500, NORTH - 4500])


def test_label_raster_beyond_the_grid_counts_what_it_drops(tmp_path):
    "Pixels of 500 m: four of one cell are one row; a site 4 km east of the region is dropped"
    study = make_study(tmp_path, file="labels.tif")
    codes = np.zeros((12, 22), "uint8")
    codes[2:4, 2:4] = codes[0, 20] = 1
    write_tif(study, codes, step=500)
    found = read(study)
    assert found[["deposit", "row", "col"]].values.tolist() == [[1, 1, 1]]
    assert found.attrs["dropped"] == 1 and found.attrs["dropped_names"] == ["site 1"]


def test_label_raster_of_floats_with_nan_has_no_deposit_there(tmp_path):
    study = make_study(tmp_path, file="labels.tif")
    codes = np.full((6, 6), np.nan, "float32")
    codes[3, 2] = 1
    write_tif(study, codes, nodata=np.nan)
    assert read(study)[["row", "col"]].values.tolist() == [[3, 2]]


def test_label_raster_without_crs_or_damaged_is_named(tmp_path):
    study = make_study(tmp_path, file="labels.tif")
    write_tif(study, np.ones((6, 6), "uint8"), crs=None)
    with pytest.raises(ValueError, match="deposits: .*labels.tif has no CRS"):
        read(study)
    (study.raw / "labels.tif").write_bytes(b"II*\x00")
    with pytest.raises(ValueError, match="deposits: .*labels.tif cannot be read"):
        read(study)


def test_hoggards_deposits_fall_on_both_continents(mirror, tmp_path):
    "A shapefile without .shx: 46 MVT in North America, 11 in Australia, no row lost unseen"
    (path,) = mirror.glob("EarthByte/Craton_Boundaries/*/Craton_Data/All_Deposits.shp")
    regions = {
        "america": places.grid("ESRI:102008", (-5_000_000, 4_400_000), 10_000, (730, 810)),
        "australia": places.grid("EPSG:3577", (-2_000_000, -1_000_000), 10_000, (390, 420)),
    }
    study = make_study(tmp_path, file=str(path), type="Type")
    for name, count in (("america", 46), ("australia", 11)):
        found = deposits.read_deposits(study, name, regions[name])
        assert (found["type"] == "PbZn-MVT").sum() == count
        assert len(found) + found.attrs["dropped"] + found.attrs["merged"] == 420
