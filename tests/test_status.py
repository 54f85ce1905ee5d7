"""The table of `mpm status`, after runs of toy notebooks."""

import pytest
from toy_notebooks import SECOND, home, write_notebook  # noqa: F401  (home is a fixture)

from mpm import fetch, pipeline, status
from mpm.kernel import NotebookFailed


def states():
    """Return notebook, state and why."""
    return status.table(["tiny"])[["notebook", "state", "why"]].to_numpy().tolist()


def test_status_follows_what_happens_to_a_study(home, monkeypatch):
    "Never run, up to date with the options of the last run, stale and why, failed, inputs gone"
    assert status.table()[["study", "notebook", "state"]].to_numpy().tolist() == [
        ["tiny", "01_first", "never run"],
        ["tiny", "02_second", "never run"],
    ]
    pipeline.run("tiny", seed=3, settings={"epochs": 5})
    assert states() == [["01_first", "up to date", ""], ["02_second", "up to date", ""]]
    write_notebook(home, "02_second", 'study = "tiny"\nepochs = 4\ndevice = "auto"', SECOND)
    assert states()[1] == ["02_second", "stale", "its cells; parameters (seed, target)"]
    (home / "data" / "processed" / "tiny" / "stop").touch()
    with pytest.raises(NotebookFailed):
        pipeline.run("tiny", seed=3)
    assert states() == [["01_first", "up to date", ""], ["02_second", "failed", ""]]

    def lack(_):
        raise FileNotFoundError("study 'tiny' lacks files; put them there\n  gravity.tif")

    monkeypatch.setattr(fetch, "input_checksums", lack)
    assert states() == [["all", "inputs missing", "study 'tiny' lacks files; put them there"]]


def test_a_study_that_cannot_be_read_hides_no_other(home):
    "One with a mistake in its YAML, one whose record is damaged; named, they are errors"
    (home / "data" / "studies" / "broken.yaml").write_text("name: broken\nregions: [")
    text = (home / "data" / "studies" / "tiny.yaml").read_text()
    (home / "data" / "studies" / "worn.yaml").write_text(text.replace("tiny", "worn"))
    record = home / "data" / "processed" / "worn" / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    rows = status.table().set_index("study")
    assert rows["state"].to_dict() | {"tiny": set(rows.loc["tiny", "state"])} == {
        "broken": "unreadable",
        "worn": "unreadable",
        "tiny": {"never run"},
    }
    assert "broken.yaml is not readable YAML" in rows.loc["broken", "why"]
    assert "run.json is not valid JSON" in rows.loc["worn", "why"]
    for name in ("broken", "worn"):
        with pytest.raises(ValueError, match=name):
            status.table([name])


def test_a_study_that_does_not_exist_is_refused(home):
    "The nearest name is offered"
    with pytest.raises(FileNotFoundError, match="did you mean tiny"):
        status.table(["tinny"])
