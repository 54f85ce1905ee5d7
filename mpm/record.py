"""What a run was made of: commit, inputs, versions, machine, and each notebook's parameters."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from mpm import artefacts, fetch
from mpm.study import Study, content_hash


@dataclass
class RunRecord:
    """The record of a study's last run, kept in `data/processed/<study>/run.json`.

    Attributes
    ----------
    study, study_hash : str
        Name, and hash of what the study file says.
    commit, dirty : str and bool, or None outside git
        The compendium's commit, and whether files differed from it.
    inputs : dict of str
        SHA-256 of each input file.
    packages : dict of str
        Version of each direct dependency.
    python, platform : str
    cpus, threads : int or None, and int
        Processors, and how many threads trained (`artefacts.threads`).
    seed : int or None
    notebooks : dict of dict
        By name: key and made_of (`freshness.Planned`), status ("running", "done", "failed"),
        parameters, passed (those that the run set), inputs (as above, when it ran), started (UTC),
        wall_s (s), peak_mb (MB), figures, artefacts and executed (paths below the study's folder),
        sha256 (of executed).
    """

    study: str
    study_hash: str
    commit: str | None
    dirty: bool | None
    inputs: dict[str, str]
    packages: dict[str, str]
    python: str
    platform: str
    cpus: int | None
    threads: int
    seed: int | None
    notebooks: dict[str, dict]

    def keep(self, setup: Study, notebook: str, entry: dict) -> None:
        """Set one notebook's entry and rewrite `run.json`."""
        self.notebooks = dict(sorted((self.notebooks | {notebook: entry}).items()))
        artefacts.write_json(path(setup), asdict(self))


def path(setup: Study) -> Path:
    """Return where a study's record lies; it need not exist yet."""
    return setup.processed / "run.json"


def entries(setup: Study) -> dict[str, dict]:
    """Return each notebook's entry of a study's record; none if it was never run.

    Raises
    ------
    ValueError
        If the file is damaged or of another version; it is named.
    """
    place = path(setup)
    found = artefacts.read_facts(place, "notebooks")["notebooks"] if place.exists() else {}
    if wrong := [name for name, entry in found.items() if "status" not in entry]:
        raise ValueError(
            f"{place} lacks the status of notebook {', '.join(wrong)}: it is damaged or of another "
            "version of mpm; delete it and run the study again"
        )
    return found


def manifest(setup: Study) -> list[dict]:
    """Return the figures of a study's manifest: figure, notebook, sha256; none if there is none.

    Raises
    ------
    ValueError
        If the file holds something else; it is named.
    """
    place = setup.figures / "manifest.json"
    found = artefacts.read_json(place) if place.exists() else []
    keys = {"figure", "notebook", "sha256"}
    if not all(isinstance(each, dict) and keys <= each.keys() for each in found):
        raise ValueError(
            f"{place} is damaged or of another version of mpm: an entry needs "
            f"{', '.join(sorted(keys))}; delete it and run the study again with --force"
        )
    return found


def begin(setup: Study, notebooks: list[str], seed: int | None) -> RunRecord:
    """Describe the run that starts now, keeping what earlier runs made.

    Parameters
    ----------
    setup : Study
    notebooks : list of str
        Names of the notebooks that exist; entries of others are dropped.
    seed : int or None

    Returns
    -------
    RunRecord
        Not written yet.
    """
    last = entries(setup)
    commit, dirty = _commit(artefacts.home())
    return RunRecord(
        study=setup.name,
        study_hash=content_hash(setup),
        commit=commit,
        dirty=dirty,
        inputs=fetch.input_checksums(setup),
        packages=versions(),
        python=platform.python_version(),
        platform=platform.platform(),
        cpus=os.cpu_count(),
        threads=artefacts.threads(),
        seed=seed,
        notebooks={name: entry for name, entry in last.items() if name in notebooks},
    )


def versions() -> dict[str, str]:
    """Return the version of each direct dependency."""
    needed = [line for line in importlib.metadata.requires("mpm") or [] if "extra ==" not in line]
    names = sorted(re.split(r"[^\w.-]", line)[0] for line in needed)
    return {name: importlib.metadata.version(name) for name in names}


def _commit(folder: Path) -> tuple[str | None, bool | None]:
    # a copy without .git may lie inside somebody else's repository
    if not (folder / ".git").exists() or not shutil.which("git"):
        return None, None
    head, changes = (
        subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
    )
    if head.returncode:
        return None, None
    return head.stdout.strip(), bool(changes.stdout.strip())
