import geopandas as gpd
import pandas as pd
import pytest
from pyogrio.errors import DataSourceError
from shapely.geometry import Point

from mpm import vector_files

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
