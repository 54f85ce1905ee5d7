"""Disks that are full or closed to us, and commands that are interrupted, by every signal."""

import errno
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from bad_inputs import PROPERTY, Bad, checksums, expect, judge, line, nothing

from mpm import artefacts
from mpm.__main__ import main

TRAIN = "pretrain toy.yaml --steps 2 --device cpu --split final"
EXPLAIN = "explain toy.yaml --at 15.3 44.9 --device cpu"
LATER = "then give the same command again"
FULL, CLOSED = ["No space left on device", "free some space", LATER], ["check the place", LATER]


@contextmanager
def small_disk(folder, size="64k"):
    "A disk of its own, with what lay in the folder; skips where we may not mount one"
    kept = folder.with_name(folder.name + "-kept")
    folder.rename(kept)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield folder
    finally:
        os.chdir(folder.parent)
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    "Leave less than a block of a disk"
    with (folder / "ballast").open("wb", buffering=0) as stream:
        try:
            while stream.write(b"x" * 4096):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


Disk = partial(Bad, "disk")
WRITES = [
    Disk("full, a page is explained", nothing, FULL, command=f"{EXPLAIN} --out disk/page.png"),
    Disk(
        "full, a study is begun",
        nothing,
        FULL,
        command="new mine",
        written=["disk/mine", "disk/mine/data"],
    ),
    Disk(
        "full, a table is converted",
        nothing,
        FULL,
        command="datacube build sample.csv disk/out --features none",
        written=["disk/out"],
    ),
    Disk("full, a backbone is trained", nothing, FULL, command=TRAIN),
]


@pytest.mark.parametrize("bad", WRITES, ids=str)
def test_a_full_disk_is_named_and_keeps_what_it_held(
    bad, home, monkeypatch, capsys, record_property
):
    "Backbones, tables, pages and study files: the older ones stay whole, nothing is left beside"
    from mpm import lawley_sample

    lawley_sample.write_sample(home / "sample.csv", 300)
    disk = home / "disk"
    shutil.move(home / "processed", disk)
    (disk / "page.png").write_bytes(b"an earlier page")
    monkeypatch.setenv("MPM_PROCESSED", str(disk))
    with small_disk(disk, "4m"):
        fill(disk)
        if bad.command.startswith("new"):
            monkeypatch.chdir(disk)
            monkeypatch.setenv("MPM_HOME", str(Path(__file__).parents[2]))
        judge(bad, home, capsys, record_property)


def refusing(number, only=""):
    "What stands for a folder that refuses to be written to: root may write anywhere"

    @contextmanager
    def atomic(path):
        if only in str(path):
            raise OSError(number, os.strerror(number), str(path))
        with real(path) as fresh:
            yield fresh

    real = artefacts.atomic
    return atomic


@pytest.mark.parametrize(
    ("wrong", "command", "number"),
    [
        ("read-only, a backbone is trained", TRAIN, errno.EROFS),
        ("read-only, a page is explained", EXPLAIN, errno.EROFS),
        ("closed to us, a page is explained", EXPLAIN, errno.EACCES),
        ("closed to us, a study is begun", "new mine", errno.EACCES),
        ("its quota is used up", TRAIN, errno.EDQUOT),
    ],
)
def test_a_closed_disk_is_named(wrong, command, number, home, monkeypatch, capsys, record_property):
    "The file that could not be written, why, and what to do"
    monkeypatch.setattr(artefacts, "atomic", refusing(number))
    says = [os.strerror(number), LATER]
    judge(Bad("disk", wrong, nothing, says, command), home, capsys, record_property)


def test_memory_that_does_not_do_is_a_message(home, monkeypatch, capsys, record_property):
    "As of a grid that is too large for the machine"
    from mpm import align

    def check(_):
        raise MemoryError("Unable to allocate 90 GiB")

    monkeypatch.setattr(align, "check", check)
    bad = Bad("memory", "too little", nothing, ["not enough memory", "90 GiB", "larger cells"])
    judge(bad, home, capsys, record_property)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["status"], ["new", "mine"]])
def test_an_output_that_cannot_be_written_is_a_message(words, tmp_path, record_property):
    "One line on stderr and exit code 2; Python adds nothing when it ends"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "mpm", *words],
            stdout=full, stderr=-1, text=True, cwd=tmp_path, env=apart(tmp_path),
        )  # fmt: skip
    expect(Bad("stream", "", nothing, FULL), ended.returncode, ended.stderr, {}, {})
    assert len(ended.stderr.splitlines()) == 1
    record_property(PROPERTY, line("stream", f"`mpm {words[0]}` to a full disk", ended.stderr))


def test_a_reader_that_has_had_enough_is_no_error(tmp_path):
    "As of `mpm status | head -1`"
    command = [sys.executable, "-m", "mpm", "status"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=apart(tmp_path)) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 1


def apart(folder):
    "Folders of its own for another process"
    own = {"MPM_PROCESSED": str(folder / "processed"), "MPM_FIGURES": str(folder / "figures")}
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return os.environ | own | {"MPM_RUN": "1", "PYTHONPATH": path}


# Interrupted in the middle of writing


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (TRAIN, "final_0"),
        (TRAIN, "splits.json"),
        (f"{EXPLAIN} --out page.png", "page.png"),
        ("datacube build sample.csv out --features none", "datacube.parquet"),
        ("datacube build sample.csv out --features none", "deposits.csv"),
        ("check toy.yaml", ""),
    ],
)
def test_an_interrupt_keeps_what_was_there_and_the_command_works_again(
    command, place, home, monkeypatch, capsys, record_property
):
    "Ctrl-C while a file is written: exit code 130, what to do, and then it is done"
    from mpm import lawley_sample, rasters

    lawley_sample.write_sample(home / "sample.csv", 300)
    real, before = artefacts.atomic, checksums(home)

    @contextmanager
    def interrupted(path):
        with real(path) as fresh:
            yield fresh
            if place in str(path):
                raise KeyboardInterrupt

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(artefacts, "atomic", interrupted)
        if not place:
            patch.setattr(rasters, "read", stop)
        assert main(command.split()) == 130
    said = capsys.readouterr().err
    assert said == "\ninterrupted; the same command resumes where it stopped\n"
    after = checksums(home)
    assert {name: after.get(name) for name in before} == before or command == TRAIN
    assert not [name for name in after if ".tmp-" in name]
    assert main(command.split()) == 0
    wrong = f"Ctrl-C, {command.split()[0]}{f' writes {place}' if place else ''}"
    record_property(PROPERTY, line("interrupt", wrong, said))
