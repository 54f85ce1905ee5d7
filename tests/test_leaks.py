from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mpm.leaks import Split, check, near, pack, unpack


def empty(count=1):
    return tuple(np.zeros((8, 8), bool) for _ in range(count))


def columns():
    "Train in columns 0 and 1, test in 5 to 7 of the second of two regions: three cells between"
    train, test = empty(2), empty(2)
    train[1][:, :2] = test[1][:, 5:] = True
    return Split(train, empty(2), test)


def numbered(*places, deposit=4):
    "Two regions; the places of the second hold one deposit"
    planes = [np.full((8, 8), -1), np.full((8, 8), -1)]
    for place in places:
        planes[1][place] = deposit
    return {"MVT": planes}


def seen(cells, region=1):
    "What was fitted on some cells of a region"
    masks = [np.zeros((8, 8), bool), np.zeros((8, 8), bool)]
    for cell in cells:
        masks[region][cell] = True
    return SimpleNamespace(seen=tuple(pack(mask) for mask in masks))


def test_a_sound_split_passes():
    "Three cells part windows of seven, the deposit is whole, the scaling saw training cells"
    sound = {"deposits": numbered((3, 0), (3, 1)), "scaling": seen([(0, 0), (7, 1)])}
    check(columns(), 3, window=7, **sound)


def test_planted_overlap_is_found():
    "One cell both trained on and tested"
    train, test = np.zeros((2, 8, 8), bool)
    train[:, :4] = test[3, 2] = True
    with pytest.raises(ValueError, match="train and test cells of region 0 .*row 3, column 2"):
        check(Split((train,), empty(), (test,)))


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_planted_near_cell_is_found(held_out):
    "A cell two from the train cells leaks for a gap of 2, not of 1"
    train, held, nothing = np.zeros((3, 8, 8), bool)
    train[:, :3], held[5, 4] = True, True
    parts = {"train": (nothing, train), "validation": (nothing,) * 2, "test": (nothing,) * 2}
    split = Split(**parts | {held_out: (nothing, held)})
    check(split, 1)
    found = f"train and {held_out} cells of region 1 .* 2 cells .*row 3, column 2"
    with pytest.raises(ValueError, match=found):
        check(split, 2)


def test_validation_beside_test_is_found():
    validation, test, nothing = np.zeros((3, 8, 8), bool)
    validation[0, 0] = test[1, 1] = True
    with pytest.raises(ValueError, match="validation and test cells"):
        check(Split((nothing,), (validation,), (test,)), 1)


def test_a_window_that_reaches_a_test_cell_is_found():
    "Half of seven cells is three; a window of nine about column 1 holds column 5"
    check(columns(), 0, window=7)
    found = r"train and test cells of region 1 .* 4 cells .*window of 9 .*row 0, column 1"
    with pytest.raises(ValueError, match=found):
        check(columns(), 0, window=9)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_parted_deposit_is_found(part):
    "Two of its cells train, a third, far away, is held out"
    split = columns()
    held = empty(2)
    held[1][6, 7] = True
    split = Split(split.train, *((held, empty(2)) if part == "validation" else (empty(2), held)))
    deposits = numbered((2, 1), (3, 1), (6, 7))
    found = f"deposit 4 of MVT in region 1 .*train and {part} .*row 2, column 1"
    with pytest.raises(ValueError, match=found):
        check(split, 3, deposits=deposits)


def test_a_deposit_that_the_dead_zone_cuts_is_whole():
    "Its cell in no part tells nobody anything, nor do two deposits of one number in two regions"
    deposits = numbered((2, 1), (2, 3))
    deposits["MVT"][0][6, 7] = 4
    check(columns(), 3, deposits=deposits)


def test_a_scaling_that_saw_a_test_cell_is_found():
    "One of its cells is tested"
    with pytest.raises(ValueError, match=r"fitted on 1 test cells of region 1, .*row 4, column 6"):
        check(columns(), 3, scaling=seen([(0, 0), (4, 6)]))


def test_a_scaling_that_saw_a_validation_cell_is_found():
    split = columns()
    split.validation[0][2, 2] = True
    with pytest.raises(ValueError, match="fitted on 1 validation cells of region 0, .*row 2, col"):
        check(split, 3, scaling=seen([(2, 2)], region=0))


def test_a_scaling_of_other_grids_is_refused():
    other = SimpleNamespace(seen=(pack(np.ones((3, 4), bool)),))
    with pytest.raises(ValueError, match=r"grids of \[\(3, 4\)\] cells, .*\(8, 8\).*fit it"):
        check(columns(), scaling=other)


def test_what_does_not_remember_its_cells_passes():
    "A scaling of a former version"
    check(columns(), scaling=SimpleNamespace(seen=()))


def test_near_cells_are_a_square():
    "Two cells about (3, 4), cut by the edge of six rows"
    cells = np.zeros((6, 9), bool)
    cells[4, 4] = True
    expected = np.zeros((6, 9), bool)
    expected[2:, 2:7] = True
    np.testing.assert_array_equal(near(cells, 2), expected)
    np.testing.assert_array_equal(near(cells, 0), cells)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans()))
def test_packed_cells_come_back(cells):
    np.testing.assert_array_equal(unpack(pack(cells)), cells)
