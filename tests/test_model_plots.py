from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from helpers import bars, lines, texts
from rasterio.transform import from_origin

from mpm import model_plots
from mpm.scenes import Scene


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def cube(shape=(8, 12), seed=0) -> xr.Dataset:
    """A layer on 500 m cells, west edge at 500 km, north edge at 901 km; a gap in a corner."""
    rng = np.random.default_rng(seed)
    plane = rng.uniform(size=shape)
    plane[:2, :2] = np.nan
    made = xr.Dataset(
        {"distance": (("y", "x"), plane), "valid": (("y", "x"), np.isfinite(plane))},
        coords={
            "x": 500_250 + 500.0 * np.arange(shape[1]),
            "y": 900_750 - 500.0 * np.arange(shape[0]),
        },
    )
    return made.rio.write_crs(32633).rio.write_transform(from_origin(500_000, 901_000, 500, 500))


def maps(ax) -> list:
    return ax.get_images()


def test_split_maps_colour_every_cell_by_its_part():
    "0 dead zone, 1 train, 2 validation, 3 test, nothing outside the study area"
    shape = (8, 12)
    columns = np.broadcast_to(np.arange(12), shape)
    parts = SimpleNamespace(
        train=[columns < 4], validation=[(columns > 4) & (columns < 8)], test=[columns > 8]
    )
    west = cube()
    for part in (parts.train, parts.validation, parts.test):
        part[0] = part[0] & west["valid"].values
    positive = np.zeros(shape, bool)
    positive[7, 2] = True
    fig = model_plots.split_maps({"west": west}, parts, positives=[positive], title="fold 0")
    code = maps(fig.axes[0])[0].get_array().filled(np.nan)
    assert code[7].tolist() == [1, 1, 1, 1, 0, 2, 2, 2, 0, 3, 3, 3]
    assert np.isnan(code[:2, :2]).all()
    (cells,) = fig.axes[0].lines
    assert (cells.get_xdata(), cells.get_ydata()) == (pytest.approx([501.25]), [897.25])
    labels = [label.get_text() for label in fig.axes[-1].get_yticklabels()]
    assert labels == ["dead zone", "train", "validation", "test"]


def test_negatives_and_positives_lie_on_their_cells():
    "Black dots and red dots over the distance to the deposits, one scale for all regions"
    distance = {name: cube(seed=k) for k, name in enumerate(["west", "east"])}
    positive, negative = np.zeros((2, 8, 12), bool), np.zeros((2, 8, 12), bool)
    positive[:, 7, 2], negative[:, 6, 0] = True, True
    fig = model_plots.negative_maps(distance, list(positive), list(negative))
    west, east = (ax for ax in fig.axes if maps(ax))
    drawn = {line.get_color(): line.get_xydata().tolist() for line in west.lines}
    assert drawn == {"black": [[500.25, 897.75]], "red": [[501.25, 897.25]]}
    assert fig.get_supxlabel() == ""
    assert maps(west)[0].get_clim() == maps(east)[0].get_clim()
    assert bars(fig)[0].ax.get_ylabel().endswith("(standard deviations)")


def test_many_negatives_do_not_bury_the_map(monkeypatch):
    "Of 96 every 24th, if four are shown at most; the figure says so"
    monkeypatch.setattr(model_plots, "MARKED", 4)
    every, none = np.ones((1, 8, 12), bool), np.zeros((1, 8, 12), bool)
    fig = model_plots.negative_maps({"west": cube(seed=0)}, list(none), list(every))
    black = next(line for line in fig.axes[0].lines if line.get_color() == "black")
    assert len(black.get_xdata()) == 4
    assert fig.get_supxlabel() == "red: all positive cells; black: one negative in 24"


def test_loss_curves_show_what_was_recorded():
    "Training left, held-out right with the plain fills to compare with, on one logarithmic scale"
    history = pd.DataFrame({"step": [10, 20], "loss": [1.0, 0.5], "held_out": [1.1, 0.6]})
    runs = {"blocks 0": history, "random 0": history, "final 0": history}
    fig = model_plots.loss_curves(runs, plain={"MAE": 0.3, "layer mean": 0.9, "bilinear": 0.2})
    left, right, fills = fig.axes
    np.testing.assert_array_equal(lines(left)["blocks 0"], [[10, 20], [1.0, 0.5]])
    np.testing.assert_array_equal(lines(right)["random 0"], [[10, 20], [1.1, 0.6]])
    assert [line.get_linestyle() for line in left.lines] == ["-", "--", ":"]
    assert len(right.lines) == 3, "what holds for one fold crosses the curves of all"
    assert [line.get_ydata()[0] for line in fills.lines] == [0.3, 0.9, 0.2]
    assert texts(fills) == ["network", "layer mean", "bilinear"]
    assert left.get_ylabel() == "masked loss (standard deviations²)"
    assert left.get_yscale() == right.get_yscale() == "log"
    assert left.get_ylim() == right.get_ylim() and left.get_ylim()[0] <= 0.2


@pytest.mark.filterwarnings("error")
def test_a_backbone_that_was_not_trained_is_a_dot():
    "One held-out loss and no training loss: nothing to draw a line through, and no warning"
    history = pd.DataFrame({"step": [0], "loss": [np.nan], "held_out": [1.1]})
    fig = model_plots.loss_curves({"blocks 0": history, "final 0": history})
    fig.canvas.draw()
    (line, _) = fig.axes[1].lines
    assert line.get_marker() == "o" and line.get_ydata().tolist() == [1.1]


def test_learning_curves_mark_the_step_that_was_kept():
    "The dot is at the best average precision"
    history = pd.DataFrame(
        {"step": [5, 10, 15], "loss": [3.0, 2.0, 1.0], "average_precision": [0.1, 0.4, 0.3]}
    )
    fig = model_plots.learning_curves({"blocks, 0": history})
    left, right = fig.axes
    np.testing.assert_array_equal(lines(left)["blocks, 0"], [[5, 10, 15], [3, 2, 1]])
    dot = right.lines[1]
    assert (dot.get_xdata(), dot.get_ydata()) == ([10], [0.4])
    assert (right.get_xlabel(), right.get_ylabel()) == ("step", "average precision")


def scene(window):
    "A window whose upper half is hidden, filled by the network with 9 and by the other with 8"
    hidden = np.arange(len(window))[:, None] < len(window) // 2
    return Scene(
        window=0,
        layer=0,
        truth=window,
        masked=np.where(hidden, np.nan, window),
        fills={"MAE": np.where(hidden, 9, window), "bilinear": np.where(hidden, 8, window)},
        errors={"MAE": 0.123, "bilinear": 4.567},
    )


def test_reconstructions_share_the_scale_of_the_truth():
    "Five panels a row: surroundings, truth, masked, both fills with their errors"
    window = np.linspace(-3, 2, 16).reshape(4, 4)
    plane = cube()["distance"].assign_coords(layer="total_field").assign_attrs(x=503e3, y=899e3)
    rows = {"high": scene(window), "low": scene(-window)}
    fig = model_plots.reconstructions(rows, dict.fromkeys(rows, plane), cell_km=0.5)
    panels = [ax for ax in fig.axes if maps(ax)]
    assert len(panels) == 10
    assert {maps(ax)[0].get_clim() for ax in panels[:5]} == {(-3, 2)}
    assert {maps(ax)[0].get_clim() for ax in panels[5:]} == {(-2, 3)}
    assert [ax.get_title() for ax in panels[:5]] == [
        "total field",
        "the window",
        "masked",
        "network, error 0.12",
        "interpolated, error 4.57",
    ]
    assert [maps(ax)[0].get_array()[0, 0] for ax in panels[3:5]] == [9, 8]
    assert np.ma.getmaskarray(maps(panels[2])[0].get_array()).sum() == 8
    assert all(maps(ax)[0].get_extent() == [-1, 1, -1, 1] for ax in panels[1:5])
    # the window of 2 km about its centre, in the kilometres of the map
    (square,) = panels[0].patches
    assert (*square.get_xy(), square.get_width(), square.get_height()) == (502, 898, 2, 2)
    assert panels[5].get_ylabel() == "low"
    assert [bar.ax.get_ylabel() for bar in bars(fig)] == ["standard deviations"] * 2


def test_a_masked_window_is_cut_into_patches():
    "All of it above, what is visible below, on one scale a layer; gaps and hidden cells are grey"
    values = np.arange(72.0).reshape(2, 6, 6)
    values[1, 0, 0] = np.nan
    hidden = np.zeros((6, 6), bool)
    hidden[:, 3:] = True
    names = ["total_field", "rock=shale"]
    fig = model_plots.masked_window(values, hidden, names, patch=3, cell_km=2)
    above, below = np.reshape(fig.axes, (2, 2))
    assert [ax.get_title() for ax in above] == ["total field", "rock: shale"]
    np.testing.assert_array_equal(maps(above[0])[0].get_array(), values[0])
    shown = np.ma.getmaskarray(maps(below[1])[0].get_array())
    assert shown[:, 3:].all() and shown[0, 0] and shown.sum() == 19
    assert maps(above[1])[0].get_clim() == maps(below[1])[0].get_clim() == (37, 71)
    # patches of 6 km: cuts at both edges and in the middle
    for cuts in below[0].collections:
        assert sorted(np.ptp(cuts.get_segments(), axis=1).max(axis=1)) == [12] * 3
        assert {round(float(segment.min()), 6) for segment in cuts.get_segments()} == {-6}


def test_layer_errors_say_where_a_plain_fill_is_better():
    "From the greatest gain to the greatest loss, downwards; the colour tells one from the other"
    table = pd.DataFrame(
        {"MAE": [0.9, 0.2], "layer mean": [1.0, 0.9], "window mean": [0.6, 0.4], "bilinear": 0.8},
        index=["a_b", "c"],
    )
    verdicts = pd.DataFrame(
        {"MAE": [0.2, 0.9], "plain": [0.4, 0.6], "ratio": [0.5, 1.5], "worse": [False, True]},
        index=["c", "a_b"],
    ).assign(low=[0.4, 1.2], high=[0.6, np.inf], verdict=["better", "worse"])
    (ax,) = model_plots.layer_errors(table, verdicts).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "a b"]
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["layer mean"], [[0.9, 1.0], [0, 1]])
    np.testing.assert_array_equal(drawn["window mean"], [[0.4, 0.6], [0, 1]])
    np.testing.assert_array_equal(drawn["network, better"], [[0.2], [0]])
    np.testing.assert_array_equal(drawn["network, worse"], [[0.9], [1]])
    better, worse = (line for line in ax.lines if line.get_label().startswith("network"))
    assert better.get_color() != worse.get_color()
    assert texts(ax)[:2] == ["-50 % (-60 to -40)", "+50 % (+20 to +inf)"]
    even = model_plots.layer_errors(table, verdicts.assign(verdict="cannot be told")).axes[0]
    np.testing.assert_array_equal(lines(even)["network, cannot be told"], [[0.2, 0.9], [0, 1]])
    exact = verdicts.assign(ratio=[0.5, np.inf])
    assert texts(*model_plots.layer_errors(table, exact).axes)[1] == "fill is exact"
    assert ax.get_xlim()[0] == 0 and ax.get_ylim() == (1.5, -0.5)
