import numpy as np
import pytest
import torch
import xarray as xr
from helpers import coast_cube, coast_scaling, steep_classifier

from mpm import datacube, explain, mapping, tiled_attribution
from mpm.scaling import apply_scaling
from mpm.windows import make_windows

CUBE = coast_cube()
SCALING = coast_scaling(CUBE)


@pytest.fixture(scope="module")
def classifier():
    return steep_classifier()


@pytest.fixture(scope="module")
def windows():
    "Of the whole region at once"
    return make_windows([apply_scaling(CUBE, SCALING)], 9)


@pytest.fixture(scope="module")
def likelihood(classifier, windows):
    drawn, _ = mapping.predict(classifier, windows, np.arange(len(windows)), samples=0)
    return mapping.prediction_maps({"toy": CUBE}, windows, likelihood=drawn)["toy"]["likelihood"]


@pytest.fixture(scope="module")
def lazy(tmp_path_factory):
    place = tmp_path_factory.mktemp("cube") / "toy.zarr"
    datacube.write(CUBE.chunk(layer=1, y=5, x=5), place)
    return datacube.read(place, chunks=10)


def test_the_top_share_and_a_grid_are_chosen():
    "Of 5 x 5 cells, one without a score, a quarter from 19 on, and the middle of each 2 x 2"
    plane = np.arange(25.0).reshape(5, 5)
    plane[1, 1] = np.nan
    found = tiled_attribution.choose(xr.DataArray(plane, dims=("y", "x")), share=0.25, every=2)
    expected = plane >= 19
    expected[[1, 3, 3], [3, 1, 3]] = True
    np.testing.assert_array_equal(found, expected)
    everything = tiled_attribution.choose(xr.DataArray(plane, dims=("y", "x")), share=1, every=0)
    np.testing.assert_array_equal(everything, np.isfinite(plane))


def test_tiles_are_explained_as_the_whole(classifier, windows, likelihood, lazy):
    "The same contributions and gaps in chosen cells, over tile edges and missing layers; else NaN"
    chosen = tiled_attribution.choose(likelihood, share=0.1, every=6)
    usual = tiled_attribution.typical_windows(
        {"toy": lazy}, {"toy": likelihood}, SCALING, 9, count=2
    )
    made = tiled_attribution.attribute_tiled([classifier], lazy, SCALING, chosen, usual)
    assert made["attribution"].chunks is not None
    made = made.compute()
    index = np.flatnonzero(chosen[windows.row, windows.col])
    assert 0.1 * len(windows) < len(index) < 0.16 * len(windows)
    signed, _, gap = explain.layer_contributions(classifier, windows, index, baselines=usual)
    place = windows.row[index], windows.col[index]
    np.testing.assert_allclose(made["attribution"].values[:, *place].T, signed, atol=1e-5)
    np.testing.assert_allclose(made["gap"].values[place], gap, atol=1e-3)
    assert gap.max() < explain.TOLERANCE and np.abs(signed).max() > 0.05
    assert np.isfinite(made["attribution"].values).sum() == 2 * len(index)
    assert made["layer"].values.tolist() == ["gravity", "magnetics"]
    assert made.rio.crs == CUBE.rio.crs and made.rio.transform() == CUBE.rio.transform()


def test_reasons_of_several_networks_are_averaged(classifier, windows, likelihood, lazy):
    "A network of the opposite head takes everything back"
    other = steep_classifier()
    with torch.no_grad():
        other.linear.weight.mul_(-1)
    chosen = tiled_attribution.choose(likelihood, share=0.02, every=0)
    usual = windows.gather(np.array([30]))
    made = tiled_attribution.attribute_tiled([classifier, other], lazy, SCALING, chosen, usual)
    assert float(abs(made["attribution"]).max()) < 1e-5


def test_typical_windows_are_those_of_cells_of_median_likelihood(windows, likelihood, lazy):
    "Of all regions together, as the whole region holds them, at its edges, too"
    score = windows.take([likelihood.values])
    far = xr.full_like(likelihood, 0.0)  # as many cells that score below all others
    cubes, planes = (
        {"toy": lazy, "far": lazy},
        {"toy": likelihood, "far": far.where(likelihood > 2)},
    )
    values, observed = tiled_attribution.typical_windows(cubes, planes, SCALING, 9, count=3)
    order = np.argsort(np.abs(score - np.median(score)), kind="stable")[:3]
    expected, seen = windows.gather(order)
    torch.testing.assert_close(values, expected)
    assert torch.equal(observed, seen)
    corner = xr.full_like(likelihood, np.nan)
    corner[0, 0] = 0.5
    values, observed = tiled_attribution.typical_windows(
        {"toy": lazy}, {"toy": corner}, SCALING, 9, count=3
    )
    first = np.flatnonzero((windows.row == 0) & (windows.col == 0))
    torch.testing.assert_close(values, windows.gather(first)[0])
    assert len(values) == 1 and not observed[0, :, :4].any()


def test_an_empty_map_cannot_be_explained(likelihood, lazy):
    with pytest.raises(ValueError, match="no cell of any map is predicted"):
        tiled_attribution.typical_windows(
            {"toy": lazy}, {"toy": likelihood.where(likelihood > 2)}, SCALING, 9, count=3
        )
