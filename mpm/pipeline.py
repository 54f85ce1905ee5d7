"""Run the notebooks in order, skip what is up to date, and put figures and records in place."""

import ast
import base64
import difflib
import hashlib
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import papermill

from mpm import artefacts, fetch, record
from mpm.kernel import NotebookFailed, Watcher, execute
from mpm.record import RunRecord
from mpm.study import Study, load, studies

DEVICES = ("auto", "cpu", "cuda", "mps")
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
    defaults: dict[str, object]
    passed: dict[str, object]

    @property
    def name(self) -> str:
        """Name of the notebook, e.g. "01_data_preparation"."""
        return self.source.stem

    @property
    def parameters(self) -> dict[str, object]:
        """Every parameter with the value that holds in this run."""
        return self.defaults | self.passed


def run(
    study: str,
    *,
    only: list[str] | None = None,
    target: str | None = None,
    seed: int | None = None,
    preset: str | None = None,
    device: str = "auto",
    settings: dict[str, object] | None = None,
    force: bool = False,
) -> RunRecord:
    """Run a study's notebooks in order, but for those that are up to date.

    Parameters
    ----------
    study : str
        A name under `data/studies/`, or a path to a YAML file.
    only : list of str, optional
        Notebook numbers, e.g. ["01", "02"]; by default all.
    target : str, optional
        What to predict; by default the study's first target.
    seed : int, optional
        By default each notebook's own.
    preset : {"demo", "paper"}, optional
        Model and training settings; by default each notebook's own.
    device : str
        "auto", "cpu", "cuda", "cuda:N" or "mps".
    settings : dict, optional
        Other parameters by name; each goes to those notebooks that declare it.
    force : bool
        Run them even if they are up to date.

    Returns
    -------
    RunRecord

    Raises
    ------
    ValueError, FileNotFoundError
        Before anything runs: if a study, target, notebook, parameter, ... is not known.
    NotebookFailed
        If a notebook stops with an error; what those before it made is kept.
    """
    setup = load(study)
    steps = _steps(_options(setup, study, target, seed, preset, device), settings or {}, only)
    print("inputs ...", flush=True)
    print(f"{'inputs':<24}{len(fetch.fetch(setup)):5d} files", flush=True)
    seeds = [step.parameters["seed"] for step in steps if "seed" in step.parameters]
    made = record.begin(setup, [path.stem for path in notebooks()], seeds[0] if seeds else None)
    facts = {"code": _code_hash(), "study": made.study_hash, "inputs": made.inputs}
    for step in steps:
        key = _key(step, made, facts)
        entry = made.notebooks.get(step.name, {})
        if not force and _up_to_date(entry, key, setup):
            print(f"{step.name:<24}up to date, made {entry['started']}", flush=True)
        else:
            _run_notebook(step, key, setup, made)
    return made


def refresh(study: str = "demo") -> list[Path]:
    """Put the outputs of a study's executed copies into the notebooks they were made from.

    Nothing but outputs and execution counts (1 to n) changes. Pictures are kept in 256 colours,
    half the size, because every version of a notebook stays in the history.

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
    """
    setup = load(study)
    made = artefacts.read_json(artefacts.require(record.path(setup), "01 to 06"))["notebooks"]
    filled = {}
    for source in notebooks():
        entry = made.get(source.stem, {})
        if entry.get("status") != "done" or entry["parameters"] != _defaults(source):
            raise ValueError(
                f"{source.name} was not run with its own parameters; "
                f"run `python -m mpm run {study}` without other options first"
            )
        filled[source] = _with_outputs(source, setup.processed / entry["executed"])
    for source, notebook in filled.items():
        with artefacts.atomic(source) as fresh:
            nbformat.write(notebook, fresh)
    return list(filled)


def notebooks() -> list[Path]:
    """Return the numbered notebooks, in order.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    folder = artefacts.home() / "notebooks"
    found = [path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if "." not in path.stem]
    if not found:
        raise FileNotFoundError(f"{folder} holds no numbered notebooks; is MPM_HOME right?")
    return found


# What to run: every name is checked before anything runs


def _options(
    setup: Study, study: str, target: str | None, seed: int | None, preset: str | None, device: str
) -> dict[str, object]:
    """Return the options given, as parameters."""
    target = target or next(iter(setup.targets))
    _check_known(target, setup.targets, f"target of study {setup.name!r}")
    _check_known(device.partition(":")[0], DEVICES, "device")
    if preset is not None:
        from mpm.mae import PRESETS  # torch takes seconds to import, most runs name no preset

        _check_known(preset, PRESETS, "preset")
    options = {
        "study": study if study in studies() else str(setup.path),
        "target": target,
        "seed": seed,
        "preset": preset,
        "device": device,
    }
    return {name: value for name, value in options.items() if value is not None}


def _steps(options: dict, settings: dict, only: list[str] | None) -> list[Step]:
    """Return the notebooks to run, each with those parameters that it declares."""
    declared = {path: _defaults(path) for path in notebooks()}
    for number in only or []:
        _check_known(number, [path.name[:2] for path in declared], "notebook number")
    chosen = {path: own for path, own in declared.items() if not only or path.name[:2] in only}
    known = {name: value for own in chosen.values() for name, value in own.items()}
    for name, value in settings.items():
        if name in OPTIONS:
            raise ValueError(f"{name!r} is no setting; give the study or use --{name} instead")
        _check_known(name, known, "parameter of these notebooks")
        _check_type(name, value, known[name])
    passed = settings | options
    return [
        Step(path, own, {name: value for name, value in passed.items() if name in own})
        for path, own in chosen.items()
    ]


def _defaults(notebook: Path) -> dict[str, object]:
    """Return a notebook's parameters with their own values."""
    declared = papermill.inspect_notebook(str(notebook))
    try:
        return {name: ast.literal_eval(entry["default"]) for name, entry in declared.items()}
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{notebook.name}: a value of its parameters cell is computed") from error


def _check_known(name: str, known, what: str) -> None:
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


# What is up to date


def _key(step: Step, made: RunRecord, facts: dict) -> str:
    """Return a hash of all that decides what a notebook makes."""
    cells = nbformat.read(step.source, as_version=4).cells
    source = [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in cells]
    # a notebook that failed or was interrupted left artefacts that no key describes
    earlier = [
        entry["key"] if entry["status"] == "done" else None
        for name, entry in made.notebooks.items()
        if name < step.name
    ]
    return _hash(json.dumps([source, step.parameters, facts, earlier], sort_keys=True))


def _code_hash() -> str:
    modules = sorted(Path(__file__).parent.glob("*.py"))
    return _hash("".join(f"{path.name} {artefacts.sha256(path)}\n" for path in modules))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _up_to_date(entry: dict, key: str, setup: Study) -> bool:
    if entry.get("status") != "done" or entry["key"] != key:
        return False
    files = {setup.processed / entry["executed"]: entry["sha256"]}
    files |= {setup.figures / each["figure"]: each["sha256"] for each in entry["figures"]}
    return all(path.exists() and artefacts.sha256(path) == sha for path, sha in files.items())


# One notebook and what it makes


def _run_notebook(step: Step, key: str, setup: Study, made: RunRecord) -> None:
    folder = setup.processed / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    running, failed = (folder / f"{step.name}.{state}.ipynb" for state in ("running", "failed"))
    before = {path: path.stat().st_mtime_ns for path in _figures(setup, step)}
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = {"key": key, "status": "running", "parameters": step.parameters, "started": started}
    made.keep(setup, step.name, entry)  # stays "running", so not up to date, if interrupted
    watcher = Watcher(step.name)
    try:
        execute(step.source, running, step.passed, watcher)
    except NotebookFailed as error:
        running.replace(failed)
        made.keep(setup, step.name, entry | _result("failed", watcher, failed, []))
        watcher.report(f"failed after {watcher.seconds:.0f} s")
        raise NotebookFailed(
            f"{error}\n  see {failed}; the same command runs this notebook again"
        ) from error
    running.replace(folder / step.source.name)
    failed.unlink(missing_ok=True)
    figures = _collect_figures(setup, step, before)
    done = _result("done", watcher, folder / step.source.name, figures)
    made.keep(setup, step.name, entry | done)
    count = f"{len(figures)} figure{'' if len(figures) == 1 else 's'}"
    watcher.report(f"{watcher.seconds:5.0f} s   {watcher.peak / 1e9:.1f} GB   {count}")


def _result(status: str, watcher: Watcher, executed: Path, figures: list[dict]) -> dict:
    return {
        "status": status,
        "wall_s": round(watcher.seconds, 1),
        "peak_mb": round(watcher.peak / 1e6),
        "figures": figures,
        "executed": f"notebooks/{executed.name}",
        "sha256": artefacts.sha256(executed),
    }


def _figures(setup: Study, step: Step) -> list[Path]:
    return sorted(setup.figures.glob(f"{step.name[:2]}_*.png"))


def _collect_figures(setup: Study, step: Step, before: dict[Path, int]) -> list[dict]:
    """Drop the figures that a notebook no longer draws, list the others in the manifest."""
    for path in _figures(setup, step):
        if before.get(path) == path.stat().st_mtime_ns:
            path.unlink()
    figures = [
        {"figure": path.name, "sha256": artefacts.sha256(path)} for path in _figures(setup, step)
    ]
    manifest = setup.figures / "manifest.json"
    others = {path.name for path in notebooks()} - {step.source.name}
    kept = [
        entry
        for entry in (artefacts.read_json(manifest) if manifest.exists() else [])
        if entry["notebook"] in others and (setup.figures / entry["figure"]).exists()
    ]
    fresh = [
        {"figure": f["figure"], "notebook": step.source.name, "sha256": f["sha256"]}
        for f in figures
    ]
    artefacts.write_json(manifest, sorted(kept + fresh, key=lambda entry: entry["figure"]))
    return figures


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
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _fewer_colours(output.data["image/png"])
    return notebook


def _fewer_colours(png: str) -> str:
    """Return a PNG with fewer colours; both in base64."""
    picture = artefacts.fewer_colours(io.BytesIO(base64.b64decode(png)))
    with io.BytesIO() as smaller:
        picture.save(smaller, format="png", optimize=True)
        return base64.b64encode(smaller.getvalue()).decode() + "\n"
