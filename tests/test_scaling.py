import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mpm.artefacts import read_json, write_json
from mpm.leaks import unpack
from mpm.scaling import (
    ABSENT,
    CONSTANT,
    FENCES_OFF,
    NO_OBSERVATION,
    SKEWED,
    Scaling,
    apply_scaling,
    fit_scaling,
    report,
)


def make_cube(layers: dict[str, np.ndarray], binary: tuple[str, ...] = ()) -> xr.Dataset:
    """A cube from rasters (y, x)."""
    names = list(layers)
    evidence = np.stack([np.asarray(layers[name], dtype="float32") for name in names])
    kind = ["binary" if name in binary else "continuous" for name in names]
    return xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence, {"long_name": "evidence"}),
            "valid": (("y", "x"), np.ones(evidence.shape[1:], dtype=bool)),
        },
        coords={
            "layer": names,
            "kind": ("layer", kind),
            "units": ("layer", ["nT"] * len(names)),
            "y": np.arange(evidence.shape[1])[::-1] * 1000.0,
            "x": np.arange(evidence.shape[2]) * 1000.0,
        },
        attrs={"region": "here"},
    )


@pytest.fixture
def cube() -> xr.Dataset:
    values = np.arange(9.0) - 4
    values[8] = 1000
    return make_cube({"magnetics": values.reshape(3, 3), "granite": [[0, 1, 0]] * 3}, ("granite",))


EVERYWHERE = np.ones((3, 3), dtype=bool)


def test_fences_mean_and_std_by_hand(cube):
    "-4..3 and 1000 have quartiles -2 and 2, so fences -2 - 12 and 2 + 12"
    scaling = fit_scaling([cube], [EVERYWHERE])
    clipped = np.array([-4, -3, -2, -1, 0, 1, 2, 3, 14.0])
    assert scaling.layers == ("magnetics", "granite")
    assert (scaling.low[0], scaling.high[0]) == (-14.0, 14.0)
    assert scaling.mean[0] == pytest.approx(10 / 9) == scaling.fill[0]
    assert scaling.std[0] == pytest.approx(clipped.std())
    scaled = apply_scaling(cube, scaling)["evidence"].sel(layer="magnetics").values.ravel()
    np.testing.assert_allclose(scaled, (clipped - 10 / 9) / clipped.std(), rtol=1e-5)
    assert fit_scaling([cube], [EVERYWHERE], k=1.5).high[0] == 8.0


def test_binary_layers_stay_as_they_are(cube):
    scaling = fit_scaling([cube], [EVERYWHERE])
    assert scaling.binary == (False, True)
    assert (scaling.mean[1], scaling.std[1], scaling.high[1]) == (0.0, 1.0, math.inf)
    scaled = apply_scaling(cube, scaling)["evidence"].sel(layer="granite")
    np.testing.assert_array_equal(scaled, cube["evidence"].sel(layer="granite"))


def test_scaling_keeps_the_rest_of_the_cube_and_its_argument(cube):
    before = cube.copy(deep=True)
    scaled = apply_scaling(cube, fit_scaling([cube], [EVERYWHERE]))
    xr.testing.assert_identical(cube, before)
    assert scaled["evidence"].dtype == np.float32
    assert scaled["evidence"].dims == ("layer", "y", "x")
    assert scaled["evidence"].attrs == cube["evidence"].attrs
    assert scaled.attrs["region"] == "here"
    assert "training" in scaled.attrs["scaled"]
    xr.testing.assert_identical(scaled["valid"], cube["valid"])
    xr.testing.assert_identical(scaled["units"], cube["units"])


def test_missing_stays_missing(cube):
    cube["evidence"][0, 0, 0] = np.nan
    cube["evidence"][0, 0, 1] = np.inf
    scaling = fit_scaling([cube], [EVERYWHERE])
    assert scaling.mean[0] == pytest.approx((-2 - 1 + 0 + 1 + 2 + 3 + scaling.high[0]) / 7)
    scaled = apply_scaling(cube, scaling)["evidence"][0].values
    assert np.isnan(scaled[0, :2]).all()
    assert np.isfinite(scaled.ravel()[2:]).all()


anything = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    numbers=arrays("float32", (2, 2, 6, 6), elements=anything),
    classes=arrays("float32", (2, 1, 6, 6), elements=st.sampled_from([0, 1, np.nan])),
)
def test_cells_outside_the_masks_leave_the_scaling_unchanged(seed, numbers, classes):
    "No leakage: test cells of both regions may hold anything, and nothing fitted changes"
    rng = np.random.default_rng(seed)
    cubes, others = [], []
    masks = rng.random((2, 6, 6)) < 0.4
    masks[0, 0, 0] = True
    for mask, strange in zip(masks, np.concatenate([numbers, classes], axis=1), strict=True):
        layers = {"a": rng.normal(size=(6, 6)), "b": rng.lognormal(2, size=(6, 6))}
        cube = make_cube(layers | {"c": rng.random((6, 6)) < 0.05}, ("c",))
        other = cube.copy(deep=True)
        other["evidence"].values[:] = np.where(mask, cube["evidence"].values, strange)
        cubes.append(cube)
        others.append(other)
    assert fit_scaling(cubes, masks) == fit_scaling(others, masks)


@pytest.mark.parametrize("sign", [np.positive, np.abs])
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=9, max_size=9),
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=9, max_size=9),
)
def test_a_larger_value_never_scales_smaller(sign, trained, applied):
    "Clipping and logarithm keep the order, also of values never seen in training"
    train = make_cube({"a": np.reshape(sign(trained), (3, 3))})
    test = make_cube({"a": np.sort(applied).reshape(3, 3)})
    scaled = apply_scaling(test, fit_scaling([train], [EVERYWHERE]))["evidence"].values.ravel()
    assert np.isfinite(scaled).all()
    assert (np.diff(scaled.astype("float64")) >= 0).all()


# ---- skewed, constant, absent and missing layers


@pytest.fixture
def distances() -> xr.DataArray:
    "Median 4 km; the first decile is 3.2 km below it, the last 172 km above"
    return make_cube({"fault_distance": np.reshape([0, 1, 2, 3, 4, 40, 80, 120, 400], (3, 3))})


def test_a_skewed_layer_is_scaled_as_a_logarithm(distances):
    "log(1 + v / 4): quartiles log 1.5 and log 21, 3 log 14 apart from the fences, in km again"
    scaling = fit_scaling([distances], [EVERYWHERE])
    assert (scaling.transform, scaling.scale, scaling.notes) == (("log",), (4.0,), (SKEWED,))
    assert scaling.low == (0.0,)
    assert scaling.high[0] == pytest.approx(4 * (21 * 14**3 - 1))
    logs = np.log([1, 1.25, 1.5, 1.75, 2, 11, 21, 31, 101])
    assert (scaling.mean[0], scaling.std[0]) == (
        pytest.approx(logs.mean()),
        pytest.approx(logs.std()),
    )
    assert scaling.fill[0] == pytest.approx(4 * (np.exp(logs.mean()) - 1))
    scaled = apply_scaling(distances, scaling)["evidence"].values.ravel()
    np.testing.assert_allclose(scaled, (logs - logs.mean()) / logs.std(), rtol=1e-5)


def test_the_fill_scales_to_zero_and_values_out_of_range_to_the_fences(distances):
    "Negative values elsewhere, where no logarithm is, count as 0"
    scaling = fit_scaling([distances], [EVERYWHERE])
    elsewhere = make_cube({"fault_distance": [[scaling.fill[0], -1, -1e9, 0, 1e30]]})
    scaled = apply_scaling(elsewhere, scaling)["evidence"].values.ravel()
    assert scaled[0] == pytest.approx(0, abs=1e-6)
    assert scaled[1] == scaled[2] == scaled[3] == pytest.approx(-scaling.mean[0] / scaling.std[0])
    highest = np.log1p(scaling.high[0] / 4)
    assert scaled[4] == pytest.approx((highest - scaling.mean[0]) / scaling.std[0])


@pytest.mark.parametrize(
    ("values", "skewed"),
    [
        (np.arange(101.0), False),  # even: the deciles are as far from the median
        (np.arange(101.0) ** 2, False),  # 2500 - 100 below, 8100 - 2500 above
        (np.arange(101.0) ** 4, True),  # 6.25e6 - 1e4 below, 65.6e6 - 6.25e6 above
        (np.arange(101.0) ** 4 - 1, False),  # has a sign
        (np.r_[np.arange(100.0), 1e9], False),  # one outlier is no skew
        (np.r_[np.ones(95), 2, 3, 4, 5, 6], True),  # a tail above one value
        (np.r_[np.ones(95), 0, 0, 0, 0, 0], False),  # and below
    ],
)
def test_which_layers_are_skewed(values, skewed):
    "The last decile must lie three times as far from the median as the first"
    scaling = fit_scaling([make_cube({"a": values[None]})], [np.ones((1, len(values)), bool)])
    assert scaling.transform == ("log" if skewed else "",)


def test_a_constant_layer_becomes_zero_in_every_region():
    scaling = fit_scaling([make_cube({"a": np.full((3, 3), 0.1)})], [EVERYWHERE])
    assert scaling.notes == (CONSTANT,)
    assert scaling.std == (1.0,)
    elsewhere = make_cube({"a": [[0.1, 5000.0, np.nan]]})
    scaled = apply_scaling(elsewhere, scaling)["evidence"].values.ravel()
    np.testing.assert_array_equal(scaled, [0, 0, np.nan])


def test_a_layer_without_observations_is_missing_everywhere(cube):
    "Its scale is unknown, so values elsewhere cannot be used"
    cube["evidence"][0] = np.nan
    scaling = fit_scaling([cube], [EVERYWHERE])
    assert scaling.notes[0] == NO_OBSERVATION
    elsewhere = make_cube({"magnetics": [[1, 2]], "granite": [[0, 1]]}, ("granite",))
    scaled = apply_scaling(elsewhere, scaling)["evidence"].values
    assert np.isnan(scaled[0]).all()
    np.testing.assert_array_equal(scaled[1], [[0, 1]])


def test_a_zero_inflated_layer_keeps_its_tail():
    "Median 0, so that of the values above it, 2.5, is the scale"
    values = np.zeros(100)
    values[-4:] = [1, 2, 3, 50]
    sparse = make_cube({"a": values.reshape(10, 10)})
    scaling = fit_scaling([sparse], [np.ones((10, 10), dtype=bool)])
    assert scaling.notes == (f"{SKEWED}; {FENCES_OFF}",)
    assert (scaling.scale, scaling.low, scaling.high) == ((2.5,), (0.0,), (math.inf,))
    scaled = apply_scaling(sparse, scaling)["evidence"].values.ravel()
    assert len(np.unique(scaled)) == 5
    assert scaled.std() == pytest.approx(1, rel=1e-5)


def test_a_class_never_or_always_seen_in_training_says_nothing_elsewhere():
    "What a method never saw cannot move it: absent stays absent, present stays present"
    train = make_cube({"karst": np.zeros((3, 3)), "rock": np.ones((3, 3))}, ("karst", "rock"))
    scaling = fit_scaling([train], [EVERYWHERE])
    assert scaling.notes == (ABSENT, CONSTANT)
    elsewhere = make_cube({"karst": [[0, 1, np.nan]], "rock": [[0, 1, np.nan]]}, ("karst", "rock"))
    scaled = apply_scaling(elsewhere, scaling)["evidence"].values
    np.testing.assert_array_equal(scaled, [[[0, 0, np.nan]], [[1, 1, np.nan]]])


def test_a_layer_missing_in_one_region_is_scaled_by_the_others_and_told():
    "Only training cells say so: a region without any is not named"
    whole = make_cube({"a": np.arange(9.0).reshape(3, 3)})
    gap = make_cube({"a": np.full((3, 3), np.nan)}).assign_attrs(region="south")
    both = fit_scaling([whole, gap], [EVERYWHERE, EVERYWHERE])
    assert both.notes == ("missing in south",)
    assert both.mean == fit_scaling([whole], [EVERYWHERE]).mean == (4.0,)
    assert fit_scaling([whole, gap], [EVERYWHERE, ~EVERYWHERE]).notes == ("",)
    assert fit_scaling([gap], [EVERYWHERE]).notes == (NO_OBSERVATION,)


def test_the_report_tells_what_becomes_of_each_layer(cube):
    "Of 6 observed valid cells near, one lies beyond the fences; far, both do: 3 of 8"
    far = cube.isel(y=[0]).copy(deep=True)
    far["evidence"][0] = [[-99, 99, np.nan]]
    near = cube.assign(valid=(("y", "x"), np.arange(9).reshape(3, 3) > 2))
    scaling = fit_scaling([cube], [EVERYWHERE])
    table = report({"near": near, "far": far}, scaling).set_index("layer")
    assert table.loc["magnetics", ["low", "high", "clipped"]].tolist() == [-14, 14, 37.5]
    assert table.loc["magnetics", "mean"] == scaling.mean[0]
    assert table.loc["magnetics", "missing in near"] == 0
    assert table.loc["magnetics", "missing in far"] == pytest.approx(100 / 3)
    assert table.loc["granite", ["transform", "clipped", "std", "note"]].tolist() == ["", 0, 1, ""]
    with pytest.raises(ValueError, match="the cube of near is scaled already"):
        report({"near": apply_scaling(near, scaling)}, scaling)
    with pytest.raises(ValueError, match="the cube of far lacks granite"):
        report({"far": far.isel(layer=[0])}, scaling)


def test_chunked_cubes_are_scaled_as_those_in_memory(cube):
    "Chunks of one and two layers, cut anywhere; nothing is computed before it is asked for"
    rng = np.random.default_rng(2)
    layers = {"a": rng.normal(size=(7, 5)), "b": rng.lognormal(2, size=(7, 5))}
    layers |= {"c": rng.random((7, 5)) < 0.5, "d": np.full((7, 5), np.nan)}
    whole = make_cube(layers, ("c",))
    whole["evidence"][:, 2:4, 3] = np.nan
    mask = rng.random((7, 5)) < 0.6
    scaling = fit_scaling([whole], [mask])
    scaled = apply_scaling(whole, scaling)
    for chunks in ({"layer": 1, "y": 3, "x": 2}, {"layer": (1, 2, 1), "y": 7, "x": 4}):
        lazy = whole.chunk(chunks)
        assert fit_scaling([lazy], [mask]) == scaling
        found = apply_scaling(lazy, scaling)
        assert found["evidence"].chunks == lazy["evidence"].chunks
        assert found["evidence"].dtype == np.float32
        xr.testing.assert_identical(found.compute(), scaled)


def test_two_regions_equal_their_concatenation():
    rng = np.random.default_rng(1)
    whole = make_cube({"a": rng.normal(size=(6, 4)), "b": rng.gamma(1, size=(6, 4))})
    mask = rng.random((6, 4)) < 0.7
    north, south = whole.isel(y=slice(0, 2)), whole.isel(y=slice(2, None))
    assert fit_scaling([north, south], [mask[:2], mask[2:]]) == fit_scaling([whole], [mask])


def test_round_trip_through_json(cube, tmp_path):
    scaling = fit_scaling([cube], [EVERYWHERE])
    path = tmp_path / "scaling.json"
    scaling.save(path)
    assert Scaling.load(path) == scaling
    assert "NaN" not in path.read_text()
    assert "Infinity" not in path.read_text()
    assert read_json(path)["high"] == [14.0, None]


def test_a_scaling_remembers_the_cells_it_was_fitted_on(cube, tmp_path):
    "Also from its file; a file of a former version does not know"
    mask = EVERYWHERE.copy()
    mask[0, 0] = False
    path = tmp_path / "scaling.json"
    fit_scaling([cube], [mask]).save(path)
    (seen,) = Scaling.load(path).seen
    np.testing.assert_array_equal(unpack(seen), mask)
    content = read_json(path)
    del content["seen"]
    write_json(path, content)
    assert Scaling.load(path).seen == ()


def test_load_refuses_the_layout_of_an_older_version(cube, tmp_path):
    "Without a transform the numbers of a skewed layer would mean something else"
    path = tmp_path / "old.json"
    fit_scaling([cube], [EVERYWHERE]).save(path)
    old = read_json(path)
    write_json(path, {name: old[name] for name in old if name not in ("transform", "scale")})
    with pytest.raises(ValueError, match=r"old\.json is not .* this version.* transform.* again"):
        Scaling.load(path)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"layers": []}'])
def test_load_refuses_other_files(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is not a scaling"):
        Scaling.load(path)


def test_load_refuses_lists_of_different_length(cube, tmp_path):
    path = tmp_path / "damaged.json"
    replace(fit_scaling([cube], [EVERYWHERE]), mean=(0.0,)).save(path)
    with pytest.raises(ValueError, match=r"damaged\.json is damaged"):
        Scaling.load(path)


def test_fit_refuses_regions_with_different_layers(cube):
    with pytest.raises(ValueError, match="cube 1 lacks granite"):
        fit_scaling([cube, cube.isel(layer=[0])], [EVERYWHERE, EVERYWHERE])
    with pytest.raises(ValueError, match="cube 1 differs from the first cube in the kind"):
        other = cube.assign_coords(kind=("layer", ["continuous", "continuous"]))
        fit_scaling([cube, other], [EVERYWHERE, EVERYWHERE])


def test_fit_refuses_masks_that_do_not_fit(cube):
    with pytest.raises(ValueError, match="one mask a cube"):
        fit_scaling([cube], [])
    with pytest.raises(ValueError, match=r"mask 0 is \(2, 3\)"):
        fit_scaling([cube], [EVERYWHERE[:2]])
    with pytest.raises(ValueError, match="no training cell"):
        fit_scaling([cube], [~EVERYWHERE])


def test_fit_refuses_a_cube_without_kinds_and_false_binaries(cube):
    with pytest.raises(ValueError, match="no coordinate kind"):
        fit_scaling([cube.drop_vars("kind")], [EVERYWHERE])
    with pytest.raises(ValueError, match="'magnetics' is binary but"):
        fit_scaling([cube.assign_coords(kind=("layer", ["binary"] * 2))], [EVERYWHERE])


def test_apply_refuses_other_layers_another_order_and_a_second_time(cube):
    scaling = fit_scaling([cube], [EVERYWHERE])
    with pytest.raises(ValueError, match="lacks granite"):
        apply_scaling(cube.isel(layer=[0]), scaling)
    with pytest.raises(ValueError, match="the cube lacks magnetics and has gravity in addition"):
        renamed = cube.assign_coords(layer=["gravity", "granite"])
        apply_scaling(renamed, scaling)
    with pytest.raises(ValueError, match="orders its layers granite, magnetics"):
        apply_scaling(cube.isel(layer=[1, 0]), scaling)
    with pytest.raises(ValueError, match="scaled already"):
        apply_scaling(apply_scaling(cube, scaling), scaling)
