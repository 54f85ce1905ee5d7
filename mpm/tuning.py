"""Fine-tuning of a study: one classifier a fold, and several for the map."""

import time
from collections.abc import Iterator
from typing import NamedTuple

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
    split, fold, member
        Name of the split, number of the fold, and of the network that draws the map together with
        others, from 0.
    fitted : Fitted
    rows : DataFrame
        Predictions of the fold's test cells, as of `mapping.table`; empty if it has none.
    seconds : float
    """

    split: str
    fold: int
    member: int
    fitted: Fitted
    rows: pd.DataFrame
    seconds: float

    @property
    def name(self) -> str:
        """Split, fold and member in words."""
        return f"{self.split} {self.fold}" + (f", member {self.member}" if self.member else "")


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
        Folds at a time, as of `workers.in_processes`; on a GPU one.

    Yields
    ------
    Tuned
        In the order of `split.runs()`.
    """
    shared = (study, target, split, settings, samples, seed, str(device))
    jobs = [
        (*shared, kind, number, member)
        for kind, number in split.runs()
        for member in range(ensemble if kind == "final" else 1)
    ]
    processes = processes if torch.device(device).type == "cpu" else 1
    yield from in_processes(_tune, jobs, processes, "fine-tuning", ordered=True)


def _tune(
    study: Study,
    target: str,
    split: SplitSettings,
    settings: FineTuneSettings,
    samples: int,
    seed: int,
    device: str,
    kind: str,
    number: int,
    member: int,
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
        samples=samples,
        seed=seed + member,
        device=torch.device(device),
    )
    return Tuned(kind, number, member, fitted, rows, time.perf_counter() - started)
