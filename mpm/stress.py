"""How scores hold up: fewer known deposits, lost or shifted evidence, blocks of other sizes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from mpm import artefacts, datacube, kept_networks, methods, trial_work, trials
from mpm.folds import Fold
from mpm.labels import sample_cells
from mpm.methods import Task
from mpm.perturb import perturbations, with_deposits
from mpm.scaling import apply_scaling, fit_scaling
from mpm.splits import SplitSettings, cell_km, check, make_split
from mpm.stress_table import COLUMNS as COLUMNS
from mpm.stress_table import Drawn, Plan, draw, mixed, record, score_predictions, tidy
from mpm.stress_table import keep as keep
from mpm.stress_table import read as read
from mpm.study import Study
from mpm.trial_folds import Bench, Key
from mpm.trial_work import Work
from mpm.windows import make_windows

SIDES = (0, 25, 50, 100, 200, 400, 600, 800, 1000)  # km
TUNED = "mae"  # the method that notebook 03 has fitted


class Part(NamedTuple):
    """Some work, and what was done to the methods where it makes plain predictions.

    Attributes
    ----------
    work : Work
    what : tuple, optional
        Stress, level and name of predictions, which are then scored.
    """

    work: Work
    what: tuple[str, float, str] | None = None


def run(
    study: Study,
    target: str,
    wanted: Sequence[Key],
    *,
    split_settings: SplitSettings,
    preset: str,
    seed: int,
    plan: Plan | None = None,
    kinds: Sequence[str] = ("scarcity", "evidence"),
    processes: int = 2,
    device: str = "cpu",
    fit: Callable = methods.fit,
) -> pd.DataFrame:
    """Score methods with fewer known deposits, and with evidence lost at test time.

    Parameters
    ----------
    study, target, wanted, split_settings, preset, seed, processes, device, fit
        As for `trials.run`. All folds of a split and method are averaged.
    plan : Plan, optional
    kinds : sequence of {"scarcity", "evidence"}

    Returns
    -------
    DataFrame
        `COLUMNS`, with fold "mean" besides the folds, and 95 % intervals. Of stress "scarcity" the
        level is the share of the training deposits, and the metric the score on all test cells. Of
        "evidence" the row "whole" is the score on the sample of test cells; those of "layer" and
        "group" (name: what is dropped), "half" (of the layers), "noise" (level: standard
        deviations) and "shift" (name: where the layers move to, by a cell) are changes from it, of
        metrics named "auc_change", ... . Where something is drawn at random, the value is the mean
        over draws, and the interval that of a single one. What notebooks 03 and 04 have made of the
        same is read: predictions of fits on all deposits, and fine-tuned networks.

    Raises
    ------
    RuntimeError
        If a method fails; names split, fold and method.
    """
    plan = plan or Plan()
    bench = Bench(study, target, split_settings, preset, seed, device, fit)
    makers = {"scarcity": _scarce_parts, "evidence": _evidence_parts}
    parts = [part for kind in kinds for part in makers[kind](bench, wanted, plan)]
    return _scored(bench, parts, processes, plan)


def _scarce_parts(bench: Bench, wanted: Sequence[Key], plan: Plan) -> list[Part]:
    """Fits on some of the deposits; those on all are the trials' own."""
    few = replace(plan, shares=tuple(share for share in plan.shares if share < 1))
    do, parts = partial(scarcity, plan=few), []
    if few.shares:
        parts.append(Part(Work(bench, wanted, do, "stress_scarcity", asdict(few))))
    if len(few.shares) < len(plan.shares):
        whole = Work(bench, wanted, trials.predictions, "trials")
        parts.append(Part(whole, ("scarcity", 1.0, "")))
    return parts


def _evidence_parts(bench: Bench, wanted: Sequence[Key], plan: Plan) -> list[Part]:
    """A fold's network that notebook 03 has made goes into what the result was made of."""
    networks = {key: _network(bench, key) for key in wanted}
    do, name = partial(lost_evidence, plan=plan), "stress_evidence"
    return [
        Part(
            Work(
                bench,
                [key for key in wanted if networks[key] == of],
                do,
                name,
                asdict(plan) | ({"network": of} if of else {}),
            )
        )
        for of in dict.fromkeys(networks.values())
    ]


def _network(bench: Bench, key: Key) -> str:
    """Checksum of the network that notebook 03 has made for a fold; "" if it is made here."""
    split, number, method = key
    if method != TUNED:
        return ""
    try:
        folder = kept_networks.find(
            bench.study, bench.target, split, number, seed=bench.seed, preset=bench.preset
        )
    except FileNotFoundError:
        return ""
    return artefacts.sha256(folder / "model.safetensors")


def _scored(bench: Bench, parts: Sequence[Part], processes: int, plan: Plan) -> pd.DataFrame:
    """Do all parts in one pool and tidy what they give."""
    made = trial_work.make_all([part.work for part in parts], processes, "stress")
    rows = [
        (key, score_predictions(table, *part.what, plan) if part.what else table)
        for part, tables in zip(parts, made, strict=True)
        for key, table in tables.items()
    ]
    return tidy(bench, rows)


def block_sides(
    study: Study,
    target: str,
    names: Sequence[str],
    *,
    split_settings: SplitSettings,
    preset: str,
    seed: int,
    sides: Sequence[float] = SIDES,
    plan: Plan | None = None,
    processes: int = 2,
    device: str = "cpu",
    fit: Callable = methods.fit,
) -> pd.DataFrame:
    """Score methods under blocks of many sizes, without a dead zone between them.

    A dead zone wider than a block would leave nothing to train on, so there is none, whatever the
    side: the curve shows what nearness alone is worth. Side 0 is the random split of single cells.
    The design of the other notebooks, with its dead zone, is scored as well, by the predictions of
    notebook 04 where they are there.

    Parameters
    ----------
    study, target, split_settings, preset, seed, processes, device, fit
        As for `trials.run`.
    names : sequence of str
        Methods that need no backbone.
    sides : sequence of float
        Sides of blocks (km). Those smaller than two cells, or at which a fold would hold no
        deposit, are left out.
    plan : Plan, optional

    Returns
    -------
    DataFrame
        As `run`, stress "block_side", the level being the side (km); the name is "dead zone" for
        the design of the other notebooks.
    """
    plan = plan or Plan()
    bench = Bench(study, target, split_settings, preset, seed, device, fit)
    cubes, parts = datacube.read_cubes(study), []
    for side in sides:
        settings = replace(split_settings, block_km=side, dead_cells=0)
        kind, folds = "blocks" if side else "random", range(settings.folds)
        if all(_possible(cubes, study, kind, fold, settings, side) for fold in folds):
            touching = replace(bench, settings=settings, build=touching_fold)
            wanted = [(kind, fold, method) for fold in folds for method in names]
            do = partial(scores, plan=plan, stress="block_side", level=side, name="")
            folder = f"stress_side_{side:g}_km"
            parts.append(Part(Work(touching, wanted, do, folder, asdict(plan))))
    wanted = [("blocks", fold, method) for fold in range(split_settings.folds) for method in names]
    design = Work(bench, wanted, trials.predictions, "trials")
    parts.append(Part(design, ("block_side", split_settings.block_km, "dead zone")))
    return _scored(bench, parts, processes, plan)


def _possible(
    cubes: Mapping[str, xr.Dataset],
    study: Study,
    kind: str,
    fold: int,
    settings: SplitSettings,
    side: float,
) -> bool:
    """Whether a map of this size has room for the blocks."""
    regions = list(cubes.values())
    if 0 < side < 2 * min(map(cell_km, regions)):
        return False
    try:
        make_split(regions, kind, fold, settings, targets=list(study.targets))
    except ValueError:  # a fold without a deposit, or nothing left to train on
        return False
    return True


def touching_fold(bench: Bench, cubes: Mapping[str, xr.Dataset], split: str, number: int) -> Fold:
    """Make a fold whose parts touch, so that windows reach from one into another, on purpose.

    `folds.make_fold` refuses that; cells are still in one part only, and scaling is fitted on those
    of the training.

    Parameters
    ----------
    bench : Bench
    cubes : mapping of Dataset
        By region, with labels.
    split, number
        The split, and the number of its fold.
    """
    regions, targets = list(cubes.values()), list(bench.study.targets)
    parts = make_split(regions, split, number, bench.settings, targets=targets)
    scaling = fit_scaling(regions, parts.train)
    check(parts, scaling=scaling)
    windows = make_windows([apply_scaling(cube, scaling) for cube in regions], bench.window(cubes))
    index = [
        np.flatnonzero(windows.take(part)) for part in (parts.train, parts.validation, parts.test)
    ]
    return Fold(split, number, scaling, windows, *index)


# The work on one fold, of one method


def scores(
    bench: Bench, method: str, task: Task, *, plan: Plan, stress: str, level: float, name: str
) -> pd.DataFrame:
    """Fit a method and score it on all test cells: rows of `stress_table.record`.

    Parameters
    ----------
    bench : Bench
    method : str
    task : Task
    plan : Plan
    stress, level, name
        What was done, how much of it and to which layers: columns of the result.
    """
    scorer = bench.fit(method, task)
    drawn = _drawn(task, task.fold.test, scorer(task.fold.windows, task.fold.test), plan)
    return pd.DataFrame(record(stress, level, name, drawn, plan))


def scarcity(bench: Bench, method: str, task: Task, *, plan: Plan) -> pd.DataFrame:
    """Fit a method on some of the training deposits and score it on all test cells.

    Its settings are chosen with all deposits of the validation cells: the curve is that of what is
    learned, not of what is chosen.

    Parameters
    ----------
    bench, method, task, plan
        As for `scores`.
    """
    fold, rows = task.fold, []
    for share in plan.shares:
        several = []
        for k in range(plan.draws if share < 1 else 1):
            scorer = bench.fit(method, with_deposits(task, share, seed=bench.seed + k))
            several.append(_drawn(task, fold.test, scorer(fold.windows, fold.test), plan))
        rows += record("scarcity", share, "", mixed(several), plan)
    return pd.DataFrame(rows)


def lost_evidence(bench: Bench, method: str, task: Task, *, plan: Plan) -> pd.DataFrame:
    """Fit a method on whole evidence and score it on a sample of test cells that lack some.

    Parameters
    ----------
    bench, method, task, plan
        As for `scores`.
    """
    index, _ = sample_cells(task.fold.test, task.positive, plan.most, seed=bench.seed)
    kept = kept_networks.scorer(bench.study, bench.target, task) if method == TUNED else None
    scorer = kept or bench.fit(method, task)
    whole = _drawn(task, index, scorer(task.fold.windows, index), plan)
    rows = record("whole", np.nan, "", whole, plan)
    for stress, level, name, ways in perturbations(task, plan.noise, plan.draws, seed=bench.seed):
        copies = (perturb(task.fold.windows) for perturb in ways)
        mean = mixed([_drawn(task, index, scorer(copy, index), plan) for copy in copies])
        # the same deposits are drawn in both, so that the interval is that of the difference
        change = {metric: mean[metric] - whole[metric] for metric in plan.scored}
        change["deposits"] = whole["deposits"]
        rows += record(stress, level, name, change, plan, suffix="_change")
    return pd.DataFrame(rows)


def _drawn(task: Task, index: np.ndarray, likelihood: np.ndarray, plan: Plan) -> Drawn:
    """Each metric on some test centres and on its bootstrap draws."""
    fold = f"{task.fold.split} {task.fold.number}"
    return draw(fold, task.positive[index], likelihood, task.deposit[index], plan)
