import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import xarray as xr
from helpers import tiny
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from mpm import baselines, convnet, fine_tuning, lawley_facts, mae, methods
from mpm.folds import make_fold
from mpm.splits import SplitSettings
from mpm.study import load
from mpm.windows import make_windows

LAYERS = ("gravity", "magnetics", "rock=shale", "rock=granite")
NAMES = methods.applicable(LAYERS, backbone=True)
RULES = SplitSettings(folds=4, block_km=20, dead_cells=5, seed=7)
QUICK = {"steps": 80, "every": 20, "batch": 32, "rate": 1e-2, "backbone_rate": 2e-3}


def region(seed: int) -> xr.Dataset:
    """60 x 60 cells of 1 km: deposits lie where gravity is high, rocks and magnetics say little."""
    rng = np.random.default_rng(seed)
    smooth = [gaussian_filter(rng.normal(size=(60, 60)), 2) for _ in range(3)]
    gravity, magnetics, rock = (plane / plane.std() for plane in smooth)
    evidence = np.array([gravity, magnetics, rock > 0, rock <= 0], "float32")
    evidence[1, 40:50, :30] = np.nan
    positive = (gravity > 1.3) & (rng.random((60, 60)) < 0.5)
    number = np.where(positive, np.arange(3600).reshape(60, 60), -1)
    return xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence),
            "valid": (("y", "x"), np.ones((60, 60), bool)),
            "MVT": (("y", "x"), positive),
            "MVT_deposit": (("y", "x"), number),
        },
        coords={
            "layer": list(LAYERS),
            "kind": ("layer", ["continuous"] * 2 + ["binary"] * 2),
            "y": -1000.0 * np.arange(60),
            "x": 1000.0 * np.arange(60),
        },
        attrs={"region": f"region {seed}"},
    )


@pytest.fixture(scope="module", autouse=True)
def small():
    """Networks of the demo preset become small ones."""
    with pytest.MonkeyPatch.context() as patch:
        size = {name: getattr(tiny(), name) for name in ("window", "width", "depth", "heads")}
        patch.setitem(mae.PRESETS, "demo", size)
        patch.setitem(convnet.FIRST_STAGE, "demo", 4)
        settings = fine_tuning.FINE_TUNE_PRESETS["demo"]
        quick = replace(settings, per_positive=3, dropout=0.2, **QUICK)
        patch.setitem(fine_tuning.FINE_TUNE_PRESETS, "demo", quick)
        yield


@cache
def task() -> methods.Task:
    cubes = {"north": region(1), "south": region(2)}
    # blocks of deposits are kept whole by the number of the deposit, and here each has one cell
    fold = make_fold(cubes, "blocks", 0, RULES, 9, targets=["MVT"])
    positive = fold.windows.take([cube["MVT"].values for cube in cubes.values()])
    backbone = mae.build(tiny(layers=4), 1)
    deposit = np.where(positive, np.arange(len(positive)), -1)
    return methods.Task(fold, positive, deposit, LAYERS, cubes, seed=3, backbone=backbone)


@cache
def scorer(name: str) -> methods.Scorer:
    return methods.fit(name, task())


def changed_test() -> methods.Task:
    """The same task, but for what the test cells hold."""
    own = task()
    tested = np.zeros(len(own.positive), bool)
    tested[own.fold.test] = True
    cubes = {}
    for number, (name, cube) in enumerate(own.cubes.items()):
        plane = own.fold.windows.put(tested, number, fill=False)
        cubes[name] = cube.copy(deep=True)
        cubes[name]["evidence"].values[:, plane] = 1 - cube["evidence"].values[:, plane]
    fold = make_fold(cubes, "blocks", 0, RULES, 9, targets=["MVT"])
    deposit = np.where(tested, 9, own.deposit)
    positive = own.positive ^ tested
    return replace(own, fold=fold, positive=positive, deposit=deposit, cubes=cubes)


def without(windows, layers):
    """Windows in which layers are wholly missing."""
    canvas, seen = windows.canvas.clone(), windows.seen.clone()
    canvas[layers], seen[layers] = 0, False
    return replace(windows, canvas=canvas, seen=seen)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in methods.CONTROLS])
def test_every_method_finds_what_there_is_to_find(name):
    """Deposits lie where gravity is high: on cells never seen the AUC is above 0.8"""
    fold, positive = task().fold, task().positive
    assert roc_auc_score(positive[fold.test], scorer(name)(fold.windows, fold.test)) > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_what_test_cells_hold_changes_nothing(name):
    """Fitted again beside other test cells, a method scores training ground the same to the bit"""
    other, index = changed_test(), task().fold.train
    again = methods.fit(name, other)
    np.testing.assert_array_equal(
        again(other.fold.windows, index), scorer(name)(task().fold.windows, index)
    )
    assert again.chosen == scorer(name).chosen


@pytest.mark.parametrize("name", NAMES)
def test_missing_layers_are_survived(name):
    """Without gravity, without rocks, without anything; in each order of cells the same"""
    index, windows = task().fold.test[:200], task().fold.windows
    for layers in ([0], [2, 3], [0, 1, 2, 3]):
        assert np.isfinite(scorer(name)(without(windows, layers), index)).all()
    if name not in methods.CONTROLS:
        blind = scorer(name)(without(windows, [0]), index)
        assert not np.array_equal(blind, scorer(name)(windows, index))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"distance_to_deposit"}))
def test_what_was_chosen_is_told(name):
    """One of four candidates, or the step at which a network was best"""
    if name in methods.NETWORKS:
        assert scorer(name).chosen["steps"] in (20, 40, 60, 80)
    else:
        assert any(scorer(name).chosen in grid for grid in baselines.CANDIDATES.values())


def test_the_names_are_in_their_groups():
    """The order of the tables, and who needs what"""
    assert list(methods.NAMES)[0] == "weights_of_evidence"
    assert list(methods.NAMES)[-2:] == list(methods.CONTROLS)
    assert {*methods.TABULAR, *methods.NETWORKS, *methods.NEEDS_BACKBONE} == set(methods.NAMES)
    assert len(set(methods.NAMES.values())) == len(methods.NAMES)
    none = methods.applicable(LAYERS, backbone=False)
    assert set(NAMES) - set(none) == methods.NEEDS_BACKBONE


def test_candidates_are_chosen_on_validation_cells():
    """Where high gravity means no deposit in validation, the weakest penalty loses"""
    own = task()
    positive = own.positive.copy()
    gravity = own.fold.windows.centres()[:, 0]
    positive[own.fold.validation] = gravity[own.fold.validation] < -1.3
    assert methods.fit("logistic_regression", own).chosen != {"C": 0.001}
    grid = [settings["C"] for settings in baselines.CANDIDATES["logistic_regression"]]
    values, judged = own.fold.windows.centres(), own.fold.validation
    models = [baselines.make("logistic_regression", 3, LAYERS, C=strength) for strength in grid]
    best = baselines.choose(
        models, values[own.fold.train], positive[own.fold.train], values[judged], positive[judged]
    )
    turned = methods.fit("logistic_regression", replace(own, positive=positive))
    assert turned.chosen == {"C": grid[best]}


def test_only_a_sample_of_unlabeled_cells_is_looked_at(monkeypatch):
    """All positive cells and 100 others teach the candidates, all cells the winner"""
    monkeypatch.setattr(methods, "CANDIDATE_CELLS", 100)
    own, sizes = task(), []
    monkeypatch.setattr(
        baselines, "choose", lambda models, X, y, judged, truth: sizes.append((X, y, truth)) or 2
    )
    found = methods.fit("random_forest", own)
    (X, y, truth), train = sizes[0], own.fold.train
    known, judged = own.positive[train].sum(), own.positive[own.fold.validation].sum()
    assert (len(X), y.sum(), (~y).sum()) == (known + 100, known, 100)
    assert (truth.sum(), (~truth).sum()) == (judged, 100)
    assert found.chosen == baselines.CANDIDATES["random_forest"][2]
    forest = found.model[-1]
    assert forest.estimators_[0].tree_.n_node_samples[0] <= 0.25 * len(train)
    assert forest.min_samples_leaf == 20


# Controls


def test_distance_by_hand():
    """Minus km to the nearest positive training cell; another region is as far as can be"""
    own = task()
    index = own.fold.test[::50]
    known = own.fold.train[own.positive[own.fold.train]]
    windows = own.fold.windows
    known = known[windows.region[known] == 0]
    positive = np.zeros_like(own.positive)
    positive[known] = True
    positive[own.fold.validation[:3]] = True  # they may not be looked at
    found = methods.fit("distance_to_deposit", replace(own, positive=positive))(windows, index)
    for score, k in zip(found, index, strict=True):
        away = np.hypot(windows.row[known] - windows.row[k], windows.col[known] - windows.col[k])
        expected = away.min() if windows.region[k] == 0 else methods.ANOTHER_REGION_KM
        assert score == pytest.approx(-expected)


def test_shuffled_labels_are_gradient_boosting_on_them():
    """The same as with the prefix, and not the same as on the true labels"""
    windows, index = task().fold.windows, task().fold.test
    control = scorer("shuffled_labels")(windows, index)
    np.testing.assert_array_equal(control, scorer("shuffled:gradient_boosting")(windows, index))
    assert not np.array_equal(control, scorer("gradient_boosting")(windows, index))


def test_shuffled_labels_teach_nothing():
    """The mean AUC of twelve shufflings is near one half"""
    own = task()
    windows, index, truth = own.fold.windows, own.fold.test, own.positive[own.fold.test]
    found = [
        methods.fit("shuffled:logistic_regression", replace(own, seed=seed))(windows, index)
        for seed in range(12)
    ]
    assert np.mean([roc_auc_score(truth, score) for score in found]) == pytest.approx(0.5, abs=0.15)


# Sets of layers


def lawley_layers() -> list[str]:
    """The planes of the study: classes as two planes each."""
    names = []
    for layer in load("lawley2022").layers:
        classes = layer.kind == "categorical"
        names += [f"{layer.name}={k}" for k in "ab"] if classes else [layer.name]
    return names


def test_the_published_sets_need_their_layers():
    """Twelve geophysical layers are the baseline; the updated set lacks the minor lithology"""
    layers = lawley_layers()
    sets = methods.lawley_planes(layers)
    baseline = {layers[k] for k in sets["weights_of_evidence_baseline"]}
    assert len(baseline) == len(lawley_facts.features("baseline")) == 12
    assert {"lab_depth", "bouguer_gravity"} < baseline
    updated = {layers[k].split("=")[0] for k in sets["weights_of_evidence_updated"]}
    assert len(updated) == len(lawley_facts.features("updated")) == 23
    assert {"lithology", "paleolatitude"} < updated and "lithology_minor" not in updated
    assert set(methods.applicable(layers, backbone=True)) == set(methods.NAMES)
    fewer = methods.applicable([name for name in layers if name != "fault_distance"], backbone=True)
    assert "weights_of_evidence_baseline" in fewer and "weights_of_evidence_updated" not in fewer
    assert methods.lawley_planes(LAYERS) == {}


def test_a_set_is_fitted_on_its_layers_alone():
    """Signal in a layer that is not of the set is not seen; weights are those of the set"""
    rng = np.random.default_rng(0)
    layers = lawley_layers()
    inside = methods.lawley_planes(layers)["weights_of_evidence_baseline"]
    evidence = rng.normal(size=(len(layers), 30, 30)).astype("float32")
    positive = evidence[inside[3]] > 1.2
    evidence[layers.index("fault_distance")] = positive
    cube = xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence),
            "valid": (("y", "x"), np.ones((30, 30), bool)),
        },
        coords={"layer": layers},
    )
    parts = np.array_split(np.arange(900), 3)
    windows = make_windows([cube], 3)
    fold = replace(task().fold, windows=windows, train=parts[0], validation=parts[1], test=parts[2])
    own = replace(task(), fold=fold, positive=positive.ravel(), layers=tuple(layers), backbone=None)
    model = methods.fit("weights_of_evidence_baseline", own).model
    assert list(model.table_["layer"]) == [layers[k] for k in inside]
    assert layers[inside[3]] in model.table_.loc[model.table_["used"], "layer"].tolist()


# What is refused


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="'oracle' is no method; there are weights_of_evidence"):
        methods.fit("oracle", task())


def test_a_backbone_that_is_missing_is_named():
    with pytest.raises(ValueError, match="mae needs a pretrained backbone"):
        methods.fit("mae", replace(task(), backbone=None))


def test_layers_that_are_missing_are_named():
    with pytest.raises(ValueError, match="weights_of_evidence_updated needs layers of lawley2022"):
        methods.fit("weights_of_evidence_updated", task())
    with pytest.raises(ValueError, match="3 names for 4 layers"):
        methods.fit("mae", replace(task(), layers=LAYERS[:3]))


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize(("value", "what"), [(False, "positive"), (True, "unlabeled")])
def test_parts_without_both_classes_are_refused(part, value, what):
    positive = task().positive.copy()
    positive[getattr(task().fold, part)] = value
    with pytest.raises(ValueError, match=f"no {what} {part} cells: use larger blocks"):
        methods.fit("random_forest", replace(task(), positive=positive))


def test_windows_of_another_size_than_the_transformer_s_are_refused(monkeypatch):
    monkeypatch.setitem(mae.PRESETS, "demo", mae.PRESETS["demo"] | {"window": 15})
    with pytest.raises(ValueError, match="windows of 9 cells, but the transformer .* takes 15"):
        methods.fit("vit_scratch", replace(task(), backbone=None))


def test_tables_do_not_wait_for_torch():
    """Importing the module leaves torch alone"""
    code = "import mpm.methods, sys; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_the_table_of_methods_says_what_each_sees_and_chooses():
    "Each of the four candidates can be told from it, whatever the table is made of"
    table = methods.describe(list(methods.NAMES))
    assert list(table.index) == list(methods.NAMES.values())
    chooses = table["chooses among"]
    for name in ("gradient_boosting", "gradient_boosting_window", "shuffled_labels"):
        assert chooses[methods.NAMES[name]] == "learning_rate 0.1, 0.03; max_leaf_nodes 15, 5"
    assert chooses[methods.NAMES["mae"]] == "training steps"
    assert chooses[methods.NAMES["distance_to_deposit"]] == "nothing"
    sees = table["sees"]
    assert sees[methods.NAMES["random_forest_window"]] == "the cell, mean and spread of its window"
    assert sees[methods.NAMES["mae_features_logistic"]] == "the window"


def test_methods_on_one_backbone_compute_its_features_once(monkeypatch):
    "The second fits and scores on what the first has kept; another backbone or evidence is new"
    shared, computed = replace(task(), kept={}), []
    compute = fine_tuning.features_of

    def features_of(model, windows, index):
        computed.append(len(index))
        return compute(model, windows, index)

    monkeypatch.setattr(fine_tuning, "features_of", features_of)
    windows, test = shared.fold.windows, shared.fold.test

    def scores(name, own):
        return methods.fit(name, own)(windows, test)

    scores("mae_features_logistic", shared)
    assert len(computed) == 3  # training, validation, test
    boosting = scores("mae_features_boosting", shared)
    assert len(computed) == 3
    fresh = replace(shared, kept={})
    np.testing.assert_array_equal(boosting, scores("mae_features_boosting", fresh))
    assert len(computed) == 6
    other = replace(shared, backbone=mae.build(tiny(layers=4), 2))
    assert not np.array_equal(scores("mae_features_boosting", other), boosting)
    assert len(computed) == 9 and len(shared.kept) == 4
    score = methods.fit("mae_features_boosting", other)
    for change in ({"canvas": windows.canvas + 1}, {"seen": ~windows.seen}):
        score(replace(windows, **change), test)
    assert len(computed) == 11
