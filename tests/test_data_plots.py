from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from dask.callbacks import Callback
from helpers import texts
from rasterio.transform import from_origin

from mpm import data_plots
from mpm.study import Target


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
        np.testing.assert_allclose(shares(ax).sum(axis=1), 1, rtol=1e-6)
    assert before.get_title() == "gravity (mGal)" and after.get_xlabel() == "standard deviations"
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["west", "east"]


def shares(ax) -> np.ndarray:
    """Share of cells in each bar (regions, bars)."""
    return np.array([steps.get_data().values for steps in ax.patches])


def test_two_values_give_two_bars_that_can_be_seen():
    "After scaling as before: no bar is narrower than a sixtieth of the panel"
    west = cube()
    name = "lithology=shale"
    fig = data_plots.scaled_distributions({"west": west}, {"west": west}, [name])
    for ax in fig.axes:
        edges = ax.patches[0].get_data().edges
        assert np.count_nonzero(shares(ax)) == 2
        assert np.diff(edges).min() > np.ptp(ax.get_xlim()) / 65
    assert fig.axes[0].get_title() == "lithology: shale\n(share)"


def test_distances_are_kilometres_for_all_regions():
    "Where one region reaches beyond 20 km, all are drawn in kilometres"
    near, far = cube(), cube()
    for each, top in ((near, 1000), (far, 50_000)):
        each["evidence"][0] = np.linspace(0, top, 2000).reshape(40, 50)
        each["units"] = ("layer", ["m", "1", "1"])
    cubes = {"near": near, "far": far}
    ax = data_plots.scaled_distributions(cubes, cubes, ["gravity"]).axes[0]
    assert ax.get_title() == "gravity (km)"
    assert ax.patches[0].get_data().edges[-1] == pytest.approx(50, rel=0.01)


def test_a_layer_that_a_region_lacks_is_drawn_for_the_others():
    "No region, no bars"
    empty = cube()
    empty["evidence"][0] = np.nan
    fig = data_plots.scaled_distributions({"a": empty, "b": cube()}, {"a": empty, "b": cube()},
                                          ["gravity"])  # fmt: skip
    np.testing.assert_allclose(shares(fig.axes[0]).sum(axis=1), [0, 1], atol=1e-6)


def test_correlations_stand_by_group():
    "Values on a scale from -1 to 1; layers of a group side by side, a line where it changes"
    names = ["gravity", "fault_distance", "moho"]
    table = pd.DataFrame([[1, -0.2, 0.5], [-0.2, 1, 0], [0.5, 0, 1]], names, names)
    ax = data_plots.correlation_map(table, ["deep_earth", "structure", "deep_earth"]).axes[0]
    image = ax.images[0]
    expected = [[1, 0.5, -0.2], [0.5, 1, 0], [-0.2, 0, 1]]
    np.testing.assert_array_equal(image.get_array(), expected)
    assert image.get_clim() == (-1, 1)
    lines = [line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1]
    assert lines == [1.5]
    assert written(ax.get_xticklabels()) == ["gravity", "Moho depth", "fault distance"]
    (top,) = (axis for axis in ax.child_axes if axis.get_xticklabels())
    assert written(top.get_xticklabels()) == ["deep earth", "structure"]
    assert list(top.get_xticks()) == [0.5, 2]


def written(labels) -> list[str]:
    return [label.get_text() for label in labels]


@pytest.mark.parametrize("count", [3, 45])
def test_no_name_of_a_correlation_map_is_cut_off(count):
    "However long, and with as many groups as layers: inside the figure, names of groups apart"
    names = [f"layer_{k}_" + "of_a_very_long_name_" * 4 for k in range(count)]
    table = pd.DataFrame(np.eye(count), names, names)
    fig = data_plots.correlation_map(table, [f"group {k}" for k in range(count)])
    box, whole = fig.axes[0].get_tightbbox(), fig.bbox
    assert min(box.x0, box.y0) > 0 and box.x1 < whole.x1 and box.y1 < whole.y1
    (top,) = (axis for axis in fig.axes[0].child_axes if axis.get_xticklabels())
    first, second = top.get_xticklabels()[:2]
    starts = [label.get_transform().transform((k, 0))[0] for k, label in enumerate((first, second))]
    across = starts[1] - starts[0]
    assert across * np.sqrt(0.5) > first.get_fontsize() * fig.dpi / 72  # slanting by 45 degrees


def test_class_maps_show_the_class_of_each_cell():
    "One colour a class, named in the bar; cells without a class stay empty"
    deposits = {
        "west": pd.DataFrame({"deposit": [3], "type": ["MVT"], "x": [5500.0], "y": [85500.0]})
    }
    targets = {"MVT": Target(types=("MVT",))}
    fig = data_plots.class_maps({"west": cube()}, "lithology", deposits, targets)
    code = fig.axes[0].images[0].get_array()
    assert code.mask[0, 0] and code.mask.sum() == 1
    assert (code[1:, :20] == 0).all() and (code[1:, 20:] == 1).all()
    names = [label.get_text() for label in fig.axes[1].get_yticklabels()]
    assert names == ["carbonate", "shale"]
    assert fig.axes[0].get_title() == "west: 1 MVT"
    assert texts(fig.axes[0]) == ["EPSG:3577"]
    assert [entry.get_text() for entry in fig.legends[0].texts] == ["MVT"]


def test_a_cell_of_no_class_stays_empty():
    "A class that the study does not list is none of those it does"
    west = cube()
    west["evidence"][1:, 3, 4] = 0
    fig = data_plots.class_maps({"west": west}, "lithology", {"west": NONE}, {})
    code = fig.axes[0].images[0].get_array()
    assert code.mask[3, 4] and code.mask.sum() == 2


NONE = pd.DataFrame({"deposit": [], "type": [], "x": [], "y": []})


def test_yes_or_no_layers_are_not_classes():
    "The first layer of one-hot planes is found; a flag is not one, and cannot be drawn as one"
    west = cube()
    assert data_plots.class_layer(west) == "lithology"
    flag = west.assign_coords(kind=("layer", ["binary"] * 3)).isel(layer=[0])
    assert data_plots.class_layer(flag) is None
    with pytest.raises(ValueError, match="'gravity' has no planes of classes"):
        data_plots.class_maps({"west": flag}, "gravity", {"west": NONE}, {})


def test_figures_of_a_lazy_cube_compute_a_plane_at_a_time():
    "Never two planes in one go"
    together, whole = [], cube()

    def noted(block, block_info):
        together[-1].add(block_info[0]["chunk-location"][0])
        return block

    lazy = whole.chunk(layer=1, y=20).assign_coords(whole.coords)
    data = lazy["evidence"].data.map_blocks(noted, dtype="float32", meta=np.empty((0, 0, 0)))
    lazy["evidence"] = lazy["evidence"].copy(data=data)
    with Callback(start=lambda graph: together.append(set())):
        data_plots.class_maps({"west": lazy}, "lithology", {"west": NONE}, {})
        data_plots.neighbourhoods(lazy, "MVT", cells=10)
        data_plots.scaled_distributions({"west": lazy}, {"west": lazy}, whole["layer"].values)
    assert max(len(planes) for planes in together) == 1
    assert set.union(*together) == {0, 1, 2}


def test_neighbourhoods_show_the_densest_district():
    "Four cells of two deposits near each other, not the two cells far away"
    fig = data_plots.neighbourhoods(cube(), "MVT", cells=10)
    ax = fig.axes[0]
    assert ax.get_title() == "2 MVT deposits, 4 positive cells"
    code = ax.images[1].get_array()
    assert (~np.ma.getmaskarray(np.ma.masked_invalid(code))).sum() == 4


@pytest.mark.parametrize("half", [0, 1, 4])
def test_the_densest_square_is_that_of_a_count_of_pairs(half):
    "The first positive cell, row by row, with most positive cells about it; edges included"
    rng = np.random.default_rng(half)
    for share in (0.02, 0.3):
        positive = rng.random((17, 23)) < share
        rows, cols = np.nonzero(positive)
        close = (abs(rows[:, None] - rows) <= half) & (abs(cols[:, None] - cols) <= half)
        best = close.sum(axis=1).argmax()
        assert data_plots._densest(positive, half) == (rows[best], cols[best])


def test_deposits_near_each_other_differ_in_colour():
    "A hundred deposits, more than colours: each differs from those at most two cells away"
    number = np.full((15, 60), -1)
    number[::3, ::3] = np.arange(100).reshape(5, 20)
    number[::3, 2::3] = number[::3, ::3]
    number[1::3] = number[::3]
    code = data_plots._colours(number)
    assert set(np.unique(code[number >= 0])) == set(range(20))
    for one, other in combinations(np.argwhere(number >= 0), 2):
        if abs(one - other).max() <= 2 and number[tuple(one)] != number[tuple(other)]:
            assert code[tuple(one)] != code[tuple(other)]
    assert np.isnan(code[number < 0]).all()
    few = number[:3]  # twenty deposits
    assert len(np.unique(data_plots._colours(few)[few >= 0])) == 20


def test_a_region_without_positive_cells_has_no_neighbourhood():
    empty = cube()
    empty["MVT_deposit"][:] = -1
    with pytest.raises(ValueError, match="no cell is positive for 'MVT'"):
        data_plots.neighbourhoods(empty, "MVT")
