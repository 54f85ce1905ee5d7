"""Scores of real studies: kept as they were, with what they were made of."""

import pandas as pd
import pytest
from toy_notebooks import home  # noqa: F401  (a fixture)

from mpm import artefacts, record, study_scores
from mpm.mapping import predictions_path
from mpm.score_store import SCORE_COLUMNS
from mpm.study import load


@pytest.fixture
def ran(home):  # noqa: F811
    "The study tiny after notebook 05: two targets, two seeds, a fold and a metric of no interest"
    rows = [
        ("MVT", 7, "mean", "auc", 0.712345, 0.6, 0.8),
        ("MVT", 7, "0", "auc", 0.5, 0.4, 0.6),
        ("MVT", 7, "mean", "accuracy", 0.99, 0.9, 1.0),
        ("MVT", 8, "mean", "auc", 0.1, 0.0, 0.2),
        ("CD", 7, "mean", "auc", 0.2, 0.1, 0.3),
    ]
    tested = pd.DataFrame({"split": ["blocks"], "method": ["mae"]})
    columns = ["target", "seed", "fold", "metric", "value", "low", "high"]
    table = pd.DataFrame(rows, columns=columns).assign(study="tiny", split="blocks", method="mae")
    setup = load("tiny")
    older = table[:1].assign(method="resnet18")  # not in the last run
    table = pd.concat([table, older], ignore_index=True)
    artefacts.write_table(table[SCORE_COLUMNS], setup.processed / "scores.parquet")
    for target in ("MVT", "CD"):
        for source in ("mae", "baselines"):
            artefacts.write_table(tested, predictions_path(setup, target, source))
    made = record.begin(setup, ["05_evaluation"], 7)
    entry = {"status": "done", "parameters": {"draws": 9}, "wall_s": 2.5, "key": "x"}
    made.keep(setup, "05_evaluation", entry)
    return home


def test_means_of_one_target_and_seed_are_kept(ran):
    "To four digits, with the run's inputs and each notebook's parameters and time beside them"
    place = study_scores.keep("tiny", "MVT")
    assert place == study_scores.folder() / "tiny_MVT.csv"
    assert pd.read_csv(place).to_numpy().tolist() == [
        ["tiny", "MVT", 7, "blocks", "mae", "auc", 0.7123, 0.6, 0.8]
    ]
    facts = artefacts.read_json(place.with_suffix(".json"))
    assert facts["inputs"] == artefacts.read_json(record.path(load("tiny")))["inputs"]
    assert facts["notebooks"] == {
        "05_evaluation": {
            "parameters": {"draws": 9}, "started": None, "wall_s": 2.5, "peak_mb": None
        }
    }  # fmt: skip


def test_all_that_is_kept_is_read_as_scores(ran):
    assert study_scores.read().empty
    study_scores.keep("tiny", "MVT")
    study_scores.keep("tiny", "CD")
    found = study_scores.read()
    assert found.columns.tolist() == [*study_scores.COLUMNS, "fold"]
    assert found[["target", "value", "fold"]].to_numpy().tolist() == [
        ["CD", 0.2, "mean"],
        ["MVT", 0.7123, "mean"],
    ]


def test_only_the_last_run_is_kept(ran):
    "Its facts would be told of scores that another run has made"
    with pytest.raises(ValueError, match="the last run on 'tiny' was of MVT, seed 7; `mpm run"):
        study_scores.keep("tiny", "MVT", seed=8)
    assert not study_scores.folder().exists()


def test_a_target_that_was_not_run_is_named(ran):
    with pytest.raises(ValueError, match=r"no scores of MVT, seed 3; `mpm run tiny --target MVT"):
        study_scores.keep("tiny", "MVT", seed=3)
    assert not study_scores.folder().exists()


def test_without_notebook_05_there_is_nothing_to_keep(home):  # noqa: F811
    with pytest.raises(FileNotFoundError, match="05_evaluation"):
        study_scores.keep("tiny", "MVT")
