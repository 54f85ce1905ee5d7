"""Probes: what can be told from features that stay as they are, and from a network that learns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mpm import fine_tuning, mae, window_statistics
from mpm.baselines import choose
from mpm.classifier import Classifier
from mpm.comparison_table import PRESET
from mpm.folds import Fold
from mpm.pu_selection import choose_negatives
from mpm.windows import Windows

Head = Literal["probe", "full", "last", "frozen"]
# what a choice of fine-tuning changes of its preset's settings
CHOICES: dict[str, dict[str, Any]] = {
    PRESET: {},
    "as published": {"quantiles": (0.75, 1.0), "view": "cls"},
    "negatives from the top quarter": {"quantiles": (0.75, 1.0)},
    "negatives from the top three quarters": {"quantiles": (0.25, 1.0)},
    "negatives at random": {"negatives": "random"},
    "negatives told by the backbone": {"negatives_by": "backbone"},
    "head sees CLS": {"view": "cls"},
    "head sees the mean": {"view": "mean"},
    "head sees CLS and mean and centre": {"view": "cls+mean+centre"},
    "no label smoothing": {"smoothing": 0.0},
    "dropout 0.2": {"dropout": 0.2},
    "a tenth of the rate for the backbone": {"backbone_rate": 1e-4},
}


def tuning(head: Head, choice: str, preset: str) -> fine_tuning.FineTuneSettings | None:
    """Return how a network is trained under a head; none under a probe.

    Parameters
    ----------
    head : {"probe", "full", "last", "frozen"}
    choice : str
        One of `CHOICES`.
    preset : str
        Of the fine-tuning.

    Raises
    ------
    ValueError
        If there is no such choice.
    """
    if choice not in CHOICES:
        raise ValueError(f"no choice is called {choice!r}; there are {', '.join(CHOICES)}")
    if head == "probe":
        return None
    settings = replace(fine_tuning.FINE_TUNE_PRESETS[preset], train=head)
    # features that stay what they are need no turned windows
    settings = replace(settings, augment=settings.augment and head != "frozen")
    return replace(settings, **CHOICES[choice])


def score_cells(
    fold: Fold,
    encoder: mae.Encoder,
    settings: fine_tuning.FineTuneSettings | None,
    *,
    sees: str,
    aligned: bool,
    seed: int,
    parts: Sequence[np.ndarray],
    positive: np.ndarray,
) -> np.ndarray:
    """Put a head on an encoder, train it on the first part, choose by the second, score the third.

    Parameters
    ----------
    fold : Fold
    encoder : Encoder
        Not changed.
    settings : FineTuneSettings or None
        Of the fine-tuning; None: a probe, logistic regression on frozen features.
    sees : {"network", "cell", "statistics"}
        What a probe is given, see `features`.
    aligned : bool
        Whether a probe's features are standardised region by region.
    seed : int
        Of the fine-tuning.
    parts : sequence of array (n,) of int
        Centres of training, validation and test cells.
    positive : array (all centres,)
        bool.

    Returns
    -------
    array (n,)
        Higher where a deposit is likelier, for the centres of the third part.
    """
    if settings is None:
        seen = [features(encoder, fold.windows, index, sees=sees) for index in parts]
        if aligned:
            seen = _align(seen, [fold.windows.region[index] for index in parts])
        return _probe(seen, [positive[index] for index in parts])
    known = parts[0][positive[parts[0]]]
    trained = replace(fold, train=np.union1d(known, fold.train[~positive[fold.train]]))
    negatives = choose_negatives(trained, positive, settings, seed=seed, encoder=encoder)
    model, _ = fine_tuning.fine_tune(
        encoder,
        fold.windows,
        known,
        negatives,
        parts[1],
        positive,
        settings,
        seed=seed,
        device=torch.device("cpu"),
    )
    with torch.no_grad():
        logits = torch.cat(list(fold.windows.map(model, parts[2], 256)))
    return logits.numpy()


@torch.no_grad()
def features(
    encoder: mae.Encoder, windows: Windows, index: np.ndarray, *, sees: str = "network"
) -> np.ndarray:
    """Return what a probe sees of windows: (n, features) float32.

    "network": CLS, mean and centre tokens. "cell": the layers at the centre. "statistics": these,
    and mean and spread of each layer over the window.

    Parameters
    ----------
    encoder : Encoder
    windows : Windows
    index : array (n,) of int
        Centres.
    sees : {"network", "cell", "statistics"}
    """
    if sees == "cell":
        return np.nan_to_num(windows.centres(index))
    if sees == "statistics":
        return np.nan_to_num(window_statistics.statistics(windows, index))
    return fine_tuning.features_of(Classifier(encoder), windows, index).numpy()


def _align(seen: list[np.ndarray], regions: list[np.ndarray]) -> list[np.ndarray]:
    """Standardise features by all cells of their region that take part; no label is read."""
    made = [np.empty_like(part) for part in seen]
    for number in np.unique(np.concatenate(regions)):
        here = [region == number for region in regions]
        all_of_it = np.concatenate([part[own] for part, own in zip(seen, here, strict=True)])
        mean, spread = all_of_it.mean(axis=0), all_of_it.std(axis=0) + 1e-6
        for out, part, own in zip(made, seen, here, strict=True):
            out[own] = (part[own] - mean) / spread
    return made


def _probe(seen: list[np.ndarray], known: list[np.ndarray]) -> np.ndarray:
    """Logistic regression, its penalty chosen by the average precision on validation cells."""
    models = [
        make_pipeline(
            StandardScaler(),
            LogisticRegression(C=strength, class_weight="balanced", max_iter=300),
        )
        for strength in (1e-4, 1e-3, 1e-2, 1e-1)
    ]
    best = models[choose(models, seen[0], known[0], seen[1], known[1])]
    return best.decision_function(seen[2])
