"""Labels dealt anew, time after time: does a model of nothing score as chance does?"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from mpm import methods, trial_work
from mpm.methods import SHUFFLED, Task
from mpm.splits import SplitSettings
from mpm.study import Study
from mpm.trial_folds import Bench, Key


def run(
    study: Study,
    target: str,
    wanted: Sequence[Key],
    *,
    split_settings: SplitSettings,
    preset: str,
    seed: int,
    draws: int = 6,
    processes: int = 2,
    device: str = "cpu",
    fit: Callable = methods.fit,
) -> pd.DataFrame:
    """Fit methods on labels that are dealt anew several times, and score them on the true ones.

    Parameters
    ----------
    study, target, wanted, split_settings, preset, seed, processes, device, fit
        As for `trials.run`; a method is named without "shuffled:".
    draws : int
        Deals of the labels on each fold, of the seeds seed, seed + 1, ...

    Returns
    -------
    DataFrame
        split, fold, method, draw, auc: on all test cells of the fold.

    Raises
    ------
    RuntimeError
        If a method fails; names split, fold and method.
    """
    bench = Bench(study, target, split_settings, preset, seed, device, fit)
    own = {"draws": draws}
    work = partial(aucs, draws=draws)
    made = trial_work.make(bench, wanted, work, name="shuffles", processes=processes, own=own)
    parts = [
        rows.assign(split=split, fold=fold, method=method)
        for (split, fold, method), rows in made.items()
    ]
    return pd.concat(parts, ignore_index=True)[["split", "fold", "method", "draw", "auc"]]


def aucs(bench: Bench, method: str, task: Task, *, draws: int) -> pd.DataFrame:
    """Score one method on one fold for each deal of its training labels: draw, auc.

    Parameters
    ----------
    bench : Bench
    method : str
    task : Task
    draws : int
        Deals of the labels.
    """
    windows, test = task.fold.windows, task.fold.test
    found = []
    for draw in range(draws):
        scorer = bench.fit(SHUFFLED + method, replace(task, seed=task.seed + draw))
        found.append(roc_auc_score(task.positive[test], scorer(windows, test)))
    return pd.DataFrame({"draw": range(draws), "auc": found})


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Say of each method whether its mean AUC is that of chance.

    The deposits are what they are; what varies is the deal of the labels, which is drawn
    independently each time, so that the interval is that of a mean of independent numbers.

    Parameters
    ----------
    table : DataFrame
        Of `run`, at least two rows a method and split.

    Returns
    -------
    DataFrame
        Index split, method; columns deals (number), mean, low, high (95 % interval, normal), sd (of
        a single deal on a fold) and holds (bool: 0.5 is inside the interval).

    Raises
    ------
    ValueError
        If a method has a single deal.
    """
    grouped = table.groupby(["split", "method"], sort=False)["auc"]
    found = grouped.agg(deals="size", mean="mean", sd="std")
    if (found["deals"] < 2).any():
        name = found.index[found["deals"] < 2][0]
        raise ValueError(f"{name[1]} under {name[0]} has one deal of labels; ask for more draws")
    half = 1.96 * found["sd"] / np.sqrt(found["deals"])
    found = found.assign(low=found["mean"] - half, high=found["mean"] + half)
    found["holds"] = found["low"].le(0.5) & found["high"].ge(0.5)
    return found[["deals", "mean", "low", "high", "sd", "holds"]]
