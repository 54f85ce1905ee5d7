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

from mpm import crate, steps
from mpm.__main__ import main

CODE = """
import os, time
from pathlib import Path
home, name = Path(os.environ["MPM_HOME"]), "{name}"
made, figures = home / "data/processed/tiny", home / "figures/tiny"
figures.mkdir(parents=True, exist_ok=True)
(figures / f"{{name[:2]}}_map.png").write_bytes(b"map")
(made / f"{{name}}.txt").write_text(f"made with seed {{seed}}")
while (home / f"hold_{{name}}").exists():
    (home / f"reached_{{name}}").touch()
    time.sleep(0.05)
"""
ROOT = Path(__file__).parents[2]
# of the compendium, in the order in which they run: the overview last
NAMES = [path.stem for path in steps.notebooks()]
RECORDS = ("run.json", "ro-crate-metadata.json")
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "Notebooks that have run once"
    home = tmp_path_factory.mktemp("whole") / "home"
    home.mkdir()
    for name in NAMES:
        write_notebook(home, name, 'study = "tiny"\nseed = 7', CODE.format(name=name))
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


def wait(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def results(home):
    "What earlier runs made, but for the records of whole runs"
    made = checksums(home / "data/processed/tiny") | checksums(home / "figures")
    return {name: value for name, value in made.items() if name not in RECORDS}


def plan(said):
    "What a run says it will do: notebook to intention"
    lines = [each.split(maxsplit=1) for each in said.splitlines() if each.startswith("  0")]
    return {name: intention for name, intention in lines if name in NAMES}


def stopped(home, name, number, *words):
    """Run `mpm run tiny` in another process, and send it a signal within a notebook's cell.

    Returns exit code, stdout and stderr, once none of its kernels is left.
    """
    command = [sys.executable, "-m", "mpm", "run", "tiny", *words]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with held(home, name) as reached:
        # another process: Ctrl-C inside an event loop leaves Python 3.11 unable to parse code
        # what was started in the background would pass on to it that Ctrl-C is not heard
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        ) as run:
            wait(reached.exists)
            kernels = psutil.Process(run.pid).children(recursive=True)
            run.send_signal(number)
            try:
                said, complained = run.communicate(timeout=60)
            finally:
                run.kill()
        wait(lambda: not any(kernel.is_running() for kernel in kernels))
    return run.returncode, said, complained


@posix
@pytest.mark.parametrize("name", [NAMES[0], NAMES[-1]])
def test_a_run_that_is_interrupted_keeps_results_and_resumes(name, home, capsys, record_property):
    "By Ctrl-C: no orphan, no rubbish, older results whole; the same command runs that notebook"
    before = results(home)
    code, _, said = stopped(home, name, signal.SIGINT, "--only", name[:2], "--force")
    assert (code, said) == (130, "\ninterrupted; the same command resumes where it stopped\n")
    after = results(home)
    assert {each: after.get(each) for each in before} == before
    assert after.keys() - before.keys() <= {f"notebooks/{name}.running.ipynb"}
    capsys.readouterr()
    assert main(["run", "tiny"]) == 0
    intentions = plan(capsys.readouterr().out)
    assert intentions.pop(name) == "to run: interrupted" and len(intentions) == len(NAMES) - 1
    assert all(each.startswith("up to date") for each in intentions.values())
    assert not list((home / "data/processed/tiny/notebooks").glob("*.running.ipynb"))
    record_property(PROPERTY, line("interrupt", f"Ctrl-C in notebook {name}", said))


@posix
def test_a_machine_may_stop_at_every_notebook(home, capsys, record_property):
    "Killed in each in turn, on the way to another seed: what was made is whole, the next goes on"
    assert len(NAMES) == 7 and (NAMES[0][:2], NAMES[-1][:2]) == ("01", "00")
    old = results(home)
    for number, name in enumerate(NAMES):
        code, said, complained = stopped(home, name, signal.SIGKILL, "--seed", "8")
        assert (code, complained) == (-signal.SIGKILL, "")
        expected = ["up to date"] * number + ["to run: parameters (seed)"] * 7
        if number:
            expected[number - 1] = "to run: interrupted"
        for intention, wanted in zip(plan(said).values(), expected, strict=False):
            assert intention.startswith(wanted), said
        check_whole(home, old, number)
        record_property(PROPERTY, line("interrupt", f"SIGKILL in notebook {name}", "(none)"))
    assert main(["run", "tiny", "--seed", "8"]) == 0
    assert (home / "data/processed/tiny" / crate.NAME).exists()
    check_whole(home, old, len(NAMES))
    assert not list((home / "data/processed/tiny/notebooks").glob("*.running.ipynb"))


def check_whole(home, old, number):
    "Notebooks before this one have new results, those after it the old ones; no crate lies there"
    now, made = results(home), home / "data/processed/tiny"
    for name in NAMES[:number]:
        assert (made / f"{name}.txt").read_text() == "made with seed 8"
        assert now[f"notebooks/{name}.ipynb"] != old[f"notebooks/{name}.ipynb"]
    for name in NAMES[number:]:
        assert now[f"notebooks/{name}.ipynb"] == old[f"notebooks/{name}.ipynb"]
    for name in NAMES[number + 1 :]:
        assert now[f"{name}.txt"] == old[f"{name}.txt"]
    assert old.keys() <= now.keys()
    if number < len(NAMES):
        assert not (made / crate.NAME).exists()  # it describes whole runs only
