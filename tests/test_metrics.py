import time

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from mpm.metrics import (
    SCORE_COLUMNS,
    Prediction,
    append_scores,
    best_threshold,
    paired_difference,
    read_scores,
    score_folds,
    scores,
)


def simulate(cells=2000, deposits=10, size=5, shift=1.5, seed=0, digits=None):
    """Cells with deposits of `size` cells, p from a noisy score; few digits make ties."""
    rng = np.random.default_rng(seed)
    deposit = np.full(cells, -1)
    deposit[: deposits * size] = np.repeat(np.arange(deposits) + 40, size)
    y = deposit >= 0
    hardness = rng.normal(size=deposits).repeat(size)
    logit = rng.normal(size=cells) - 3 + shift * y
    logit[y] += hardness
    p = 1 / (1 + np.exp(-logit))
    return y, p if digits is None else p.round(digits), deposit


def predict(threshold=0.1, **options) -> Prediction:
    return Prediction(*simulate(**options), threshold)


def value(table, metric, column="value"):
    return table.set_index("metric")[column][metric]


@pytest.mark.parametrize("digits", [None, 2, 1, 0])
def test_values_equal_scikit_learn(digits):
    "Also when many cells share a score"
    y, p, deposit = simulate(digits=digits)
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
        "prevalence": 50 / 2000,
        "deposits": 10,
    }
    for metric, number in expected.items():
        assert value(table, metric) == pytest.approx(number, rel=1e-12, abs=1e-15), metric
    assert list(table["metric"])[-3:] == ["capture_01", "capture_05", "capture_10"]


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_calling_everything_or_nothing_equals_scikit_learn(threshold):
    y, p, deposit = simulate()
    table = scores(y, p, deposit, threshold, draws=0)
    called = p >= threshold
    assert value(table, "mcc") == reference.matthews_corrcoef(y, called) == 0
    assert value(table, "f1") == pytest.approx(reference.f1_score(y, called))
    assert value(table, "balanced_accuracy") == 0.5


@pytest.mark.parametrize("digits", [None, 1])
def test_draws_equal_scikit_learn_with_weights(digits):
    "A bootstrap draw is the score with its deposits' weights: all draws are checked one by one"
    y, p, deposit = simulate(cells=300, deposits=3, digits=digits)
    rng = np.random.default_rng(5)
    counts = rng.multinomial(3, np.full(3, 1 / 3), size=40)
    called, every = p >= 0.1, {"auc": [], "average_precision": [], "f1": [], "mcc": [], "brier": []}
    for count in counts:
        weight = np.where(y, count[np.clip(deposit - 40, 0, None)], 1)
        every["auc"].append(reference.roc_auc_score(y, p, sample_weight=weight))
        every["average_precision"].append(
            reference.average_precision_score(y, p, sample_weight=weight)
        )
        every["f1"].append(reference.f1_score(y, called, sample_weight=weight))
        every["mcc"].append(reference.matthews_corrcoef(y, called, sample_weight=weight))
        every["brier"].append(reference.brier_score_loss(y, p, sample_weight=weight))
    table = scores(y, p, deposit, 0.1, draws=40, seed=5)
    for metric, values in every.items():
        low, high = np.percentile(values, [2.5, 97.5])
        assert value(table, metric, "low") == pytest.approx(low, rel=1e-10), metric
        assert value(table, metric, "high") == pytest.approx(high, rel=1e-10), metric


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
        table = scores(*simulate(cells=4000, deposits=deposits), 0.1)
        assert (table["low"] <= table["value"]).all()
        assert (table["value"] <= table["high"]).all()
        widths.append(value(table, "auc", "high") - value(table, "auc", "low"))
    assert widths[0] > widths[1] > widths[2] > 0


def test_interval_covers_the_truth_about_as_often_as_it_says():
    "Deposits differ in hardness; cells taken as independent cover far less"
    truth = np.mean([value(scores(*simulate(seed=s), 0.1, draws=0), "auc") for s in range(200)])
    hits = {"deposits": 0, "cells": 0}
    for seed in range(100):
        y, p, deposit = simulate(deposits=20, seed=1000 + seed)
        for unit, number in {"deposits": deposit, "cells": np.arange(2000)}.items():
            table = scores(y, p, number, 0.1, draws=200)
            hits[unit] += value(table, "auc", "low") <= truth <= value(table, "auc", "high")
    assert hits["deposits"] > 85 > hits["cells"]


def test_same_seed_same_interval():
    first, again = (scores(*simulate(), 0.1, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(scores(*simulate(), 0.1, seed=4))


def test_one_deposit_has_a_value_but_no_interval():
    table = scores(*simulate(deposits=1), 0.1)
    assert table["value"].notna().all()
    assert table[["low", "high"]].isna().all(axis=None)


def test_one_class_gives_nan_not_an_error():
    y, p, deposit = simulate()
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
    y, p, deposit = simulate()
    table = scores(y, 10 * p - 5, deposit, np.nan).set_index("metric")["value"]
    assert table[["f1", "mcc", "balanced_accuracy", "accuracy", "brier"]].isna().all()
    assert table["auc"] == pytest.approx(reference.roc_auc_score(y, p))


def test_scores_are_fast():
    "20,000 cells, 300 positives, 500 draws: about 0.05 s on a quiet core"
    y, p, deposit = simulate(cells=20_000, deposits=60)
    start = time.perf_counter()
    scores(y, p, deposit, 0.1)
    assert time.perf_counter() - start < 1


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
    folds = {str(seed): predict(seed=seed) for seed in range(4)}
    table = score_folds(folds)
    auc = table[table["metric"] == "auc"].set_index("fold")
    assert auc["value"]["mean"] == pytest.approx(auc["value"].drop("mean").mean())
    width = auc["high"] - auc["low"]
    assert width["mean"] == pytest.approx(width.drop("mean").mean() / 2, rel=0.3)


def test_folds_without_positives_are_left_out_of_the_mean():
    empty = Prediction(np.zeros(5, bool), np.linspace(0, 1, 5), np.full(5, -1), 0.5)
    full = predict()
    table = score_folds({"a": full, "b": empty})
    mean, alone = (table[table["fold"] == name] for name in ("mean", "a"))
    assert value(mean, "folds") == 1
    for metric in ("auc", "accuracy", "deposits"):
        assert value(mean, metric) == value(alone, metric)
    assert np.isnan(value(table[table["fold"] == "b"], "auc"))
    nothing = score_folds({"b": empty})
    assert value(nothing[nothing["fold"] == "mean"], "folds") == 0


def test_a_fold_with_one_deposit_leaves_the_mean_without_interval():
    table = score_folds({"a": predict(), "b": predict(deposits=1)})
    mean = table.query("fold == 'mean' and metric == 'auc'")
    assert mean["value"].notna().all()
    assert mean[["low", "high"]].isna().all(axis=None)


def test_a_fold_draws_the_same_whichever_folds_are_beside_it():
    a, b = predict(seed=1), predict(seed=2)
    alone, both = score_folds({"b": b}), score_folds({"a": a, "b": b})
    left, right = (table[table["fold"] == "b"].reset_index(drop=True) for table in (alone, both))
    pd.testing.assert_frame_equal(left, right)


def test_paired_difference_sees_what_overlapping_intervals_hide():
    "Both methods share hard and easy deposits; one has a little more noise"
    rng = np.random.default_rng(0)
    good = {str(seed): predict(seed=seed) for seed in range(3)}
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
    a, b = predict(), predict(deposits=11)
    with pytest.raises(ValueError, match="folds differ"):
        paired_difference({"a": a}, {"b": a}, "auc")
    with pytest.raises(ValueError, match="fold a: .* same cells"):
        paired_difference({"a": a}, {"a": b}, "auc")
    with pytest.raises(ValueError, match="'acu'; there are auc"):
        paired_difference({"a": a}, {"a": a}, "acu")


def test_prediction_refuses_what_cannot_be_scored():
    y, p, deposit = simulate(cells=100)
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


@pytest.mark.parametrize("digits", [None, 1])
def test_no_threshold_beats_the_best(digits):
    y, p, _ = simulate(cells=300, digits=digits)
    p = p.astype("float32")
    found = reference.f1_score(y, p >= best_threshold(y, p))
    assert found == max(reference.f1_score(y, p >= t) for t in np.unique(p))


KEYS = {"study": "demo", "target": "MVT", "split": "blocks", "seed": 7, "method": "mae"}


def test_scores_round_trip(tmp_path):
    path = tmp_path / "scores.parquet"
    table = score_folds({"0": predict(), "1": predict(seed=1)}, draws=20)
    append_scores(path, table, KEYS)
    found = read_scores(path)
    assert list(found.columns) == SCORE_COLUMNS
    assert len(found) == len(table)
    assert found["fold"].tolist()[0] == "0"
    assert found["seed"].dtype == "int64"
    merged = table.merge(found, on=["fold", "metric"])
    np.testing.assert_array_equal(merged["value_x"], merged["value_y"])


def test_rows_of_the_same_run_are_replaced_and_others_kept(tmp_path):
    path = tmp_path / "scores.parquet"
    old = score_folds({"0": predict(), "1": predict(seed=1)}, draws=0)
    new = score_folds({"0": predict(seed=2)}, draws=0)
    append_scores(path, old, KEYS)
    append_scores(path, old, KEYS | {"method": "random_forest"})
    append_scores(path, old, KEYS | {"seed": 8})
    append_scores(path, new, KEYS)
    found = read_scores(path)
    assert len(found) == 2 * len(old) + len(new)
    run = found[(found["method"] == "mae") & (found["seed"] == 7)]
    assert sorted(run["fold"].unique()) == ["0", "mean"]
    assert value(run[run["fold"] == "0"], "auc") == value(new[new["fold"] == "0"], "auc")


def test_the_file_does_not_depend_on_the_order_of_writing(tmp_path):
    table = score_folds({"0": predict()}, draws=0)
    for name, methods in {"a": ["mae", "forest"], "b": ["forest", "mae", "mae"]}.items():
        for method in methods:
            append_scores(tmp_path / name, table, KEYS | {"method": method})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_append_refuses_wrong_columns_and_repeated_rows(tmp_path):
    path, table = tmp_path / "scores.parquet", scores(*simulate(), 0.1, draws=0)
    with pytest.raises(ValueError, match="missing: fold; unknown: none"):
        append_scores(path, table, KEYS)
    with pytest.raises(ValueError, match="unknown: colour"):
        append_scores(path, table, KEYS | {"fold": 0, "colour": "red"})
    with pytest.raises(ValueError, match="metric auc of fold 0 is given twice"):
        append_scores(path, pd.concat([table, table.iloc[:1]]), KEYS | {"fold": 0})
    assert not path.exists()
    append_scores(path, table, KEYS | {"fold": 0})
    assert set(read_scores(path)["fold"]) == {"0"}


def test_read_refuses_missing_and_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="05_evaluation"):
        read_scores(tmp_path / "scores.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet holds a instead of study"):
        read_scores(tmp_path / "other.parquet")
