import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import lines, texts

from mpm import stress_plots
from mpm.as_released import RULE, STEPS
from mpm.stress import COLUMNS

METHODS = ["random_forest", "logistic_regression"]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def table(rows):
    "Rows of (method, stress, level, name, metric, value, low, high), means over folds"
    shared = ("toy", "MVT", "blocks", "mean", 7)
    return pd.DataFrame([shared + row for row in rows], columns=COLUMNS)


def titles(fig):
    return [ax.get_title() for ax in fig.axes if ax.get_visible()]


def drawn(ax, color):
    "Points of the lines of a colour"
    return [line.get_xydata().tolist() for line in ax.lines if line.get_color() == color]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_each_method_has_a_panel_of_its_scarcity_curve():
    "In the order of all methods, shares ascending, the interval as a band, the others in grey"
    rows = [
        (method, "scarcity", share, "", "auc", 0.5 + share / 10 + k / 10, 0.4, 0.9)
        for k, method in enumerate(METHODS)
        for share in (1.0, 0.1)
    ]
    rows += [("random_forest", "scarcity", 1.0, "", "f1", 0.2, 0.1, 0.3)]
    fig = stress_plots.scarcity_curves(table(rows), metric="auc")
    assert titles(fig) == ["logistic regression", "random forest"]
    first = fig.axes[0]
    assert drawn(first, "C0") == [[[0.1, pytest.approx(0.61)], [1.0, pytest.approx(0.7)]]]
    assert len(drawn(first, "0.85")) == 2
    low, high = first.collections[0].get_paths()[0].get_extents().intervaly
    assert (low, high) == (0.4, 0.9)
    assert ticks(first.xaxis) == ["10", "100"] and fig.get_supylabel() == "AUC"


def test_single_cells_lie_at_zero_of_the_block_sides():
    "The design of the other notebooks is a diamond at its side, not part of the curve"
    rows = [
        ("random_forest", "block_side", side, "", "auc", 0.9 - side / 1e3, 0.4, 1.0)
        for side in (0.0, 50.0, 400.0)
    ]
    rows += [("random_forest", "block_side", 220.0, "dead zone", "auc", 0.6, 0.5, 0.7)]
    fig = stress_plots.block_side_curves(table(rows), metric="auc", chosen_km=220)
    [ax] = [ax for ax in fig.axes if ax.get_visible()]
    assert drawn(ax, "C0") == [[[0, 0.9], [50, pytest.approx(0.85)], [400, 0.5]]]
    assert drawn(ax, "C1") == [[[220, 0.6]]]
    assert ticks(ax.xaxis) == ["0", "50", "400"]
    assert "220 km behind a dead zone" in fig.get_supxlabel()


def test_without_room_for_any_block_the_chosen_ones_are_drawn():
    rows = [
        ("random_forest", "block_side", 0.0, "", "auc", 0.9, 0.8, 1.0),
        ("random_forest", "block_side", 220.0, "dead zone", "auc", 0.6, 0.5, 0.7),
    ]
    fig = stress_plots.block_side_curves(table(rows), metric="auc", chosen_km=220)
    [ax] = [ax for ax in fig.axes if ax.get_visible()]
    assert drawn(ax, "C1") == [[[220, 0.6]]] and ticks(ax.xaxis) == ["0"]
    assert ax.get_xlim()[1] > 220


def test_changes_are_bold_where_their_interval_leaves_out_zero():
    "Layers, groups and the rest down, methods across, blue for a loss and red for a gain"
    rows = [
        ("random_forest", "layer", np.nan, "heat_flow", "auc_change", -0.2, -0.3, -0.1),
        ("random_forest", "noise", 0.3, "", "auc_change", 0.05, -0.1, 0.1),
        ("random_forest", "whole", np.nan, "", "auc", 0.8, 0.7, 0.9),
        ("logistic_regression", "layer", np.nan, "heat_flow", "auc_change", 0.002, 0.001, 0.004),
    ]
    fig = stress_plots.lost_evidence(table(rows), metric="auc")
    ax = fig.axes[0]
    assert ticks(ax.yaxis) == ["lost: heat flow", "noise of 0.3 standard deviations"]
    assert ticks(ax.xaxis) == ["logistic regression", "random forest"]
    image = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(image, [[0.002, -0.2], [np.nan, 0.05]])
    low, high = ax.images[0].get_clim()
    assert low == -high and ax.images[0].get_cmap().name == "RdBu_r"
    assert texts(ax) == ["+0.00", "−0.20", "+0.05"]
    assert [text.get_weight() for text in ax.texts] == ["normal", "bold", "normal"]


def test_the_ladder_descends_from_the_published_protocol():
    "Steps down with the cells that they test; what learns nothing is dashed"
    shared = {"fold": "mean", "low": np.nan, "high": np.nan}
    steps = ["as_released", "released_blocks"]
    values = {"auc": [1.0, 0.5], "mcc": [0.9, 0.1], "positives": [8, 11], "negatives": [160, 18640]}
    rows = [
        shared | {"split": step, "method": method, "metric": metric, "value": of[k]}
        for method in (RULE, "random_forest")
        for metric, of in values.items()
        for k, step in enumerate(steps)
    ]
    fig = stress_plots.protocol_ladder(pd.DataFrame(rows), metrics=["auc", "mcc"])
    auc, mcc = fig.axes
    assert ticks(auc.yaxis) == [
        f"{STEPS[steps[0]].title}\n8 positive, 160 other cells tested",
        f"{STEPS[steps[1]].title}\n11 positive, 18,640 other cells tested",
    ]
    rule = "rule that picks negatives (no learning)"
    x, y = lines(auc)[rule]
    # the first step is on top, and of two methods of a step one stands above the other
    assert list(x) == [1.0, 0.5] and list(y) == pytest.approx([1.24, 0.24])
    assert list(lines(auc)["random forest"][1]) == pytest.approx([0.76, -0.24])
    assert list(lines(mcc)["random forest"][0]) == [0.9, 0.1]
    styles = {line.get_label(): (line.get_linestyle(), line.get_color()) for line in auc.lines}
    assert styles[rule] == ("--", "black") and styles["random forest"] == ("-", "C0")


def test_the_ladder_has_the_interval_of_every_score():
    rows = [
        {"split": "as_released", "method": name, "metric": metric, "value": 0.9, "fold": "mean"}
        | {"low": 0.8, "high": 0.95}
        for name in METHODS
        for metric in ("auc", "positives", "negatives")
    ]
    (ax,) = stress_plots.protocol_ladder(pd.DataFrame(rows), metrics=["auc"]).axes
    ends = [segments.get_segments()[0].tolist() for segments in ax.collections]
    assert ends == [[[0.8, pytest.approx(at)], [0.95, pytest.approx(at)]] for at in (0.24, -0.24)]
