"""Order of the notebooks and their parameters (what is refused: test_pipeline)."""

from toy_notebooks import home, write_notebook  # noqa: F401  (home is a fixture)

from mpm import steps


def test_the_overview_runs_last(home):
    "Number 00 shows what the others made"
    write_notebook(home, "00_overview", 'study = "tiny"', "study")
    assert [path.stem for path in steps.notebooks()] == ["01_first", "02_second", "00_overview"]


def test_a_record_gives_the_parameters_of_the_last_run(home):
    "Those that are gone are dropped, and what was not passed keeps the notebook's own value"
    first, second = steps.recorded({"01_first": {"passed": {"rate": 0.1, "gone": 3}}})
    assert first.passed == {"rate": 0.1} and first.parameters["seed"] == 7
    assert second.passed == {}


def test_a_file_of_parameters_may_name_those_of_other_notebooks(home):
    "They come after settings"
    file = {"epochs": 9, "rate": 0.1}
    (first,) = steps.choose({}, {"rate": 0.2}, ["01"], parameters=file)
    assert first.passed == {"rate": 0.2}
