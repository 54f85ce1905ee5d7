import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
from helpers import coast_cube, coast_scaling, steep_classifier, tiny

from mpm import continent, datacube, fetch, mae, map_files, mapping
from mpm.classifier import Fitted, classifier_path, save_classifier
from mpm.scaling import apply_scaling
from mpm.windows import make_windows

CUBE = coast_cube()
SCALING = coast_scaling(CUBE)


@pytest.fixture(scope="module")
def classifier():
    return steep_classifier()


def study_of(folder, name, **targets):
    def target(wanted):
        return targets[wanted]

    parts = {"processed": folder / name, "regions": {"toy": None}, "target": target}
    return SimpleNamespace(name=name, targets=targets, **parts)


@pytest.fixture
def drew():
    "How many networks drew the known study's map"
    return [1]


@pytest.fixture
def studies(tmp_path, classifier, monkeypatch, drew):
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
    save_classifier(fitted, classifier_path(known, "MVT", "final", 0, member=1), facts={})
    monkeypatch.setattr(map_files, "read_facts", lambda study, target: {"ensemble": drew[0]})
    return known, other


def test_a_network_maps_the_ground_of_another_study(studies, classifier, tmp_path):
    """In tiles, with the network's own scaling; GeoTIFFs that say whose network it was"""
    known, other = studies
    options = {"network": known, "tile": 10, "samples": 20, "seed": 3, "device": "cpu"}
    made = continent.draw(other, "MVT", **options, share=0.1, every=0)
    folder = tmp_path / "other" / "MVT" / "tiled_maps"
    names = ["likelihood", "uncertainty", "attribution_gravity", "attribution_magnetics"]
    assert made == [folder / f"{name}_toy.tif" for name in names]
    windows = make_windows([apply_scaling(CUBE, SCALING)], 9)
    whole, _ = mapping.predict(classifier, windows, np.arange(len(windows)), samples=20, seed=3)
    with rasterio.open(made[0]) as source:
        np.testing.assert_allclose(windows.take([source.read(1)]), whole, atol=2e-6)
    facts = json.loads(made[0].with_suffix(".json").read_text())
    assert (facts["study"], facts["network"], facts["seed"]) == ("other", "known", 3)
    assert facts["inputs"] == {"file": "other"} and len(facts["model"]) == 1


def test_the_most_likely_cells_of_the_map_are_explained(studies):
    "A tenth by default asked for; the bands and the Zarr agree, and the JSON counts the cells"
    known, other = studies
    given = {"network": known, "tile": 10, "samples": 5, "device": "cpu"}
    *_, gravity, _ = continent.draw(other, "MVT", **given, share=0.1, every=0)
    with rasterio.open(gravity) as source:
        plane, name = source.read(1), source.descriptions[0]
    reasons = datacube.read(gravity.with_name("attribution_toy.zarr"))
    np.testing.assert_array_equal(plane, reasons["attribution"].sel(layer="gravity"))
    drawn = datacube.read(gravity.with_name("prediction_toy.zarr"))["likelihood"].values
    likely = drawn >= np.nanquantile(drawn, 0.9)
    seen = np.isfinite(plane)
    assert name == "gravity" and (seen == likely).mean() > 0.998 and 0.09 < seen.sum() / 949 < 0.11
    facts = json.loads(gravity.with_suffix(".json").read_text())
    explained = {"share": 0.1, "grid": 0, "compared_with": 4, "cells": int(seen.sum())}
    assert explained.items() <= facts["explained"].items()
    assert facts["explained"]["cells that miss the score by 1 % or more"] == 0
    assert facts["bands"] == ["gravity"] and facts["units"] == "logit"


def test_all_networks_of_an_ensemble_draw(studies, drew):
    "Twice the same network is no spread; without a share or a grid nothing is explained"
    known, other = studies
    drew[0] = 2
    given = {"network": known, "tile": 40, "samples": 5, "device": "cpu"}
    made = continent.draw(other, "MVT", **given, share=0, every=0)
    assert [path.stem for path in made] == [
        "likelihood_toy", "uncertainty_toy", "ensemble_spread_toy"]  # fmt: skip
    facts = json.loads(made[0].with_suffix(".json").read_text())
    assert facts["ensemble"] == 2 and len(facts["model"]) == 2
    with rasterio.open(made[2]) as source:  # of other dropout masks
        assert 0 < np.nanmax(source.read(1)) < 0.5


def test_a_network_of_other_layers_is_refused(studies):
    known, other = studies
    cube = datacube.read(datacube.path(other, "toy"))
    datacube.write(cube.assign_coords(layer=["gravity", "heat"]), datacube.path(other, "toy"))
    with pytest.raises(ValueError, match="heat"):
        continent.draw(other, "MVT", network=known)
    assert not (other.processed / "MVT").exists()
    with pytest.raises(KeyError, match="CD"):
        continent.draw(other, "CD", network=known)
