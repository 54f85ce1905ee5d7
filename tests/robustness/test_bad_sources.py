"""Registries of public files, the published table, new studies, and records of runs."""

import csv
import json
import shutil
from functools import partial

import pytest
from bad_inputs import Bad, cut, edit, judge, nothing
from ground import STUDY
from toy_notebooks import write_notebook

from mpm import artefacts, lawley_sample
from mpm.__main__ import main

COMMIT = "0" * 40
ROW = {"study": "toy", "repository": "owner/maps", "commit": COMMIT, "path": "maps/gravity.tif"}
ROW |= {"bytes": "7", "licence": "CC0"}
RAW = "data/gravity.tif"


def registry(**changes):
    "Have the study's gravity come from a registry and a mirror, of which something is wrong"

    def spoil(home):
        (home / "toy.yaml").write_text(STUDY.replace("folder:", "fetch: registry\nfolder:"))
        copy = home / "mirror/owner/maps" / COMMIT / "maps/gravity.tif"
        copy.parent.mkdir(parents=True)
        shutil.copy(home / RAW, copy)
        own = ROW | {"sha256": artefacts.sha256(copy)} | changes
        own = {key: value for key, value in own.items() if value is not None}
        with (home / "data/registry.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([own.keys(), own.values()])

    return spoil


def forged(home):
    "The mirror holds another file, and the study's own is gone"
    registry()(home)
    (home / "mirror/owner/maps" / COMMIT / "maps/gravity.tif").write_bytes(b"forged")
    (home / RAW).unlink()


def gone(home):
    forged(home)
    shutil.rmtree(home / "mirror/owner")


def unknown(home):
    "A layer that the registry does not bring"
    registry()(home)
    edit("toy.yaml", "file: gravity.tif", "file: other.tif")(home)


FILE = ["registry.csv", "correct it"]
Registry = partial(Bad, "registry", command="fetch toy.yaml")
REGISTRIES = [
    Registry("missing", lambda home: [registry()(home), (home / "data/registry.csv").unlink()],
             ["registry.csv", "check the place"]),
    Registry("no column of checksums", registry(sha256=None), ["no column sha256; add it"]),
    Registry("no row of the study", registry(study="other"), ["no file of study 'toy'", "add rows"]),
    Registry("another hash", registry(sha256="0" * 64),
             ["gravity.tif", "was refused and nothing was replaced", "0" * 64]),
    Registry("a weak hash", registry(sha256="md5:" + "0" * 32), [*FILE, "sha256 'md5:"]),
    Registry("no hash", registry(sha256=""), [*FILE, "sha256 ''"]),
    Registry("a branch for a commit", registry(commit="main"), [*FILE, "commit 'main'"]),
    Registry("http, not https", registry(repository="http://example.org/maps"),
             [*FILE, "repository 'http:", "owner/name"]),
    Registry("another host", registry(repository="me@example.org/maps"), [*FILE, "repository"]),
    Registry("a path that climbs", registry(path="../../../outside.tif"), [*FILE, "path '../"]),
    Registry("a path of its own", registry(path="/etc/passwd"), [*FILE, "path '/etc/passwd'"]),
    Registry("a path that ends above", registry(path="maps/.."), [*FILE, "path 'maps/..'"]),
    Registry("a size that is none", registry(bytes="many"), [*FILE, "bytes 'many'"]),
    Registry("a forged copy", forged, ["gravity.tif", "refused and nothing was replaced"]),
    Registry("a mirror without the file", gone, ["gravity.tif", "complete the folder"]),
    Registry("a mirror that is no folder", lambda home: [forged(home),
             shutil.rmtree(home / "mirror")], ["MPM_MIRROR", "is not a folder", "unset it"]),
    Registry("a layer it does not bring", unknown, ["other.tif", "brings no such file", "correct"]),
]


@pytest.mark.parametrize("bad", REGISTRIES, ids=str)
def test_a_bad_registry_is_named_and_harms_nothing(
    bad, home, monkeypatch, capsys, record_property
):
    "Row and column are named, nothing is downloaded, and earlier results stay"
    monkeypatch.setenv("MPM_HOME", str(home))
    monkeypatch.setenv("MPM_MIRROR", str(home / "mirror"))
    judge(bad, home, capsys, record_property)


# The published table


def sample(change):
    "Write some rows of the published table, and change its text"

    def spoil(home):
        lawley_sample.write_sample(home / "sample.csv", 300)
        text = (home / "sample.csv").read_bytes()
        (home / "sample.csv").write_bytes(change(text))

    return spoil


def second(text, row):
    "Put another row after the heading"
    heading, rest = text.split(b"\n", 1)
    return heading + b"\n" + row + b"\n" + rest


Cube = partial(
    Bad, "datacube", command="datacube build sample.csv out --features none", written=["out"]
)  # a folder with nothing in it may be left
TABLES = [
    Cube("missing", nothing, ["sample.csv is missing"]),
    Cube("empty", sample(lambda text: b""), ["sample.csv"]),
    Cube("another heading", sample(lambda text: text.replace(b"H3_Address", b"Cell", 1)),
         ["sample.csv", "H3_Address"]),
    Cube("a row cut short", sample(lambda text: text[: int(0.6 * len(text))]), ["sample.csv"]),
    Cube("a row that is no row", sample(lambda text: second(text, b"no,row")), ["sample.csv"]),
    Cube("bytes of a picture", sample(lambda text: b"\x89PNG\r\n\x1a\n" * 50), ["sample.csv"]),
    Cube("a folder", lambda home: (home / "sample.csv").mkdir(), ["sample.csv is missing"]),
    Cube("a label among the features", sample(bytes), ["Label_MVT is a label"],
         command="datacube build sample.csv out --features Label_MVT"),
    Cube("cells of 90 degrees", sample(bytes), ["90 degrees", "take 0.02"],
         command="datacube build sample.csv out --degrees 90"),
    Cube("a file for a folder", lambda home: [sample(bytes)(home), (home / "out").write_text("")],
         ["out", "check the place"]),
]
New = partial(Bad, "new study")
NAMES = [
    New("a name that climbs", nothing, ["'../x' cannot name a study", "letters"],
        command="new ../x"),
    New("a name with a blank", nothing, ["'my region'"], command="new 'my region'"),
    New("there already", lambda home: (home / "mine/data").mkdir(parents=True) or
        (home / "mine/data/a.tif").write_text(""), ["is there already; choose another name"],
        command="new mine"),
]


@pytest.mark.parametrize("bad", TABLES + NAMES, ids=str)
def test_a_bad_table_or_name_is_named_and_harms_nothing(bad, home, capsys, record_property):
    "Nothing is half written where something is to be made"
    judge(bad, home, capsys, record_property)


# Runs: the toy notebooks were run before; kernels, parameters and records are wrong

TINY = "data/processed/tiny"
EXECUTED = [f"{TINY}/run.json", f"{TINY}/ro-crate-metadata.json", f"{TINY}/notebooks"]
SECOND_COPY = f"{TINY}/notebooks/02_second.failed.ipynb"


def notebook(name, parameters, code):
    "Change one of the notebooks"
    return lambda home: write_notebook(home, name, parameters, code)


OWN = 'study = "tiny"\nepochs = 3\ndevice = "auto"'
Run = partial(Bad, "run", command="run tiny")
RUNS = [
    Run("a notebook that fails", notebook("02_second", OWN, "1 / 0"),
        ["02_second stopped in cell 4", "ZeroDivisionError", SECOND_COPY, "the same command"],
        code=1, written=[*EXECUTED, SECOND_COPY]),
    Run("a kernel that dies", notebook("02_second", OWN, "import os\nos._exit(1)"),
        ["02_second stopped in cell", "its kernel died", "enough memory"],
        code=1, written=[*EXECUTED, SECOND_COPY]),
    Run("a notebook that is no JSON", lambda home: (home / "notebooks/02_second.ipynb").write_text(
        "{"), ["02_second.ipynb"]),
    Run("a computed parameter", notebook("02_second", "epochs = 1 + 1", "1"),
        ["02_second.ipynb", "computed"]),
    Run("no notebooks", lambda home: shutil.rmtree(home / "notebooks"), ["no numbered notebooks"]),
    Run("an unknown notebook", nothing, ["'07' is no notebook number"],
        command="run tiny --only 07"),
    Run("an unknown parameter", nothing, ["'epoch' is no parameter", "did you mean epochs"],
        command="run tiny --set epoch=3"),
    Run("a parameter of another type", nothing, ["'epochs' takes int values"],
        command="run tiny --set epochs=many"),
    Run("an unknown device", nothing, ["'gpu' is no device"], command="run tiny --device gpu"),
    Run("an unknown preset", nothing, ["'big' is no preset"], command="run tiny --preset big"),
    Run("parameters that are a folder", nothing, ["notebooks cannot be read"],
        command="run tiny --parameters notebooks"),
    Run("a record cut short", cut(f"{TINY}/run.json", 0.5), ["run.json is not valid JSON"]),
    Run("a record of another version", lambda home: (home / TINY / "run.json").write_text("[]"),
        ["run.json lacks notebooks", "make it again"]),
    Run("status: a record cut short", cut(f"{TINY}/run.json", 0.5), ["run.json is not valid JSON"],
        command="status tiny"),
    Run("status: entries of another version", lambda home: (home / TINY / "run.json").write_text(
        '{"notebooks": {"01_first": {}}}'), ["run.json", "01_first"], command="status tiny"),
    Run("verify: never run", lambda home: (home / TINY / "run.json").unlink(),
        ["'tiny' has no record", "mpm run tiny"], command="verify tiny"),
    Run("verify: no such folder", nothing, ["elsewhere holds no figures/tiny"],
        command="verify tiny --against elsewhere"),
    Run("verify: no manifest", lambda home: (home / "figures/tiny/manifest.json").unlink(),
        ["manifest.json is missing", "mpm run tiny"], command="verify tiny --against ."),
    Run("verify: a manifest of another version", lambda home: (
        home / "figures/tiny/manifest.json").write_text('[{"file": 1}]'),
        ["manifest.json is damaged", "--force"], command="verify tiny --against ."),
    Run("a manifest cut short", cut("figures/tiny/manifest.json", 0.5),
        ["manifest.json is not valid JSON"]),
]


@pytest.mark.parametrize("bad", RUNS, ids=str)
def test_a_bad_run_is_named_and_harms_nothing(bad, tiny, capsys, record_property):
    "Notebook, cell or parameter is named, and what earlier runs made stays"
    judge(bad, tiny, capsys, record_property)


def test_a_kernel_that_is_not_here_is_not_asked_for(tiny, capsys):
    "Whatever kernel a notebook was saved with, the runner takes this Python's"
    path = tiny / "notebooks" / "02_second.ipynb"
    content = json.loads(path.read_text())
    content["metadata"]["kernelspec"] = {"name": "my-conda", "display_name": "my conda", "language": "python"}
    path.write_text(json.dumps(content))
    assert main(["run", "tiny", "--set", "epochs=4"]) == 0
    assert "02_second" in capsys.readouterr().out


def test_a_missing_kernel_is_named(tiny, capsys, monkeypatch, record_property):
    "As of an environment without ipykernel: what is missing, what to install, nothing run"
    monkeypatch.setattr("mpm.kernel.KERNEL", "no_such_kernel")
    bad = Bad(
        "run",
        "a kernel that is not installed",
        nothing,
        ["no_such_kernel", "pip install ipykernel"],
        "run tiny --force",
        code=1,
        written=[*EXECUTED, f"{TINY}/notebooks/01_first.failed.ipynb"],
    )
    judge(bad, tiny, capsys, record_property)


def test_what_cannot_be_compared_has_changed(tiny, capsys):
    "A table and a figure cut short in the record: a line each, and exit code 1"
    again = tiny / "again"
    made = [tiny / TINY / "scores.parquet", tiny / "figures/tiny/01_map.png"]
    other = [again / "processed/tiny/scores.parquet", again / "figures/tiny/01_map.png"]
    for number, path in enumerate(made + other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"cut short" + bytes([number]))
    assert main(["verify", "tiny", "--against", "again"]) == 1
    said = capsys.readouterr().out
    assert said.count("cannot be compared") == 2 and "scores.parquet" in said
