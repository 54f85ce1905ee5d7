"""Tiny notebooks in a compendium of their own: what runs, what is skipped, what is recorded."""

import json
import os

import nbformat
import pytest
from toy_notebooks import FIRST, SECOND, home, write_notebook  # noqa: F401  (home is a fixture)

from mpm import artefacts, freshness, pipeline, record, refresh, steps
from mpm.kernel import NotebookFailed
from mpm.study import load


def made(home, name):
    """Read an artefact of the study."""
    return (home / "data" / "processed" / "tiny" / name).read_text()


def executed(output):
    """Name the notebooks that ran, from the runner's own lines."""
    return [line.split()[0] for line in output.splitlines() if " GB " in line]


def test_notebooks_run_in_order_with_their_parameters(home, capsys):
    "Each notebook gets those parameters that it declares, the target being the study's first"
    result = pipeline.run("tiny", seed=3, settings={"rate": 1, "epochs": 5}, device="cpu")
    assert made(home, "second.txt") == "MVT 3 1 5 cpu"
    output = capsys.readouterr().out
    assert executed(output) == ["01_first", "02_second"]
    assert "1 figure\n" in output and "first 3" not in output
    assert result.notebooks["01_first"]["parameters"] == {
        "study": "tiny", "target": "MVT", "seed": 3, "rate": 1,
    }  # fmt: skip
    assert "MPM_RUN" not in os.environ


def test_the_record_says_what_the_run_was_made_of(home):
    "run.json names code, inputs and versions, and of each notebook its time, memory and files"
    pipeline.run("tiny")
    content = json.loads(made(home, "run.json"))
    assert content["study"] == "tiny" and content["seed"] == 7
    assert content["commit"] is None  # not under git
    assert content["inputs"] == {"gravity.tif": "0" * 64}
    assert content["packages"]["papermill"] and "pytest" not in content["packages"]
    first = content["notebooks"]["01_first"]
    assert first["status"] == "done" and first["started"].endswith("Z")
    assert first["wall_s"] > 0 and 20 < first["peak_mb"] < 2000
    assert first["executed"] == "notebooks/01_first.ipynb" and first["artefacts"] == ["first.txt"]
    assert first["passed"] == {"study": "tiny", "target": "MVT"}
    assert first["made_of"]["inputs"]["gravity.tif"] == "0" * 16
    assert first["sha256"] == artefacts.sha256(load("tiny").processed / first["executed"])


def test_the_manifest_lists_every_figure_with_its_checksum(home):
    "The manifest's SHA-256 are those of the files; figures no longer drawn are gone"
    figures = home / "figures" / "tiny"
    figures.mkdir(parents=True)
    (figures / "01_stale.png").write_bytes(b"from an older run")
    (figures / "02_stale.png").write_bytes(b"from an older run")
    pipeline.run("tiny", only=["01"])
    manifest = json.loads((figures / "manifest.json").read_text())
    assert manifest == [
        {
            "figure": "01_map.png",
            "notebook": "01_first.ipynb",
            "sha256": artefacts.sha256(figures / "01_map.png"),
        }
    ]
    assert sorted(path.name for path in figures.glob("*.png")) == ["01_map.png", "02_stale.png"]


def test_a_second_run_repeats_nothing_unless_forced(home, capsys):
    "Up-to-date notebooks are skipped; --force runs them; a changed figure is made again"
    pipeline.run("tiny")
    capsys.readouterr()
    pipeline.run("tiny")
    output = capsys.readouterr().out
    assert executed(output) == [] and output.count("up to date") == 2
    pipeline.run("tiny", only=["02"], force=True)
    assert executed(capsys.readouterr().out) == ["02_second"]
    (home / "figures" / "tiny" / "01_map.png").write_bytes(b"edited by hand")
    pipeline.run("tiny")
    assert executed(capsys.readouterr().out) == ["01_first"]


def test_a_changed_parameter_or_cell_runs_what_depends_on_it(home, capsys):
    "A parameter of 02 leaves 01 alone; one of 01 reaches 02 too; so does a cell; text does not"
    pipeline.run("tiny")
    capsys.readouterr()
    pipeline.run("tiny", settings={"epochs": 4})
    output = capsys.readouterr().out
    assert executed(output) == ["02_second"]
    assert "tiny: 1 of 2 notebooks to run\n  01_first              up to date, made 20" in output
    assert "  02_second             to run: parameters (epochs)\n02_second ...\n" in output
    pipeline.run("tiny", settings={"rate": 0.25, "epochs": 4})
    assert executed(capsys.readouterr().out) == ["01_first", "02_second"]
    write_notebook(home, "02_second", 'study = "tiny"\nepochs = 4\ndevice = "auto"', SECOND)
    pipeline.run("tiny", settings={"rate": 0.25})
    assert executed(capsys.readouterr().out) == ["02_second"]


def test_changed_code_runs_everything(home, monkeypatch, capsys):
    "A module of mpm may have changed what every notebook makes"
    pipeline.run("tiny")
    monkeypatch.setattr(freshness, "code_used", lambda text: {"plots": "other"})
    capsys.readouterr()
    pipeline.run("tiny")
    assert executed(capsys.readouterr().out) == ["01_first", "02_second"]


def test_only_keeps_the_record_of_the_others(home):
    "A partial run adds to run.json and forgets nothing"
    pipeline.run("tiny", only=["01"])
    result = pipeline.run("tiny", only=["02"])
    assert list(result.notebooks) == ["01_first", "02_second"]


def test_a_failing_notebook_says_where_and_resumes(home, capsys):
    "The message has notebook, cell, source, error and file; the next run starts there"
    (home / "data" / "processed" / "tiny").mkdir(parents=True)
    stop = home / "data" / "processed" / "tiny" / "stop"
    stop.touch()
    failed = stop.parent / "notebooks" / "02_second.failed.ipynb"
    with pytest.raises(NotebookFailed) as error:
        pipeline.run("tiny")
    message = str(error.value)
    assert "02_second stopped in cell 4, In [3]" in message
    assert "from mpm import artefacts" in message and "RuntimeError: no luck" in message
    assert str(failed) in message and "no luck" in failed.read_text()
    assert json.loads(made(home, "run.json"))["notebooks"]["02_second"]["status"] == "failed"
    assert executed(capsys.readouterr().out) == ["01_first"]
    stop.unlink()
    pipeline.run("tiny")
    assert executed(capsys.readouterr().out) == ["02_second"]
    assert not failed.exists() and failed.with_name("02_second.ipynb").exists()


def test_a_dead_kernel_is_reported_as_such(home):
    "A kernel that ends without a word, as one does when memory is short, is a failed notebook"
    write_notebook(home, "01_first", 'study = "tiny"', "import os\nos._exit(1)")
    with pytest.raises(NotebookFailed, match="01_first stopped in cell .*(?s:.*)kernel died"):
        pipeline.run("tiny")
    assert json.loads(made(home, "run.json"))["notebooks"]["01_first"]["status"] == "failed"


def test_an_interrupted_notebook_is_not_up_to_date(home, monkeypatch, capsys):
    "Whatever an interrupted notebook had made before, it runs again"
    pipeline.run("tiny")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "execute", interrupt)
        pipeline.run("tiny", seed=8)
    capsys.readouterr()
    pipeline.run("tiny")
    assert executed(capsys.readouterr().out) == ["01_first"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": {"epoch": 5}}, "'epoch' is no parameter .*did you mean epochs"),
        ({"settings": {"epochs": "many"}}, "'epochs' takes int values such as 2, not 'many'"),
        ({"settings": {"seed": 5}}, "use --seed"),
        ({"settings": {"epochs": 5}, "only": ["01"]}, "'epochs' is no parameter"),
        ({"target": "MTV"}, "'MTV' is no target of study 'tiny'; did you mean MVT"),
        ({"preset": "papr"}, "'papr' is no preset; did you mean paper"),
        ({"device": "gpu"}, "'gpu' is no device"),
        ({"only": ["01", "07"]}, "'07' is no notebook number"),
    ],
)
def test_a_misspelt_name_is_refused_before_anything_runs(home, options, message):
    "Names are compared with what the study and the notebooks declare, and near ones offered"
    with pytest.raises(ValueError, match=message):
        pipeline.run("tiny", **options)
    assert not (home / "data" / "processed").exists()


def test_a_misspelt_study_is_refused_before_anything_runs(home):
    "The nearest study is offered"
    with pytest.raises(FileNotFoundError, match="did you mean tiny"):
        pipeline.run("tinny")


def test_refresh_changes_nothing_but_outputs(home):
    "Committed notebooks take outputs and counts from the executed copies, no other trace"
    path = home / "notebooks" / "02_second.ipynb"
    before = nbformat.read(path, as_version=4)
    pipeline.run("tiny")
    refresh.refresh("tiny")
    after = nbformat.read(path, as_version=4)
    code = [cell for cell in after.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2]
    assert code[1].outputs[0].execution_count == 2
    assert code[1].outputs[0].data["text/plain"] == "2"
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    assert after == before


def test_refresh_executes_notebooks_that_stand_alone(home):
    "No run has made them: their outputs come from here, with their own parameters"
    pipeline.run("tiny")
    write_notebook(home, "07_your_own_region", "number = 6", "print(7 * number)")
    filled = refresh.refresh("tiny")
    assert [path.stem for path in filled] == ["01_first", "02_second", "07_your_own_region"]
    cells = nbformat.read(filled[-1], as_version=4).cells
    assert cells[-1].outputs[0].text == "42\n" and cells[-1].execution_count == 2
    assert "papermill" not in cells[-1].metadata


def test_refresh_refuses_copies_made_with_other_parameters(home):
    "The committed outputs are those of the committed parameters"
    pipeline.run("tiny", settings={"epochs": 3})
    with pytest.raises(ValueError, match="02_second.ipynb was not run with its own parameters"):
        refresh.refresh("tiny")


def test_a_compendium_without_notebooks_says_so(home):
    "The message names the folder"
    for path in (home / "notebooks").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no numbered notebooks"):
        steps.notebooks()


def test_a_computed_parameter_is_refused(home):
    "Papermill could not tell what depends on it"
    write_notebook(home, "01_first", "seed = 3 + 4 * x", FIRST)
    with pytest.raises(ValueError, match="01_first.ipynb: a value of its parameters"):
        pipeline.run("tiny")


def test_the_record_of_a_study_lies_beside_its_artefacts(home):
    "run.json is found from the study alone"
    assert record.path(load("tiny")) == home / "data" / "processed" / "tiny" / "run.json"
