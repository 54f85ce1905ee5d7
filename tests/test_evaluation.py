from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyproj
import pytest
import xarray as xr
from helpers import predictions

from mpm import align, demo, evaluation
from mpm.mapping import PREDICTION_COLUMNS
from mpm.splits import Split, SplitSettings
from mpm.study import Region, Target


def in_order(likelihood) -> evaluation.Folds:
    "One fold of four cells, the first two being two deposits"
    cells = [("0", 0, 0, k, k if k < 2 else -1, p) for k, p in enumerate(likelihood)]
    return evaluation.by_fold(predictions(cells))


GOOD, BAD = (0.9, 0.8, 0.3, 0.1), (0.1, 0.2, 0.8, 0.9)


# ---- folds and tables


def test_the_score_table_reads_as_value_and_interval():
    "Blocks before random, methods and metrics in the order asked for, blank where not scored"
    columns = ["split", "method", "metric", "value", "low", "high"]
    mean = pd.DataFrame(
        [
            ("random", "mae", "auc", 0.91, 0.9, 0.92),
            ("blocks", "logistic", "auc", 0.5, np.nan, np.nan),
            ("blocks", "logistic", "f1", 0.12345, 0.05, 0.2),
            ("blocks", "mae", "auc", 0.7, 0.6, 0.8),
            ("blocks", "mae", "brier", 0.1, 0.1, 0.1),
        ],
        columns=columns,
    )
    table = evaluation.score_table(mean, ["f1", "auc", "mcc"], ["mae", "logistic"])
    assert table.index.tolist() == [("blocks", "mae"), ("blocks", "logistic"), ("random", "mae")]
    assert table.columns.tolist() == ["f1", "auc"]
    assert table.to_numpy().tolist() == [
        ["", "0.700 (0.600 to 0.800)"],
        ["0.123 (0.050 to 0.200)", "0.500"],
        ["", "0.910 (0.900 to 0.920)"],
    ]
    other = evaluation.score_table(mean, ["auc"], ["logistic", "mae"])
    assert other.index.tolist()[:2] == [("blocks", "logistic"), ("blocks", "mae")]


def test_the_score_table_takes_any_splits_and_methods():
    "Known splits in their order, others and methods not asked for at the end"
    keys = [("random", "mae"), ("coast", "mae"), ("region", "new"), ("region", "mae")]
    rows = [(*key, "auc", 0.5, 0.4, 0.6) for key in [*keys, ("latitude", "mae")]]
    mean = pd.DataFrame(rows, columns=["split", "method", "metric", "value", "low", "high"])
    table = evaluation.score_table(mean, ["auc"], ["mae"])
    assert table.index.tolist() == [
        ("latitude", "mae"),
        ("region", "mae"),
        ("region", "new"),
        ("random", "mae"),
        ("coast", "mae"),
    ]


def test_controls_are_told_from_methods():
    controls = ["oracle", "distance_to_deposit", "shuffled_labels", "shuffled_random_forest"]
    assert [evaluation.is_control(name) for name in [*controls, "mae"]] == [True] * 4 + [False]


def test_a_difference_is_the_first_less_the_second():
    "Both deposits on top or at the bottom: AUC 1 or 0, average precision 1 or (1/3 + 2/4) / 2"
    folds = {("blocks", "good"): in_order(GOOD), ("blocks", "bad"): in_order(BAD)}
    pairs = [("good", "bad"), ("bad", "good")]
    table = evaluation.differences(folds, pairs, ["auc", "average_precision"], draws=50, seed=1)
    assert table[["method", "other"]].to_numpy().tolist() == [
        ["good", "bad"],
        ["good", "bad"],
        ["bad", "good"],
        ["bad", "good"],
    ]
    assert table["metric"].tolist() == ["auc", "average_precision"] * 2
    np.testing.assert_allclose(table["difference"], [1, 7 / 12, -1, -7 / 12])
    # every draw of these deposits gives the same AUC
    assert table.loc[table["metric"] == "auc", ["low", "high"]].to_numpy().tolist() == [
        [1, 1],
        [-1, -1],
    ]
    assert (table["low"] <= table["difference"]).all()
    assert (table["difference"] <= table["high"]).all()


def test_differences_are_of_the_split_asked_for():
    folds = {
        ("blocks", "a"): in_order(GOOD),
        ("blocks", "b"): in_order(BAD),
        ("random", "a"): in_order(BAD),
        ("random", "b"): in_order(GOOD),
    }
    found = [
        evaluation.differences(folds, [("a", "b")], ["auc"], split=split, draws=5, seed=1)
        for split in ("blocks", "random")
    ]
    assert [table["difference"].item() for table in found] == [1, -1]


def test_the_best_of_each_split_is_compared_with_all_but_the_truth():
    "By average precision; controls can be beaten, but do not lead"
    folds = {
        ("blocks", name): in_order(order)
        for name, order in {"a": GOOD, "b": BAD, "oracle": GOOD, "shuffled_labels": GOOD}.items()
    } | {("random", "a"): in_order(BAD), ("random", "b"): in_order(GOOD)}
    scores = {("blocks", "a"): 1, ("blocks", "b"): 0.4, ("blocks", "shuffled_labels"): 1}
    scores |= {("random", "a"): 0.4, ("random", "b"): 1, ("blocks", "oracle"): 1}
    mean = pd.DataFrame(
        [(*key, "average_precision", value) for key, value in scores.items()],
        columns=["split", "method", "metric", "value"],
    )
    found = evaluation.against_best(folds, mean, ["auc"], draws=20, seed=0)
    pairs = found.set_index(["split", "method", "other"])["difference"].to_dict()
    assert pairs == {
        ("blocks", "a", "b"): 1,
        ("blocks", "a", "shuffled_labels"): 0,
        ("random", "b", "a"): 1,
    }


def test_curves_are_sorted_by_split_kind_and_method():
    "A perfect and a reversed order: true positive rate 1 or 0, half the area catches all or none"
    folds = {
        ("blocks", "good"): in_order(GOOD),
        ("blocks", "bad"): in_order(BAD),
        ("random", "good"): in_order(GOOD),
        ("random", "bad"): in_order(GOOD),
    }
    drawn = evaluation.curves_by_split(folds, ["good", "bad"], np.array([0.25, 0.5]))
    assert list(drawn) == ["blocks", "random"]
    assert set(drawn["blocks"]) == {"roc", "precision_recall", "capture", "prediction_area"}
    assert drawn["blocks"]["roc"]["good"].tolist() == [[1, 1]]
    assert drawn["blocks"]["roc"]["bad"].tolist() == [[0, 0]]
    assert drawn["random"]["roc"]["bad"].tolist() == [[1, 1]]
    assert drawn["blocks"]["precision_recall"]["good"].tolist() == [[1, 1]]
    np.testing.assert_allclose(drawn["blocks"]["precision_recall"]["bad"], [[1 / 3, 1 / 3]])
    assert drawn["blocks"]["capture"]["good"].tolist() == [[0.5, 1]]
    assert drawn["blocks"]["capture"]["bad"].tolist() == [[0, 0]]
    assert drawn["blocks"]["prediction_area"]["good"].tolist() == [[[1, 1], [0, 0.25]]]
    options = {"splits": ["random"]}
    only = evaluation.curves_by_split(folds, ["good"], np.array([0.5]), **options)
    assert list(only) == ["random"], "what is not drawn is not computed"
    del folds["random", "bad"]
    drawn = evaluation.curves_by_split(folds, ["good", "bad"], np.array([0.5]))
    assert set(drawn["random"]["roc"]) == {"good"}, "a method need not be run under all splits"


# ---- maps of test cells


def blank(*shape) -> xr.Dataset:
    return xr.Dataset({"valid": (("y", "x"), np.ones(shape, bool))})


def test_held_out_predictions_lie_where_they_were_made():
    "Three test cells of two regions; all other cells are NaN"
    cubes = {"north": blank(2, 3), "south": blank(1, 2)}
    rows = predictions([("0", 1, 0, 1, -1, 0.75), ("0", 0, 1, 2, -1, 0.5), ("1", 0, 0, 0, 3, 0.25)])
    maps = evaluation.held_out(rows, cubes, "likelihood", "uncertainty")
    assert list(maps) == ["north", "south"]
    nan = np.nan
    np.testing.assert_array_equal(
        maps["north"]["likelihood"], np.float32([[0.25, nan, nan], [nan, nan, 0.5]])
    )
    np.testing.assert_array_equal(maps["south"]["likelihood"], np.float32([[nan, 0.75]]))
    np.testing.assert_allclose(maps["south"]["uncertainty"], [[nan, 0.075]], rtol=1e-6)
    assert maps["north"]["likelihood"].dtype == "float32"
    assert cubes["north"]["valid"].all()


def test_ranks_are_within_the_fold_and_the_method():
    "Of four cells of a fold in two regions the ranks are quarters; a fold of one cell has rank 1"
    cubes = {"north": blank(1, 3), "south": blank(1, 2)}
    places = [("0", 0, 0, 0), ("0", 0, 0, 1), ("0", 1, 0, 0), ("0", 1, 0, 1), ("1", 0, 0, 2)]
    one = [(*place, -1, p) for place, p in zip(places, (0.2, 0.9, 0.1, 0.2, 0.01), strict=True)]
    two = [(*place, -1, p) for place, p in zip(places, (4, 3, 2, 1, 0), strict=True)]
    rows = pd.concat([predictions(one), predictions(two, method="svm")], ignore_index=True)
    ranks = evaluation.held_out_ranks(rows, cubes, ["svm", "mae"])
    assert list(ranks) == ["svm", "mae"]
    # the two cells of 0.2 share ranks 2 and 3 of 4
    assert ranks["mae"]["north"].values.tolist() == [[0.625, 1, 1]]
    assert ranks["mae"]["south"].values.tolist() == [[0.25, 0.625]]
    assert ranks["svm"]["north"].values.tolist() == [[1, 0.75, 1]]
    assert ranks["svm"]["south"].values.tolist() == [[0.5, 0.25]]


# ---- what only the demo knows

TRUTH = {"north": [[0.9, 0.1, 0.2, 0.4]], "south": [[0.3, 0.8, 0.6, 0.5]]}
POSITIVE = {"north": [[True, False, False, False]], "south": [[False, True, False, True]]}
RULES = SplitSettings(folds=2, seed=5)


@pytest.fixture
def tiny(monkeypatch):
    "A study and cubes of 1 x 4 cells with a truth; fold k is validated on columns given by hand"
    truth = {r: xr.Dataset({"MVT": (("y", "x"), np.float32(p))}) for r, p in TRUTH.items()}
    monkeypatch.setattr(demo, "read_truth", lambda folder, region: truth[region])
    columns = {0: ([1, 3], [1, 2]), 1: ([0, 2], [0, 3])}
    asked = []

    def make_split(regions, kind, fold, settings, *, targets):
        asked.append((kind, fold, settings, targets))
        validation = [np.zeros((1, 4), bool) for _ in regions]
        for cells, own in zip(validation, columns[fold], strict=True):
            cells[0, own] = True
        test = tuple(~cells for cells in validation)
        return Split(tuple(np.zeros((1, 4), bool) for _ in regions), tuple(validation), test)

    monkeypatch.setattr(evaluation, "make_split", make_split)
    study = SimpleNamespace(raw="raw", targets={"MVT": None, "CD": None})
    cubes = {r: xr.Dataset({"MVT": (("y", "x"), np.array(p))}) for r, p in POSITIVE.items()}
    return study, cubes, asked


def two_methods() -> pd.DataFrame:
    "Two methods on the test cells of both folds"
    cells = [("0", 0, 0, 0, 0, 0.5), ("0", 0, 0, 2, -1, 0.5), ("0", 1, 0, 3, 1, 0.5)]
    cells += [("1", 1, 0, 2, -1, 0.5), ("1", 0, 0, 3, -1, 0.5)]
    tables = [predictions(cells, method=method) for method in ("logistic", "mae")]
    return pd.concat(tables, ignore_index=True)


def test_the_oracle_says_the_true_probability(tiny):
    "Once for every test cell, whatever the methods said"
    study, cubes, _ = tiny
    rows = two_methods()
    found = evaluation.oracle(study, cubes, "MVT", rows, RULES)
    assert found.columns.tolist() == PREDICTION_COLUMNS
    assert set(found["method"]) == {"oracle"} and found["uncertainty"].isna().all()
    np.testing.assert_array_equal(found["likelihood"], np.float32([0.9, 0.2, 0.5, 0.6, 0.4]))
    assert found["likelihood"].dtype == "float32"
    kept = ["split", "fold", "region", "row", "col", "positive", "deposit"]
    pd.testing.assert_frame_equal(found[kept], rows.loc[rows["method"] == "logistic", kept])
    assert set(rows["method"]) == {"logistic", "mae"}


def test_the_oracle_is_there_under_every_split(tiny):
    "The first method was run under blocks only"
    study, cubes, _ = tiny
    rows = two_methods()
    rows.loc[rows["method"] == "mae", "split"] = "region"
    found = evaluation.oracle(study, cubes, "MVT", rows, RULES)
    assert found.groupby("split").size().to_dict() == {"blocks": 5, "region": 5}


def test_the_oracles_threshold_is_chosen_on_validation_cells(tiny):
    "0.8 parts the deposit from 0.1, 0.4 and 0.6; 0.5 takes both deposits before 0.2 and 0.3"
    study, cubes, asked = tiny
    found = evaluation.oracle(study, cubes, "MVT", two_methods(), RULES)
    by_fold = found.groupby("fold")["threshold"].unique()
    assert by_fold["0"].tolist() == [np.float32(0.8)]
    assert by_fold["1"].tolist() == [np.float32(0.5)]
    targets = ["MVT", "CD"]
    assert asked == [("blocks", 0, RULES, targets), ("blocks", 1, RULES, targets)]


def test_undiscovered_deposits_are_numbered(monkeypatch):
    "Not the known ones, other types, cells that are positive already, or what lies off the grid"
    box = {"crs": "EPSG:32633", "resolution": 1000}
    cubes = {}
    for region, west in {"north": 500_000, "south": 600_000, "empty": 700_000}.items():
        place = Region(bounds=(west, 5_000_000, west + 5000, 5_004_000), **box)
        cells = align.grid(place).astype(bool)
        cubes[region] = xr.Dataset({"valid": xr.ones_like(cells), "MVT": cells.copy()})
    cubes["north"]["MVT"].values[2, 2] = True
    to_degrees = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)

    def deposit(region, row, col, *, type="MVT", discovered=False):
        x = cubes["north" if region == "north" else "south"]["x"].values[0] + 1000 * col
        longitude, latitude = to_degrees.transform(x, 5_003_500 - 1000 * row)
        return {
            "region": region,
            "type": type,
            "longitude": longitude,
            "latitude": latitude,
            "discovered": discovered,
        }

    table = pd.DataFrame(
        [
            deposit("south", 9, 0),
            deposit("north", 0, 0, discovered=True),
            deposit("north", 1, 3),
            deposit("north", 3, 3, type="CD"),
            deposit("north", 2, 2),
            deposit("south", 3, 4),
        ]
    )
    monkeypatch.setattr(demo, "read_true_deposits", lambda folder: table)
    study = SimpleNamespace(raw="raw", targets={"MVT": Target(types=("MVT",))})
    north, south, empty = evaluation.undiscovered(study, cubes, "MVT")
    assert np.argwhere(north >= 0).tolist() == [[1, 3]]
    assert np.argwhere(south >= 0).tolist() == [[3, 4]]
    assert north[1, 3] != south[3, 4], "deposits of two regions share a number"
    assert (empty == -1).all() and empty.shape == (4, 5)
    assert cubes["north"]["MVT"].sum() == 1
    # as of a known deposit: all cells within the radius that are valid and of no known one
    study.targets["MVT"] = Target(types=("MVT",), radius=1050)
    cubes["south"]["valid"].values[2, 4] = False
    north, south, _ = evaluation.undiscovered(study, cubes, "MVT")
    # cells between two hidden deposits are as far from one as from the other
    own, other = (
        {tuple(at) for at in np.argwhere(north == north[place])} for place in [(1, 3), (2, 1)]
    )
    between = {(1, 2), (2, 3)}
    assert own - between == {(0, 3), (1, 3), (1, 4)} and other - between == {(2, 1), (3, 2)}
    assert between <= own | other and north[2, 2] == -1
    assert np.argwhere(south >= 0).tolist() == [[3, 3], [3, 4]]


# ---- sentences


@pytest.fixture
def scored() -> tuple[pd.DataFrame, pd.DataFrame]:
    "Mean scores of three methods and the oracle, and differences to the network"
    scores = {
        ("blocks", "auc"): {"mae": 0.7, "logistic": 0.65, "svm": 0.6, "oracle": 0.99},
        ("random", "auc"): {"mae": 0.9, "logistic": 0.7, "svm": 0.7, "oracle": 0.75},
        ("blocks", "average_precision"): {"mae": 0.2, "logistic": 0.3, "svm": 0.1, "oracle": 0.9},
        ("random", "average_precision"): {"mae": 0.8, "logistic": 0.1, "svm": 0.7, "oracle": 0.9},
    }
    mean = pd.DataFrame(
        [
            {"split": split, "metric": metric, "method": method, "value": value}
            for (split, metric), values in scores.items()
            for method, value in values.items()
        ]
    )
    compared = pd.DataFrame(
        [
            ("mae", "svm", "average_precision", 0.5, 0.4, 0.6),
            ("mae", "vit_scratch", "auc", 0.7, 0.6, 0.8),
            ("mae", "vit_scratch", "average_precision", -0.0123, -0.05, 0.02),
        ],
        columns=["method", "other", "metric", "difference", "low", "high"],
    )
    return mean, compared


def test_findings_say_what_the_scores_show(scored):
    "The oracle, best of all, is no method; the random split adds 0.05 to 0.2"
    lines = evaluation.findings(*scored)
    assert lines[:4] == [
        "best average precision under blocks: logistic (0.300), then mae (0.200)",
        "best average precision under random: mae (0.800), then svm (0.700)",
        "AUC that the random split adds to that under blocks: +0.050 to +0.200",
        "pretraining adds -0.012 average precision under blocks (95 % interval -0.050 to +0.020)",
    ]
    mean, compared = scored
    assert evaluation.findings(mean[mean["method"] != "oracle"], compared) == lines[:4]


def test_findings_take_any_splits_and_methods(scored):
    "No random split, no network compared, one method alone"
    mean, compared = scored
    mean = mean[mean["method"].isin(["svm", "oracle"])].replace({"split": {"random": "region"}})
    assert evaluation.findings(mean, compared.iloc[:1]) == [
        "best average precision under blocks: svm (0.100)",
        "best average precision under region: svm (0.700)",
        "above the true probability under blocks (leak, discovery bias or chance): none",
        "above the true probability under region (leak, discovery bias or chance): none",
    ]


@pytest.mark.parametrize(("oracle", "above"), [(0.75, "mae"), (0.65, "logistic, mae, svm")])
def test_findings_name_what_beats_the_oracle(scored, oracle, above):
    "AUC 0.9, 0.7 and 0.7 under the random split; an oracle of 0.9 is not beaten by its equal"
    mean, compared = scored
    of_oracle = (mean["method"] == "oracle") & (mean["metric"] == "auc")
    for value, names in [(oracle, above), (0.9, "none")]:
        mean.loc[of_oracle & (mean["split"] == "random"), "value"] = value
        blocks, random = evaluation.findings(mean, compared)[4:]
        assert blocks.startswith("above the true probability under blocks")
        assert blocks.endswith(": none")
        assert random.startswith("above the true probability under random")
        assert random.endswith(f": {names}")


def test_findings_name_what_is_no_better_than_the_nearest_deposit(scored):
    mean, compared = scored
    mean = mean.replace({"method": {"oracle": "distance_to_deposit"}})
    nearest = (mean["method"] == "distance_to_deposit") & (mean["metric"] == "auc")
    mean.loc[nearest & (mean["split"] == "blocks"), "value"] = 0.65
    lines = evaluation.findings(mean, compared)[4:]
    start = "no better than the distance to the nearest known deposit under"
    assert lines == [f"{start} blocks: logistic, svm", f"{start} random: logistic, svm"]
