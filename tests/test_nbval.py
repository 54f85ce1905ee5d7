"""What a run of the committed notebooks in CI can catch: `NBVAL_CHECK_OUTPUT` compares a cell."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def notebook(tmp_path):
    """A notebook as they are committed: one number is checked, the other is not."""
    checked = "# NBVAL_CHECK_OUTPUT\nprint(6 * 7)"
    cells = [
        nbformat.v4.new_code_cell(source, execution_count=count, outputs=[shown(text)])
        for count, (source, text) in enumerate([(checked, "42\n"), ("print(6)", "6\n")], start=1)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def shown(text):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def run(path):
    """Run nbval as `make test` does; return its exit code and output."""
    words = [sys.executable, "-m", "pytest", str(path), "--nbval-lax", "--nbval-current-env"]
    words += ["-q", "-p", "no:cacheprovider", "--rootdir", str(path.parent)]
    result = subprocess.run(words, capture_output=True, text=True, cwd=path.parent)
    return result.returncode, result.stdout


def test_an_edited_number_fails_where_output_is_checked(notebook):
    "42 to 43 in a checked cell is caught, 6 to 7 elsewhere is not"
    content = nbformat.read(notebook, as_version=4)
    content.cells[0].outputs, content.cells[1].outputs = [shown("43\n")], [shown("7\n")]
    nbformat.write(content, notebook)
    status, output = run(notebook)
    assert status == 1 and "1 failed, 1 passed" in output, output
    assert "43" in output and "42" in output and "Cell 0" in output


def test_the_commands_of_ci_run_nbval_this_way():
    "`make test` gives the options that the test above gives, on every notebook, the overview last"
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--nbval-lax --nbval-current-env" in make and "--dist loadgroup" in make
    assert "notebooks/0[1-9]_*.ipynb notebooks/00_*.ipynb" in make


def test_stable_tables_of_the_notebooks_are_checked():
    "Grids, splits, counts of deposits and the design of the evaluation cannot change unseen"
    marked = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        marked[path.stem[:2]] = sum("NBVAL_CHECK_OUTPUT" in cell.source for cell in cells)
    assert marked["01"] >= 2 and all(marked[number] for number in ("02", "03", "05"))
