"""A compendium of two tiny notebooks and one study, for tests of what runs them."""

import nbformat
import pytest

from mpm import fetch, freshness

STUDY = """
name: tiny
regions:
  west: {crs: "EPSG:32631", resolution: 100, bounds: [0, 0, 600, 600]}
layers:
  - {name: gravity, group: geophysics, units: mGal, file: gravity.tif}
deposits: {file: deposits.csv, type: type}
targets:
  MVT: {types: [MVT]}
  CD: {types: [CD]}
"""

FIRST = """
import os
from mpm import artefacts
assert os.environ["MPM_RUN"] == "1"
folder = artefacts.processed(study)
(folder / "first.txt").write_text(f"{target} {seed} {rate}")
figures = artefacts.figures(study)
figures.mkdir(parents=True, exist_ok=True)
(figures / "01_map.png").write_bytes(f"map {seed}".encode())
print("first", seed)
"""

SECOND = """
from mpm import artefacts
folder = artefacts.processed(study)
if (folder / "stop").exists():
    raise RuntimeError("no luck")
(folder / "second.txt").write_text((folder / "first.txt").read_text() + f" {epochs} {device}")
epochs
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A compendium of two notebooks and one study, whose inputs need no fetching."""
    for name in ("MPM_PROCESSED", "MPM_FIGURES", "MPM_RUN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MPM_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "fetch", lambda study, **_: [])
    monkeypatch.setattr(fetch, "input_checksums", lambda study: {"gravity.tif": "0" * 64})
    monkeypatch.setattr(freshness, "code_used", lambda text: {"plots": "code"})
    studies = tmp_path / "data" / "studies"
    studies.mkdir(parents=True)
    (studies / "tiny.yaml").write_text(STUDY)
    own = 'study = "tiny"\ntarget = "MVT"\nseed = 7\n'
    write_notebook(tmp_path, "01_first", own + "rate = 0.5  # share", FIRST)
    write_notebook(tmp_path, "02_second", own + 'epochs = 2\ndevice = "auto"', SECOND)
    return tmp_path


def write_notebook(home, name, parameters, code):
    """Write a notebook of a heading, a parameters cell and one cell of code."""
    cells = [
        nbformat.v4.new_markdown_cell(f"# {name}"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code.strip()),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    (home / "notebooks").mkdir(exist_ok=True)
    nbformat.write(notebook, home / "notebooks" / f"{name}.ipynb")
