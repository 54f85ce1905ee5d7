import numpy as np
from toy_splits import make_cube

from mpm.remembered import MOST, remembered

CALLS = []


@remembered
def doubled(cubes, factor, targets):
    CALLS.append(factor)
    return [cube["valid"].values * factor for cube in cubes]


def test_the_same_ground_is_divided_once_and_other_ground_again():
    CALLS.clear()
    valid = np.ones((4, 5), bool)
    cube = make_cube(valid, [(1, 1)])
    first = doubled([cube], 2, ["MVT"])
    first[0][0, 0] = 99  # whoever changes what it was given changes no other's
    assert doubled([cube], 2, ("MVT",))[0][0, 0] == 2 and CALLS == [2]
    doubled([cube], 3, ["MVT"])
    doubled([make_cube(valid, [(1, 2)])], 2, ["MVT"])
    doubled([cube.assign_coords(x=cube["x"] + 1)], 2, ["MVT"])
    assert CALLS == [2, 3, 2, 2]


def test_what_is_not_asked_for_any_more_is_forgotten():
    CALLS.clear()
    cube = make_cube(np.ones((4, 5), bool), [(1, 1)])
    for factor in range(100, 102 + MOST):
        doubled([cube], factor, ["MVT"])
    doubled([cube], 101 + MOST, ["MVT"])
    doubled([cube], 100, ["MVT"])
    assert len(CALLS) == MOST + 3
