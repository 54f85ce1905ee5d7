"""What a run of the committed notebooks in CI can catch: `NBVAL_CHECK_OUTPUT` compares a cell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
MARK = "# NBVAL_CHECK_OUTPUT"
# of cells in each notebook whose output must be as committed, at least
CHECKED = {"00": 1, "01": 2, "02": 1, "03": 4, "04": 2, "05": 3, "06": 1, "07": 6}


def is_checked(cell):
    return cell.cell_type == "code" and cell.source.startswith(MARK)


@pytest.fixture
def notebook(tmp_path):
    """The committed notebook of one's own region up to the first table that is checked."""
    content = nbformat.read(ROOT / "notebooks" / "07_your_own_region.ipynb", as_version=4)
    last = next(number for number, cell in enumerate(content.cells) if is_checked(cell))
    content.cells = content.cells[: last + 1]
    path = tmp_path / "07_your_own_region.ipynb"
    nbformat.write(content, path)
    return path


def add_one(cell):
    "Edit a cell's printed output: its first whole number becomes the next one"
    (shown,) = [output for output in cell.outputs if output.output_type == "stream"]
    number = re.search(r"(?<![\w.])\d+(?![\w.])", shown.text)
    after = str(int(number[0]) + 1)
    shown.text = shown.text[: number.start()] + after + shown.text[number.end() :]
    return number[0], after


def run(path):
    """Run nbval as `make test` does; return its exit code and output."""
    words = [sys.executable, "-m", "pytest", str(path), "--nbval-lax", "--nbval-current-env"]
    words += ["-q", "-p", "no:cacheprovider", "--rootdir", str(path.parent)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = os.environ | {"PYTHONPATH": paths, "MPM_HOME": str(ROOT)}
    result = subprocess.run(words, capture_output=True, text=True, cwd=path.parent, env=own)
    return result.returncode, result.stdout


def test_an_edited_number_fails_where_output_is_checked(notebook):
    "A number of the table that is checked is caught, one that another cell prints is not"
    content = nbformat.read(notebook, as_version=4)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    before, after = add_one(code[-1])
    other = next(cell for cell in code if "value_counts" in cell.source)
    assert add_one(other) == ("50", "51") and not is_checked(other)
    nbformat.write(content, notebook)
    status, output = run(notebook)
    assert status == 1 and f"1 failed, {len(code) - 1} passed" in output, output
    assert f"Cell {len(code) - 1}" in output and before in output and after in output


def test_the_commands_of_ci_run_nbval_this_way():
    "`make test` gives the options that the test above gives, on every notebook, the overview last"
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--nbval-lax --nbval-current-env" in make and "--dist loadscope" in make
    assert "notebooks/0[1-9]_*.ipynb notebooks/00_*.ipynb" in make


def test_stable_tables_of_the_notebooks_are_checked():
    "Grids, splits, counts of deposits and the design of the evaluation cannot change unseen"
    marked = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        assert all(is_checked(cell) for cell in cells if "NBVAL" in cell.source), path.name
        marked[path.stem[:2]] = sum(map(is_checked, cells))
    assert marked.keys() == CHECKED.keys()
    assert all(marked[number] >= least for number, least in CHECKED.items()), marked


def test_a_files_tests_share_a_process():
    "Two processes take whole files: a notebook's cells, or a fixture's tests, are never dealt out"
    files = ["tests/test_points.py", "tests/test_metrics.py"]
    words = [sys.executable, "-m", "pytest", *files, "-v", "-p", "no:cacheprovider"]
    words += ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"]
    result = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    ran = re.findall(r"^\[(gw\d)\].* PASSED (tests/\w+\.py)::", result.stdout, re.MULTILINE)
    assert len(ran) > 10 and sorted({file for _, file in ran}) == sorted(files), result.stdout
    assert len(set(ran)) == len(files)
