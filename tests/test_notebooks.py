"""The committed notebooks, as they lie in the repository; `pytest --nbval-lax` runs them."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = [
    "00_overview",
    "01_data_preparation",
    "02_mae_pretraining",
    "03_fine_tuning",
    "04_baselines",
    "05_evaluation",
    "06_explanation",
    "07_your_own_region",
]
LIMIT = 6_000_000  # bytes: a clone stays small, a code host still shows the notebooks
SOMEBODYS_FOLDER = re.compile(r"(?<![\w.:/])/(?:root|home|work|Users|tmp)/|[A-Z]:\\+Users")
FILTERS = re.compile(r"simplefilter|filterwarnings|catch_warnings|captureWarnings|disable_warnings")


@pytest.fixture(params=NAMES)
def notebook(request):
    """Each of the notebooks; one that is missing fails."""
    return nbformat.read(ROOT / "notebooks" / f"{request.param}.ipynb", as_version=4)


def code_cells(notebook):
    """Return the cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def texts(cell):
    """Yield every text that a cell's outputs show."""
    for output in cell.outputs:
        yield "".join(output.get("text", ""))
        for kind, content in output.get("data", {}).items():
            if not kind.startswith("image/png"):
                yield str(content)


def test_the_notebooks_are_all_there_are():
    "Numbers and names are those of the README, and nothing lies beside them"
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES


def test_opens_with_one_title(notebook):
    "The first cell is text and has one heading of the first level, at its top"
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    headings = [
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("# ")
    ]
    assert len(headings) == 1


def test_has_one_parameters_cell_in_second_place(notebook):
    "Papermill injects after the first cell so tagged, and only after that one"
    tagged = [
        index
        for index, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    ]
    assert tagged == [1]
    assert not [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]


def test_parameters_are_flat_literals(notebook):
    "What is computed in the parameters cell keeps its old value when a parameter is changed"
    names = []
    for statement in ast.parse(notebook.cells[1].source).body:
        assert isinstance(statement, ast.Assign) and len(statement.targets) == 1
        assert isinstance(statement.targets[0], ast.Name)
        value = ast.literal_eval(statement.value)
        for entry in value if isinstance(value, list) else [value]:
            assert entry is None or isinstance(entry, bool | int | float | str)
        names.append(statement.targets[0].id)
    assert names[0] == "study" and len(set(names)) == len(names)


def test_code_is_plain_python(notebook):
    "No shell lines, magics or filtered warnings: they hide failures"
    for cell in code_cells(notebook):
        ast.parse(cell.source)  # `!pip` and `%matplotlib` are no Python
        assert "get_ipython" not in cell.source
        assert not FILTERS.search(cell.source)


def test_asks_for_the_kernel_that_every_environment_has(notebook):
    "Any other name is somebody's own"
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata
    assert not [cell for cell in notebook.cells if "papermill" in cell.metadata]


def test_was_executed_from_top_to_bottom(notebook):
    "Counts are 1 to n, no cell failed, and nothing was written to stderr"
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


def test_outputs_name_nobodys_folders(notebook):
    "Readers have other folders than the machine that ran the notebook"
    for cell in code_cells(notebook):
        for text in texts(cell):
            assert not SOMEBODYS_FOLDER.search(text), text[:200]
            assert str(ROOT) not in text


def test_notebooks_and_figures_stay_small():
    "Together the notebooks and the demo's figures, which are committed, are below 6 MB"
    files = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "figures" / "demo").glob("*")]
    assert sum(path.stat().st_size for path in files) < LIMIT
