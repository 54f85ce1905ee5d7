"""Deposits counted by block and region, and what intervals they allow."""

import numpy as np
import pytest
import xarray as xr

from mpm import deposit_numbers
from mpm.splits import SplitSettings

RULES = SplitSettings(folds=2, block_km=5.0)


def cube(*cells):
    """Return 20 x 20 cells of 1 km with an MVT deposit in each of some cells (row, column)."""
    number = np.full((20, 20), -1)
    for k, cell in enumerate(cells):
        number[cell] = k
    return xr.Dataset(
        {
            "valid": (("y", "x"), np.ones((20, 20), bool)),
            "MVT": (("y", "x"), number >= 0),
            "MVT_deposit": (("y", "x"), number),
        },
        coords={"y": -1000.0 * np.arange(20), "x": 1000.0 * np.arange(20)},
    )


NORTH = cube((2, 2), (2, 4), (7, 7), (7, 12), (12, 17), (17, 2))  # two share a block


def test_blocks_that_hold_deposits_are_counted():
    "16 blocks of 5 km, 5 of which hold the six deposits, dealt three to each of two folds"
    first, last = deposit_numbers.notes({"north": NORTH}, ["MVT"], RULES)
    width = 1.96 * deposit_numbers.auc_error(0.8, 3, 197)
    whole = 1.96 * deposit_numbers.auc_error(0.8, 6, 394)
    assert first == (
        "MVT, blocks: 6 deposits in 5 of 16 blocks of 5 km; each of 2 folds tests 3 to 3, so that "
        f"an AUC of 0.8 is known to +-{width:.2f} in the poorest fold and to +-{whole:.2f} over "
        "all at best"
    )
    assert last.startswith("MVT: 1 cell in 67 is positive")  # 400 / 6


def test_deposits_in_fewer_blocks_than_folds_are_too_few():
    "Six deposits, all within one block of 10 km: one of two folds would have none"
    crowd = cube(*[(2, 2 * k) for k in range(5)], (4, 4))
    lines = deposit_numbers.notes({"a": crowd}, ["MVT"], SplitSettings(folds=2, block_km=10.0))
    assert lines[0].startswith("MVT, blocks: 6 deposits in 1 of 4 blocks of 10 km, too few for 2")
    assert lines[-1].startswith("notebook 02 would stop: no deposit of MVT in fold 1")


def test_regions_are_judged_one_by_one():
    "Each region's number with the width that it allows; fewer than five say little"
    few = cube((5, 5), (15, 15))
    (line,) = [
        line
        for line in deposit_numbers.notes({"north": NORTH, "south": few}, ["MVT"], RULES)
        if "region split" in line
    ]
    many = 1.96 * deposit_numbers.auc_error(0.8, 6, 394)
    two = 1.96 * deposit_numbers.auc_error(0.8, 2, 398)
    assert f"6 in north (+-{many:.2f}); 2 in south (+-{two:.2f}, which says little)" in line
    lines = deposit_numbers.notes({"north": NORTH, "south": cube()}, ["MVT"], RULES)
    assert any("region split: no deposit in south" in line for line in lines)


def test_fewer_deposits_than_folds_are_too_few():
    "One deposit cannot be in two folds; no interval is stated"
    lines = deposit_numbers.notes({"north": cube((5, 5))}, ["MVT"], RULES)
    assert lines[0].startswith("MVT: 1 deposits on valid cells are too few for 2 folds")
    assert not [line for line in lines if "AUC" in line]


def test_the_error_of_an_auc_is_that_of_hanley_and_mcneil():
    "One pair: sqrt(A (1 - A)) = 0.4; 10 and 50 at 0.8: Q1 2/3, Q2 0.7111, by hand 0.0881"
    assert deposit_numbers.auc_error(0.8, 1, 1) == pytest.approx(0.4)
    spread = 0.16 + 9 * (2 / 3 - 0.64) + 49 * (1.28 / 1.8 - 0.64)
    assert deposit_numbers.auc_error(0.8, 10, 50) == pytest.approx((spread / 500) ** 0.5)
    assert deposit_numbers.auc_error(0.8, 10, 50) == pytest.approx(0.0881, abs=1e-4)
