"""Fit methods on folds, predict their test cells, and tell what was chosen on the way."""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
from sklearn.metrics import roc_auc_score

from mpm import fingerprints, mapping, methods
from mpm.methods import TABULAR, Task
from mpm.splits import SplitSettings
from mpm.study import Study
from mpm.tasks import some
from mpm.trial_folds import Bench, Key
from mpm.trial_work import make, place

TRAINED_CELLS = 2000  # unlabeled training cells that the AUC of training is taken on


def run(
    study: Study,
    target: str,
    wanted: Sequence[Key],
    *,
    split_settings: SplitSettings,
    preset: str,
    seed: int,
    processes: int = 2,
    device: str = "cpu",
    fit: Callable = methods.fit,
) -> pd.DataFrame:
    """Fit methods on folds and predict the test cells.

    What was made before of the same evidence, labels, cells, code and settings is read. Each
    result is kept as soon as it is there, so that an interrupted run goes on where it stopped.

    Parameters
    ----------
    study : Study
    target : str
    wanted : sequence of (split, fold, method)
        A method may be "shuffled:NAME".
    split_settings, preset, seed, device, fit
        As for `Bench`.
    processes : int
        How many folds run at a time, each on one thread, or fewer where memory is short; the
        results do not depend on it.

    Returns
    -------
    DataFrame
        `mapping.PREDICTION_COLUMNS`, in the order of `wanted`. The threshold is chosen on
        validation cells.

    Raises
    ------
    RuntimeError
        If a method fails; names split, fold and method.
    """
    bench = Bench(study, target, split_settings, preset, seed, device, fit)
    made = make(bench, wanted, predictions, name="trials", processes=processes)
    return pd.concat(made.values(), ignore_index=True)


def predictions(bench: Bench, method: str, task: Task) -> pd.DataFrame:
    """Fit one method on one fold and predict its test cells, once.

    Returns
    -------
    DataFrame
        `mapping.PREDICTION_COLUMNS`; what the method chose is in its attribute "chosen", and of
        tables the AUC on training cells, at most `TRAINED_CELLS` of them unlabeled, in "train_auc".
    """
    fold = task.fold
    scorer = bench.fit(method, task)
    threshold = mapping.choose_threshold(
        partial(scorer, fold.windows), fold.validation, task.positive, seed=task.seed
    )
    rows = mapping.table(
        fold,
        fold.test,
        method,
        positive=task.positive,
        deposit=task.deposit,
        likelihood=scorer(fold.windows, fold.test),
        threshold=threshold,
    )
    rows.attrs["chosen"] = fingerprints.plain(getattr(scorer, "chosen", {}))
    if method in TABULAR:  # networks would take as long again
        own = some(task, "train", TRAINED_CELLS)
        truth = task.positive[own]
        rows.attrs["train_auc"] = float(roc_auc_score(truth, scorer(fold.windows, own)))
    return rows


def train_aucs(study: Study, target: str, wanted: Sequence[Key], *, seed: int) -> pd.DataFrame:
    """Tabulate the AUC on training cells, as `run` has kept it: how far a method fits by heart.

    Parameters
    ----------
    study, target, wanted, seed
        As for `run`; methods that are not tables have no row.

    Returns
    -------
    DataFrame
        split, fold, method, metric ("train_auc"), value, low, high (NaN), with their means over
        folds, as rows of the table of scores.
    """
    rows = []
    for split, fold, method in wanted:
        facts = fingerprints.facts(place(study, target, "trials", (split, fold, method), seed))
        if "train_auc" in facts:
            rows.append((split, str(fold), method, facts["train_auc"]))
    table = pd.DataFrame(rows, columns=["split", "fold", "method", "value"])
    mean = table.groupby(["split", "method"], sort=False)["value"].mean().reset_index()
    table = pd.concat([table, mean.assign(fold="mean")], ignore_index=True)
    return table.assign(metric="train_auc", low=float("nan"), high=float("nan"))


def choices(study: Study, target: str, wanted: Sequence[Key], *, seed: int) -> pd.DataFrame:
    """Tabulate what methods chose inside their training cells, as `run` has kept it.

    Parameters
    ----------
    study, target, wanted, seed
        As for `run`.

    Returns
    -------
    DataFrame
        split, fold, method, choice, value (text).
    """
    rows = []
    for split, fold, method in wanted:
        facts = fingerprints.facts(place(study, target, "trials", (split, fold, method), seed))
        chosen = facts.get("chosen", {})
        rows += [(split, str(fold), method, name, str(value)) for name, value in chosen.items()]
    return pd.DataFrame(rows, columns=["split", "fold", "method", "choice", "value"])
