"""Work on folds, in parallel processes; every result is kept with what it was made of."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd
import xarray as xr

from mpm import artefacts, datacube, fingerprints, mae
from mpm.checkpoints import digest
from mpm.folds import make_fold
from mpm.methods import NEEDS_BACKBONE, NETWORKS, Task
from mpm.splits import make_split
from mpm.study import Study
from mpm.trial_folds import Bench, Key, on_backbone, tasks
from mpm.workers import in_processes

COSTS = {"networks": 6, "tables": 1}  # of a method, roughly, to begin with the longest


class Work(NamedTuple):
    """Some work for methods on folds.

    Attributes
    ----------
    bench : Bench
    wanted : sequence of (split, fold, method)
    do : function
        (bench, method, task) -> DataFrame, of a module of mpm; `functools.partial` of one will do.
    name : str
        Folder of the results, beside those of other work.
    own : mapping
        What decides the result besides what is in `bench`; goes into JSON.
    """

    bench: Bench
    wanted: Sequence[Key]
    do: Callable[[Bench, str, Task], pd.DataFrame]
    name: str
    own: Mapping = MappingProxyType({})


def make(
    bench: Bench,
    wanted: Sequence[Key],
    work: Callable[[Bench, str, Task], pd.DataFrame],
    *,
    name: str,
    processes: int,
    own: Mapping | None = None,
) -> dict[Key, pd.DataFrame]:
    """Do some work for methods on folds, in parallel processes, unless it was done before.

    Parameters
    ----------
    bench, wanted, work, name, own
        As for `Work`.
    processes : int

    Returns
    -------
    dict of DataFrame
        In the order of `wanted`.

    Raises
    ------
    RuntimeError
        If the work fails; names split, fold and method.
    """
    return make_all([Work(bench, wanted, work, name, own or {})], processes, name)[0]


def make_all(works: Sequence[Work], processes: int, label: str) -> list[dict[Key, pd.DataFrame]]:
    """Do several works as `make` does one, all in one pool: no process waits for the end of one.

    A job is a fold with its networks, and what sees through one, or with its tables; the longest
    are begun first, so that all processes are busy to the end.

    Parameters
    ----------
    works : sequence of Work
    processes : int
    label : str
        Of the progress line.

    Raises
    ------
    RuntimeError
        As `make`.
    """
    jobs, places = [], []
    for work in works:
        bench = work.bench
        known = _made_of(bench, work.wanted, work.do, dict(work.own))
        own = {key: place(bench.study, bench.target, work.name, key, bench.seed) for key in known}
        todo: dict[tuple, dict] = {}
        for (split, number, method), facts in known.items():
            path = own[split, number, method]
            if fingerprints.facts(path).get("made_of") != facts:
                job = todo.setdefault((split, number, _kind(method)), {})
                job[method] = (path, facts)
        jobs += [(bench, work.do, *key[:2], methods) for key, methods in todo.items()]
        places.append(own)
    longest = sorted(jobs, key=lambda job: -sum(COSTS[_kind(name)] for name in job[-1]))
    for line in in_processes(_one_fold, longest, processes, label):
        if artefacts.quiet():  # where no person watches the progress line
            print(line, flush=True)
    return [{key: _read(path) for key, path in own.items()} for own in places]


def _kind(method: str) -> str:
    return "networks" if method.rpartition(":")[2] in NETWORKS | NEEDS_BACKBONE else "tables"


def place(study: Study, target: str, name: str, key: Key, seed: int) -> Path:
    """Return where a result lies.

    Parameters
    ----------
    study : Study
    target : str
    name : str
        Folder of the results.
    key : (split, fold, method)
    seed : int
    """
    split, number, method = key
    file = f"{method.replace(':', '-')}_{seed}.parquet"
    return study.processed / target / name / f"{split}_{number}" / file


def _one_fold(bench: Bench, work: Callable, split: str, number: int, todo: dict) -> str:
    """Do a fold's work and keep it; says what was done, in a line."""
    started = time.perf_counter()
    for method, task in tasks(bench, split, number, list(todo)):
        path, facts = todo[method]
        try:
            rows = work(bench, method, task)
        except Exception as error:
            # not a subclass: processes send exceptions that take one text
            raise RuntimeError(
                f"{method} failed on fold {number} of split {split}: "
                f"{type(error).__name__}: {error}"
            ) from error
        rows.attrs["made_of"] = facts
        artefacts.write_table(rows, path)
    took = time.perf_counter() - started
    return f"{split:>10} {number}: {', '.join(todo)}; {took:.0f} s"


def _made_of(bench: Bench, wanted: Sequence[Key], work: Callable, own: dict) -> dict[Key, dict]:
    """What decides each result."""
    cubes = datacube.read_cubes(bench.study)
    functions = [getattr(work, "func", work), bench.fit, bench.build or make_fold]
    code = [function.__module__.removeprefix("mpm.") for function in functions]
    own |= {name: getattr(bench, name) for name in ("preset", "seed", "device")}
    own |= {"fit": f"{bench.fit.__module__}.{bench.fit.__qualname__}"}
    own |= {"code": fingerprints.code_hash("trial_work", *code)}
    own |= {name: version(name) for name in ("numpy", "scikit-learn", "torch")}
    # folds are divided by all targets; what divides them is only known of those made here
    labelled = list(bench.study.targets) if bench.build else [bench.target]
    own |= {"data": [fingerprints.data_hash(cubes, target) for target in labelled]}
    folds = dict.fromkeys((split, number) for split, number, _ in wanted)
    cells = {fold: _cells(bench, cubes, *fold) for fold in folds}
    return {
        (split, number, method): fingerprints.plain(
            own
            | {"method": method, "cells": cells[split, number]}
            | {"backbone": _checksum(bench, split, number) if on_backbone(method) else ""}
        )
        for split, number, method in dict.fromkeys(wanted)
    }


def _cells(bench: Bench, cubes: Mapping[str, xr.Dataset], split: str, number: int) -> str:
    """Fingerprint of a fold's training, validation and test cells."""
    if bench.build:  # it may divide them in any way, which its code and these settings decide
        return json.dumps(asdict(bench.settings))
    targets = list(bench.study.targets)
    parts = make_split(list(cubes.values()), split, number, bench.settings, targets=targets)
    return digest(*parts.train, *parts.validation, *parts.test)


def _checksum(bench: Bench, split: str, number: int) -> str:
    folder = mae.backbone_path(bench.study, split, number)
    files = sorted(artefacts.parts(artefacts.require(folder, "02_mae_pretraining")))
    return hashlib.sha256("".join(map(artefacts.sha256, files)).encode()).hexdigest()[:16]


def _read(path: Path) -> pd.DataFrame:
    rows = pd.read_parquet(path)
    rows.attrs = {}
    return rows
