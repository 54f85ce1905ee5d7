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


def test_no_warning_is_filtered(notebook):
    "Filters hide failures; that cells are plain Python is held by test_security.py"
    for cell in code_cells(notebook):
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


# What a reader needs


FIRST = ["**Question.**", "**Answer.**", "**Method.**", "**Needs**", "**Runs**"]
LAST = ["## Takeaways", "**Limits.**", "**References.**", "**Next:**"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FIGURE = re.compile(r"plt\.show\(\)")
DECIMAL = re.compile(r"(?<![\w./:-])\d+\.\d+(?![\w./:-])")


def headings(notebook):
    """Return (level, text) of every heading."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found += re.findall(r"^(#+) +(.+?) *$", cell.source, flags=re.MULTILINE)
    return [(len(marks), text) for marks, text in found]


def anchor(heading):
    """Return the anchor that JupyterLab gives a heading."""
    return heading.replace(" ", "-")


def glossary():
    """Return the terms of each of the overview's two tables."""
    notebook = nbformat.read(ROOT / "notebooks" / "00_overview.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "short glossary" in cell.source]
    after = cell.source.split("short glossary")[1]
    tables = re.split(r"^\| for .*\n\|---\|---\|\n", after, flags=re.MULTILINE)[1:]
    return [re.findall(r"^\| (.+?) \| .+ \|$", table, flags=re.MULTILINE) for table in tables]


def test_reads_as_a_paper_does(notebook):
    "Question, answer, method and needs open it; takeaways, limits, references and next close it"
    first, last = notebook.cells[0].source, notebook.cells[-1].source
    for part, text in ((FIRST, first), (LAST, last)):
        places = [text.find(mark) for mark in part]
        assert -1 not in places and places == sorted(places), part
    (answer,) = re.findall(r"^\*\*Answer\.\*\* (.+)$", first, flags=re.MULTILINE)
    assert 100 < len(answer) < 700  # a paragraph, not a page


def test_headings_make_a_table_of_contents(notebook):
    "One title, then sections 1 to n, the last of them checks, then the takeaways; no level skipped"
    levels, texts = zip(*headings(notebook), strict=True)
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert len(set(texts)) == len(texts) and max(map(len, texts)) < 100
    sections = [text for level, text in headings(notebook) if level == 2]
    assert sections[-1] == "Takeaways" and sections[-2].endswith(". Checks")
    assert [text.split(". ")[0] for text in sections[:-1]] == [
        str(number) for number in range(1, len(sections))
    ]


def test_links_lead_somewhere(notebook):
    "To files that are there, and headings that they have; the next notebook is among them"
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for target in LINK.findall(cell.source):
            if "://" in target:
                continue
            file, _, place = target.partition("#")
            path = ROOT / "notebooks" / file
            assert path.is_file() or not file, target
            if place:
                other = nbformat.read(path, as_version=4) if file else notebook
                assert place in [anchor(text) for _, text in headings(other)], target
    assert ".ipynb)" in notebook.cells[-1].source.split("**Next:**")[1]


def test_sections_that_are_named_exist(notebook):
    "`section 5` is a section of this notebook, or of the one that is named with it"
    own = {text.split(".")[0] for level, text in headings(notebook) if level == 2}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for sentence in re.split(r"(?<=[.;:]) ", cell.source):
                other = re.search(r"\((\d\d_\w+)\.ipynb\)", sentence)
                there = own
                if other:
                    path = ROOT / "notebooks" / f"{other[1]}.ipynb"
                    found = headings(nbformat.read(path, as_version=4))
                    there = own | {text.split(".")[0] for level, text in found if level == 2}
                for number in re.findall(r"[Ss]ections? (\d+)", sentence):
                    assert number in there, sentence


def test_every_figure_has_a_caption(notebook):
    "Text in italics follows, before the next figure and heading, and says more than what is drawn"
    cells = notebook.cells
    for number, cell in enumerate(cells):
        drawn = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        if not drawn:
            continue
        assert FIGURE.search(cell.source), cell.id
        after = next(k for k in range(number + 1, len(cells)) if cells[k].cell_type == "markdown")
        between = [output for other in cells[number + 1 : after] for output in other.outputs]
        assert not [each for each in between if "image/png" in each.get("data", {})], cell.id
        caption = cells[after].source.split("\n\n")[0]
        assert caption.startswith("*") and caption.endswith("*"), f"{cell.id}: {caption[:60]}"
        assert not caption.startswith("**") and len(caption) > 80, f"{cell.id}: {caption}"


def test_numbers_in_the_text_are_those_of_the_run(notebook):
    "A decimal number in prose stands in the code or the outputs of the notebook, too"
    shown = "\n".join(text for cell in code_cells(notebook) for text in [cell.source, *texts(cell)])
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"\*\*References\.\*\*.*|doi:\S+|arXiv:\S+", "", cell.source)
            for number in DECIMAL.findall(re.sub(r"^#.*$", "", prose, flags=re.MULTILINE)):
                assert number in shown or number == "0.5", f"{cell.id}: {number}"


def test_the_glossary_is_in_order_and_needed():
    "Both tables from A to Z, no term twice, and each term is used in one of the notebooks"
    tables = glossary()
    assert len(tables) == 2 and min(map(len, tables)) > 15
    for terms in tables:
        assert [term.lower() for term in terms] == sorted(term.lower() for term in terms)
    every = [part for terms in tables for term in terms for part in words_of(term)]
    assert len(set(every)) == len(every)
    used = everything_but_the_glossary()
    for term in every:
        assert re.search(rf"(?<!\w){re.escape(term)}", used), f"{term}: no notebook has it"


def words_of(term):
    """Split an entry into what it explains: "window, patch", "masked autoencoder (MAE)"."""
    return [part.strip().lower() for part in re.split(r"[,()]", term) if part.strip()]


def everything_but_the_glossary():
    """Return all that the notebooks say, in lower case."""
    said = []
    for name in NAMES:
        for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells:
            text = cell.source.split("short glossary")[0]
            said += [text, *(texts(cell) if cell.cell_type == "code" else [])]
    return "\n".join(said).lower()
