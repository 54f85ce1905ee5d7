"""A study that `mpm new` starts is valid, and complete once the files it names are there."""

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import write_shapes, write_tif
from shapely.geometry import LineString, box

from mpm import __main__ as cli
from mpm import artefacts, new_study, steps
from mpm.study import load, studies


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder outside the compendium."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(data):
    """Put the files in place that the README lists: 100 x 100 km in UTM zone 33."""
    values = np.random.default_rng(7).normal(size=(20, 20)).astype("float32")
    write_tif(data / "gravity.tif", values, step=5000, west=400_000, north=5_100_000)
    halves = [box(400e3, 5000e3, 450e3, 5100e3), box(450e3, 5000e3, 500e3, 5100e3)]
    write_shapes(data / "geology.gpkg", halves, rock=["carbonate", "shale"])
    write_shapes(data / "faults.gpkg", [LineString([(400e3, 5050e3), (500e3, 5060e3)])])
    rows = {"longitude": [14.2, 14.6], "latitude": [45.4, 45.8], "type": ["MVT", "MVT"]}
    pd.DataFrame(rows | {"name": ["a", "b"]}).to_csv(data / "deposits.csv", index=False)


def test_a_new_study_is_valid_once_its_files_are_there(elsewhere, capsys):
    "`mpm new`, five files, `mpm check`: all four layers can be read"
    assert cli.main(["new", "my_region"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "next: put your files beside the README, then `mpm check my_region/my_region.yaml`"
    )
    setup = load("my_region/my_region.yaml")
    assert setup.raw == elsewhere / "my_region" / "data"
    readme = (setup.raw / "README.md").read_text()
    names = {layer.file for layer in setup.layers if layer.file} | {setup.deposits.file}
    assert all(f"`{name}`" in readme for name in names)
    fill(setup.raw)
    assert cli.main(["check", "my_region/my_region.yaml"]) == 0
    assert "my_region: all 4 layers can be read" in capsys.readouterr().out


def test_inside_the_compendium_it_is_one_of_its_studies(tmp_path, monkeypatch):
    "The study file lies under data/studies, its data under data/raw; commands take the name"
    monkeypatch.setenv("MPM_HOME", str(tmp_path))
    monkeypatch.setattr(new_study, "parameters", lambda: "")
    made = new_study.create("mine", tmp_path)
    assert made.call == "mine" and list(studies()) == ["mine"]
    assert load("mine").raw == tmp_path / "data" / "raw" / "mine" == made.readme.parent
    assert "mpm check mine " in made.study.read_text()


def test_the_parameters_are_those_of_the_notebooks(elsewhere):
    "Every one, once, with the notebook's own value, but for those that the command line gives"
    written = yaml.safe_load(new_study.parameters())
    own = {}
    for path in reversed(steps.notebooks()):
        own |= steps.defaults(path)
    assert written == {k: v for k, v in own.items() if k not in ("study", "target", "device")}
    assert "samples: 100  # dropout samples for the uncertainty\n" in new_study.parameters()


def test_names_are_checked(elsewhere):
    "They become names of files and folders"
    for name in ("my region", "../mine", "1st", "", "süd", "my-region"):
        with pytest.raises(ValueError, match="cannot name a study"):
            new_study.create(name, elsewhere)
    assert list(elsewhere.iterdir()) == []


def test_nothing_is_overwritten(elsewhere):
    "Neither a study file nor somebody's data"
    made = new_study.create("mine", elsewhere)
    made.study.write_text("precious")
    with pytest.raises(FileExistsError, match="mine.yaml is there already"):
        new_study.create("mine", elsewhere)
    assert made.study.read_text() == "precious"
    made.study.unlink()
    with pytest.raises(FileExistsError, match="data is there already"):
        new_study.create("mine", elsewhere)
    assert not made.study.exists()


def test_half_of_a_study_is_taken_away(elsewhere, monkeypatch):
    "The disk is full at the second file: nothing stays in the way of the next try"
    real = artefacts.atomic

    def atomic(path):
        if path.suffix == ".yaml":
            raise OSError("no space")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(artefacts, "atomic", atomic)
        with pytest.raises(OSError, match="no space"):
            new_study.create("mine", elsewhere)
    assert not [path for path in elsewhere.rglob("*") if path.is_file()]
    assert new_study.create("mine", elsewhere).study.exists()
