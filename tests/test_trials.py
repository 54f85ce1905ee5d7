from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from helpers import tiny, toy_cube, written_study
from sklearn.metrics import roc_auc_score

from mpm import (
    datacube,
    fingerprints,
    mae,
    mapping,
    memory,
    stress,
    trial_folds,
    trial_work,
    trials,
)
from mpm.as_released import protocol_fold
from mpm.folds import labels, make_fold
from mpm.labels import sample_cells
from mpm.mapping import PREDICTION_COLUMNS
from mpm.metrics import best_threshold
from mpm.splits import SplitSettings

SETTINGS = SplitSettings(folds=3, block_km=10, dead_cells=4)
FITTED = []


def layer_value(name, task):
    "A stand-in for `methods.fit`: the named layer is the likelihood"
    FITTED.append((task.fold.split, task.fold.number, name))
    if name == "broken":
        raise ValueError("no such layer")
    column = task.layers.index(name.rpartition(":")[2])

    def scorer(windows, index):
        return windows.centres(index)[:, column]

    scorer.chosen = {"cells": np.int64(len(task.fold.train)), "layer": name}
    return scorer


@pytest.fixture
def study(tmp_path, monkeypatch):
    FITTED.clear()
    return written_study(tmp_path, monkeypatch)


def run(study, wanted, *, seed=7, processes=1, settings=SETTINGS, fit=layer_value):
    options = {"split_settings": settings, "preset": "demo", "seed": seed}
    return trials.run(study, "MVT", wanted, processes=processes, fit=fit, **options)


def test_test_cells_get_the_likelihood_of_the_method(study):
    "Every test cell once, with the scaled value of its layer and the threshold of validation cells"
    rows = run(study, [("blocks", 1, "gravity"), ("random", 0, "magnetics")])
    assert rows.columns.tolist() == PREDICTION_COLUMNS
    assert rows["method"].drop_duplicates().tolist() == ["gravity", "magnetics"]
    cubes = datacube.read_cubes(study)
    fold = make_fold(cubes, "blocks", 1, SETTINGS, 9, targets=["MVT"])
    own = rows[rows["split"] == "blocks"]
    assert own["fold"].unique().tolist() == ["1"]
    assert own["row"].tolist() == fold.windows.row[fold.test].tolist()
    assert own["col"].tolist() == fold.windows.col[fold.test].tolist()
    value, label = fold.windows.centres()[:, 1], fold.windows.take([cubes["one"]["MVT"].values])
    assert own["likelihood"].tolist() == value[fold.test].tolist()
    assert own["positive"].tolist() == label[fold.test].tolist()
    expected = best_threshold(label[fold.validation], value[fold.validation])
    assert own["threshold"].unique().tolist() == [np.float32(expected)]
    kept = {name: str(rows[name].dtype) for name in (*mapping.SMALL, "likelihood")}
    assert kept == mapping.SMALL | {"likelihood": "float32"}


def test_processes_change_no_byte(study, tmp_path):
    "Two processes write the files that one writes, and the table has the order asked for"
    # random: processes do not know the smaller windows of these tests, nor their dead zone
    wanted = [("random", k, name) for k in (2, 0, 1) for name in ("gravity", "magnetics")]
    alone = run(study, wanted)
    files = sorted((tmp_path / "MVT" / "trials").rglob("*.parquet"))
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    FITTED.clear()
    together = run(study, wanted, processes=2)
    assert FITTED == []  # elsewhere
    assert together.equals(alone) and together["fold"].unique().tolist() == ["2", "0", "1"]
    assert [path.read_bytes() for path in files] == before and len(files) == 6


def test_where_memory_is_limited_one_process_does_the_work(study, monkeypatch):
    "As in the 2 GB of Binder, whatever is asked for"
    monkeypatch.setattr(memory, "limit", lambda: 2_000_000_000)
    run(study, [("blocks", k, "gravity") for k in range(3)], processes=2)
    assert len(FITTED) == 3  # here, not elsewhere


def test_what_is_there_is_not_made_again(study):
    "Only what a change reaches is fitted anew: method, seed, cells, evidence, labels"
    wanted = [("blocks", 0, "gravity"), ("random", 0, "gravity")]
    first = run(study, wanted)
    assert len(FITTED) == 2
    assert run(study, wanted).equals(first) and len(FITTED) == 2
    run(study, [*wanted, ("blocks", 0, "magnetics")])
    assert FITTED[2:] == [("blocks", 0, "magnetics")]
    run(study, wanted, seed=8)
    assert len(FITTED) == 5
    FITTED.clear()
    run(study, wanted, settings=replace(SETTINGS, block_km=12))  # random cells are the same
    assert FITTED == [("blocks", 0, "gravity")]
    for name in ("evidence", "MVT_deposit"):
        FITTED.clear()
        cube = toy_cube(1)
        cube[name].values[..., 5, 5] += 1
        datacube.write(cube, datacube.path(study, "one"))
        run(study, wanted)
        assert len(FITTED) == 2, name


def test_another_scorer_is_another_result(study):
    "What one function made is not taken for that of another"
    run(study, [("blocks", 0, "gravity")])

    def other(name, task):
        return lambda windows, index: np.full(len(index), 0.25)

    assert (run(study, [("blocks", 0, "gravity")], fit=other)["likelihood"] == 0.25).all()


def test_a_failing_method_is_named_and_what_was_made_is_kept(study):
    "Fold, split, method and reason; methods before it are not fitted again"
    wanted = [("blocks", 1, "gravity"), ("blocks", 1, "broken")]
    with pytest.raises(
        RuntimeError, match="broken failed on fold 1 of split blocks: ValueError: no"
    ):
        run(study, wanted)
    FITTED.clear()
    with pytest.raises(RuntimeError, match="broken failed"):
        run(study, wanted)
    assert FITTED[-1] == ("blocks", 1, "broken") and ("blocks", 1, "gravity") not in FITTED


def test_a_line_is_printed_for_each_fold(study, capsys):
    "Split, fold and methods; the fold with most to do comes first"
    run(study, [("blocks", 0, "gravity"), ("blocks", 2, "gravity"), ("blocks", 2, "magnetics")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0].strip() for line in lines] == [
        "blocks 2: gravity, magnetics",
        "blocks 0: gravity",
    ]
    run(study, [("blocks", 2, "gravity")])
    assert capsys.readouterr().out == ""


def test_choices_are_kept_with_the_predictions(study):
    "One row a choice of a method and fold"
    wanted = [("blocks", 0, "gravity"), ("blocks", 1, "magnetics")]
    run(study, wanted)
    table = trials.choices(study, "MVT", wanted, seed=7)
    assert table.loc[table["choice"] == "layer", "value"].tolist() == ["gravity", "magnetics"]
    cells = len(
        make_fold(datacube.read_cubes(study), "blocks", 0, SETTINGS, 9, targets=["MVT"]).train
    )
    assert table.iloc[0].tolist() == ["blocks", "0", "gravity", "cells", str(cells)]
    assert trials.choices(study, "MVT", wanted, seed=8).empty


def test_training_cells_are_scored_of_tables_only(study, monkeypatch):
    "The AUC on them, of each fold and on average; another method has none"
    monkeypatch.setattr(trials, "TABULAR", frozenset({"gravity"}))
    wanted = [("blocks", fold, name) for fold in (0, 1) for name in ("gravity", "magnetics")]
    run(study, wanted)
    table = trials.train_aucs(study, "MVT", wanted, seed=7)
    assert table["fold"].tolist() == ["0", "1", "mean"] and set(table["method"]) == {"gravity"}
    cubes = datacube.read_cubes(study)
    fold = make_fold(cubes, "blocks", 0, SETTINGS, 9, targets=["MVT"])
    positive, _ = labels(cubes, fold.windows, "MVT")
    own = sample_cells(fold.train, positive, trials.TRAINED_CELLS, seed=7)[0]
    expected = roc_auc_score(positive[own], fold.windows.centres(own)[:, 1])
    assert table["value"].iloc[0] == pytest.approx(expected)
    assert table["value"].iloc[2] == pytest.approx(table["value"].iloc[:2].mean())
    assert trials.train_aucs(study, "MVT", wanted, seed=8).empty


def test_several_works_share_a_pool_and_networks_come_first(study, capsys, monkeypatch):
    "A fold's networks are a job of their own, before all tables; one line for all works"
    monkeypatch.setattr(trial_work, "NETWORKS", frozenset({"magnetics"}))
    bench = trial_folds.Bench(study, "MVT", SETTINGS, "demo", 7, fit=layer_value)
    works = [
        trial_work.Work(bench, [("blocks", 0, "gravity")], trials.predictions, "one"),
        trial_work.Work(
            bench,
            [("blocks", 1, "gravity"), ("blocks", 1, "magnetics")],
            trials.predictions,
            "two",
        ),
    ]
    one, two = trial_work.make_all(works, 1, "both")
    assert [(split, number) for split, number, _ in FITTED] == [("blocks", k) for k in (1, 0, 1)]
    assert FITTED[0][2] == "magnetics"
    assert list(one) == works[0].wanted and list(two) == works[1].wanted
    assert two["blocks", 1, "magnetics"]["method"].unique().tolist() == ["magnetics"]


def save_backbone(study, fold):
    "Under the name of block fold 0"
    model, folder = mae.build(tiny(), seed=1), mae.backbone_path(study, "blocks", 0)
    mae.save(model, folder, layers=["magnetics", "gravity"], scaling=fold.scaling, facts={})
    return model


def test_methods_on_a_backbone_get_that_of_their_fold(study, monkeypatch):
    "Also under shuffled labels; a backbone pretrained on other cells is refused"
    monkeypatch.setattr(trial_folds, "NEEDS_BACKBONE", frozenset({"gravity"}))
    given = {}

    def fit(name, task):
        given[name] = task.backbone
        return layer_value(name, task)

    cubes = datacube.read_cubes(study)
    folds = [make_fold(cubes, "blocks", k, SETTINGS, 9, targets=["MVT"]) for k in (0, 1)]
    wanted = [("blocks", 0, name) for name in ("gravity", "shuffled:gravity", "magnetics")]
    with pytest.raises(FileNotFoundError, match="02_mae_pretraining"):
        run(study, wanted, fit=fit)
    model = save_backbone(study, folds[0])
    run(study, wanted, fit=fit)
    assert given["magnetics"] is None
    for name in ("gravity", "shuffled:gravity"):
        assert str(given[name].state_dict()) == str(model.state_dict())
    # the same numbers, as yes/no planes have in every fold, say nothing of the cells
    save_backbone(study, replace(folds[0], scaling=replace(folds[0].scaling, seen=("other",))))
    with pytest.raises(ValueError, match="blocks_0 was pretrained on other windows or cells"):
        run(study, wanted, fit=fit)
    save_backbone(study, folds[1])
    with pytest.raises(ValueError, match="blocks_0 was pretrained on other windows or cells"):
        run(study, wanted, fit=fit)


def test_all_code_that_decides_a_result_is_hashed(study, monkeypatch):
    "That of the runner, of the work, of the scorer and of what divides the cells"
    asked = []
    monkeypatch.setattr(fingerprints, "code_hash", lambda *modules: asked.extend(modules) or "")
    settings = trial_folds.Bench(
        study, "MVT", SETTINGS, "demo", 7, fit=layer_value, build=protocol_fold
    )
    work, wanted = partial(stress.scarcity, plan=stress.Plan()), [("as_released", 0, "gravity")]
    with pytest.raises(ValueError, match="positive cells of"):  # the map is too small
        trial_work.make(settings, wanted, work, name="any", processes=1)
    assert asked == ["trial_work", "stress", "test_trials", "as_released"]
