from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from rasterio.transform import from_origin

from mpm import data_plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def cube(shape=(40, 50), seed=0) -> xr.Dataset:
    """A continuous layer and one of two classes, one of whose cells is not mapped."""
    rng = np.random.default_rng(seed)
    carbonate = np.zeros(shape, "float32")
    carbonate[:, :20] = 1
    evidence = np.stack([rng.normal(100, 10, shape), carbonate, 1 - carbonate]).astype("float32")
    evidence[:, 0, 0] = np.nan
    number = np.full(shape, -1, "int32")
    number[5, 5:7] = 3
    number[30:33, 40] = 8
    number[30, 42] = 9
    made = xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence),
            "valid": (("y", "x"), np.ones(shape, bool)),
            "MVT": (("y", "x"), number >= 0),
            "MVT_deposit": (("y", "x"), number),
        },
        coords={
            "layer": ["gravity", "lithology=carbonate", "lithology=shale"],
            "origin": ("layer", ["gravity", "lithology", "lithology"]),
            "units": ("layer", ["mGal", "1", "1"]),
            "x": 500.0 + 1000 * np.arange(shape[1]),
            "y": 90_500.0 - 1000 * np.arange(shape[0]),
        },
    )
    transform = from_origin(0, 91_000, 1000, 1000)
    return made.rio.write_crs("EPSG:3577").rio.write_transform(transform)


def test_distributions_count_observed_valid_cells():
    "Shares of each region sum to one, before and after; units are named"
    cubes = {"west": cube(), "east": cube(seed=1)}
    scaled = {
        name: each.assign(evidence=each["evidence"] / 10 - 10) for name, each in cubes.items()
    }
    fig = data_plots.scaled_distributions(cubes, scaled, ["gravity"])
    before, after = fig.axes
    for ax in (before, after):
        heights = np.array([bar.get_height() for bar in ax.patches]).reshape(2, -1)
        np.testing.assert_allclose(heights.sum(axis=1), 1, rtol=1e-6)
    assert before.get_xlabel() == "mGal" and after.get_xlabel() == "standard deviations"
    assert [text.get_text() for text in before.get_legend().get_texts()] == ["west", "east"]


def test_a_layer_that_a_region_lacks_is_drawn_for_the_others():
    "No region, no bars"
    empty = cube()
    empty["evidence"][0] = np.nan
    fig = data_plots.scaled_distributions({"a": empty, "b": cube()}, {"a": empty, "b": cube()},
                                          ["gravity"])  # fmt: skip
    heights = np.array([bar.get_height() for bar in fig.axes[0].patches]).reshape(2, -1)
    np.testing.assert_allclose(heights.sum(axis=1), [0, 1], atol=1e-6)


def test_correlations_keep_their_order_and_groups():
    "Values as given on a scale from -1 to 1, a line where the group changes"
    names = ["gravity", "moho", "fault_distance"]
    table = pd.DataFrame([[1, 0.5, -0.2], [0.5, 1, 0], [-0.2, 0, 1]], names, names)
    fig = data_plots.correlation_map(table, ["geophysics", "geophysics", "structure"])
    image = fig.axes[0].images[0]
    np.testing.assert_array_equal(image.get_array(), table.to_numpy())
    assert image.get_clim() == (-1, 1)
    assert [
        line.get_ydata()[0] for line in fig.axes[0].lines if len(set(line.get_ydata())) == 1
    ] == [1.5]
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()][2] == "fault distance"


def test_class_maps_show_the_class_of_each_cell():
    "One colour a class, named in the bar; cells without a class stay empty"
    deposits = {
        "west": pd.DataFrame({"deposit": [3], "type": ["MVT"], "x": [5500.0], "y": [85500.0]})
    }
    targets = {"MVT": SimpleNamespace(types=("MVT",))}
    fig = data_plots.class_maps({"west": cube()}, "lithology", deposits, targets)
    code = fig.axes[0].images[0].get_array()
    assert code.mask[0, 0] and code.mask.sum() == 1
    assert (code[1:, :20] == 0).all() and (code[1:, 20:] == 1).all()
    names = [label.get_text() for label in fig.axes[1].get_yticklabels()]
    assert names == ["carbonate", "shale"]
    assert fig.axes[0].get_title() == "west: 1 MVT (red)"


def test_neighbourhoods_show_the_densest_district():
    "Four cells of two deposits near each other, not the two cells far away"
    fig = data_plots.neighbourhoods(cube(), "MVT", cells=10)
    ax = fig.axes[0]
    assert ax.get_title() == "2 MVT deposits, 4 positive cells"
    code = ax.images[1].get_array()
    assert (~np.ma.getmaskarray(np.ma.masked_invalid(code))).sum() == 4
