import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import lines
from matplotlib.colors import to_rgb

from mpm import plots, score_plots


@pytest.fixture(autouse=True)
def house_style():
    "Every test draws in the style of the notebooks, and leaves no figure open"
    with plt.rc_context():
        plots.house_style()
        yield
    plt.close("all")


def table(*rows) -> pd.DataFrame:
    columns = ["method", "split", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(study="toy", target="MVT")


def rows_of(ax) -> dict:
    "Number of the row to the value drawn in it"
    dots = ax.collections[1].get_offsets()
    return {int(y): x for x, y in np.ma.compress_rows(np.ma.masked_invalid(dots))}


SCORES = table(
    ("new_method", "blocks", 0.75, 0.7, 0.8),
    ("oracle", "blocks", 0.95, 0.9, 1.0),
    ("mae", "blocks", 0.7, 0.6, 0.8),
    ("mae", "random", 0.9, 0.85, 0.95),
    ("random_forest", "random", 0.97, np.nan, np.nan),
)


def test_score_dots_have_a_column_a_split_and_a_row_a_method():
    "Methods in their order, unknown ones last; none is left out, whatever it is called"
    scores = pd.concat([SCORES.assign(metric="auc"), SCORES.assign(metric="mcc")])
    fig = score_plots.score_dots(scores, {"auc": "AUC (1)", "mcc": "MCC (1)"}, chance={"auc": 0.5})
    blocks, random, lower, _ = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["blocks split", "random split", "", ""]
    assert (blocks.get_xlabel(), lower.get_xlabel()) == ("AUC (1)", "MCC (1)")
    names = ["new method", "MAE, fine-tuned", "random forest", "oracle (true probability)"]
    assert [label.get_text() for label in blocks.get_yticklabels()] == names
    assert rows_of(blocks) == {0: 0.75, 1: 0.7, 3: 0.95}
    assert rows_of(random) == {1: 0.9, 2: 0.97}
    interval = blocks.collections[0].get_segments()[1]
    np.testing.assert_allclose(interval, [[0.6, 1], [0.8, 1]])
    assert random.get_xlim() == blocks.get_xlim(), "splits are compared on one axis"
    assert [0.5, 0.5] in [list(line.get_xdata()) for line in blocks.lines]
    assert [0.5, 0.5] not in [list(line.get_xdata()) for line in lower.lines]


def test_the_best_method_bears_a_star_and_controls_are_hollow():
    "The oracle beats all and is no method"
    fig = score_plots.score_dots(SCORES.assign(metric="auc"), {"auc": "AUC"}, chance={})
    star = [line.get_xydata().tolist() for line in fig.axes[0].lines if line.get_marker() == "*"]
    assert star == [[[0.75, 0]]]
    fills = [to_rgb(color) for color in fig.axes[0].collections[1].get_facecolors()]
    assert [color == (1, 1, 1) for color in fills] == [False, False, False, True]


def test_score_dots_show_the_band_of_shifted_labels():
    bands = pd.DataFrame(
        [("blocks", "auc", 0.4, 0.6), ("blocks", "auc", 0.45, 0.65), ("random", "mcc", 0, 1)],
        columns=["split", "metric", "low", "high"],
    )
    fig = score_plots.score_dots(SCORES.assign(metric="auc"), {"auc": "A"}, chance={}, nulls=bands)
    blocks, random = fig.axes
    (band,) = blocks.patches
    assert band.get_x() == 0.4 and band.get_width() == pytest.approx(0.25)
    assert not random.patches


GRID = np.array([0.0, 0.5, 1.0])
ONE, TWO = np.array([[0.0, 0.6, 1.0], [0.0, 0.8, 1.0]]), np.array([[0.0, 0.2, 1.0]])
KINDS = {
    kind: {"mae": ONE, "oracle": ONE, "pu_bagging": TWO, "random_forest": TWO + [0, 0.1, 0]}
    for kind in ("roc", "precision_recall", "capture", "prediction_area")
}


def test_fold_curves_average_folds():
    "The mean over folds, the spread of the network's folds as a band; the diagonal is chance"
    fig = score_plots.fold_curves({"blocks": KINDS, "random": KINDS}, GRID)
    assert len(fig.axes) == 6
    roc = fig.axes[0]
    np.testing.assert_allclose(lines(roc)["MAE, fine-tuned"], [GRID, [0, 0.7, 1]])
    band = roc.collections[0].get_paths()[0].vertices
    assert band[np.isclose(band[:, 0], 0.5), 1].min() == 0.6
    assert band[np.isclose(band[:, 0], 0.5), 1].max() == 0.8
    assert roc.get_title() == "blocks: ROC" and fig.axes[3].get_title() == "random: ROC"
    assert all(ax.get_xlim() == (0, 1) for ax in fig.axes)
    diagonals = [[0, 1] in [list(line.get_xdata()) for line in ax.lines] for ax in fig.axes[:3]]
    assert diagonals == [True, False, True]  # chance in precision depends on the prevalence
    assert fig.axes[2].get_xlabel() == "share of area, most likely first"


def test_fold_curves_pick_out_few_and_draw_all():
    "The best other method is named in the legend, the others below"
    fig = score_plots.fold_curves({"blocks": KINDS, "random": KINDS}, GRID, splits=["random"])
    assert [ax.get_title() for ax in fig.axes][0] == "random: ROC"
    assert len(fig.axes) == 3
    ax = fig.axes[0]
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert ax.get_legend() is None, "a legend in a panel covers lines"
    assert legend[0] == "random forest", "the best method comes first"
    assert {"MAE, fine-tuned", "oracle (true probability)"} < set(legend) and len(legend) == 4
    grey = [line for line in ax.lines if to_rgb(line.get_color()) == to_rgb(score_plots.OTHER)]
    assert [line.get_ydata().tolist() for line in grey] == [[0, 0.2, 1]]
    assert fig.get_supxlabel() == "grey: positive-unlabeled bagging"


def test_the_same_method_is_picked_out_in_all_panels():
    "By the area below ROC of the first split, also where another is better"
    other = {kind: dict(own) for kind, own in KINDS.items()}
    other["roc"] |= {"pu_bagging": ONE}
    fig = score_plots.fold_curves({"blocks": KINDS, "random": other}, GRID)
    orange = [
        [line.get_label() for line in ax.lines if to_rgb(line.get_color()) == to_rgb("C1")]
        for ax in fig.axes
    ]
    assert orange == [["random forest"]] * 6


def test_folds_without_a_curve_are_left_out_of_the_mean():
    values = np.concatenate([TWO, np.full((1, 3), np.nan)])
    kinds = {kind: {"mae": values, "new": values[1:]} for kind in KINDS}
    ax = score_plots.fold_curves({"blocks": kinds}, GRID).axes[0]
    np.testing.assert_allclose(lines(ax)["MAE, fine-tuned"][1], TWO[0])
    assert len(ax.lines) == 2


def test_fold_curves_show_the_band_of_shifted_labels():
    nulls = {"blocks": {"roc": np.array([[0, 0.3, 1], [0, 0.65, 1]])}}
    fig = score_plots.fold_curves({"blocks": KINDS}, GRID, nulls=nulls)
    band = fig.axes[0].collections[0].get_paths()[0].vertices
    assert {0.3, 0.65} <= set(band[np.isclose(band[:, 0], 0.5), 1])
    assert [len(ax.collections) for ax in fig.axes] == [2, 1, 1]


def test_prediction_area_says_where_the_curves_cross():
    "Two folds and an empty one: 0.75 of the deposits in 0.25 of the area, on average"
    one = np.array([[1, 0.9, 0.7, 0.1], [0, 0.2, 0.7, 1]])
    two = np.array([[1, 0.9, 0.8, 0.3], [0, 0.4, 0.8, 1]])
    methods = {"new": np.stack([one, two, one * np.nan]), "mae": np.stack([one])}
    fig = score_plots.prediction_area(methods, np.array([0, 0.4, 0.7, 1]))
    left, right = fig.axes[:2]
    # beside no line: it cannot cross one
    assert left.get_title() == "MAE, fine-tuned\n70 % of deposits in 30 % of area"
    assert right.get_title() == "new\n75 % of deposits in 25 % of area"
    np.testing.assert_allclose(lines(right)["deposits captured"][1], [1, 0.9, 0.75, 0.2])
    np.testing.assert_allclose(lines(right)["area left out"][1], [0, 0.3, 0.75, 1])
    assert right.lines[2].get_xydata().tolist() == [[0.7, 0.75]]


def test_lines_cross_between_their_points():
    "0.9 to 0.5 against 0.6 to 0.8: they meet at half the way, at 0.7"
    found = score_plots.crossing(np.array([0.6, 0.8]), np.array([0.9, 0.5]), np.array([0.5, 0.9]))
    assert found == (pytest.approx(0.7), pytest.approx(0.7))


def test_a_split_may_have_an_axis_of_its_own():
    "Random scores, several times as high, would press the others together"
    scores = SCORES.assign(metric="ap")
    options = {"chance": {}, "own_axis": {"ap": ["random"]}}
    blocks, random = score_plots.score_dots(scores, {"ap": "AP"}, **options).axes
    assert blocks.get_xlim() != random.get_xlim()
    assert (blocks.get_xlabel(), random.get_xlabel()) == ("AP", "AP, own axis")


def test_blue_is_the_network_alone():
    ax = score_plots.score_dots(SCORES.assign(metric="auc"), {"auc": "A"}, chance={}).axes[0]
    fills = [to_rgb(color) for color in ax.collections[1].get_facecolors()]
    assert [color == to_rgb("C0") for color in fills] == [False, True, False, False]


def test_reliability_is_drawn_a_panel_a_method():
    "Raw and corrected by colour; a bin without positives has an interval and no dot"
    raw = pd.DataFrame(
        {
            "predicted": [0.01, 0.5],
            "observed": [0.0, 0.02],
            "low": [0.0, 0.01],
            "high": [0.004, 0.05],
        }
    )
    corrected = raw.assign(predicted=raw["predicted"] / 50)
    fig = score_plots.reliability(
        {"raw": {"new": raw, "mae": raw}, "corrected": {"mae": corrected}}
    )
    mae, new = fig.axes
    assert (mae.get_title(), new.get_title()) == ("MAE, fine-tuned", "new")
    assert mae.get_xscale() == mae.get_yscale() == "log"
    drawn = lines(mae)
    np.testing.assert_array_equal(drawn["raw"], [[0.01, 0.5], [np.nan, 0.02]])
    np.testing.assert_allclose(drawn["corrected"][0], [0.0002, 0.01])
    assert "corrected" not in lines(new)
    edge = mae.get_xlim()[0]
    assert edge == pytest.approx(1e-4)
    first, second = mae.collections[0].get_segments()
    np.testing.assert_allclose(first, [[0.01, edge], [0.01, 0.004]])
    np.testing.assert_allclose(second, [[0.5, 0.01], [0.5, 0.05]])


def test_the_gap_of_the_splits_is_drawn_for_every_method():
    "A line from the least to the largest score of a method, and a marker a split"
    ax = score_plots.split_gap(SCORES.assign(metric="auc"), "auc", "AUC (1)").axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["new method", "MAE, fine-tuned", "random forest", "oracle (true probability)"]
    np.testing.assert_allclose(ax.collections[0].get_segments()[1], [[0.7, 1], [0.9, 1]])
    drawn = lines(ax)
    assert list(drawn) == ["blocks", "random"]
    np.testing.assert_array_equal(drawn["blocks"][0], [0.75, 0.7, np.nan, 0.95])
    np.testing.assert_array_equal(drawn["random"][0], [np.nan, 0.9, 0.97, np.nan])
    assert ax.get_xlabel() == "AUC (1)"


def test_the_gap_of_the_splits_has_a_panel_a_study():
    "Methods have the same row in all of them, splits the same marker, also where one is missing"
    other = SCORES[SCORES["method"] == "random_forest"].assign(study="real")
    scores = pd.concat([SCORES, other]).assign(metric="auc")
    fig = score_plots.split_gap(scores, "auc", "AUC (1)")
    toy, real = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["toy, MVT", "real, MVT"]
    np.testing.assert_array_equal(lines(real)["random"][0], [np.nan, np.nan, 0.97, np.nan])
    marks = {ax: {line.get_label(): line.get_marker() for line in ax.lines} for ax in fig.axes}
    assert marks[real] == {"random": marks[toy]["random"]} and len(set(marks[toy].values())) == 2
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["blocks", "random"]


def test_figures_of_many_methods_and_splits_are_small(tmp_path, monkeypatch):
    "Twenty methods under five splits, as a file"
    monkeypatch.setenv("MPM_FIGURES", str(tmp_path))
    rng = np.random.default_rng(0)
    rows = [
        (f"method {k}", split, *np.sort(rng.random(3))[[1, 0, 2]])
        for k in range(20)
        for split in score_plots.SPLITS
    ]
    scores = table(*rows).assign(metric="auc")
    figures = {
        "05_dots": score_plots.score_dots(scores, {"auc": "AUC (1)"}, chance={}),
        "05_gap": score_plots.split_gap(scores, "auc", "AUC (1)"),
    }
    for name, fig in figures.items():
        assert plots.save(fig, "toy", name).stat().st_size < 100_000
