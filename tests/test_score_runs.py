import json

import numpy as np
import pandas as pd
import pytest
from helpers import predictions, simulate_fold

from mpm import score_runs
from mpm.score_store import add_scores, append_scores, read_scores


def test_predictions_are_parted_by_fold():
    "Each fold keeps its cells in order, with its own threshold"
    cells = [("1", 0, 0, 0, -1, 0.25), ("0", 0, 0, 1, 4, 0.75), ("1", 0, 0, 2, 7, 0.5)]
    rows = predictions(cells)
    rows["threshold"] = rows["fold"].map({"0": 0.2, "1": 0.6})
    folds = score_runs.by_fold(rows)
    assert list(folds) == ["0", "1"]
    assert folds["1"].y.tolist() == [False, True] and folds["0"].y.tolist() == [True]
    assert folds["1"].p.tolist() == [0.25, 0.5] and folds["0"].p.tolist() == [0.75]
    assert folds["1"].deposit.tolist() == [-1, 7]
    assert (folds["0"].threshold, folds["1"].threshold) == (0.2, 0.6)


@pytest.fixture
def known():
    """Two folds: six cells of the north; two of the north and two of the south.

    The known deposit's cell is the best of fold 0.
    """
    rows = predictions(
        [
            ("0", 0, 0, 0, 8, 0.95),
            ("0", 0, 0, 1, -1, 0.9),
            ("0", 0, 0, 2, -1, 0.1),
            ("0", 0, 0, 3, -1, 0.25),
            ("0", 0, 0, 4, -1, 0.3),
            ("0", 0, 0, 5, -1, 0.2),
            ("1", 0, 1, 0, -1, 0.6),
            ("1", 0, 1, 1, -1, 0.7),
            ("1", 1, 0, 0, -1, 0.9),
            ("1", 1, 0, 1, -1, 0.1),
        ]
    )
    north, south = np.full((2, 6), -1), np.full((1, 2), -1)
    north[0, 1], north[0, 3], north[1, 0], south[0, 0] = 1, 2, 0, 3
    truth = [np.zeros((2, 6)), np.zeros((1, 2))]
    truth[0][0] = rows["likelihood"][:6] / 2
    truth[0][1, :2], truth[1][0] = (0.4, 0.3), (0.1, 0.9)
    return rows, [north, south], truth


def score(known, **kwargs) -> pd.DataFrame:
    table = score_runs.score_against_truth(*known, **{"draws": 20, "seed": 3} | kwargs)
    assert table.columns.tolist() == ["fold", "metric", "value", "low", "high"]
    return table.set_index(["fold", "metric"])


def test_undiscovered_deposits_score_without_the_known_cells(known):
    """The hidden cells beat 3 and 2 of 3 others in fold 0, and 1 and 2 of 2 in fold 1

    Were the known deposit's cell, the best of all, an ordinary one, fold 0 would get 5 of 8.
    """
    value = score(known)["value"]
    assert value["0", "auc_undiscovered"] == pytest.approx(5 / 6)
    assert value["1", "auc_undiscovered"] == pytest.approx(3 / 4)
    assert value["mean", "auc_undiscovered"] == pytest.approx(19 / 24)
    assert value["0", "prevalence_undiscovered"] == pytest.approx(2 / 5)
    assert value["mean", "folds_undiscovered"] == 2


def test_hidden_deposits_of_two_regions_are_two(known):
    "Number 0 in the north and number 3 in the south"
    assert score(known)["value"]["1", "deposits_undiscovered"] == 2


def test_correlation_with_the_truth_is_of_ranks_in_all_test_cells(known):
    "Half the likelihood ranks alike (+1), one less it the other way round (-1)"
    table = score(known)
    value = table["value"].xs("correlation_with_truth", level="metric")
    assert value.to_dict() == pytest.approx({"0": 1, "1": -1, "mean": 0})
    assert table.xs("correlation_with_truth", level="metric")[["low", "high"]].isna().all(axis=None)
    same = known[0].assign(likelihood=0.5)
    assert score((same, *known[1:]))["value"]["mean", "correlation_with_truth"] == 0
    # the known deposit's cell counts: at the bottom of the truth it is 5 ranks off, the others 1,
    # which makes 1 - 6 (25 + 5) / (6 x 35)
    known[2][0][0, 0] = 0
    assert score(known)["value"]["0", "correlation_with_truth"] == pytest.approx(1 - 30 / 35)


# ---- all runs

NAMES = {"study": "toy", "target": "MVT", "draws": 20, "workers": 1}


def two_runs() -> pd.DataFrame:
    "Two methods on the same cells of two folds"
    tables = []
    for method in ("mae", "forest"):
        cells = []
        for fold in "01":
            y, p, deposit = simulate_fold(
                cells=60, deposits=3, size=2, seed=len(method) + int(fold)
            )
            cells += [(fold, int(fold), 0, k, deposit[k], p[k]) for k in range(60)]
        tables.append(predictions(cells, method=method, threshold=0.1))
    return pd.concat(tables, ignore_index=True)


def test_every_split_and_method_is_scored_once(tmp_path, capsys):
    "The table holds what `score_folds` says of each run"
    rows, path = two_runs(), tmp_path / "scores.parquet"
    random = rows[rows["method"] == "mae"].assign(split="random")
    table = score_runs.score_all(pd.concat([rows, random]), path, **NAMES, seed=3)
    runs = table[["study", "target", "split", "seed", "method"]].drop_duplicates()
    assert runs.to_numpy().tolist() == [
        ["toy", "MVT", "blocks", 3, "forest"],
        ["toy", "MVT", "blocks", 3, "mae"],
        ["toy", "MVT", "random", 3, "mae"],
    ]
    pd.testing.assert_frame_equal(table, read_scores(path))
    own = score_runs.score_folds(
        score_runs.by_fold(rows[rows["method"] == "mae"]), draws=20, seed=3
    )
    found = table[(table["method"] == "mae") & (table["split"] == "blocks")]
    merged = own.merge(found, on=["fold", "metric"])
    assert len(merged) == len(own) == len(found)
    for column in ("value", "low", "high"):
        np.testing.assert_array_equal(merged[f"{column}_x"], merged[f"{column}_y"])
    assert capsys.readouterr().out.startswith("scoring 3 runs")


def scored_runs(monkeypatch) -> list:
    "Runs that are really computed, from now on"
    computed, score = [], score_runs._score

    def watched(run, rows, options):
        computed.append(run)
        return score(run, rows, options)

    monkeypatch.setattr(score_runs, "_score", watched)
    return computed


def test_scores_of_identical_predictions_are_not_computed_again(tmp_path, monkeypatch):
    rows, path = two_runs(), tmp_path / "scores.parquet"
    first = score_runs.score_all(rows, path, **NAMES)
    computed = scored_runs(monkeypatch)
    added = first[first["metric"] == "auc"]
    for name in ("train_auc", "auc_less_forest", "auc_on_shifted_labels"):  # of the first run
        add_scores(path, added.assign(metric=name), {})
    pd.testing.assert_frame_equal(score_runs.score_all(rows, path, **NAMES), first)
    assert computed == []
    changed = rows.copy()
    changed.loc[3, "likelihood"] += np.float32(0.001)
    score_runs.score_all(changed, path, **NAMES)
    assert [run[-1] for run in computed] == ["mae"]
    score_runs.score_all(changed, path, **NAMES | {"draws": 21})
    assert len(computed) == 3, "other draws are other scores"


def test_scores_are_computed_again_when_their_code_changes(tmp_path, monkeypatch):
    rows, path, other = two_runs(), tmp_path / "scores.parquet", tmp_path / "metrics.py"
    score_runs.score_all(rows, path, **NAMES)
    computed = scored_runs(monkeypatch)
    other.write_text("changed")
    monkeypatch.setattr(score_runs.metrics, "__file__", str(other))
    score_runs.score_all(rows, path, **NAMES)
    assert len(computed) == 2


def test_scores_that_the_table_lost_are_computed_again(tmp_path, monkeypatch):
    "Whatever the digests beside it say"
    rows, path = two_runs(), tmp_path / "scores.parquet"
    whole = score_runs.score_all(rows, path, **NAMES)
    computed = scored_runs(monkeypatch)
    whole[whole["method"] == "mae"].to_parquet(path)
    score_runs.score_all(rows, path, **NAMES)
    assert [run[-1] for run in computed] == ["forest"]
    path.unlink()
    score_runs.score_all(rows, path, **NAMES)
    assert len(computed) == 3
    digests = json.loads((tmp_path / "scores_made_of.json").read_text())
    assert list(digests) == ["toy MVT blocks 0 forest", "toy MVT blocks 0 mae"]


def test_seeds_of_the_training_are_runs_of_their_own(tmp_path):
    rows, path = two_runs(), tmp_path / "scores.parquet"
    rows["seed"] = np.where(rows["method"] == "mae", 11, 12)
    table = score_runs.score_all(rows, path, **NAMES)
    assert table.groupby("method")["seed"].unique().map(list).to_dict() == {
        "forest": [12],
        "mae": [11],
    }


def test_two_processes_write_the_same_table_as_one(tmp_path):
    "And rows of other studies stay"
    rows, files = two_runs(), [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for workers, path in enumerate(files, 1):
        kept = score_runs.score_folds(score_runs.by_fold(rows.iloc[:120]), draws=0)
        keys = {"study": "other", "target": "CD", "split": "blocks", "seed": 0, "method": "mae"}
        append_scores(path, kept, keys)
        score_runs.score_all(rows, path, **NAMES | {"workers": workers})
    assert files[0].read_bytes() == files[1].read_bytes()
    assert set(read_scores(files[0])["study"]) == {"other", "toy"}


def test_scores_against_the_truth_are_added(known, tmp_path):
    rows, hidden, truth = known
    path = tmp_path / "scores.parquet"
    table = score_runs.score_all(rows, path, hidden=hidden, truth=truth, **NAMES)
    value = table.set_index(["fold", "metric"])["value"]
    assert value["1", "auc_undiscovered"] == pytest.approx(3 / 4)
    assert value["mean", "correlation_with_truth"] == pytest.approx(0)
    assert ("0", "auc") in value


def test_score_all_refuses_what_it_cannot_score(known, tmp_path):
    rows, hidden, _ = known
    for options in ({"predictions": rows.iloc[:0]}, {"predictions": rows, "hidden": hidden}):
        with pytest.raises(ValueError, match="hidden and truth together"):
            score_runs.score_all(**options, path=tmp_path / "scores.parquet", **NAMES)
