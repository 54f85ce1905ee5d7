"""Tasks: what a fold asks of a method, and what a fitted method gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from mpm import baselines
from mpm.labels import sample_cells

if TYPE_CHECKING:  # torch takes seconds to import, which tables of numbers need not wait for
    import torch
    import xarray as xr
    from sklearn.base import BaseEstimator

    from mpm import mae
    from mpm.folds import Fold
    from mpm.windows import Windows


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
        Pretrained on the training cells, for the methods of `methods.NEEDS_BACKBONE`. Transformers
        that are not pretrained are of its size, or of the preset's where there is none.
    device : device or str
        Of networks, which compute on as many threads as torch is set to.
    kept : dict
        What methods of one fold share, so that it is computed once: features of the backbone.
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
    kept: dict = field(default_factory=dict)


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


def shuffle_labels(task: Task) -> Task:
    """Deal labels anew among the positive training cells and as many others, and in validation.

    With equal numbers a label and its contrary are alike, so that no ground is favoured and the
    expected AUC is 0.5 wherever the test deposits lie. Were the few positive labels dealt among all
    cells, a tree would still call ground of few training cells unlikely, for it seldom got one of
    them, and deposits on common ground would score above 0.5 (0.56 on the demo, without any leak).

    Returns
    -------
    Task
        Its fold has these training and validation cells only.
    """
    rng = np.random.default_rng(task.seed)
    positive, deposit, parts = task.positive.copy(), task.deposit.copy(), {}
    for part in ("train", "validation"):
        index = getattr(task.fold, part)
        known, other = index[task.positive[index]], index[~task.positive[index]]
        few = rng.choice(other, min(len(known), len(other)), replace=False)
        kept = np.sort(np.concatenate([known, few]))
        dealt = rng.permutation(kept)
        positive[kept], deposit[kept] = task.positive[dealt], task.deposit[dealt]
        parts[part] = kept
    fold = replace(task.fold, train=parts["train"], validation=parts["validation"])
    return replace(task, fold=fold, positive=positive, deposit=deposit)


def some(task: Task, part: str, most: int) -> np.ndarray:
    """Return positive centres of "train" or "validation" and at most `most` others, sorted (n,)."""
    return sample_cells(getattr(task.fold, part), task.positive, most, seed=task.seed)[0]


def fit_best(
    make: "Callable[..., BaseEstimator]",
    grid: Sequence[dict],
    see: "Callable[[Windows, np.ndarray], np.ndarray]",
    task: Task,
    train: np.ndarray,
    few: np.ndarray,
    judged: np.ndarray,
) -> Scorer:
    """Fit candidates on few of the training centres, and the best of them on all.

    Parameters
    ----------
    make : callable
        Keyword settings to an estimator that is not yet fitted.
    grid : sequence of dict
        The settings of the candidates.
    see : callable
        Windows and numbers of centres (n,) to a table (n, columns).
    task : Task
    train, few : array (n,) of int
        Centres that the winner and the candidates are fitted on; `few` are some of `train`.
    judged : array (n,) of int
        Validation centres that choose the winner, see `baselines.choose`.

    Returns
    -------
    Scorer
    """
    windows, positive = task.fold.windows, task.positive
    table, own = see(windows, train), np.isin(train, few)
    candidates = [make(**settings) for settings in grid]
    known = table[own], positive[train[own]]
    best = baselines.choose(candidates, *known, see(windows, judged), positive[judged])
    model = candidates[best] if own.all() else make(**grid[best]).fit(table, positive[train])
    return Scorer(partial(_probability, model, see), dict(grid[best]), model)


def _probability(
    model: "BaseEstimator",
    see: "Callable[[Windows, np.ndarray], np.ndarray]",
    windows: "Windows",
    index: np.ndarray,
) -> np.ndarray:
    return model.predict_proba(see(windows, index))[:, 1]
