import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from helpers import bars, texts
from matplotlib.colors import to_rgb

from mpm import explain_plots, plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def maps(ax):
    return ax.get_images()


def cube() -> xr.Dataset:
    """Three layers on 4 x 5 cells of 1 km; the likelihood has a gap where the first layer has."""
    evidence = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    evidence[0, 0] = np.nan
    grid = {"y": 3500.0 - 1000 * np.arange(4), "x": 500.0 + 1000 * np.arange(5)}
    planes = {"plane": (("y", "x"), evidence), "likelihood": (("y", "x"), abs(evidence))}
    planes["valid"] = (("y", "x"), ~np.isnan(evidence))
    return xr.Dataset(planes, coords=grid).rio.write_crs(32633)


def test_importances_are_shares_in_one_order():
    "Each panel sums to 100 %, the largest on average on top; roles give the colours"
    fig = explain_plots.importance_bars(
        {
            "IG": pd.Series({"faults": 3.0, "noise": 1.0}),
            "SHAP": pd.Series({"noise": 1.0, "faults": 1.0}),
        },
        roles={"faults": "causal", "noise": "distractor"},
    )
    left, right = fig.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["noise", "faults"]
    assert [bar.get_width() for bar in left.patches] == [25, 75]
    assert [bar.get_width() for bar in right.patches] == [50, 50]
    assert to_rgb(left.patches[1].get_facecolor()) == to_rgb("C2")
    assert left.get_xlabel() == "share of all contributions (%)"
    assert left.get_xlim() == right.get_xlim(), "bars of one length mean one share"
    legend = [text.get_text() for text in right.get_legend().get_texts()]
    assert legend == ["causal", "proxy", "distractor"]


def attributed() -> xr.Dataset:
    """Contributions of one plane of gravity and two of rock; the gap was not explained."""
    plane = cube()["plane"]
    planes = xr.concat([plane, 0 * plane + 2, 0 * plane - 0.5], "layer", coords="minimal")
    made = xr.Dataset({"attribution": planes})
    made["likelihood"] = cube()["likelihood"]
    return made.rio.write_crs(32633)


def test_planes_of_a_layer_are_summed_where_they_were_explained():
    "2 - 0.5 in every explained cell, nothing (not 0) in the others"
    found = explain_plots.layer_attribution(
        attributed(), "rock", ["gravity", "rock", "rock"]
    ).values
    gap = np.isnan(cube()["plane"].values)
    assert (found[~gap] == 1.5).all() and np.isnan(found[gap]).all()


def test_attribution_maps_share_one_symmetric_scale():
    "Layers across, regions down, zero in the middle"
    made = attributed()
    fig = explain_plots.attribution_maps(
        {"west": made, "east": made}, ["gravity", "rock"], ["gravity", "rock", "rock"]
    )
    panels = [ax for ax in fig.axes if maps(ax)]
    titles = ["west: gravity", "west: rock", "east: gravity", "east: rock"]
    assert [ax.get_title() for ax in panels] == titles
    (low, high), *rest = (maps(ax)[0].get_clim() for ax in panels)
    assert low == -high and set(rest) == {(low, high)}
    top = np.nanpercentile(np.abs(cube()["plane"]), 98)
    assert high == pytest.approx(max(1.5, top))
    assert [bar.ax.get_ylabel() for bar in bars(fig)] == [
        "raises (red) or lowers (blue) the score (log of the odds)"
    ]
    greys = {float(np.nanmax(maps(ax)[1].get_array().filled(np.nan))) for ax in panels}
    assert greys == {plots.UNEXPLAINED}, "mid-grey, not the white of no contribution"


def test_a_region_without_an_explained_cell_spoils_no_scale():
    "Its panel is empty; the others keep theirs, deposits are hollow black circles"
    made, empty = attributed(), attributed()
    empty["attribution"] = empty["attribution"] * np.nan
    known = pd.DataFrame({"x": [1500.0], "y": [2500.0]})
    fig = explain_plots.attribution_maps(
        {"west": empty, "east": made}, ["rock"], ["gravity", "rock", "rock"],
        deposits={"west": known, "east": known},
    )  # fmt: skip
    panels = [ax for ax in fig.axes if maps(ax)]
    assert {maps(ax)[0].get_clim() for ax in panels} == {(-1.5, 1.5)}
    marks = [line for ax in panels for line in ax.lines]
    assert {(m.get_markerfacecolor(), m.get_markeredgecolor()) for m in marks} == {
        ("none", "black")
    }
    alone = explain_plots.attribution_maps({"west": empty}, ["rock"], ["gravity", "rock", "rock"])
    assert maps(alone.axes[0])[0].get_clim() == (-1, 1)


def test_cells_of_a_coarse_grid_stand_for_their_blocks():
    "Of 4 x 5 cells in blocks of 2; explained cells keep their own, unpredicted ones nothing"
    plane = xr.full_like(cube()["plane"], np.nan)
    plane[1, 1], plane[1, 3], plane[3, 1], plane[0, 1] = 1, 2, 3, 9
    ground = xr.full_like(plane, 1.0)
    ground[2, 0] = np.nan
    nan = np.nan
    expected = [[1, 9, 2, 2, nan], [1, 1, 2, 2, nan], [nan, 3, nan, nan, nan], [3, 3] + [nan] * 3]
    np.testing.assert_array_equal(explain_plots.over_blocks(plane, ground, 2), expected)
    assert explain_plots.over_blocks(plane, ground, 0) is plane


def test_group_maps_sum_the_layers_of_a_group():
    "1.5 of rock and the gravity plane in one group are drawn as their sum"
    owner = {"gravity": "all", "rock": "all"}
    fig = explain_plots.group_maps({"west": attributed()}, owner, ["gravity", "rock", "rock"])
    drawn = maps(fig.axes[0])[0].get_array().filled(np.nan)
    np.testing.assert_allclose(drawn, cube()["plane"] + 1.5)
    assert fig.axes[0].get_title() == "west: all"


# Single cells as dots


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype=float)


def test_a_beeswarm_puts_the_most_important_layer_on_top():
    "A dot a cell at its contribution, coloured by the rank of its value, grey without one"
    spoken = table(small=[0.1, -0.1, 0.0], large=[1.0, -2.0, 3.0], rock=[0.5, 0.5, 0.5])
    values = table(small=[1, 2, 3], large=[30, 10, np.nan])
    ax = plt.subplots()[1]
    explain_plots.beeswarm(spoken, values, ax, title="network")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["small", "rock", "large"]
    unknown, known = ax.collections[-2:]  # of the layer on top
    assert known.get_offsets()[:, 0].tolist() == [1, -2]
    assert known.get_array().tolist() == [1, 0.5]  # 30 is above 10
    assert unknown.get_offsets()[:, 0].tolist() == [3]
    rock = ax.collections[2].get_offsets()
    assert len(set(rock[:, 1])) == 3  # beside each other, not one upon the other
    assert abs(rock[:, 1] - 1).max() < 0.5


def test_only_the_leading_layers_are_drawn():
    ax = plt.subplots()[1]
    spoken = table(a=[1, 2], b=[5, 6], c=[3, 4])
    explain_plots.beeswarm(spoken, spoken, ax, title="", layers=2)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "b"]


def test_dependence_is_drawn_in_readable_units():
    "Metres of a continent become kilometres; every method's dots at the same values"
    values = table(fault_distance=[0, 50_000])
    spoken = {"network": table(fault_distance=[1, -1]), "trees": table(fault_distance=[2, 0])}
    fig = explain_plots.dependence(spoken, values, {"fault_distance": "m"}, ["fault_distance"])
    network, trees = fig.axes[0].lines[:2]
    assert network.get_xdata().tolist() == trees.get_xdata().tolist() == [0, 50]
    assert trees.get_ydata().tolist() == [2, 0]
    assert fig.axes[0].get_xlabel() == "fault distance (km)"


def test_kinds_are_cells_and_their_parts_bars():
    "Cells of each kind in its colour, known deposits hollow; bars as long as the contributions"
    west = cube()
    kind = xr.full_like(west["plane"], np.nan)
    kind[1, 2], kind[3, 0], kind[3, 1] = 1, 2, 2
    parts = table(source=[1, -0.5], trap=[0.25, 0]).set_axis([1, 2])
    known = pd.DataFrame({"x": [4500.0], "y": [3500.0]})
    fig = explain_plots.kind_maps({"west": west}, {"west": kind}, parts, {"west": known})
    place, bar = fig.axes
    drawn, ground = maps(place)
    np.testing.assert_array_equal(drawn.get_array().filled(np.nan), kind)
    colors = [to_rgb(drawn.cmap(drawn.norm(k))) for k in (1, 2)]
    assert colors == [to_rgb(bar.patches[k].get_facecolor()) for k in (0, 2)]
    assert (~ground.get_array().mask == west["valid"]).all()
    assert "EPSG:32633" in texts(place)
    (deposits,) = place.lines
    assert (deposits.get_xdata(), deposits.get_ydata()) == ([4.5], [3.5])
    assert deposits.get_markerfacecolor() == "none"
    assert [patch.get_width() for patch in bar.patches] == [1, 0.25, -0.5, 0]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["source", "trap"]
