import csv
import os
import stat
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.warp
import yaml
from requests.exceptions import ConnectionError as NoNetwork

from mpm import artefacts, conversion, fetch, study

COMMIT = "0" * 40
FILES = {"grids/plates & shp/gravity map.tif": b"gravity", "deposits.csv": b"longitude,latitude\n"}


@pytest.fixture
def small_mirror(tmp_path, monkeypatch):
    "A mirror of two tiny files, which MPM_MIRROR names"
    folder = tmp_path / "mirror"
    for path, content in FILES.items():
        copy = folder / "owner" / "maps" / COMMIT / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    monkeypatch.setenv("MPM_MIRROR", str(folder))
    return folder / "owner" / "maps" / COMMIT


@pytest.fixture
def registry(tmp_path, small_mirror):
    "The registry of those files, and of one of another study"
    path = tmp_path / "registry.csv"
    rows = [
        [
            "mine",
            "owner/maps",
            COMMIT,
            name,
            len(FILES[name]),
            artefacts.sha256(small_mirror / name),
        ]
        for name in FILES
    ]
    rows.append(["other", "owner/maps", COMMIT, "deposits.csv", 1, "f" * 64])
    write_registry(path, [[*row, "CC0"] for row in rows])
    return path


def write_registry(path, rows):
    with path.open("w", newline="") as stream:
        columns = ["study", "repository", "commit", "path", "bytes", "sha256", "licence"]
        csv.writer(stream).writerows([columns, *rows])


@pytest.fixture
def mine(tmp_path):
    return make_study(tmp_path, "registry")


def make_study(folder, how, layer_file="gravity map.tif", **region):
    content = {
        "name": "mine",
        "fetch": how,
        "regions": {
            "west": {"crs": "EPSG:5070", "resolution": 1000, "bounds": [0, 0, 2000, 2000]} | region
        },
        "layers": [{"name": "gravity", "group": "g", "units": "mGal", "file": layer_file}],
        "deposits": {"file": "deposits.csv"},
        "targets": {"all": {}},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    return study.load(str(folder / "mine.yaml"))


def test_files_land_flat_and_whole(mine, registry):
    "Each file lies in the study's folder under its own name, and nothing else does"
    paths = fetch.fetch(mine, registry=registry)
    assert paths == [mine.raw / "deposits.csv", mine.raw / "gravity map.tif"]
    assert (mine.raw / "gravity map.tif").read_bytes() == b"gravity"
    assert sorted(mine.raw.iterdir()) == paths


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights elsewhere")
def test_files_are_as_readable_as_any(mine, registry):
    "A colleague may read what one has fetched"
    path = fetch.fetch(mine, registry=registry)[0]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(registry.stat().st_mode)


def test_a_second_run_does_nothing(mine, registry, small_mirror):
    "Files that are right stay, even if the mirror lost them"
    times = [path.stat().st_mtime_ns for path in fetch.fetch(mine, registry=registry)]
    (small_mirror / "deposits.csv").unlink()
    again = fetch.fetch(mine, registry=registry)
    assert [path.stat().st_mtime_ns for path in again] == times


def test_a_wrong_file_is_replaced(mine, registry):
    "A file that somebody changed is fetched anew"
    fetch.fetch(mine, registry=registry)
    (mine.raw / "deposits.csv").write_text("changed")
    fetch.fetch(mine, registry=registry)
    assert (mine.raw / "deposits.csv").read_bytes() == FILES["deposits.csv"]


def test_a_changed_mirror_is_refused(mine, registry, small_mirror):
    "The message names file, expected and found checksum; what was there stays, whatever it is"
    (small_mirror / "deposits.csv").write_bytes(b"forged")
    mine.raw.mkdir()
    (mine.raw / "deposits.csv").write_text("my own")
    with pytest.raises(ValueError, match="nothing was replaced") as caught:
        fetch.fetch(mine, registry=registry)
    message = str(caught.value)
    assert message.startswith("deposits.csv: what came from " + str(small_mirror))
    assert fetch.read_registry(registry, "mine")[1].sha256 in message
    assert artefacts.sha256(small_mirror / "deposits.csv") in message
    assert (mine.raw / "deposits.csv").read_text() == "my own"
    # the other file is good and stays, and nothing half fetched is left
    assert {path.name for path in mine.raw.iterdir()} == {"deposits.csv", "gravity map.tif"}


def test_a_changed_mirror_does_not_matter_where_all_is_right(mine, registry, small_mirror):
    "A good earlier copy is not even compared with the mirror's"
    fetch.fetch(mine, registry=registry)
    (small_mirror / "deposits.csv").write_bytes(b"forged")
    fetch.fetch(mine, registry=registry)
    assert (mine.raw / "deposits.csv").read_bytes() == FILES["deposits.csv"]


def test_a_gap_in_the_mirror_is_named(mine, registry, small_mirror):
    "The message gives the path looked for and what to do; no network is tried"
    (small_mirror / "deposits.csv").unlink()
    with pytest.raises(FileNotFoundError, match="MPM_MIRROR") as caught:
        fetch.fetch(mine, registry=registry)
    assert str(small_mirror / "deposits.csv") in str(caught.value)
    assert {path.name for path in mine.raw.iterdir()} == {"gravity map.tif"}


def test_a_relative_mirror_is_found_from_the_working_directory(mine, registry, monkeypatch):
    "MPM_MIRROR=mirror works where the folder is"
    monkeypatch.setenv("MPM_MIRROR", "mirror")
    monkeypatch.chdir(mine.path.parent)
    assert len(fetch.fetch(mine, registry=registry)) == 2


def test_a_mirror_that_is_no_folder_is_refused(mine, registry, monkeypatch):
    "A slip in MPM_MIRROR does not turn into a download"
    monkeypatch.setenv("MPM_MIRROR", "nowhere")
    with pytest.raises(FileNotFoundError, match="MPM_MIRROR=nowhere is not a folder"):
        fetch.fetch(mine, registry=registry)


def test_addresses_are_fixed_secure_and_encoded(registry):
    "Space and ampersand are encoded, slashes are not"
    entry = fetch.read_registry(registry, "mine")[0]
    assert entry.url == (
        "https://raw.githubusercontent.com/owner/maps/" + COMMIT + "/grids/plates%20%26%20shp/"
        "gravity%20map.tif"
    )


@pytest.fixture
def network(monkeypatch):
    "Answer downloads from a dict of addresses; without an answer there is no network"
    answers, asked = {}, []

    def download(self, url, output, store):
        asked.append(url)
        if url not in answers:
            raise NoNetwork("no route to host")
        Path(output).write_bytes(answers[url])

    monkeypatch.delenv("MPM_MIRROR", raising=False)
    monkeypatch.setattr(fetch.pooch.HTTPDownloader, "__call__", download)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    return types.SimpleNamespace(answers=answers, asked=asked)


def test_without_a_mirror_files_come_from_their_public_address(mine, registry, network):
    "The same check, another way"
    entries = fetch.read_registry(registry, "mine")
    network.answers |= {entry.url: FILES[entry.path] for entry in entries}
    fetch.fetch(mine, registry=registry)
    assert network.asked == [entry.url for entry in entries]
    assert (mine.raw / "gravity map.tif").read_bytes() == b"gravity"


def test_a_changed_download_is_refused(mine, registry, network):
    "After trying again, as downloads break off at times"
    entry = fetch.read_registry(registry, "mine")[0]
    network.answers[entry.url] = b"broken off"
    with pytest.raises(ValueError, match="gravity map.tif: what came from https://.*refused"):
        fetch.fetch(mine, registry=registry)
    assert network.asked == [entry.url] * 3
    assert not any(mine.raw.iterdir())


def test_no_network_and_no_mirror_says_what_to_do(mine, registry, network):
    "The message gives the address and names MPM_MIRROR"
    with pytest.raises(ConnectionError, match="set MPM_MIRROR to a folder") as caught:
        fetch.fetch(mine, registry=registry)
    assert fetch.read_registry(registry, "mine")[0].url in str(caught.value)


def test_progress_is_silent_where_nobody_watches(mine, registry, capsys, monkeypatch):
    "No bar and no log lines in a notebook's output"
    monkeypatch.delenv("MPM_RUN")
    fetch.fetch(mine, registry=registry)
    assert capsys.readouterr() == ("", "")


def test_a_registry_without_the_study_is_an_error(registry):
    "The message names both"
    with pytest.raises(ValueError, match=r"registry\.csv lists no file of study 'nobody'"):
        fetch.read_registry(registry, "nobody")


def test_a_registry_without_a_column_is_an_error(tmp_path):
    "The missing columns are named"
    path = tmp_path / "registry.csv"
    path.write_text("study,repository,commit,path\n")
    with pytest.raises(ValueError, match="has no column bytes, sha256, licence"):
        fetch.read_registry(path, "mine")


def test_two_files_of_one_name_are_refused(tmp_path):
    "They would overwrite each other, on some systems even if only the case differs"
    path = tmp_path / "registry.csv"
    rest = [1, "0" * 64, "CC0"]
    rows = [["mine", "a/b", COMMIT, place, *rest] for place in ("one/x.tif", "two/X.tif")]
    write_registry(path, rows)
    with pytest.raises(ValueError, match="share a name: one/x.tif, two/X.tif"):
        fetch.read_registry(path, "mine")


def test_a_file_that_nobody_brings_is_an_error(tmp_path, registry):
    "The layer that needs it is named"
    mine = make_study(tmp_path, "registry", "magnetics.tif")
    with pytest.raises(FileNotFoundError, match=r"registry\.csv brings no such file") as caught:
        fetch.fetch(mine, registry=registry)
    assert "magnetics.tif (layer 'gravity')" in str(caught.value)


def test_the_registry_of_the_compendium_is_whole():
    "Every registry study has files with full commits, checksums and a stated licence"
    path = artefacts.home() / "data" / "registry.csv"
    for name in {row["study"] for row in csv.DictReader(path.open(encoding="utf-8"))}:
        for entry in fetch.read_registry(path, name):
            assert (len(entry.commit), len(entry.sha256)) == (40, 64)
            assert set(entry.commit + entry.sha256) <= set("0123456789abcdef")
            assert entry.licence and entry.bytes > 0
            assert entry.url.startswith("https://") and " " not in entry.url


def test_checksums_cover_all_parts(tmp_path):
    "Of a shapefile all files, of an area its file; keys are relative to the data folder"
    mine = make_study(tmp_path, "none", "{region}/faults.shp", area="land.json")
    (mine.raw / "west").mkdir(parents=True)
    for name in ("faults.shp", "faults.SHX", "faults.dbf", "faults.txt", "faults2.dbf"):
        (mine.raw / "west" / name).write_text(name)
    for name in ("deposits.csv", "land.json", "unused.tif"):
        (mine.raw / name).write_text(name)
    checksums = fetch.input_checksums(mine)
    assert set(checksums) == {
        "deposits.csv",
        "land.json",
        "west/faults.shp",
        "west/faults.SHX",
        "west/faults.dbf",
    }
    assert checksums["deposits.csv"] == artefacts.sha256(mine.raw / "deposits.csv")


def test_checksums_reach_outside_the_folder(tmp_path):
    "A file elsewhere keeps its full path"
    elsewhere = tmp_path / "elsewhere.tif"
    elsewhere.write_text("x")
    mine = make_study(tmp_path, "none", str(elsewhere))
    mine.raw.mkdir()
    (mine.raw / "deposits.csv").write_text("x")
    assert set(fetch.input_checksums(mine)) == {elsewhere.as_posix(), "deposits.csv"}


@pytest.mark.parametrize(
    ("how", "remedy"),
    [("registry", "run `mpm fetch "), ("demo", "run `mpm fetch "), ("none", "put the file there")],
)
def test_missing_inputs_say_how_to_get_them(tmp_path, how, remedy):
    "All missing files are listed with who needs them"
    mine = make_study(tmp_path, how)
    with pytest.raises(FileNotFoundError, match=remedy) as caught:
        fetch.input_checksums(mine)
    assert "gravity map.tif (layer 'gravity')" in str(caught.value)
    assert "deposits.csv (deposits)" in str(caught.value)


def test_missing_inputs_of_a_known_study_name_it(monkeypatch, tmp_path):
    "The command is the one to type"
    monkeypatch.setattr(study.Study, "raw", property(lambda self: tmp_path))
    with pytest.raises(FileNotFoundError, match="run `mpm fetch us_midcontinent_mini`"):
        fetch.input_checksums(study.load("us_midcontinent_mini"))


@pytest.fixture
def generator(tmp_path, monkeypatch):
    "A stand-in for the demo's generator; returns the seeds it was called with"
    sources, seeds = [tmp_path / "demo.py", tmp_path / "demo_world.py"], []
    for source in sources:
        source.write_text("# version 1")

    def write(folder, *, seed):
        seeds.append(seed)
        with artefacts.atomic(folder) as fresh:
            fresh.mkdir()
            (fresh / "gravity map.tif").write_text("x")
            (fresh / "deposits.csv").write_text("x")

    for source in sources:
        module = types.SimpleNamespace(write=write, __file__=str(source))
        monkeypatch.setitem(sys.modules, f"mpm.{source.stem}", module)
        monkeypatch.setattr(f"mpm.{source.stem}", module, raising=False)
    return types.SimpleNamespace(sources=sources, seeds=seeds)


def test_the_demo_is_generated_once_for_each_version(tmp_path, generator):
    "A second run does nothing; a changed generator, seed or lost file starts it again"
    mine = make_study(tmp_path, "demo")
    for _ in range(2):
        assert len(fetch.fetch(mine)) == 2
    assert generator.seeds == [7]
    for count, source in enumerate(generator.sources, 2):
        source.write_text("# version 2")
        fetch.fetch(mine)
        fetch.fetch(mine)
        assert generator.seeds == [7] * count
    (mine.raw / "deposits.csv").unlink()
    fetch.fetch(mine)
    assert generator.seeds == [7] * 4
    stamp = artefacts.read_json(mine.raw / "generator.json")
    artefacts.write_json(mine.raw / "generator.json", stamp | {"seed": 8})
    fetch.fetch(mine)
    assert generator.seeds == [7] * 5


def test_the_demo_never_replaces_somebodys_folder(tmp_path, generator):
    "A copied demo study whose folder holds real data is refused"
    mine = make_study(tmp_path, "demo")
    mine.raw.mkdir()
    (mine.raw / "survey.tif").write_text("ten years of work")
    with pytest.raises(FileExistsError, match="say `fetch: none`"):
        fetch.fetch(mine)
    assert (mine.raw / "survey.tif").read_text() == "ten years of work"
    assert generator.seeds == []


def test_ones_own_study_is_only_looked_at(tmp_path):
    "Files are listed; missing ones are an error"
    mine = make_study(tmp_path, "none")
    with pytest.raises(FileNotFoundError, match="put the file there, or correct `file` in"):
        fetch.fetch(mine)
    mine.raw.mkdir()
    for name in ("gravity map.tif", "deposits.csv"):
        (mine.raw / name).write_text("x")
    assert len(fetch.fetch(mine)) == 2


def real(name, folder):
    "A study of the compendium whose data go to `folder`"
    text = study.find(name).read_text(encoding="utf-8")
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return study.load(str(folder / f"{name}.yaml"))


def test_the_midcontinent_comes_as_published(mirror, tmp_path):
    "Layers span 0 to 1 with 319 gaps in one; 858 cells hold deposits, all inside the region"
    midcontinent = real("us_midcontinent_mini", tmp_path)
    fetch.fetch(midcontinent)
    gaps = {}
    for layer in midcontinent.layers:
        with rasterio.open(midcontinent.file(layer, "midcontinent")) as raster:
            values = raster.read(1)
            assert values.shape == (176, 144)
            assert (np.nanmin(values), np.nanmax(values)) == (0, 1)
            gaps[layer.name] = int(np.isnan(values).sum())
    assert gaps.pop("lab_depth") == 319
    assert set(gaps.values()) == {0}
    cells = pd.read_csv(midcontinent.raw / "deposit_cells.csv")
    assert len(cells) == len(cells.drop_duplicates(["row", "col"])) == 858
    assert list(cells.iloc[0]) == [-91.40625, 43.427557, 1, 89, "MVT_CD"]
    assert_inside(midcontinent, cells["longitude"], cells["latitude"])


def assert_inside(known, longitude, latitude):
    for region in known.regions.values():
        x, y = rasterio.warp.transform("EPSG:4326", region.crs, longitude, latitude)
        west, south, east, north = region.bounds
        assert west < min(x) and max(x) < east and south < min(y) and max(y) < north


def test_the_midcontinent_covers_its_box():
    "No cell of the source's box lies outside the region, which is snapped to whole cells"
    region = study.load("us_midcontinent_mini")
    steps = np.linspace(0, 1, 50)
    longitude, latitude = np.meshgrid(-97 + 9 * steps, 35 + 8.5 * steps)
    assert_inside(region, longitude.ravel(), latitude.ravel())


def test_the_nickel_tile_comes_as_published(mirror, tmp_path):
    "14 layers on the region's own grid, with values in the units stated, and 34 positive cells"
    nickel = real("magmatic_nickel_mini", tmp_path)
    assert len(fetch.fetch(nickel)) == 15
    region = nickel.regions["stillwater"]
    ranges = {}
    for item in [*nickel.layers, nickel.deposits]:
        with rasterio.open(nickel.file(item, "stillwater")) as raster:
            assert raster.shape == region.shape == (202, 277)
            assert tuple(raster.bounds) == region.bounds
            assert raster.crs == rasterio.CRS.from_string(region.crs)
            values = raster.read(1)
        ranges[getattr(item, "name", None)] = (values.min(), values.max())
    assert (values.sum(), set(np.unique(values))) == (34, {0, 1})
    assert ranges["moho_depth"] == pytest.approx((32.2, 54.1), abs=0.05)  # km
    assert ranges["gravity_isostatic"] == pytest.approx((-48.96, 74.51), abs=0.01)  # mGal
    assert ranges["lab_worm_distance"] == pytest.approx((0, 265466), abs=1)  # m
    assert ranges["conductivity_9km"] == pytest.approx((-6.39, 0.378), abs=0.01)  # log10(S/m)


def test_the_continents_are_converted_where_they_came(mine, registry, tmp_path, monkeypatch):
    "After the download, in the study's folder; other studies are not"
    found = []
    monkeypatch.setattr(
        conversion, "convert_continental", lambda folder: found.append(sorted(folder.iterdir()))
    )
    paths = fetch.fetch(mine, registry=registry)
    assert found == []
    renamed = tmp_path / "znpb.csv"
    renamed.write_text(registry.read_text().replace("mine,", "znpb,"))
    fetch.fetch(mine.model_copy(update={"name": "znpb", "folder": "mine"}), registry=renamed)
    assert found == [paths]


def test_the_continents_come_as_published(mirror, tmp_path):
    "Every layer of the study has its file; deposits of both continents lie inside its regions"
    continents = real("znpb", tmp_path)
    files = fetch.fetch(continents)
    assert {"crust1.tif", "gravity_anomalies.tif", "magnetic_lcs1.tif", "heat_flow.csv"} <= {
        path.name for path in files
    }
    assert len(pd.read_csv(continents.raw / "heat_flow.csv")) == 58279
    deposits = pd.read_csv(continents.raw / "deposits.csv")
    assert deposits["type"].value_counts().to_dict() == {
        "MVT": 147,
        "Cu-Sed": 139,
        "CD": 109,
        "IOCG": 25,
    }
    assert deposits["age_Ma"].max() == 2100
    north_america = deposits["longitude"].between(-170, -50) & deposits["latitude"].between(24, 84)
    australia = deposits["longitude"].between(112, 155) & deposits["latitude"].between(-44, -9)
    for name, inside, mvt, cd in (
        ("north_america", north_america, 46, 26),
        ("australia", australia, 11, 18),
    ):
        here = deposits[inside & deposits["type"].isin(["MVT", "CD"])]
        assert ((here["type"] == "MVT").sum(), (here["type"] == "CD").sum()) == (mvt, cd)
        one = continents.model_copy(update={"regions": {name: continents.regions[name]}})
        assert_inside(one, [*here["longitude"]], [*here["latitude"]])
