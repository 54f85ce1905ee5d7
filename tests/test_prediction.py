import numpy as np
import pytest
from helpers import simulate_fold
from sklearn import metrics as reference

from mpm.prediction import Prediction, best_cells, best_threshold, calibration_edges, captured


def test_prediction_refuses_what_cannot_be_scored():
    y, p, deposit = simulate_fold(cells=100)
    with pytest.raises(ValueError, match=r"y is \(99,\)"):
        Prediction(y[1:], p, deposit, 0.5)
    with pytest.raises(ValueError, match="no test cell"):
        Prediction([], [], [], 0.5)
    with pytest.raises(ValueError, match="not finite in 2 cells"):
        Prediction(y, np.where(np.arange(100) < 2, np.nan, p), deposit, 0.5)
    with pytest.raises(ValueError, match="50 positive cells belong to no deposit"):
        Prediction(y, p, np.full(100, -1), 0.5)


def test_threshold_by_hand():
    "Calling four cells finds all three deposits: F1 = 6 / 7"
    y = np.array([1, 1, 0, 1, 0, 0], dtype=bool)
    p = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert best_threshold(y, p) == 0.6
    # equal scores are called together: three of six, or six of six
    assert best_threshold(y, np.array([0.9, 0.9, 0.9, 0.2, 0.2, 0.2])) == 0.9
    assert best_threshold([True, False], [0.3, 0.3]) == 0.3
    assert np.isnan(best_threshold([False, False], [0.1, 0.2]))


def test_a_weighed_cell_counts_for_several():
    """With every other cell three times F1 is best, 2 x 2 / (2 + 3), before the first of them"""
    y = np.array([1, 1, 0, 1, 0, 0], dtype=bool)
    p = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    weight = np.where(y, 1.0, 3.0)
    assert best_threshold(y, p, weight) == 0.8
    assert best_threshold(y, p, weight) == best_threshold(
        *(np.repeat(a, [1, 1, 3, 1, 3, 3]) for a in (y, p))
    )


@pytest.mark.parametrize("digits", [None, 1])
def test_no_threshold_beats_the_best(digits):
    y, p, _ = simulate_fold(cells=300, digits=digits)
    p = p.astype("float32")
    found = reference.f1_score(y, p >= best_threshold(y, p))
    assert found == max(reference.f1_score(y, p >= t) for t in np.unique(p))


def test_deposits_are_numbered_by_their_positive_cells():
    "Numbers of other cells do not count; the best cell is the likeliest of a deposit's own"
    deposit = np.array([7, 3, 7, 5, 3])
    fold = Prediction([True, True, True, False, True], [0.1, 0.4, 0.3, 0.9, 0.2], deposit, 0.5)
    assert fold.deposits == 2
    assert fold.index.tolist() == [1, 0, 1, 0]
    assert best_cells(fold).tolist() == [0.4, 0.3]
    assert captured(fold, np.array([0.2, 0.4, 1.0])).tolist() == [[0, 0], [1, 0], [1, 1]]


def test_only_numbers_from_0_to_1_are_probabilities():
    y, deposit = [True, False], [1, -1]
    assert Prediction(y, [0.0, 1.0], deposit, 0.5).is_probability
    assert not Prediction(y, [-0.1, 1.0], deposit, 0.5).is_probability
    assert not Prediction(y, [0.0, 1.1], deposit, 0.5).is_probability


def test_calibration_bins_have_equal_counts():
    "Four bins of eight cells; equal cells stay together, so that there are fewer bins"
    assert calibration_edges(np.arange(8) / 10, 4).tolist() == [0.1, 0.3, 0.5]
    assert calibration_edges(np.array([0.1] * 6 + [0.2, 0.3]), 4).tolist() == [0.1]
