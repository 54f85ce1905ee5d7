import numpy as np
import pytest
import xarray as xr

from mpm import leave_pair_out
from mpm.leave_pair_out import leave_pair_out_auc, tabular_auc


def line(deposit) -> tuple[np.ndarray, np.ndarray]:
    "Cells of one row of one region, and their deposits"
    deposit = np.array(deposit)
    return np.stack([deposit * 0, deposit * 0, np.arange(len(deposit))], axis=1), deposit


def test_pairs_are_counted_by_hand():
    """Scores fixed at 1 to 6; every pair is tried

    Deposit 7, of scores 2 and 6, beats 1 and all of 1, 3, 4: it wins (1 / 3 + 1) / 2 of its pairs;
    deposit 8, of score 4, beats 1 and 3 and ties with 4.
    """
    place, deposit = line([7, 7, 8, -1, -1, -1])
    fixed = np.array([2, 6, 4, 1, 3, 4])
    found = leave_pair_out_auc(
        place, deposit, lambda train, pair: fixed[pair], dead_cells=0, pairs=6, draws=2000
    )
    assert found.value == pytest.approx((2 / 3 + 2.5 / 3) / 2)
    assert found.low <= found.value <= found.high


def test_a_learner_of_the_prevalence_gets_a_half_not_zero():
    "Leaving out single cells and pooling gives it AUC 0: without a positive the rest holds fewer"
    place, deposit = line(np.where(np.arange(60) % 6 == 0, np.arange(60), -1))

    def prevalence(train, cells):
        return np.full(len(cells), (deposit[train] >= 0).mean())

    pooled = [prevalence(np.delete(np.arange(60), k), [k])[0] for k in range(60)]
    positive = deposit >= 0
    wins = np.subtract.outer(np.array(pooled)[positive], np.array(pooled)[~positive])
    assert np.mean(wins > 0) == 0
    found = leave_pair_out_auc(place, deposit, prevalence, dead_cells=0, pairs=40)
    assert found == (0.5, 0.5, 0.5)


def test_nothing_within_the_dead_zone_of_a_pair_is_trained_on():
    "In the square sense, and in the same region only; deposits are held out whole"
    rows, cols = (axis.ravel() for axis in np.indices((10, 10)))
    place = np.concatenate([np.stack([rows * 0 + k, rows, cols], axis=1) for k in (0, 1)])
    deposit = np.full(200, -1)
    deposit[[0, 1, 99, 150]] = [3, 3, 4, 5]
    seen = []

    def watch(train, pair):
        seen.append((train, pair))
        return np.zeros(len(pair))

    leave_pair_out_auc(place, deposit, watch, dead_cells=2, pairs=30)
    assert len(seen) == 30
    for train, pair in seen:
        away = abs(place[train][:, None] - place[pair])
        near = (away[..., 0] == 0) & (away[..., 1:].max(axis=2) <= 2)
        assert not near.any()
        far = ~((abs(place[:, None] - place[pair])[..., 1:].max(axis=2) <= 2)
                & (place[:, None, 0] == place[pair][:, 0])).any(axis=1)  # fmt: skip
        assert len(train) == far.sum(), "more was left out than had to be"
    assert {tuple(pair[:-1]) for _, pair in seen} == {(0, 1), (99,), (150,)}


def test_a_learner_that_works_scores_well_and_one_seed_one_number():
    "Nearest mean on a feature that tells deposits apart"
    rng = np.random.default_rng(0)
    place, deposit = line(np.where(np.arange(200) % 20 == 0, np.arange(200), -1))
    feature = rng.normal(size=200) + 2 * (deposit >= 0)

    def nearest(train, cells):
        positive = deposit[train] >= 0
        ends = feature[train][positive].mean(), feature[train][~positive].mean()
        return abs(feature[cells] - ends[1]) - abs(feature[cells] - ends[0])

    options = {"dead_cells": 1, "pairs": 100}
    found = leave_pair_out_auc(place, deposit, nearest, **options, seed=1)
    assert 0.8 < found.low < found.value < found.high
    assert found == leave_pair_out_auc(place, deposit, nearest, **options, seed=1)
    assert found != leave_pair_out_auc(place, deposit, nearest, **options, seed=2)


def test_leave_pair_out_refuses_what_has_no_pairs():
    place, deposit = line([1, -1, -1, 2])
    zeros = {"fit_score": lambda train, pair: np.zeros(len(pair)), "dead_cells": 0}
    with pytest.raises(ValueError, match="0 deposits and 4 unlabeled"):
        leave_pair_out_auc(place, np.full(4, -1), **zeros)
    with pytest.raises(ValueError, match="2 deposits and 0 unlabeled"):
        leave_pair_out_auc(place[:2], np.array([1, 2]), **zeros)
    with pytest.raises(ValueError, match=r"gave \(1,\) scores for 2 cells"):
        leave_pair_out_auc(place, deposit, lambda train, pair: [0.5], dead_cells=0)


def region(seed: int) -> xr.Dataset:
    "30 x 30 cells, six deposits, a layer that is high at deposits and one of noise"
    rng = np.random.default_rng(seed)
    number = np.full((30, 30), -1, "int32")
    number[4::10, 4::20] = np.arange(6).reshape(3, 2)
    evidence = rng.normal(size=(2, 30, 30)).astype("float32")
    evidence[0] += 6 * (number >= 0)
    planes = {"evidence": (("layer", "y", "x"), evidence), "MVT_deposit": (("y", "x"), number)}
    planes["valid"] = (("y", "x"), np.ones((30, 30), bool))
    kinds = ("layer", ["continuous"] * 2)
    return xr.Dataset(planes, coords={"layer": ["cause", "noise"], "kind": kinds})


def test_a_method_on_cells_finds_what_a_layer_tells_and_nothing_in_noise():
    "Deposits of two regions are told apart, and values are standardised inside"
    options = {"dead_cells": 1, "cells": 300, "pairs": 24, "draws": 100}
    cubes = {"north": region(0), "south": region(1)}
    assert tabular_auc("logistic_regression", cubes, "MVT", **options).value > 0.95
    noise = {name: cube.isel(layer=[1]) for name, cube in cubes.items()}
    alone = tabular_auc("logistic_regression", noise, "MVT", **options)
    assert 0.2 < alone.value < 0.8
    assert tabular_auc("logistic_regression", noise, "MVT", processes=2, **options) == alone


def test_classes_stay_zero_and_one():
    "Standardised, a class of most of the ground would fall below the half that tells a class"
    table = np.array([[1, 5], [1, 7], [1, 6], [1, 4], [0, 8]], "float32")
    seen = []

    class Model:
        def fit(self, X, y):
            seen.append(X)
            return self

        def predict_proba(self, X):
            seen.append(X)
            return np.zeros((len(X), 2))

    binary, train = np.array([True, False]), np.arange(4)
    leave_pair_out._fit_score(Model, table, table[:, 1] > 5, binary, train, np.array([4]))
    np.testing.assert_array_equal(seen[0][:, 0], 1)
    assert seen[0][:, 1].mean() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(seen[1], [[0, (8 - 5.5) / np.std([5, 7, 6, 4])]], rtol=1e-6)


def test_pairs_that_leave_nothing_to_train_on_are_left_out():
    "Deposits 1 and 2 are within the dead zone of each other, 3 is far: only its pairs are possible"
    place, deposit = line([1, 2, -1, -1, -1, -1, -1, -1, -1, -1, -1, 3])
    asked = []

    def fit_score(train, pair):
        asked.append(deposit[pair[0]])
        return np.array([1.0, 0.0])

    found = leave_pair_out_auc(place, deposit, fit_score, dead_cells=3, pairs=27)
    assert found.value == 1 and set(asked) >= {3}
    none = leave_pair_out_auc(place[:4], deposit[:4], fit_score, dead_cells=3)
    assert np.isnan([none.value, none.low, none.high]).all()
