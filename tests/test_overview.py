"""The overview's table of scores and its messages."""

import numpy as np
import pandas as pd
import pytest
from toy_notebooks import home  # noqa: F401  (a fixture)

from mpm import overview, plots, record
from mpm.study import load


@pytest.fixture
def scores(home):
    """Scores of two methods under two splits, of two seeds; one fold beside the means."""
    rows = [
        ("blocks", "mean", 7, "mae", "auc", 0.8, 0.7, 0.9),
        ("blocks", "mean", 7, "mae", "capture_05", 0.4, np.nan, np.nan),
        ("blocks", "mean", 7, "own", "auc", 0.6, 0.5, 0.7),
        ("random", "mean", 7, "mae", "auc", 0.95, 0.9, 1.0),
        ("random", "mean", 7, "mae", "capture_05", 0.9, 0.8, 1.0),
        ("blocks", "0", 7, "mae", "auc", 0.1, 0.1, 0.1),
        ("blocks", "mean", 8, "mae", "auc", 0.2, 0.1, 0.3),
        ("blocks", "mean", 7, "mae", "brier", 0.2, 0.1, 0.3),
    ]
    names = ["split", "fold", "seed", "method", "metric", "value", "low", "high"]
    table = pd.DataFrame(rows, columns=names).assign(study="tiny", target="MVT")
    setup = load("tiny")
    setup.processed.mkdir(parents=True)
    table.to_parquet(setup.processed / "scores.parquet")
    return setup


def test_the_headline_has_the_hardest_split_and_the_contrast(scores):
    "Means of one seed with intervals; methods in the order given, others after them"
    table = overview.headline(scores, "MVT", seed=7, methods=plots.METHODS)
    assert list(table.index) == ["mae", "own"]
    assert table.to_dict("list") == {
        ("blocks", "AUC"): ["0.800 (0.70 to 0.90)", "0.600 (0.50 to 0.70)"],
        ("blocks", "capture at 5 % of area"): ["0.400", ""],
        ("random", "AUC"): ["0.950 (0.90 to 1.00)", ""],
    }
    assert overview.missing(scores, "MVT", seed=7) == ""


def test_without_a_run_the_page_says_which_command_makes_it(home, scores):
    "Of another seed, another target, or nothing at all"
    told = overview.missing(scores, "CD", seed=7)
    assert told.startswith("No scores of CD in study tiny with seed 7 yet; 0 notebooks are done.")
    assert "`mpm run tiny --target CD --seed 7`" in told
    with pytest.raises(FileNotFoundError, match="--target MVT --seed 9"):
        overview.headline(scores, "MVT", seed=9, methods=[])
    (scores.processed / "scores.parquet").unlink()
    assert "--target MVT --seed 7" in overview.missing(scores, "MVT", seed=7)


def test_the_last_run_is_told_notebook_by_notebook(scores):
    "Minutes and gigabytes; a notebook that failed has neither"
    assert overview.facts(scores).empty
    made = record.begin(scores, ["00_overview", "01_first", "02_second"], 7)
    made.keep(scores, "00_overview", {"status": "running", "started": "now"})  # this very page
    entry = {"status": "done", "started": "then", "wall_s": 90, "peak_mb": 1234, "figures": [1, 2]}
    made.keep(scores, "01_first", entry)
    made.keep(scores, "02_second", {"status": "running", "started": "now"})
    assert overview.facts(scores).to_numpy().tolist() == [
        ["01_first", "done", "then", 1.5, 1.2, 2],
        ["02_second", "running", "now", 0.0, 0.0, 0],
    ]
