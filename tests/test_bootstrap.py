import numpy as np
import pytest
from helpers import predict_fold
from sklearn import metrics as reference

from mpm.bootstrap import capture_name, deposit_weights, draw_fold, draw_folds, freedom
from mpm.curves import expected_calibration_error
from mpm.prediction import Prediction


def test_one_deposit_fewer_is_drawn_and_weights_are_scaled_up():
    "Weights of a draw add up to the number of deposits, and vary as their mean should"
    weights = deposit_weights("a", 4, 5000, 0)
    assert weights[0].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(weights.sum(axis=1), 4)
    np.testing.assert_allclose(np.unique(weights[1:]), np.arange(4) * 4 / 3)
    values = np.array([1.0, 2.0, 4.0, 9.0])
    spread = (weights[1:] @ values / 4).var()
    assert spread == pytest.approx(values.var(ddof=1) / 4, rel=0.05)


def test_draws_depend_on_the_name_and_the_seed_only():
    first = deposit_weights("a", 5, 10, 0)
    np.testing.assert_array_equal(first, deposit_weights("a", 5, 10, 0))
    assert not np.array_equal(first, deposit_weights("b", 5, 10, 0))
    assert not np.array_equal(first, deposit_weights("a", 5, 10, 1))
    assert deposit_weights("a", 1, 3, 0).tolist() == [[1], [1], [1], [1]]
    assert deposit_weights("a", 0, 3, 0).shape == (4, 0)


@pytest.mark.parametrize("digits", [None, 1])
def test_draws_equal_scikit_learn_with_weights(digits):
    "A bootstrap draw is the score with its deposits' weights: all draws are checked one by one"
    fold = predict_fold(cells=300, deposits=3, digits=digits)
    drawn = draw_fold("a", fold, (0.1,), 40, 5)
    y, p, called = fold.y, fold.p, fold.p >= 0.1
    for k, count in enumerate(deposit_weights("a", 3, 40, 5)):
        weight = np.where(y, count[np.clip(fold.deposit - 40, 0, None)], 1)
        own = {"sample_weight": weight}
        half = {"sample_weight": np.where(y, weight / 5, 1)}
        expected = {
            "auc": reference.roc_auc_score(y, p, **own),
            "average_precision": reference.average_precision_score(y, p, **own),
            "auc_deposit": reference.roc_auc_score(y, p, **half),
            "average_precision_deposit": reference.average_precision_score(y, p, **half),
            "f1": reference.f1_score(y, called, **own),
            "mcc": reference.matthews_corrcoef(y, called, **own),
            "balanced_accuracy": reference.balanced_accuracy_score(y, called, **own),
            "accuracy": reference.accuracy_score(y, called, **own),
            "brier": reference.brier_score_loss(y, p, **own),
            "prevalence": weight[y].sum() / weight.sum(),
        }
        for metric, number in expected.items():
            assert drawn[metric][k] == pytest.approx(number, rel=1e-10), (metric, k)


def test_the_calibration_error_of_a_draw_is_that_of_repeated_deposits():
    "Weights 2 and 0: each cell of one deposit twice, none of the other, in the same bins"
    y, p = np.array([True, True, False, False]), np.array([0.2, 0.9, 0.2, 0.9])
    drawn = draw_fold("a", Prediction(y, p, [0, 1, -1, -1], 0.5), (), 30, 0)["calibration_error"]
    assert drawn[0] == pytest.approx(expected_calibration_error(y, p))
    # bins are 0.2 and 0.9: |3 x 0.2 - 2| + 0.9 over 4 cells, or 0.2 + |3 x 0.9 - 2| over 4
    assert set(np.round(drawn[1:], 12)) == {0.575, 0.225}


def test_many_positive_cells_are_ranked_in_parts(monkeypatch):
    fold = predict_fold()
    whole = draw_fold("a", fold, (), 60, 0)["average_precision"]
    monkeypatch.setattr("mpm.bootstrap.AT_ONCE", 7)
    np.testing.assert_allclose(draw_fold("a", fold, (), 60, 0)["average_precision"], whole)


def test_captures_are_named_by_percent():
    assert [capture_name(area) for area in (0.01, 0.2, 0.025)] == [
        "capture_01",
        "capture_20",
        "capture_2.5",
    ]


def ranked(*best) -> Prediction:
    "Ten unlabeled cells of p = 0 to 0.9, and deposits that beat so many of them"
    p = np.concatenate([np.arange(10) / 10, np.array(best) / 10 - 0.05])
    return Prediction(np.arange(len(p)) >= 10, p, np.arange(len(p)), np.nan)


def test_a_fold_with_one_deposit_borrows_the_spread_of_the_others():
    """AUC 0.9 and 0.5 in one fold, 0.7 in the other

    One deposit alone deviates by 0.2 there, times the root of 2 for two deposits, up or down; and
    the draws of the first fold, of one deposit at a time, are 0.9 or 0.5.
    """
    own, mean = draw_folds({"a": ranked(9, 5), "b": ranked(7)}, (), 200, 0)
    assert mean["auc"][0] == pytest.approx(0.7)
    assert np.isnan(own["b"]["auc"][1:]).all() and own["b"]["auc"][0] == pytest.approx(0.7)
    lent = 2 * mean["auc"][1:] - own["a"]["auc"][1:] - 0.7
    assert set(np.round(lent, 9)) == {-0.282842712, 0.282842712}
    assert set(np.round(own["a"]["auc"][1:], 9)) == {0.5, 0.9}


def test_folds_with_one_deposit_count_as_one_fold_together():
    "AUC 0.9 and 0.5: each varies by 0.2 times the root of 2, and their mean by up to as much"
    _, mean = draw_folds({"a": ranked(9), "b": ranked(5)}, (), 200, 0)
    away = np.round(mean["auc"][1:] - 0.7, 9)
    assert set(away) == {-0.282842712, 0, 0.282842712}


def test_folds_of_many_deposits_borrow_nothing():
    folds = {"a": ranked(9, 5), "b": ranked(7, 2, 3)}
    own, mean = draw_folds(folds, (), 50, 0)
    np.testing.assert_allclose(mean["auc"], (own["a"]["auc"] + own["b"]["auc"]) / 2)


def test_a_single_deposit_in_all_has_no_spread():
    nothing = Prediction(np.zeros(3, bool), np.zeros(3), np.full(3, -1), np.nan)
    _, mean = draw_folds({"a": ranked(9), "b": nothing}, (), 5, 0)
    assert mean["auc"][0] == pytest.approx(0.9) and np.isnan(mean["auc"][1:]).all()
    assert draw_folds({"b": nothing}, (), 5, 0)[1] == {}


def test_freedom_counts_deposits_less_folds():
    "Singles together are one fold: three of them leave two"
    several = [ranked(9, 5), ranked(7, 2, 3)]
    assert freedom(several) == 3
    assert freedom([*several, ranked(1)]) == 3
    assert freedom([*several, ranked(1), ranked(2), ranked(3)]) == 5
    assert freedom([ranked(1)]) == 0
