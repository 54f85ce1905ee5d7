import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mpm.windows import make_windows, window_centres

LAYERS = 3


def make_cube(rows, cols, *, seed=0, valid=None, layers=LAYERS) -> xr.Dataset:
    "Random evidence of three layers with gaps"
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(layers, rows, cols)).astype("float32")
    evidence[rng.random(evidence.shape) < 0.1] = np.nan
    return xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence),
            "valid": (("y", "x"), np.ones((rows, cols), bool) if valid is None else valid),
        },
        coords={"layer": [f"layer {k}" for k in range(layers)]},
        attrs={"region": f"region {seed}"},
    )


def sliced(cube, row, col, size):
    "The window by slicing the NaN-padded evidence"
    half = size // 2
    padded = np.pad(
        cube["evidence"].values, ((0, 0), (half, half), (half, half)), constant_values=np.nan
    )
    return padded[:, row : row + size, col : col + size]


# ---- centres


@settings(max_examples=60, deadline=None)
@given(
    valid=arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    size=st.sampled_from([1, 3, 5, 7]),
    min_valid=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0]),
)
def test_centres_are_valid_cells_whose_window_is_valid_enough(valid, size, min_valid):
    "Against counting the valid cells of every window one by one"
    half, expected = size // 2, []
    for row, col in np.argwhere(valid):
        window = valid[max(row - half, 0) : row + half + 1, max(col - half, 0) : col + half + 1]
        if window.sum() >= min_valid * size * size:
            expected.append([row, col])
    found = np.transpose(window_centres(valid, size, min_valid=min_valid)).tolist()
    assert found == [list(map(int, place)) for place in expected]


def test_corner_window_counts_what_lies_beyond_the_map_as_missing():
    "A corner's 3 x 3 window holds 4 of 9 cells of a full map"
    valid = np.ones((4, 4), bool)
    corner = (0, 0)
    assert corner in zip(*window_centres(valid, 3, min_valid=4 / 9), strict=True)
    assert corner not in zip(*window_centres(valid, 3, min_valid=5 / 9), strict=True)


# ---- gathering


@pytest.mark.parametrize("size", [1, 3, 5, 13])
def test_windows_equal_slices_of_a_padded_map(size):
    "Every window of two regions of different shape, corners and edges included"
    cubes = [make_cube(6, 9, seed=1), make_cube(8, 4, seed=2)]
    windows = make_windows(cubes, size, min_valid=0.0)
    assert len(windows) == 6 * 9 + 8 * 4 and windows.layers == LAYERS
    values, observed = windows.gather(np.arange(len(windows)))
    assert values.dtype == torch.float32 and observed.dtype == torch.bool
    assert values.shape == observed.shape == (len(windows), LAYERS, size, size)
    for k in range(len(windows)):
        expected = sliced(cubes[windows.region[k]], windows.row[k], windows.col[k], size)
        np.testing.assert_array_equal(observed[k], np.isfinite(expected))
        np.testing.assert_array_equal(values[k], np.nan_to_num(expected))


def test_no_window_reaches_into_another_region():
    "Regions of ones, twos and threes: no window sees two of them, at any size"
    cubes = [make_cube(rows, cols) for rows, cols in [(3, 9), (8, 2), (1, 5)]]
    for number, cube in enumerate(cubes):
        cube["evidence"].values[:] = number + 1
    for size in (3, 7, 11):
        windows = make_windows(cubes, size, min_valid=0.0)
        values, _ = windows.gather(np.arange(len(windows)))
        for window, region in zip(values, windows.region, strict=True):
            assert set(window.unique().tolist()) <= {0.0, region + 1.0}


@pytest.mark.parametrize("make", [list, np.asarray, torch.as_tensor])
def test_order_and_repeats_of_the_numbers_are_kept(make):
    "Centres 5, 0, 5 come back in that order"
    windows = make_windows([make_cube(4, 4)], 3)
    every, _ = windows.gather(np.arange(16))
    some, _ = windows.gather(make([5, 0, 5]))
    assert torch.equal(some, every[[5, 0, 5]])


def test_no_numbers_give_no_windows():
    values, observed = make_windows([make_cube(4, 4)], 3).gather(np.array([], int))
    assert values.shape == observed.shape == (0, LAYERS, 3, 3)


def test_gathered_windows_are_a_copy():
    "Masking a batch in place leaves the map as it was"
    windows = make_windows([make_cube(4, 4)], 3)
    before = windows.canvas.clone()
    values, observed = windows.gather(np.arange(16))
    values[:], observed[:] = 99, False
    assert torch.equal(windows.canvas, before)
    assert windows.gather(np.arange(16))[1].any()


def test_cubes_are_left_as_they_were():
    cube = make_cube(4, 4)
    before = cube.copy(deep=True)
    make_windows([cube], 3)
    xr.testing.assert_identical(cube, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gathers_the_same_windows():
    windows = make_windows([make_cube(6, 9)], 5)
    index = np.arange(len(windows))
    here, there = windows.gather(index), windows.to("cuda").gather(index)
    assert all(torch.equal(one, other.cpu()) for one, other in zip(here, there, strict=True))
    np.testing.assert_array_equal(windows.to("cuda").centres(), windows.centres())


# ---- centre cells and planes


def test_centre_cells_keep_their_gaps():
    "The evidence of each centre, NaN where missing, all or some of them"
    cubes = [make_cube(6, 9, seed=1), make_cube(8, 4, seed=2)]
    windows = make_windows(cubes, 5, min_valid=0.0)
    expected = np.stack(
        [
            cubes[region]["evidence"].values[:, row, col]
            for region, row, col in zip(windows.region, windows.row, windows.col, strict=True)
        ]
    )
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(windows.centres(), expected)
    np.testing.assert_array_equal(windows.centres(np.array([70, 3])), expected[[70, 3]])
    middle = windows.gather(np.arange(len(windows)))[0][:, :, 2, 2]
    np.testing.assert_array_equal(middle, np.nan_to_num(expected))


def ragged_windows():
    rng = np.random.default_rng(4)
    shapes = [(6, 9), (8, 4)]
    cubes = [make_cube(*shape, valid=rng.random(shape) < 0.6) for shape in shapes]
    return cubes, make_windows(cubes, 3, min_valid=0.3)


def test_take_and_put_are_inverse():
    "What is taken at the centres and put back is the plane there and the fill elsewhere"
    cubes, windows = ragged_windows()
    planes = [
        np.random.default_rng(k).normal(size=cube["valid"].shape) for k, cube in enumerate(cubes)
    ]
    taken = windows.take(planes)
    assert taken.shape == (len(windows),)
    for region, plane in enumerate(planes):
        back = windows.put(taken, region)
        here = windows.region == region
        chosen = np.zeros(plane.shape, bool)
        chosen[windows.row[here], windows.col[here]] = True
        np.testing.assert_array_equal(back, np.where(chosen, plane, np.nan))
    again = windows.take([windows.put(taken, region) for region in range(2)])
    np.testing.assert_array_equal(again, taken)


def test_put_lays_layers_first():
    "Centre k's row of two values ends up in its cell of two planes"
    _, windows = ragged_windows()
    values = np.stack([np.arange(len(windows)), -np.arange(len(windows))], axis=1).astype(float)
    planes = windows.put(values, 1, fill=0)
    assert planes.shape == (2, 8, 4)
    for k in np.flatnonzero(windows.region == 1):
        assert planes[:, windows.row[k], windows.col[k]].tolist() == [k, -k]


def test_take_keeps_masks_boolean():
    cubes, windows = ragged_windows()
    taken = windows.take([cube["valid"].values for cube in cubes])
    assert taken.dtype == bool and taken.all()


# ---- what is refused


def test_even_window_is_refused():
    with pytest.raises(ValueError, match="window 4 must be odd"):
        make_windows([make_cube(6, 6)], 4)


def test_regions_of_different_layers_are_refused():
    "Also if only the order differs"
    one, other = make_cube(6, 6, seed=1), make_cube(6, 6, seed=2)
    for changed in (other.isel(layer=[0, 1]), other.isel(layer=[1, 0, 2])):
        with pytest.raises(ValueError, match="layers of region 2 differ"):
            make_windows([one, changed], 3)


def test_map_without_a_full_window_is_refused():
    valid = np.zeros((6, 6), bool)
    valid[2, 2] = True
    with pytest.raises(ValueError, match="no 3 x 3 window has 50% valid cells"):
        make_windows([make_cube(6, 6, valid=valid)], 3, min_valid=0.5)


@pytest.mark.parametrize("threads", [1, 3])
def test_work_on_windows_comes_batch_by_batch(threads):
    "As of the batches one after another, the last one smaller"
    windows, index = (
        make_windows([make_cube(9, 8), make_cube(7, 9, seed=1)], 3),
        np.arange(5, 90, 2),
    )
    expected = [part[0].sum() + part[1].sum() for part in windows.batches(index, 10)]
    torch.set_num_threads(threads)
    made = windows.map(lambda *part: part[0].sum() + part[1].sum(), index, 10, label="sums")
    assert list(made) == expected and len(expected) == 5
