import numpy as np
import pandas as pd
import pytest
from helpers import written_study
from sklearn.metrics import roc_auc_score

from mpm import as_released, datacube, fetch, methods, trial_folds, trials
from mpm import labels as labels_
from mpm.as_released import PER_POSITIVE, RULE, STEPS, protocol_fold
from mpm.folds import labels
from mpm.labels import summed_distance
from mpm.scaling import fit_scaling
from mpm.splits import SplitSettings
from mpm.study import load

SETTINGS = SplitSettings(folds=3, block_km=10, dead_cells=4)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(as_released, "WINDOW", 21)  # of 60 x 60 cells, 40 x 40 are left
    return written_study(tmp_path, monkeypatch)


def made(study, step, number=0):
    "A fold of a step, its positive cells, and its cubes"
    bench = trial_folds.Bench(study, "MVT", SETTINGS, "demo", 7, build=protocol_fold)
    cubes = datacube.read_cubes(study)
    fold = protocol_fold(bench, cubes, step, number)
    return fold, labels(cubes, fold.windows, "MVT")[0], cubes


def parts(fold, positive):
    "Numbers of positive and other cells in train, validation and test"
    every = (fold.train, fold.validation, fold.test)
    return [(int(positive[part].sum()), int((~positive[part]).sum())) for part in every]


def test_each_step_repairs_one_fault_more():
    "Nothing is repaired in the first, all in the last"
    flags = [tuple(vars(step).values())[1:] for step in STEPS.values()]
    assert flags[0] == (True, False, False, False, False)
    assert flags[-1] == (False, True, True, True, True)
    for one, other in zip(flags, flags[1:], strict=False):
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 1


def test_as_released_negatives_are_picked_by_test_deposits(study):
    "16 deposits lie inside; 20 a positive from the quarter least like all of them; parted 50/25/25"
    fold, positive, cubes = made(study, "as_released")
    assert parts(fold, positive) == [(8, 160), (4, 80), (4, 80)]
    every = np.concatenate([fold.train, fold.validation, fold.test])
    rows, cols = fold.windows.row, fold.windows.col
    inside = (np.abs(rows - 29.5) < 20) & (np.abs(cols - 29.5) < 20)
    assert inside[every].all() and len(set(every.tolist())) == len(every)
    known, others = np.flatnonzero(positive & inside), np.flatnonzero(~positive & inside)
    total = summed_distance(fold.windows.centres, known, others)
    least = others[total >= np.quantile(total, 0.75)]
    assert set(every[~positive[every]].tolist()) <= set(least.tolist())
    assert fold.scaling == fit_scaling([cubes["one"]], [cubes["one"]["valid"].values])
    again, _, _ = made(study, "as_released")
    other, _, _ = made(study, "as_released", 1)
    assert again.test.tolist() == fold.test.tolist() != other.test.tolist()


def test_repaired_negatives_know_training_deposits_only(study):
    "Each part is picked from by its distance to the training deposits"
    fold, positive, _ = made(study, "released_after_split")
    assert parts(fold, positive) == [(8, 160), (4, 80), (4, 80)]
    full, _, _ = made(study, "released_all_cells")  # the same division, before picking
    known = fold.train[positive[fold.train]]
    others = full.test[~positive[full.test]]
    total = summed_distance(fold.windows.centres, known, others)
    least = others[total >= np.quantile(total, 0.75)]
    assert set(fold.test[~positive[fold.test]].tolist()) <= set(least.tolist())


def test_later_steps_test_on_all_cells(study):
    "A quarter of the 1600 cells inside, then of all 3600; scaled on the training cells"
    fold, positive, _ = made(study, "released_all_cells")
    assert parts(fold, positive) == [(8, 160), (4, 396), (4, 396)]
    scaled, _, cubes = made(study, "released_train_scaling")
    assert parts(scaled, positive) == parts(fold, positive) and scaled.scaling != fold.scaling
    whole, _, _ = made(study, "released_whole_map")
    assert parts(whole, positive) == [(18, 360), (9, 891), (9, 891)]


def test_scaling_of_random_cells_is_fitted_on_the_training_half(study):
    "Also on unlabeled cells that were not picked; values of tested cells change nothing"
    fold, _, cubes = made(study, "released_whole_map")
    changed = cubes["one"].copy(deep=True)
    row, col = fold.windows.row[fold.test], fold.windows.col[fold.test]
    changed["evidence"].values[:, row, col] += 100
    datacube.write(changed, datacube.path(study, "one"))
    again, _, _ = made(study, "released_whole_map")
    assert again.scaling == fold.scaling and made(study, "as_released")[0].scaling != fold.scaling


def test_the_last_step_holds_out_blocks(study):
    "Test and validation cells are those of the block split, behind its dead zone"
    fold, positive, cubes = made(study, "released_blocks", 1)
    plain = as_released.make_fold(cubes, "blocks", 1, SETTINGS, 9, targets=["MVT"])
    assert fold.test.tolist() == plain.test.tolist() and (fold.split, fold.number) == (
        "released_blocks",
        1,
    )
    known = plain.train[positive[plain.train]]
    others = plain.train[~positive[plain.train]]
    total = summed_distance(plain.windows.centres, known, others)
    least = others[total >= np.quantile(total, 0.75)]  # fewer than 20 a positive
    assert len(least) < PER_POSITIVE * len(known)
    assert fold.train.tolist() == sorted([*known.tolist(), *least.tolist()])


def test_the_rule_scores_by_minus_the_summed_distance(study):
    "To training positives, whichever cells are asked for"
    fold, positive, cubes = made(study, "as_released")
    task = methods.Task(fold, positive, positive - 1, ("magnetics", "gravity"), cubes, 7)
    known = fold.windows.centres(fold.train[positive[fold.train]])
    cell = fold.windows.centres(fold.test[:1])
    expected = -np.linalg.norm(known - cell, axis=1).sum()
    assert as_released.fit(RULE, task)(fold.windows, fold.test)[0] == pytest.approx(expected, 1e-5)


def test_the_ladder_is_predicted_and_scored(study):
    "Each step, repeat and method; numbers of tested cells are told"
    options = {"split_settings": SETTINGS, "preset": "demo", "seed": 7, "processes": 1}
    rows = as_released.ladder(study, "MVT", names=[RULE], repeats=2, **options)
    runs = rows.groupby("split", sort=False)["fold"].nunique()
    assert runs.index.tolist() == list(STEPS) and runs.tolist() == [2] * 5 + [3]
    table = as_released.score(rows, draws=10).set_index(["split", "fold", "metric"])["value"]
    first = rows[(rows["split"] == "as_released") & (rows["fold"] == "0")]
    expected = roc_auc_score(first["positive"], first["likelihood"])
    assert table["as_released", "0", "auc"] == pytest.approx(expected)
    assert table["as_released", "mean", "folds"] == 2
    counts = ["positives", "negatives"]
    assert [table["as_released", "mean", name] for name in counts] == [4, 80]
    assert [table["released_whole_map", "mean", name] for name in counts] == [9, 891]


def test_too_few_deposits_are_refused(study, monkeypatch):
    "The message names target and step"
    monkeypatch.setattr(as_released, "WINDOW", 45)
    with pytest.raises(ValueError, match="4 positive cells of 'MVT' for 'as_released'"):
        made(study, "as_released")
    cubes = list(datacube.read_cubes(study).values())
    assert "4 positive cells of MVT have a whole" in as_released.obstacle(cubes, "MVT")
    monkeypatch.setattr(as_released, "FEWEST", 4)
    assert as_released.obstacle(cubes, "MVT") == ""


def test_the_rule_alone_scores_one_on_the_authors_tile(mirror, tmp_path, monkeypatch):
    "Nothing is learnt, and the test AUC of the released protocol is 1.000 in most random splits"
    nickel = load("magmatic_nickel_mini")
    monkeypatch.setenv("MPM_PROCESSED", str(tmp_path))
    fetch.fetch(nickel, progress=False)
    [region] = nickel.regions
    cube, _ = labels_.add_labels(datacube.build(nickel, region), nickel)
    datacube.write(cube, datacube.path(nickel, region))
    bench = trial_folds.Bench(
        nickel, "nickel", SETTINGS, "demo", 7, fit=as_released.fit, build=protocol_fold
    )
    tables = []
    for number in range(5):
        for name, task in trial_folds.tasks(bench, "as_released", number, [RULE]):
            tables.append(trials.predictions(bench, name, task))
    rows = pd.concat(tables)
    auc = as_released.score(rows, draws=10).query("metric == 'auc'").set_index("fold")["value"]
    assert rows.groupby("fold")["positive"].agg(["sum", "size"]).iloc[0].tolist() == [8, 173]
    assert auc["0"] == 1 and (auc.drop("mean") == 1).sum() >= 3 and auc["mean"] > 0.99
