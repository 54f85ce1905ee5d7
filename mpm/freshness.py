"""What a notebook's results were made from, and so whether they are up to date or why not."""

import ast
import hashlib
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nbformat

from mpm import artefacts
from mpm.record import RunRecord
from mpm.steps import Step, order
from mpm.study import Study

# packages that show or fetch and decide no number
_BYSTANDERS = {"ipywidgets", "jupyterlab", "nbval", "pooch", "psutil", "tqdm"}
_SHOWN = 4  # names that a reason lists
# folders of tables under data, and the modules through which notebooks read them
READERS = {"comparisons": "comparison_table", "scores": "study_scores"}


@dataclass(frozen=True)
class Planned:
    """One notebook of a run, and whether it has to run.

    Attributes
    ----------
    step : Step
    made_of : dict of dict
        All that decides what the notebook makes, by kind: "cells", "parameters", "inputs", "code",
        "environment" and "earlier" (keys of the notebooks before it).
    key : str
        Hash of `made_of`.
    reasons : tuple of str
        Why its results are not up to date; none if they are.
    """

    step: Step
    made_of: dict[str, dict]
    key: str
    reasons: tuple[str, ...]


def plan(steps: list[Step], setup: Study, made: RunRecord, *, force: bool = False) -> list[Planned]:
    """Say which notebooks have to run and why, before any does.

    Parameters
    ----------
    steps : list of Step
        In the order in which they run.
    setup : Study
    made : RunRecord
        Of `record.begin`: what is there now, and what earlier runs made.
    force : bool
        Plan to run them all.
    """
    # a notebook that failed or was interrupted left artefacts that no key describes
    keys = {
        name: entry.get("key") if entry["status"] == "done" else None
        for name, entry in made.notebooks.items()
    }
    environment = {"environment": _environment(made)}
    planned = []
    for step in steps:
        earlier = {name: key for name, key in keys.items() if order(name) < order(step.name)}
        own = _own(step)
        made_of = own | {"inputs": _inputs(setup, made, own["code"])} | environment
        made_of |= {"earlier": earlier}
        key = _hash(json.dumps(made_of, sort_keys=True))
        why = stale(made.notebooks.get(step.name), made_of, setup)
        planned.append(Planned(step, made_of, key, why or (("forced",) if force else ())))
        keys[step.name] = key  # what it will be once this one has run
    return planned


def stale(entry: dict | None, made_of: dict[str, dict], setup: Study) -> tuple[str, ...]:
    """Say why a notebook's results are not what it would make now; nothing if they are.

    Parameters
    ----------
    entry : dict, optional
        Of the record; none if the notebook never ran.
    made_of : dict of dict
        What it would be made of now.
    setup : Study

    Returns
    -------
    tuple of str
        E.g. ("never run",), or ("parameters (epochs)", "after 01_data_preparation").
    """
    if entry is None:
        return ("never run",)
    if entry["status"] != "done":
        return ("failed" if entry["status"] == "failed" else "interrupted",)
    if "made_of" not in entry:
        return ("made by an earlier version of mpm",)
    then = entry["made_of"]
    names = {kind: _changed(then.get(kind, {}), now) for kind, now in made_of.items()}
    reasons = []
    if names.pop("cells"):
        reasons.append("its cells")
    later = names.pop("earlier")
    reasons += [f"{kind} ({_listed(changed)})" for kind, changed in names.items() if changed]
    reasons += [f"after {_listed(later)}"] if later else []
    lost = _lost(entry, setup)
    return tuple(reasons + ([f"files changed or missing ({_listed(lost)})"] if lost else []))


def _changed(then: dict, now: dict) -> list[str]:
    return [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def _lost(entry: dict, setup: Study) -> list[str]:
    """Name what a notebook made and is no longer there; figures must also be as they were."""
    sums = {setup.processed / entry["executed"]: entry["sha256"]}
    sums |= {setup.figures / each["figure"]: each["sha256"] for each in entry["figures"]}
    changed = [
        path for path, sha in sums.items() if not path.exists() or artefacts.sha256(path) != sha
    ]
    # later notebooks may add to an artefact, so that only its presence is asked for
    gone = [setup.processed / name for name in entry.get("artefacts", [])]
    return [path.name for path in changed + [path for path in gone if not path.exists()]]


# What a notebook is made of


def _own(step: Step) -> dict[str, dict]:
    cells = nbformat.read(step.source, as_version=4).cells
    source = [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in cells]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return {
        "cells": {"all": _hash(json.dumps(source))},
        "parameters": step.parameters,
        "code": code_used(text),
    }


def _inputs(setup: Study, made: RunRecord, code: Iterable[str]) -> dict[str, str]:
    """Return short checksums of the study, its files and the data that come with the compendium."""
    own = artefacts.home() / "data"
    folders = [name for name, reader in READERS.items() if reader in code]
    kept = [path for name in folders for path in (own / name).glob("*.[cj]s*")]
    tracked = [*sorted(own.glob("*.json")), *sorted(kept)]
    files = {f"data/{path.relative_to(own).as_posix()}": artefacts.sha256(path) for path in tracked}
    files |= made.inputs | {"study file": made.study_hash}
    return {name: checksum[:16] for name, checksum in files.items()}


def _environment(made: RunRecord) -> dict[str, str]:
    """Return what else decides numbers: versions, processor, and threads, which sum in parts."""
    facts = {"python": made.python, "machine": platform.machine(), "threads": str(made.threads)}
    return facts | {k: v for k, v in made.packages.items() if k not in _BYSTANDERS}


def code_used(text: str) -> dict[str, str]:
    """Return the modules of mpm that some code uses, directly or not, with their checksums.

    Parameters
    ----------
    text : str
        Python; if it is none, all modules are returned.

    Returns
    -------
    dict of str
        By name, first 16 digits of the SHA-256; files of the module's name that are no Python
        (`web_map.js`) belong to it.
    """
    modules = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.py"))}
    try:
        waiting = _imports(text)
    except SyntaxError:
        waiting = frozenset(modules)
    used: dict[str, str] = {}
    while waiting := frozenset(name for name in waiting if name in modules and name not in used):
        texts = {name: modules[name].read_text(encoding="utf-8") for name in waiting}
        used |= {name: _hash(texts[name] + _beside(modules[name])) for name in texts}
        waiting = frozenset().union(
            *(_imports(modules[name].read_text("utf-8")) for name in waiting)
        )
    return dict(sorted(used.items()))


def _beside(module: Path) -> str:
    files = sorted(path for path in module.parent.glob(f"{module.stem}.*") if path != module)
    return "".join(artefacts.sha256(path) for path in files)


@lru_cache(maxsize=512)
def _imports(text: str) -> frozenset[str]:
    """Return the modules of mpm that some Python imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    own = {name.split(".")[1] for name in names if name.startswith("mpm.")}
    return frozenset(own | ({"__init__"} if own or "mpm" in names else set()))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
