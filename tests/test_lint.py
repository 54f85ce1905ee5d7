"""Ruff finds nothing to complain of, in modules, tests and notebooks, under pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WAYS = ["check", "format --check"]


def ruff(way, *words):
    """Run ruff in the project's folder; returns its exit status and what it said."""
    command = [sys.executable, "-m", "ruff", *way.split(), "--no-cache", *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("way", WAYS)
def test_the_project_is_clean(way):
    "Lint and formatting, as in `make check`"
    status, said = ruff(way, ".")
    assert status == 0, said


def test_modules_tests_and_notebooks_are_looked_at():
    "What ruff would check, of each kind"
    said = ruff("check", "--show-files", ".")[1].splitlines()
    found = {Path(each).relative_to(ROOT).parent.as_posix() for each in said if each}
    assert {"mpm", "tests", "tests/robustness", "tests/benchmarks", "docs", "notebooks"} <= found
    assert sum(each.endswith(".ipynb") for each in said) == 8


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_is_found(way, tmp_path):
    "An import that nothing needs, and a line that is not as the formatter writes it"
    wrong = tmp_path / "wrong.py"
    wrong.write_text('"""Wrong."""\n\nimport os\n\nx = [1,2]\n')
    status, said = ruff(way, "--config", str(ROOT / "pyproject.toml"), str(wrong))
    assert status == 1 and ("F401" in said or "reformat" in said), said
