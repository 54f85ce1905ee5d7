"""The tutorial's files: as messy as said, the same from one seed, wrong where they should be."""

import re

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from shapely.geometry import Point

from mpm import align, artefacts, deposits, doctor, tutorial
from mpm.study import load

STUDY = """
name: toy
folder: data
licence: CC0-1.0
regions:
  home: {crs: "EPSG:32633", resolution: 5000, bounds: [400000, 4950000, 600000, 5150000]}
layers:
  - {name: gravity, group: g, units: mGal, file: gravity.tif}
  - {name: magnetics, group: g, units: nT, file: magnetics.tif}
  - {name: rock, group: g, kind: categorical, units: "1", file: rocks.tif, classes: [1, 2, 3, 4]}
  - {name: fault_distance, group: g, kind: distance, units: m, file: faults.shp}
deposits: {file: deposits.csv, type: type, name: name}
targets: {MVT: {types: [MVT], radius: 2500}}
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    "A study of the tutorial's files, on cells of 5 km"
    folder = tmp_path_factory.mktemp("tutorial")
    tutorial.write(folder / "data", seed=7)
    tutorial.spoil(folder / "data")
    (folder / "toy.yaml").write_text(STUDY)
    return load(str(folder / "toy.yaml"))


@pytest.fixture(scope="module")
def notes(toy):
    table = align.check(toy)
    return table, align.remarks(toy, table)


def test_files_come_in_projections_of_their_own(toy, notes):
    "Four CRS, three resolutions; the magnetic survey has a gap, which is no value"
    table, _ = notes
    facts = table.set_index("layer")
    assert facts["CRS"].to_dict() == {
        "gravity": "EPSG:4326",
        "magnetics": "EPSG:3035",
        "rock": "EPSG:32632",
        "fault_distance": "EPSG:4258",
    }
    assert facts["resolution"].nunique() == 4
    assert facts["coverage"].drop("magnetics").eq(100).all()
    assert 90 < facts.loc["magnetics", "coverage"] < 97
    assert facts.loc["magnetics", "min"] > -500


def test_deposits_lie_where_the_geology_says(toy):
    "Of 40 MVT nearly all are in carbonate and close to a fault; two odd rows are left out"
    known = deposits.read_deposits(toy, "home", align.grid(toy.regions["home"]))
    assert known["type"].value_counts().to_dict() == {"MVT": 40, "vein": 8}
    assert known.attrs["dropped_names"] == ["Faraway"]
    assert known.attrs["merged_names"] == ["D1 (north shaft)"]
    mvt = gpd.GeoSeries.from_xy(*known.loc[known["type"] == "MVT", ["x", "y"]].T.values)
    mvt = mvt.set_crs("EPSG:32633")
    faults = gpd.read_file(toy.raw / "faults.shp").to_crs("EPSG:32633").union_all()
    assert (mvt.distance(faults) < 6000).mean() > 0.8
    with rasterio.open(toy.raw / "rocks.tif") as source:
        codes = [k[0] for k in source.sample([(p.x, p.y) for p in mvt.to_crs(source.crs)])]
    assert tutorial.ROCKS[2] == "carbonate" and np.mean(np.array(codes) == 2) > 0.8
    places = [Point(p) for p in known[["x", "y"]].to_numpy()]
    apart = min(a.distance(b) for k, a in enumerate(places) for b in places[:k])
    assert apart > 1000


def test_a_seed_makes_the_same_ground_and_another_seed_another(toy, tmp_path):
    "Rasters and table to the byte"
    tutorial.write(tmp_path, seed=7)
    for name in ("gravity.tif", "magnetics.tif", "rocks.tif", "deposits.csv"):
        assert (tmp_path / name).read_bytes() == (toy.raw / name).read_bytes(), name
    tutorial.write(tmp_path, seed=8)
    assert (tmp_path / "gravity.tif").read_bytes() != (toy.raw / "gravity.tif").read_bytes()
    assert not pd.read_csv(tmp_path / "deposits.csv").equals(pd.read_csv(toy.raw / "deposits.csv"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("4950000, 600000", "600000, 4950000", "error: .../mistake.yaml is not a valid study"),
        ("type: type,", "type: type, x: latitude, y: longitude,", "are exchanged; exchange"),
        ("magnetics.tif", "magnetics_bare.tif", "error: .*magnetics_bare.tif"),
        ("gravity.tif", "gravity_9999.tif", "note: layer 'gravity', region 'home': -9999 looks"),
        ("faults.shp", "workings.shp", "note: MVT: layer 'fault_distance' alone tells deposits"),
    ],
)
def test_each_mistake_is_told(toy, notes, old, new, said):
    "Three are refused and two are noted; no message shows whose folder it is"
    text = tutorial.mistake(toy.path, old, new, usual=notes[1])
    assert re.search(said, text, re.DOTALL), text
    assert str(toy.path.parent) not in text


def test_what_is_no_mistake_is_refused(toy, notes):
    "Words that are not there, or that change nothing"
    with pytest.raises(ValueError, match="says 'nowhere' 0 times"):
        tutorial.mistake(toy.path, "nowhere", "elsewhere")
    usual = notes[1] + doctor.notes(toy)
    with pytest.raises(ValueError, match="nothing is said of 'name: other'"):
        tutorial.mistake(toy.path, "name: toy", "name: other", usual=usual)


def test_the_folder_is_emptied_unless_it_is_somebodys(monkeypatch, tmp_path):
    "It holds the tutorial's study file, or nothing"
    monkeypatch.setenv("MPM_PROCESSED", str(tmp_path))
    folder = tutorial.fresh_folder("lesson")
    assert folder == artefacts.processed("lesson") and not folder.exists()
    (folder / "data").mkdir(parents=True)
    (folder / "lesson.yaml").write_text("")
    assert not tutorial.fresh_folder("lesson").exists()
    folder.mkdir()
    (folder / "scores.parquet").write_text("")
    with pytest.raises(FileExistsError, match="a study that is not the tutorial's"):
        tutorial.fresh_folder("lesson")
    assert (folder / "scores.parquet").exists()
