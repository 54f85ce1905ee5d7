"""Registries of public files, the published table, and new studies."""

import csv
import shutil
from functools import partial

import pytest
from bad_inputs import Bad, edit, judge, nothing
from ground import STUDY

from mpm import artefacts, lawley_sample

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
    Registry(
        "missing",
        lambda home: [registry()(home), (home / "data/registry.csv").unlink()],
        ["registry.csv", "check the place"],
    ),
    Registry("no column of checksums", registry(sha256=None), ["no column sha256; add it"]),
    Registry(
        "no row of the study", registry(study="other"), ["no file of study 'toy'", "add rows"]
    ),
    Registry(
        "another hash",
        registry(sha256="0" * 64),
        ["gravity.tif", "was refused and nothing was replaced", "0" * 64],
    ),
    Registry("a weak hash", registry(sha256="md5:" + "0" * 32), [*FILE, "sha256 'md5:"]),
    Registry("no hash", registry(sha256=""), [*FILE, "sha256 ''"]),
    Registry("a branch for a commit", registry(commit="main"), [*FILE, "commit 'main'"]),
    Registry(
        "http, not https",
        registry(repository="http://example.org/maps"),
        [*FILE, "repository 'http:", "owner/name"],
    ),
    Registry("another host", registry(repository="me@example.org/maps"), [*FILE, "repository"]),
    Registry("a path that climbs", registry(path="../../../outside.tif"), [*FILE, "path '../"]),
    Registry("a path of its own", registry(path="/etc/passwd"), [*FILE, "path '/etc/passwd'"]),
    Registry("a path that ends above", registry(path="maps/.."), [*FILE, "path 'maps/..'"]),
    Registry("a size that is none", registry(bytes="many"), [*FILE, "bytes 'many'"]),
    Registry("a forged copy", forged, ["gravity.tif", "refused and nothing was replaced"]),
    Registry("a mirror without the file", gone, ["gravity.tif", "complete the folder"]),
    Registry(
        "a mirror that is no folder",
        lambda home: [forged(home), shutil.rmtree(home / "mirror")],
        ["MPM_MIRROR", "is not a folder", "unset it"],
    ),
    Registry("a layer it does not bring", unknown, ["other.tif", "brings no such file", "correct"]),
]


@pytest.mark.parametrize("bad", REGISTRIES, ids=str)
def test_a_bad_registry_is_named_and_harms_nothing(bad, home, monkeypatch, capsys, record_property):
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
    Cube(
        "another heading",
        sample(lambda text: text.replace(b"H3_Address", b"Cell", 1)),
        ["sample.csv", "H3_Address"],
    ),
    Cube("a row cut short", sample(lambda text: text[: int(0.6 * len(text))]), ["sample.csv"]),
    Cube("a row that is no row", sample(lambda text: second(text, b"no,row")), ["sample.csv"]),
    Cube("bytes of a picture", sample(lambda text: b"\x89PNG\r\n\x1a\n" * 50), ["sample.csv"]),
    Cube("a folder", lambda home: (home / "sample.csv").mkdir(), ["sample.csv is missing"]),
    Cube(
        "a label among the features",
        sample(bytes),
        ["Label_MVT is a label"],
        command="datacube build sample.csv out --features Label_MVT",
    ),
    Cube(
        "cells of 90 degrees",
        sample(bytes),
        ["90 degrees", "take 0.02"],
        command="datacube build sample.csv out --degrees 90",
    ),
    Cube(
        "a file for a folder",
        lambda home: [sample(bytes)(home), (home / "out").write_text("")],
        ["out", "check the place"],
    ),
]
New = partial(Bad, "new study")
NAMES = [
    New(
        "a name that climbs", nothing, ["'../x' cannot name a study", "letters"], command="new ../x"
    ),
    New("a name with a blank", nothing, ["'my region'"], command="new 'my region'"),
    New(
        "there already",
        lambda home: (
            (home / "mine/data").mkdir(parents=True) or (home / "mine/data/a.tif").write_text("")
        ),
        ["is there already; choose another name"],
        command="new mine",
    ),
]


@pytest.mark.parametrize("bad", TABLES + NAMES, ids=str)
def test_a_bad_table_or_name_is_named_and_harms_nothing(bad, home, capsys, record_property):
    "Nothing is half written where something is to be made"
    judge(bad, home, capsys, record_property)
