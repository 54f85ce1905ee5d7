"""Every method behind one call: fitted on a fold's training cells, scoring any windows."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mpm import baselines, lawley_facts, window_statistics
from mpm.study import load

if TYPE_CHECKING:  # torch takes seconds to import, which tables of numbers need not wait for
    import torch
    import xarray as xr
    from sklearn.base import BaseEstimator

    from mpm import mae
    from mpm.classifier import Classifier
    from mpm.fine_tuning import FineTuneSettings
    from mpm.folds import Fold
    from mpm.windows import Windows

NAMES = {
    "weights_of_evidence": "weights of evidence",
    "weights_of_evidence_baseline": "weights of evidence, baseline set",
    "weights_of_evidence_updated": "weights of evidence, updated set",
    "logistic_regression": "logistic regression",
    "random_forest": "random forest",
    "gradient_boosting": "gradient boosting",
    "pu_bagging": "positive-unlabeled bagging",
    "logistic_regression_window": "logistic regression, window statistics",
    "random_forest_window": "random forest, window statistics",
    "gradient_boosting_window": "gradient boosting, window statistics",
    "resnet18": "ResNet-18",
    "vit_scratch": "ViT from scratch",
    "vit_random": "ViT, random and frozen",
    "mae": "MAE, fine-tuned",
    "mae_features_logistic": "MAE features, logistic regression",
    "mae_features_boosting": "MAE features, gradient boosting",
    "distance_to_deposit": "distance to a known deposit",
    "shuffled_labels": "gradient boosting, shuffled labels",
}
CONTROLS = ("distance_to_deposit", "shuffled_labels")
NETWORKS = frozenset({"resnet18", "vit_scratch", "vit_random", "mae"})
NEEDS_BACKBONE = frozenset({"mae", "mae_features_logistic", "mae_features_boosting"})
TABULAR = frozenset(NAMES) - NETWORKS - NEEDS_BACKBONE  # these never import torch themselves
SHUFFLED = "shuffled:"  # before the name of any method: it is fitted on shuffled labels

CANDIDATE_CELLS = 4000  # unlabeled cells that candidates learn from, and that judge them
FEATURE_CELLS = 3000  # unlabeled cells whose features of the backbone are computed
JUDGED_FEATURES = 1000  # the same of validation cells, as many as early stopping looks at
DROPOUT_SAMPLES = 100
ANOTHER_REGION_KM = 20_000.0  # farther than any two places on Earth


@dataclass(frozen=True)
class Task:
    """What a method is given.

    Attributes
    ----------
    fold : Fold
        Windows scaled on the training cells, and the numbers of training, validation, test centres.
    positive : array (all centres,)
        bool; those of test centres are not read.
    deposit : array (all centres,)
        int, -1 where there is none.
    layers : tuple of str
        Planes of the windows.
    cubes : dict of Dataset
        By region, in the order of the windows, for coordinates.
    seed : int
    preset : str
        Of fine-tuning and of the size of networks.
    backbone : MaskedAutoencoder, optional
        Pretrained on the training cells, for the methods of `NEEDS_BACKBONE`. Transformers that
        are not pretrained are of its size, or of the preset's where there is none.
    device : device or str
        Of networks, which compute on as many threads as torch is set to.
    """

    fold: "Fold"
    positive: np.ndarray
    deposit: np.ndarray
    layers: tuple[str, ...]
    cubes: dict[str, "xr.Dataset"]
    seed: int
    preset: str = "demo"
    backbone: "mae.MaskedAutoencoder | None" = None
    device: "torch.device | str" = "cpu"


@dataclass(frozen=True)
class Scorer:
    """A fitted method: called with windows and numbers of centres it returns likelihoods (n,).

    A likelihood ranks cells of one fold. That of networks is a probability at even odds, that of
    `distance_to_deposit` no probability at all.

    Attributes
    ----------
    score : callable
    chosen : dict
        What validation cells decided: the settings of the best candidate, or the training steps.
    model : object
        The fitted estimator or classifier; None of `distance_to_deposit`.
    """

    score: "Callable[[Windows, np.ndarray], np.ndarray]"
    chosen: dict = field(default_factory=dict)
    model: object = None

    def __call__(self, windows: "Windows", index: np.ndarray) -> np.ndarray:
        """Score centres `index` (n,) of windows with the layers of the task, some of them missing.

        Raises
        ------
        ValueError
            If a score is not finite.
        """
        with threadpool_limits(1, user_api="blas"):  # sums of several threads differ between runs
            found = np.asarray(self.score(windows, np.asarray(index)), "float64")
        if not np.isfinite(found).all():
            raise ValueError(
                f"{(~np.isfinite(found)).sum()} of {len(found)} scores are not finite: look for "
                "extreme values in the evidence layers"
            )
        return found


def fit(name: str, task: Task) -> Scorer:
    """Fit a method on the training cells of a fold.

    All methods choose their settings by the average precision on validation cells, each among four
    candidates (`baselines.CANDIDATES`), which learn from all positive training cells and a sample
    of the others; the winner is fitted on all of them. The candidates of networks are the states of
    one training in which early stopping takes a look: four with the preset "demo". No value or
    label of a test cell is read.

    Parameters
    ----------
    name : str
        One of `NAMES`, or "shuffled:" and one of them: fitted on labels that are shuffled among
        training cells, and judged by labels that are shuffled among validation cells.
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
    if method == "distance_to_deposit":
        return _distance(task)
    if method == "shuffled_labels":
        return _tabular("gradient_boosting", shuffle_labels(task))
    if method.startswith("mae_features"):
        return _on_features(method, task)
    if method in NETWORKS:
        return _network(method, task)
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


def shuffle_labels(task: Task) -> Task:
    """Deal the labels of training cells to training cells anew, and those of validation cells."""
    rng = np.random.default_rng(task.seed)
    positive, deposit = task.positive.copy(), task.deposit.copy()
    for part in (task.fold.train, task.fold.validation):
        dealt = rng.permutation(part)
        positive[part], deposit[part] = task.positive[dealt], task.deposit[dealt]
    return replace(task, positive=positive, deposit=deposit)


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


def _some(task: Task, part: str, most: int) -> np.ndarray:
    """All positive centres of "train" or "validation", and at most as many others, in order."""
    index = getattr(task.fold, part)
    positive, other = index[task.positive[index]], index[~task.positive[index]]
    if len(other) > most:
        other = np.random.default_rng(task.seed).choice(other, most, replace=False)
    return np.sort(np.concatenate([positive, other]))


# Methods that learn from a table


def _tabular(method: str, task: Task, planes: list[int] | None = None) -> Scorer:
    """Fit a method on centre cells, on some of their planes, or on window statistics."""
    see, layers = _centres, task.layers
    if planes is not None:
        see, layers = partial(_centres, planes=planes), [task.layers[k] for k in planes]
    if method.endswith("_window"):
        method, see = method.removesuffix("_window"), window_statistics.statistics
        layers = window_statistics.names(layers)
    make = partial(baselines.make, method, task.seed, layers)
    few = _some(task, "train", CANDIDATE_CELLS), _some(task, "validation", CANDIDATE_CELLS)
    return _best(make, baselines.CANDIDATES[method], see, task, task.fold.train, *few)


def _on_features(method: str, task: Task) -> Scorer:
    """Fit logistic regression or boosting on what the head would see of the frozen backbone."""
    from mpm.classifier import Classifier

    frozen = Classifier(deepcopy(task.backbone.encoder)).to(task.device)
    see = partial(_features, frozen, task.device)
    kind = "gradient_boosting" if method.endswith("boosting") else "logistic_regression"
    names = [f"feature {k}" for k in range(frozen.linear.in_features)]
    make = partial(_make_on_features, kind, task.seed, names)
    few = _some(task, "train", FEATURE_CELLS), _some(task, "validation", JUDGED_FEATURES)
    return _best(make, baselines.CANDIDATES[kind], see, task, few[0], *few)


def _make_on_features(kind: str, seed: int, names: list[str], **settings) -> "BaseEstimator":
    """Features have no unit and no common spread, which a penalty of weights must not see."""
    return make_pipeline(StandardScaler(), baselines.make(kind, seed, names, **settings))


def _best(
    make: "Callable[..., BaseEstimator]",
    grid: Sequence[dict],
    see: "Callable[[Windows, np.ndarray], np.ndarray]",
    task: Task,
    train: np.ndarray,
    few: np.ndarray,
    judged: np.ndarray,
) -> Scorer:
    """Fit the candidates on few of the training centres, and the best of them on all."""
    windows, positive = task.fold.windows, task.positive
    table, some = see(windows, train), np.isin(train, few)
    candidates = [make(**settings) for settings in grid]
    known = table[some], positive[train[some]]
    best = baselines.choose(candidates, *known, see(windows, judged), positive[judged])
    model = candidates[best] if some.all() else make(**grid[best]).fit(table, positive[train])
    return Scorer(partial(_probability, model, see), dict(grid[best]), model)


def _centres(
    windows: "Windows", index: np.ndarray, planes: Sequence[int] | None = None
) -> np.ndarray:
    values = windows.centres(index)
    return values if planes is None else values[:, planes]


def _features(
    frozen: "Classifier", device: "torch.device | str", windows: "Windows", index: np.ndarray
) -> np.ndarray:
    from mpm.fine_tuning import features_of

    return features_of(frozen, windows.to(device), index).cpu().numpy()


def _probability(
    model: "BaseEstimator",
    see: "Callable[[Windows, np.ndarray], np.ndarray]",
    windows: "Windows",
    index: np.ndarray,
) -> np.ndarray:
    return model.predict_proba(see(windows, index))[:, 1]


# Networks


def _network(method: str, task: Task) -> Scorer:
    """Fine-tune a network against likely negatives, as in notebook 03."""
    import torch

    from mpm.fine_tuning import fine_tune
    from mpm.pu_selection import choose_negatives

    encoder, settings = _start(method, task)
    fold, device = task.fold, torch.device(task.device)
    known = fold.train[task.positive[fold.train]]
    negatives = choose_negatives(
        fold, task.positive, settings, seed=task.seed, encoder=encoder, device=device
    )
    classifier, history = fine_tune(
        encoder,
        fold.windows,
        known,
        negatives,
        fold.validation,
        task.positive,
        settings,
        seed=task.seed,
        device=device,
    )
    best = history.loc[history["average_precision"].idxmax(), "step"]  # the first of equals is kept
    score = partial(_likelihood, classifier, task.seed, device)
    return Scorer(score, {"steps": int(best)}, classifier)


def _start(method: str, task: Task) -> "tuple[torch.nn.Module, FineTuneSettings]":
    """Return the network that a method starts from, and how it is trained."""
    from mpm import convnet, fine_tuning, mae

    windows, layers = task.fold.windows, len(task.layers)
    config = task.backbone.config if task.backbone else mae.preset(task.preset, layers)
    settings = fine_tuning.FINE_TUNE_PRESETS[task.preset]
    if method == "resnet18":
        size = convnet.preset(task.preset, layers, windows.size)
        return convnet.build(size, task.seed), replace(settings, train="full", view="cls")
    if config.window != windows.size:
        raise ValueError(
            f"windows of {windows.size} cells, but the transformer of preset {task.preset!r} takes "
            f"{config.window}; make the fold with the network's window"
        )
    if method == "mae":
        return task.backbone.encoder, settings
    untrained = mae.build(config, task.seed).encoder
    if method == "vit_random":  # features that stay what they are need no turned windows
        return untrained, replace(settings, train="frozen", augment=False)
    return untrained, replace(settings, train="full")


def _likelihood(
    classifier: "Classifier",
    seed: int,
    device: "torch.device",
    windows: "Windows",
    index: np.ndarray,
) -> np.ndarray:
    from mpm.mapping import predict

    options = {"samples": DROPOUT_SAMPLES, "seed": seed, "device": device}
    return predict(classifier, windows, index, **options)[0]


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
