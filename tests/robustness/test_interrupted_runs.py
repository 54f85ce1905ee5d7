"""Runs of notebooks that end in the middle of one: by Ctrl-C, by kill, by a machine that stops."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from bad_inputs import PROPERTY, checksums, line
from toy_notebooks import STUDY, write_notebook

from mpm.__main__ import main

CODE = """
import os, time
from pathlib import Path
home, name = Path(os.environ["MPM_HOME"]), "{name}"
made, figures = home / "data/processed/tiny", home / "figures/tiny"
figures.mkdir(parents=True, exist_ok=True)
(figures / f"{{name[:2]}}_map.png").write_bytes(b"map")
(made / f"{{name}}.txt").write_text("made")
while (home / f"hold_{{name}}").exists():
    (home / f"reached_{{name}}").touch()
    time.sleep(0.05)
"""
NAMES = ["01_first", "02_second"]
RECORDS = ("run.json", "ro-crate-metadata.json")
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "Notebooks that have run once"
    home = tmp_path_factory.mktemp("whole") / "home"
    home.mkdir()
    for name in NAMES:
        write_notebook(home, name, 'study = "tiny"', CODE.format(name=name))
    raw, studies = home / "data/raw/tiny", home / "data/studies"
    raw.mkdir(parents=True)
    studies.mkdir()
    (studies / "tiny.yaml").write_text(STUDY)
    (raw / "gravity.tif").touch()
    (raw / "deposits.csv").touch()
    with pytest.MonkeyPatch.context() as patch:
        at(home, patch)
        assert main(["run", "tiny"]) == 0
    return home


def at(home, patch):
    for name in ("MPM_PROCESSED", "MPM_FIGURES"):
        patch.delenv(name, raising=False)
    patch.setenv("MPM_HOME", str(home))


@pytest.fixture
def home(whole, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(whole, home)
    at(home, monkeypatch)
    return home


@contextmanager
def held(home, name):
    "Have a notebook wait in its cell"
    (home / f"hold_{name}").touch()
    yield home / f"reached_{name}"
    for left in home.glob("*ed_*"), home.glob("hold_*"):
        for path in left:
            path.unlink()


def wait(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def results(home):
    "What earlier runs made, but for the records of whole runs"
    made = checksums(home / "data/processed/tiny") | checksums(home / "figures")
    return {name: value for name, value in made.items() if name not in RECORDS}


def resumes(home, name, capsys):
    "The same command runs the notebook that was interrupted, and no other again"
    capsys.readouterr()
    assert main(["run", "tiny"]) == 0
    said = capsys.readouterr().out
    (other,) = set(NAMES) - {name}
    assert f"  {name:<22}to run: interrupted" in said
    assert f"  {other:<22}up to date" in said
    assert not list((home / "data/processed/tiny/notebooks").glob("*.running.ipynb"))


@posix
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", ["SIGINT", "SIGKILL"])
def test_a_run_that_is_stopped_keeps_results_and_resumes(
    number, name, home, capsys, record_property
):
    "By Ctrl-C or a dead battery: no orphan, no rubbish, older results whole; the next goes on"
    before = results(home)
    command = [sys.executable, "-m", "mpm", "run", "tiny", "--only", name[:2], "--force"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    with held(home, name) as reached:
        # another process: Ctrl-C inside an event loop leaves Python 3.11 unable to parse code
        # what was started in the background would pass on to it that Ctrl-C is not heard
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            preexec_fn=heard,
        ) as run:
            wait(reached.exists)
            kernels = psutil.Process(run.pid).children(recursive=True)
            run.send_signal(getattr(signal, number))
            try:
                said = run.communicate(timeout=60)[1]
            finally:
                run.kill()
        wait(lambda: not any(kernel.is_running() for kernel in kernels))
    if number == "SIGINT":
        assert run.returncode == 130
        assert said == "\ninterrupted; the same command resumes where it stopped\n"
    after = results(home)
    assert {each: after.get(each) for each in before} == before
    assert after.keys() - before.keys() <= {f"notebooks/{name}.running.ipynb"}
    resumes(home, name, capsys)
    record_property(PROPERTY, line("interrupt", f"{number} in notebook {name}", said or "(none)"))
