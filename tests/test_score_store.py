import numpy as np
import pandas as pd
import pytest
from helpers import predict_fold, simulate_fold

from mpm.metrics import score_folds, scores
from mpm.score_store import SCORE_COLUMNS, append_scores, read_scores


def value(table, metric):
    return table.set_index("metric")["value"][metric]


KEYS = {"study": "demo", "target": "MVT", "split": "blocks", "seed": 7, "method": "mae"}


def test_scores_round_trip(tmp_path):
    path = tmp_path / "scores.parquet"
    table = score_folds({"0": predict_fold(), "1": predict_fold(seed=1)}, draws=20)
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
    old = score_folds({"0": predict_fold(), "1": predict_fold(seed=1)}, draws=0)
    new = score_folds({"0": predict_fold(seed=2)}, draws=0)
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
    table = score_folds({"0": predict_fold()}, draws=0)
    for name, methods in {"a": ["mae", "forest"], "b": ["forest", "mae", "mae"]}.items():
        for method in methods:
            append_scores(tmp_path / name, table, KEYS | {"method": method})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_append_refuses_wrong_columns_and_repeated_rows(tmp_path):
    path, table = tmp_path / "scores.parquet", scores(*simulate_fold(), 0.1, draws=0)
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
