import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import LineString, MultiPoint, Point

from mpm import places, points

CELLS = places.grid("EPSG:32633", (500_000, 5_006_000), 1000, (6, 6))  # near 15 E, 45 N


def table(folder, content, name="a.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return points.read(path, "deposits"), path


def placed(folder, content, crs="EPSG:4326", name="a.csv"):
    found, path = table(folder, content, name)
    return points.place(found, path, "deposits", CELLS, x="x", y="y", crs=crs)


SAME = [["1.5", "2", "Mine a"], ["3", "4", "b"]]


@pytest.mark.parametrize(
    "content",
    [
        "x,y,name\n1.5,2,Mine a\n3,4,b\n",
        "x;y;name\n1.5;2;Mine a\n3;4;b\n",
        "x\ty\tname\r\n1.5\t2\tMine a\r\n3\t4\tb\r\n",
        "x | y | name\n1.5 | 2 | Mine a\n3 | 4 | b\n",
        'x,y,name\n1.5,2,"Mine a"\n\n , ,\n3,4,b',
        b"\xef\xbb\xbfx,y,name\n1.5,2,Mine a\n3,4,b\n",
        "x,y,name\n1.5,2,Mine a\n3,4,b\n".encode("utf-16"),
    ],
    ids=["comma", "semicolon", "tab", "bar", "blank lines", "mark", "utf-16"],
)
def test_delimiter_and_encoding_are_recognised(tmp_path, content):
    found, _ = table(tmp_path, content)
    assert list(found.columns) == ["x", "y", "name"] and found.values.tolist() == SAME


def test_columns_may_be_parted_by_blanks(tmp_path):
    found, _ = table(tmp_path, "Lon   Lat  HF\n 1.5 2   63.2\n\n-3  4 nan\n", "a.txt")
    assert found["Lon"].tolist() == ["1.5", "-3"] and found["HF"].isna().tolist() == [False, True]
    assert found.index.tolist() == [2, 4]


def test_latin_1_names_are_read(tmp_path):
    found, _ = table(tmp_path, "x,y,name\n1,2,Kørnskjær\n".encode("latin-1"))
    assert found["name"].tolist() == ["Kørnskjær"]


def test_rows_know_their_lines(tmp_path):
    "Blank lines before and between, and a quoted name over two lines"
    found, _ = table(tmp_path, '\n\nx,y,name\n1,2,a\n\n3,4,"b\nc"\n5,6,d\n')
    assert found.index.tolist() == [4, 6, 8] and found["name"].tolist() == ["a", "b\nc", "d"]


def test_short_row_is_filled_and_long_one_named(tmp_path):
    found, _ = table(tmp_path, "x,y,name\n1,2\n3,4,b,,\n")
    assert found["name"].isna().tolist() == [True, False]
    with pytest.raises(
        ValueError, match="deposits: .*a.csv cannot be read .line 3 has 4 fields, the heading has 3"
    ):
        table(tmp_path, "x,y,name\n1,2,a\n3,4,b,c\n")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "it is empty"),
        ("\n \n", "it is empty"),
        (",,,\n,,,\n", "it holds nothing but delimiters"),
        (b"PK\x03\x04\x00\x00", "it is not text"),
        ('x,y\n1,"2\n', "unexpected end of data"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, told):
    with pytest.raises(ValueError, match=f"deposits: .*a.csv cannot be read .{told}"):
        table(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        ("x;y\n1,5;-2,25\n,5;1,5e1\n", [1.5, 0.5]),
        ("x\ty\n1,5\t-2,25\n,5\t1,5e1\n", [1.5, 0.5]),
        ("x,y\n1.5,-2.25\n+.5,1.5e1\n", [1.5, 0.5]),
    ],
)
def test_decimal_commas_and_points_are_numbers(tmp_path, content, numbers):
    found, path = table(tmp_path, content)
    assert points.numbers(found, "x", path, "w").tolist() == numbers
    assert points.numbers(found, "y", path, "w").tolist() == [-2.25, 15]


def test_quoted_comma_of_a_comma_table_is_no_decimal_comma(tmp_path):
    "Thousands or decimals? Nobody knows"
    with pytest.raises(ValueError, match="a.csv, line 2: column 'x' is not a number"):
        placed(tmp_path, 'x,y\n"500,500",5\n')


@pytest.mark.parametrize("bad", ["12 30' E", "inf", "1.234,5"])
def test_coordinate_that_is_no_number_is_named_with_its_line(tmp_path, bad):
    with pytest.raises(ValueError, match="deposits: .*a.csv, line 5: column 'x' is not a number"):
        placed(tmp_path, f"x;y\n15;45\n\n\n{bad};45\n")


def test_missing_coordinates_are_named_with_their_lines(tmp_path):
    with pytest.raises(
        ValueError, match="a.csv, lines 3, 4, 5 and 1 more: column 'y' is not a number"
    ):
        placed(tmp_path, "x,y\n1,1\n1,\n1,NA\n1,-\n1, \n2,2\n")


def test_points_come_in_the_regions_crs(tmp_path):
    "15 E, 45 N is the central meridian of UTM 33: easting 500 km; 375 E is the same"
    found = placed(tmp_path, "x,y\n15,45\n375,45\n")
    np.testing.assert_allclose(found[:, 0], 500_000, atol=0.01)
    assert found[0, 1] == pytest.approx(4_982_950, abs=1)
    np.testing.assert_allclose(placed(tmp_path, "x,y\n7,800\n", crs="EPSG:32633"), [[7, 800]])


def test_latitude_beyond_the_poles_is_named(tmp_path):
    "Metres taken for degrees, or x and y exchanged"
    with pytest.raises(
        ValueError,
        match="a.csv, line 2: 'y' is no latitude; exchange x and y, or correct the CRS, WGS 84",
    ):
        placed(tmp_path, "x,y\n45,115\n")


def test_exchanged_coordinates_are_recognised(tmp_path):
    "Two of three lie in the region once x and y are exchanged; as they are, none does"
    with pytest.raises(
        ValueError, match="no point in the region, but most .* if 'x' and 'y' are exchanged"
    ):
        placed(tmp_path, "x,y\n45.19,15.01\n45.18,15.02\n10,10\n")
    with pytest.raises(ValueError, match="exchanged"):
        placed(tmp_path, "x,y\n5003500,503500\n", crs="EPSG:32633")


def test_points_that_lie_elsewhere_either_way_are_not_exchanged(tmp_path):
    assert not points.within(placed(tmp_path, "x,y\n45.19,15.01\n10,10\n"), CELLS).any()


LATER = "10.1,10.2\n" * 4 + "15.01,45.19\n15.02,45.18\n" * 9  # 4 rows elsewhere, 18 inside


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("x,y\n45.19,15.01\n15.01,45.19\n", "line 2: outside the region, but inside if 'x'"),
        ("x,y\n" + "45.19,15.01\n" * 5 + LATER, "lines 2, 3, 4 and 2 more: outside the region"),
    ],
)
def test_exchanged_rows_among_sound_ones_are_named(tmp_path, content, told):
    with pytest.raises(ValueError, match=f"deposits: .*a.csv, {told}"):
        placed(tmp_path, content)


def test_few_rows_that_look_exchanged_in_a_file_of_the_globe_are_sound(tmp_path):
    "4 of 26 lie inside if exchanged, but as many lie outside for good"
    placed(tmp_path, "x,y\n" + "45.19,15.01\n" * 4 + LATER)


def test_neighbours_of_a_region_where_both_orders_lie_inside_are_sound(tmp_path):
    "Of a region from 9.5 to 14 E and 9.6 to 10.5 N, 10 E, 13 N is a neighbour"
    cells = places.grid("EPSG:32632", (550_000, 1_160_000), 10_000, (10, 50))
    found, path = table(tmp_path, "x,y\n10,13\n13,10\n")
    fields = {"x": "x", "y": "y", "crs": "EPSG:4326"}
    there = points.place(found, path, "deposits", cells, **fields)
    exchanged = points.place(found, path, "deposits", cells, x="y", y="x", crs="EPSG:4326")
    assert points.within(there, cells).tolist() == [False, True]
    assert points.within(exchanged, cells).tolist() == [True, False]


def test_coordinates_of_another_unit_than_their_crs_are_refused(tmp_path):
    "Degrees as metres, metres as degrees, a CRS that is none of the Earth"
    with pytest.raises(ValueError, match="a.csv: its coordinates look like degrees, but the"):
        placed(tmp_path, "x,y\n15,45\n15.01,45.1\n", crs="EPSG:32633")
    with pytest.raises(ValueError, match="look like metres, but the CRS is WGS 84 .x from 501000"):
        placed(tmp_path, "x,y\n501000,5001000\n502000,5002000\n")
    with pytest.raises(ValueError, match="a.csv has a CRS of its own .mine.; give it one of"):
        placed(tmp_path, "x,y\n1,2\n", crs='LOCAL_CS["mine",UNIT["metre",1]]')


@pytest.mark.parametrize(
    ("head", "line"), [("Mines\n", 2), ("# Mines, 2024\n\n# by A B\n", 4), ("\n\nMines\n", 4)]
)
def test_headings_that_stand_lower_are_named_with_their_line(tmp_path, head, line):
    "The names that a title hides; a row of data that holds the name is none"
    content = head + "Lon,Lat\n15,45\n"
    found, path = table(tmp_path, content)
    told = f"no column 'Lon'; it has .*; line {line} holds the names; delete the lines above it"
    with pytest.raises(ValueError, match=told):
        points.numbers(found, "Lon", path, "x")
    found, path = table(tmp_path, "Lon;Lat;kind\n15,5;45,2;gold\n")
    with pytest.raises(ValueError, match=r"'kind'\]$"):
        points.numbers(found, "gold", path, "x")


def test_rows_wider_than_a_title_name_the_headings(tmp_path):
    with pytest.raises(
        ValueError, match="line 2 has 3 fields.*; if line 2 holds the names, delete the lines above"
    ):
        table(tmp_path, "Mines, 2024\nLon,Lat,name\n15,45,a\n")


def test_folder_is_no_table(tmp_path):
    with pytest.raises(ValueError, match="x: .* is a folder; name the file"):
        points.read(tmp_path, "x")


def test_unknown_crs_is_named(tmp_path):
    with pytest.raises(ValueError, match="deposits: 'EPSG:1' is not a CRS"):
        placed(tmp_path, "x,y\n1,2\n", crs="EPSG:1")


@pytest.mark.parametrize("suffix", ["shp", "gpkg", "geojson"])
def test_vector_points_need_no_columns(tmp_path, suffix):
    "A multipoint of one point is one"
    path = tmp_path / f"a.{suffix}"
    shapes = [Point(15, 45.2), Point(15.01, 45.2)]
    shapes = shapes if suffix == "shp" else [MultiPoint([each]) for each in shapes]
    gpd.GeoDataFrame({"v": [1, 2]}, geometry=shapes, crs="EPSG:4326").to_file(path)
    found = points.read(path, "x")
    there = points.place(found, path, "x", CELLS, x="none", y="none", crs="none")
    np.testing.assert_allclose(there[:, 0], [500_000, 500_785], atol=1)
    assert points.numbers(found, "v", path, "x").tolist() == [1, 2]


def test_vector_lines_are_no_points(tmp_path):
    path = tmp_path / "a.gpkg"
    gpd.GeoDataFrame(geometry=[LineString([(0, 0), (1, 1)])], crs="EPSG:4326").to_file(path)
    with pytest.raises(ValueError, match="x: .*a.gpkg holds LineString; it must hold points"):
        points.read(path, "x")


def test_vector_points_with_exchanged_coordinates_are_recognised(tmp_path):
    path = tmp_path / "a.geojson"
    gpd.GeoDataFrame({"v": [1]}, geometry=[Point(45.19, 15.01)], crs="EPSG:4326").to_file(path)
    with pytest.raises(ValueError, match="x: .*a.geojson has no point in the region, but most"):
        points.place(points.read(path, "x"), path, "x", CELLS, x="x", y="y", crs="EPSG:4326")
