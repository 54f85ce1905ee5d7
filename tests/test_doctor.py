"""A toy region with every fault that `mpm check` remarks on, and one without."""

import numpy as np
import pandas as pd
import pyproj
import pytest
from helpers import NORTH, STEP, WEST, tiny, toy_cube, write_tif

from mpm import __main__ as cli
from mpm import artefacts, datacube, doctor, labels, mae
from mpm.scaling import fit_scaling
from mpm.study import load

SIZE = 40  # cells of 1 km along a side
STUDY = """
name: toy
folder: data
licence: CC0-1.0
regions:
  west: {crs: "EPSG:32633", resolution: 1000, bounds: [500000, 4966000, 540000, 5006000]}
layers:
  - {name: gravity, group: g, units: mGal, file: gravity.tif}
  - {name: gravity_again, group: g, units: mGal, file: again.tif, licence: MIT}
  - {name: drill_holes, group: g, units: "1", file: drilled.tif}
  - {name: survey, group: g, units: "1", file: survey.tif}
deposits: {file: deposits.csv, type: type}
targets:
  MVT: {types: [MVT]}
  CD: {types: [CD]}
"""


def place(row, col):
    """Longitude and latitude of a cell's centre."""
    there = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    return there.transform(WEST + (col + 0.5) * STEP, NORTH - (row + 0.5) * STEP)


@pytest.fixture
def toy(tmp_path):
    """Twelve MVT deposits 10 km apart and three CD; layers that say the same or too much."""
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(7)
    cells = [(row, col) for row in (5, 15, 25) for col in (5, 15, 25, 35)]
    gravity = rng.normal(size=(SIZE, SIZE)).astype("float32")
    drilled = rng.normal(size=(SIZE, SIZE)).astype("float32")
    survey = np.full((SIZE, SIZE), -9999, "float32")
    survey[:8] = rng.normal(size=(8, SIZE))
    for row, col in cells:
        drilled[row, col] += 10
        survey[row, col] = rng.normal()
    write_tif(data / "gravity.tif", gravity)
    write_tif(data / "again.tif", 2 * gravity + 1)
    write_tif(data / "drilled.tif", drilled)
    write_tif(data / "survey.tif", survey, nodata=-9999)
    rows = [(*place(*cell), "MVT") for cell in cells]
    rows += [(*place(*cell), "CD") for cell in [(30, 30), (31, 30), (32, 30)]]
    table = pd.DataFrame(rows, columns=["longitude", "latitude", "type"])
    table.to_csv(data / "deposits.csv", index=False)
    (tmp_path / "toy.yaml").write_text(STUDY)
    return load(str(tmp_path / "toy.yaml"))


def about(lines, *words):
    """Return the lines that hold all words."""
    return [line for line in lines if all(word in line for word in words)]


def test_every_remark_is_made_once(toy):
    "Licences, gaps, twins, names, spacing, numbers, imbalance, telltale values and gaps"
    lines = doctor.notes(toy)
    assert about(lines, "licences: CC0-1.0 (4 files); MIT (1 file)")
    # 320 cells of the survey and 8 deposits below them, of 1600
    assert about(lines, "region 'west': survey covers less than 50 %")
    assert about(lines, "nearly the same", "gravity and gravity_again (1.000)")
    assert about(lines, "drill_holes: by name")
    (spaced,) = about(lines, "of another")
    assert spaced.startswith("CD, region 'west': half of the deposits lie within 1 km")
    # 1600 cells of 1 km make five folds of five blocks of 8 km
    (dealt,) = about(lines, "MVT, blocks: 12 deposits in 12 of 25 blocks of 8 km")
    assert "each of 5 folds tests 2 to 3" in dealt
    assert about(lines, "MVT: 1 cell in 133 is positive")  # 1600 / 12
    assert about(lines, "CD: 3 deposits", "too few for 5 folds")
    (alone,) = about(lines, "alone tells deposits")
    assert alone.startswith("MVT: layer 'drill_holes' alone") and "(AUC 1.00)" in alone
    (gap,) = about(lines, "is observed at")
    assert gap.startswith("MVT: layer 'survey' is observed at 100 % of deposits and in 20 %")
    assert about(lines, "not looked at: which single layers tell CD, with 3 deposits")
    assert lines == doctor.notes(toy)  # the sample is seeded


def test_a_sound_study_gets_numbers_only(toy):
    "Without the odd layers and the second target, three facts are left"
    sound = toy.model_copy(
        update={"layers": toy.layers[:1], "targets": {"MVT": toy.targets["MVT"]}}
    )
    lines = doctor.notes(sound, folds=3)
    assert [line.split()[0] for line in lines] == ["licences:", "MVT,", "MVT:"]
    assert "each of 3 folds tests 4 to 4" in lines[1]


def lend(folder, units):
    """Save a tiny backbone of gravity, and of magnetics, which the study lacks."""
    cube = toy_cube(1).assign_coords(layer=["gravity", "magnetics"])
    scaling = fit_scaling([cube], [cube["valid"].values])
    facts = {"units": units, "resolution": {"there": 1500.0}}
    mae.save(mae.build(tiny(), 0), folder, layers=list(units), scaling=scaling, facts=facts)


def test_a_backbone_from_elsewhere_is_laid_against_the_layers(toy, capsys):
    "What it uses, misses and ignores is noted; one that does not suit is an error of `mpm check`"
    toy.path.write_text(STUDY + "backbone: {folder: lent, layers: {magnetics: null}}\n")
    lend(toy.raw / "lent", {"gravity": "mGal", "magnetics": "nT"})
    lines = doctor.notes(load(str(toy.path)))
    assert about(lines, "backbone lent, pretrained elsewhere: uses gravity")
    assert about(lines, "missing everywhere for the backbone: magnetics")
    assert about(lines, "ignored by the backbone", "gravity_again, drill_holes, survey")
    lend(toy.raw / "lent", {"gravity": "gu", "magnetics": "nT"})
    assert cli.main(["check", str(toy.path)]) == 2
    assert "layer 'gravity' is in 'mGal', the backbone learned" in capsys.readouterr().err


def test_large_regions_are_looked_at_on_coarser_cells(toy, monkeypatch):
    "40 x 40 cells are 20 x 20 of 2 km if 400 are the most; 150 gives 10 x 10 of 4 km"
    monkeypatch.setattr(doctor, "CELLS", 400)
    assert about(doctor.notes(toy), "region 'west' was looked at on cells of 2 km")
    region = toy.regions["west"]
    monkeypatch.setattr(doctor, "CELLS", 100)
    assert doctor._coarser(region).shape == (10, 10)
    monkeypatch.setattr(doctor, "CELLS", 1600)
    assert doctor._coarser(region) is region


def test_a_cube_of_the_same_files_is_taken(toy, monkeypatch):
    "Notebook 01's cube spares aligning; once a file changes it is aligned here again"
    cube, _ = labels.add_labels(datacube.build(toy, "west"), toy)
    datacube.write(cube, datacube.path(toy, "west"))
    expected = doctor.notes(toy)
    with monkeypatch.context() as patch:
        patch.setattr(datacube, "build", lambda *_: pytest.fail("aligned again"))
        assert doctor.notes(toy) == expected
    (datacube.path(toy, "west") / ".zmetadata").write_text("damaged")
    assert doctor.notes(toy) == expected
    datacube.write(cube, datacube.path(toy, "west"))
    write_tif(toy.raw / "gravity.tif", np.random.default_rng(8).normal(size=(SIZE, SIZE)))
    assert not about(doctor.notes(toy), "nearly the same")


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        ("mine_distance", True), ("MineRoads", True), ("drillholes", True), ("railroad_km", True),
        ("known_mineral_occurrences", True), ("old_mining_licences2", True), ("roadDensity", True),
        ("mineralogy", False), ("broadband_seismic", False), ("undeposited", False),
        ("determined", False), ("gravity", False),
    ],
)  # fmt: skip
def test_names_are_read_word_by_word(toy, name, telling):
    "A layer is remarked on for a whole word, not for what other words happen to hold"
    layer = toy.layers[0].model_copy(update={"name": name})
    assert bool(doctor._names(toy.model_copy(update={"layers": (layer,)}))) == telling


def test_the_split_that_notebook_02_chose_is_judged(toy):
    "Once it has run: its folds and blocks; a damaged record of them is left to the notebooks"
    place = toy.processed / "splits.json"
    artefacts.write_json(place, {"split": {"folds": 2, "block_km": 20.0, "seed": 3}})
    assert about(doctor.notes(toy), "MVT, blocks: 12 deposits in 4 of 4 blocks of 20 km", "2 folds")
    artefacts.write_json(place, {"split": {"fold": 2}})
    assert about(doctor.notes(toy), "MVT, blocks: 12 deposits in", "5 folds")
