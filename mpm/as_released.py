"""The protocol of the released code of GFM4MPM, reproduced with its faults, then repaired.

Nothing here is a recommendation: it shows how much of a score is owed to the protocol.

Source: DARPA-CRITICALMAAS/sri-ta3, commit 68eb231, `tiff_datamodule.py` and `tiff_dataset.py`, the
code of Daruna et al. 2024, arXiv:2406.12756.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr

from mpm import methods, metrics, trial_work, trials
from mpm.folds import Fold, labels, make_fold
from mpm.labels import likely_negatives, summed_distance
from mpm.methods import Scorer, Task
from mpm.scaling import Scaling, apply_scaling, fit_scaling
from mpm.score_runs import by_fold
from mpm.splits import SplitSettings
from mpm.study import Study
from mpm.trial_folds import Bench
from mpm.windows import Windows, make_windows, window_centres

QUANTILES = (0.75, 1.0)  # of the summed distance: negatives are the cells least like deposits
PER_POSITIVE = 20  # negatives
WINDOW = 33  # cells
SHARES = (0.5, 0.25, 0.25)  # train, validation, test
FEWEST = 8  # positive cells, two in each part
RULE = "picking_rule"  # minus the summed distance by which negatives are picked; learns nothing
LADDER = (RULE, "distance_to_deposit", "logistic_regression", "random_forest", "gradient_boosting")


@dataclass(frozen=True)
class Step:
    """A protocol; those of `STEPS` repair one fault more than the one before.

    Attributes
    ----------
    title : str
    whole_windows : bool
        Only cells whose window of 33 x 33 cells lies wholly on valid cells take part; else all.
    after_split : bool
        Negatives are picked after the split, by training positives; else before it, by all
        positives, those of the test included.
    all_cells : bool
        Validated and tested on all unlabeled cells; else on picked ones, 20 a positive.
    scaled_on_train : bool
        Scaling is fitted on training cells; else on all.
    blocks : bool
        Whole blocks are held out behind a dead zone; else single cells at random.
    """

    title: str
    whole_windows: bool = False
    after_split: bool = True
    all_cells: bool = True
    scaled_on_train: bool = True
    blocks: bool = False


STEPS = {
    "as_released": Step("as released", True, False, False, False),
    "released_after_split": Step("negatives picked after the split", True, True, False, False),
    "released_all_cells": Step("all unlabeled cells tested", True, True, True, False),
    "released_train_scaling": Step("scaling fitted on training cells", True),
    "released_whole_map": Step("cells near edges and gaps as well"),
    "released_blocks": Step("blocks instead of random cells", blocks=True),
}


def ladder(
    study: Study,
    target: str,
    *,
    split_settings: SplitSettings,
    preset: str,
    seed: int,
    names: Sequence[str] = LADDER,
    repeats: int = 3,
    processes: int = 2,
) -> pd.DataFrame:
    """Predict the test cells of every step of the ladder.

    Parameters
    ----------
    study, target, split_settings, preset, seed, processes
        As for `trials.run`.
    names : sequence of str
        "picking_rule", and methods of `methods.NAMES` that need no backbone: none was pretrained
        on these training cells.
    repeats : int
        Random splits, each with its own draw of negatives; the last step has the folds of the
        blocks instead.

    Returns
    -------
    DataFrame
        `mapping.PREDICTION_COLUMNS`; the split is the name of the step, the fold that of the
        repeat.
    """
    bench = Bench(study, target, split_settings, preset, seed, fit=fit, build=protocol_fold)
    wanted = [
        (step, number, name)
        for step, how in STEPS.items()
        for number in range(split_settings.folds if how.blocks else repeats)
        for name in names
    ]
    made = trial_work.make(
        bench, wanted, trials.predictions, name="as_released", processes=processes
    )
    return pd.concat(made.values(), ignore_index=True)


def score(rows: pd.DataFrame, *, draws: int = 500, seed: int = 0) -> pd.DataFrame:
    """Score the predictions of `ladder`.

    Returns
    -------
    DataFrame
        split (the step), method, and columns of `metrics.score_folds`, whose metrics have
        `positives` and `negatives` besides: tested cells, the mean over repeats.
    """
    tables = []
    for (step, method), own in rows.groupby(["split", "method"], sort=False):
        table = metrics.score_folds(by_fold(own), draws=draws, seed=seed)
        cells = own.groupby("fold")["positive"].agg(["sum", "size"])
        counts = {"positives": cells["sum"], "negatives": cells["size"] - cells["sum"]}
        more = {"metric": list(counts), "value": [float(of.mean()) for of in counts.values()]}
        more = pd.DataFrame(more).assign(fold="mean", low=np.nan, high=np.nan)
        tables.append(pd.concat([table, more]).assign(split=step, method=method))
    return pd.concat(tables, ignore_index=True)


def fit(name: str, task: Task) -> Scorer:
    """Fit a method of `methods.NAMES`, or "picking_rule".

    The rule scores a cell by minus the sum of its distances to the training positives, in the
    features by which negatives are picked: the standardised layers of the cell.
    """
    if name != RULE:
        return methods.fit(name, task)
    known = task.fold.train[task.positive[task.fold.train]]
    return Scorer(partial(_less_like, task.fold.windows, known))


def _less_like(
    known_in: Windows, known: np.ndarray, windows: Windows, index: np.ndarray
) -> np.ndarray:
    def features(cells: np.ndarray) -> np.ndarray:
        return known_in.centres(known) if cells is known else windows.centres(cells)

    return -summed_distance(features, known, index)


def protocol_fold(bench: Bench, cubes: Mapping[str, xr.Dataset], step: str, number: int) -> Fold:
    """Divide cells, scale them and pick negatives as a step of the ladder does.

    Parameters
    ----------
    bench : Bench
    cubes : mapping of Dataset
    step : str
        One of `STEPS`.
    number : int
        Of the repeat, or of the fold of blocks.

    Returns
    -------
    Fold
        Cells that no part holds were not picked.

    Raises
    ------
    ValueError
        If there are too few positive cells to be parted three ways.
    """
    how, regions, side = STEPS[step], list(cubes.values()), bench.window(cubes)
    seed = bench.seed + number
    if how.blocks:
        targets = list(bench.study.targets)
        fold = make_fold(cubes, "blocks", number, bench.settings, side, targets=targets)
        positive, _ = labels(cubes, fold.windows, bench.target)
        parts: tuple[np.ndarray, ...] = (fold.train, fold.validation, fold.test)
        return _fold(step, number, fold.scaling, fold.windows, parts, positive, how, seed)
    scaling = fit_scaling(regions, [cube["valid"].values for cube in regions])
    windows = _scaled(regions, scaling, side)
    positive, _ = labels(cubes, windows, bench.target)
    inside = windows.take(_inside(regions)) if how.whole_windows else np.ones(len(windows), bool)
    known, others = np.flatnonzero(positive & inside), np.flatnonzero(~positive & inside)
    if len(known) < FEWEST:
        raise ValueError(
            f"{len(known)} positive cells of {bench.target!r} for {step!r}, which parts them three "
            f"ways, and needs {FEWEST}; leave the ladder out for this target"
        )
    if not how.after_split:  # the fault: deposits of the test decide which cells it is made of
        others = _picked(windows, known, others, len(known), seed)
    rng = np.random.default_rng(seed)
    pairs = zip(_deal(known, rng), _deal(others, rng), strict=True)
    parts = tuple(np.sort(np.concatenate(pair)) for pair in pairs)
    if how.scaled_on_train:
        trained = np.isin(np.arange(len(windows)), parts[0])
        masks = [windows.put(trained, k, fill=False) for k in range(len(regions))]
        scaling = fit_scaling(regions, masks)
        windows = _scaled(regions, scaling, side)
    return _fold(step, number, scaling, windows, parts, positive, how, seed)


def _scaled(regions: Sequence[xr.Dataset], scaling: Scaling, side: int) -> Windows:
    return make_windows([apply_scaling(cube, scaling) for cube in regions], side)


def obstacle(regions: Sequence[xr.Dataset], target: str) -> str:
    """Say why the ladder cannot be climbed: too few positive cells for its first step; else "".

    Parameters
    ----------
    regions : sequence of Dataset
    target : str
    """
    planes = zip(regions, _inside(regions), strict=True)
    known = sum(int((cube[target].values & plane).sum()) for cube, plane in planes)
    if known >= FEWEST:
        return ""
    return (
        f"no ladder: {known} positive cells of {target} have a whole window of {WINDOW} cells, and "
        f"the published protocol, which parts them three ways, needs {FEWEST}"
    )


def _inside(regions: Sequence[xr.Dataset]) -> list[np.ndarray]:
    """Tell cells whose published window lies on valid cells only, a bool (y, x) a region."""
    planes = []
    for cube in regions:
        plane = np.zeros(cube["valid"].shape, bool)
        plane[window_centres(cube["valid"].values, WINDOW, min_valid=1.0)] = True
        planes.append(plane)
    return planes


def _deal(cells: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Part cells at random by `SHARES`."""
    edges = np.round(np.cumsum(SHARES[:-1]) * len(cells)).astype(int)
    return np.split(rng.permutation(cells), edges)


def _picked(
    windows: Windows, known: np.ndarray, others: np.ndarray, positives: int, seed: int
) -> np.ndarray:
    """Pick cells least like known deposits, `PER_POSITIVE` for each of a number of positives."""
    count = PER_POSITIVE * positives
    return likely_negatives(
        windows.centres, known, others, quantiles=QUANTILES, count=count, seed=seed
    )


def _fold(
    step: str,
    number: int,
    scaling: Scaling,
    windows: Windows,
    parts: Sequence[np.ndarray],
    positive: np.ndarray,
    how: Step,
    seed: int,
) -> Fold:
    """Pick the negatives of each part, unless that was done before the split, or all are taken."""
    known = parts[0][positive[parts[0]]]
    chosen = []
    for k, part in enumerate(parts):
        own, others = part[positive[part]], part[~positive[part]]
        if how.after_split and (k == 0 or not how.all_cells):
            others = _picked(windows, known, others, len(own), seed)
        chosen.append(np.sort(np.concatenate([own, others])))
    return Fold(step, number, scaling, windows, *chosen)
