import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
import xarray as xr
from helpers import tiny
from rasterio.transform import from_origin

from mpm import datacube, fetch, mae, mapping, tiled_maps
from mpm.classifier import Classifier, Fitted, classifier_path, save_classifier
from mpm.scaling import apply_scaling, fit_scaling
from mpm.tiled_maps import predict_tiled
from mpm.windows import make_windows

SHAPE = 30, 37


def cube() -> xr.Dataset:
    "1 km cells: a bay, an island, a layer that the east lacks, and a gap of single cells"
    rng = np.random.default_rng(0)
    valid = np.ones(SHAPE, bool)
    valid[10:20, :6] = False
    valid[:12, 28:] = False
    valid[2, 33] = True  # too few valid cells around it
    evidence = rng.normal(5, 3, (2, *SHAPE)).astype("float32")
    evidence[0, :, 22:] = np.nan
    evidence[1, 5::7, 5::7] = np.nan
    evidence[:, ~valid] = np.nan
    made = xr.Dataset(
        {"evidence": (("layer", "y", "x"), evidence), "valid": (("y", "x"), valid)},
        coords={
            "layer": ["gravity", "magnetics"],
            "kind": ("layer", ["continuous"] * 2),
            "y": 899_500 - 1000.0 * np.arange(SHAPE[0]),
            "x": 500_500 + 1000.0 * np.arange(SHAPE[1]),
        },
        attrs={"region": "toy"},
    )
    return made.rio.write_crs(32633).rio.write_transform(from_origin(5e5, 9e5, 1000, 1000))


CUBE = cube()
SCALING = fit_scaling([CUBE], [CUBE["valid"].values & (np.arange(SHAPE[1]) < 20)])


@pytest.fixture(scope="module")
def classifier():
    "Untrained, with a head of some effect, so that likelihoods spread from 0 to 1"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Classifier(mae.build(tiny(), seed=0).encoder, dropout=0.4)
    with torch.no_grad():
        model.linear.weight *= 4
    return model.eval()


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
    promised = predict_tiled(classifier, lazy, SCALING, samples=20, seed=3)
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
    assert predict_tiled(classifier, lazy, SCALING)["likelihood"].isnull().all()


def test_no_task_sees_more_than_a_tile_and_its_halo(classifier, stored, monkeypatch):
    "Tiles of 15 with 4 cells around: memory does not grow with the map"
    seen = []

    def note(cubes, size, **options):
        seen.append(cubes[0]["evidence"].shape)
        return make_windows(cubes, size, **options)

    monkeypatch.setattr(tiled_maps, "make_windows", note)
    lazy = datacube.read(stored, chunks=15)
    predict_tiled(classifier, lazy, SCALING, samples=0).compute()
    assert len(seen) == 2 * 3 and max(shape[1:] for shape in seen) <= (23, 23)


def test_a_cluster_draws_the_same_map(classifier, stored, whole, tmp_path):
    "Any that dask.distributed knows; workers get the classifier once"
    from distributed import Client

    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None):
        lazy = datacube.read(stored, chunks=15)
        datacube.write(
            predict_tiled(classifier, lazy, SCALING, samples=20, seed=3), tmp_path / "map.zarr"
        )
    same(datacube.read(tmp_path / "map.zarr"), whole)


def test_a_cube_in_memory_is_refused(classifier):
    with pytest.raises(ValueError, match="the cube is in memory; read it with chunks, or use"):
        predict_tiled(classifier, CUBE, SCALING)


def test_other_layers_than_the_scaling_s_are_refused(classifier, stored):
    lazy = datacube.read(stored, chunks=15).isel(layer=[1, 0])
    with pytest.raises(ValueError, match="orders its layers magnetics, gravity"):
        predict_tiled(classifier, lazy, SCALING)


# The command


def study_of(folder, name, **targets):
    def target(wanted):
        return targets[wanted]

    parts = {"processed": folder / name, "regions": {"toy": None}, "target": target}
    return SimpleNamespace(name=name, targets=targets, **parts)


@pytest.fixture
def studies(tmp_path, classifier, monkeypatch):
    "One that has a network, and one of the same layers that has evidence alone"
    monkeypatch.setattr(fetch, "input_checksums", lambda study: {"file": study.name})
    known, other = study_of(tmp_path, "known", MVT=None), study_of(tmp_path, "other")
    lazy = CUBE.assign_coords(units=("layer", ["mGal", "nT"])).chunk(layer=1, y=5, x=5)
    datacube.write(lazy, datacube.path(other, "toy"))
    facts = {"units": {"gravity": "mGal", "magnetics": "nT"}}
    model, layers = mae.build(tiny(), seed=0), ["gravity", "magnetics"]
    place = mae.backbone_path(known, "final", 0)
    mae.save(model, place, layers=layers, scaling=SCALING, facts=facts)
    history = pd.DataFrame({"step": [1], "loss": [1.0], "average_precision": [1.0]})
    fitted = Fitted(classifier, 0.5, history)
    save_classifier(fitted, classifier_path(known, "MVT", "final", 0), facts={})
    return known, other


def test_a_network_maps_the_ground_of_another_study(studies, whole, tmp_path):
    """In tiles, with the network's own scaling; two GeoTIFFs that say whose network it was"""
    known, other = studies
    options = {"network": known, "tile": 10, "samples": 20, "seed": 3, "device": "cpu"}
    made = tiled_maps.draw(other, "MVT", **options)
    folder = tmp_path / "other" / "MVT" / "tiled_maps"
    assert made == [folder / "likelihood_toy.tif", folder / "uncertainty_toy.tif"]
    same(datacube.read(folder / "prediction_toy.zarr"), whole)
    with rasterio.open(made[0]) as source:
        np.testing.assert_allclose(source.read(1), whole["likelihood"], atol=2e-6)
    facts = json.loads(made[0].with_suffix(".json").read_text())
    assert (facts["study"], facts["network"], facts["seed"]) == ("other", "known", 3)
    assert facts["inputs"] == {"file": "other"} and len(facts["model"]) == 1


def test_a_network_of_other_layers_is_refused(studies):
    known, other = studies
    cube = datacube.read(datacube.path(other, "toy"))
    datacube.write(cube.assign_coords(layer=["gravity", "heat"]), datacube.path(other, "toy"))
    with pytest.raises(ValueError, match="heat"):
        tiled_maps.draw(other, "MVT", network=known)
    assert not (other.processed / "MVT").exists()
    with pytest.raises(KeyError, match="CD"):
        tiled_maps.draw(other, "CD", network=known)


def test_a_map_narrower_than_half_a_window_is_refused(stored, classifier):
    narrow = datacube.read(stored, chunks=15).isel(y=slice(0, 3))
    with pytest.raises(ValueError, match="narrower than half a window of 9; load it"):
        predict_tiled(classifier, narrow, SCALING)
