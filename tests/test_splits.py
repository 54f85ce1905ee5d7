from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from mpm import align, labels
from mpm.splits import (
    Split,
    SplitSettings,
    _groups,
    auto_block_km,
    check,
    dead_cells,
    fold_numbers,
    make_split,
)
from mpm.study import Region, Target

EIGHT = np.ones((3, 3))


def make_cube(valid, places, *, radius=0.0, target="MVT") -> xr.Dataset:
    "A cube of 1 km cells with a target's deposits at (row, col)"
    rows, cols = valid.shape
    bounds = (500_000, 5_000_000, 500_000 + 1000 * cols, 5_000_000 + 1000 * rows)
    cells = align.grid(Region(crs="EPSG:32633", resolution=1000, bounds=bounds))
    row, col = np.array(places, dtype=int).reshape(-1, 2).T
    deposits = pd.DataFrame(
        {"deposit": range(len(row)), "type": "", "row": row, "col": col}
    ).assign(x=cells["x"].values[col], y=cells["y"].values[row])
    number = labels.deposit_numbers(deposits, Target(radius=radius), cells)
    number[~valid] = -1
    return xr.Dataset(
        {
            "valid": (("y", "x"), valid),
            target: (("y", "x"), number >= 0),
            f"{target}_deposit": (("y", "x"), number),
        },
        coords={"y": cells["y"], "x": cells["x"]},
    )


def everywhere(rows, cols):
    return np.ones((rows, cols), bool)


ONE_EACH = [(4 * row + 1, 4 * col + 2) for row in range(6) for col in range(6)]
RULES = SplitSettings(folds=4, block_km=4, dead_cells=1, seed=7)


def rules(**changes) -> SplitSettings:
    return replace(RULES, **changes)


def full_map():
    "6 x 6 blocks of 4 x 4 cells, a deposit in each"
    return make_cube(everywhere(24, 24), ONE_EACH)


@st.composite
def maps(draw):
    "One or two regions with holes and deposits, some close together, some beside a hole"
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    holes = draw(st.sampled_from([0.0, 0.1, 0.4]))
    radius = draw(st.sampled_from([0.0, 1000.0, 2500.0]))
    cubes = []
    for _ in range(draw(st.integers(1, 2))):
        shape = tuple(rng.integers(14, 30, 2))
        places = np.argwhere(rng.random(shape) < 0.03)
        cubes.append(make_cube(rng.random(shape) >= holes, places, radius=radius))
    return cubes


@st.composite
def divisions(draw, kinds=("blocks", "random", "final")):
    "Maps, a kind of split and settings under which every fold has deposits"
    cubes = draw(maps())
    chosen = SplitSettings(
        folds=draw(st.integers(3, 4)),
        block_km=draw(st.integers(3, 8)),
        dead_cells=draw(st.integers(0, 3)),
        seed=draw(st.integers(0, 100)),
    )
    kind = draw(st.sampled_from(kinds))
    try:
        numbers = fold_numbers(cubes, "random" if kind == "random" else "blocks", chosen, ["MVT"])
    except ValueError as error:
        assert "no deposit of MVT in fold" in str(error)
        assume(False)
    return cubes, kind, chosen, numbers


tried = settings(max_examples=60, deadline=None)


# ---- what holds for every split


@tried
@given(divisions(), st.integers(0, 2))
def test_every_cell_is_in_at_most_one_part_and_valid(division, fold):
    cubes, kind, chosen, _ = division
    split = make_split(cubes, kind, fold, chosen, targets=["MVT"])
    for cube, *parts in zip(cubes, split.train, split.validation, split.test, strict=True):
        total = np.sum(parts, axis=0)
        assert total.max() <= 1
        assert not total[~cube["valid"].values].any()
    check(split, 0 if kind == "random" else chosen.dead_cells)


@tried
@given(divisions(kinds=("random",)), st.integers(0, 2))
def test_random_split_leaves_out_no_valid_cell(division, fold):
    cubes, kind, chosen, _ = division
    split = make_split(cubes, kind, fold, chosen, targets=["MVT"])
    for cube, *parts in zip(cubes, split.train, split.validation, split.test, strict=True):
        np.testing.assert_array_equal(np.any(parts, axis=0), cube["valid"])


@tried
@given(divisions(kinds=("blocks", "final")), st.integers(0, 2))
def test_no_part_comes_within_the_dead_zone_of_another(division, fold):
    "Chebyshev distances between all pairs of cells, by brute force"
    cubes, kind, chosen, _ = division
    split = make_split(cubes, kind, fold, chosen, targets=["MVT"])
    for parts in zip(split.train, split.validation, split.test, strict=True):
        places = [np.argwhere(part) for part in parts]
        for one, other in [(0, 1), (0, 2), (1, 2)]:
            away = np.abs(places[one][:, None] - places[other][None]).max(axis=2)
            assert away.size == 0 or away.min() > chosen.dead_cells


@tried
@given(divisions(kinds=("blocks",)))
def test_dead_zone_takes_no_more_than_it_must(division):
    "A train cell is lost only within the dead zone of a cell that is held out"
    cubes, kind, chosen, numbers = division
    split = make_split(cubes, kind, 0, chosen, targets=["MVT"])
    for number, *parts in zip(numbers, split.train, split.validation, split.test, strict=True):
        train, validation, test = parts
        held = np.argwhere(validation | test)
        for cell in np.argwhere((number > 1) & ~train):
            assert np.abs(held - cell).max(axis=1).min() <= chosen.dead_cells
        np.testing.assert_array_equal(test, number == 0)


@tried
@given(divisions(kinds=("blocks", "final")))
def test_deposits_and_their_neighbours_never_part(division):
    "Positive cells that touch, or belong to one deposit, are in one fold, holes or not"
    cubes, _, _, numbers = division
    for cube, number in zip(cubes, numbers, strict=True):
        groups, count = label(cube["MVT"].values, structure=EIGHT)
        deposit = cube["MVT_deposit"].values
        for k in range(1, count + 1):
            assert len(set(number[groups == k])) == 1
        for k in range(deposit.max() + 1):
            assert len(set(number[deposit == k])) <= 1


@tried
@given(divisions())
def test_every_fold_has_deposits_and_every_valid_cell_a_fold(division):
    cubes, _, chosen, numbers = division
    folds = set()
    for cube, number in zip(cubes, numbers, strict=True):
        valid = cube["valid"].values
        assert (number[~valid] == -1).all()
        assert set(number[valid]) <= set(range(chosen.folds))
        folds |= set(number[cube["MVT"].values])
    assert folds == set(range(chosen.folds))


@tried
@given(divisions(kinds=("blocks", "random")))
def test_same_seed_same_split(division):
    cubes, kind, chosen, _ = division
    one, again = (make_split(cubes, kind, 0, chosen, targets=["MVT"]) for _ in range(2))
    for part in ("train", "validation", "test"):
        for first, second in zip(getattr(one, part), getattr(again, part), strict=True):
            np.testing.assert_array_equal(first, second)


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
    cubes, _, chosen, numbers = division
    side = chosen.block_km
    counts, richest = np.zeros(chosen.folds), 1
    for cube, number in zip(cubes, numbers, strict=True):
        deposit = cube["MVT_deposit"].values
        groups = _groups(cube, ["MVT"]) + 1  # 0 is no group
        for fold in range(chosen.folds):
            counts[fold] += len(set(deposit[(number == fold) & (deposit >= 0)]))
        # a unit holds at most the deposits of all groups that reach into its block
        for row in range(0, deposit.shape[0], side):
            for col in range(0, deposit.shape[1], side):
                reach = set(groups[row : row + side, col : col + side].ravel()) - {0}
                richest = max(richest, len(set(deposit[np.isin(groups, list(reach))])))
    assert counts.max() - counts.min() <= richest


def test_a_deposit_of_many_cells_counts_once():
    "Two large and two small deposits over two folds: one of each, or two and two, never 3 and 1"
    places = [(5, 5), (5, 17), (17, 5), (17, 17)]
    cube = make_cube(everywhere(24, 24), places, radius=1000)
    (number,) = fold_numbers([cube], "blocks", rules(folds=2, block_km=12), ["MVT"])
    assert sorted(number[place] for place in places) == [0, 0, 1, 1]


def test_two_targets_share_one_split():
    "Each fold holds deposits of both targets, and counts of both are even"
    cube = make_cube(everywhere(24, 24), ONE_EACH[:12])
    other = make_cube(everywhere(24, 24), ONE_EACH[12:20], target="CD")
    cube = cube.merge(other[["CD", "CD_deposit"]])
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


def test_each_fold_is_tested_once():
    "Over all folds the tests cover the map once"
    cube = full_map()
    for kind in ("blocks", "random"):
        tests = [make_split([cube], kind, k, RULES, targets=["MVT"]).test[0] for k in range(4)]
        np.testing.assert_array_equal(np.sum(tests, axis=0), 1)


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


def test_dead_zone_is_half_a_window_and_the_radius():
    "Window 5 and 1.5 km on cells of 1 km: 2 + 2"
    assert dead_cells([full_map()], 5, 1500.0) == 4
    assert dead_cells([full_map()], 9, 0.0) == 4


def test_blocks_are_so_large_that_a_fold_has_five():
    "480 x 24 cells of 1 km in 4 folds of 5 blocks: 576 km2 each, 24 km, rounded; at least 10 km"
    assert auto_block_km([make_cube(everywhere(24, 480), [])], 4) == 20
    assert auto_block_km([full_map()], 4) == 10


# ---- what is refused


def test_planted_overlap_is_found():
    "One cell both trained on and tested"
    train, test = np.zeros((2, 8, 8), bool)
    train[:, :4] = test[3, 2] = True
    nothing = np.zeros((8, 8), bool)
    with pytest.raises(ValueError, match="train and test cells of region 0 .*row 3, column 2"):
        check(Split((train,), (nothing,), (test,)), 0)


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_planted_near_cell_is_found(held_out):
    "A cell two from the train cells leaks for a gap of 2, not of 1"
    train, held, nothing = np.zeros((3, 8, 8), bool)
    train[:, :3], held[5, 4] = True, True
    parts = {"train": (nothing, train), "validation": (nothing,) * 2, "test": (nothing,) * 2}
    split = Split(**parts | {held_out: (nothing, held)})
    check(split, 1)
    with pytest.raises(ValueError, match=f"train and {held_out} cells of region 1 .* 2 cells"):
        check(split, 2)


def test_validation_beside_test_is_found():
    validation, test, nothing = np.zeros((3, 8, 8), bool)
    validation[0, 0] = test[1, 1] = True
    with pytest.raises(ValueError, match="validation and test cells"):
        check(Split((nothing,), (validation,), (test,)), 1)


@pytest.mark.parametrize("kind", ["blocks", "random"])
def test_too_few_deposits_are_refused(kind):
    "Three deposits cannot serve four folds; the message names target, folds and remedy"
    cube = make_cube(everywhere(24, 24), ONE_EACH[:3])
    with pytest.raises(ValueError, match=r"no deposit of MVT in fold \d \(.*use fewer folds"):
        make_split([cube], kind, 0, RULES, targets=["MVT"])


@pytest.mark.parametrize(("kind", "fold"), [("stripes", 0), ("blocks", 4), ("random", -1)])
def test_unknown_split_is_refused(kind, fold):
    with pytest.raises(ValueError, match=f"no fold {fold} of split '{kind}'"):
        make_split([full_map()], kind, fold, RULES, targets=["MVT"])
