"""Run the notebooks in order, skip what is up to date, and put figures and records in place."""

from datetime import UTC, datetime
from pathlib import Path

from mpm import artefacts, crate, fetch, freshness, record, steps
from mpm.freshness import Planned
from mpm.kernel import NotebookFailed, Watcher, execute
from mpm.record import RunRecord
from mpm.steps import Step
from mpm.study import Study, load

_RECORDS = ("notebooks", "run.json", crate.NAME)  # what the runner itself writes


def run(
    study: str,
    *,
    only: list[str] | None = None,
    target: str | None = None,
    seed: int | None = None,
    preset: str | None = None,
    device: str = "auto",
    settings: dict[str, object] | None = None,
    parameters: dict[str, object] | None = None,
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
    parameters : dict, optional
        The same from a file, which may name parameters of notebooks that are not run.
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
    given = steps.options(setup, study, target, seed, preset, device)
    chosen = steps.choose(given, settings or {}, only, parameters=parameters)
    return run_steps(setup, chosen, force=force)


def run_steps(setup: Study, chosen: list[Step], *, force: bool = False) -> RunRecord:
    """Say what is to be done about some notebooks, and do it.

    Parameters
    ----------
    setup : Study
    chosen : list of Step
        In the order in which they run.
    force : bool
        Run them even if they are up to date.

    Returns
    -------
    RunRecord

    Raises
    ------
    NotebookFailed
        If a notebook stops with an error; what those before it made is kept.
    """
    print("inputs ...", flush=True)
    print(f"{'inputs':<24}{len(fetch.fetch(setup)):5d} files", flush=True)
    seeds = [step.parameters["seed"] for step in chosen if "seed" in step.parameters]
    record.manifest(setup)  # what is wrong with it is said before anything runs
    known = [path.stem for path in steps.notebooks()]
    made = record.begin(setup, known, seeds[0] if seeds else None)
    planned = freshness.plan(chosen, setup, made, force=force)
    waiting = [each for each in planned if each.reasons]
    print(f"{setup.name}: {len(waiting)} of {len(planned)} notebooks to run")
    for each in planned:
        print(f"  {each.step.name:<22}{_intent(each, made)}", flush=True)
    if waiting:
        (setup.processed / crate.NAME).unlink(missing_ok=True)  # it describes whole runs only
    for each in waiting:
        _run_notebook(each, setup, made)
    if waiting or not (setup.processed / crate.NAME).exists():
        crate.write(setup, made)
    return made


def _intent(planned: Planned, made: RunRecord) -> str:
    if planned.reasons:
        return f"to run: {'; '.join(planned.reasons)}"
    return f"up to date, made {made.notebooks[planned.step.name]['started']}"


# One notebook and what it makes


def _run_notebook(planned: Planned, setup: Study, made: RunRecord) -> None:
    step = planned.step
    folder = setup.processed / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    running, failed = (folder / f"{step.name}.{state}.ipynb" for state in ("running", "failed"))
    before = {path: path.stat().st_mtime_ns for path in _figures(setup, step)}
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    written = _artefacts(setup)
    entry = {"key": planned.key, "status": "running", "parameters": step.parameters}
    entry |= {"passed": step.passed, "started": started, "made_of": planned.made_of}
    entry |= {"inputs": made.inputs}  # those of the study may be others when the next one runs
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
    now = _artefacts(setup)
    done["artefacts"] = [name for name in now if now[name] != written.get(name)]
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


def _artefacts(setup: Study) -> dict[str, int]:
    """Return what lies in a study's folder, a Zarr store as one, and when it was written (ns)."""
    found: dict[str, int] = {}
    for path in sorted(setup.processed.rglob("*")):
        inside = path.relative_to(setup.processed)
        if path.is_dir() or inside.parts[0] in _RECORDS or ".tmp-" in inside.as_posix():
            continue
        store = [part for part in inside.parents if part.suffix == ".zarr"]
        name = (store[-1] if store else inside).as_posix()
        found[name] = max(found.get(name, 0), path.stat().st_mtime_ns)
    return found


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
    others = {path.name for path in steps.notebooks()} - {step.source.name}
    kept = [
        entry
        for entry in record.manifest(setup)
        if entry["notebook"] in others and (setup.figures / entry["figure"]).exists()
    ]
    fresh = [
        {"figure": f["figure"], "notebook": step.source.name, "sha256": f["sha256"]}
        for f in figures
    ]
    artefacts.write_json(manifest, sorted(kept + fresh, key=lambda entry: entry["figure"]))
    return figures
