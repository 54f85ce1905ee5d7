import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from helpers import bars
from rasterio.transform import from_origin

from mpm import feature_plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def region(**planes) -> xr.Dataset:
    """Planes of 4 x 6 cells of 10 km."""
    made = xr.Dataset(
        {
            name: (("y", "x"), np.broadcast_to(plane, (4, 6)) * 1.0)
            for name, plane in planes.items()
        },
        coords={"x": 5e3 + 1e4 * np.arange(6), "y": 35e3 - 1e4 * np.arange(4)},
    )
    return made.rio.write_crs(32633).rio.write_transform(from_origin(0, 40e3, 1e4, 1e4))


def drawn(fig) -> list:
    """Axes of a figure that hold a map."""
    return [ax for ax in fig.axes if ax.get_images()]


def test_components_share_a_symmetric_scale_and_name_their_layers():
    "A column a component, a row a region; the layers that go most with it, of either sign"
    ramp = np.linspace(-1, 3, 24).reshape(4, 6)
    maps = {"west": region(pc1=ramp, pc2=-9 * ramp), "far_east": region(pc1=-2 * ramp, pc2=ramp)}
    meanings = pd.DataFrame(
        {1: [0.1, -0.8, 0.5, np.nan], 2: [0.9, 0.0, -0.2, np.nan]},
        index=["a", "b_c", "rock=d", "flat"],
    )
    fig = feature_plots.component_maps(maps, [0.4, 0.25], meanings)
    first, second, third, fourth = drawn(fig)
    assert first.get_title() == "component 1 (40% of the variance)\nb c -0.80\nrock: d +0.50"
    assert second.get_title() == "component 2 (25% of the variance)\na +0.90\nrock: d -0.20"
    assert (first.get_ylabel(), third.get_ylabel()) == ("west", "far east")
    np.testing.assert_array_equal(first.get_images()[0].get_array(), ramp)
    for above, below in [(first, third), (second, fourth)]:
        low, high = above.get_images()[0].get_clim()
        assert low == -high and below.get_images()[0].get_clim() == (low, high)
    values = np.abs([ramp, -2 * ramp])
    assert first.get_images()[0].get_clim()[1] == pytest.approx(np.percentile(values, 98))


def test_clusters_are_drawn_above_classes():
    "A colour each, the same in all regions; ground without a class stays grey"
    cluster, code = np.array([1, 1, 2, 2, 3, 3]), np.array([0, 1, 1, 0, 0, np.nan])
    maps = {"west": region(cluster=cluster, code=code), "east": region(cluster=2, code=0)}
    fig = feature_plots.cluster_maps(maps, ("rock_type", ["granite", "shale"]))
    titles = [ax.get_title() for ax in drawn(fig)]
    assert titles == ["west: clusters", "east: clusters", "west: rock type", "east: rock type"]
    ticks = [[label.get_text() for label in bar.ax.get_yticklabels()] for bar in bars(fig)]
    assert ticks == [["1", "2", "3"], ["granite", "shale"]]
    clusters, _, classes, _ = (ax.get_images()[0] for ax in drawn(fig))
    numbers = clusters.norm(np.array([1, 2, 3]))
    assert numbers.tolist() == [0, 1, 2] and clusters.cmap.N == 3
    assert classes.norm(np.array([0, 1])).tolist() == [0, 1]
    assert np.ma.getmaskarray(classes.get_array())[:, 5].all()
    assert clusters.get_extent() == [0, 60, 0, 40]


def test_clusters_stand_alone_without_classes():
    fig = feature_plots.cluster_maps({"west": region(cluster=1)}, None)
    assert [ax.get_title() for ax in drawn(fig)] == ["west: clusters"]


def test_the_table_shows_shares_of_each_cluster_and_its_size():
    counts = pd.DataFrame([[3, 1], [0, 5]], index=[1, 4], columns=["granite", "shale"])
    ax = feature_plots.class_table(counts, layer="rock_type").axes[0]
    assert [text.get_text() for text in ax.texts] == ["75", "25", "0", "100"]
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows == ["1 (4 cells)", "4 (5 cells)"]
    assert ax.get_xlabel() == "rock type"


def test_layers_explained_tell_more_from_less():
    "The greatest gain on top; layers that neither explains for want of data are left out"
    table = pd.DataFrame(
        {"pretrained": [0.5, 0.9, np.nan, -0.2], "random": [0.6, 0.4, 0.1, -0.3]},
        index=["a_b", "c", "d", "e"],
    )
    (ax,) = feature_plots.layers_explained(table).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a b", "e", "c"]
    found = {line.get_label(): line.get_data() for line in ax.lines}
    np.testing.assert_allclose(found["random network"], [[0.6, -0.3, 0.4], [0, 1, 2]])
    np.testing.assert_allclose(found["pretrained, more"], [[-0.2, 0.9], [1, 2]])
    np.testing.assert_allclose(found["pretrained, less"], [[0.5], [0]])
    assert ax.get_xlim()[0] < -0.3 and ax.get_ylim()[0] < ax.get_ylim()[1]


def test_differences_are_coloured_by_what_their_intervals_say():
    "Above 0 blue, below orange, else grey; a panel a target, lines by head, hollow where one seed"
    columns = ["study", "target", "split", "metric", "variant", "head", "seeds", "difference"]
    columns += ["difference_low", "difference_high"]
    rows = [
        ("toy", "MVT", "blocks", "auc", "good", "probe", 3, 0.2, 0.1, 0.3),
        ("toy", "MVT", "blocks", "auc", "chance", "full", 3, 0.0, 0.0, 0.0),
        ("toy", "MVT", "blocks", "auc", "bad", "full", 1, -0.2, -0.3, -0.1),
        ("toy", "CD", "blocks", "auc", "other", "probe", 3, 0.1, -0.1, 0.3),
    ]
    fig = feature_plots.differences(pd.DataFrame(rows, columns=columns), control="chance")
    assert [ax.get_title() for ax in fig.axes] == ["toy\nMVT, blocks", "toy\nCD, blocks"]
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert names == ["good, probe", "other, probe", "chance, full", "bad, full"]
    points = [ax.collections[1] for ax in fig.axes]
    assert points[0].get_offsets().tolist() == [[0.2, 0], [-0.2, 3]]
    held = fig.axes[0].lines[0]
    assert (held.get_xdata().tolist(), held.get_ydata().tolist()) == ([0.0], [2])
    rgba = plt.matplotlib.colors.to_rgba
    edges = [tuple(color) for part in points for color in part.get_edgecolors()]
    assert edges == [rgba(color) for color in ("C0", "C3", "0.45")]
    faces = [tuple(color) for part in points for color in part.get_facecolors()]
    assert faces == [rgba(color) for color in ("C0", "white", "0.45")]
    assert fig.axes[0].get_xlim() == fig.axes[1].get_xlim()
    assert fig.get_supxlabel() == "AUC, difference to chance; hollow: one seed"
