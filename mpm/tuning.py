"""Fine-tuning of a study: one classifier a fold, and several for the map."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch

from mpm import datacube, mapping
from mpm.classifier import Fitted
from mpm.fine_tuning import FineTuneSettings
from mpm.folds import labels, open_fold
from mpm.splits import SplitSettings
from mpm.study import Study
from mpm.workers import in_processes


class Tuned(NamedTuple):
    """A classifier, and how its fold went.

    Attributes
    ----------
    name : str
        Split, fold, and which of several networks that draw the map together.
    fitted : Fitted
    rows : DataFrame
        Predictions of the fold's test cells, as of `mapping.table`; empty if it has none.
    seconds : float
    """

    name: str
    fitted: Fitted
    rows: pd.DataFrame
    seconds: float


def tune_folds(
    study: Study,
    target: str,
    split: SplitSettings,
    settings: FineTuneSettings,
    *,
    samples: int,
    seed: int,
    ensemble: int = 1,
    device: torch.device | str = "cpu",
    processes: int = 0,
) -> Iterator[Tuned]:
    """Fine-tune the backbone of every fold and predict the fold's test cells once.

    Parameters
    ----------
    study : Study
        Notebooks 01 and 02 have run.
    target : str
    split : SplitSettings
    settings : FineTuneSettings
    samples : int
        Dropout samples.
    seed : int
        Of every network; seed + 1, ... of further members.
    ensemble : int
        Networks trained on all deposits, which draw the map together.
    device : torch.device or str
    processes : int
        Folds at a time, as of `workers.in_processes`.

    Yields
    ------
    Tuned
        In the order of `split.runs()`.
    """
    what = (study, target, split, settings, seed)
    work = partial(_tune, *what, samples=samples, device=torch.device(device))
    jobs = [
        (kind, number, member)
        for kind, number in split.runs()
        for member in range(ensemble if kind == "final" else 1)
    ]
    yield from in_processes(work, jobs, processes, "fine-tuning", ordered=True, device=device)


def _tune(
    study: Study,
    target: str,
    split: SplitSettings,
    settings: FineTuneSettings,
    seed: int,
    kind: str,
    number: int,
    member: int,
    **way: Any,
) -> Tuned:
    started = time.perf_counter()
    cubes = datacube.read_cubes(study)
    fold, backbone = open_fold(study, cubes, kind, number, split)
    positive, deposit = labels(cubes, fold.windows, target)
    fitted, rows = mapping.tune_and_predict(
        fold,
        backbone.encoder,
        "mae",
        positive,
        deposit,
        settings,
        seed=seed + member,
        **way,
    )
    name = f"{kind} {number}" + (f", member {member}" if member else "")
    return Tuned(name, fitted, rows, time.perf_counter() - started)
