"""Methods that need torch: networks that learn, and tables of what a frozen one sees."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mpm import baselines, convnet, fine_tuning, mae
from mpm.classifier import Classifier
from mpm.mapping import predict
from mpm.pu_selection import choose_negatives
from mpm.tasks import Scorer, Task, fit_best, some
from mpm.windows import Windows

FEATURE_CELLS = 2000  # unlabeled cells whose features of the backbone are computed
JUDGED_FEATURES = 1000  # the same of validation cells, as many as early stopping looks at
DROPOUT_SAMPLES = 100
KEPT_TABLES, KEPT_BYTES = 4, 100e6  # of features that two methods share, at most


def fit_network(method: str, task: Task) -> Scorer:
    """Fine-tune a network against likely negatives, as in notebook 03."""
    encoder, settings = _start(method, task)
    fold, device = task.fold, torch.device(task.device)
    known = fold.train[task.positive[fold.train]]
    negatives = choose_negatives(
        fold, task.positive, settings, seed=task.seed, encoder=encoder, device=device
    )
    classifier, history = fine_tuning.fine_tune(
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
    return replace(scorer_of(classifier, task.seed, device), chosen={"steps": int(best)})


def scorer_of(classifier: Classifier, seed: int, device: torch.device | str) -> Scorer:
    """Return a trained network as a method: the mean likelihood of its dropout samples."""
    score = partial(_likelihood, classifier, seed, torch.device(device))
    return Scorer(score, {}, classifier)


def _start(method: str, task: Task) -> tuple[mae.Encoder, fine_tuning.FineTuneSettings]:
    """Return the network that a method starts from, and how it is trained."""
    windows, layers = task.fold.windows, len(task.layers)
    config = task.backbone.config if task.backbone else mae.preset(task.preset, layers)
    settings = fine_tuning.FINE_TUNE_PRESETS[task.preset]
    if method == "resnet18":
        size = convnet.preset(task.preset, layers, windows.size)
        encoder: Any = convnet.build(size, task.seed)  # it does all that is asked of an encoder
        return encoder, replace(settings, train="full", view="cls")
    if config.window != windows.size:
        raise ValueError(
            f"windows of {windows.size} cells, but the transformer of preset {task.preset!r} takes "
            f"{config.window}; make the fold with the network's window"
        )
    if method == "mae":
        assert task.backbone is not None  # `methods.fit` has seen to it
        return task.backbone.encoder, settings
    untrained = mae.build(config, task.seed).encoder
    if method == "vit_random":  # features that stay what they are need no turned windows
        return untrained, replace(settings, train="frozen", augment=False)
    return untrained, replace(settings, train="full")


def _likelihood(
    classifier: Classifier,
    seed: int,
    device: torch.device,
    windows: Windows,
    index: np.ndarray,
) -> np.ndarray:
    found = predict(classifier, windows, index, samples=DROPOUT_SAMPLES, seed=seed, device=device)
    return found[0]


def fit_on_features(method: str, task: Task) -> Scorer:
    """Fit logistic regression or boosting on what the head would see of the frozen backbone."""
    assert task.backbone is not None  # `methods.fit` has seen to it
    frozen = Classifier(deepcopy(task.backbone.encoder)).to(task.device)
    see = partial(_features, frozen, task)
    kind = "gradient_boosting" if method.endswith("boosting") else "logistic_regression"
    names = [f"feature {k}" for k in range(frozen.linear.in_features)]
    make = partial(_make_on_features, kind, task.seed, names)
    few = some(task, "train", FEATURE_CELLS), some(task, "validation", JUDGED_FEATURES)
    found = fit_best(make, baselines.CANDIDATES[kind], see, task, few[0], *few)
    return replace(found, score=partial(_in_parts, found.score))


def _in_parts(
    score: Callable[[Windows, np.ndarray], np.ndarray],
    windows: Windows,
    index: np.ndarray,
    size: int = 1 << 16,
) -> np.ndarray:
    """Score centres some at a time: the features of a continent would not fit into memory."""
    parts = [index[start : start + size] for start in range(0, len(index), size)]
    return np.concatenate([score(windows, part) for part in parts])


def _make_on_features(kind: str, seed: int, names: list[str], **settings: Any) -> BaseEstimator:
    """Features have no unit and no common spread, which a penalty of weights must not see."""
    return make_pipeline(StandardScaler(), baselines.make(kind, seed, names, **settings))


def _features(frozen: Classifier, task: Task, windows: Windows, index: np.ndarray) -> np.ndarray:
    """Features of centres (n, features); the last few tables are kept for the next method."""
    sources = task.backbone, windows.canvas, windows.seen
    key = (*map(id, sources), index.tobytes())
    if key in task.kept:
        return task.kept[key][0]
    found = fine_tuning.features_of(frozen, windows.to(task.device), index).cpu().numpy()
    if found.nbytes < KEPT_BYTES:
        for old in list(task.kept)[: 1 - KEPT_TABLES]:
            del task.kept[old]
        task.kept[key] = found, sources  # an id stands for a thing as long as that lives
    return found
