import hashlib
import os
import random
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import writers
from matplotlib import colormaps
from PIL import Image

from mpm import artefacts

posix = pytest.mark.skipif(os.name == "nt", reason="needs fork, signals and limits of POSIX")


def leftovers(folder):
    return [path.name for path in folder.iterdir() if ".tmp-" in path.name]


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    "Inside the block the old content is still there; after it the new one"
    path = tmp_path / "deep" / "scores.csv"
    with artefacts.atomic(path) as fresh:
        fresh.write_text("new")
        assert not path.exists()
        assert fresh.suffix == ".csv"
    assert path.read_text() == "new"
    assert not leftovers(path.parent)


@pytest.mark.parametrize("folder", [False, True])
def test_a_failed_write_leaves_the_old_artefact(tmp_path, folder):
    "If the block raises, what was there stays and nothing half written is left"
    path = tmp_path / "cube.zarr"
    make(path, "old", folder)
    with pytest.raises(RuntimeError, match="disk"), artefacts.atomic(path) as fresh:
        make(fresh, "half", folder)
        raise RuntimeError("disk")
    assert content(path, folder) == "old"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("folder", [False, True])
def test_a_second_write_replaces_the_first(tmp_path, folder):
    "Nothing of the first artefact is left, not even another file of its folder"
    path = tmp_path / "cube.zarr"
    make(path, "old", folder)
    if folder:
        (path / "stale").write_text("x")
    with artefacts.atomic(path) as fresh:
        make(fresh, "new", folder)
    assert content(path, folder) == "new"
    assert not folder or not (path / "stale").exists()
    assert not leftovers(tmp_path)


def make(path, text, folder):
    if folder:
        path.mkdir()
        path = path / "part"
    path.write_text(text)


def content(path, folder):
    return (path / "part" if folder else path).read_text()


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_file_and_folder_replace_each_other(tmp_path, monkeypatch, old, new, swaps):
    "Also on systems that cannot swap two folders in one step"
    if not swaps:
        monkeypatch.setattr(artefacts, "_swap", lambda *_: False)
    path = tmp_path / "cube.zarr"
    make(path, "old", old)
    with artefacts.atomic(path) as fresh:
        make(fresh, "new", new)
    assert content(path, new) == "new"
    assert not leftovers(tmp_path)


def test_a_link_to_a_folder_is_replaced_and_its_target_kept(tmp_path):
    "Rubbish is removed by name, never through a link"
    make(tmp_path / "elsewhere", "old", True)
    (tmp_path / "cube.zarr").symlink_to(tmp_path / "elsewhere")
    with artefacts.atomic(tmp_path / "cube.zarr") as fresh:
        make(fresh, "new", True)
    assert content(tmp_path / "cube.zarr", True) == "new"
    assert content(tmp_path / "elsewhere", True) == "old"
    assert not leftovers(tmp_path)


# ---- killed writers, and disks that are full

WRITE = """
import os, sys
from pathlib import Path
from mpm import artefacts

def write(number):
    with artefacts.atomic(Path(sys.argv[1])) as fresh:
        fresh.mkdir()
        for part in range(20):
            (fresh / str(part)).write_text(f"{os.getpid()} {number}")
"""


@posix
def test_a_killed_writer_leaves_the_old_folder_or_the_new_one(tmp_path):
    "Thirty times killed at any moment: all 20 files are of one write; the next write tidies up"
    path, chance, rubbish = tmp_path / "cube.zarr", random.Random(0), 0
    with artefacts.atomic(path) as fresh:
        fresh.mkdir()
        for part in range(20):
            (fresh / str(part)).write_text("first")
    with writers(WRITE, path) as writer:
        for _ in range(30):
            with writer():
                time.sleep(chance.uniform(0, 0.02))
            whole = artefacts.require(path, "01")
            assert len({(whole / str(part)).read_text() for part in range(20)}) == 1
            rubbish += bool(leftovers(tmp_path))
    assert rubbish > 3, "no writer was killed in mid-write"
    with artefacts.atomic(path) as fresh:
        make(fresh, "new", True)
    assert content(path, True) == "new" and not leftovers(tmp_path)


BETWEEN = """
import os, sys
from pathlib import Path
from mpm import artefacts

def dies(self, target, rename=Path.replace):
    rename(self, target)
    os._exit(9)  # after the first rename: the old folder is aside, the new one not in place

artefacts._swap = lambda *_: False
with artefacts.atomic(Path(sys.argv[1])) as fresh:
    fresh.mkdir()
    (fresh / "part").write_text("new")
    Path.replace = dies
"""


@pytest.mark.parametrize("reads", [True, False])
def test_a_writer_killed_between_two_renames_loses_nothing(tmp_path, reads):
    "A reader, or the next writer though it fails, puts the old folder back"
    path = tmp_path / "cube.zarr"
    make(path, "old", True)
    assert subprocess.run([sys.executable, "-c", BETWEEN, path]).returncode == 9
    assert not path.exists() and len(leftovers(tmp_path)) == 2
    if reads:
        assert artefacts.require(path / "part", "01").read_text() == "old"
    with pytest.raises(RuntimeError), artefacts.atomic(path):
        raise RuntimeError
    assert content(path, True) == "old" and not leftovers(tmp_path)


def test_a_reader_waits_for_a_writer_between_two_renames(tmp_path, monkeypatch):
    "The writer runs, so what it set aside is not put back"
    path, rename, between = tmp_path / "cube.zarr", Path.replace, threading.Event()
    make(path, "old", True)

    def slow(self, target):
        rename(self, target)
        if not path.exists():
            between.set()
            time.sleep(0.1)

    def write():
        with artefacts.atomic(path) as fresh:
            make(fresh, "new", True)

    monkeypatch.setattr(artefacts, "_swap", lambda *_: False)
    monkeypatch.setattr(Path, "replace", slow)
    writer = threading.Thread(target=write)
    writer.start()
    assert between.wait(10)
    assert content(artefacts.require(path, "01"), True) == "new"
    writer.join()
    assert not leftovers(tmp_path)


@pytest.fixture
def running():
    "Number of a process that runs"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def test_only_what_nobody_writes_is_tidied_up(tmp_path, running):
    "Kept: another running writer's file, another machine's of today, other artefacts' files"
    here, gone = artefacts._MACHINE, 2**30
    kept = [f"a.tmp-{here}-{running}-00000001.csv", "a.tmp-elsewhere-1-00000002.csv"]
    kept += [f"b.tmp-{here}-{gone}-00000003.csv", "a.tmp-old.csv", "a.csv"]
    dropped = [f"a.tmp-{here}-{gone}-00000004.csv", f"a.tmp-{here}-{os.getpid()}-00000005.csv"]
    dropped += [f"a.tmp-{here}-{running}-00000006.csv", "a.tmp-elsewhere-1-00000007.csv"]
    for name in kept + dropped:
        (tmp_path / name).write_text("x")
    for name in dropped[2:]:  # older than the process of that number; and than a day
        os.utime(tmp_path / name, (0, 0))
    with artefacts.atomic(tmp_path / "a.csv") as mine, artefacts.atomic(tmp_path / "a.csv") as too:
        mine.write_text("mine")
        too.write_text("too")  # two threads may write one artefact, neither tidies up the other's
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_threads_that_go_on_after_a_failure_leave_nothing(tmp_path):
    "Writers of many chunks do: the others go on when one finds the disk full"

    def goes_on(folder):
        for number in range(30):
            with suppress(OSError):  # removed in between
                folder.mkdir(exist_ok=True)
                (folder / str(number)).write_text("x")
            time.sleep(0.01)

    with pytest.raises(OSError, match="full"), artefacts.atomic(tmp_path / "cube.zarr") as fresh:
        fresh.mkdir()
        thread = threading.Thread(target=goes_on, args=[fresh])
        thread.start()
        raise OSError("full")
    thread.join()
    assert not leftovers(tmp_path)


FULL = """
import resource, sys
from pathlib import Path
from mpm import artefacts

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    artefacts.write_json(Path(sys.argv[1]), ["new"] * 1000)
except OSError as error:
    print(error)
"""


@posix
def test_a_full_disk_leaves_the_old_file(tmp_path):
    "The system refuses to write more than 1000 bytes; a real error, not a simulated one"
    path = tmp_path / "scores.json"
    artefacts.write_json(path, ["old"])
    said = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert "File too large" in said.stdout
    assert artefacts.read_json(path) == ["old"] and not leftovers(tmp_path)


def test_writing_nothing_is_an_error(tmp_path):
    "A block that forgets to write is told so, by name"
    with pytest.raises(FileNotFoundError, match=r"nothing was written for .*model\.json"):
        with artefacts.atomic(tmp_path / "model.json"):
            pass


def test_json_comes_back_in_order(tmp_path):
    "Keys keep their order and the file ends in a newline"
    path = tmp_path / "a.json"
    artefacts.write_json(path, {"b": 1, "a": [1, 2]})
    assert list(artefacts.read_json(path)) == ["b", "a"]
    assert path.read_bytes().endswith(b"}\n")


def test_broken_json_is_named(tmp_path):
    "The message says which file and what to do"
    path = tmp_path / "run.json"
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"run\.json is not valid JSON.*make it again"):
        artefacts.read_json(path)


def test_a_table_comes_back_as_it_was_written(tmp_path):
    "Values, gaps and types, but no index; the second table replaces the first"
    path = tmp_path / "deep" / "scores.parquet"
    rows = pd.DataFrame(
        {
            "fold": ["0", "mean"],
            "deposit": np.array([3, -1], "int32"),
            "value": np.array([0.25, np.nan], "float32"),
            "positive": [True, False],
        },
        index=[7, 5],
    )
    artefacts.write_table(rows.iloc[:1], path)
    artefacts.write_table(rows, path)
    pd.testing.assert_frame_equal(pd.read_parquet(path), rows.reset_index(drop=True))
    assert not leftovers(path.parent)


def test_tables_are_read_one_below_the_other(tmp_path):
    "As pandas joins them, wider numbers and all; one that is damaged or missing is named"
    one = pd.DataFrame({"method": ["mae", "mae"], "fold": ["0", None], "row": [1, 70_000]})
    other = pd.DataFrame({"method": ["forest"], "fold": ["1"], "row": [3]}).astype({"row": "int32"})
    for table, number in [(one, 1), (other, 0)]:
        table["region"] = np.array([number] * len(table), "int64" if number else "uint8")
        table["positive"] = [True, False][: len(table)]
        table["likelihood"] = np.array([0.25, np.nan], "float32")[: len(table)]
    places = {
        tmp_path / "one.parquet": "03_fine_tuning",
        tmp_path / "other.parquet": "04_baselines",
    }
    for path, table in zip(places, (one, other), strict=True):
        artefacts.write_table(table, path)
    found = artefacts.read_tables(places)
    pd.testing.assert_frame_equal(found, pd.concat([one, other], ignore_index=True))
    found.loc[2, "likelihood"] = 0.5  # nothing of it is read-only
    part = artefacts.read_tables(places, columns=["method", "row"], only={"method": "forest"})
    assert part.to_dict("list") == {"method": ["forest"], "row": [3]}
    (tmp_path / "other.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"other.parquet is damaged .* 04_baselines again"):
        artefacts.read_tables(places)
    (tmp_path / "one.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="03_fine_tuning"):
        artefacts.read_tables(places)


def test_a_table_half_written_leaves_the_old_one(tmp_path, monkeypatch):
    "The disk is full after four bytes"
    path = tmp_path / "scores.parquet"
    artefacts.write_table(pd.DataFrame({"value": [1.5]}), path)

    def full(rows, place, **_):
        place.write_bytes(b"PAR1")
        raise OSError("disk")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="disk"):
        artefacts.write_table(pd.DataFrame({"value": [2.5]}), path)
    assert pd.read_parquet(path)["value"].tolist() == [1.5]
    assert not leftovers(tmp_path)


def test_a_missing_artefact_names_its_notebook(tmp_path):
    "require returns what is there, and says which notebook writes what is not"
    there = tmp_path / "cube.zarr"
    there.mkdir()
    assert artefacts.require(there, "01_data_preparation") == there
    with pytest.raises(FileNotFoundError, match="run notebook 02_mae_pretraining"):
        artefacts.require(tmp_path / "backbone.safetensors", "02_mae_pretraining")


def test_few_colours_keep_pale_ones_apart():
    "Grey of missing cells stays grey and no class of a map takes its colour, beside other maps"
    pale = {"missing": (230, 230, 230), "carbonate": (247, 220, 222), "sand": (220, 228, 247)}
    drawn = np.full((60, 90, 3), 255, "uint8")
    for column, colour in enumerate(pale.values()):
        drawn[:40, 30 * column : 30 * column + 30] = colour
    for row, white in enumerate(np.linspace(0, 0.9, 20)):  # soft edges of a map below
        drawn[40 + row] = 255 * (
            white + (1 - white) * colormaps["viridis"](np.arange(90) / 90)[:, :3]
        )
    seen = np.asarray(artefacts.quantize(Image.fromarray(drawn), 64).convert("RGB"))
    for column, colour in enumerate(pale.values()):
        assert np.abs(seen[20, 30 * column + 15].astype(int) - colour).max() <= 2


def test_sha256_is_the_usual_one(tmp_path):
    "64 hexadecimal digits, the same as hashlib's"
    path = tmp_path / "a"
    path.write_bytes(b"zinc")
    assert artefacts.sha256(path) == hashlib.sha256(b"zinc").hexdigest()


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    "MPM_PROCESSED and MPM_FIGURES come before MPM_HOME, which comes before the package's folder"
    monkeypatch.setenv("MPM_HOME", str(tmp_path))
    monkeypatch.setenv("MPM_PROCESSED", str(tmp_path / "p"))
    monkeypatch.setenv("MPM_FIGURES", str(tmp_path / "f"))
    assert artefacts.processed("demo") == tmp_path / "p" / "demo"
    assert artefacts.figures("demo") == tmp_path / "f" / "demo"
    monkeypatch.delenv("MPM_PROCESSED")
    monkeypatch.delenv("MPM_FIGURES")
    assert artefacts.processed("demo") == tmp_path / "data" / "processed" / "demo"
    assert artefacts.figures("demo") == tmp_path / "figures" / "demo"
    monkeypatch.delenv("MPM_HOME")
    assert (artefacts.home() / "mpm" / "artefacts.py").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights elsewhere")
def test_artefacts_have_the_usual_rights(tmp_path):
    "A written artefact is as readable as any new file"
    usual = tmp_path / "usual"
    usual.write_text("")
    with artefacts.atomic(tmp_path / "made") as fresh:
        fresh.write_text("")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_text_is_written_whole_and_alike_everywhere(tmp_path):
    "UTF-8 with plain line ends, whatever the machine prefers"
    artefacts.write_text(tmp_path / "style.qml", "0–1\n±\n")
    assert (tmp_path / "style.qml").read_bytes() == "0–1\n±\n".encode()
    assert not leftovers(tmp_path)
