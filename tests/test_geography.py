import numpy as np
import pyproj
import pytest
import shapely
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from mpm import geography, places

DEGREES = pyproj.CRS("EPSG:4326")
ALASKA = places.grid("ESRI:102008", (-5_000_000, 4_400_000), 50_000, (70, 50))
ARCTIC = places.grid("EPSG:6931", (-2_000_000, 2_000_000), 100_000, (40, 40))
FIJI = places.grid("EPSG:32760", (200_000, 8_400_000), 10_000, (80, 60))  # 174 to 180 E


def mapped(shapes, cells, crs=DEGREES, reach=0, **options):
    box_ = geography.window(cells, crs, reach)
    return geography.to_plane(np.array(shapes, object), crs, cells, box_, **options)[0]


def test_window_of_a_region_in_its_own_crs_is_its_bounds_and_a_rim():
    "Fiji with 100 km around it; the rim is below 150 km"
    west, south, east, north = geography.window(FIJI, pyproj.CRS("EPSG:32760"), 100_000)
    np.testing.assert_allclose([west, south, east, north], [1e5, 75e5, 9e5, 85e5], atol=1.5e5)
    assert west <= 1e5 and south <= 75e5 and east >= 9e5 and north >= 85e5


def test_a_crs_that_states_a_shift_of_its_datum_has_the_same_window():
    "Its parameters are those of the shift: the middle of the region stands for the meridian"
    shifted = "+proj=utm +zone=31 +ellps=WGS84 +towgs84=0,0,0 +units=m"
    one, other = (
        geography.window(places.grid(crs, (400_000, 5_000_000), 10_000, (20, 20)), DEGREES, 0)
        for crs in ("EPSG:32631", shifted)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert 0 < one[0] < 1.78 and 45.1 < one[3] < 47


def test_window_runs_on_across_180_degrees():
    "Alaska and Chukotka: from beyond 180 to Canada, counted from 96 W"
    west, south, east, north = geography.window(ALASKA, DEGREES, 0)
    assert -210 < west < -180 and -140 < east < -96
    assert 25 < south < 35 and 73 < north < 80


def test_window_around_a_pole_takes_all_longitudes():
    west, south, east, north = geography.window(ARCTIC, DEGREES, 0)
    assert east - west == 360 and north == 90 and 55 < south < 65


def test_no_window_where_the_crs_does_not_reach():
    "The far hemisphere of a globe seen from above Europe"
    assert geography.window(FIJI, pyproj.CRS("+proj=ortho +lat_0=45 +lon_0=10"), 0) is None


@pytest.mark.parametrize(
    ("bounds", "turns"),
    [((-180, 40, 180, 80), [0, 360]), ((0, 40, 360, 80), [360]), ((-90, 0, 0, 9), [])],
)
def test_turns_bring_a_files_longitudes_to_the_window(bounds, turns):
    "A window from 200 W to 140 W: what a file has at 160 E to 180 E comes after a turn"
    assert geography.turns((-200, 40, -140, 80), bounds, DEGREES) == turns


def test_what_is_far_away_is_clipped_before_it_is_projected():
    "A line around the globe along 60 N comes as the part that Alaska's window holds"
    (line,) = mapped([LineString([(-180, 60), (180, 60)])], ALASKA)
    assert line.bounds[2] < -1_500_000 and line.length < 4_000_000


def test_long_edge_follows_its_parallel():
    "60 N from 170 W to 150 W: no vertex of the line is off its parallel by 1 km, a chord by 40"
    (line,) = mapped([LineString([(-170, 60), (-150, 60)])], ALASKA)
    back = pyproj.Transformer.from_crs("ESRI:102008", DEGREES, always_xy=True)
    points = shapely.get_coordinates(shapely.segmentize(line, 20_000))
    _, latitude = back.transform(*points.T)
    assert np.abs(latitude - 60).max() < 1 / 111


@pytest.mark.parametrize(
    "longitudes",
    [(-185, -175), (175, 185), (175, -175), (-175, 175)],
    ids=["west", "east", "jump", "back"],
)
def test_square_across_180_is_one_however_it_is_written(longitudes):
    "10 by 10 degrees from 60 N: all that lies between 175 E and 175 W"
    a, b = longitudes
    square = Polygon([(a, 60), (b, 60.001), (b, 70.001), (a, 70)])
    if a * b < 0:  # GIS programs that know nothing of 180 degrees jump there
        assert square.bounds[2] - square.bounds[0] == 350
    window = geography.window(ALASKA, DEGREES, 0)
    parts = [
        each
        for turn in geography.turns(window, (-180, 60, 190, 70), DEGREES)
        for each in geography.to_plane(np.array([square]), DEGREES, ALASKA, window, turn=turn)[0]
    ]
    radians = np.radians(10)
    expected = 6_371_007**2 * radians * (np.sin(np.radians(70)) - np.sin(np.radians(60)))
    assert shapely.union_all(parts).area == pytest.approx(expected, rel=0.01)


def test_polygon_wider_than_the_window_covers_all_of_the_region():
    "The sides that the clip makes are bent too: no corner of the region is lost"
    continent = places.grid("ESRI:102008", (-5_000_000, 4_400_000), 50_000, (146, 162))
    west, south, east, north = continent.rio.bounds()
    covered = shapely.union_all(mapped([box(-250, -60, 60, 89)], continent))
    corners = [Point(west, south), Point(east, south), Point(east, north), Point(0, south)]
    assert shapely.contains(covered, corners).all()


def test_box_of_more_than_180_degrees_is_what_it_looks_like():
    "From 170 W to 170 E the long way, which leaves Chukotka out"
    band = shapely.union_all(mapped([box(-170, 60, 170, 70)], ALASKA))
    to_grid = pyproj.Transformer.from_crs(DEGREES, "ESRI:102008", always_xy=True)
    assert band.contains(Point(to_grid.transform(-160, 65)))
    assert not band.contains(Point(to_grid.transform(180, 65)))


def test_polygon_along_the_pole_keeps_its_edge_of_360_degrees():
    "A cap north of 75 N, written from -180 to 180, is a disk on a polar map"
    (cap,) = mapped([box(-180, 75, 180, 90)], ARCTIC)
    expected = 2 * np.pi * 6_371_007**2 * (1 - np.sin(np.radians(75)))
    assert cap.area == pytest.approx(expected, rel=0.01)
    assert cap.contains(Point(100_000, -900_000))


def test_outline_of_a_cut_polygon_lacks_the_cut():
    "Two halves of a block across 180, cut 0.02 degrees off it: 4 real edges, none at the cut"
    halves = [box(170, 60, 179.98, 62), box(-179.99, 60, -170, 62)]
    found = mapped([halves[0]], ALASKA, turn=360, edges=True).tolist()
    found += mapped([halves[1]], ALASKA, edges=True).tolist()
    to_grid = pyproj.Transformer.from_crs(DEGREES, "ESRI:102008", always_xy=True)
    cut, edge = Point(to_grid.transform(180, 61)), Point(to_grid.transform(180, 60))
    outline = shapely.union_all(found)
    assert outline.distance(cut) > 100_000 and outline.distance(edge) < 2_000


def test_real_edge_on_180_stays_if_longitudes_run_from_0_to_360():
    "In such a file polygons are cut at 0, so an edge at 180 is one"
    outline = mapped([box(180, 60, 190, 62), box(350, 0, 359, 1)], ALASKA, turn=360, edges=True)
    to_grid = pyproj.Transformer.from_crs(DEGREES, "ESRI:102008", always_xy=True)
    assert shapely.union_all(outline).distance(Point(to_grid.transform(180, 61))) < 2_000


def test_bow_tie_is_repaired_and_a_line_of_no_length_dropped():
    bow = Polygon([(-160, 60), (-150, 62), (-150, 60), (-160, 62)])
    nothing = LineString([(-155, 61), (-155, 61)])
    found = mapped([bow, nothing], ALASKA)
    assert len(found) == 1 and found[0].is_valid
    assert found[0].area == pytest.approx(
        2 * 0.5 * 5 * 2 * 111_200**2 * np.cos(np.radians(61)), rel=0.02
    )


def test_rows_say_where_parts_come_from():
    "The second and third of three lie in the window, the third in two parts"
    shapes = [
        Point(20, 0),
        box(-160, 60, -150, 62),
        MultiPolygon([box(-160, 64, -159, 65), box(-158, 64, -157, 65)]),
    ]
    window = geography.window(ALASKA, DEGREES, 0)
    found, rows = geography.to_plane(np.array(shapes, object), DEGREES, ALASKA, window)
    assert rows.tolist() == [1, 2] and len(found[1].geoms) == 2


def test_what_the_map_cannot_show_is_cut_off():
    "A globe from above 180 E: of a band around the equator the near half comes, in pieces"
    globe = places.grid(
        "+proj=ortho +lat_0=0 +lon_0=180 +datum=WGS84", (-3e6, 3e6), 100_000, (60, 60)
    )
    everything = (0, -90, 360, 90)
    parts, _ = geography.to_plane(np.array([box(1, -5, 359, 5)]), DEGREES, globe, everything)
    band = shapely.union_all(parts)
    assert np.isfinite(shapely.get_coordinates(parts)).all()
    assert band.contains(Point(0, 0)) and band.bounds[2] > 5_900_000


def test_file_in_metres_of_another_projection_is_bent():
    "An edge along a northing of UTM zone 5, 1000 km long, stays on that northing"
    line = LineString([(0, 7_000_000), (1_000_000, 7_000_000)])
    (found,) = mapped([line], ALASKA, crs=pyproj.CRS("EPSG:32605"))
    back = pyproj.Transformer.from_crs("ESRI:102008", "EPSG:32605", always_xy=True)
    _, northing = back.transform(*shapely.get_coordinates(shapely.segmentize(found, 10_000)).T)
    np.testing.assert_allclose(northing, 7_000_000, atol=1000)


def test_a_code_is_given_to_what_is_the_same_crs_only():
    "A name alone does not make it: with its meridian 4 degrees farther west it is another"
    facts = pyproj.CRS("EPSG:5070").to_json_dict()
    del facts["id"]
    assert geography.crs_code(pyproj.CRS.from_json_dict(facts)) == "EPSG:5070"
    (meridian,) = (each for each in facts["conversion"]["parameters"] if each["value"] == -96)
    meridian["value"] = -100
    assert geography.crs_code(pyproj.CRS.from_json_dict(facts)) == ""
    assert geography.crs_code("ESRI:102008") == "ESRI:102008"
