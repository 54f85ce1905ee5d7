import numpy as np
import pytest
from toy_splits import everywhere, make_cube, with_target

from mpm.districts import (
    check_apart,
    district_ground,
    find_districts,
    latitude_bands,
    positive_cells,
)

CORNERS = [(2, 2), (2, 4), (2, 19), (2, 21), (21, 2), (21, 4), (21, 19), (21, 21)]


def find(places, *, most=6, km=5.0, dead_km=0.0, others=None, radius=0.0):
    cube = make_cube(everywhere(24, 24), places, radius=radius)
    targets = ["MVT"]
    if others is not None:
        cube, targets = with_target(cube, others), ["MVT", "CD"]
    return find_districts([cube], targets, most=most, km=km, dead_km=dead_km).tolist()


def test_deposits_closer_than_the_limit_are_one_district():
    "Pairs two cells apart in each corner; a limit below that parts them"
    assert find(CORNERS) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert find(CORNERS, most=8, km=1.5) == list(range(8))


def test_districts_are_linked_by_steps():
    "Four deposits in a row, 4 km from each to the next, are one"
    places = [(2, 2), (2, 6), (2, 10), (2, 14), (20, 2), (20, 20)]
    assert find(places) == [0, 0, 0, 0, 1, 2]


def test_the_smallest_district_joins_its_nearest():
    "One at (2, 12) lies 8 km from the pair in the west, 7 km from that in the east"
    assert find([*CORNERS, (2, 12)], most=4) == [0, 0, 1, 1, 2, 2, 3, 3, 1]
    assert find([*CORNERS, (2, 12)], most=5) == [0, 0, 1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(("row", "found"), [(6, [0] * 6 + [1] * 6 + [0]), (5, None)])
def test_a_district_with_few_deposits_is_none(row, found):
    "A lone one of 13 joins: a quarter of a third is 1.08; of 11 it is 0.92, and it stays"
    places = [(line, 1 + 2 * k) for line in (2, 20) for k in range(row)]
    assert find([*places, (8, 22)], most=3) == (found or [0] * 5 + [1] * 5 + [2])


def test_every_district_holds_each_target():
    "CD lies in two corners: the pairs without any join them"
    found = find(CORNERS, others=[(3, 3), (20, 20)])
    assert found == [0, 0, 0, 0, 1, 1, 1, 1, 0, 1]


def test_the_dead_zone_is_the_limit_unless_one_is_given():
    assert find(CORNERS, km=0.0, dead_km=5.0) == find(CORNERS)


def test_a_dead_zone_that_joins_all_is_halved_until_it_does_not():
    "Deposits 5 km apart: linked by 8 km, and not by 4 km; three districts are enough"
    row = [(2, 2), (2, 7), (2, 12), (2, 17)]
    assert find(row, km=8.0) == [0, 0, 0, 0]
    assert find(row, km=0.0, dead_km=8.0) == [0, 1, 2, 3]
    assert find([*CORNERS, (2, 22)], km=0.0, dead_km=5.0) == [0, 0, 1, 1, 2, 2, 3, 3, 1]


def test_touching_deposits_share_a_district_at_any_limit():
    "Neighbourhoods of 1.5 km touch that lie three cells apart"
    assert find([(5, 5), (5, 8), (20, 20)], km=0.5, radius=1500.0) == [0, 0, 1]


def test_ground_goes_with_the_nearest_positive_cell():
    "Columns 0 to 2 are nearer to the deposit in column 0, columns 3 to 6 to that in column 6"
    cube = make_cube(everywhere(2, 7), [(0, 0), (0, 6)])
    cube["valid"].values[1, 1] = False
    (number,) = district_ground([cube], ["MVT"], np.array([1, 0]))
    assert number[0].tolist() in ([1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0])
    assert number[1, 1] == -1


def test_a_region_without_deposits_goes_with_the_nearest_region():
    "500 km further north, nearer to the northern of two districts"
    south = make_cube(everywhere(9, 3), [(0, 1), (8, 1)])
    north = make_cube(everywhere(3, 3), [], north=5_500_000)
    _, number = district_ground([south, north], ["MVT"], np.array([0, 1]))
    assert (number == 0).all()


def test_bands_are_counted_over_all_regions_together():
    "Two deposits in the south and two 500 km north: half of all are southern"
    south = make_cube(everywhere(6, 3), [(1, 1), (4, 1)])
    north = make_cube(everywhere(6, 3), [(1, 1), (4, 1)], north=5_500_000)
    one, other = latitude_bands([south, north], ["MVT"], bands=2)
    assert (one == 0).all() and (other == 1).all()


def test_touching_cells_stay_in_one_band():
    "An edge that runs through a neighbourhood of nine cells goes around it"
    cube = make_cube(everywhere(9, 9), [(1, 1), (4, 4), (7, 7)], radius=1500.0)
    (number,) = latitude_bands([cube], ["MVT"], bands=2)
    assert len(set(number[3:6, 3:6].ravel())) == 1
    assert number[4, 0] != number[3, 0] or number[5, 0] != number[4, 0]


def test_places_are_those_of_the_map():
    "On the central meridian of zone 33, 15 degrees east; 5,000 km north is 45.15 degrees"
    cells = positive_cells([make_cube(everywhere(2, 2), [(1, 0)])], ["MVT"])
    (row,) = cells.itertuples()
    assert row.latitude == pytest.approx(45.157, abs=2e-3)
    assert np.degrees(np.arctan2(row.y, row.x)) == pytest.approx(15.006, abs=1e-3)
    assert np.hypot(np.hypot(row.x, row.y), row.z) == pytest.approx(6371.0)


def test_deposits_and_groups_are_numbered_over_regions_and_targets():
    cube = with_target(make_cube(everywhere(7, 7), [(1, 1), (5, 5)]), [(2, 2)])
    cells = positive_cells([cube, cube], ["MVT", "CD"])
    assert cells["deposit"].tolist() == [0, 1, 2, 3, 4, 5]
    assert cells["target"].tolist() == [0, 0, 1] * 2
    assert cells["group"].tolist() == [0, 1, 0, 2, 3, 2]


def test_a_map_without_deposits_has_no_bands():
    cube = make_cube(everywhere(4, 4), [])
    with pytest.raises(ValueError, match="no deposit of MVT to draw bands or districts by; use"):
        latitude_bands([cube], ["MVT"], bands=3)


def test_a_map_without_projection_is_refused():
    cube = make_cube(everywhere(4, 4), [(1, 1)]).drop_vars("spatial_ref")
    cube.attrs["region"] = "north"
    with pytest.raises(ValueError, match="cube of north has no CRS.*write_crs"):
        latitude_bands([cube], ["MVT"], bands=3)


@pytest.mark.parametrize(("step_km", "apart"), [(0, False), (20, False), (27, False), (29, True)])
def test_regions_that_windows_reach_across_are_refused(step_km, apart):
    "24 cells of 1 km, a dead zone of 3: shifted by 24 km they touch, 4 km more part them"
    first = make_cube(everywhere(24, 24), CORNERS).assign_attrs(region="north")
    second = first.assign_coords(x=first["x"] + 1000 * step_km).assign_attrs(region="south")
    if apart:
        check_apart([first, second], 3)
    else:
        with pytest.raises(ValueError, match="north and south come within .* km .*one region, or"):
            check_apart([first, second], 3)
    check_apart([first], 3)
