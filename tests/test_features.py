import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rasterio.transform import from_origin

from mpm import features
from mpm.windows import make_windows

ROCKS = ["rock=granite", "rock=shale"]


def region(shape=(6, 9), name="west"):
    "A number layer, two classes (west granite, east shale, a column without) and a yes/no layer"
    columns = np.broadcast_to(np.arange(shape[1]), shape)
    rng = np.random.default_rng(len(name))
    planes = [rng.normal(size=shape), columns < 3, columns > 3, columns == 0]
    made = xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), np.array(planes, "float32")),
            "valid": (("y", "x"), np.ones(shape, bool)),
        },
        coords={
            "layer": ["gravity", *ROCKS, "survey"],
            "origin": ("layer", ["gravity", "rock", "rock", "survey"]),
            "x": 500 + 1000.0 * np.arange(shape[1]),
            "y": 5500 - 1000.0 * np.arange(shape[0]),
        },
        attrs={"region": name},
    )
    return made.rio.write_crs(32633).rio.write_transform(from_origin(0, 6000, 1000, 1000))


@pytest.fixture
def cubes():
    return {"west": region(), "east": region((6, 6), "east")}


# ---- lattices


def test_a_lattice_is_even_in_every_region(cubes):
    "Of 90 cells every third row and column from the second: 2 x 3 and 2 x 2"
    windows = make_windows(list(cubes.values()), 3)
    index, step = features.lattice(windows, 10)
    assert step == 3
    places = list(zip(windows.region[index], windows.row[index], windows.col[index], strict=True))
    west = [(0, row, col) for row in (1, 4) for col in (1, 4, 7)]
    assert places == west + [(1, row, col) for row in (1, 4) for col in (1, 4)]


def test_a_lattice_of_more_than_all_is_all(cubes):
    windows = make_windows(list(cubes.values()), 3)
    index, step = features.lattice(windows, 1000)
    assert step == 1 and len(index) == len(windows)


def test_lattice_maps_lie_where_their_cells_lie(cubes):
    "A cell of the map is as wide as three, and has the middle one's value and centre"
    windows = make_windows(list(cubes.values()), 3)
    index, step = features.lattice(windows, 10)
    maps = features.lattice_maps(cubes, windows, index, step, col=windows.col[index])
    assert list(maps) == ["west", "east"]
    np.testing.assert_array_equal(maps["west"]["col"], [[1, 4, 7]] * 2)
    np.testing.assert_array_equal(maps["east"]["col"], [[1, 4]] * 2)
    assert maps["west"].rio.bounds() == (0, 0, 9000, 6000)
    assert maps["west"]["x"].values.tolist() == [1500, 4500, 7500]
    assert maps["west"].rio.crs.to_epsg() == 32633


# ---- components and clusters


def test_components_are_those_of_the_training_windows():
    "Training windows lie along (3, 4) / 5, with 4 times the spread across it that others have"
    rng = np.random.default_rng(0)
    along, across = rng.normal(size=(2, 200))
    axes = np.array([[-3, -4], [4, -3]]) / 5
    train = np.arange(150)
    across[:150] /= 4
    across[150:] *= 100
    own = np.column_stack([along, across]) @ axes + [10, 20]
    scores, share = features.components(own, train, 2)
    # signs: the larger weight of each direction is positive
    wanted = (own - own[train].mean(axis=0)) @ (axes * [[-1], [1]]).T
    assert np.corrcoef(scores[:, 0][train], wanted[:, 0][train])[0, 1] > 0.99
    np.testing.assert_allclose(scores[train].mean(axis=0), 0, atol=1e-9)
    spread = scores[train].var(axis=0)
    np.testing.assert_allclose(share, spread / spread.sum(), rtol=1e-9)
    assert spread[0] > 8 * spread[1] and abs(scores[150:, 1]).max() > 50


def test_held_out_windows_do_not_move_components():
    rng = np.random.default_rng(1)
    own, train = rng.normal(size=(60, 5)), np.arange(40)
    before, _ = features.components(own, train, 3)
    changed = own.copy()
    changed[40:] *= -100
    after, _ = features.components(changed, train, 3)
    np.testing.assert_array_equal(before[train], after[train])


def test_the_sign_of_components_is_fixed():
    "The features turned about give the same picture, not its negative"
    rng = np.random.default_rng(2)
    own = rng.normal(size=(50, 3)) * [5, 2, 1]
    scores, _ = features.components(own, np.arange(50), 3)
    for k in range(3):
        assert np.corrcoef(scores[:, k], own[:, k])[0, 1] > 0.9


def test_too_many_components_are_refused():
    with pytest.raises(ValueError, match=r"4 components .* windows \(3\) .* \(6\); ask for fewer"):
        features.components(np.ones((9, 6)), np.arange(3), 4)


def test_clusters_follow_each_other_along_the_first_component():
    "Three groups about -5, 0 and 9; training windows alone decide where the groups are"
    middles = np.repeat([9, -5, 0], 20)
    scores = np.column_stack([middles, np.zeros(60)]) + np.tile([-0.1, 0.1], 60).reshape(60, 2)
    found = features.clusters(scores, np.arange(60), 3, seed=0)
    assert found.tolist() == [2] * 20 + [0] * 20 + [1] * 20
    # without the group about 9 two are left, and it joins the nearer one
    found = features.clusters(scores, np.arange(20, 60), 2, seed=0)
    assert found.tolist() == [1] * 20 + [0] * 20 + [1] * 20


def test_clusters_are_the_same_at_every_call():
    scores = np.random.default_rng(3).normal(size=(300, 4))
    first, again = (features.clusters(scores, np.arange(200), 6, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_correlations_use_the_cells_that_are_observed():
    "The layer is twice the component where it is observed, its negative, and constant"
    own = np.arange(6.0)
    twice = np.where(own < 4, 2 * own, np.nan)
    values = np.column_stack([twice, -own, np.ones(6)])
    scores = np.column_stack([own, own**2])
    table = features.correlations(scores, values, ["a", "b", "c"])
    assert table.columns.tolist() == [1, 2] and table.index.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(table[1], [1, -1, np.nan])
    assert table.loc["a", 2] == pytest.approx(np.corrcoef(own[:4], own[:4] ** 2)[0, 1])


# ---- classes


def test_layers_of_classes_are_found(cubes):
    "A yes/no layer is none"
    assert features.class_layers(cubes["west"]) == ["rock"]
    assert features.class_layers(cubes["west"].isel(layer=[0, 3])) == []


def test_classes_are_read_at_the_centres(cubes):
    "Granite in columns 0 to 2, shale from 4 on, none in column 3"
    windows = make_windows(list(cubes.values()), 3)
    index = np.flatnonzero(windows.row == 2)
    codes, names = features.class_codes(cubes, windows, index, "rock")
    assert names == ["granite", "shale"]
    west = [0, 0, 0, -1, 1, 1, 1, 1, 1]
    assert codes.tolist() == west + west[:6]


def test_agreement_is_one_for_other_names_and_nil_for_chance():
    "Windows without a class do not count"
    codes = np.array([0, 0, 1, 1, 2, 2, -1, -1])
    assert features.agreement(np.array([5, 5, 3, 3, 4, 4, 5, 3]), codes) == pytest.approx(1)
    rng = np.random.default_rng(4)
    chance = features.agreement(rng.integers(6, size=3000), rng.integers(5, size=3000))
    assert abs(chance) < 0.01
    assert np.isnan(features.agreement(np.zeros(3, int), np.full(3, -1)))


def test_cells_are_counted_by_cluster_and_class():
    "Clusters from 1; a class that no cell has keeps its column, a cluster without classes no row"
    groups, codes = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 2, 2, -1])
    table = features.class_counts(groups, codes, ["granite", "gabbro", "shale"])
    wanted = pd.DataFrame([[2, 0, 1], [0, 0, 1]], index=[1, 2])
    np.testing.assert_array_equal(table, wanted)
    assert table.index.tolist() == [1, 2] and table.index.name == "cluster"
    assert table.columns.tolist() == ["granite", "gabbro", "shale"]


# ---- what features explain


def test_what_is_a_straight_line_of_the_features_is_explained():
    "A sum of features wholly, noise not at all, half noise by half; a constant has no share"
    rng = np.random.default_rng(5)
    own = rng.normal(size=(4000, 3)) * [1, 10, 100]
    line, noise = own @ [1, 0.1, 0.01], 3**0.5 * rng.normal(size=4000)
    values = np.column_stack([line, noise, line + noise, np.ones(4000)])
    values[:, 3] = np.where(np.arange(4000) < 2000, rng.normal(size=4000), 1)
    found = features.explained(own, values, np.arange(2000), np.arange(2000, 4000))
    np.testing.assert_allclose(found[:3], [1, 0, 0.5], atol=0.04)
    assert np.isnan(found[3])


def test_what_holds_in_training_alone_is_not_explained():
    "A relation that turns about in the test cells scores below 0"
    own = np.random.default_rng(6).normal(size=(200, 2))
    values = np.where(np.arange(200) < 100, own[:, 0], -own[:, 0])[:, None]
    found = features.explained(own, values, np.arange(100), np.arange(100, 200))
    assert found[0] < -2


def test_missing_cells_of_one_layer_leave_the_others_alone():
    "Each layer is fitted and scored where it is observed"
    rng = np.random.default_rng(7)
    own = rng.normal(size=(300, 4))
    values = own @ rng.normal(size=(4, 3)) + 0.5 * rng.normal(size=(300, 3))
    parts = np.arange(200), np.arange(200, 300)
    whole = features.explained(own, values, *parts)
    gappy = values.copy()
    gappy[::3, 1] = np.nan
    found = features.explained(own, gappy, *parts)
    np.testing.assert_array_equal(found[[0, 2]], whole[[0, 2]])
    seen = np.flatnonzero(np.isfinite(gappy[:, 1]))
    alone = features.explained(
        own[seen], values[seen, 1:2], *(np.flatnonzero(np.isin(seen, part)) for part in parts)
    )
    assert found[1] == pytest.approx(alone[0]) and found[1] != whole[1]
    gappy[:200, 0] = np.nan
    assert np.isnan(features.explained(own, gappy, *parts)[0])
