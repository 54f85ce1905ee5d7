"""Order of the notebooks and their parameters (what is refused: test_pipeline)."""

import pytest
from toy_notebooks import home, write_notebook  # noqa: F401  (home is a fixture)

from mpm import steps


def test_the_overview_runs_last(home):
    "Number 00 shows what the others made"
    write_notebook(home, "00_overview", 'study = "tiny"', "study")
    assert [path.stem for path in steps.notebooks()] == ["01_first", "02_second", "00_overview"]


def test_a_notebook_that_stands_alone_is_no_step_of_a_run(home):
    "It makes a study of its own; neither runs nor their parameters know it"
    assert steps.alone() == []
    write_notebook(home, "07_your_own_region", 'study = "tutorial"', "study")
    assert [path.stem for path in steps.notebooks()] == ["01_first", "02_second"]
    assert [path.stem for path in steps.alone()] == ["07_your_own_region"]
    with pytest.raises(ValueError, match="'07' is no notebook number"):
        steps.choose({}, {}, ["07"])


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
