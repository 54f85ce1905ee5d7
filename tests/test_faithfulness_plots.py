import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import lines, texts
from matplotlib.colors import to_hex

from mpm import faithfulness_plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_curves_are_means_over_cells():
    "From 0 to 100 % of the players, random order dotted"
    each = {name: np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]) for name in (
        "deletion", "insertion", "deletion at random", "insertion at random")}  # fmt: skip
    ax = faithfulness_plots.removal_figure({"IG, layers": each}).axes[0]
    steps, means = lines(ax)["deletion"]
    assert steps.tolist() == [0, 50, 100] and means.tolist() == [1, 0.5, 0]
    assert ax.get_xlabel() == "layers taken away, or brought in (%)"
    assert {line.get_linestyle() for line in ax.lines if "random" in line.get_label()} == {":"}


def test_stages_are_drawn_against_the_limit():
    table = pd.DataFrame({"stage": ["none", "head"], "value": [1, 0.2], "low": [1, 0.1],
                          "high": [1, 0.3], "size": [1, 0.4], "size_low": [1, 0.3],
                          "size_high": [1, 0.5]})  # fmt: skip
    ax = faithfulness_plots.randomisation_figure({"IG": table}, limit=0.5).axes[0]
    assert lines(ax)["IG"][1].tolist() == [1, 0.2]
    assert lines(ax)["IG, sizes alone"][1].tolist() == [1, 0.4]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["none", "head"]
    assert any(set(line.get_ydata()) == {0.5} for line in ax.lines)


def test_each_pair_is_written_once():
    pairs = pd.DataFrame({"method": ["IG", "IG", "SHAP"], "other": ["SHAP", "C", "C"],
                          "value": [0.9, 0.1, 0.4], "low": 0.0, "high": 1.0})  # fmt: skip
    ax = faithfulness_plots.agreement_table(pairs).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["IG", "SHAP"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["SHAP", "C"]
    written = [text for text in texts(ax) if text]
    assert [text.splitlines()[0] for text in written] == ["0.90", "0.10", "0.40"]


def test_verdicts_are_coloured_and_say_what_is_needed():
    table = pd.DataFrame(
        [("IG", "small noise", 0.99, 0.98, 1, "> 0.9", "holds"),
         ("trees", "other seeds", 0.1, 0, 0.2, "> 0.5", "fails")],
        columns=["method", "test", "value", "low", "high", "needed", "verdict"],
    )  # fmt: skip
    ax = faithfulness_plots.verdict_table(table).axes[0]
    assert [to_hex(patch.get_facecolor()) for patch in ax.patches] == ["#c7e3c7", "#f3c6b5"]
    assert [patch.get_xy() for patch in ax.patches] == [(0, 1), (1, 0)]
    assert texts(ax) == ["0.99 (0.98 to 1.00)\nholds", "0.10 (0.00 to 0.20)\nfails",
                         "not asked", "not asked"]  # fmt: skip
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "other seeds  (> 0.5)", "small noise  (> 0.9)"]  # fmt: skip
