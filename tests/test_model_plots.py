from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from rasterio.transform import from_origin

from mpm import model_plots


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


def bars(fig) -> list:
    """Colour bars of a figure, in the order drawn."""
    return [ax._colorbar for ax in fig.axes if hasattr(ax, "_colorbar")]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def lines(ax) -> dict:
    """Label to x and y of the lines drawn."""
    return {line.get_label(): line.get_data() for line in ax.lines}


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
    assert maps(west)[0].get_clim() == maps(east)[0].get_clim()
    assert bars(fig)[0].ax.get_ylabel().endswith("(standard deviations)")


def test_loss_curves_show_what_was_recorded():
    "Training left, held-out right, on one logarithmic scale, with the layer mean to compare with"
    history = pd.DataFrame({"step": [10, 20], "loss": [1.0, 0.5], "held_out": [1.1, 0.6]})
    fig = model_plots.loss_curves({"blocks, 0": history, "random, 0": history}, naive=0.9)
    left, right = fig.axes
    np.testing.assert_array_equal(lines(left)["blocks, 0"], [[10, 20], [1.0, 0.5]])
    np.testing.assert_array_equal(lines(right)["random, 0"], [[10, 20], [1.1, 0.6]])
    assert [line.get_linestyle() for line in right.lines[:2]] == ["-", "--"]
    assert right.lines[-1].get_ydata() == [0.9, 0.9] and "layer mean" in texts(right)
    assert left.get_ylabel() == "masked loss (standard deviations²)"
    assert left.get_yscale() == right.get_yscale() == "log"
    assert left.get_ylim() == right.get_ylim()


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


def test_reconstructions_share_the_scale_of_their_input():
    "Four panels a row, symmetric about zero, kilometres from the centre"
    window = np.linspace(-3, 2, 81).reshape(9, 9)
    parts = dict.fromkeys(["input", "masked", "reconstructed", "error"], window)
    parts["error"] = 10 * window
    fig = model_plots.reconstructions({"gravity": parts, "magnetics": parts}, cell_km=2)
    panels = [ax for ax in fig.axes if maps(ax)]
    assert len(panels) == 8
    for ax in panels:
        assert maps(ax)[0].get_clim() == (-3, 3)
        assert maps(ax)[0].get_extent() == [-9, 9, -9, 9]
    assert [ax.get_title() for ax in panels[:4]] == [
        "input",
        "masked input",
        "reconstructed",
        "error",
    ]
    assert panels[4].get_ylabel() == "magnetics\nkm from centre"


def test_layer_errors_are_drawn_from_best_to_worst():
    "The network's error decides the order; missing fills are left out"
    table = pd.DataFrame({"layer mean": [1.0, 0.9], "MAE": [0.5, 0.2]}, index=["a_b", "c"])
    fig = model_plots.layer_errors(table)
    ax = fig.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "a b"]
    assert set(lines(ax)) == {"layer mean", "MAE"}
    np.testing.assert_array_equal(lines(ax)["MAE"], [[0.2, 0.5], [0, 1]])
    np.testing.assert_array_equal(lines(ax)["layer mean"], [[0.9, 1.0], [0, 1]])
    assert ax.get_xlim()[0] == 0 and "standard deviations" in ax.get_xlabel()
