import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from mpm import correlation_range
from mpm.correlation_range import finding, of_layers


def make_cube(layers, kinds=None, *, valid=None) -> xr.Dataset:
    "Cells of 2 km"
    names, planes = list(layers), np.array(list(layers.values()), "float32")
    shape = planes.shape[1:]
    return xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), planes),
            "valid": (("y", "x"), np.ones(shape, bool) if valid is None else valid),
        },
        coords={
            "layer": names,
            "kind": ("layer", kinds or ["continuous"] * len(names)),
            "y": -2000.0 * np.arange(shape[0]),
            "x": 2000.0 * np.arange(shape[1]),
        },
    )


def noise(shape=(60, 60), seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_smoothed_noise_is_correlated_as_far_as_it_was_smoothed():
    "Noise smoothed by a Gaussian of s has the correlation exp(-d2 / 4 s2): 1/e at d = 2 s = 16 km"
    planes = [gaussian_filter(noise((160, 160), seed), 4) for seed in range(6)]
    table = of_layers({"north": make_cube({str(k): plane for k, plane in enumerate(planes)})})
    assert table["range_km"].mean() == pytest.approx(16, rel=0.12)


def test_noise_has_no_range_and_a_slope_has_a_long_one():
    "Noise falls below 1/e before its next cell; a slope after a third of the extent or more"
    rows, _ = np.indices((60, 60))
    table = of_layers({"north": make_cube({"noise": noise(), "slope": rows})}).set_index("layer")
    assert table.loc["noise", "range_km"] < 2.0
    assert table.loc["slope", "range_km"] > 40
    assert max(table.loc["slope", "correlations"]) <= 1


def test_a_checkerboard_is_like_its_diagonal_neighbours():
    "Neighbours differ (-1), cells one diagonal apart are equal (1)"
    rows, cols = np.indices((24, 24))
    (row,) = of_layers({"a": make_cube({"board": (rows + cols) % 2})}, lags=24).itertuples()
    curve = dict(zip(np.round(row.lags, 2), row.correlations, strict=True))
    assert curve[2.0] == pytest.approx(-1) and curve[2.83] == pytest.approx(1)


def test_extremes_decide_nothing():
    "Ranks: any rising function of a layer has its curve"
    plane = gaussian_filter(noise(), 2)
    table = of_layers({"a": make_cube({"plain": plane, "steep": np.exp(8 * plane / plane.std())})})
    np.testing.assert_allclose(*table["correlations"], atol=1e-6)


def test_missing_and_invalid_cells_are_left_out():
    "What stands there may be anything"
    plane, valid = gaussian_filter(noise(), 2), noise(seed=1) > -1
    gaps = np.where(noise(seed=2) > 1, np.nan, plane)
    before = of_layers({"a": make_cube({"gaps": gaps}, valid=valid)})
    after = of_layers({"a": make_cube({"gaps": np.where(valid, gaps, 1e6)}, valid=valid)})
    np.testing.assert_array_equal(before["correlations"][0], after["correlations"][0])
    assert np.isfinite(before["range_km"]).all() and len(before["lags"][0]) > 8


def test_layers_are_measured_one_by_one_though_all_at_once():
    "A layer's curve is the same beside another one with gaps"
    plane = gaussian_filter(noise(), 3)
    other = np.where(noise(seed=3) > 0, np.nan, noise(seed=4))
    alone = of_layers({"a": make_cube({"plane": plane})})
    both = of_layers({"a": make_cube({"other": other, "plane": plane})})
    np.testing.assert_allclose(alone["correlations"][0], both["correlations"][1], rtol=1e-12)


def test_regions_and_continuous_layers_have_a_row_each():
    "A constant layer has no range, a layer of zeros and ones no row"
    kinds = ["continuous", "binary", "continuous"]
    layers = {"noise": noise(), "classes": noise() > 0, "constant": np.ones((60, 60))}
    cube = make_cube(layers, kinds)
    table = of_layers({"north": cube, "south": cube}, cells=500)
    rows = table[["region", "layer"]].to_numpy().tolist()
    assert rows == [[region, name] for region in ("north", "south") for name in layers if
                    name != "classes"]  # fmt: skip
    assert table["range_km"].isna().tolist() == [False, True] * 2


def test_the_same_seed_samples_the_same_cells():
    cube = {"a": make_cube({"plane": gaussian_filter(noise(), 2)})}
    one, again, other = (of_layers(cube, cells=400, seed=seed)["range_km"][0] for seed in (1, 1, 2))
    assert one == again != other


def test_the_range_lies_between_the_distances_around_it():
    "From 1 at 0 to 0.5 at 10 to 0 at 20: 1/e at 10 + 10 (0.5 - 1/e) / 0.5"
    found = correlation_range._range(np.array([10.0, 20.0]), np.array([0.5, 0.0]))
    assert found == pytest.approx(10 + 20 * (0.5 - 1 / np.e))
    assert correlation_range._range(np.array([10.0]), np.array([0.5])) == np.inf


def ranges(**km):
    rows = [{"region": "a", "layer": name, "range_km": value} for name, value in km.items()]
    return pd.DataFrame(rows)


def test_a_sentence_says_that_blocks_are_large_enough():
    found = finding(ranges(gravity=30.0, moho=50.0, age=np.nan), 100.0)
    assert found == (
        "half of the 2 continuous layers lose their correlation (below 1/e) within 40 km; blocks "
        "are 100 km wide, wider than the range of every layer."
    )


def test_a_sentence_names_the_layers_that_reach_beyond_a_block():
    "And says plainly what follows when these are most"
    few = finding(ranges(gravity=30.0, moho=np.inf, slope=20.0), 100.0)
    assert "and 1 layers stay correlated beyond that, first of all moho (no end found)." in few
    assert "resemble" not in few
    many = finding(ranges(gravity=300.0, moho=np.inf, slope=20.0), 100.0)
    assert "moho (no end found), gravity (300 km). Test cells still resemble" in many


def test_a_sentence_says_that_no_layer_varies():
    assert finding(ranges(age=np.nan), 100.0).startswith("no continuous layer varies")
