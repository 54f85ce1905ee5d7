"""Say of every notebook of every study whether its results are up to date, and why not."""

import pandas as pd

from mpm import freshness, record, steps
from mpm.study import Study, load, studies
from mpm.study_errors import first_lines

COLUMNS = ["study", "notebook", "state", "made", "why"]
_STATES = ("never run", "failed", "interrupted")


def table(names: list[str] | None = None) -> pd.DataFrame:
    """Tabulate notebooks, compared with what the same `mpm run` would make now.

    Parameters
    ----------
    names : list of str, optional
        Studies, by name or path; by default those that come with the compendium.

    Returns
    -------
    DataFrame
        study, notebook, state ("up to date", "stale", "failed", "interrupted", "never run"), made
        (UTC), why. A study whose inputs are missing ("inputs missing") has one row, and so has one
        that was not named and cannot be read ("unreadable").

    Raises
    ------
    FileNotFoundError, ValueError
        If a study that was named does not exist or is not valid.
    """
    if names:
        rows = [row for name in names for row in _rows(load(name))]
    else:
        rows = [row for name in studies() for row in _rows_or_why_not(name)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows_or_why_not(name: str) -> list[tuple[str, ...]]:
    """Tabulate a study; one that cannot be read must not hide the others."""
    try:
        return _rows(load(name))
    except (ValueError, OSError) as error:
        return [(name, "all", "unreadable", "", first_lines(error))]


def _rows(setup: Study) -> list[tuple[str, ...]]:
    entries = record.entries(setup)
    known = [path.stem for path in steps.notebooks()]
    if not entries:
        return [(setup.name, name, "never run", "", "") for name in known]
    try:
        made = record.begin(setup, known, None)
    except FileNotFoundError as error:
        return [(setup.name, "all", "inputs missing", "", first_lines(error, 1))]
    planned = freshness.plan(steps.recorded(entries), setup, made)
    return [
        (setup.name, each.step.name, state, entries.get(each.step.name, {}).get("started", ""), why)
        for each in planned
        for state, why in [_state(each.reasons)]
    ]


def _state(reasons: tuple[str, ...]) -> tuple[str, str]:
    if not reasons:
        return "up to date", ""
    return (reasons[0], "") if reasons[0] in _STATES else ("stale", "; ".join(reasons))
