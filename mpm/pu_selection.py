"""Positive-unlabeled selection: which unlabeled cells stand for unpromising ground."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import torch

from mpm import mae
from mpm.fine_tuning import FineTuneSettings
from mpm.folds import Fold
from mpm.labels import likely_negatives
from mpm.memory import enough_memory
from mpm.windows import Windows


def choose_negatives(
    fold: Fold,
    positive: np.ndarray,
    settings: FineTuneSettings,
    *,
    seed: int,
    encoder: mae.Encoder | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Draw negatives (count,) from a fold's unlabeled training centres, as the settings say.

    Parameters
    ----------
    fold : Fold
    positive : array (all centres,) of bool
    settings : FineTuneSettings
    seed : int
    encoder, device
        As for `cell_features`.
    """
    known, unlabeled = fold.train[positive[fold.train]], fold.train[~positive[fold.train]]
    quantiles = settings.quantiles if settings.negatives == "likely" else (0.0, 1.0)
    count = settings.per_positive * len(known)
    features = cell_features(fold.windows, settings, encoder, device=device)
    return likely_negatives(features, known, unlabeled, quantiles=quantiles, count=count, seed=seed)


def cell_features(
    windows: Windows,
    settings: FineTuneSettings,
    encoder: mae.Encoder | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that gives the features in which likely negatives are told.

    Parameters
    ----------
    windows : Windows
    settings : FineTuneSettings
        negatives_by "cells": the centre cell's standardised layers, as in the paper's code;
        "backbone": the mean token of the window.
    encoder : Encoder, optional
        Needed for "backbone"; copied, not changed.
    device : device
        Where it runs.

    Returns
    -------
    function
        (n,) numbers of centres -> (n, d) float32, nothing being computed before it is called.

    Raises
    ------
    ValueError
        If the backbone is asked for and no encoder is given.
    """
    if settings.negatives_by == "cells":
        return windows.centres
    if encoder is None:
        raise ValueError('negatives_by "backbone" needs an encoder; give one, or use "cells"')
    return partial(embed, deepcopy(encoder).to(device).eval(), windows.to(device))


@torch.no_grad()
def embed(
    encoder: mae.Encoder, windows: Windows, index: np.ndarray, *, batch: int = 256
) -> np.ndarray:
    """Return the mean token of windows: (n, width) float32, the backbone's feature of a cell.

    Parameters
    ----------
    encoder : Encoder
    windows : Windows
        On the same device.
    index : array (n,) of int
        Centres.
    batch : int
        Windows at a time.

    Raises
    ------
    ValueError
        If one is not finite.
    """
    found = torch.empty(len(index), encoder.config.width, device=windows.canvas.device)
    with enough_memory("the backbone's features", windows, batch):
        made = windows.map(lambda *part: encoder(*part)[:, 1:].mean(dim=1), index, batch)
        for k, part in enumerate(made):
            found[k * batch : (k + 1) * batch] = part
    if not found.isfinite().all():
        raise ValueError(
            "the backbone's features are not finite: look for extreme values in the evidence "
            "layers, or pretrain it again in notebook 02_mae_pretraining"
        )
    return found.cpu().numpy()
