import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mpm.artefacts import read_json
from mpm.scaling import CONSTANT, FENCES_OFF, NO_OBSERVATION, Scaling, apply_scaling, fit_scaling


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
    values = np.arange(9.0)
    values[8] = 1000
    return make_cube({"magnetics": values.reshape(3, 3), "granite": [[0, 1, 0]] * 3}, ("granite",))


EVERYWHERE = np.ones((3, 3), dtype=bool)


def test_fences_mean_and_std_by_hand(cube):
    "0..7 and 1000 have quartiles 2 and 6, so fences 2 - 12 and 6 + 12"
    scaling = fit_scaling([cube], [EVERYWHERE])
    clipped = np.array([0, 1, 2, 3, 4, 5, 6, 7, 18.0])
    assert scaling.layers == ("magnetics", "granite")
    assert (scaling.low[0], scaling.high[0]) == (-10.0, 18.0)
    assert scaling.mean[0] == pytest.approx(46 / 9) == scaling.fill[0]
    assert scaling.std[0] == pytest.approx(clipped.std())
    scaled = apply_scaling(cube, scaling)["evidence"].sel(layer="magnetics").values.ravel()
    np.testing.assert_allclose(scaled, (clipped - 46 / 9) / clipped.std(), rtol=1e-6)
    assert fit_scaling([cube], [EVERYWHERE], k=1.5).high[0] == 12.0


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
    assert scaling.mean[0] == pytest.approx((2 + 3 + 4 + 5 + 6 + 7 + scaling.high[0]) / 7)
    scaled = apply_scaling(cube, scaling)["evidence"][0].values
    assert np.isnan(scaled[0, :2]).all()
    assert np.isfinite(scaled.ravel()[2:]).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-3, 1e6))
def test_cells_outside_the_mask_leave_the_scaling_unchanged(seed, size):
    "No leakage: test cells may hold anything"
    rng = np.random.default_rng(seed)
    first = make_cube({"a": rng.normal(size=(6, 6)), "b": rng.lognormal(size=(6, 6))})
    mask = rng.random((6, 6)) < 0.5
    mask[0, 0] = True
    other = first.copy(deep=True)
    strange = rng.choice([np.nan, np.inf, size, -size], size=(2, 6, 6))
    other["evidence"].values[:] = np.where(mask, first["evidence"].values, strange)
    assert fit_scaling([first], [mask]) == fit_scaling([other], [mask])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=9, max_size=9),
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=9, max_size=9),
)
def test_a_larger_value_never_scales_smaller(trained, applied):
    "Clipping keeps the order, also of values never seen in training"
    train = make_cube({"a": np.reshape(trained, (3, 3))})
    test = make_cube({"a": np.sort(applied).reshape(3, 3)})
    scaled = apply_scaling(test, fit_scaling([train], [EVERYWHERE]))["evidence"].values.ravel()
    assert (np.diff(scaled.astype("float64")) >= 0).all()


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
    values = np.zeros(100)
    values[-4:] = [1, 2, 3, 50]
    sparse = make_cube({"a": values.reshape(10, 10)})
    scaling = fit_scaling([sparse], [np.ones((10, 10), dtype=bool)])
    assert scaling.notes == (FENCES_OFF,)
    assert scaling.low == (-math.inf,)
    scaled = apply_scaling(sparse, scaling)["evidence"].values.ravel()
    assert len(np.unique(scaled)) == 5
    assert scaled.std() == pytest.approx(1, rel=1e-5)


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
    assert read_json(path)["high"] == [18.0, None]


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
