"""Put the outputs of a run into the committed notebooks."""

import base64
import io
import tempfile
from pathlib import Path

import nbformat
from PIL import Image

from mpm import artefacts, record
from mpm.kernel import Watcher, execute
from mpm.steps import alone, defaults, notebooks
from mpm.study import load

SCALE = 0.52  # of pictures in committed notebooks: all stay below 6 MB, their text legible
CHECKED = "NBVAL_CHECK_OUTPUT"  # in a cell, all outputs of which nbval compares


def refresh(study: str = "demo") -> list[Path]:
    """Put the outputs of a study's executed copies into the notebooks they were made from.

    Notebooks that are no step of a run (`steps.ALONE`) are executed here as they are. Nothing but
    outputs and execution counts (1 to n) changes. Pictures are made smaller, see `_smaller`.

    Parameters
    ----------
    study : str
        A study that was run with the notebooks' own parameters.

    Returns
    -------
    list of Path
        The notebooks rewritten.

    Raises
    ------
    ValueError
        If an executed copy is missing, or was made from other cells or parameters.
    NotebookFailed
        If one of those executed here stops with an error.
    """
    setup = load(study)
    made = artefacts.read_json(artefacts.require(record.path(setup), "01 to 06"))["notebooks"]
    filled = {}
    for source in notebooks():
        entry = made.get(source.stem, {})
        if entry.get("status") != "done" or entry["parameters"] != defaults(source):
            raise ValueError(
                f"{source.name} was not run with its own parameters; "
                f"run `python -m mpm run {study}` without other options first"
            )
        filled[source] = _with_outputs(source, setup.processed / entry["executed"])
    filled |= {source: _executed(source) for source in alone()}
    for source, notebook in filled.items():
        with artefacts.atomic(source) as fresh:
            nbformat.write(notebook, fresh)
    return list(filled)


def _executed(source: Path) -> nbformat.NotebookNode:
    """Execute a notebook and return it with its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        copy, watcher = Path(folder) / source.name, Watcher(source.stem)
        execute(source, copy, {}, watcher)
        watcher.report(f"{watcher.seconds:5.0f} s")
        return _with_outputs(source, copy)


def _with_outputs(source: Path, executed: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of its executed copy, numbered from 1."""
    notebook, copy = (nbformat.read(path, as_version=4) for path in (source, executed))
    cells = [
        cell for cell in copy.cells if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    if [cell.source for cell in cells] != [cell.source for cell in notebook.cells]:
        raise ValueError(f"{source.name} changed since it was run; run it again")
    pairs = zip(notebook.cells, cells, strict=True)
    code = [(cell, made) for cell, made in pairs if cell.cell_type == "code"]
    for count, (cell, made) in enumerate(code, start=1):
        cell.outputs, cell.execution_count = made.outputs, count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _smaller(data["image/png"])
            if "text/html" in data and CHECKED not in cell.source:
                data.pop("text/plain", None)  # the same table once more
    return notebook


def _smaller(png: str) -> str:
    """Return a PNG at `SCALE` of its size, in few colours; both in base64.

    A clone keeps every version of the committed notebooks; the figures beside them are whole.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture = picture.resize(
        [round(SCALE * side) for side in picture.size], Image.Resampling.LANCZOS
    )
    with io.BytesIO() as smaller:
        artefacts.quantize(picture, artefacts.COLOURS).save(smaller, format="png", optimize=True)
        return base64.b64encode(smaller.getvalue()).decode() + "\n"
