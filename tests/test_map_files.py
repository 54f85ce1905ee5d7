import json
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate

from mpm import artefacts, map_files, mapping

REGIONS = {"west": (8, 10), "east": (600, 300)}  # rows and columns
LAYERS = ["gravity", "rock=shale"]
FACTS = {"study": "toy", "seed": 7, "split": "blocks", "inputs": {"a.tif": "12ab"}}


def region(name, shape) -> xr.Dataset:
    "Maps of 1 km cells, missing in the north-west corner, attribution along the south alone"
    rng = np.random.default_rng(len(name))
    made = xr.Dataset(
        {
            "likelihood": (("y", "x"), rng.random(shape).astype("float32")),
            "uncertainty": (("y", "x"), rng.random(shape).astype("float32") / 4),
            "attribution": (("layer", "y", "x"), rng.normal(size=(2, *shape)).astype("float32")),
        },
        coords={
            "layer": LAYERS,
            "units": ("layer", ["mGal", "1"]),
            "y": 900_500 - 1000.0 * np.arange(shape[0]),
            "x": 500_500 + 1000.0 * np.arange(shape[1]),
        },
        attrs={"region": name},
    )
    made["likelihood"][0, 0] = made["uncertainty"][0, 0] = np.nan
    made["attribution"][:, :-2] = np.nan
    return made.rio.write_crs(32633).rio.write_transform(from_origin(5e5, 901e3, 1000, 1000))


MAPS = {name: region(name, shape) for name, shape in REGIONS.items()}
KINDS = list(MAPS["west"].data_vars)


@pytest.fixture
def study(tmp_path):
    made = SimpleNamespace(processed=tmp_path, regions=dict.fromkeys(REGIONS))
    map_files.write_prediction(made, "MVT", MAPS, FACTS)
    return made


def place(study, kind, name, suffix=".tif"):
    return map_files.maps_folder(study, "MVT") / f"{kind}_{name}{suffix}"


def beside(study, kind, name="west"):
    return json.loads(place(study, kind, name, ".json").read_text())


def test_maps_that_are_not_made_any_more_are_removed(study):
    "A spread between members, or an explanation, of other networks than the likelihood"
    names = ["likelihood", "ensemble_spread"]
    fewer = {
        name: made.drop_vars("attribution").rename(uncertainty="ensemble_spread")
        for name, made in MAPS.items()
    }
    map_files.write_prediction(study, "MVT", fewer, {})
    for suffix in (".tif", ".qml", ".json"):
        found = {path.name for path in map_files.maps_folder(study, "MVT").glob(f"*{suffix}")}
        expected = {f"{name}_{region}{suffix}" for name in names for region in REGIONS}
        assert found - {"maps.json"} == expected
    meaning = map_files.read_facts(study, "MVT")["meaning"]
    assert list(meaning) == names and "several seeds" in meaning["ensemble_spread"]


def test_predictions_are_read_as_they_were_written(study):
    "All regions and planes, here and where notebooks look; missing ones name their notebook"
    assert mapping.read_maps is map_files.read_maps
    assert mapping.write_prediction is map_files.write_prediction
    found = map_files.read_maps(study, "MVT")
    assert list(found) == list(REGIONS)
    for name, made in found.items():
        for kind in KINDS:
            np.testing.assert_array_equal(made[kind], MAPS[name][kind])
        assert made.rio.crs == MAPS[name].rio.crs
    with pytest.raises(FileNotFoundError, match="03_fine_tuning"):
        map_files.read_maps(study, "CD")
    with pytest.raises(FileNotFoundError, match="03_fine_tuning"):
        map_files.read_facts(study, "CD")


@pytest.mark.parametrize("name", list(REGIONS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_is_a_cloud_optimized_geotiff(study, kind, name):
    "By rio-cogeo's strict check; values, CRS, transform, band names and NaN for nodata in place"
    valid, errors, warnings = cog_validate(place(study, kind, name), strict=True, quiet=True)
    assert valid and not errors and not warnings
    with rasterio.open(place(study, kind, name)) as file:
        assert file.descriptions == (tuple(LAYERS) if kind == "attribution" else (kind,))
        assert file.crs == MAPS[name].rio.crs and file.transform == MAPS[name].rio.transform()
        assert np.isnan(file.nodata) and set(file.dtypes) == {"float32"}
        values = file.read()
        # what is wider than a block of 256 cells can be shown from afar
        assert file.overviews(1) == ([2, 4] if name == "east" else [])
    expected = MAPS[name][kind].values
    np.testing.assert_array_equal(values, expected.reshape(values.shape))


def test_an_overview_is_the_mean_of_what_is_known(study):
    "Of the three cells beside the missing one"
    with rasterio.open(place(study, "likelihood", "east"), overview_level=0) as file:
        corner = file.read(1)[0, 0]
    block = MAPS["east"]["likelihood"].values[:2, :2]
    np.testing.assert_allclose(corner, np.nanmean(block), rtol=1e-6)


def test_the_same_maps_are_the_same_bytes(study):
    "No date and no version of a library goes into a file"
    folder = map_files.maps_folder(study, "MVT")
    before = {path.name: artefacts.sha256(path) for path in folder.iterdir()}
    assert len(before) == 2 * 3 * 3 + 1
    map_files.write_prediction(study, "MVT", MAPS, FACTS)
    assert {path.name: artefacts.sha256(path) for path in folder.iterdir()} == before


def test_the_json_beside_a_map_is_complete(study):
    "Facts as given, file, grid, bands, range, and what the numbers mean and do not mean"
    for kind in KINDS:
        content = beside(study, kind)
        assert {key: content[key] for key in FACTS} == FACTS
        assert content["sha256"] == artefacts.sha256(place(study, kind, "west"))
        assert content["crs"] == "EPSG:32633" and content["cell_m"] == 1000
        assert content["bounds_m"] == [5e5, 893e3, 51e4, 901e3]
        assert (content["rows"], content["columns"]) == (8, 10)
        assert content["does not mean"].startswith("not ")
        values = MAPS["west"][kind].values
        np.testing.assert_allclose(
            content["range"], [np.nanmin(values), np.nanmax(values)], rtol=1e-5
        )
    assert beside(study, "attribution")["bands"] == LAYERS
    assert beside(study, "attribution")["units"] == "logit"
    assert "standard deviation" in beside(study, "uncertainty")["means"]
    assert beside(study, "likelihood", "east")["rows"] == 600


def test_a_likelihood_is_a_rank_until_calibration_is_checked(study):
    "Only then is the word probability used for it; the facts survive a second writing"
    first = beside(study, "likelihood")
    assert first["calibration"] == "not checked"
    assert first["means"].startswith("a rank") and "even odds" in first["means"]
    assert "calibrated" not in first["means"]
    checked = FACTS | {"calibration": "reliability on held-out blocks, error 0.02"}
    map_files.write_prediction(study, "MVT", MAPS, checked)
    map_files.write_prediction(study, "MVT", MAPS, map_files.read_facts(study, "MVT"))
    second = beside(study, "likelihood")
    assert second["means"].startswith("calibrated probability") and "0.02" in second["means"]
    assert map_files.read_facts(study, "MVT")["seed"] == 7


def test_a_map_without_values_has_no_range(study):
    "Nothing was explained: null, not an error"
    empty = {
        name: made.assign(attribution=made["attribution"] * np.nan) for name, made in MAPS.items()
    }
    map_files.write_prediction(study, "MVT", empty, FACTS)
    assert beside(study, "attribution")["range"] is None


def test_every_map_has_a_style_of_its_name(study):
    "Well-formed, with one range for all regions; likelihood always 0 to 1"
    ends = {}
    for kind in KINDS:
        for name in REGIONS:
            root = ElementTree.parse(place(study, kind, name, ".qml")).getroot()
            shader = root.find("pipe/rasterrenderer/rastershader/colorrampshader")
            low, high = (float(shader.get(f"{end}imumValue")) for end in ("min", "max"))
            ends.setdefault(kind, set()).add((low, high))
    assert ends["likelihood"] == {(0, 1)}
    assert all(len(found) == 1 for found in ends.values())
