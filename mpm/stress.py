"""How scores hold up: fewer known deposits, lost or shifted evidence, blocks of other sizes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from mpm import artefacts, datacube, methods, metrics, trials
from mpm.folds import Fold
from mpm.labels import sample_cells
from mpm.methods import Task
from mpm.perturb import perturbations, with_deposits
from mpm.scaling import apply_scaling, fit_scaling
from mpm.splits import SplitSettings, cell_km, check, make_split
from mpm.study import Study
from mpm.trials import Bench, Key
from mpm.windows import make_windows

COLUMNS = "study target split fold seed method stress level name metric value low high".split()
KEYS = COLUMNS[:3] + COLUMNS[4:7]  # of what is scored together, all folds at once
SIDES = (0, 25, 50, 100, 200, 400, 600, 800, 1000)  # km
Drawn = dict[str, np.ndarray]  # metric to its value and bootstrap draws, (1 + draws,)


@dataclass(frozen=True)
class Plan:
    """What methods are put through.

    Attributes
    ----------
    shares : tuple of float
        Of the training deposits that are known.
    noise : tuple of float
        Standard deviations of noise on test evidence, in those of the training cells.
    draws : int
        Random draws of deposits, of halves of the layers and of noise.
    most : int
        Unlabeled test cells that are scored where evidence is lost, a random sample; all positive
        ones are. AUC does not change by that; average precision is that of the sample.
    areas : tuple of float
        Shares of the area for capture rates.
    scored : tuple of str
        Metrics.
    bootstrap : int
        Draws of test deposits behind intervals.
    """

    shares: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    noise: tuple[float, ...] = (0.1, 0.3, 1.0)
    draws: int = 3
    most: int = 1000
    areas: tuple[float, ...] = (0.05,)
    scored: tuple[str, ...] = ("auc", "average_precision", "capture_05")
    bootstrap: int = 200


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
        over draws, and the interval that of a single one.

    Raises
    ------
    RuntimeError
        If a method fails; names split, fold and method.
    """
    plan = plan or Plan()
    bench = Bench(study, target, split_settings, preset, seed, device, fit)
    work = {"scarcity": scarcity, "evidence": lost_evidence}
    tables = []
    for kind in kinds:
        made = trials.make(
            bench,
            wanted,
            partial(work[kind], plan=plan),
            name=f"stress_{kind}",
            processes=processes,
            own=asdict(plan),
        )
        tables.append(tidy(bench, made))
    return pd.concat(tables, ignore_index=True)


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
    fit: Callable = methods.fit,
) -> pd.DataFrame:
    """Score methods under blocks of many sizes, without a dead zone between them.

    A dead zone wider than a block would leave nothing to train on, so there is none, whatever the
    side: the curve shows what nearness alone is worth. Side 0 is the random split of single cells.
    The design of the other notebooks, with its dead zone, is scored as well.

    Parameters
    ----------
    study, target, split_settings, preset, seed, processes, fit
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
    bench = Bench(study, target, split_settings, preset, seed, fit=fit)
    cubes = datacube.read_cubes(study)
    tables = []
    designs = [(side, "", replace(split_settings, block_km=side, dead_cells=0)) for side in sides]
    designs.append((split_settings.block_km, "dead zone", split_settings))
    for side, name, settings in designs:
        kind = "blocks" if side else "random"
        folds = range(settings.folds)
        if not all(_possible(cubes, study, kind, fold, settings, side) for fold in folds):
            continue
        build = None if name else touching_fold
        made = trials.make(
            replace(bench, settings=settings, build=build),
            [(kind, fold, method) for fold in folds for method in names],
            partial(scores, plan=plan, stress="block_side", level=side, name=name),
            name=f"stress_side_{side:g}_km{'_' * bool(name)}{name.replace(' ', '_')}",
            processes=processes,
            own=asdict(plan),
        )
        tables.append(tidy(bench, made))
    return pd.concat(tables, ignore_index=True)


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
    """Fit a method and score it on all test cells: rows of `_record`.

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
    return pd.DataFrame(_record(stress, level, name, drawn, plan))


def scarcity(bench: Bench, method: str, task: Task, *, plan: Plan) -> pd.DataFrame:
    """Fit a method on some of the training deposits and score it on all test cells.

    Parameters
    ----------
    bench, method, task, plan
        As for `scores`.
    """
    fold, rows = task.fold, []
    for share in plan.shares:
        several = []
        for draw in range(plan.draws if share < 1 else 1):
            scorer = bench.fit(method, with_deposits(task, share, seed=bench.seed + draw))
            several.append(_drawn(task, fold.test, scorer(fold.windows, fold.test), plan))
        rows += _record("scarcity", share, "", _mixed(several), plan)
    return pd.DataFrame(rows)


def lost_evidence(bench: Bench, method: str, task: Task, *, plan: Plan) -> pd.DataFrame:
    """Fit a method on whole evidence and score it on a sample of test cells that lack some.

    Parameters
    ----------
    bench, method, task, plan
        As for `scores`.
    """
    index, _ = sample_cells(task.fold.test, task.positive, plan.most, seed=bench.seed)
    scorer = bench.fit(method, task)
    whole = _drawn(task, index, scorer(task.fold.windows, index), plan)
    rows = _record("whole", np.nan, "", whole, plan)
    for stress, level, name, ways in perturbations(task, plan.noise, plan.draws, seed=bench.seed):
        copies = (perturb(task.fold.windows) for perturb in ways)
        mixed = _mixed([_drawn(task, index, scorer(copy, index), plan) for copy in copies])
        # the same deposits are drawn in both, so that the interval is that of the difference
        change = {metric: mixed[metric] - whole[metric] for metric in plan.scored}
        change["deposits"] = whole["deposits"]
        rows += _record(stress, level, name, change, plan, suffix="_change")
    return pd.DataFrame(rows)


# From draws to intervals


def _drawn(task: Task, index: np.ndarray, likelihood: np.ndarray, plan: Plan) -> Drawn:
    """Each metric on some test centres and on its bootstrap draws."""
    prediction = metrics.Prediction(
        task.positive[index], likelihood, task.deposit[index], threshold=np.nan
    )
    name = f"{task.fold.split} {task.fold.number}"
    drawn = metrics.draw_fold(name, prediction, plan.areas, plan.bootstrap, 0)
    return {metric: drawn[metric] for metric in (*plan.scored, "deposits")}


def _mixed(several: Sequence[Drawn]) -> Drawn:
    """Mean of several random draws, with the spread of a single one.

    The k-th bootstrap draw is that of the (k mod n)-th of them, so that the interval holds both the
    luck of the draw and that of the test deposits.
    """
    mixed = {}
    for metric in several[0]:
        values = np.stack([drawn[metric] for drawn in several])
        turn = np.arange(values.shape[1] - 1)
        mixed[metric] = np.append(values[:, 0].mean(), values[turn % len(values), 1 + turn])
    return mixed


def _record(
    stress: str, level: float, name: str, drawn: Drawn, plan: Plan, *, suffix: str = ""
) -> list[dict]:
    """Rows stress, level, name, deposits, metric, draws (list: the value, then the bootstrap)."""
    shared = {"stress": stress, "level": float(level), "name": name}
    shared |= {"deposits": int(drawn["deposits"][0])}
    return [
        shared | {"metric": metric + suffix, "draws": drawn[metric].astype("float32").tolist()}
        for metric in plan.scored
    ]


def tidy(bench: Bench, made: Mapping[Key, pd.DataFrame]) -> pd.DataFrame:
    """Turn the draws of folds into values with intervals, with their mean over folds.

    Folds without a value, for want of one class, are left out of the mean. Its interval is NaN if
    a fold has a single deposit, whose spread nobody knows. Intervals are those of
    `metrics.interval`, of the deposits that took part.
    """
    parts = [
        rows.assign(split=split, fold=str(fold), method=method)
        for (split, fold, method), rows in made.items()
    ]
    every = pd.concat(parts, ignore_index=True)
    draws = np.array(every["draws"].tolist())
    keys = ["split", "method", "stress", "level", "name", "metric"]
    means, rows, free = [], [], (every.pop("deposits") - 1).to_numpy()
    for key, group in every.groupby(keys, sort=False, dropna=False):
        own = draws[group.index]
        scored = ~np.isnan(own[:, 0])
        if scored.any():
            own, of = own[scored], free[group.index][scored]
            free = np.append(free, of.sum() + max(0, (of == 0).sum() - 1))  # as `freedom` counts
            rows.append(dict(zip(keys, key, strict=True)) | {"fold": "mean"})
            means.append(own.mean(axis=0))
    table = pd.concat([every.drop(columns="draws"), pd.DataFrame(rows)], ignore_index=True)
    draws = np.concatenate([draws, means]) if means else draws
    found = np.array([metrics.interval(*each) for each in zip(draws, free, strict=True)])
    least = np.where(table["metric"].str.endswith("_change"), -1, 0)
    table["value"], table["low"], table["high"] = found[:, 0], *np.clip(found[:, 1:].T, least, 1)
    table = table.assign(study=bench.study.name, target=bench.target, seed=bench.seed)
    return table[COLUMNS]


def path(study: Study) -> Path:
    """Return where a study's table lies."""
    return study.processed / "stress.parquet"


def keep(study: Study, table: pd.DataFrame) -> None:
    """Put rows of `run` and `block_sides` into the study's table, in place of older ones."""
    place = path(study)
    if place.exists():
        old = read(study)
        same = pd.MultiIndex.from_frame(old[KEYS]).isin(pd.MultiIndex.from_frame(table[KEYS]))
        table = pd.concat([old[~same], table], ignore_index=True)
    ordered = table.sort_values(COLUMNS[:-3], kind="stable").reset_index(drop=True)
    artefacts.write_table(ordered, place)


def read(study: Study) -> pd.DataFrame:
    """Read the study's table: `COLUMNS`.

    Raises
    ------
    FileNotFoundError
        If notebook 05 has not run.
    """
    return artefacts.read_table(path(study), "05_evaluation")
