"""Runs of notebooks, their kernels and parameters, and the records that earlier runs left."""

import json
import shutil
from functools import partial

import pytest
from bad_inputs import Bad, cut, judge, nothing
from toy_notebooks import write_notebook

from mpm.__main__ import main

TINY = "data/processed/tiny"
EXECUTED = [f"{TINY}/run.json", f"{TINY}/ro-crate-metadata.json", f"{TINY}/notebooks"]
SECOND_COPY = f"{TINY}/notebooks/02_second.failed.ipynb"


def notebook(name, parameters, code):
    "Change one of the notebooks"
    return lambda home: write_notebook(home, name, parameters, code)


OWN = 'study = "tiny"\nepochs = 3\ndevice = "auto"'
Run = partial(Bad, "run", command="run tiny")
RUNS = [
    Run(
        "a notebook that fails",
        notebook("02_second", OWN, "1 / 0"),
        ["02_second stopped in cell 4", "ZeroDivisionError", SECOND_COPY, "the same command"],
        code=1,
        written=[*EXECUTED, SECOND_COPY],
    ),
    Run(
        "a kernel that dies",
        notebook("02_second", OWN, "import os\nos._exit(1)"),
        ["02_second stopped in cell", "its kernel died", "enough memory"],
        code=1,
        written=[*EXECUTED, SECOND_COPY],
    ),
    Run(
        "a notebook that is no JSON",
        lambda home: (home / "notebooks/02_second.ipynb").write_text("{"),
        ["02_second.ipynb"],
    ),
    Run(
        "a computed parameter",
        notebook("02_second", "epochs = 1 + 1", "1"),
        ["02_second.ipynb", "computed"],
    ),
    Run("no notebooks", lambda home: shutil.rmtree(home / "notebooks"), ["no numbered notebooks"]),
    Run(
        "an unknown notebook", nothing, ["'07' is no notebook number"], command="run tiny --only 07"
    ),
    Run(
        "an unknown parameter",
        nothing,
        ["'epoch' is no parameter", "did you mean epochs"],
        command="run tiny --set epoch=3",
    ),
    Run(
        "a parameter of another type",
        nothing,
        ["'epochs' takes int values"],
        command="run tiny --set epochs=many",
    ),
    Run("an unknown device", nothing, ["'gpu' is no device"], command="run tiny --device gpu"),
    Run("an unknown preset", nothing, ["'big' is no preset"], command="run tiny --preset big"),
    Run(
        "parameters that are a folder",
        nothing,
        ["notebooks cannot be read"],
        command="run tiny --parameters notebooks",
    ),
    Run("a record cut short", cut(f"{TINY}/run.json", 0.5), ["run.json is not valid JSON"]),
    Run(
        "a record of another version",
        lambda home: (home / TINY / "run.json").write_text("[]"),
        ["run.json lacks notebooks", "make it again"],
    ),
    Run(
        "status: a record cut short",
        cut(f"{TINY}/run.json", 0.5),
        ["run.json is not valid JSON"],
        command="status tiny",
    ),
    Run(
        "status: entries of another version",
        lambda home: (home / TINY / "run.json").write_text('{"notebooks": {"01_first": {}}}'),
        ["run.json", "01_first"],
        command="status tiny",
    ),
    Run(
        "verify: never run, no committed figures",
        lambda home: [
            (home / TINY / "run.json").unlink(),
            (home / "figures/tiny/manifest.json").unlink(),
        ],
        ["manifest.json is missing", "mpm run tiny"],
        command="verify tiny",
    ),
    Run(
        "verify: no such folder",
        nothing,
        ["elsewhere holds no figures/tiny"],
        command="verify tiny --against elsewhere",
    ),
    Run(
        "verify: no manifest",
        lambda home: (home / "figures/tiny/manifest.json").unlink(),
        ["manifest.json is missing", "mpm run tiny"],
        command="verify tiny --against .",
    ),
    Run(
        "verify: a manifest of another version",
        lambda home: (home / "figures/tiny/manifest.json").write_text('[{"file": 1}]'),
        ["manifest.json is damaged", "--force"],
        command="verify tiny --against .",
    ),
    Run(
        "a manifest cut short",
        cut("figures/tiny/manifest.json", 0.5),
        ["manifest.json is not valid JSON"],
    ),
]


@pytest.mark.parametrize("bad", RUNS, ids=str)
def test_a_bad_run_is_named_and_harms_nothing(bad, tiny, capsys, record_property):
    "Notebook, cell or parameter is named, and what earlier runs made stays"
    judge(bad, tiny, capsys, record_property)


def test_a_kernel_that_is_not_here_is_not_asked_for(tiny, capsys):
    "Whatever kernel a notebook was saved with, the runner takes this Python's"
    path = tiny / "notebooks" / "02_second.ipynb"
    content = json.loads(path.read_text())
    content["metadata"]["kernelspec"] = {
        "name": "my-conda",
        "display_name": "my conda",
        "language": "python",
    }
    path.write_text(json.dumps(content))
    assert main(["run", "tiny", "--set", "epochs=4"]) == 0
    assert "02_second" in capsys.readouterr().out


def test_a_missing_kernel_is_named(tiny, capsys, monkeypatch, record_property):
    "As of an environment without ipykernel: what is missing, what to install, nothing run"
    monkeypatch.setattr("mpm.kernel.KERNEL", "no_such_kernel")
    bad = Bad(
        "run",
        "a kernel that is not installed",
        nothing,
        ["no_such_kernel", "pip install ipykernel"],
        "run tiny --force",
        code=1,
        written=[*EXECUTED, f"{TINY}/notebooks/01_first.failed.ipynb"],
    )
    judge(bad, tiny, capsys, record_property)


def test_what_cannot_be_compared_has_changed(tiny, capsys):
    "A table and a figure cut short in the record: a line each, and exit code 1"
    again = tiny / "again"
    made = [tiny / TINY / "scores.parquet", tiny / "figures/tiny/01_map.png"]
    other = [again / "processed/tiny/scores.parquet", again / "figures/tiny/01_map.png"]
    for number, path in enumerate(made + other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"cut short" + bytes([number]))
    assert main(["verify", "tiny", "--against", "again"]) == 1
    said = capsys.readouterr().out
    assert said.count("cannot be compared") == 2 and "scores.parquet" in said
