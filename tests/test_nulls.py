import numpy as np
import pandas as pd
import pytest
from helpers import predictions

from mpm import nulls
from mpm.metrics import scores


def world(seed=0):
    "30 x 40 cells, six deposits of 2 x 2 cells in a cluster, an invalid corner"
    plane, valid = np.full((30, 40), -1), np.ones((30, 40), bool)
    for k in range(6):
        plane[10 + 3 * (k // 3) : 12 + 3 * (k // 3), 8 + 3 * (k % 3) : 10 + 3 * (k % 3)] = k
    valid[:6, 30:] = False
    return plane, valid


def test_shifts_move_the_whole_map():
    "All cells that stay valid keep their places to each other, around the edges"
    plane, valid = world()
    shifts = nulls.torus_shifts([plane], [valid], draws=50, seed=1)
    assert shifts["draw"].unique().tolist() == list(range(50))
    whole = 0
    for _, cells in shifts.groupby("draw"):
        assert valid[cells["row"], cells["col"]].all()
        moved = np.full(plane.shape, -1)
        moved[cells["row"], cells["col"]] = cells["deposit"]
        assert cells["deposit"].nunique() >= 3
        if len(cells) == 24:
            whole += 1
            first = np.argwhere(plane == 0)[0]
            # one of the four cells of deposit 0 is where its first one went
            assert any(
                (np.roll(plane, tuple(place - first), (0, 1)) == moved).all()
                for place in np.argwhere(moved == 0)
            )
        assert (moved != plane).any(), "a shift by nothing is none"
    assert whole > 25


def test_regions_shift_apart_and_share_no_deposit():
    plane, valid = world()
    shifts = nulls.torus_shifts([plane, plane], [valid, valid], draws=5)
    north, south = (shifts[shifts["region"] == k] for k in (0, 1))
    assert set(north["deposit"]) <= set(range(6)) and set(south["deposit"]) <= set(range(6, 12))
    one, two = (part[part["draw"] == 0][["row", "col"]].to_numpy() for part in (north, south))
    assert one.tolist() != two.tolist()


def test_same_seed_same_shifts():
    plane, valid = world()
    first, again, other = (nulls.torus_shifts([plane], [valid], draws=3, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_a_region_too_ragged_to_shift_is_refused():
    "A patch of 2 x 4 cells cannot hold cells of all six deposits"
    plane, _ = world()
    valid = plane * 0 == 1
    valid[:2, :4] = True
    nulls.torus_shifts([plane], [valid], draws=1, kept=0.1)
    with pytest.raises(ValueError, match="region 0 kept less than 100 % of its deposits"):
        nulls.torus_shifts([plane], [valid], draws=1, kept=1.0)


def rows_of(likelihood, folds) -> pd.DataFrame:
    plane, _ = world()
    cells = [
        (str(folds[row, col]), 0, row, col, plane[row, col], likelihood[row, col])
        for row, col in np.ndindex(plane.shape)
    ]
    return predictions(cells)


def test_a_shift_is_scored_like_the_labels_by_hand():
    """One shift, two folds: the mean of their AUC, and of the captures, with the shifted labels"""
    rng = np.random.default_rng(0)
    p, folds = rng.random((30, 40)).astype("float32"), np.indices((30, 40))[1] // 20
    shifts = pd.DataFrame(
        [(0, 0, 3, 4, 1), (0, 0, 3, 5, 1), (0, 0, 9, 15, 2), (0, 0, 20, 30, 3), (0, 0, 21, 35, 4)],
        columns=["draw", "region", "row", "col", "deposit"],
    )
    table, ends = nulls.band(rows_of(p, folds), shifts, np.array([0.1, 0.5]))
    alone, none = nulls.band(rows_of(p, folds), shifts, np.array([0.5]), drawn=False)
    assert none == {} and alone.equals(table)
    moved = np.full((30, 40), -1)
    moved[shifts["row"], shifts["col"]] = shifts["deposit"]
    expected = []
    for fold in (0, 1):
        here = folds == fold
        own = scores(moved[here] >= 0, p[here], moved[here], 0.5, draws=0)
        expected.append(own.set_index("metric")["value"])
    found = table.set_index("metric")
    for metric in ("auc", "average_precision", "capture_01", "capture_10"):
        mean = (expected[0][metric] + expected[1][metric]) / 2
        assert found.loc[metric].tolist() == pytest.approx([mean] * 3), metric
    assert set(ends) == {"roc", "precision_recall", "capture"}
    assert ends["capture"][0, 0] == ends["capture"][1, 0] == found.loc["capture_10", "low"]


def test_a_fold_that_a_shift_leaves_empty_is_no_zero():
    p, folds = np.linspace(0, 1, 1200).reshape(30, 40), np.indices((30, 40))[1] // 20
    shifts = pd.DataFrame(
        [(0, 0, 29, 39, 1), (1, 0, 0, 0, 1)], columns=["draw", "region", "row", "col", "deposit"]
    )
    table, _ = nulls.band(rows_of(p, folds), shifts, np.array([0.5]))
    ends = table.set_index("metric").loc["auc"]
    # the likeliest cell of one fold, the least likely of the other: AUC 1 and 0, one fold each
    assert ends.tolist() == pytest.approx([0.025, 0.5, 0.975])


def test_the_band_holds_a_half_and_is_wider_for_smooth_maps():
    "Deposits of a cluster hit or miss a smooth map together; the true labels score far above"
    plane, valid = world()
    shifts = nulls.torus_shifts([plane], [valid], draws=60)
    rows, cols = np.indices(plane.shape)
    smooth = np.exp(-((rows - 12) ** 2 + (cols - 12) ** 2) / 50)
    rough = np.random.default_rng(0).random(plane.shape)
    widths, grid = [], np.linspace(0, 1, 31)
    for likelihood in (smooth, rough):
        table, ends = nulls.band(rows_of(likelihood, plane * 0), shifts, grid)
        auc = table.set_index("metric").loc["auc"]
        assert auc["low"] < 0.5 < auc["high"]
        assert (ends["roc"][0] <= grid + 0.05).all() and (ends["roc"][1] >= grid - 0.05).all()
        assert all(curve.shape == (2, 31) for curve in ends.values())
        widths.append(auc["high"] - auc["low"])
    assert widths[0] > 2 * widths[1]
    true = scores(plane.ravel() >= 0, smooth.ravel(), plane.ravel(), 0.5, draws=0)
    assert true.set_index("metric")["value"]["auc"] > 0.95


def shuffled(*rows) -> pd.DataFrame:
    columns = ["split", "method", "metric", "value", "low", "high"]
    return pd.DataFrame([(row[0], row[1], "auc", *row[2:]) for row in rows], columns=columns)


def test_scores_on_shuffled_labels_are_judged():
    """One holds 0.5; one does not, but shifted labels do as well; one fails"""
    mean = shuffled(
        ("blocks", "forest", 0.52, 0.45, 0.6),
        ("blocks", "logistic", 0.6, 0.55, 0.65),
        ("random", "mae", 0.7, 0.65, 0.75),
    )
    bands = pd.DataFrame(
        [("blocks", "logistic", "auc", 0.35, 0.66), ("random", "mae", "auc", 0.4, 0.6)],
        columns=["split", "method", "metric", "low", "high"],
    )
    one, two = nulls.check_shuffled(mean, bands)
    assert one.startswith("logistic under blocks: AUC 0.600, 95 % interval 0.550 to 0.650")
    assert one.endswith(
        "within 0.350 to 0.660, the band of shifted labels: clustered deposits, no leak"
    )
    assert two.startswith("mae under random: AUC 0.700") and "it fails" in two
    assert "it fails" in nulls.check_shuffled(mean)[0], "without a band nothing excuses it"
    few = shuffled(("district", "forest", 0.6, np.nan, np.nan))
    assert nulls.check_shuffled(few) == [
        "forest under district: AUC 0.600 without an interval, too few deposits to check"
    ]
    assert nulls.check_shuffled(mean.iloc[:1]) == [
        "all 1 scores on shuffled labels hold 0.5 in their interval"
    ]
