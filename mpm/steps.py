"""Which notebooks run, in which order, and with which parameters; every name is checked first."""

import ast
import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
from nbformat import ValidationError

from mpm import artefacts
from mpm.study import Study, studies

DEVICES = ("auto", "cpu", "cuda", "mps")
ALONE = ("07_your_own_region",)  # no steps of a study's run: they make a study of their own
OPTIONS = ("study", "target", "seed", "preset", "device")


@dataclass(frozen=True)
class Step:
    """One notebook of a run.

    Attributes
    ----------
    source : Path
    defaults : dict
        Its own parameters.
    passed : dict
        Those of them that this run sets.
    """

    source: Path
    defaults: dict[str, Any]
    passed: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the notebook, e.g. "01_data_preparation"."""
        return self.source.stem

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter with the value that holds in this run."""
        return self.defaults | self.passed


def notebooks() -> list[Path]:
    """Return the numbered notebooks of a study's run in the order in which they run.

    Number 00, the overview, runs last: it shows what the others made. Those in `ALONE` are left
    out.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    folder = artefacts.home() / "notebooks"
    numbered = [path for path in folder.glob("[0-9][0-9]_*.ipynb") if "." not in path.stem]
    found = [path for path in numbered if path.stem not in ALONE]
    if not found:
        raise FileNotFoundError(f"{folder} holds no numbered notebooks; is MPM_HOME right?")
    return sorted(found, key=lambda path: order(path.stem))


def alone() -> list[Path]:
    """Return the notebooks that run by themselves, on a study of their own."""
    places = [artefacts.home() / "notebooks" / f"{name}.ipynb" for name in ALONE]
    return [path for path in places if path.exists()]


def order(notebook: str) -> tuple[bool, str]:
    """Return what notebooks are sorted by: their number, but 00 last."""
    return notebook.startswith("00"), notebook


def options(
    setup: Study, study: str, target: str | None, seed: int | None, preset: str | None, device: str
) -> dict[str, object]:
    """Return the options of a run, but for those left out, as parameters of notebooks.

    Parameters
    ----------
    setup : Study
    study : str
        As the user wrote it.
    target, seed, preset : str or int, optional
        By default the study's first target, and each notebook's own seed and preset.
    device : str

    Raises
    ------
    ValueError
        If target, preset or device is not known.
    """
    target = target or next(iter(setup.targets))
    _check_known(target, setup.targets, f"target of study {setup.name!r}")
    _check_known(device.partition(":")[0], DEVICES, "device")
    if preset is not None:
        from mpm.mae import PRESETS  # torch takes seconds to import, most runs name no preset

        _check_known(preset, PRESETS, "preset")
    given = {
        "study": study if study in studies() else str(setup.path),
        "target": target,
        "seed": seed,
        "preset": preset,
        "device": device,
    }
    return {name: value for name, value in given.items() if value is not None}


def choose(
    given: dict, settings: dict, only: list[str] | None, *, parameters: dict | None = None
) -> list[Step]:
    """Return the notebooks to run, each with those parameters that it declares.

    Parameters
    ----------
    given : dict
        Of `options`.
    settings : dict
        Other parameters by name.
    only : list of str, optional
        Notebook numbers; all by default.
    parameters : dict, optional
        As settings, which come before them, but some may be of notebooks that are not chosen.

    Raises
    ------
    ValueError
        If a number or name is not known, or a value is of another type than the notebook's own.
    """
    declared = {path: defaults(path) for path in notebooks()}
    for number in only or []:
        _check_known(number, [path.name[:2] for path in declared], "notebook number")
    chosen = {path: own for path, own in declared.items() if not only or path.name[:2] in only}
    _check_settings(settings, chosen)
    _check_settings(parameters or {}, declared)
    passed = (parameters or {}) | settings | given
    return [
        Step(path, own, {name: value for name, value in passed.items() if name in own})
        for path, own in chosen.items()
    ]


def recorded(entries: dict[str, dict]) -> list[Step]:
    """Return every notebook with the parameters that a record says its last run was given.

    Parameters
    ----------
    entries : dict of dict
        Of `RunRecord.notebooks`; a notebook that never ran, or a parameter that is gone, has its
        own defaults.
    """
    found = []
    for path in notebooks():
        own = defaults(path)
        passed = entries.get(path.stem, {}).get("passed", {})
        found.append(Step(path, own, {key: passed[key] for key in own if key in passed}))
    return found


def defaults(notebook: Path) -> dict[str, object]:
    """Return a notebook's parameters with their own values.

    Raises
    ------
    ValueError
        If the file is no notebook, or a parameter is computed.
    """
    try:
        declared = papermill.inspect_notebook(str(notebook))
    except (ValueError, KeyError, ValidationError) as error:
        raise ValueError(
            f"{notebook} cannot be read ({error}); restore it, e.g. with `git checkout`"
        ) from error
    try:
        return {name: ast.literal_eval(entry["default"]) for name, entry in declared.items()}
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{notebook.name}: a value of its parameters cell is computed") from error


def _check_settings(settings: dict, declared: dict[Path, dict]) -> None:
    known = {name: value for own in declared.values() for name, value in own.items()}
    for name, value in settings.items():
        if name in OPTIONS:
            raise ValueError(f"{name!r} is no setting; give the study or use --{name} instead")
        _check_known(name, known, "parameter of these notebooks")
        _check_type(name, value, known[name])


def _check_known(name: str, known: Collection[str], what: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
    raise ValueError(f"{name!r} is no {what}; {hint}")


def _check_type(name: str, value: object, default: object) -> None:
    fitting = (float, int) if type(default) is float else (type(default),)
    if default is not None and type(value) not in fitting:
        raise ValueError(
            f"parameter {name!r} takes {fitting[0].__name__} values such as {default!r}, "
            f"not {value!r}"
        )
