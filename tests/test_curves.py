import numpy as np
import pytest
from helpers import predict_fold
from sklearn import metrics as reference

from mpm.curves import (
    calibration_table,
    capture_efficiency,
    expected_calibration_error,
    precision_recall,
    prediction_area,
    reliability,
    roc,
)
from mpm.metrics import scores
from mpm.prediction import Prediction


def test_capture_among_equal_scores_is_what_chance_gives():
    "The order of equal cells is unknown, so a constant captures the share of the area"
    p = np.full(10, 0.5)
    deposit = np.array([1, 1, 2] + [-1] * 7)
    prediction = Prediction(deposit > 0, p, deposit, 0.5)
    grid = np.array([0, 0.1, 0.35, 1])
    np.testing.assert_allclose(capture_efficiency(prediction, grid), grid)
    p[0] = 0.9  # the area's edge lies after the first and within the nine others
    prediction = Prediction(deposit > 0, p, deposit, 0.5)
    expected = [0, 0.5, (1 + 2.5 / 9) / 2, 1]
    np.testing.assert_allclose(capture_efficiency(prediction, grid), expected)


def test_roc_and_precision_recall_have_the_right_areas():
    "Scores with ties: the area is the number of the score table, trapezes or steps"
    rng = np.random.default_rng(0)
    deposit = np.where(np.arange(2000) < 50, np.arange(2000) // 5, -1)
    p = (1 / (1 + np.exp(3 - rng.normal(size=2000) - 1.5 * (deposit >= 0)))).round(2)
    prediction = Prediction(deposit >= 0, p, deposit, 0.1)
    middles = (np.arange(100_000) + 0.5) / 100_000
    table = scores(deposit >= 0, p, deposit, 0.1, draws=0).set_index("metric")["value"]
    assert roc(prediction, middles).mean() == pytest.approx(table["auc"], abs=1e-4)
    area = precision_recall(prediction, middles).mean()
    assert area == pytest.approx(table["average_precision"], abs=1e-4)


def test_curves_by_hand():
    "Four cells, ranked deposit, background, deposit, background"
    prediction = Prediction([True, False, True, False], [0.9, 0.8, 0.7, 0.1], [1, -1, 2, -1], 0.5)
    grid = np.array([0, 0.5, 1])
    np.testing.assert_allclose(roc(prediction, grid), [0.5, 1, 1])
    np.testing.assert_allclose(precision_recall(prediction, grid), [1, 1, 2 / 3])
    np.testing.assert_allclose(capture_efficiency(prediction, grid), [0, 0.5, 1])


def test_curves_are_nan_where_a_class_is_missing():
    "A fold without deposits is left out of the average, not counted as zero"
    grid = np.linspace(0, 1, 3)
    nothing = Prediction(np.zeros(5, bool), np.linspace(0, 1, 5), np.full(5, -1), 0.5)
    for curve in (roc, precision_recall, capture_efficiency):
        assert np.isnan(curve(nothing, grid)).all()
    only = Prediction(np.ones(5, bool), np.linspace(0, 1, 5), np.arange(5), 0.5)
    for curve in (roc, precision_recall):
        assert np.isnan(curve(only, grid)).all()


def test_calibration_is_near_zero_for_calibrated_rare_events():
    "The accuracy-based error would be near 0.97 here"
    rng = np.random.default_rng(2)
    p = rng.beta(0.5, 30, size=100_000)
    y = rng.random(100_000) < p
    assert expected_calibration_error(y, p) < 0.001
    assert expected_calibration_error(y, 2 * p) == pytest.approx(p.mean(), rel=0.1)


def test_calibration_table_by_hand():
    "Two bins of two cells; equal scores make one bin"
    y = np.array([0, 0, 1, 1], dtype=bool)
    table = calibration_table(y, np.array([0.1, 0.3, 0.5, 0.9]), bins=2)
    np.testing.assert_allclose(table["predicted"], [0.2, 0.7])
    np.testing.assert_allclose(table["observed"], [0, 1])
    assert table["cells"].tolist() == [2, 2]
    assert table["positives"].tolist() == [0, 2]
    same = calibration_table(y, np.full(4, 0.5))
    assert len(same) == 1
    assert expected_calibration_error(y, np.full(4, 0.5)) == 0


@pytest.mark.parametrize("digits", [None, 1])
def test_curves_equal_scikit_learn(digits):
    "At every recall and false positive rate of a grid, ties or none"
    fold, grid = predict_fold(digits=digits), np.linspace(0, 1, 173)
    false, true, _ = reference.roc_curve(fold.y, fold.p)
    np.testing.assert_allclose(roc(fold, grid), np.interp(grid, false, true), atol=1e-12)
    precision, recall, _ = reference.precision_recall_curve(fold.y, fold.p)
    first = [precision[:-1][recall[:-1] >= at - 1e-12][-1] for at in grid]
    np.testing.assert_allclose(precision_recall(fold, grid), first)


def test_prediction_area_by_hand():
    """Ten cells of p = 0.1 to 1, deposit 1 in the best and the worst, deposit 2 in the sixth

    The median is 0.5: both deposits lie at or above it, with all but four of ten cells.
    """
    p = np.arange(1, 11) / 10
    deposit = np.array([1, -1, -1, -1, -1, 2, -1, -1, -1, 1])
    fold = Prediction(deposit > 0, p, deposit, 0.5)
    captured, outside = prediction_area(fold, np.array([0, 0.5, 0.6, 0.7, 1]))
    assert captured.tolist() == [1, 1, 1, 0.5, 0.5]
    np.testing.assert_allclose(outside, [0, 0.4, 0.5, 0.6, 0.9])
    nothing = Prediction(np.zeros(5, bool), np.linspace(0, 1, 5), np.full(5, -1), 0.5)
    assert np.isnan(prediction_area(nothing, np.linspace(0, 1, 3))).all()


def test_reliability_is_of_all_folds_together():
    """Two bins of four cells, from two folds that both have a deposit number 1

    Of the upper bin three cells are positive, of the lower none: there the rule of three ends at
    3 x (3 cells / 2 deposits) / 4 cells, that is at 1.
    """
    folds = {
        "a": Prediction([1, 0, 0, 0], [0.8, 0.2, 0.1, 0.7], [1, -1, -1, -1], 0.5),
        "b": Prediction([1, 1, 0, 0], [0.9, 0.6, 0.3, 0.4], [1, 1, -1, -1], 0.5),
    }
    table = reliability(folds, bins=2, draws=400)
    np.testing.assert_allclose(table["predicted"], [0.25, 0.75])
    np.testing.assert_allclose(table["observed"], [0, 0.75])
    # two deposits of one and two cells, one of them drawn and counted twice: 2 / 3 or 4 / 5
    np.testing.assert_allclose(table["low"], [0, 2 / 3])
    np.testing.assert_allclose(table["high"], [1, 4 / 5])
    alone = reliability({"a": folds["a"]}, bins=2)
    assert alone[["low", "high"]].isna().all(axis=None)


def test_the_rule_of_three_knows_the_cells_of_a_deposit():
    "100 cells without positives; five deposits of two cells elsewhere: 3 x 2 / 100"
    y = np.repeat([False, True, False], [100, 10, 90])
    p = np.repeat([0.1, 0.9], 100)
    deposit = np.where(y, (np.arange(200) - 100) // 2, -1)
    table = reliability({"a": Prediction(y, p, deposit, 0.5)}, bins=2)
    assert table["high"][0] == pytest.approx(0.06)
    assert table["low"][1] < 0.1 < table["high"][1] or table["low"][1] == table["high"][1] == 0.1


def test_reliability_of_a_group_of_one_deposit_has_an_interval():
    "Draws without that deposit leave its group of positive cells empty: they do not count"
    y = np.array([True, True, False, False, False, False, True, False])
    p = np.array([0.9, 0.8, 0.1, 0.2, 0.3, 0.15, 0.25, 0.05])
    deposit = np.where(y, [0, 0, -1, -1, -1, -1, 1, -1], -1)
    table = reliability({"a": Prediction(y, p, deposit, 0.5)}, bins=4)
    assert table["observed"].iloc[-1] == table["low"].iloc[-1] == table["high"].iloc[-1] == 1
