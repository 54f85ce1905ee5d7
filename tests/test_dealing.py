import numpy as np
from toy_splits import everywhere, make_cube, with_target

from mpm.dealing import cell_km, deal_blocks, first_cells, groups, whole


def test_touching_deposits_are_one_group_whatever_their_target():
    "MVT at (1, 1) and CD at (2, 2) touch by a corner; MVT at (5, 5) stands alone"
    cube = with_target(make_cube(everywhere(7, 7), [(1, 1), (5, 5)]), [(2, 2)])
    group = groups(cube, ["MVT", "CD"])
    assert group[1, 1] == group[2, 2] == 0 and group[5, 5] == 1
    assert np.count_nonzero(group >= 0) == 3


def test_a_deposit_in_two_patches_is_one_group():
    "A lake cuts its three cells in two"
    valid = everywhere(3, 5)
    valid[:, 2] = False
    group = groups(make_cube(valid, [(1, 2)], radius=1000), ["MVT"])
    assert group[1, 1] == group[1, 3] == 0


def test_a_group_goes_where_most_of_its_cells_lie():
    "Group 0: twice 5, once 2; group 1: 7 and 3 once each, and the lower wins"
    number, group = np.array([[5, 5, 2, 9, 7, 3]]), np.array([[0, 0, 0, -1, 1, 1]])
    assert whole(number, group).tolist() == [[5, 5, 5, 9, 3, 3]]
    assert number.tolist() == [[5, 5, 2, 9, 7, 3]]  # as it was


def test_a_deposit_is_read_once_at_its_first_cell():
    number = np.array([[-1, 1, 1], [0, 1, -1]])
    assert first_cells(np.arange(6).reshape(2, 3), number).tolist() == [3, 1]


def test_blocks_start_at_the_first_corner_and_cells_outside_have_no_fold():
    "Two squares of 3 x 3 cells with a deposit each go to two folds"
    valid = everywhere(3, 6)
    valid[2, 5] = False
    cube = make_cube(valid, [(0, 0), (1, 4)])
    (number,) = deal_blocks([cube], ["MVT"], side_km=3, folds=2, seed=1)
    assert number[2, 5] == -1
    left, right = set(number[:, :3].ravel()), set(number[:, 3:].ravel()) - {-1}
    assert sorted([*left, *right]) == [0, 1]


def test_size_of_cells_is_in_kilometres():
    assert cell_km(make_cube(everywhere(2, 2), [])) == 1.0
