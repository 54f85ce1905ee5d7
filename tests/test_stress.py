from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import written_study
from sklearn.metrics import roc_auc_score

from mpm import artefacts, datacube, kept_networks, mae, mapping, stress, stress_table, trials
from mpm.classifier import Classifier, Fitted, classifier_path, save_classifier
from mpm.folds import labels, make_fold
from mpm.labels import sample_cells
from mpm.methods import Task
from mpm.network_methods import scorer_of
from mpm.splits import SplitSettings
from mpm.stress import Plan

SETTINGS = SplitSettings(folds=3, block_km=10, dead_cells=4)
PLAN = Plan(shares=(0.5, 1.0), noise=(1.0,), draws=2, most=300, bootstrap=20)
FITTED = []


def gravity(name, task):
    "A stand-in for `methods.fit`: gravity is the likelihood, 0 where it is missing"
    FITTED.append(name)
    return lambda windows, index: np.nan_to_num(windows.centres(index)[:, 1])


def enough(name, task):
    "Knows all deposits if it was given all in training, else ranks them last"
    train = task.fold.train
    labels_ = labels(task.cubes, task.fold.windows, "MVT")[0]
    right = task.positive[train].sum() == labels_[train].sum()
    return lambda windows, index: np.where(labels_[index], 1.0 if right else -1.0, 0.0)


@pytest.fixture
def study(tmp_path, monkeypatch):
    FITTED.clear()
    return written_study(tmp_path, monkeypatch)


def run(study, kind, fit, wanted=(("blocks", 0, "a"), ("blocks", 1, "a"))):
    options = {"split_settings": SETTINGS, "preset": "demo", "seed": 7, "plan": PLAN}
    return stress.run(study, "MVT", wanted, kinds=[kind], processes=1, fit=fit, **options)


def row(table, **values):
    "The only row with these values"
    [found] = table[
        np.logical_and.reduce([table[key] == of for key, of in values.items()])
    ].itertuples()
    return found


def test_scores_fall_where_fewer_deposits_are_known(study):
    "All known: AUC 1; half of them: AUC 0, in each fold and on average"
    table = run(study, "scarcity", enough)
    assert table.columns.tolist() == stress.COLUMNS
    for fold in ("0", "1", "mean"):
        for level, value in {0.5: 0.0, 1.0: 1.0}.items():
            found = row(table, fold=fold, level=level, metric="auc")
            assert (found.value, found.low, found.high) == (value, value, value)
    assert table["stress"].unique().tolist() == ["scarcity"] and set(table["seed"]) == {7}
    assert len(table) == 3 * 2 * 3  # folds and their mean, levels, metrics


def test_lost_evidence_is_scored_as_a_change(study):
    "Without its only layer a method ranks by chance; another layer costs it nothing"
    table = run(study, "evidence", gravity, [("blocks", 0, "a")])
    fold = make_fold(datacube.read_cubes(study), "blocks", 0, SETTINGS, 9, targets=["MVT"])
    positive, _ = labels(datacube.read_cubes(study), fold.windows, "MVT")
    index, _ = sample_cells(fold.test, positive, 300, seed=7)
    expected = roc_auc_score(positive[index], fold.windows.centres(index)[:, 1])
    whole = row(table, fold="mean", stress="whole", metric="auc")
    assert whole.value == pytest.approx(expected, abs=1e-6) and whole.low < expected < whole.high
    for kind, lost, kept in [("layer", "gravity", "magnetics"), ("group", "b", "a")]:
        found = row(table, fold="mean", stress=kind, name=lost, metric="auc_change")
        assert found.value == pytest.approx(0.5 - expected, abs=1e-6)
        assert found.low == pytest.approx(0.5 - whole.high, abs=1e-6)  # paired with the whole
        found = row(table, fold="mean", stress=kind, name=kept, metric="auc_change")
        assert (found.value, found.low, found.high) == (0, 0, 0)
    kinds = table.loc[table["fold"] == "mean", "stress"].drop_duplicates().tolist()
    assert kinds == ["whole", "layer", "group", "half", "noise", "shift"]


def test_what_was_scored_is_not_scored_again(study):
    "Another plan is"
    first = run(study, "evidence", gravity)
    assert len(FITTED) == 2
    assert run(study, "evidence", gravity).equals(first) and len(FITTED) == 2
    options = {"split_settings": SETTINGS, "preset": "demo", "seed": 7, "plan": Plan(bootstrap=5)}
    wanted, only = [("blocks", 0, "a")], {"kinds": ["evidence"], "processes": 1, "fit": gravity}
    stress.run(study, "MVT", wanted, **only, **options)
    assert len(FITTED) == 3


def test_random_draws_are_averaged_with_the_spread_of_one():
    "Value: mean of 1 and 3; bootstrap: 10 of the first, 40 of the second, 30 of the first"
    drawn = [{"auc": np.array([1.0, 10, 20, 30])}, {"auc": np.array([3.0, 30, 40, 50])}]
    assert stress_table.mixed(drawn)["auc"].tolist() == [2, 10, 40, 30]


def bench():
    return SimpleNamespace(study=SimpleNamespace(name="toy"), target="MVT", seed=7)


def records(deposits=2, **draws):
    "One fold each"
    shared = {"stress": "scarcity", "level": 1.0, "name": "", "metric": "auc_change"}
    shared |= {"deposits": deposits}
    return [
        (("blocks", fold, "mae"), pd.DataFrame([shared | {"draws": list(map(float, of))}]))
        for fold, of in draws.items()
    ]


def test_folds_are_averaged_draw_by_draw():
    "Mean of .1 and .3; draws 0 and .2 with .4 and .2: .2 and .2; a fold of one class is left out"
    nan = float("nan")
    made = records(a=[0.1, 0, 0.2], b=[0.3, 0.4, 0.2], c=[nan, nan, nan])
    table = stress_table.tidy(bench(), made)
    assert table["fold"].tolist() == ["a", "b", "c", "mean"]
    mean = table.iloc[3]
    assert mean[["value", "low", "high"]].tolist() == pytest.approx([0.2, 0.2, 0.2])
    # two deposits, one degree of freedom: percentiles 0.095 from the mean, widened by t to z
    away = 0.095 * 12.7062 / 1.95996
    ends = [0.1 - away, 0.1 + away]
    assert table.iloc[0][["low", "high"]].tolist() == pytest.approx(ends, rel=1e-4)
    assert stress_table.tidy(bench(), records(deposits=31, a=[0.1, 0, 0.2]))["high"].max() < 0.2
    single = stress_table.tidy(bench(), records(a=[0.1, 0, 0.2], b=[0.3, nan, nan]))
    assert single["value"].iloc[-1] == 0.2 and single[["low", "high"]].iloc[-1].isna().all()


def test_blocks_are_scored_from_single_cells_to_the_largest(study):
    "Blocks below two cells or above the map are left out; the other notebooks' design is named"
    table = stress.block_sides(
        study,
        "MVT",
        ["a"],
        split_settings=SETTINGS,
        preset="demo",
        seed=7,
        sides=(0, 1, 5, 20, 1000),
        plan=PLAN,
        processes=1,
        fit=gravity,
    )
    mean = table[(table["fold"] == "mean") & (table["metric"] == "auc")]
    assert list(zip(mean["split"], mean["level"], mean["name"], strict=True)) == [
        ("random", 0, ""),
        ("blocks", 5, ""),
        ("blocks", 20, ""),
        ("blocks", 10, "dead zone"),
    ]
    assert table["fold"].nunique() == 4 and (table["stress"] == "block_side").all()
    # gravity is not fitted, so that the mean over folds hardly knows how cells were divided
    assert np.ptp(mean["value"]) < 0.15


def test_rows_are_kept_in_place_of_older_ones(study):
    "The same study, target, split, seed, method and stress; others stay"
    first = run(study, "scarcity", enough)
    stress.keep(study, first)
    other = first.assign(method="b")
    stress.keep(study, other)
    fewer = first[first["metric"] == "auc"].assign(value=0.25)
    stress.keep(study, fewer)
    table = stress.read(study)
    assert len(table) == len(other) + len(fewer)
    assert (table.loc[table["method"] == "a", "value"] == 0.25).all()


def test_a_missing_table_says_what_to_run(study):
    with pytest.raises(FileNotFoundError, match="05_evaluation"):
        stress.read(study)


def test_fits_on_all_deposits_and_the_design_behind_a_dead_zone_are_those_of_the_trials(study):
    "What notebook 04 has predicted is scored, not fitted again"
    options = {"split_settings": SETTINGS, "preset": "demo", "seed": 7}
    wanted = [("blocks", fold, "a") for fold in range(3)]
    trials.run(study, "MVT", wanted, processes=1, fit=gravity, **options)
    assert len(FITTED) == 3
    only = {"plan": Plan(shares=(1.0,), bootstrap=20), "processes": 1, "fit": gravity} | options
    scarce = stress.run(study, "MVT", wanted, kinds=["scarcity"], **only)
    sized = stress.block_sides(study, "MVT", ["a"], sides=(), **only)
    # shares below 1 are none, so that nothing is fitted at all
    assert len(FITTED) == 3
    own = {"fold": "mean", "metric": "auc"}
    assert row(scarce, level=1.0, **own).value == row(sized, name="dead zone", **own).value


def test_the_network_of_notebook_03_is_put_under_stress_and_not_trained_again(study, monkeypatch):
    "If it gives its kept predictions again; another network under its name does not"
    cubes = datacube.read_cubes(study)
    fold = make_fold(cubes, "blocks", 0, SETTINGS, 9, targets=["MVT"])
    positive, deposit = labels(cubes, fold.windows, "MVT")
    config = mae.MAEConfig(fold.windows.layers, 9, 3, 16, 1, 2)
    torch.manual_seed(0)
    model = Classifier(mae.Encoder(config)).eval()
    task = Task(fold, positive, deposit, (), cubes, seed=7)
    said = scorer_of(model, 7, "cpu")(fold.windows, fold.test)
    cells = {"positive": positive, "deposit": deposit, "likelihood": said, "threshold": 0.5}
    rows = mapping.table(fold, fold.test, "mae", **cells)
    artefacts.write_table(rows, mapping.predictions_path(study, "MVT", "mae"))
    history = pd.DataFrame({"step": [1]})
    facts = {"target": "MVT", "split": "blocks", "fold": 0, "seed": 7, "preset": "demo"}
    folder = classifier_path(study, "MVT", "blocks", 0)
    save_classifier(Fitted(model, 0.5, history), folder, facts=facts)
    found = kept_networks.scorer(study, "MVT", task)
    np.testing.assert_allclose(found(fold.windows, fold.test), said, atol=1e-6)
    assert kept_networks.scorer(study, "MVT", replace(task, seed=8)) is None
    other = replace(fold, test=fold.validation)
    assert kept_networks.scorer(study, "MVT", replace(task, fold=other)) is None
    torch.manual_seed(1)
    another = Classifier(mae.Encoder(config)).eval()
    save_classifier(Fitted(another, 0.5, history), folder, facts=facts)
    assert kept_networks.scorer(study, "MVT", task) is None
