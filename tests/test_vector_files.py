import geopandas as gpd
import pandas as pd
import pyproj
import pytest
from pyogrio.errors import DataSourceError
from shapely.geometry import Point, box

from mpm import places, vector_files

SPOTS = gpd.GeoDataFrame({"rock": ["a", "b"]}, geometry=[Point(1, 2), Point(3, 4)], crs="EPSG:4326")


@pytest.mark.parametrize("lost", [".shx", ".dbf"])
def test_shapefile_in_part_is_read_and_its_folder_stays_as_it_is(tmp_path, lost):
    "Without .shx all is restored; without .dbf the attributes are gone"
    path = tmp_path / "a.shp"
    SPOTS.to_file(path)
    path.with_suffix(lost).unlink()
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    found = vector_files.read(path, "x")
    assert [(point.x, point.y) for point in found.geometry] == [(1, 2), (3, 4)]
    assert list(found.columns) == (["geometry"] if lost == ".dbf" else ["rock", "geometry"])
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_damaged_shapefile_without_shx_leaves_gdal_as_it_was(tmp_path):
    "After a failure, a shapefile without .shx is still refused elsewhere"
    (tmp_path / "bad.shp").write_bytes(b"no shapes")
    with pytest.raises(DataSourceError):
        vector_files.read(tmp_path / "bad.shp", "x")
    SPOTS.to_file(tmp_path / "a.shp")
    (tmp_path / "a.shx").unlink()
    with pytest.raises(DataSourceError):
        gpd.read_file(tmp_path / "a.shp")


def test_features_without_geometry_are_left_out_and_the_others_keep_their_numbers(tmp_path):
    path = tmp_path / "a.shp"
    SPOTS.set_geometry([None, Point(3, 4)], crs="EPSG:4326").to_file(path)
    found = vector_files.read(path, "x")
    assert found.index.tolist() == [1] and found["rock"].tolist() == ["b"]


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_file_without_crs_is_named(tmp_path):
    SPOTS.set_crs(None, allow_override=True).to_file(tmp_path / "a.shp")
    with pytest.raises(ValueError, match="layer 'thing': .*a.shp has no CRS"):
        vector_files.read(tmp_path / "a.shp", "layer 'thing'")


def test_file_without_geometries_is_named(tmp_path):
    SPOTS.set_geometry([None, None], crs="EPSG:4326").to_file(tmp_path / "a.gpkg")
    with pytest.raises(ValueError, match="x: .*a.gpkg holds no feature"):
        vector_files.read(tmp_path / "a.gpkg", "x")
    SPOTS.iloc[:0].to_file(tmp_path / "b.gpkg")
    with pytest.raises(ValueError, match="x: .*b.gpkg holds no feature"):
        vector_files.read(tmp_path / "b.gpkg", "x")


def test_file_with_several_layers_is_named_with_them(tmp_path):
    for name in ("faults", "roads"):
        SPOTS.to_file(tmp_path / "a.gpkg", layer=name)
    with pytest.raises(
        ValueError, match="a.gpkg must hold one layer of features; it has faults, roads"
    ):
        vector_files.read(tmp_path / "a.gpkg", "x")


def test_classes_are_the_values_that_occur(tmp_path):
    "Text as it is, whole numbers as int even beside gaps, other numbers as they are"
    table = SPOTS.assign(code=[3, None], share=[0.5, 2.0])
    table.to_file(tmp_path / "a.gpkg")
    found = [
        vector_files.classes(tmp_path / "a.gpkg", name, "x") for name in ("rock", "code", "share")
    ]
    assert found == [{"a", "b"}, {3}, {0.5, 2.0}]
    assert {type(each) for each in found[1]} == {int}


def test_missing_column_is_named_with_those_there_are_and_the_nearest(tmp_path):
    table = pd.DataFrame({"Lithology": [1], "age": [2]})
    with pytest.raises(
        ValueError,
        match=r"x: f.csv has no column 'lithologie'; it has \['Lithology', 'age'\]; did"
        " you mean 'Lithology'",
    ):
        vector_files.column(table, "lithologie", "x", "f.csv")
    with pytest.raises(ValueError, match=r"x: name the column of f.csv to use; it has"):
        vector_files.column(table, None, "x", "f.csv")


def test_two_columns_of_one_name_are_refused():
    table = pd.DataFrame([[1, 2]], columns=["age", "age"])
    with pytest.raises(ValueError, match="f.csv has 2 columns 'age'"):
        vector_files.column(table, "age", "x", "f.csv")


def test_nothing_is_offered_for_a_name_unlike_all():
    assert vector_files.nearest("gold", ["granite", "shale"]) == ""
    assert vector_files.nearest(12, [11, 90]) == "" or "11" in vector_files.nearest(12, [11, 90])


UTM = places.grid("EPSG:32633", (500_000, 5_006_000), 1000, (6, 6))  # near 15 E, 45 N
LOCAL = "+proj=tmerc +lat_0=45.17 +lon_0=15.03 +datum=WGS84"  # the region's middle is its origin


@pytest.mark.parametrize(
    ("bounds", "crs", "told"),
    [
        ((15, 45, 16, 46), "EPSG:32633", "look like degrees, but the CRS is WGS 84 / UTM zone 33N"),
        ((500_000, 80, 500_100, 81), "EPSG:4326", "look like metres, but the CRS is WGS 84"),
        ((10, 1000, 20, 2000), "EPSG:4326", "look like metres"),
        ((45, 110, 46, 120), "EPSG:4326", "look exchanged"),
        ((-90, 40, -80, 50), "+proj=tmerc +lat_0=0 +lon_0=100", "look like degrees"),
    ],
)
def test_coordinates_of_another_unit_than_their_crs_are_refused(bounds, crs, told):
    with pytest.raises(ValueError, match=f"x: f: its coordinates {told}.*; correct it"):
        vector_files.check_place(bounds, pyproj.CRS(crs), "x: f", UTM)


@pytest.mark.parametrize(
    ("bounds", "crs"),
    [
        ((-300, -200, 350, 100), LOCAL),
        ((-180, -90, 180, 90), "EPSG:4326"),
        ((0, -90, 400, 90), "EPSG:4326"),
        ((15, 45, 361, 46), "EPSG:32633"),
        ((-300, -300, 300, 300), "+proj=laea +lat_0=50 +units=km"),
    ],
)
def test_coordinates_that_may_be_in_their_crs_pass(bounds, crs):
    "Metres around the origin of a mine's own CRS; longitudes beyond 180; 361 m and km are none"
    vector_files.check_place(bounds, pyproj.CRS(crs), "x: f", UTM)


SQUARES = gpd.GeoDataFrame(
    {"rock": ["a"] * 50}, geometry=[box(k, 0, k + 0.5, 1) for k in range(50)], crs="EPSG:4326"
)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("suffix", [".shp", ".dbf", ".fgb", ".gpkg", ".geojson"])
def test_file_cut_short_is_unreadable(tmp_path, suffix, share):
    "The message is the library's; none is of a kind that `UNREADABLE` does not name"
    path = tmp_path / f"a{suffix.replace('dbf', 'shp')}"
    SQUARES.to_file(path)
    cut = path.with_suffix(suffix)
    cut.write_bytes(cut.read_bytes()[: int(share * cut.stat().st_size)])
    with pytest.raises(vector_files.UNREADABLE):
        vector_files.read(path, "x")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.csv", "a.csv is a table; use kind: points"),
        ("a.tif", "a.tif is a raster; use kind: continuous or categorical"),
        ("folder.shp", "folder.shp is a folder; name the file"),
    ],
)
def test_what_is_no_vector_file_is_named_with_its_kind(tmp_path, name, told):
    (tmp_path / "folder.shp").mkdir()
    (tmp_path / "a.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    (tmp_path / "a.tif").write_bytes(b"II*")
    with pytest.raises(ValueError, match=f"layer 'thing': .*{told}"):
        vector_files.read(tmp_path / name, "layer 'thing'")
