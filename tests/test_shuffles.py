import numpy as np
import pandas as pd
import pytest
from helpers import written_study

from mpm import shuffles
from mpm.splits import SplitSettings

SETTINGS = SplitSettings(folds=3, block_km=10, dead_cells=4)
SEEN = []


def by_number(name, task):
    "A stand-in for `methods.fit`: ranks cells by a random number of the task's seed"
    SEEN.append((task.fold.number, name, task.seed))
    return lambda windows, index: np.random.default_rng(task.seed).random(len(windows))[index]


def peeking(name, task):
    "What a leak would look like: the true labels of any cell"
    return lambda windows, index: task.positive[index].astype(float)


@pytest.fixture
def study(tmp_path, monkeypatch):
    SEEN.clear()
    return written_study(tmp_path, monkeypatch)


def run(study, fit):
    options = {"split_settings": SETTINGS, "preset": "demo", "seed": 7, "processes": 1}
    wanted = [("random", fold, "forest") for fold in (0, 1)]
    return shuffles.run(study, "MVT", wanted, draws=3, fit=fit, **options)


def test_each_deal_has_a_seed_of_its_own_and_is_scored_on_test_cells(study):
    """Three deals on each of two folds, kept for the next time"""
    table = run(study, by_number)
    assert sorted(SEEN) == [(fold, "shuffled:forest", 7 + k) for fold in (0, 1) for k in range(3)]
    assert table["draw"].tolist() == [0, 1, 2, 0, 1, 2]
    assert table[["split", "method"]].drop_duplicates().values.tolist() == [["random", "forest"]]
    assert table["auc"].nunique() == 6 and table["auc"].between(0.1, 0.9).all()
    assert run(study, by_number).equals(table) and len(SEEN) == 6


def test_aucs_are_those_of_the_true_test_labels(study):
    assert (run(study, peeking)["auc"] == 1).all()


def test_chance_holds_and_a_leak_does_not():
    """Mean of 0.4 and 0.6: 0.5 plus or minus 0.196, since the standard error is 0.1"""
    table = pd.DataFrame(
        [("a", 0.4), ("a", 0.6), ("b", 0.6), ("b", 0.61)], columns=["method", "auc"]
    ).assign(split="blocks", fold=0, draw=[0, 1, 0, 1])
    found = shuffles.verdicts(table)
    assert found.index.tolist() == [("blocks", "a"), ("blocks", "b")]
    np.testing.assert_allclose(
        found.loc[("blocks", "a"), ["mean", "low", "high"]].astype(float), [0.5, 0.304, 0.696]
    )
    assert found["holds"].tolist() == [True, False] and found["deals"].tolist() == [2, 2]
    low = shuffles.verdicts(table.assign(auc=1 - table["auc"]))
    assert low["holds"].tolist() == [True, False], "below chance is no chance either"


def test_one_deal_is_refused():
    table = pd.DataFrame({"split": ["blocks"], "method": "forest", "auc": 0.5})
    with pytest.raises(ValueError, match="forest under blocks has one deal of labels"):
        shuffles.verdicts(table)
