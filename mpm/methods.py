"""Every method behind one call: fitted on a fold's training cells, scoring any windows."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from mpm import baselines, lawley_facts, window_statistics
from mpm.method_names import CONTROLS as CONTROLS
from mpm.method_names import NAMES as NAMES
from mpm.study import load
from mpm.tasks import Scorer, Task, fit_best, shuffle_labels, some

if TYPE_CHECKING:
    from mpm.windows import Windows

NETWORKS = frozenset({"resnet18", "vit_scratch", "vit_random", "mae"})
NEEDS_BACKBONE = frozenset({"mae", "mae_features_logistic", "mae_features_boosting"})
TABULAR = frozenset(NAMES) - NETWORKS - NEEDS_BACKBONE  # no network takes part in these
SHUFFLED = "shuffled:"  # before the name of any method: it is fitted on shuffled labels

CANDIDATE_CELLS = 2000  # unlabeled cells that candidates learn from, and that judge them
ANOTHER_REGION_KM = 20_000.0  # farther than any two places on Earth


def fit(name: str, task: Task) -> Scorer:
    """Fit a method on the training cells of a fold.

    All methods choose their settings by the average precision on validation cells, each among four
    candidates (`baselines.CANDIDATES`), which learn from all positive training cells and a sample
    of the others; the winner is fitted on all of them, or, on features of a backbone, on the sample
    that the candidates learned from. The candidates of networks are the states of
    one training in which early stopping takes a look: up to twelve with the preset "demo". No value
    or label of a test cell is read.

    Parameters
    ----------
    name : str
        One of `NAMES`, or "shuffled:" and one of them: fitted and chosen on labels that
        `tasks.shuffle_labels` has dealt anew.
    task : Task

    Returns
    -------
    Scorer

    Raises
    ------
    ValueError
        If the name is unknown, layers or a backbone that it needs are missing, or training or
        validation cells hold no positive or no other cell.
    """
    method = name.removeprefix(SHUFFLED)
    if method not in NAMES:
        raise ValueError(f"{name!r} is no method; there are {', '.join(NAMES)}")
    _check(method, task)
    if name.startswith(SHUFFLED):
        task = shuffle_labels(task)
    with threadpool_limits(1, user_api="blas"):
        return _fit(method, task)


def _fit(method: str, task: Task) -> Scorer:
    if method not in TABULAR:
        from mpm import network_methods  # imports torch, which tables need not wait for

        features = method not in NETWORKS
        how = network_methods.fit_on_features if features else network_methods.fit_network
        return how(method, task)
    if method == "distance_to_deposit":
        return _distance(task)
    if method == "shuffled_labels":
        return _tabular("gradient_boosting", shuffle_labels(task))
    if method.startswith("weights_of_evidence_"):
        return _tabular("weights_of_evidence", task, lawley_planes(task.layers)[method])
    return _tabular(method, task)


def applicable(layers: Sequence[str], *, backbone: bool) -> list[str]:
    """List the methods that suit the planes of windows, with a pretrained backbone or without."""
    sets = lawley_planes(layers)
    return [
        name
        for name in NAMES
        if (backbone or name not in NEEDS_BACKBONE)
        and (name in sets or not name.startswith("weights_of_evidence_"))
    ]


def describe(names: Sequence[str]) -> pd.DataFrame:
    """Tabulate methods: index label; columns sees (what a score is made of) and chooses among."""
    rows = {}
    for name in names:
        grid = baselines.CANDIDATES.get(_estimator(name), ({},))
        options = {key: dict.fromkeys(str(each[key]) for each in grid) for key in grid[0]}
        chooses = "; ".join(f"{key} {', '.join(values)}" for key, values in options.items())
        if name in NETWORKS:
            chooses = "training steps"
        rows[NAMES[name]] = {"sees": _sees(name), "chooses among": chooses or "nothing"}
    return pd.DataFrame(rows).T


def _estimator(name: str) -> str:
    """Name in `baselines.CANDIDATES` of what a method is made of."""
    aliases = dict.fromkeys(("shuffled_labels", "mae_features_boosting"), "gradient_boosting")
    aliases |= {"mae_features_logistic": "logistic_regression"}
    for ending in ("_window", "_baseline", "_updated"):
        name = name.removesuffix(ending)
    return aliases.get(name, name)


def _sees(name: str) -> str:
    if name == "distance_to_deposit":
        return "the way to known deposits"
    if name in NETWORKS | NEEDS_BACKBONE:
        return "the window"
    return "the cell, mean and spread of its window" if name.endswith("_window") else "the cell"


def lawley_planes(layers: Sequence[str]) -> dict[str, list[int]]:
    """Return the planes of the published sets of weights of evidence, for those all of which exist.

    The study `lawley2022` names the columns of the sets. Of the two paleolatitudes it has that of
    the youngest period, as in the set `preferred`, which here stands for that of the oldest.

    Returns
    -------
    dict
        Name of the method to numbers of planes.

    Source: Lawley et al. 2022; sets as in `data/lawley2022.json`.
    """
    origins = [layer.split("=", 1)[0] for layer in layers]
    found = {}
    for name, wanted in _lawley_sets().items():
        if set(wanted) <= set(origins):
            found[name] = [k for k, origin in enumerate(origins) if origin in wanted]
    return found


@lru_cache(maxsize=1)
def _lawley_sets() -> dict[str, tuple[str, ...]]:
    named = {layer.column: layer.name for layer in load("lawley2022").layers}
    named["Geology_Paleolatitude_Period_Maximum"] = named["Geology_Paleolatitude_Period_Minimum"]
    return {
        f"weights_of_evidence_{words}": tuple(named[name] for name in lawley_facts.features(words))
        for words in ("baseline", "updated")
    }


def _check(method: str, task: Task) -> None:
    if len(task.layers) != task.fold.windows.layers:
        raise ValueError(
            f"{len(task.layers)} names for {task.fold.windows.layers} layers of the windows"
        )
    if method not in applicable(task.layers, backbone=task.backbone is not None):
        needs = "a pretrained backbone" if method in NEEDS_BACKBONE else "layers of lawley2022"
        raise ValueError(f"{method} needs {needs}; `methods.applicable` lists what there is")
    for part in ("train", "validation"):
        truth = task.positive[getattr(task.fold, part)]
        if not truth.any() or truth.all():
            what = "positive" if not truth.any() else "unlabeled"
            raise ValueError(
                f"no {what} {part} cells: use larger blocks, fewer folds or another split seed"
            )


# Methods that learn from a table


def _tabular(method: str, task: Task, planes: list[int] | None = None) -> Scorer:
    """Fit a method on centre cells, on some of their planes, or on window statistics."""
    see: Callable[[Windows, np.ndarray], np.ndarray] = _centres
    layers: Sequence[str] = task.layers
    if planes is not None:
        see, layers = partial(_centres, planes=planes), [task.layers[k] for k in planes]
    if method.endswith("_window"):
        method, see = method.removesuffix("_window"), window_statistics.statistics
        layers = window_statistics.names(layers)
    make = partial(baselines.make, method, task.seed, layers)
    few = some(task, "train", CANDIDATE_CELLS), some(task, "validation", CANDIDATE_CELLS)
    return fit_best(make, baselines.CANDIDATES[method], see, task, task.fold.train, *few)


def _centres(
    windows: "Windows", index: np.ndarray, planes: Sequence[int] | None = None
) -> np.ndarray:
    values = windows.centres(index)
    return values if planes is None else values[:, planes]


# The control that looks at no evidence


def _distance(task: Task) -> Scorer:
    """Score by minus the kilometres to the nearest positive training cell of the region."""
    axes = [(cube["x"].values / 1000, cube["y"].values / 1000) for cube in task.cubes.values()]
    windows = task.fold.windows
    known = task.fold.train[task.positive[task.fold.train]]
    trees = {}
    for region in np.unique(windows.region[known]).tolist():
        here = known[windows.region[known] == region]
        trees[region] = cKDTree(_places(axes, windows, here, region))
    return Scorer(partial(_minus_km, axes, trees))


def _minus_km(
    axes: list[tuple[np.ndarray, np.ndarray]],
    trees: dict[int, cKDTree],
    windows: "Windows",
    index: np.ndarray,
) -> np.ndarray:
    away = np.full(len(index), ANOTHER_REGION_KM)
    for region, tree in trees.items():
        here = windows.region[index] == region
        away[here] = tree.query(_places(axes, windows, index[here], region))[0]
    return -away


def _places(
    axes: list[tuple[np.ndarray, np.ndarray]], windows: "Windows", index: np.ndarray, region: int
) -> np.ndarray:
    """Easting and northing (n, 2) of centres of one region, in km."""
    x, y = axes[region]
    return np.column_stack([x[windows.col[index]], y[windows.row[index]]])
