"""The whole way through papermill, on settings so small that only the plumbing is tested."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
from rocrate.rocrate import ROCrate
from tiny_run import QUICK, TINY, write_to

from mpm import artefacts, crate, datacube, labels, mapping, pipeline, record, status, steps, verify
from mpm.study import load

pytestmark = pytest.mark.slow


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    "Artefacts and figures of one run in a folder of their own"

    return lambda name: write_to(tmp_path / name, monkeypatch)


@pytest.fixture
def demo(demo_run, monkeypatch):
    "The demo, with the results of the run that tests share: to be read only"
    write_to(demo_run, monkeypatch)
    return load("demo")


def scores(study):
    return pd.read_parquet(artefacts.processed(study) / "scores.parquet")


def test_the_demo_is_verified(demo, tmp_path):
    "Run again elsewhere with one seed on one machine: every figure, table and map is identical"
    verify.rerun(demo, tmp_path / "again")
    verdicts = verify.compare(demo, tmp_path / "again")
    assert [each for each in verdicts if each.state != verify.SAME] == []
    numbers = {each.file[8:10] for each in verdicts if each.file.startswith("figures/")}
    assert numbers == {f"0{number}" for number in range(7)}
    files = {each.file for each in verdicts}
    tables = {"MVT/predictions_mae.parquet", "MVT/predictions_baselines.parquet", "scores.parquet"}
    assert tables | {"MVT/maps/likelihood_north.tif"} <= files
    shutil.rmtree(tmp_path / "again")


# MB with one process at work. The aim is 1500, which 04 and 05 do not reach yet. What the system's
# allocator keeps varies by a few 100 MB from run to run, and torch with CUDA takes more than the
# torch of environment.yml.
MOST = {"00": 1500, "01": 1500, "02": 1800, "03": 1800, "04": 2200, "05": 2400, "06": 2200}


def test_the_demo_needs_little_memory(demo):
    "Of each notebook's kernel and its child processes; all notebooks are up to date"
    notebooks = record.entries(demo)
    assert {entry["status"] for entry in notebooks.values()} == {"done"}
    peaks = {name[:2]: entry["peak_mb"] for name, entry in notebooks.items()}
    assert peaks.keys() == MOST.keys()
    assert all(200 < peak < MOST[number] for number, peak in peaks.items()), peaks
    table = status.table(["demo"]).set_index("notebook")["state"]
    assert (table[table != "never run"] == "up to date").sum() == 7


def test_the_demo_is_mapped_and_scored(demo):
    "GeoTIFFs of every region, and scores of every method"
    check_maps(demo, "MVT")
    check_demo_scores(scores("demo"))


def test_the_crate_of_the_demo_is_whole(demo, tmp_path):
    "A public library reads it: each file with its checksum, each run with what it used and made"
    read = ROCrate(demo.processed)
    assert read.name == f"mpm run of study demo: {demo.title}"
    assert read.root_dataset["license"] and read.root_dataset["datePublished"]
    files = {each.id: each for each in read.data_entities if each.type == "File"}
    assert {"run.json", "scores.parquet", "MVT/maps/likelihood_north.tif"} <= files.keys()
    for name, each in files.items():
        place = demo.processed / name
        assert each["sha256"] == artefacts.sha256(place)
        assert int(each["contentSize"]) == place.stat().st_size
    for path in steps.notebooks():
        run = read.dereference(f"#run/{path.stem}")
        assert run["actionStatus"].endswith("CompletedActionStatus")
        made = [each if isinstance(each, str) else each.id for each in run["result"]]
        assert f"notebooks/{path.name}" in made
        assert all(read.dereference(each) is not None for each in made)
    everything = {each.id for each in read.get_entities()}
    read.write(tmp_path)  # copies what the crate names, and writes its own account of it
    assert {each.id for each in ROCrate(tmp_path).get_entities()} == everything
    assert (tmp_path / crate.NAME).exists() and (tmp_path / "scores.parquet").exists()


def check_demo_scores(table):
    "Every method is scored under all splits, and none beats the true probability"
    auc = auc_of_methods(table)
    assert set(auc.columns) == {"blocks", "random"} and auc.notna().all(axis=None)
    assert set(auc.index) == {*QUICK, "mae", "oracle"}
    assert auc["blocks"].idxmax() == "oracle" and auc.loc["oracle", "blocks"] > 0.9
    trained = auc.loc[["logistic_regression", "gradient_boosting", "weights_of_evidence"], "blocks"]
    assert (trained > 0.6).all() and trained["logistic_regression"] < trained.max()


def auc_of_methods(table):
    "Methods down, splits across; beside them lie rows of pairs, of the protocol, of dealt labels"
    mean = table[(table["fold"] == "mean") & (table["metric"] == "auc")]
    mean = mean[mean["split"].isin(["blocks", "random"])]
    mean = mean[~mean["method"].str.startswith("shuffled:")]
    return mean.pivot(index="method", columns="split", values="value")


def check_maps(study, target):
    "Maps reach every valid cell and open as GeoTIFFs in the region's CRS"
    for region, spec in study.regions.items():
        path = study.processed / target / "maps" / f"likelihood_{region}.tif"
        with rasterio.open(path) as source:
            assert source.crs == rasterio.crs.CRS.from_user_input(spec.crs)
            assert source.shape == spec.shape and np.isnan(source.nodata)
            values = source.read(1)
        assert np.isfinite(values).mean() > 0.3
        assert 0 <= np.nanmin(values) and np.nanmax(values) <= 1
    facts = json.loads(path.with_name("maps.json").read_text())
    assert (
        facts["target"] == target and facts["inputs"] and "rank" in facts["meaning"]["likelihood"]
    )


def test_few_deposits_are_enough_for_the_methods(mirror, elsewhere):
    "12 groups of deposits, from files of the mirror to the predictions of every method"
    name = "magmatic_nickel_mini"
    elsewhere(name)
    pipeline.run(name, only=["01", "02", "03", "04"], parameters=TINY)
    study = load(name)
    target = next(iter(study.targets))
    made = mapping.read_predictions(study, target)
    assert set(made["method"]) == {*QUICK, "mae"} and made["likelihood"].notna().all()
    check_maps(study, target)


def test_a_real_study_runs_through_the_mirror(mirror, elsewhere):
    "Files from the mirror, checked; all notebooks; scores of every method under blocks"
    name = "us_midcontinent_mini"
    elsewhere(name)
    pipeline.run(name, settings=TINY)
    study = load(name)
    target = next(iter(study.targets))
    entries = record.entries(study)
    assert {entry["status"] for entry in entries.values()} == {"done"} and len(entries) == 7
    auc = auc_of_methods(scores(name))["blocks"]
    assert set(auc.index) == {*QUICK, "mae"} and auc.between(0, 1).all()
    check_maps(study, target)


def test_two_continents_are_prepared_through_the_mirror(mirror, elsewhere):
    "Published files to cubes: layers, land only, deposits on both continents, physical ranges"
    elsewhere("znpb")
    pipeline.run("znpb", only=["01"])
    study = load("znpb")
    cubes = datacube.read_cubes(study)
    counts = labels.counts(cubes, list(study.targets)).set_index(["region", "target"])
    assert counts["deposits"].to_dict() == {
        ("north_america", "MVT"): 46,
        ("north_america", "CD"): 26,
        ("australia", "MVT"): 11,
        ("australia", "CD"): 18,
    }
    for cube in cubes.values():
        layers = np.unique(cube["origin"].values)
        assert len(layers) >= 35
        assert 0.2 < cube["valid"].values.mean() < 0.8  # land, not the sea around it
        moho = cube["evidence"].sel(layer="moho_depth").values[cube["valid"].values]
        assert np.isfinite(moho).mean() > 0.99
        assert 5 < np.nanmin(moho) and np.nanmax(moho) < 80  # km
        assert len(set(cube["checksum"].values)) > 10
