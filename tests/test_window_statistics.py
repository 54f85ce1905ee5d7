import numpy as np
import pytest
import xarray as xr

from mpm import window_statistics
from mpm.windows import make_windows


def cube(evidence):
    """Layers (layer, y, x) that are valid everywhere."""
    evidence = np.asarray(evidence, "float32")
    planes = {"evidence": (("layer", "y", "x"), evidence)}
    planes["valid"] = ("y", "x"), np.ones(evidence.shape[1:], bool)
    return xr.Dataset(planes, coords={"layer": [f"layer {k}" for k in range(len(evidence))]})


@pytest.fixture
def windows():
    """Two regions, of 7 x 6 and 5 x 8 cells, two layers with gaps, windows of 3 cells."""
    rng = np.random.default_rng(2)
    regions = [rng.normal(size=shape).astype("float32") for shape in ((2, 7, 6), (2, 5, 8))]
    for evidence in regions:
        evidence[rng.random(evidence.shape) < 0.3] = np.nan
        evidence[1, :3, :3] = np.nan
    return make_windows([cube(evidence) for evidence in regions], 3)


def test_by_hand():
    """Eight ones and a ten: mean 2, variance 8; at the corner four cells of one"""
    plane = np.ones((3, 3))
    plane[1, 1] = 10
    windows = make_windows([cube([plane])], 3)
    found = window_statistics.statistics(windows, np.array([4, 0]))
    np.testing.assert_allclose(found[0], [10, 2, np.sqrt(8)], rtol=1e-6)
    np.testing.assert_allclose(found[1], [1, 13 / 4, np.sqrt(103 / 4 - (13 / 4) ** 2)], rtol=1e-6)
    assert window_statistics.names(["gravity"]) == (
        "gravity",
        "gravity, window mean",
        "gravity, window spread",
    )


def test_only_observed_cells_of_the_own_window_count(windows):
    """The same as from copies of the windows, in both regions, in any order; NaN without a cell"""
    index = np.arange(len(windows))[::-2]
    found = window_statistics.statistics(windows, index)
    values, observed = (part.numpy() for part in windows.gather(index))
    values[~observed] = np.nan
    empty = ~observed.any(axis=(2, 3))
    assert empty.any() and not empty.all()
    values[empty] = 0  # numpy warns of means of nothing
    expected = [values[:, :, 1, 1], np.nanmean(values, axis=(2, 3)), np.nanstd(values, axis=(2, 3))]
    expected = np.concatenate([np.where(empty, np.nan, part) for part in expected], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_cells_outside_of_a_window_change_not_even_the_last_digit(windows):
    """A cell of 1e6 in the far corner"""
    index = np.arange(10)
    before = window_statistics.statistics(windows, index)
    windows.canvas[:, -4:, -4:] = 1e6
    np.testing.assert_array_equal(before, window_statistics.statistics(windows, index))
