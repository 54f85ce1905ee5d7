import errno
import os
import random
import subprocess
import sys
import time
import tracemalloc

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from affine import Affine
from helpers import writers
from shapely.geometry import LineString, Point, box

from mpm import align, datacube, labels
from mpm.scaling import apply_scaling, fit_scaling
from mpm.study import Region, Study

posix = pytest.mark.skipif(os.name == "nt", reason="needs fork, signals and limits of POSIX")

WEST, NORTH = 500_000, 5_006_000
SQUARE = {"crs": "EPSG:32633", "resolution": 1000, "bounds": (WEST, NORTH - 6000, 506_000, NORTH)}
COLUMNS = np.tile(np.arange(6, dtype="float32"), (6, 1))


def make_study(folder, layers, *, area=None) -> Study:
    "A study of 6 x 6 cells of 1 km with a raster a layer"
    study = Study(
        name="mine",
        regions={"here": SQUARE | {"area": area}},
        layers=[
            {"name": name, "group": "geophysics", "units": "nT", "file": f"{name}.tif"}
            for name in layers
        ],
        deposits={"file": "deposits.csv"},
        targets={"MVT": {}},
        path=folder / "mine.yaml",
    )
    study.raw.mkdir(exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "height": 6, "width": 6, "dtype": "float32"}
    profile |= {"crs": "EPSG:32633", "transform": Affine(1000, 0, WEST, 0, -1000, NORTH)}
    for name, values in layers.items():
        with rasterio.open(study.raw / f"{name}.tif", "w", **profile) as target:
            target.write(values, 1)
    return study


def without(*columns):
    "A raster that holds its column numbers, some columns missing"
    return np.where(np.isin(COLUMNS, columns), np.nan, COLUMNS).astype("float32")


@pytest.fixture
def study(tmp_path):
    "Column 0 has 1 of 4 layers, column 1 has 2, the others all"
    return make_study(
        tmp_path, {"a": COLUMNS, "b": without(0), "c": without(0, 1), "d": without(0, 1)}
    )


@pytest.fixture
def cube(study):
    return datacube.build(study, "here")


def test_cell_is_valid_with_half_of_the_layers(cube):
    "One of four layers is too few, two are enough; what is missing stays missing"
    np.testing.assert_array_equal(cube["valid"], [[False, True, True, True, True, True]] * 6)
    assert cube["valid"].dtype == bool and cube["evidence"].dtype == "float32"
    np.testing.assert_array_equal(np.isnan(cube["evidence"]).sum("layer")[0], [3, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(cube["evidence"].sel(layer="b"), without(0))


def test_cube_says_what_its_layers_are(cube):
    assert cube["layer"].values.tolist() == list("abcd")
    assert set(cube["group"].values) == {"geophysics"}
    assert set(cube["units"].values) == {"nT"}
    assert set(cube["kind"].values) == {"continuous"}
    assert set(cube["method"].values) == {"bilinear from 1 km"}
    assert {len(checksum) for checksum in cube["checksum"].values} == {12}
    assert cube.attrs == {"study": "mine", "region": "here"}
    assert cube.rio.crs.to_epsg() == 32633
    assert cube.rio.transform() == Affine(1000, 0, WEST, 0, -1000, NORTH)


def test_cells_outside_the_area_hold_nothing(tmp_path):
    "A permit over columns 1 to 3 leaves evidence and valid cells there only"
    study = make_study(tmp_path, {"a": COLUMNS, "b": COLUMNS}, area="permit.gpkg")
    permit = box(WEST + 1000, NORTH - 6000, WEST + 4000, NORTH)
    gpd.GeoDataFrame(geometry=[permit], crs="EPSG:32633").to_file(study.raw / "permit.gpkg")
    cube = datacube.build(study, "here")
    inside = np.isin(COLUMNS, (1, 2, 3))
    np.testing.assert_array_equal(cube["valid"], inside)
    np.testing.assert_array_equal(np.isfinite(cube["evidence"]).all("layer"), inside)


def test_cube_without_a_valid_cell_is_refused(tmp_path):
    "Inside the area, all is missing but one layer of three"
    west = without(1, 2, 3, 4, 5)
    study = make_study(tmp_path, {"a": COLUMNS, "b": west, "c": west}, area="permit.gpkg")
    permit = box(WEST + 1000, NORTH - 6000, WEST + 4000, NORTH)
    gpd.GeoDataFrame(geometry=[permit], crs="EPSG:32633").to_file(study.raw / "permit.gpkg")
    with pytest.raises(ValueError, match="region 'here': no cell has half of the layers"):
        datacube.build(study, "here")


def test_missing_layer_stops_the_cube(study):
    (study.raw / "b.tif").unlink()
    with pytest.raises(FileNotFoundError, match="'b': .*b.tif is missing"):
        datacube.build(study, "here")


# ---- on disk


def test_cube_comes_back_as_it_was_written(cube, tmp_path):
    "Values, types, coordinates, attributes and CRS; and writing leaves the cube alone"
    before = cube.copy(deep=True)
    datacube.write(cube, tmp_path / "here.zarr")
    back = datacube.read(tmp_path / "here.zarr")
    xr.testing.assert_identical(cube, before)
    xr.testing.assert_identical(back, before)
    assert {name: back[name].dtype for name in back.data_vars} == {
        "evidence": np.dtype("float32"),
        "valid": np.dtype(bool),
    }
    assert back.rio.crs == before.rio.crs and back.rio.transform() == before.rio.transform()


def test_cube_that_was_read_can_be_written_again(cube, tmp_path):
    "Chunks and codecs of the first file do not stand in the way of the second"
    datacube.write(cube, tmp_path / "one.zarr")
    datacube.write(datacube.read(tmp_path / "one.zarr"), tmp_path / "two.zarr")
    xr.testing.assert_identical(datacube.read(tmp_path / "two.zarr"), cube)


def test_new_cube_replaces_the_old_one(cube, tmp_path):
    datacube.write(cube, tmp_path / "here.zarr")
    datacube.write(cube.isel(layer=[0]), tmp_path / "here.zarr")
    assert datacube.read(tmp_path / "here.zarr")["layer"].values.tolist() == ["a"]
    assert sorted(path.name for path in tmp_path.glob("*zarr*")) == ["here.zarr"]


@pytest.mark.parametrize("chunks", [None, 4])
def test_full_disk_leaves_the_old_cube(study, cube, tmp_path, monkeypatch, chunks):
    "The disk fills up half-way: the old cube reads as before, and no rubbish is left"
    place = tmp_path / "here.zarr"
    datacube.write(cube, place)

    def fill_up(self, store, **_):
        store.mkdir()
        (store / ".zgroup").write_text("{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_zarr", fill_up)
        with pytest.raises(OSError, match="No space left"):
            datacube.write(datacube.build(study, "here", chunks=chunks), place)
    xr.testing.assert_identical(datacube.read(place), cube)
    assert sorted(path.name for path in tmp_path.glob("*zarr*")) == ["here.zarr"]


NOISE = """
import os, resource, sys
from pathlib import Path
import numpy as np
import xarray as xr
from mpm import datacube

def noise(rows, number):
    evidence = np.random.default_rng(0).random((3, rows, 50)) + number
    return xr.Dataset({"evidence": (("layer", "y", "x"), evidence.astype("float32"))})

def write(rows, place, chunks):
    cube = noise(rows, 1)
    datacube.write(cube.chunk({"layer": 1, "y": chunks, "x": 50}) if chunks else cube, place)

folder = Path(sys.argv[1])
place = folder / "here.zarr"
"""
FULL = """
for chunks in (None, 25):
    try:
        write(1000, place, chunks)
    except OSError as error:
        print(type(error).__name__, error)
    same = datacube.read(place).identical(noise(10, 0))
    print(same, [path.name for path in folder.iterdir()])
"""
# a chunk of 1000 rows takes about 180 kB, one of 25 rows about 4 kB, all of them 520 kB
LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"
SMALL = 'assert os.system(f"mount -t tmpfs -o size=100k tmpfs {folder}") == 0'


@posix
@pytest.mark.parametrize("full", ["a limit on files", "a small disk"])
def test_writing_more_than_fits_leaves_the_old_cube(tmp_path, full):
    "The system itself refuses, be the cube in memory or lazy"
    own = ["unshare", "--user", "--map-root-user", "--mount"] if full == "a small disk" else []
    if own and subprocess.run([*own, "mount", "-t", "tmpfs", "tmpfs", tmp_path]).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    old = "datacube.write(noise(10, 0), place)"
    script = "\n".join([NOISE, SMALL, old, FULL] if own else [NOISE, old, LIMIT, FULL])
    said = subprocess.run(
        [*own, sys.executable, "-c", script, tmp_path], capture_output=True, text=True
    )
    reason = "No space left on device" if own else "File too large"
    lines = said.stdout.splitlines()
    assert [reason in line for line in lines] == [True, False, True, False], said.stderr
    assert lines[1::2] == ["True ['here.zarr']"] * 2


@posix
def test_killed_writer_leaves_the_old_cube_or_the_new_one(tmp_path):
    "Five times killed at any moment, while another reads: all layers are of one cube"
    place, chance, rubbish = tmp_path / "here.zarr", random.Random(0), 0
    noise = np.random.default_rng(0).random((3, 10, 50))
    datacube.write(xr.Dataset({"evidence": (("layer", "y", "x"), noise.astype("float32"))}), place)
    write = "def write(number): datacube.write(noise(10, number), place)"
    with writers(NOISE + write, tmp_path) as writer:
        for _ in range(5):
            with writer():
                until = time.monotonic() + chance.uniform(0.05, 0.3)
                while time.monotonic() < until:
                    assert is_whole(datacube.read(place), noise)
            assert is_whole(datacube.read(place), noise)
            rubbish += len(list(tmp_path.iterdir())) > 1
    assert rubbish > 1, "no writer was killed in mid-write"
    datacube.write(datacube.read(place), place)
    assert [path.name for path in tmp_path.iterdir()] == ["here.zarr"]


def is_whole(cube, noise) -> bool:
    "The noise plus one whole number everywhere, nothing missing"
    number = cube["evidence"].values - noise
    return bool((abs(number - round(number.flat[0])) < 1e-3).all())


def test_missing_cube_says_which_notebook_writes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="here.zarr is missing; run notebook 01_data"):
        datacube.read(tmp_path / "here.zarr")


def cut_metadata(place):
    (place / ".zmetadata").write_text("{")


def no_metadata(place):
    for path in place.glob(".z*"):
        path.unlink()


def cut_chunk(place):
    path = place / "evidence" / "0.0.0"
    path.write_bytes(path.read_bytes()[:20])


def scrambled_chunk(place):
    (place / "evidence" / "0.0.0").write_bytes(bytes(range(256)))


def flipped_bit(place):
    path = place / "evidence" / "0.0.0"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def not_a_folder(place):
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()
    place.write_text("a file")


@pytest.mark.parametrize(
    "damage",
    [cut_metadata, no_metadata, cut_chunk, scrambled_chunk, flipped_bit, not_a_folder],
)
def test_damaged_cube_says_which_notebook_to_run_again(cube, tmp_path, damage):
    datacube.write(cube, tmp_path / "here.zarr")
    damage(tmp_path / "here.zarr")
    with pytest.raises(ValueError, match=r"here.zarr is damaged .*run notebook 01_\w+ again"):
        datacube.read(tmp_path / "here.zarr")


def test_cubes_of_a_study_are_read_by_region(study, cube):
    datacube.write(cube, datacube.path(study, "here"))
    cubes = datacube.read_cubes(study)
    assert list(cubes) == ["here"]
    xr.testing.assert_identical(cubes["here"], cube)


def test_cube_replaced_while_it_is_read_is_read_again(cube, tmp_path, monkeypatch):
    "Metadata of the old cube never meet chunks of the new one"
    place, opens, new = tmp_path / "here.zarr", xr.open_zarr, cube.isel(y=slice(0, 3)) * 2

    def late(*args, **kwargs):
        opened = opens(*args, **kwargs)
        monkeypatch.setattr(xr, "open_zarr", opens)
        datacube.write(new, place)
        return opened

    datacube.write(cube, place)
    monkeypatch.setattr(xr, "open_zarr", late)
    xr.testing.assert_equal(datacube.read(place), new)


def test_lazy_cube_replaced_since_it_was_opened_is_refused(cube, tmp_path):
    "Chunks of the new cube, or none, must not pass for those of the old one"
    place = tmp_path / "here.zarr"
    datacube.write(cube, place)
    lazy = datacube.read(place, chunks=4)
    np.testing.assert_array_equal(lazy["valid"], cube["valid"])
    datacube.write(lazy.assign(evidence=lazy["evidence"] + 1), place)
    with pytest.raises(ValueError, match=r"here.zarr was written anew since it was opened"):
        lazy["evidence"].compute()
    xr.testing.assert_equal(datacube.read(place)["evidence"], cube["evidence"] + 1)


def test_coverage_tells_range_and_gaps_of_the_valid_cells(cube):
    "Valid columns 1 to 5: layer a holds 1..5, layer c misses one column of five"
    table = datacube.coverage({"here": cube}).set_index("layer")
    assert table.loc["a", ["missing", "min", "median", "max"]].tolist() == [0, 1, 3, 5]
    assert table.loc["c", ["missing", "min", "median", "max"]].tolist() == [20, 2, 3.5, 5]
    assert table.loc["a", ["group", "region", "units"]].tolist() == ["geophysics", "here", "nT"]


# ---- larger than memory


@pytest.fixture(scope="module")
def varied(tmp_path_factory) -> Study:
    "Layers of every kind on 6 x 6 cells, most with gaps, and a coast"
    folder = tmp_path_factory.mktemp("varied")
    study = make_study(folder, {"a": COLUMNS, "b": without(0), "codes": without(5) // 2})
    layers = [
        {"name": "a", "units": "nT", "file": "a.tif"},
        {"name": "b", "units": "mGal", "file": "b.tif"},
        {"name": "codes", "units": "1", "file": "codes.tif", "kind": "categorical"},
        {
            "name": "rock",
            "units": "1",
            "file": "rock.gpkg",
            "kind": "categorical",
            "column": "type",
        },
        {"name": "shale", "units": "1", "file": "rock.gpkg", "kind": "fraction", "column": "type"}
        | {"classes": ["shale"]},
        {"name": "fault", "units": "m", "file": "faults.gpkg", "kind": "distance"},
        {"name": "faults", "units": "km/km2", "file": "faults.gpkg", "kind": "density"}
        | {"reach": 2000},
        {"name": "heat", "units": "mW/m2", "file": "heat.csv", "kind": "points", "column": "q"}
        | {"reach": 3000},
        {"name": "gradient", "derive": "hgm", "of": "b"},
    ]
    content = study.model_dump() | {"layers": [{"group": "g"} | layer for layer in layers]}
    content["regions"] = {"here": SQUARE | {"area": "land.gpkg"}}
    content["deposits"] |= {"type": "type"}
    content["targets"] = {"MVT": {"radius": 1500}}
    to_crs = {"crs": "EPSG:32633"}
    rock = [
        box(WEST, NORTH - 6000, WEST + 2600, NORTH),
        box(WEST + 2600, NORTH - 4300, 506_000, NORTH),
    ]
    gpd.GeoDataFrame({"type": ["shale", "granite"]}, geometry=rock, **to_crs).to_file(
        study.raw / "rock.gpkg"
    )
    fault = LineString([(WEST + 500, NORTH - 500), (WEST + 3500, NORTH - 5500)])
    gpd.GeoDataFrame(geometry=[fault], **to_crs).to_file(study.raw / "faults.gpkg")
    land = box(WEST, NORTH - 6000, WEST + 5000, NORTH)
    gpd.GeoDataFrame(geometry=[land], **to_crs).to_file(study.raw / "land.gpkg")
    places = [(600, 700), (2400, 900), (4400, 3500), (1500, 5200), (3300, 2800)]
    points = gpd.GeoSeries([Point(WEST + x, NORTH - y) for x, y in places], **to_crs)
    points = points.to_crs("EPSG:4326")
    table = pd.DataFrame({"longitude": points.x, "latitude": points.y, "q": [40, 55, 90, 61, 70]})
    table.assign(type="MVT").to_csv(study.raw / "heat.csv")
    table.iloc[1:3].assign(type="MVT").to_csv(study.raw / "deposits.csv")
    return Study(**content)


@pytest.mark.parametrize("chunks", [4, 6, 100])
def test_lazy_cube_equals_the_one_in_memory(varied, tmp_path, chunks):
    "Every kind of layer, tiles that do not divide the grid; through the disk and back"
    whole = datacube.build(varied, "here")
    lazy = datacube.build(varied, "here", chunks=chunks)
    assert lazy["evidence"].chunks is not None and lazy["valid"].chunks is not None
    assert lazy["layer"].values.tolist()[:4] == ["a", "b", "codes=0", "codes=1"]
    close(lazy.compute(), whole)
    datacube.write(lazy, tmp_path / "here.zarr")
    close(datacube.read(tmp_path / "here.zarr"), whole)
    back = datacube.read(tmp_path / "here.zarr", chunks=chunks)
    assert max(back.chunksizes["y"]) == min(chunks, 6)
    assert back["valid"].chunks is not None and back["units"].chunks is None
    close(back.compute(), whole)


def close(found, expected):
    "Equal to float32 rounding: values, gaps, names, coordinates, CRS"
    xr.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert found.attrs == expected.attrs and found.rio.crs == expected.rio.crs
    assert found["evidence"].dtype == np.float32 and found["valid"].dtype == bool
    np.testing.assert_array_equal(np.isnan(found["evidence"]), np.isnan(expected["evidence"]))
    xr.testing.assert_identical(found["valid"], expected["valid"])


def test_everything_after_is_the_same_on_a_lazy_cube(varied, tmp_path):
    "Labels of tiles yet to be aligned; counts, coverage and scaling of tiles on disk"
    whole, deposits = labels.add_labels(datacube.build(varied, "here"), varied)
    mask = whole["valid"].values & (COLUMNS < 3)
    scaling = fit_scaling([whole], [mask])
    lazy, same = labels.add_labels(datacube.build(varied, "here", chunks=4), varied)
    pd.testing.assert_frame_equal(same, deposits)
    assert lazy["evidence"].chunks is not None
    datacube.write(lazy, tmp_path / "here.zarr")
    cubes = {"here": datacube.read(tmp_path / "here.zarr", chunks=4)}
    close(cubes["here"].compute(), whole)
    assert labels.counts(cubes, ["MVT"]).equals(labels.counts({"here": whole}, ["MVT"]))
    pd.testing.assert_frame_equal(datacube.coverage(cubes), datacube.coverage({"here": whole}))
    found = fit_scaling([cubes["here"]], [mask])
    assert (found.layers, found.notes) == (scaling.layers, scaling.notes)
    np.testing.assert_allclose(found.mean, scaling.mean, rtol=1e-6)
    scaled = apply_scaling(cubes["here"], scaling)
    assert scaled["evidence"].chunks is not None
    close(scaled.compute(), apply_scaling(whole, scaling))


@pytest.fixture
def asked(monkeypatch):
    "Which planes are made: layer and part"
    asked, makes = [], align.planes

    def spy(study, layer, region, cells, *, part=None):
        asked.append((layer.name, part))
        return makes(study, layer, region, cells, part=part)

    monkeypatch.setattr(align, "planes", spy)
    return asked


def test_nothing_is_aligned_before_it_is_asked_for(study, asked):
    "Names need no values; then one tile asks for that tile"
    lazy = datacube.build(study, "here", chunks=4)
    assert not asked and lazy["layer"].values.tolist() == list("abcd")
    tile = lazy["evidence"].sel(layer="b")[4:, :4].values
    assert asked == [("b", (slice(4, 6), slice(0, 4)))]
    np.testing.assert_array_equal(tile, without(0)[4:, :4])


def test_each_plane_is_made_once_and_each_file_hashed_once(varied, asked, tmp_path, monkeypatch):
    "Four tiles of a kind that is read in tiles; distances, points and gradients once, whole"
    hashed, sha256 = [], align.artefacts.sha256
    monkeypatch.setattr(align.artefacts, "sha256", lambda p: hashed.append(p.name) or sha256(p))
    align._checksum.cache_clear()
    lazy = datacube.build(varied, "here", chunks=4)
    assert sorted(hashed) == sorted({varied.file(each, "here").name for each in varied.layers})
    hashed.clear()
    datacube.write(lazy, tmp_path / "here.zarr")
    tiles = {(row, col) for row in ((0, 4), (4, 6)) for col in ((0, 4), (4, 6))}
    for layer in varied.layers:
        parts = [part for name, part in asked if name == layer.name]
        if layer.kind in align.TILED:
            sides = [tuple((side.start, side.stop) for side in part) for part in parts]
            assert len(sides) == 4 and set(sides) == tiles
        else:
            assert parts == [None]
    assert not hashed


def test_missing_file_is_named_before_anything_is_aligned(study, asked):
    (study.raw / "d.tif").unlink()
    for chunks in (None, 4):
        with pytest.raises(FileNotFoundError, match="'d': .*d.tif is missing"):
            datacube.build(study, "here", chunks=chunks)
    assert not asked


def test_a_cube_is_built_in_little_more_memory_than_it_takes(study, monkeypatch):
    "80 layers of 200 x 200 cells: the planes are not copied"
    region = Region(**SQUARE | {"resolution": 30})
    layers = [study.layers[0].model_copy(update={"name": f"a{k}"}) for k in range(80)]
    wide = study.model_copy(update={"regions": {"here": region}, "layers": tuple(layers)})
    planes = np.ones((1, 200, 200), "float32")
    monkeypatch.setattr(align, "planes", lambda *_: planes.copy())
    datacube.build(wide, "here")  # what is imported or cached at first is not counted
    tracemalloc.start()
    size = datacube.build(wide, "here")["evidence"].nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 80 * 200 * 200 * 4 and peak < 1.3 * size


def test_file_that_breaks_before_its_tiles_are_read_leaves_the_old_cube(study, cube, tmp_path):
    "The message of the tile names the layer; what was written is whole or not there"
    place = tmp_path / "here.zarr"
    datacube.write(cube, place)
    lazy = datacube.build(study, "here", chunks=4)
    (study.raw / "a.tif").write_bytes((study.raw / "a.tif").read_bytes()[:200])
    with pytest.raises(ValueError, match="layer 'a': .*a.tif"):
        datacube.write(lazy, place)
    xr.testing.assert_identical(datacube.read(place), cube)
    assert [path.name for path in tmp_path.glob("*.zarr")] == ["here.zarr"]


@pytest.fixture
def cluster(monkeypatch):
    "A scheduler and a worker in this process, named in the environment"
    from distributed import LocalCluster

    setup = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    monkeypatch.setattr(datacube, "_CLIENTS", {})
    with LocalCluster(**setup) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        yield cluster
        for client in datacube._CLIENTS.values():
            client.close()


def test_tiles_are_computed_on_the_cluster_that_is_named(study, cube, tmp_path, cluster):
    "DASK_SCHEDULER_ADDRESS is all that a run needs"
    from distributed import get_client

    datacube.write(datacube.build(study, "here", chunks=4), tmp_path / "here.zarr")
    assert get_client().scheduler.address == cluster.scheduler_address
    (worker,) = cluster.workers.values()
    assert worker.state.executed_count >= 16  # 4 layers of 4 tiles
    xr.testing.assert_identical(datacube.read(tmp_path / "here.zarr"), cube)


def test_client_of_the_caller_comes_first(study, cluster):
    "A notebook may make its own, whatever the environment says"
    from distributed import Client, get_client

    with Client(cluster) as mine:
        datacube.build(study, "here", chunks=4)
        assert get_client() is mine
        assert not datacube._CLIENTS
    datacube.build(study, "here", chunks=4)
    assert get_client() is not mine


def test_no_cluster_is_started_for_cubes_in_memory():
    "distributed takes longer to import than the demo's cubes take to read"
    script = "import sys; from mpm import datacube, labels; print('distributed' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.stdout.split() == ["False"]


def test_a_sample_is_of_valid_cells_of_all_regions():
    "Each of 24 cells holds its own number; 6 of the west are not valid; no cell comes twice"
    numbers = np.arange(24, dtype="float32").reshape(2, 3, 4)
    cubes = {}
    for region, plane in zip(["west", "east"], numbers, strict=True):
        valid = plane >= 6
        layers = (("layer", "y", "x"), np.stack([plane, -plane]))
        names = {"layer": ["up", "down"]}
        cubes[region] = xr.Dataset({"evidence": layers, "valid": (("y", "x"), valid)}, names)
    every = datacube.sample(cubes, cells=100, seed=0)
    assert every["up"].tolist() == list(range(6, 24)) and (every["down"] == -every["up"]).all()
    some = datacube.sample(cubes, cells=9, seed=0)
    assert len(some) == some["up"].nunique() == 9 and some["up"].isin(every["up"]).all()
    lazy = {region: cube.chunk({"x": 2}) for region, cube in cubes.items()}
    pd.testing.assert_frame_equal(datacube.sample(lazy, cells=9, seed=0), some)
    assert not datacube.sample(cubes, cells=9, seed=1).equals(some)


# ---- for a GIS


def big_planes(side=600):
    "Two planes on a grid of 1 km: column numbers, and row numbers with a gap"
    rows, cols = np.indices((side, side), dtype="float32")
    rows[:100, :100] = np.nan
    planes = xr.DataArray(
        np.stack([cols, rows]),
        dims=("layer", "y", "x"),
        coords={"y": NORTH - 1000 * (np.arange(side) + 0.5), "x": 1000 * (np.arange(side) + 0.5)},
    )
    return planes.rio.write_crs("EPSG:32633")


def test_geotiff_is_cloud_optimized_and_names_its_bands(tmp_path):
    "Tiled, with overviews that hold values, nodata, CRS and the values themselves"
    planes = big_planes()
    datacube.write_geotiff(planes, tmp_path / "map.tif", names=["likelihood", "spread"])
    with rasterio.open(tmp_path / "map.tif") as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.profile["tiled"] and source.overviews(1) and source.overviews(2)
        assert source.descriptions == ("likelihood", "spread")
        assert np.isnan(source.nodata) and source.crs.to_epsg() == 32633
        assert source.transform == Affine(1000, 0, 0, 0, -1000, NORTH)
        np.testing.assert_array_equal(source.read(), planes.values)
        small = source.read(1, out_shape=(300, 300))
        np.testing.assert_allclose(small[0], np.arange(0.5, 600, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_planes_of_a_cube_become_a_geotiff(cube, tmp_path):
    "The CRS travels with the cube's evidence, and gaps are nodata"
    datacube.write(cube, tmp_path / "here.zarr")
    evidence = datacube.read(tmp_path / "here.zarr")["evidence"]
    datacube.write_geotiff(evidence, tmp_path / "map.tif", names=list("abcd"))
    with rasterio.open(tmp_path / "map.tif") as source:
        assert source.descriptions == tuple("abcd") and source.crs.to_epsg() == 32633
        assert source.read(2, masked=True).mask[:, 0].all()
        np.testing.assert_array_equal(source.read(1), COLUMNS)


def test_a_geotiff_of_lazy_values_is_refused(tmp_path):
    "Its overviews would come out empty"
    with pytest.raises(ValueError, match="map.tif: load the values first"):
        datacube.write_geotiff(big_planes().chunk(y=100), tmp_path / "map.tif", names=["a", "b"])


def test_every_band_of_a_geotiff_has_one_name(tmp_path):
    with pytest.raises(ValueError, match="map.tif: 3 names for 2 bands"):
        datacube.write_geotiff(big_planes(8), tmp_path / "map.tif", names=list("abc"))
