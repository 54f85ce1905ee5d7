import hashlib
import os
import stat

import numpy as np
import pandas as pd
import pytest

from mpm import artefacts


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
