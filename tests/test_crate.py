"""The RO-Crate of a run, as a program that knows nothing of mpm would read it."""

import json
import re

import pytest
from rocrate.rocrate import ROCrate
from toy_notebooks import STUDY, home  # noqa: F401  (home is a fixture)

from mpm import artefacts, crate, fetch, pipeline, record
from mpm.kernel import NotebookFailed
from mpm.study import load


@pytest.fixture
def graph(home):
    """The crate's entities by identifier, of a run of two notebooks; study and authors stated."""
    text = STUDY.replace("name: tiny\n", "name: tiny\ntitle: Tiny\nlicence: CC BY 4.0\n")
    text = text.replace("file: gravity.tif", "file: gravity.tif, licence: CC0 1.0")
    (home / "data" / "studies" / "tiny.yaml").write_text(text)
    authors = "authors:\n  - {given-names: Ada, family-names: Stone}\n  - name: A survey\n"
    (home / "CITATION.cff").write_text(authors)
    setup = load("tiny")
    made = record.begin(setup, ["01_first", "02_second"], 3)
    for name, day, file in [("01_first", 2, "first.txt"), ("02_second", 3, "second.txt")]:
        copy = setup.processed / "notebooks" / f"{name}.ipynb"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(f"executed {name}")
        (setup.processed / file).write_text(file)
        entry = {"status": "done", "started": f"2026-01-0{day}T00:00:00Z", "artefacts": [file]}
        entry |= {"parameters": {"seed": 3}, "executed": f"notebooks/{copy.name}"}
        figures = [{"figure": "01_map.png", "sha256": "1" * 64}] if day == 2 else []
        made.keep(setup, name, entry | {"figures": figures})
    return read(crate.write(setup, made))


def read(place):
    """Return a crate's entities by identifier."""
    return {each["@id"]: each for each in json.loads(place.read_text())["@graph"]}


def references(value):
    """Yield every identifier that a value points at."""
    if isinstance(value, list):
        for each in value:
            yield from references(each)
    elif isinstance(value, dict):
        yield value["@id"]


def test_the_crate_describes_itself_and_its_study(graph):
    "RO-Crate 1.1: a descriptor, a root with name, description, date, licence and authors"
    descriptor = graph["ro-crate-metadata.json"]
    assert descriptor["conformsTo"]["@id"] == "https://w3id.org/ro/crate/1.1"
    root = graph[descriptor["about"]["@id"]]
    assert root["@type"] == "Dataset" and root["name"] == "mpm run of study tiny: Tiny"
    assert root["description"] and root["datePublished"] == "2026-01-03"  # the last notebook
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    people = [graph[each["@id"]] for each in root["author"]]
    assert [(each["@type"], each["name"]) for each in people] == [
        ("Person", "Ada Stone"),
        ("Organization", "A survey"),
    ]
    assert root["publisher"] == {"@id": root["author"][1]["@id"]}
    assert root["author"][0]["@id"] != root["author"][1]["@id"]


def test_every_file_is_there_and_has_its_checksum(graph):
    "What a notebook made is its result; no reference points at nothing"
    folder = load("tiny").processed
    files = {key: each for key, each in graph.items() if each["@type"] == "File"}
    copies = {"notebooks/01_first.ipynb", "notebooks/02_second.ipynb"}
    assert files.keys() == {"first.txt", "second.txt", "run.json"} | copies
    for name, each in files.items():
        assert each["sha256"] == artefacts.sha256(folder / name)
        assert each["contentSize"] == str((folder / name).stat().st_size)
    made = [each["@id"] for each in graph["#run/01_first"]["result"]]
    assert made == ["first.txt", "notebooks/01_first.ipynb", "#figure/01_map.png"]
    assert graph["#run/01_first"]["object"] == [{"@id": "#input/gravity.tif"}]
    assert graph["#run/01_first"]["description"] == "seed = 3"
    for entity in graph.values():
        targets = {each for value in entity.values() for each in references(value)}
        known = {each for each in targets if not each.startswith("http")}
        assert known <= graph.keys()


def test_names_that_look_alike_stay_apart():
    "Other letters than those of identifiers, and long paths, give a hash; plain names stay"
    assert crate._slug("a/gravity.tif") == "a/gravity.tif"
    names = [
        "Ö.tif",
        "Ü.tif",
        "Ö tif",
        "-tif",
        f"{'x' * 70}/1.tif",
        f"{'x' * 70}/2.tif",
        "地図",
        "",
    ]
    slugs = [crate._slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert all(re.fullmatch(r"[\w./-]*", slug, re.ASCII) and len(slug) < 80 for slug in slugs)


def test_inputs_of_any_name_are_in_the_crate(home, monkeypatch):
    "Two that differ in a letter that no identifier has, and a file of a region called so"
    sums = {"Ö.tif": "1" * 64, "Ü.tif": "2" * 64}
    monkeypatch.setattr(fetch, "input_checksums", lambda study: sums)
    setup = load("tiny")
    setup.processed.mkdir(parents=True)
    (setup.processed / "Äon 1.tif").write_text("map")
    made = record.begin(setup, ["01_first"], 3)
    entry = {"status": "done", "started": "2026-01-02T00:00:00Z", "parameters": {}}
    made.keep(setup, "01_first", entry | {"artefacts": ["Äon 1.tif"]})
    found = read(crate.write(setup, made))
    told = [found[each["@id"]] for each in found["#run/01_first"]["object"]]
    assert {each["name"]: each["sha256"] for each in told} == sums
    assert found["%C3%84on%201.tif"]["name"] == "Äon 1.tif"


def test_each_notebook_has_the_inputs_that_it_read(home, monkeypatch):
    "A file that was replaced between two notebooks is two entities, of two checksums"
    pipeline.run("tiny", only=["01"])
    monkeypatch.setattr(fetch, "input_checksums", lambda study: {"gravity.tif": "5" * 64})
    pipeline.run("tiny", only=["02"])
    found = read(load("tiny").processed / crate.NAME)
    sums = [
        [found[each["@id"]]["sha256"] for each in found[f"#run/{name}"]["object"]]
        for name in ("01_first", "02_second")
    ]
    assert sums == [["0" * 64], ["5" * 64]]
    assert found["#input/gravity.tif"]["sha256"] == "5" * 64
    (old,) = [each for each in found.values() if each.get("sha256") == "0" * 64]
    assert old["name"] == "gravity.tif" and "no longer there" in old["description"]


def test_software_and_inputs_are_named_with_versions_and_licences(graph):
    "mpm needs each package in the version that ran; an input's own licence comes first"
    packages = json.loads((load("tiny").processed / "run.json").read_text())["packages"]
    for name, version in packages.items():
        assert graph[f"#software/{name}"]["version"] == version
    assert graph["#software/mpm"]["license"]["@id"].endswith("BSD-3-Clause")
    assert graph["#input/gravity.tif"]["sha256"] == "0" * 64
    assert graph["#input/gravity.tif"]["license"]["@id"] == "https://spdx.org/licenses/CC0-1.0"


def test_a_crate_is_of_a_whole_run(home):
    "A run that fails leaves none; a notebook that failed before is said to have failed"
    pipeline.run("tiny")
    setup = load("tiny")
    (setup.processed / "stop").touch()
    with pytest.raises(NotebookFailed):
        pipeline.run("tiny", seed=8)
    assert not (setup.processed / crate.NAME).exists()
    crate.write(setup, record.begin(setup, ["01_first", "02_second"], 8))
    states = {
        key: each.get("actionStatus") for key, each in read(setup.processed / crate.NAME).items()
    }
    assert states["#run/01_first"] == {"@id": "http://schema.org/CompletedActionStatus"}
    assert states["#run/02_second"] == {"@id": "http://schema.org/FailedActionStatus"}


def test_licences_come_from_layer_registry_and_study():
    "A shapefile's parts share that of the file; what nobody states is said to be unstated"
    setup = load("znpb")
    found = crate.licences(setup, ["ne_50m_land.json", "else.tif"])
    assert found["ne_50m_land.json"] == "public domain (CC0)"
    assert found["else.tif"].startswith("By file, see data/registry.csv")
    faults = setup.layers[0].model_copy(update={"file": "faults.shp", "licence": "MIT"})
    own = setup.model_copy(update={"layers": (faults,), "licence": "", "fetch": "none"})
    files = ["faults.shp", "faults.dbf", "other.dbf"]
    assert list(crate.licences(own, files).values()) == ["MIT", "MIT", "none stated"]


def test_the_public_library_reads_it(graph):
    "rocrate finds root, files and actions"
    read_back = ROCrate(load("tiny").processed)
    assert read_back.name == "mpm run of study tiny: Tiny"
    assert {each.id for each in read_back.data_entities} >= {"first.txt", "run.json"}
