"""What is said of real studies: kept as it was, with what it was made of."""

import pandas as pd
import pytest
from toy_notebooks import home  # noqa: F401  (a fixture)

from mpm import artefacts, record, study_explanations
from mpm.study import load


@pytest.fixture
def ran(home):  # noqa: F811
    "The study tiny after notebook 06"
    setup = load("tiny")
    importances = {"network": pd.Series({"noise": 1.0, "faults": 3.0})}
    importances["trees"] = pd.Series({"noise": 1.0, "faults": 1.0})
    kinds = pd.DataFrame({"cells": [12], "leading layers": ["faults +0.50"]}, index=[1])
    misses = pd.DataFrame({"name": ["Sherman"], "held_out": [0.912345]})
    places = {"latitude": [37.0, 38.1], "longitude": [-91.0, -90.5], "known": [2, 0]}
    targets = pd.DataFrame({"rank": [1, 2], "leading": ["faults", ""]} | places)
    system = pd.DataFrame({"pathway": [0.5]}, index=[1])
    study_explanations.write(
        setup, "MVT", importances, kinds, misses, targets, system, page_bytes=3_100_000
    )
    made = record.begin(setup, ["06_explanation"], 7)
    made.keep(
        setup, "06_explanation", {"status": "done", "parameters": {"kinds": 1}, "wall_s": 2.5}
    )
    return home


def test_a_run_is_kept_with_what_it_was_made_of(ran):
    "Shares of importance, the largest first; names and counts as they are; the size of the page"
    place = study_explanations.keep("tiny", "MVT")
    assert place == study_explanations.folder() / "tiny_MVT.csv"
    assert pd.read_csv(place, dtype=str, keep_default_na=False).to_numpy().tolist() == [
        ["importance", "faults", "network", "0.75"],
        ["importance", "faults", "trees", "0.5"],
        ["importance", "noise", "network", "0.25"],
        ["importance", "noise", "trees", "0.5"],
        ["kinds", "1", "cells", "12"],
        ["kinds", "1", "leading layers", "faults +0.50"],
        ["mineral system", "1", "pathway", "0.5"],
        ["misses", "0", "name", "Sherman"],
        ["misses", "0", "held_out", "0.9123"],
        ["targets", "0", "rank", "1"],
        ["targets", "0", "leading", "faults"],
        ["targets", "0", "latitude", "37"],
        ["targets", "0", "longitude", "-91"],
        ["targets", "0", "known", "2"],
        ["targets", "1", "rank", "2"],
        ["targets", "1", "leading", ""],
        ["targets", "1", "latitude", "38.1"],
        ["targets", "1", "longitude", "-90.5"],
        ["targets", "1", "known", "0"],
        ["web map", "web_map.html", "MB", "3.1"],
    ]
    facts = artefacts.read_json(place.with_suffix(".json"))
    assert facts["inputs"] == artefacts.read_json(record.path(load("tiny")))["inputs"]
    assert facts["notebooks"]["06_explanation"]["parameters"] == {"kinds": 1}


def test_all_that_is_kept_is_laid_side_by_side(ran):
    "What leads, a column a study and target; targets that hold a known deposit are not new"
    assert study_explanations.summary().empty
    study_explanations.keep("tiny", "MVT")
    assert study_explanations.summary(count=1).to_dict() == {
        "tiny_MVT": {
            "network": "faults 75%",
            "trees": "faults 50%",
            "kind 1": "faults +0.50",
            study_explanations.MISSED: "Sherman (91%)",
            study_explanations.NEW: "38.1, -90.5",
            "web map (MB)": "3.1",
        }
    }


def test_a_run_that_is_not_there_is_named(ran):
    with pytest.raises(FileNotFoundError, match="06_explanation"):
        study_explanations.keep("tiny", "CD")
