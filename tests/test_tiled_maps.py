from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers import coast_cube, coast_scaling, steep_classifier

from mpm import datacube, mapping, tiled_maps
from mpm.scaling import apply_scaling
from mpm.tiled_maps import predict_tiled
from mpm.windows import make_windows

CUBE = coast_cube()
SHAPE = CUBE["valid"].shape
SCALING = coast_scaling(CUBE)


@pytest.fixture(scope="module")
def classifier():
    return steep_classifier()


@pytest.fixture(scope="module")
def whole(classifier):
    "The map as one machine with all of it in memory draws it"
    windows = make_windows([apply_scaling(CUBE, SCALING)], 9)
    index = np.arange(len(windows))
    found = mapping.predict(classifier, windows, index, samples=20, seed=3)
    names = dict(zip(("likelihood", "uncertainty"), found, strict=True))
    return mapping.prediction_maps({"toy": CUBE}, windows, **names)["toy"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    "Stored in tiles of 5 cells, so that a tile of any size can be read"
    place = tmp_path_factory.mktemp("cube") / "toy.zarr"
    datacube.write(CUBE.chunk(layer=1, y=5, x=5), place)
    return place


def same(found, whole):
    np.testing.assert_array_equal(np.isnan(found["likelihood"]), np.isnan(whole["likelihood"]))
    for name in ("likelihood", "uncertainty"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], whole[name], atol=2e-6)


@pytest.mark.parametrize("chunks", [5, 15, 40])
def test_tiles_are_the_whole_map(classifier, stored, whole, chunks, tmp_path):
    "To rounding, edges, coast and missing layers included; tiles smaller than half a window, too"
    lazy = datacube.read(stored, chunks=chunks)
    promised = predict_tiled([classifier], lazy, SCALING, samples=20, seed=3)
    assert promised["likelihood"].chunks is not None
    datacube.write(promised, tmp_path / "map.zarr")
    found = datacube.read(tmp_path / "map.zarr")
    same(found, whole)
    assert found.rio.crs == CUBE.rio.crs and found.rio.transform() == CUBE.rio.transform()
    predicted = found["likelihood"].notnull().values
    assert predicted[[0, -1, -1], [0, 0, -1]].all()  # corners of the map
    assert predicted[9, :6].all() and not predicted[10, :6].any()  # the coast
    assert not predicted[2, 33]


def test_the_map_depends_on_what_is_there(whole):
    "The comparison above has something to compare"
    values = whole["likelihood"].values
    assert np.nanstd(values[:, :20]) > 0.02 and np.nanstd(values[:, 26:]) > 0.01


def test_a_tile_of_no_valid_cell_is_empty(classifier, stored):
    "The bay alone: nothing is predicted and nothing fails"
    lazy = datacube.read(stored, chunks=5).isel(y=slice(10, 20), x=slice(0, 5))
    assert predict_tiled([classifier], lazy, SCALING)["likelihood"].isnull().all()


def test_no_task_sees_more_than_a_tile_and_its_halo(classifier, stored, monkeypatch):
    "Tiles of 15 with 4 cells around: memory does not grow with the map"
    seen = []

    def note(cubes, size, **options):
        seen.append(cubes[0]["evidence"].shape)
        return make_windows(cubes, size, **options)

    monkeypatch.setattr(tiled_maps, "make_windows", note)
    lazy = datacube.read(stored, chunks=15)
    predict_tiled([classifier], lazy, SCALING, samples=0).compute()
    assert len(seen) == 2 * 3 and max(shape[1:] for shape in seen) <= (23, 23)


def test_a_cluster_draws_the_same_map(classifier, stored, whole, tmp_path):
    "Any that dask.distributed knows; workers get the classifier once"
    from distributed import Client

    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None):
        lazy = datacube.read(stored, chunks=15)
        datacube.write(
            predict_tiled([classifier], lazy, SCALING, samples=20, seed=3), tmp_path / "map.zarr"
        )
    same(datacube.read(tmp_path / "map.zarr"), whole)


def test_several_networks_draw_as_an_ensemble(classifier, stored):
    "The mean, and between them a spread, of `mapping.predict_ensemble` on the whole"
    other = deepcopy(classifier)
    with torch.no_grad():
        other.linear.weight.mul_(-0.5)
    lazy = datacube.read(stored, chunks=15)
    found = predict_tiled([classifier, other], lazy, SCALING, samples=20, seed=3).compute()
    windows = make_windows([apply_scaling(CUBE, SCALING)], 9)
    index = np.arange(len(windows))
    drawn = mapping.predict_ensemble([classifier, other], windows, index, samples=20, seed=3)
    for name, values in zip(("likelihood", "uncertainty", "ensemble_spread"), drawn, strict=True):
        np.testing.assert_allclose(windows.take([found[name].values]), values, atol=2e-6)
    assert float(found["ensemble_spread"].max()) > 0.05


def test_a_cube_in_memory_is_refused(classifier):
    with pytest.raises(ValueError, match="the cube is in memory; read it with chunks, or use"):
        predict_tiled([classifier], CUBE, SCALING)


def test_other_layers_than_the_scaling_s_are_refused(classifier, stored):
    lazy = datacube.read(stored, chunks=15).isel(layer=[1, 0])
    with pytest.raises(ValueError, match="orders its layers magnetics, gravity"):
        predict_tiled([classifier], lazy, SCALING)


def test_a_map_narrower_than_half_a_window_is_refused(stored, classifier):
    narrow = datacube.read(stored, chunks=15).isel(y=slice(0, 3))
    with pytest.raises(ValueError, match="narrower than half a window of 9; load it"):
        predict_tiled([classifier], narrow, SCALING)
