import numpy as np
import pytest

from mpm import curves
from mpm.metrics import AREAS, Prediction, scores
from mpm.ranking import Ranking


def test_ranks_are_counted_by_hand():
    "Of 0.9, 0.5, 0.5, 0.2 the second and the last are positive"
    ranking = Ranking(np.array([0.9, 0.5, 0.5, 0.2]))
    assert ranking.above.tolist() == [0, 1, 1, 3] and ranking.level.tolist() == [1, 3, 3, 4]
    steps = ranking.steps(np.array([3, 1]))
    assert steps.hits.tolist() == [1, 2]
    assert steps.above.tolist() == [1, 2] and steps.with_equal.tolist() == [2, 2]
    found = ranking.scores(np.array([3, 1]))
    assert found["auc"] == pytest.approx((0.25 + 0) / 2)
    assert found["average_precision"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    # two of four cells: the best one, and one of the two of equal likelihood
    captured = ranking.captured(np.array([3, 1]), np.array([7, 8]), [0.5])
    assert captured.tolist() == pytest.approx([(0.5 + 0) / 2])


@pytest.mark.parametrize("digits", [1, 6])
def test_labels_on_ranked_cells_score_as_a_prediction_does(digits):
    "With many equal likelihoods, and with none"
    rng = np.random.default_rng(digits)
    p, grid = rng.random(400).round(digits), np.linspace(0, 1, 41)
    place = rng.choice(400, 30, replace=False)
    deposit = rng.integers(0, 9, 30)
    y, number = np.zeros(400, bool), np.full(400, -1)
    y[place], number[place] = True, deposit
    ranking = Ranking(p)
    found = ranking.scores(place)
    expected = scores(y, p, number, 0.5, draws=0).set_index("metric")["value"]
    for metric in ("auc", "average_precision"):
        assert found[metric] == pytest.approx(expected[metric], abs=1e-12)
    names = [f"capture_{round(100 * area):02d}" for area in AREAS]
    captured = ranking.captured(place, deposit, AREAS)
    np.testing.assert_allclose(captured, expected[names], atol=1e-12)
    fold, steps = Prediction(y, p, number, 0.5), ranking.steps(place)
    np.testing.assert_allclose(curves.roc_of(steps, 370, grid), curves.roc(fold, grid))
    np.testing.assert_allclose(
        curves.precision_recall_of(steps, grid), curves.precision_recall(fold, grid)
    )
    np.testing.assert_allclose(
        ranking.captured(place, deposit, grid), curves.capture_efficiency(fold, grid)
    )
