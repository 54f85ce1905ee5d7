import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from toy_splits import everywhere, make_cube

from mpm import split_plots
from mpm.leaks import Split


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def two_regions():
    valid = everywhere(6, 6)
    valid[0, 0] = False
    return {"north": make_cube(valid, [(2, 2)]), "far_south": make_cube(everywhere(6, 6), [])}


def halves(cubes):
    "Fold 0 in the west, fold 1 in the east of each region"
    halved = np.repeat([[0, 0, 0, 1, 1, 1]], 6, axis=0)
    return [np.where(cube["valid"], halved, -1) for cube in cubes.values()]


def first_fold(cubes):
    "West tested, the two eastern columns train: one column between is the dead zone"
    numbers, nothing = halves(cubes), np.zeros((6, 6), bool)
    train = nothing.copy()
    train[:, 4:] = True
    return Split((train,) * 2, (nothing,) * 2, tuple(number == 0 for number in numbers))


def drawn(cubes=None, kinds=("blocks",), first=True):
    cubes = cubes or two_regions()
    own = pd.DataFrame({"x": [502_500.0], "y": [5_003_500.0]})
    splits = {kind: first_fold(cubes) for kind in kinds} if first else {}
    numbers = {kind: halves(cubes) for kind in kinds}
    return split_plots.fold_maps(cubes, numbers, splits, {region: own for region in cubes})


def test_cells_have_the_colour_of_the_fold_that_tests_them():
    "West and east differ, and no fold has the colour of cells that are not valid"
    image = drawn().axes[0].get_images()[0]
    shown = image.to_rgba(image.get_array(), norm=True)[..., :3]
    np.testing.assert_allclose(shown[3, 0], to_rgb(split_plots.FOLD_COLORS[0]), atol=0.01)
    np.testing.assert_allclose(shown[3, 5], to_rgb(split_plots.FOLD_COLORS[1]), atol=0.01)
    assert image.get_array().mask.tolist() == [[True] + [False] * 5] + [[False] * 6] * 5


def test_kinds_go_down_and_regions_across():
    fig = drawn(kinds=("blocks", "latitude"))
    assert [ax.get_title() for ax in fig.axes] == ["north", "far south", "", ""]
    labels = [ax.get_ylabel().split(":")[0] for ax in fig.axes]
    assert labels == ["blocks", "", "latitude", ""]


def test_kinds_go_across_if_there_is_one_region():
    cubes = {"north": two_regions()["north"]}
    fig = drawn(cubes, kinds=("blocks", "latitude"))
    left, right = (ax.get_subplotspec() for ax in fig.axes)
    assert (left.rowspan, left.colspan.start) == (right.rowspan, right.colspan.start - 1)


def test_the_dead_zone_is_hatched_where_the_first_fold_is_known():
    "Between the middles of columns 2 and 4, that is the fourth of six"
    (zone,) = drawn().axes[1].collections
    assert zone.hatches == [split_plots.HATCH]
    x = np.concatenate([path.vertices[:, 0] for path in zone.get_paths()])
    assert (x.min(), x.max()) == pytest.approx((503.0, 504.0), abs=0.01)
    assert not drawn(first=False).axes[1].collections


def test_cells_that_validate_the_first_fold_are_dotted():
    cubes = {"far_south": two_regions()["far_south"]}
    held = np.zeros((6, 6), bool)
    held[:, 3] = True
    split = Split((~held,), (held,), (held & False,))
    numbers = {"blocks": [held.astype(int)]}
    deposits = {"far_south": pd.DataFrame({"x": [], "y": []})}
    fig = split_plots.fold_maps(cubes, numbers, {"blocks": split}, deposits)
    assert [zone.hatches for zone in fig.axes[0].collections] == [[split_plots.VALIDATION]]


def test_deposits_are_hollow_circles():
    (marks,) = (line for line in drawn().axes[0].get_lines() if line.get_marker() == "o")
    assert marks.get_xydata().tolist() == [[502.5, 5003.5]]
    assert marks.get_markerfacecolor() == "none"


def test_the_legend_names_folds_and_the_dead_zone():
    (legend,) = drawn().legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "fold 0",
        "1",
        "dead zone of fold 0",
        "validates fold 0",
    ]
    (legend,) = drawn(first=False).legends
    assert [text.get_text() for text in legend.get_texts()] == ["fold 0", "1"]


def test_more_folds_than_colours_are_refused():
    cubes = two_regions()
    many = [np.arange(36).reshape(6, 6) % 9] * 2
    with pytest.raises(ValueError, match="9 folds of 'blocks': eight colours"):
        split_plots.fold_maps(cubes, {"blocks": many}, {}, dict.fromkeys(cubes, None))


def curves():
    "Of the first layer the correlation reaches beyond a block of 20 km; a third is constant"
    rows = [
        {"region": "far_south", "layer": "moho", "range_km": 30.0, "correlations": [0.9, 0.2]},
        {"region": "far_south", "layer": "slope", "range_km": 10.0, "correlations": [0.3, 0.1]},
        {"region": "far_south", "layer": "age", "range_km": np.nan, "correlations": [0.0, 0.0]},
    ]
    return pd.DataFrame(rows).assign(lags=[[5.0, 40.0]] * 3)


def test_curves_that_reach_beyond_a_block_stand_out():
    (ax,) = split_plots.correlation_ranges(curves(), 20.0).axes
    drawn = {tuple(line.get_ydata()): line.get_color() for line in ax.get_lines()}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Moho depth"]
    assert drawn[0.9, 0.2] == "C3" and drawn[0.3, 0.1] != "C3" and (0.0, 0.0) not in drawn
    assert ax.get_title() == "far south: 1 of 2 layers reach beyond a block"
    assert ax.get_xlabel() == "distance (km)"


def test_the_block_side_and_the_level_are_drawn():
    (ax,) = split_plots.correlation_ranges(curves(), 20.0).axes
    assert any(list(line.get_xdata()) == [20.0, 20.0] for line in ax.get_lines())
    levels = [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert levels == [pytest.approx(1 / np.e)]
    assert {text.get_text().strip() for text in ax.texts} == {"block side, 20 km", "1/e"}
