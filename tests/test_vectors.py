import os

import geopandas as gpd
import numpy as np
import pytest
import shapely
from helpers import NORTH, STEP, WEST, at, spot, write_shapes
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, Point, Polygon, box

from mpm import places, vector_files, vectors
from mpm.layers import Layer

CELLS = places.grid("EPSG:32633", (WEST, NORTH), STEP, (6, 6))
NORTH_AMERICA = places.grid("ESRI:102008", (-5_000_000, 4_400_000), 50_000, (146, 162))


def layer(kind, **fields):
    return Layer(
        **{"name": "thing", "group": "geology", "units": "1", "file": "a", "kind": kind}, **fields
    )


def centres(cells):
    return shapely.points(*np.meshgrid(cells["x"], cells["y"]))


# ---- features


@pytest.mark.parametrize("suffix", vector_files.VECTORS)
def test_features_near_the_region_come_with_their_columns(tmp_path, suffix):
    "Of three squares the one 50 km off stays away, in every format"
    path = tmp_path / f"a{suffix}"
    shapes = gpd.GeoDataFrame(
        {"rock": ["granite", "shale", "basalt"]},
        geometry=[at(0, 0, 3, 3), at(50, 0, 53, 3), at(5, 5, 8, 8)],
        crs="EPSG:32633",
    )
    driver = {".json": "GeoJSON"}.get(suffix)
    if suffix in (".json", ".geojson"):
        shapes = shapes.to_crs("EPSG:4326")
    shapes.to_file(path, driver=driver)
    found = vectors.features(path, "layer 'thing'", CELLS)
    assert found["rock"].tolist() == ["granite", "basalt"]
    assert found.crs == "EPSG:32633"
    np.testing.assert_allclose(found.geometry[0].bounds, at(0, 0, 3, 3).bounds, atol=2)


def test_margin_takes_in_features_beside_the_region(tmp_path):
    "A square that starts 2 cells east of the region is met with a margin of 3 cells, not of 1"
    path = write_shapes(tmp_path / "a.gpkg", [at(0, 0, 1, 1), at(8, 0, 9, 1)])
    assert len(vectors.features(path, "x", CELLS, margin=1)) == 1
    assert len(vectors.features(path, "x", CELLS, margin=3)) == 2


def test_invalid_polygon_is_repaired_and_empty_one_dropped(tmp_path):
    "A bow tie becomes its two triangles, of 1 + 1 km2"
    bow = Polygon(
        [spot(1, 1).coords[0], spot(3, 3).coords[0], spot(3, 1).coords[0], spot(1, 3).coords[0]]
    )
    path = write_shapes(tmp_path / "a.gpkg", [bow, Polygon(), None], rock=["a", "b", "c"])
    found = vectors.features(path, "x", CELLS)
    assert found["rock"].tolist() == ["a"] and found.is_valid.all()
    assert found.area.sum() == pytest.approx(2e6)


def test_file_without_features_is_named(tmp_path):
    path = write_shapes(tmp_path / "a.gpkg", [Polygon()])
    with pytest.raises(ValueError, match="layer 'thing': .*a.gpkg holds no feature"):
        vectors.features(path, "layer 'thing'", CELLS)


@pytest.mark.parametrize(("shape", "noun"), [(at(90, 0, 91, 1), "polygon"), (spot(0, 90), "point")])
def test_file_elsewhere_is_named(tmp_path, shape, noun):
    path = write_shapes(tmp_path / "a.gpkg", [shape])
    with pytest.raises(
        ValueError, match=f"layer 'thing': no {noun} of .*a.gpkg touches the region"
    ):
        vectors.features(path, "layer 'thing'", CELLS)


# ---- area shares


def shares(path, counted, cells=CELLS, **fields):
    return vectors.shares(layer("fraction", **fields), path, cells, counted)[0]


def share(path, cells=CELLS, part=None):
    "Of all polygons"
    return vectors.shares(layer("fraction"), path, cells, None, part)[1]


def test_share_counts_subcells(tmp_path):
    "A polygon of 2.4 x 1.2 cells: 1, 1 and 0.4 across, 1 and 0.2 down"
    found = share(write_shapes(tmp_path / "a.gpkg", [at(0, 0, 2.4, 1.2)]))
    expected = np.outer([1, 0.2, 0, 0, 0, 0], [1, 1, 0.4, 0, 0, 0])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_overlaps_count_once_for_the_total_and_the_later_class_wins(tmp_path):
    "Granite on the left 3 columns, shale on columns 2 to 4, in this order"
    path = write_shapes(
        tmp_path / "a.gpkg", [at(0, 0, 3, 6), at(2, 0, 5, 6)], rock=["granite", "shale"]
    )
    thing = layer("fraction", column="rock")
    (granite, shale), total = vectors.shares(thing, path, CELLS, ["granite", "shale"])
    np.testing.assert_array_equal(granite[0], [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(shale[0], [0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(total[0], [1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(share(path)[0], [1, 1, 1, 1, 1, 0])


def test_a_class_in_the_list_wins_over_one_that_is_not(tmp_path):
    "Shale, which nobody asked for, covers column 2 of granite; it counts for the total only"
    path = write_shapes(
        tmp_path / "a.gpkg", [at(0, 0, 3, 6), at(2, 0, 5, 6)], rock=["granite", "shale"]
    )
    thing = layer("fraction", column="rock")
    (granite,), total = vectors.shares(thing, path, CELLS, ["granite"])
    np.testing.assert_array_equal(granite[0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(total[0], [1, 1, 1, 1, 1, 0])


def test_hole_is_not_covered(tmp_path):
    found = share(write_shapes(tmp_path / "a.gpkg", [at(0, 0, 6, 6) - at(2, 2, 4, 4)]))
    assert found.sum() == 32 and found[2:4, 2:4].sum() == 0


def test_class_that_is_not_here_has_no_share(tmp_path):
    "Shale lies 90 km off"
    path = write_shapes(
        tmp_path / "a.gpkg", [at(0, 0, 3, 6), at(90, 0, 93, 6)], rock=["granite", "shale"]
    )
    (found,) = shares(path, ["shale"], column="rock")
    assert found.shape == (6, 6) and not found.any()


def test_more_classes_than_a_byte_can_count(tmp_path):
    "300 classes, one a subcell: the 300th keeps its own 1/25"
    spots = [(row, col) for row in range(30) for col in range(10)]
    squares = [at(col / 5, row / 5, (col + 1) / 5, (row + 1) / 5) for row, col in spots]
    path = write_shapes(tmp_path / "a.gpkg", squares, number=range(300))
    found = shares(path, list(range(300)), column="number")
    assert len(found) == 300
    for number in (0, 255, 256, 299):
        row, col = spots[number]
        assert found[number][row // 5, col // 5] == pytest.approx(1 / 25)
        assert found[number].sum() == pytest.approx(1 / 25)


def test_whole_numbers_with_gaps_are_classes(tmp_path):
    "A column of integers comes as floats if one is missing"
    path = write_shapes(tmp_path / "a.gpkg", [at(0, 0, 3, 3), at(3, 0, 6, 3)], code=[7, None])
    assert vector_files.classes(path, "code", "x") == {7}
    assert shares(path, [7], column="code")[0].sum() == 9


LINE = LineString([spot(0, 0), spot(5, 5)])
CORNER = (slice(4, 6), slice(4, 6))


@pytest.mark.parametrize("part", [None, CORNER])
def test_lines_have_no_area(tmp_path, part):
    path = write_shapes(tmp_path / "a.gpkg", [LINE])
    with pytest.raises(ValueError, match="'thing': .*a.gpkg holds no polygons"):
        share(path, part=part)


def test_a_part_with_lines_only_has_no_share_where_the_file_holds_polygons(tmp_path):
    "Nor one with nothing at all; in the whole the square has its four cells"
    path = write_shapes(tmp_path / "a.gpkg", [at(0, 0, 2, 2), LINE])
    assert share(path).sum() == 4
    for part in (CORNER, (slice(0, 2), slice(4, 6))):
        assert share(path, part=part).tolist() == [[0, 0], [0, 0]]
        (found,) = vectors.shares(layer("fraction", column="id"), path, CELLS, [0], part)[0]
        assert found.tolist() == [[0, 0], [0, 0]]


def test_a_part_is_read_once_and_the_region_once_for_all_that_are_empty(tmp_path, monkeypatch):
    "Three empty parts and one that holds the square; another file of that name is looked at anew"
    path, asked, reads = write_shapes(tmp_path / "a.gpkg", [at(0, 0, 2, 2)]), [], vectors.read_part
    monkeypatch.setattr(vectors, "read_part", lambda *a: asked.append(1) or reads(*a))
    for row in (5, 4, 3, 0):
        share(path, part=(slice(row, row + 1), slice(0, 6)))
    assert len(asked) == 4 + 1
    os.utime(write_shapes(path, [at(90, 0, 92, 2)]), ns=(1, 1))
    with pytest.raises(ValueError, match="no polygon of .*a.gpkg touches the region"):
        share(path, part=CORNER)


@settings(max_examples=40)
@given(
    cuts=st.lists(st.floats(0.05, 5.95), min_size=1, max_size=4, unique=True),
    lean=st.floats(-0.9, 0.9),
)
def test_shares_of_polygons_that_tile_the_region_sum_to_one(tmp_path_factory, cuts, lean):
    "Leaning stripes side by side: no subcell is counted twice or lost"
    edges = [-20, *sorted(cuts), 20]
    stripes = [
        Polygon([(a - lean * 6, -1), (b - lean * 6, -1), (b + lean * 6, 7), (a + lean * 6, 7)])
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    placed = [
        shapely.transform(each, lambda xy: xy * STEP + [WEST, NORTH - 6000]) for each in stripes
    ]
    path = write_shapes(
        tmp_path_factory.mktemp("tiles") / "a.gpkg", placed, stripe=range(len(placed))
    )
    found = shares(path, list(range(len(placed))), column="stripe")
    np.testing.assert_allclose(sum(found), 1, atol=1e-6)


def test_parts_of_a_region_are_as_in_the_whole(tmp_path):
    "Triangles of up to 30 degrees: each quarter of the map has the shares of the whole"
    rng = np.random.default_rng(0)
    corners = rng.uniform([-200, 10], [-40, 85], (40, 1, 2)) + rng.uniform(-15, 15, (40, 3, 2))
    triangles = shapely.polygons(np.clip(corners, [-250, -80], [0, 89]))
    path = write_shapes(tmp_path / "a.gpkg", triangles, crs="EPSG:4326", rock=["a", "b"] * 20)
    thing = layer("fraction", column="rock")
    whole = np.stack(vectors.shares(thing, path, NORTH_AMERICA, ["a", "b"])[0])
    assert 0.1 < whole.sum(axis=0).mean() < 0.95
    for part in [
        (rows, cols)
        for rows in (slice(0, 70), slice(70, 146))
        for cols in (slice(0, 90), slice(90, 162))
    ]:
        found, _ = vectors.shares(thing, path, NORTH_AMERICA, ["a", "b"], part)
        np.testing.assert_array_equal(np.stack(found), whole[(slice(None), *part)])


def test_polygon_edge_follows_its_parallel(tmp_path):
    "Between 100 and 80 W, 50 N: on the map the parallel sags 100 km below its chord"
    path = write_shapes(tmp_path / "a.gpkg", [box(-110, 40, -80, 50)], crs="EPSG:4326")
    cells = places.grid("ESRI:102008", (-1_000_000, 1_500_000), 10_000, (150, 200))
    found = share(path, cells)
    here = np.stack(np.meshgrid(cells["x"], cells["y"]), axis=-1).reshape(-1, 2)
    lon, lat = (
        gpd.GeoSeries.from_xy(*here.T, crs="ESRI:102008")
        .to_crs("EPSG:4326")
        .get_coordinates()
        .T.values
    )
    inside = ((lon > -110) & (lon < -80) & (lat > 40) & (lat < 50)).reshape(found.shape)
    wrong = (found > 0.5) != inside
    assert wrong.sum() < 5 and inside.sum() > 10_000


# ---- distance


def distance(path, cells=CELLS, **fields):
    return vectors.distance(layer("distance", **fields), path, cells)


@pytest.mark.parametrize("place", [(2, 3), (2, 7), (-3, 2), (16, 2), (-9, -14)])
def test_distance_to_a_point_in_beside_and_far_from_the_region(tmp_path, place):
    "Pythagoras, to cells up to 24 km off"
    row, col = place
    path = write_shapes(tmp_path / "a.gpkg", [spot(row, col)])
    rows, cols = np.mgrid[:6, :6]
    expected = STEP * np.hypot(rows - row, cols - col)
    np.testing.assert_allclose(distance(path), expected, atol=10)


@pytest.mark.parametrize(("row", "away"), [(23, 18), (-3000, 3000)])
def test_features_farther_than_two_diagonals_are_refused(tmp_path, row, away):
    "The diagonal is 8.5 km"
    path = write_shapes(tmp_path / "a.gpkg", [spot(row, 2)])
    with pytest.raises(ValueError, match=f"'thing': the nearest feature .* lies {away} km away"):
        distance(path)


def test_degrees_passed_off_as_metres_are_refused(tmp_path):
    "In the region's CRS, and in one whose origin lies in the middle of the region"
    edge = [LineString([(-110, 40), (-100, 50)])]
    for crs, cells in (("EPSG:32633", CELLS), ("ESRI:102008", NORTH_AMERICA)):
        path = write_shapes(tmp_path / f"{cells.shape[0]}.gpkg", edge, crs=crs)
        with pytest.raises(ValueError, match="'thing': .*gpkg: its coordinates look like degrees"):
            distance(path, cells)
        with pytest.raises(ValueError, match="x: .*look like degrees, but the CRS is"):
            vectors.features(path, "x", cells)


def test_nearer_feature_outside_wins_over_one_inside(tmp_path):
    "A point in column 5 and one just west of the region: each takes the columns nearer to it"
    path = write_shapes(tmp_path / "a.gpkg", [spot(0, 5), spot(0, -1)])
    np.testing.assert_allclose(distance(path)[0], [1e3, 2e3, 3e3, 2e3, 1e3, 0], atol=10)


def test_distance_to_a_polygon_is_zero_inside_and_to_its_edge_is_not(tmp_path):
    "A square from column 1 to 4: the centres of column 3 lie 500 m inside its edge"
    path = write_shapes(tmp_path / "a.gpkg", [at(1, -9, 4, 19)])
    np.testing.assert_allclose(distance(path)[3], [500, 0, 0, 0, 500, 1500], atol=10)
    outline = distance(path, edges=True)[3]
    np.testing.assert_allclose(outline, [500, 500, 1500, 500, 500, 1500], atol=10)


def test_distance_counts_the_named_classes_only(tmp_path):
    "A fault in column 1 counts, a road in column 4 does not"
    lines = [LineString([spot(-1, col), spot(6, col)]) for col in (1, 4)]
    path = write_shapes(tmp_path / "a.gpkg", lines, what=["fault", "road"])
    found = distance(path, column="what", classes=["fault"])
    np.testing.assert_allclose(found, [[1e3, 0, 1e3, 2e3, 3e3, 4e3]] * 6, atol=10)


# in cells, to a metre: a line without length is no feature
coordinate = st.floats(-15, 20).map(lambda place: round(place, 3))
corners = st.lists(st.tuples(coordinate, coordinate), min_size=2, max_size=6, unique=True)


@settings(max_examples=40)
@given(lines=st.lists(corners, min_size=1, max_size=4), dots=st.lists(corners, max_size=1))
def test_distance_agrees_with_shapely(tmp_path_factory, lines, dots):
    "Random lines and points in and around the region, to 1 % of a cell"

    def put(xy):
        return np.array(xy) * STEP + [WEST, NORTH - 6000]

    shapes = [LineString(put(line)) for line in lines] + [
        Point(put([xy])[0]) for xy in sum(dots, [])
    ]
    path = write_shapes(tmp_path_factory.mktemp("lines") / "a.gpkg", shapes)
    expected = shapely.distance(centres(CELLS), shapely.union_all(shapes))
    np.testing.assert_allclose(distance(path), expected, atol=0.01 * STEP)


def test_distance_across_180_degrees(tmp_path):
    "The Aleutians: a point at 179 E is 223 km from one at 177 W along 52 N... and lies in the map"
    path = write_shapes(tmp_path / "a.gpkg", [Point(179, 52)], crs="EPSG:4326")
    expected = gpd.GeoSeries([Point(179, 52)], crs="EPSG:4326").to_crs("ESRI:102008")[0]
    found = distance(path, NORTH_AMERICA)
    np.testing.assert_allclose(found, shapely.distance(centres(NORTH_AMERICA), expected), rtol=1e-6)
    assert found.min() < 40_000


def test_outline_has_no_edge_where_the_file_cuts_polygons_at_180(tmp_path):
    "A block from 170 E to 170 W, cut in two: its middle is as far from an edge as if it were whole"
    halves = [box(170, 55, 180, 65), box(-180, 55, -170, 65)]
    whole = write_shapes(tmp_path / "whole.gpkg", [box(170, 55, 190, 65)], crs="EPSG:4326")
    cut = write_shapes(tmp_path / "cut.gpkg", halves, crs="EPSG:4326")
    cells = places.grid("ESRI:102008", (-5_000_000, 4_400_000), 50_000, (48, 40))
    found = distance(cut, cells, edges=True)
    np.testing.assert_allclose(found, distance(whole, cells, edges=True), atol=2000)
    middle = gpd.GeoSeries([Point(180, 60)], crs="EPSG:4326").to_crs("ESRI:102008")[0]
    row, col = int((4_400_000 - middle.y) // 50_000), int((middle.x + 5_000_000) // 50_000)
    assert found[row, col] > 400_000


# ---- density


def density(path, reach, **fields):
    return vectors.density(layer("density", reach=reach, **fields), path, CELLS)


def test_line_through_a_circle_is_its_diameter(tmp_path):
    "6 km of line in a circle of 3 km radius: 6 / (9 pi) km per km2"
    path = write_shapes(tmp_path / "a.gpkg", [LineString([spot(2, -20), spot(2, 30)])])
    np.testing.assert_allclose(density(path, 3000)[2], 6 / (9 * np.pi), rtol=0.02)


def test_density_of_lines_agrees_with_shapely(tmp_path):
    "Random walks in and around the region, clipped by circles: within 2 % of the largest"
    rng = np.random.default_rng(0)
    walks = [
        rng.uniform(-4, 10, 2) + np.cumsum(rng.normal(0, 2, (8, 2)), axis=0) for _ in range(30)
    ]
    lines = [LineString(walk * STEP + [WEST, NORTH - 6000]) for walk in walks]
    path = write_shapes(tmp_path / "a.gpkg", lines)
    for reach in (1500, 4000):
        circles = shapely.buffer(centres(CELLS), reach, quad_segs=100)
        length = shapely.length(shapely.intersection(circles[..., None], np.array(lines))).sum(
            axis=-1
        )
        expected = length / 1000 / (np.pi * (reach / 1000) ** 2)
        np.testing.assert_allclose(density(path, reach), expected, atol=0.02 * expected.max())


def test_points_are_counted_within_the_circle(tmp_path):
    "Two at one place, one west of the region; a circle of 2.1 cells holds what is 2 cells away"
    path = write_shapes(tmp_path / "a.gpkg", [spot(3, 3), spot(3, 3), spot(3, -1)])
    found = density(path, 2100) * np.pi * 2.1**2
    np.testing.assert_allclose(found[3], [1, 3, 2, 2, 2, 2], rtol=1e-5)
    np.testing.assert_allclose(found[1], [0, 0, 0, 2, 0, 0], atol=1e-6)


def test_density_of_polygons_is_the_share_of_the_circle(tmp_path):
    "Everything west of the border between columns 2 and 3: half of a circle centred there"
    path = write_shapes(tmp_path / "a.gpkg", [at(-20, -20, 3.5, 26)])
    found = density(path, 3000)
    np.testing.assert_allclose(found[:, 3], 0.5, atol=0.03)
    np.testing.assert_allclose(found[:, 0], 1, atol=2e-3)


def test_density_in_a_circle_smaller_than_a_cell_is_refused(tmp_path):
    path = write_shapes(tmp_path / "a.gpkg", [spot(3, 3)])
    with pytest.raises(ValueError, match="'thing': reach 400 m is less than half a cell"):
        density(path, 400)


def test_density_of_a_class_that_is_far_away_is_zero(tmp_path):
    path = write_shapes(tmp_path / "a.gpkg", [spot(3, 3), spot(3, 300)], what=["mine", "well"])
    assert not density(path, 2000, column="what", classes=["well"]).any()


# ---- real files


def test_craton_edges_without_shx_lie_in_both_continents(mirror):
    "The file stays alone: nothing is written beside it"
    (path,) = mirror.glob("EarthByte/Craton_Boundaries/*/Craton_Data/Craton_Boundaries.shp")
    before = sorted(path.parent.iterdir())
    assert len(vectors.features(path, "x", NORTH_AMERICA)) > 100
    assert sorted(path.parent.iterdir()) == before


def test_land_of_north_america_reaches_the_aleutians(mirror):
    "Area of the land between known bounds, Attu (173 E) is land's, the mid-Pacific is not"
    (path,) = mirror.glob("martynafford/natural-earth-geojson/*/50m/physical/ne_50m_land.json")
    found = distance(path, NORTH_AMERICA)
    places = gpd.GeoSeries([Point(173, 52.9), Point(-150, 40)], crs="EPSG:4326").to_crs(
        "ESRI:102008"
    )
    attu, pacific = (
        found[int((4_400_000 - place.y) // 50_000), int((place.x + 5_000_000) // 50_000)]
        for place in places
    )
    assert attu < 50_000 and pacific > 1_000_000
