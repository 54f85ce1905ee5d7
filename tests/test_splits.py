from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from toy_splits import everywhere, make_cube, with_target

from mpm import splits
from mpm.dealing import groups
from mpm.splits import (
    Split,
    SplitSettings,
    all_runs,
    auto_block_km,
    check,
    dead_cells,
    fold_count,
    fold_numbers,
    fold_table,
    make_split,
)

EIGHT = np.ones((3, 3))


ONE_EACH = [(4 * row + 1, 4 * col + 2) for row in range(6) for col in range(6)]
CORNERS = [(2, 2), (2, 4), (2, 19), (2, 21), (21, 2), (21, 4), (21, 19), (21, 21)]
RULES = SplitSettings(folds=4, block_km=4, dead_cells=1, seed=7)


def rules(**changes) -> SplitSettings:
    return replace(RULES, **changes)


def full_map():
    "6 x 6 blocks of 4 x 4 cells, a deposit in each"
    return make_cube(everywhere(24, 24), ONE_EACH)


class Division(NamedTuple):
    cubes: list[xr.Dataset]
    kind: str
    rules: SplitSettings
    fold: int
    numbers: list[np.ndarray]  # which fold tests a cell
    split: Split

    def parts(self):
        "Train, validation and test cells, region by region"
        return zip(self.split.train, self.split.validation, self.split.test, strict=True)


KINDS = ("blocks", "random", "latitude", "district", "region", "final")
APART = tuple(kind for kind in KINDS if kind != "random")


@st.composite
def maps(draw):
    "One or two regions with holes and deposits, some close together, some beside a hole"
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    holes = draw(st.sampled_from([0.0, 0.1, 0.4]))
    radius = draw(st.sampled_from([0.0, 1000.0, 2500.0]))
    cubes = []
    for k in range(draw(st.integers(1, 2))):
        shape = tuple(rng.integers(16, 26, 2))
        places = np.argwhere(rng.random(shape) < 0.03)
        valid = rng.random(shape) >= holes
        cubes.append(make_cube(valid, places, radius=radius, north=5_000_000 + 500_000 * k))
    return cubes


@st.composite
def divisions(draw, kinds=KINDS):
    "Maps, a kind of split and settings under which every fold has deposits"
    cubes = draw(maps())
    rules = SplitSettings(
        folds=draw(st.integers(3, 4)),
        block_km=draw(st.integers(4, 9)),
        dead_cells=draw(st.integers(0, 2)),
        seed=draw(st.integers(0, 100)),
        latitude_groups=draw(st.integers(3, 5)),
        districts=draw(st.integers(3, 5)),
        district_km=draw(st.sampled_from([0.0, 2.5, 6.0])),
    )
    kind = draw(st.sampled_from(kinds))
    assume(kind != "region" or len(cubes) == 2)
    try:
        fold = draw(st.integers(0, fold_count(kind, cubes, rules, ["MVT"]) - 1))
        split = make_split(cubes, kind, fold, rules, targets=["MVT"])
    except ValueError as error:
        assert any(text in str(error) for text in EXPECTED), error
        assume(False)
    dealt = "blocks" if kind == "final" else kind
    numbers = fold_numbers(cubes, dealt, rules, ["MVT"])
    return Division(cubes, kind, rules, fold, numbers, split)


EXPECTED = ("no deposit of MVT in fold", "of the three districts", "is left to train on")
tried = settings(max_examples=40, deadline=None)


# ---- what holds for every split


@tried
@given(divisions())
def test_every_cell_is_in_at_most_one_part_and_valid(division):
    for cube, parts in zip(division.cubes, division.parts(), strict=True):
        total = np.sum(parts, axis=0)
        assert total.max() <= 1
        assert not total[~cube["valid"].values].any()
        if division.kind == "random":  # nothing is left out
            np.testing.assert_array_equal(total, cube["valid"])


@tried
@given(divisions())
def test_every_split_passes_the_leak_detector(division):
    "With the widest window that its dead zone allows, and its deposits"
    known = {"MVT": [cube["MVT_deposit"].values for cube in division.cubes]}
    if division.kind == "random":
        return check(division.split)
    gap = division.rules.dead_cells
    check(division.split, gap, window=2 * gap + 1, deposits=known)


@tried
@given(divisions(), st.integers(0, 1_000_000))
def test_a_leak_planted_in_any_split_is_found(division, choice):
    "A held-out cell is trained on as well; its region, row and column are named"
    held = division.split.validation if division.kind == "final" else division.split.test
    places = [(k, *cell) for k, cells in enumerate(held) for cell in np.argwhere(cells)]
    region, row, col = places[choice % len(places)]
    train = [cells.copy() for cells in division.split.train]
    train[region][row, col] = True
    leaky = replace(division.split, train=tuple(train))
    with pytest.raises(ValueError, match=f"region {region} .* row {row}, column {col}$"):
        check(leaky)


@tried
@given(divisions(kinds=APART))
def test_no_part_comes_within_the_dead_zone_of_another(division):
    "Chebyshev distances between all pairs of cells, by brute force"
    for parts in division.parts():
        places = [np.argwhere(part) for part in parts]
        for one, other in [(0, 1), (0, 2), (1, 2)]:
            away = np.abs(places[one][:, None] - places[other][None]).max(axis=2)
            assert away.size == 0 or away.min() > division.rules.dead_cells


@tried
@given(divisions(kinds=APART))
def test_dead_zone_takes_no_more_than_it_must(division):
    "A valid cell is in a part, or within the dead zone of a cell that is held out"
    for cube, (train, validation, test) in zip(division.cubes, division.parts(), strict=True):
        held = np.argwhere(validation | test)
        for cell in np.argwhere(cube["valid"].values & ~train & ~validation & ~test):
            assert np.abs(held - cell).max(axis=1).min() <= division.rules.dead_cells


@tried
@given(divisions(kinds=APART))
def test_deposits_and_their_neighbours_never_part(division):
    "Positive cells that touch, or belong to one deposit, are in one fold, holes or not"
    for cube, number in zip(division.cubes, division.numbers, strict=True):
        patches, count = label(cube["MVT"].values, structure=EIGHT)
        deposit = cube["MVT_deposit"].values
        for k in range(1, count + 1):
            assert len(set(number[patches == k])) == 1
        for k in range(deposit.max() + 1):
            assert len(set(number[deposit == k])) <= 1


@tried
@given(divisions(kinds=tuple(kind for kind in KINDS if kind != "final")))
def test_folds_test_every_valid_cell_once(division):
    "What a fold tests is what has its number, made anew with the same seed"
    cubes, kind, rules, _, numbers, _ = division
    try:
        count = fold_count(kind, cubes, rules, ["MVT"])
        made = [make_split(cubes, kind, k, rules, targets=["MVT"]).test for k in range(count)]
    except ValueError as error:  # another fold's dead zone takes all
        assert EXPECTED[-1] in str(error)
        return
    for k, cube in enumerate(cubes):
        np.testing.assert_array_equal(np.sum([test[k] for test in made], axis=0), cube["valid"])
        for fold, test in enumerate(made):
            np.testing.assert_array_equal(test[k], numbers[k] == fold)


@tried
@given(divisions(kinds=("blocks", "random", "latitude", "district")))
def test_every_fold_has_deposits_and_every_valid_cell_a_fold(division):
    cubes, kind, rules, *_ = division
    count, folds = fold_count(kind, cubes, rules, ["MVT"]), set()
    for cube, number in zip(cubes, division.numbers, strict=True):
        valid = cube["valid"].values
        assert (number[~valid] == -1).all()
        assert set(number[valid]) <= set(range(count))
        folds |= set(number[cube["MVT"].values])
    assert folds == set(range(count))


# ---- by hand


def test_deposit_cut_by_a_lake_stays_in_one_fold():
    "Positive cells on both sides of an invalid column, and of a block's edge, belong together"
    valid = everywhere(24, 24)
    valid[:, 4] = False
    others = [place for place in ONE_EACH if place[1] > 8]
    cube = make_cube(valid, [(9, 4), *others], radius=1000)
    assert np.argwhere(cube["MVT_deposit"].values == 0).tolist() == [[9, 3], [9, 5]]
    for seed in range(5):
        (number,) = fold_numbers([cube], "blocks", rules(seed=seed), ["MVT"])
        assert number[9, 3] == number[9, 5]


def test_the_random_split_parts_the_cells_of_a_deposit():
    "As published: of 49 cells of one deposit, each fold receives some"
    cube = make_cube(everywhere(24, 24), [(12, 12), (2, 2), (2, 20), (20, 2)], radius=4000)
    (number,) = fold_numbers([cube], "random", rules(), ["MVT"])
    own = number[cube["MVT_deposit"].values == 0]
    assert len(own) == 49 and (np.bincount(own) > 0).all()


def test_other_seed_gives_another_split():
    cube = full_map()
    for kind in ("blocks", "random"):
        one, other = (fold_numbers([cube], kind, rules(seed=seed), ["MVT"])[0] for seed in (1, 2))
        assert (one != other).any()


def test_blocks_are_whole():
    "Without deposits on an edge, each 4 x 4 block is in one fold"
    (number,) = fold_numbers([full_map()], "blocks", RULES, ["MVT"])
    blocks = number.reshape(6, 4, 6, 4).transpose(0, 2, 1, 3).reshape(36, 16)
    assert all(len(set(block)) == 1 for block in blocks.tolist())


@pytest.mark.parametrize("places", [ONE_EACH, ONE_EACH[:8], []])
def test_folds_are_no_stripes(places):
    "Each fold of a 6 x 6-block map spans at least two rows and two columns of blocks"
    cube = make_cube(everywhere(24, 24), places)
    for seed in range(20):
        (number,) = fold_numbers([cube], "blocks", rules(seed=seed), ["MVT"])
        for fold in range(4):
            rows, cols = np.nonzero(number == fold)
            assert len(set(rows // 4)) >= 2 and len(set(cols // 4)) >= 2


def test_deposits_and_area_are_dealt_evenly():
    "36 blocks of a deposit each: nine deposits and 144 cells in each of four folds"
    cube = full_map()
    (number,) = fold_numbers([cube], "blocks", RULES, ["MVT"])
    assert np.bincount(number[cube["MVT"].values]).tolist() == [9, 9, 9, 9]
    assert np.bincount(number.ravel()).tolist() == [144, 144, 144, 144]


@pytest.mark.parametrize("places", [ONE_EACH[:5], []])
def test_area_is_even_where_deposits_are_few(places):
    "Blocks without deposits fill up the folds: 144 cells in each of four"
    cube = make_cube(everywhere(24, 24), places)
    (number,) = fold_numbers([cube], "blocks", RULES, ["MVT"])
    assert np.bincount(number.ravel()).tolist() == [144, 144, 144, 144]


def test_cells_of_a_random_split_are_even():
    "2,500 single cells and no deposit: 625 a fold, whether dealt one by one or in turn"
    (number,) = fold_numbers([make_cube(everywhere(50, 50), [])], "random", RULES, ["MVT"])
    assert np.bincount(number.ravel()).tolist() == [625] * 4
    runs = np.diff(number.ravel()) % 4
    assert np.bincount(runs).min() > 400  # no pattern along a row


@tried
@given(divisions(kinds=("blocks", "final")))
def test_counts_of_deposits_differ_by_no_more_than_one_block_holds(division):
    "The poorest fold is served first, so the rest is at most the richest unit"
    side, folds = division.rules.block_km, division.rules.folds
    counts, richest = np.zeros(folds), 1
    for cube, number in zip(division.cubes, division.numbers, strict=True):
        deposit = cube["MVT_deposit"].values
        group = groups(cube, ["MVT"]) + 1  # 0 is no group
        for fold in range(folds):
            counts[fold] += len(set(deposit[(number == fold) & (deposit >= 0)]))
        # a unit holds at most the deposits of all groups that reach into its block
        for row in range(0, deposit.shape[0], side):
            for col in range(0, deposit.shape[1], side):
                reach = set(group[row : row + side, col : col + side].ravel()) - {0}
                richest = max(richest, len(set(deposit[np.isin(group, list(reach))])))
    assert counts.max() - counts.min() <= richest


def test_a_deposit_of_many_cells_counts_once():
    "Two large and two small deposits over two folds: one of each, or two and two, never 3 and 1"
    places = [(5, 5), (5, 17), (17, 5), (17, 17)]
    cube = make_cube(everywhere(24, 24), places, radius=1000)
    (number,) = fold_numbers([cube], "blocks", rules(folds=2, block_km=12), ["MVT"])
    assert sorted(number[place] for place in places) == [0, 0, 1, 1]


def test_two_targets_share_one_split():
    "Each fold holds deposits of both targets, and counts of both are even"
    cube = with_target(make_cube(everywhere(24, 24), ONE_EACH[:12]), ONE_EACH[12:20])
    for seed in range(10):
        (number,) = fold_numbers([cube], "blocks", rules(seed=seed), ["MVT", "CD"])
        assert np.bincount(number[cube["MVT"].values]).tolist() == [3, 3, 3, 3]
        assert np.bincount(number[cube["CD"].values]).tolist() == [2, 2, 2, 2]


def test_regions_are_dealt_together():
    "Two regions of four deposits: one split serves both, and folds are even over the two"
    cubes = [make_cube(everywhere(8, 8), [(1, 1), (1, 5), (5, 1), (5, 5)]) for _ in range(2)]
    numbers = fold_numbers(cubes, "blocks", RULES, ["MVT"])
    held = np.concatenate(
        [number[cube["MVT"].values] for cube, number in zip(cubes, numbers, strict=True)]
    )
    assert np.bincount(held).tolist() == [2, 2, 2, 2]
    assert (numbers[0] != numbers[1]).any()


def test_next_fold_validates():
    "The last fold's validation is fold 0"
    (number,) = fold_numbers([full_map()], "random", RULES, ["MVT"])
    split = make_split([full_map()], "random", 3, RULES, targets=["MVT"])
    np.testing.assert_array_equal(split.test[0], number == 3)
    np.testing.assert_array_equal(split.validation[0], number == 0)
    np.testing.assert_array_equal(split.train[0], (number == 1) | (number == 2))


def test_final_split_tests_nothing():
    "One fold's blocks validate, all others train but for the dead zone"
    cube = full_map()
    (number,) = fold_numbers([cube], "blocks", RULES, ["MVT"])
    split = make_split([cube], "final", 2, RULES, targets=["MVT"])
    assert not split.test[0].any()
    np.testing.assert_array_equal(split.validation[0], number == 2)
    assert set(number[split.train[0]]) == {0, 1, 3}


def test_runs_are_the_folds_then_the_contrast_then_the_map():
    assert SplitSettings(folds=3, random_folds=1).runs() == [
        ("blocks", 0),
        ("blocks", 1),
        ("blocks", 2),
        ("random", 0),
        ("final", 0),
    ]


def test_networks_are_trained_for_regions_if_asked():
    "Between the random split and the map's"
    runs = SplitSettings(folds=1, random_folds=1, regions=2).runs()
    assert runs == [("blocks", 0), ("random", 0), ("region", 0), ("region", 1), ("final", 0)]


def test_methods_are_scored_on_all_folds_of_a_kind():
    "Of the random split on as many as settings say; of districts on those that the map has"
    cubes = [make_cube(everywhere(24, 24), CORNERS), make_cube(everywhere(24, 24), [(5, 5)])]
    chosen = rules(random_folds=1, latitude_groups=3, districts=4, district_km=5.0)
    kinds = ("district", "random", "region", "latitude", "final")
    runs = all_runs(kinds, cubes, chosen, ["MVT"])
    counts = {kind: [fold for name, fold in runs if name == kind] for kind in kinds}
    assert list(dict(runs)) == list(kinds)
    assert counts["random"] == counts["final"] == [0]
    assert counts["region"] == [0, 1] and counts["latitude"] == [0, 1, 2]
    assert counts["district"] == [0, 1, 2, 3]


def test_dead_zone_is_half_a_window_and_the_radius():
    "Window 5 and 1.5 km on cells of 1 km: 2 + 2"
    assert dead_cells([full_map()], 5, 1500.0) == 4
    assert dead_cells([full_map()], 9, 0.0) == 4


def test_blocks_are_so_large_that_a_fold_has_five():
    "480 x 24 cells of 1 km, 4 folds of 5 blocks: 24 km, rounded to tens; 5.4 km to one digit"
    assert auto_block_km([make_cube(everywhere(24, 480), [])], 4) == 20
    assert auto_block_km([full_map()], 4) == 5


def test_bands_of_latitude_hold_equal_numbers_of_deposits():
    "Six deposits on rows 1, 5, ... 21: two in each of three bands, the southern first"
    cube = make_cube(everywhere(24, 6), [(row, 2) for row in range(1, 24, 4)])
    (number,) = fold_numbers([cube], "latitude", rules(latitude_groups=3), ["MVT"])
    # edges at a third and two thirds: rows 14.3 and 7.7
    np.testing.assert_array_equal(number[:, 0], [2] * 8 + [1] * 7 + [0] * 9)
    assert (number == number[:, :1]).all()


def test_a_district_is_tested_with_the_ground_nearest_to_it():
    "Two deposits in each corner of 24 x 24 cells: quarters of 12 x 12"
    cube, chosen = make_cube(everywhere(24, 24), CORNERS), rules(district_km=5.0)
    (number,) = fold_numbers([cube], "district", chosen, ["MVT"])
    quarters = number.reshape(2, 12, 2, 12).transpose(0, 2, 1, 3).reshape(4, 144)
    np.testing.assert_array_equal(quarters, np.repeat(np.arange(4)[:, None], 144, axis=1))
    split = make_split([cube], "district", 0, chosen, targets=["MVT"])
    assert split.test[0][:12, :12].all() and split.validation[0][:12, 13:].all()
    assert split.train[0][13:, :12].all() and not split.train[0][12].any()


def test_folds_are_counted_in_cells_and_deposits():
    "Three blocks of 4 x 4 cells, one of them with two deposits of one target and one of another"
    cube = with_target(make_cube(everywhere(4, 12), [(0, 0), (1, 5), (2, 9)]), [(3, 7)])
    table = fold_table([cube], "blocks", rules(folds=3), ["MVT"])
    assert table["cells"].tolist() == [16, 16, 16] and table["MVT"].tolist() == [1, 1, 1]
    other = with_target(make_cube(everywhere(2, 2), [(0, 0)]), [])
    both = fold_table([cube, other], "region", rules(), ["MVT", "CD"])
    assert both.to_numpy().tolist() == [[48, 3, 1], [4, 1, 0]]
    assert list(both) == ["cells", "MVT", "CD"]


def test_blocks_without_extent_are_the_random_split():
    "0 km: single cells are dealt, deposits part, and no dead zone is left out"
    cube, chosen = full_map(), rules(block_km=0.0, dead_cells=5)
    for fold in range(4):
        blocks = make_split([cube], "blocks", fold, chosen, targets=["MVT"])
        cells = make_split([cube], "random", fold, chosen, targets=["MVT"])
        np.testing.assert_array_equal(blocks.train, cells.train)
        np.testing.assert_array_equal(blocks.test, cells.test)


@pytest.mark.parametrize("seed", range(8))
def test_another_region_validates_by_a_fold_that_has_deposits(seed):
    "Two deposits in the south lie in one or two of four folds: fold 0 or, without any, one of them"
    north = make_cube(everywhere(24, 24), ONE_EACH)
    south = make_cube(everywhere(24, 24), [(1, 2), (21, 22)])
    chosen = rules(seed=seed)
    _, number = fold_numbers([north, south], "blocks", chosen, ["MVT"])
    split = make_split([north, south], "region", 0, chosen, targets=["MVT"])
    assert split.test[0].all() and not split.train[0].any() and not split.test[1].any()
    (fold,) = set(number[split.validation[1]])
    held = set(number[south["MVT"].values])
    assert fold == 0 if 0 in held else fold in held


def test_the_fold_that_validates_serves_all_targets():
    "The next fold has no CD, so that the one after it validates which has fewer positive cells"
    cube = make_cube(everywhere(6, 40), [(2, 2), (2, 12), (2, 22), (2, 23), (2, 32)])
    cube = with_target(cube, [(4, 2), (4, 22), (4, 32)])
    numbers = [np.arange(40) // 10 * np.ones((6, 1), int)]
    test = [numbers[0] == 0]
    chosen = splits._divide([cube], numbers, test, [1, 2, 3], 0, ["MVT", "CD"])
    np.testing.assert_array_equal(chosen.validation[0], numbers[0] == 3)
    alone = splits._divide([cube], numbers, test, [1, 2, 3], 0, ["MVT"])
    np.testing.assert_array_equal(alone.validation[0], numbers[0] == 1)


# ---- what is refused


@pytest.mark.parametrize("kind", ["blocks", "random"])
def test_too_few_deposits_are_refused(kind):
    "Three deposits cannot serve four folds; the message names target, folds and remedy"
    cube = make_cube(everywhere(24, 24), ONE_EACH[:3])
    with pytest.raises(ValueError, match=r"no deposit of MVT in fold \d \(.*use fewer folds"):
        make_split([cube], kind, 0, RULES, targets=["MVT"])


def test_too_few_deposits_for_bands_are_refused():
    cube = make_cube(everywhere(24, 24), ONE_EACH[::6][:3])
    with pytest.raises(ValueError, match=r"no deposit of MVT in fold 1 .*fewer latitude_groups"):
        make_split([cube], "latitude", 0, rules(latitude_groups=4), targets=["MVT"])


def test_too_few_districts_are_refused():
    "Two clusters cannot be tested, validated and trained on"
    cube = make_cube(everywhere(24, 24), CORNERS[:4])
    with pytest.raises(ValueError, match="make 2 of the three districts .*smaller district_km"):
        fold_count("district", [cube], rules(district_km=5.0), ["MVT"])


def test_blocks_as_large_as_the_map_are_refused():
    with pytest.raises(ValueError, match="no deposit of MVT in fold .*smaller blocks"):
        make_split([full_map()], "blocks", 0, rules(block_km=1000.0), targets=["MVT"])


@pytest.mark.parametrize("dead", [6, 2])
def test_a_dead_zone_that_takes_all_training_is_refused(dead):
    "All cells, or all deposits: blocks of 4 cells, of which half are held out"
    cube = make_cube(everywhere(24, 24), [(4 * k, 4 * k) for k in range(6)])
    what = "cell" if dead == 6 else "deposit of MVT"
    with pytest.raises(ValueError, match=f"no {what} is left to train on .*zone of {dead} cells"):
        for seed in range(20):
            make_split([cube], "blocks", 0, rules(dead_cells=dead, seed=seed), targets=["MVT"])


def test_a_study_of_one_region_has_none_to_test_on():
    with pytest.raises(ValueError, match="one region has none to test on; use split 'blocks'"):
        make_split([full_map()], "region", 0, RULES, targets=["MVT"])


@pytest.mark.parametrize(("kind", "fold"), [("blocks", 4), ("random", -1), ("latitude", 6)])
def test_unknown_fold_is_refused(kind, fold):
    with pytest.raises(ValueError, match=f"no fold {fold} of split '{kind}', which has"):
        make_split([full_map()], kind, fold, RULES, targets=["MVT"])


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no split 'stripes'; there are blocks, .*district"):
        make_split([full_map()], "stripes", 0, RULES, targets=["MVT"])


def test_obstacles_name_the_kinds_that_a_study_does_not_allow():
    "One region can be cut into blocks, but there is no other region to test on"
    found = splits.obstacles(["blocks", "region"], [full_map()], RULES, ["MVT"])
    assert found["blocks"] == ""
    assert "one region has none to test on" in found["region"]


def test_a_region_without_deposits_of_what_is_tested_is_an_obstacle():
    "Without any there is nothing to find in it, and nothing to learn where it alone is left"
    empty = make_cube(everywhere(24, 24), []).assign_attrs(region="south")
    cubes = [full_map(), empty]
    assert splits.obstacles(["region"], cubes, RULES, ["MVT"])["region"] == ""
    found = splits.obstacles(["region"], cubes, RULES, ["MVT"], tested=["MVT"])["region"]
    assert found == "region south has no deposit of MVT to learn from or to find"
