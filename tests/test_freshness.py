"""Why results are not up to date, from records written by hand."""

from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from toy_notebooks import FIRST, home, write_notebook  # noqa: F401  (home is a fixture)

from mpm import artefacts, freshness, record, steps
from mpm.study import load

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def done(home):
    """The study, and the record of a run in which both notebooks were done."""
    setup = load("tiny")
    made = record.begin(setup, ["01_first", "02_second"], 7)
    for planned in freshness.plan(steps.recorded({}), setup, made):
        name = planned.step.name
        copy = setup.processed / "notebooks" / f"{name}.ipynb"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("executed")
        entry = {"key": planned.key, "made_of": planned.made_of, "status": "done", "figures": []}
        entry |= {"executed": f"notebooks/{copy.name}", "sha256": artefacts.sha256(copy)}
        made.notebooks[name] = entry | {"artefacts": [], "passed": {}, "started": "then"}
    return setup, made


def why(setup, made, passed=()):
    """Return the reasons of both notebooks, the first being passed some parameters."""
    first, second = steps.recorded({})
    first = replace(first, passed=dict(passed))
    return [each.reasons for each in freshness.plan([first, second], setup, made)]


def test_nothing_changed_is_up_to_date(done):
    "No reasons, and --force is one"
    assert why(*done) == [(), ()]
    forced = freshness.plan(steps.recorded({}), *done, force=True)
    assert [each.reasons for each in forced] == [("forced",)] * 2


def test_a_reason_names_what_changed(done):
    "Parameters, inputs, packages, threads and Python, each by name; the next notebook follows"
    setup, made = done
    assert why(setup, made, {"rate": 0.1}) == [("parameters (rate)",), ("after 01_first",)]
    changes = {
        "inputs (gravity.tif)": {"inputs": {"gravity.tif": "1" * 64}},
        "inputs (faults.gpkg)": {"inputs": made.inputs | {"faults.gpkg": "1" * 64}},
        "inputs (study file)": {"study_hash": "other"},
        "environment (numpy)": {"packages": made.packages | {"numpy": "9.0"}},
        "environment (threads)": {"threads": made.threads + 1},
        "environment (python)": {"python": "2.7"},
    }
    for reason, change in changes.items():
        assert why(setup, replace(made, **change)) == [(reason,), (reason, "after 01_first")]


def test_a_package_that_only_shows_things_changes_nothing(done):
    "Results do not depend on the version of JupyterLab"
    setup, made = done
    assert why(setup, replace(made, packages=made.packages | {"jupyterlab": "9"})) == [(), ()]


def test_data_that_come_with_the_compendium_are_inputs(done):
    "Lists of facts concern every notebook"
    setup, made = done
    (artefacts.home() / "data" / "facts.json").write_text("{}")
    assert why(setup, made)[0] == ("inputs (data/facts.json)",)


@pytest.mark.parametrize(("folder", "module"), list(freshness.READERS.items()))
def test_tables_are_inputs_of_the_notebooks_that_read_them(done, monkeypatch, folder, module):
    "A new comparison concerns notebooks 02 and 03, and not the data of notebook 01"
    setup, made = done
    table = artefacts.home() / "data" / folder / "tiny.csv"
    table.parent.mkdir()
    table.write_text("variant,auc\n")
    assert why(setup, made) == [(), ()]
    monkeypatch.setattr(freshness, "code_used", lambda text: {module: "new"})
    assert f"inputs (data/{folder}/tiny.csv)" in why(setup, made)[0]


def test_the_readers_of_tables_are_modules():
    "Notebooks 02 and 03 read comparisons, 05 scores"
    used = {}
    for name in ("01_data_preparation", "02_mae_pretraining", "03_fine_tuning", "05_evaluation"):
        cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
        code = freshness.code_used("\n".join(c.source for c in cells if c.cell_type == "code"))
        used[name[:2]] = sorted(freshness.READERS.values() & code.keys())
    comparisons, scores = ["comparison_table"], ["study_scores"]
    assert used == {"01": [], "02": comparisons, "03": comparisons, "05": scores}


def test_changed_cells_and_code_are_told_apart(done, home, monkeypatch):
    "A changed cell concerns its notebook and those after it; code is named by module"
    setup, made = done
    monkeypatch.setattr(freshness, "code_used", lambda text: {"plots": "other", "mae": "new"})
    assert why(setup, made)[0] == ("code (mae, plots)",)
    write_notebook(home, "01_first", 'study = "tiny"\ntarget = "MVT"', FIRST)
    assert why(setup, made)[0] == ("its cells", "parameters (rate, seed)", "code (mae, plots)")


def test_a_lost_artefact_is_made_again(done):
    "Whoever deletes the cube gets it back from `mpm run`, not an error from the next notebook"
    setup, made = done
    made.notebooks["01_first"]["artefacts"] = ["west.zarr"]
    assert why(setup, made) == [("files changed or missing (west.zarr)",), ()]
    (setup.processed / "notebooks" / "02_second.ipynb").write_text("edited")
    assert why(setup, made)[1] == ("files changed or missing (02_second.ipynb)",)


def test_what_failed_or_never_ran_says_so(done):
    "An interrupted notebook's artefacts are nobody's: all after it run too"
    setup, made = done
    made.notebooks["01_first"]["status"] = "running"
    assert why(setup, made) == [("interrupted",), ()]
    (only,) = freshness.plan(steps.recorded({})[1:], setup, made)
    assert only.reasons == ("after 01_first",)
    made.notebooks["01_first"]["status"] = "failed"
    del made.notebooks["02_second"]
    assert why(setup, made) == [("failed",), ("never run",)]


def test_a_run_that_did_not_say_what_it_was_made_of_is_repeated(done):
    "As those of a version without that record"
    setup, made = done
    del made.notebooks["01_first"]["made_of"]
    assert why(setup, made) == [("made by an earlier version of mpm",), ()]


def test_code_is_what_the_cells_import_directly_or_not():
    "labels imports deposits, deposits imports study; the command line is imported by none"
    used = freshness.code_used("from mpm import labels\nimport numpy")
    assert {"__init__", "labels", "deposits", "study", "artefacts"} <= used.keys()
    assert not {"commands", "pipeline", "mae", "numpy"} & used.keys()
    assert all(len(checksum) == 16 for checksum in used.values())
    assert freshness.code_used("x = 1") == {}


def test_code_that_cannot_be_read_may_use_every_module():
    "A magic line is no Python"
    assert {"commands", "mae"} <= freshness.code_used("%matplotlib inline").keys()


def test_a_script_of_a_modules_name_belongs_to_it(tmp_path):
    "`web_map.js` beside `web_map.py`: a change of it is a change of the module"
    module, script = tmp_path / "page.py", tmp_path / "page.js"
    module.touch()
    assert freshness._beside(module) == ""
    script.write_text("let x = 1")
    before = freshness._beside(module)
    script.write_text("let x = 2")
    assert before != freshness._beside(module) != ""
