"""Binder, as far as it can be checked without it: what repo2docker reads, and how much memory."""

import ast
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from mpm import memory

ROOT = Path(__file__).resolve().parents[1]
BINDER = 2_000_000_000  # bytes that a session of mybinder.org may hold at most
# repo2docker looks for these in the first of binder/, .binder/ and the root that exists, and takes
# the first build pack that finds a file: https://repo2docker.readthedocs.io/en/latest/
BUILD_PACKS = {
    "docker": ["Dockerfile"],
    "julia": ["Project.toml", "JuliaProject.toml", "REQUIRE"],
    "nix": ["default.nix"],
    "r": ["install.R", "runtime.txt"],
    "conda": ["environment.yml"],
    "pipfile": ["Pipfile", "Pipfile.lock"],
    "python": ["requirements.txt", "setup.py", "pyproject.toml"],
}
OTHERS = ["apt.txt", "start", "postBuild"]  # read beside any of them
FILE = ROOT / "environment.yml"


def build_pack(folder: Path) -> str:
    """Return what repo2docker would build a repository with."""
    places = [folder / name for name in ("binder", ".binder") if (folder / name).is_dir()]
    place = places[0] if places else folder
    for pack, names in BUILD_PACKS.items():
        if any((place / name).exists() for name in names):
            return pack
    return "none"


def test_binder_builds_by_environment_yml():
    "No file of higher rank, and no folder that would hide it"
    assert build_pack(ROOT) == "conda"
    assert not any((ROOT / name).exists() for name in ("binder", ".binder"))


@pytest.mark.parametrize(
    ("extra", "pack"),
    [("Dockerfile", "docker"), ("binder/postBuild", "none"), ("requirements.txt", "conda")],
)
def test_a_file_of_higher_rank_would_be_seen(tmp_path, extra, pack):
    "The order that the test above relies on"
    for name in ("environment.yml", "pyproject.toml", extra):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert build_pack(tmp_path) == pack


def test_the_environment_is_one_that_conda_takes():
    "One channel, one list, a Python of two numbers, and a pip section that pip is there for"
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert set(content) == {"name", "channels", "dependencies"}
    assert content["name"] == "mpm" and content["channels"] == ["conda-forge"]
    plain = [entry for entry in content["dependencies"] if isinstance(entry, str)]
    sections = [entry for entry in content["dependencies"] if not isinstance(entry, str)]
    assert re.fullmatch(r"python=3\.\d+", plain[0]) and "pip" in plain
    assert [list(section) for section in sections] == [["pip"]]
    names = [re.match(r"[\w.-]+", entry)[0] for entry in plain]
    assert len(set(names)) == len(names) and not [name for name in names if name != name.lower()]
    # what repo2docker puts beside it, or what the notebooks are opened with
    assert {"jupyterlab", "ipykernel", "ipywidgets"} <= set(names)


def test_pip_installs_the_package_and_nothing_else():
    "By `pip: -e .` (test_project.py) the notebooks import mpm from any folder"
    # for a local path repo2docker copies the whole repository first, so no postBuild is needed
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert setup["tool"]["setuptools"]["packages"] == ["mpm"]
    assert setup["build-system"]["build-backend"] == "setuptools.build_meta"


def test_scripts_that_binder_runs_can_be_run():
    "Executable, with an interpreter named; there need not be any"
    for path in (ROOT / name for name in OTHERS[1:] if (ROOT / name).exists()):
        assert path.stat().st_mode & 0o111 and path.read_text().startswith("#!"), path.name
    assert not (ROOT / "apt.txt").exists()  # everything comes from conda


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_ask_for_no_folder(path):
    "mpm is imported as a package, never found by a path"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert "sys.path" not in cell.source and "chdir" not in cell.source


def test_a_session_of_binder_works_with_one_process(monkeypatch):
    "The default of the notebooks is more; in 1 or 2 GB methods are fitted one fold after another"
    monkeypatch.setenv("MPM_THREADS", "8")
    for name in ("02_mae_pretraining", "03_fine_tuning", "04_baselines", "05_evaluation"):
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        values = {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in ast.parse(notebook.cells[1].source).body
        }
        for there in (BINDER // 2, BINDER):
            monkeypatch.setattr(memory, "limit", lambda there=there: there)
            assert memory.processes_that_fit(values["processes"]) == 1
        monkeypatch.setattr(memory, "limit", lambda: 8 * BINDER)
        assert memory.processes_that_fit(values["processes"]) > 1


def test_the_demo_is_small_enough_to_be_made_on_binder():
    "A clone and the generated input; what is downloaded there is nothing"
    study = yaml.safe_load((ROOT / "data/studies/demo.yaml").read_text(encoding="utf-8"))
    assert study["fetch"] == "demo"
    committed = [
        path
        for name in ("notebooks", "figures/demo", "mpm", "data/studies")
        for path in (ROOT / name).rglob("*")
        if path.is_file()
    ]
    assert sum(path.stat().st_size for path in committed) < 20_000_000
