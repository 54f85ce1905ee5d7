"""Types: mypy agrees with every annotation of mpm, under the settings of pyproject.toml."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "mpm").glob("*.py"))


def mypy(*words):
    """Run mypy in the project's folder; returns its exit status and what it said."""
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-pretty", *words],
        cwd=ROOT,
        env=os.environ | {"MYPY_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.slow
def test_the_types_of_the_package_agree():
    "A minute the first time, seconds with the cache in build/mypy"
    status, said = mypy()
    assert status == 0, said


@pytest.mark.slow
def test_a_wrong_type_is_found(tmp_path):
    "A number given where a path is wanted, and a function that states no types"
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from mpm import artefacts\n\nartefacts.parts(3)\n\n\ndef f(x):\n    return x\n"
    )
    status, said = mypy(str(wrong))
    assert status == 1 and "[arg-type]" in said and "[no-untyped-def]" in said


def test_ignored_types_are_few_and_have_a_reason():
    "An error of mypy is put right; where the library's types are wrong, the line says so"
    ignored = [
        (path.name, line)
        for path in MODULES
        for line in path.read_text(encoding="utf-8").splitlines()
        if "type: ignore" in line
    ]
    bare = [
        place for place in ignored if not re.search(r"type: ignore\[[a-z-]+\]  # \w+", place[1])
    ]
    assert not bare and len(ignored) <= 5
