import numpy as np
import pandas as pd
import pytest
from helpers import predict_fold, simulate_fold
from scipy.stats import norm
from sklearn import metrics as reference

from mpm import curves
from mpm.metrics import (
    Prediction,
    mean_interval,
    paired_difference,
    paired_differences,
    score_folds,
    scores,
)


def value(table, metric, column="value"):
    return table.set_index("metric")[column][metric]


@pytest.mark.parametrize("digits", [None, 2, 1, 0])
def test_values_equal_scikit_learn(digits):
    "Also when many cells share a score"
    y, p, deposit = simulate_fold(digits=digits)
    table = scores(y, p, deposit, 0.1, draws=0)
    called = p >= 0.1
    expected = {
        "auc": reference.roc_auc_score(y, p),
        "average_precision": reference.average_precision_score(y, p),
        "f1": reference.f1_score(y, called),
        "mcc": reference.matthews_corrcoef(y, called),
        "balanced_accuracy": reference.balanced_accuracy_score(y, called),
        "accuracy": reference.accuracy_score(y, called),
        "brier": reference.brier_score_loss(y, p),
        "calibration_error": curves.expected_calibration_error(y, p),
        "prevalence": 50 / 2000,
        "deposits": 10,
    }
    for metric, number in expected.items():
        assert value(table, metric) == pytest.approx(number, rel=1e-12, abs=1e-15), metric
    captures = [f"capture_{percent}" for percent in ("01", "02", "05", "10", "20")]
    assert list(table["metric"])[-5:] == captures


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_calling_everything_or_nothing_equals_scikit_learn(threshold):
    y, p, deposit = simulate_fold()
    table = scores(y, p, deposit, threshold, draws=0)
    called = p >= threshold
    assert value(table, "mcc") == reference.matthews_corrcoef(y, called) == 0
    assert value(table, "f1") == pytest.approx(reference.f1_score(y, called))
    assert value(table, "balanced_accuracy") == 0.5


def test_capture_counts_deposits_by_hand():
    """Ten cells, deposit 1 in the best and the worst cell, 2 in the fourth, 3 in the ninth"""
    p = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    deposit = np.array([1, -1, -1, 2, -1, -1, -1, -1, 3, 1])
    table = scores(deposit > 0, p, deposit, 0.5, areas=(0.1, 0.3, 0.4, 0.9, 0.025, 1.0), draws=0)
    assert value(table, "capture_10") == pytest.approx(1 / 3)
    assert value(table, "capture_30") == pytest.approx(1 / 3)
    assert value(table, "capture_40") == pytest.approx(2 / 3)
    assert value(table, "capture_90") == pytest.approx(1)
    assert value(table, "capture_2.5") == pytest.approx(0.25 / 3)  # a quarter of the best cell
    assert value(table, "capture_100") == 1


def test_intervals_hold_the_value_and_shrink_with_more_deposits():
    widths = []
    for deposits in (5, 20, 80):
        table = scores(*simulate_fold(cells=4000, deposits=deposits), 0.1)
        assert (table["low"] <= table["value"]).all()
        assert (table["value"] <= table["high"]).all()
        widths.append(value(table, "auc", "high") - value(table, "auc", "low"))
    assert widths[0] > widths[1] > widths[2] > 0


def test_interval_covers_the_truth_about_as_often_as_it_says():
    "Deposits differ in hardness; cells taken as independent cover far less"
    truth = np.mean(
        [value(scores(*simulate_fold(seed=s), 0.1, draws=0), "auc") for s in range(200)]
    )
    hits = {"deposits": 0, "cells": 0}
    for seed in range(100):
        y, p, deposit = simulate_fold(deposits=20, seed=1000 + seed)
        for unit, number in {"deposits": deposit, "cells": np.arange(2000)}.items():
            table = scores(y, p, number, 0.1, draws=200)
            hits[unit] += value(table, "auc", "low") <= truth <= value(table, "auc", "high")
    assert hits["deposits"] > 85 > hits["cells"]


def test_same_seed_same_interval():
    first, again = (scores(*simulate_fold(), 0.1, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(scores(*simulate_fold(), 0.1, seed=4))


def test_one_deposit_has_a_value_but_no_interval():
    table = scores(*simulate_fold(deposits=1), 0.1)
    assert table["value"].notna().all()
    assert table[["low", "high"]].isna().all(axis=None)


def test_one_class_gives_nan_not_an_error():
    y, p, deposit = simulate_fold()
    rank = ["auc", "average_precision", "f1", "mcc", "balanced_accuracy"]
    none = scores(np.zeros_like(y), p, deposit, 0.1).set_index("metric")["value"]
    assert none[[*rank, "capture_01"]].isna().all()
    assert none["deposits"] == none["prevalence"] == 0
    assert none["brier"] == pytest.approx((p**2).mean())
    assert none["accuracy"] == pytest.approx((p < 0.1).mean())
    only = scores(y[:50], p[:50], deposit[:50], 0.1).set_index("metric")["value"]
    assert only[rank].isna().all()
    assert only["prevalence"] == 1


def test_no_threshold_and_no_probability_give_nan():
    y, p, deposit = simulate_fold()
    table = scores(y, 10 * p - 5, deposit, np.nan).set_index("metric")["value"]
    assert table[["f1", "mcc", "balanced_accuracy", "accuracy", "brier"]].isna().all()
    assert np.isnan(table["calibration_error"])
    assert table["auc"] == pytest.approx(reference.roc_auc_score(y, p))


def test_folds_are_averaged_not_pooled():
    "Two perfect models with different calibration: pooled, their AUC would fall"
    y, deposit = np.array([False, False, True, True]), np.array([-1, -1, 1, 2])
    folds = {
        "west": Prediction(y, np.array([0.1, 0.2, 0.3, 0.4]), deposit, 0.3),
        "east": Prediction(y, np.array([0.5, 0.6, 0.7, 0.8]), deposit, 0.7),
    }
    table = score_folds(folds, draws=50)
    assert list(table.columns) == ["fold", "metric", "value", "low", "high"]
    assert list(table["fold"].unique()) == ["west", "east", "mean"]
    mean = table[table["fold"] == "mean"]
    assert value(mean, "auc") == value(mean, "f1") == 1
    assert value(mean, "folds") == 2


def test_the_mean_averages_values_and_draws():
    "Averaging four folds halves the interval, about"
    folds = {str(seed): predict_fold(seed=seed) for seed in range(4)}
    table = score_folds(folds)
    auc = table[table["metric"] == "auc"].set_index("fold")
    assert auc["value"]["mean"] == pytest.approx(auc["value"].drop("mean").mean())
    width = auc["high"] - auc["low"]
    assert width["mean"] == pytest.approx(width.drop("mean").mean() / 2, rel=0.3)


def test_folds_without_positives_are_left_out_of_the_mean():
    empty = Prediction(np.zeros(5, bool), np.linspace(0, 1, 5), np.full(5, -1), 0.5)
    full = predict_fold()
    table = score_folds({"a": full, "b": empty})
    mean, alone = (table[table["fold"] == name] for name in ("mean", "a"))
    assert value(mean, "folds") == 1
    for metric in ("auc", "accuracy", "deposits"):
        assert value(mean, metric) == value(alone, metric)
    assert np.isnan(value(table[table["fold"] == "b"], "auc"))
    nothing = score_folds({"b": empty})
    assert value(nothing[nothing["fold"] == "mean"], "folds") == 0


def test_a_fold_draws_the_same_whichever_folds_are_beside_it():
    a, b = predict_fold(seed=1), predict_fold(seed=2)
    alone, both = score_folds({"b": b}), score_folds({"a": a, "b": b})
    left, right = (table[table["fold"] == "b"].reset_index(drop=True) for table in (alone, both))
    pd.testing.assert_frame_equal(left, right)


def test_paired_difference_sees_what_overlapping_intervals_hide():
    "Both methods share hard and easy deposits; one has a little more noise"
    rng = np.random.default_rng(0)
    good = {str(seed): predict_fold(seed=seed) for seed in range(3)}
    worse = {
        name: Prediction(fold.y, fold.p - 0.02 * fold.y * rng.random(2000), fold.deposit, 0.1)
        for name, fold in good.items()
    }
    difference = paired_difference(good, worse, "auc")
    tables = [score_folds(folds).query("fold == 'mean'") for folds in (good, worse)]
    gap = value(tables[0], "auc") - value(tables[1], "auc")
    assert difference.value == pytest.approx(gap)
    assert 0 < difference.low < difference.value < difference.high
    assert value(tables[0], "auc", "low") < value(tables[1], "auc", "high")
    assert paired_difference(good, good, "mcc") == (0, 0, 0)


def test_paired_difference_refuses_different_cells():
    a, b = predict_fold(), predict_fold(deposits=11)
    with pytest.raises(ValueError, match="folds differ"):
        paired_difference({"a": a}, {"b": a}, "auc")
    with pytest.raises(ValueError, match="fold a: .* same cells"):
        paired_difference({"a": a}, {"a": b}, "auc")
    with pytest.raises(ValueError, match="'acu'; there are auc"):
        paired_difference({"a": a}, {"a": a}, "acu")


def test_every_deposit_counts_once():
    """A district of three cells and a deposit of one, among four unlabeled cells, by hand

    The district's cells beat 4, 4 and 1 of 4, the other deposit 2: cells average 11 / 16, deposits
    (3 / 4 + 1 / 2) / 2.
    """
    p = np.array([0.9, 0.8, 0.15, 0.4, 0.7, 0.5, 0.3, 0.1])
    deposit = np.array([5, 5, 5, 9, -1, -1, -1, -1])
    table = scores(deposit >= 0, p, deposit, 0.5, draws=0)
    assert value(table, "auc") == pytest.approx(11 / 16)
    assert value(table, "auc_deposit") == pytest.approx(5 / 8)
    # precision at each cell: thirds count a third of a find
    district, other = (1 + 1 + 2 / 5) / 3, (5 / 3) / (5 / 3 + 2)
    assert value(table, "average_precision_deposit") == pytest.approx((district + other) / 2)


def test_scores_of_deposits_equal_scikit_learn_with_weights():
    "Each positive cell weighs one over the cells of its deposit"
    y, p, deposit = simulate_fold(digits=2)
    deposit[:13] = 77  # one of 13 cells, one of 2
    weight = np.ones(len(y))
    weight[y] = (
        1
        / np.unique(deposit[y], return_inverse=True, return_counts=True)[2][
            np.unique(deposit[y], return_inverse=True)[1]
        ]
    )
    table = scores(y, p, deposit, 0.1, draws=0)
    for metric, of in {
        "auc_deposit": reference.roc_auc_score,
        "average_precision_deposit": reference.average_precision_score,
    }.items():
        assert value(table, metric) == pytest.approx(of(y, p, sample_weight=weight)), metric


def test_a_random_ranking_scores_a_half_whatever_the_size_of_deposits():
    "The best of 30 cells would rank far above an unlabeled cell by chance"
    found = []
    for seed in range(100):
        y, _, deposit = simulate_fold(cells=400, deposits=4, size=30)
        p = np.random.default_rng(seed).random(400)
        found.append(value(scores(y, p, deposit, 0.5, draws=0), "auc_deposit"))
    assert np.mean(found) == pytest.approx(0.5, abs=0.01)


def world(sizes, seed):
    "Folds of 400 cells and so many deposits of two cells, some folds harder; and the expected AUC"
    rng, folds, expected = np.random.default_rng(seed), {}, []
    for number, size in enumerate(sizes):
        shift = 1 + 0.5 * (-1) ** number
        deposit = np.full(400, -1)
        deposit[: 2 * size] = np.arange(size).repeat(2)
        p = rng.normal(size=400)
        p[: 2 * size] += shift + rng.normal(size=size).repeat(2)
        folds[str(number)] = Prediction(deposit >= 0, p, deposit, np.nan)
        expected.append(norm.cdf(shift / 3**0.5))
    return folds, np.mean(expected)


@pytest.mark.parametrize(
    "sizes", [[1] * 6, [1, 1, 2, 3], [12, 12]], ids=["single", "mixed", "many"]
)
def test_the_interval_of_the_mean_covers_the_truth_whatever_the_folds(sizes):
    """Also where folds have one deposit; plain percentiles of plain draws cover less

    Percentiles of n deposits drawn of n, fold by fold, are what is usually done.
    """
    hits, plain = 0, 0
    for seed in range(80):
        folds, truth = world(sizes, seed)
        table = score_folds(folds, areas=(), draws=150).query("fold == 'mean'")
        low, high = (value(table, "auc", end) for end in ("low", "high"))
        hits += low <= truth <= high
        usual = np.percentile(usual_draws(folds, 150), [2.5, 97.5])
        plain += usual[0] <= truth <= usual[1]
    assert hits / 80 >= 0.88
    assert hits >= plain
    assert plain / 80 < 0.75 or min(sizes) > 1


def usual_draws(folds, draws):
    "The mean AUC over folds, each fold's deposits drawn with replacement"
    rng, total = np.random.default_rng(0), 0
    for fold in folds.values():
        negative = np.sort(fold.p[~fold.y])
        beaten = np.searchsorted(negative, fold.p[fold.y]).reshape(-1, 2).mean(axis=1)
        chosen = rng.integers(len(beaten), size=(draws, len(beaten)))
        total = total + beaten[chosen].mean(axis=1) / len(negative)
    return total / len(folds)


def test_a_mean_of_one_deposit_in_all_has_no_interval():
    table = score_folds({"a": predict_fold(deposits=1)})
    mean = table.query("fold == 'mean' and metric == 'auc'")
    assert mean["value"].notna().all()
    assert mean[["low", "high"]].isna().all(axis=None)


def test_intervals_stay_within_what_a_metric_can_be():
    "Two folds with a deposit each: their AUC of 1 and 0.8 may vary by a lot"
    p = np.linspace(0, 1, 6)
    folds = {
        "a": Prediction(p == 1, p, np.zeros(6, int), 0.9),
        "b": Prediction(p == 0.8, p, np.zeros(6, int), 0.9),
    }
    mean = score_folds(folds).query("fold == 'mean'")
    assert value(mean, "auc") == pytest.approx(0.9)
    assert 0 <= value(mean, "auc", "low") < 0.8
    assert value(mean, "auc", "high") == 1
    assert value(mean, "mcc", "low") >= -1
    assert value(mean, "deposits", "high") == 1


def test_few_deposits_widen_an_interval_as_students_t_does():
    "The mean of five numbers: t of four degrees of freedom times the standard error"
    values = np.array([0.3, 0.4, 0.5, 0.6, 0.7])
    found = mean_interval(values, draws=20_000, seed=0)
    half = 2.776 * values.std(ddof=1) / 5**0.5
    assert found.value == pytest.approx(0.5)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.12)
    assert np.isnan(mean_interval(values[:1], draws=50, seed=0)[1:]).all()


def test_pairs_compared_together_are_those_compared_alone():
    folds = {name: {"0": predict_fold(seed=0, shift=shift)} for name, shift in (("a", 1), ("b", 2))}
    together = paired_differences(folds, [("a", "b"), ("b", "a")], ["auc", "f1"], draws=50)
    assert list(together) == [
        ("a", "b", "auc"),
        ("a", "b", "f1"),
        ("b", "a", "auc"),
        ("b", "a", "f1"),
    ]
    alone = paired_difference(folds["a"], folds["b"], "f1", draws=50)
    assert together["a", "b", "f1"] == alone
    assert together["b", "a", "f1"].value == -alone.value


def test_a_difference_of_folds_with_one_deposit_has_an_interval():
    "Both methods borrow the same deposits' spread, so that equal methods differ by nothing"
    one = {str(k): predict_fold(seed=k, deposits=n) for k, n in enumerate((1, 4, 1))}
    worse = {k: Prediction(f.y, f.p - 0.01 * f.y, f.deposit, 0.1) for k, f in one.items()}
    assert paired_difference(one, one, "auc") == (0, 0, 0)
    gap, whole = paired_difference(one, worse, "auc"), score_folds(one).query("fold == 'mean'")
    assert gap.low <= gap.value <= gap.high and gap.value > 0
    assert gap.high - gap.low < (value(whole, "auc", "high") - value(whole, "auc", "low")) / 2
