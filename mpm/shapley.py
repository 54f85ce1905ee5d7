"""Shapley values: a score shared fairly among evidence layers, of trees and of the network.

A game says what a cell scores when only some layers are known. A layer that is not known is that
of background cells, one after the other, and the scores are averaged. So nothing is asked of a
model that is no real value of the layer, although layers may meet that never do in nature.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator

from mpm.classifier import Classifier
from mpm.memory import give_memory_back
from mpm.windows import Windows

# number of a cell, known players (m, players) bool -> mean scores (m,) float64
Game = Callable[[int, np.ndarray], np.ndarray]
EXACT = 8  # players up to which all coalitions are scored
AT_ONCE = 128  # windows a pass


def tree_shap(model: BaseEstimator, features: np.ndarray) -> np.ndarray:
    """Return SHAP values of a fitted tree model for the positive class: (n, layers).

    They are parts of the log odds in gradient boosting, of the probability in a forest.

    Parameters
    ----------
    model : HistGradientBoostingClassifier or RandomForestClassifier
        Fitted.
    features : array (n, layers)
        NaN where missing.

    Raises
    ------
    ValueError
        If the values do not have one number a cell and layer.

    Source: Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9 (TreeExplainer).
    """
    import shap  # slow to import, and needed in two functions only

    values = np.asarray(shap.TreeExplainer(model).shap_values(features))
    if values.ndim == 3:  # (n, layers, classes)
        values = values[:, :, 1]
    if values.shape != features.shape:
        raise ValueError(f"SHAP values have shape {values.shape}, features {features.shape}")
    return values


def players_of(owner: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the players, in the order of their first planes, and each plane's player (planes,)."""
    names = list(dict.fromkeys(map(str, owner)))
    return names, np.array([names.index(str(name)) for name in owner])


def layer_game(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    background: np.ndarray,
    owner: Sequence[str],
) -> Game:
    """Let evidence layers, or groups of them, play for the logit of windows.

    Parameters
    ----------
    classifier : Classifier
        On the device of the windows.
    windows : Windows
    index, background : array (n,) of int
        Centres to explain, and those whose layers stand for unknown ones: values and gaps.
    owner : sequence of str
        Player that each plane belongs to, e.g. its evidence layer or its group.

    Returns
    -------
    Game
    """
    place = players_of(owner)[1]
    return _window_game(
        classifier, windows, index, background, lambda known: known[:, place, None, None]
    )


def patch_game(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    background: np.ndarray,
    patch: int,
) -> Game:
    """Let square patches of a window, all their layers, play for its logit, row by row.

    Parameters
    ----------
    classifier, windows, index, background
        As for `layer_game`.
    patch : int
        Cells along one side, which divides that of the window.
    """

    def spread(known: np.ndarray) -> np.ndarray:
        grid = known.reshape(len(known), 1, windows.size // patch, windows.size // patch)
        return grid.repeat(patch, axis=2).repeat(patch, axis=3)

    return _window_game(classifier, windows, index, background, spread)


def _window_game(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    background: np.ndarray,
    spread: Callable[[np.ndarray], np.ndarray],
) -> Game:
    """`spread` turns players (m, players) into cells of a window, (m, C, H, W) or broadcast so."""
    classifier = classifier.eval()
    others, theirs = windows.gather(background)

    @torch.no_grad()
    def play(cell: int, known: np.ndarray) -> np.ndarray:
        values, observed = windows.gather(index[[cell]])
        scores = []
        for start in range(0, len(known), max(1, AT_ONCE // len(background))):
            part = known[start : start + max(1, AT_ONCE // len(background))]
            keep = torch.from_numpy(spread(np.asarray(part, bool))).to(values.device)[:, None]
            mixed, seen = (
                torch.where(keep, own, other).flatten(0, 1)  # (m, background, C, H, W)
                for own, other in ((values, others), (observed, theirs))
            )
            logit = classifier(mixed, seen).double().reshape(len(part), -1)
            scores.append(logit.mean(dim=1).cpu().numpy())
        return np.concatenate(scores)

    return play


def table_game(
    score: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    background: np.ndarray,
    owner: Sequence[str],
) -> Game:
    """Let evidence layers play for the score of a model on tables.

    Parameters
    ----------
    score : function
        (m, planes) -> (m,), e.g. a `decision_function`.
    features, background : array (n, planes)
        Of the cells to explain, and of those whose layers stand for unknown ones.
    owner : sequence of str
        As for `layer_game`.
    """
    place = players_of(owner)[1]

    def play(cell: int, known: np.ndarray) -> np.ndarray:
        keep = np.asarray(known, bool)[:, None, place]
        mixed = np.where(keep, features[cell], background).reshape(-1, features.shape[1])
        return score(mixed).astype("float64").reshape(len(known), -1).mean(axis=1)

    return play


def shapley_values(
    game: Game, cells: int, players: Sequence[str], *, permutations: int = 3, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Share the scores of cells among the players.

    Up to 8 players the values are exact. Beyond, `shap` averages what each player adds over random
    orders, each run forth and back, so that a cell costs 2 x players + 1 scores an order.

    Parameters
    ----------
    game : Game
    cells : int
        How many, from 0.
    players : sequence of str
        In the order of the game.
    permutations : int
        Random orders a cell.
    seed : int
        Decides them, the same for every cell.

    Returns
    -------
    values : DataFrame (cells, players)
    gap : array (cells,)
        What the values of a cell miss of its score less that of the background, as a share of it:
        Shapley values are efficient, so 0 but for rounding.

    Source: Lundberg and Lee 2017, arXiv:1705.07874; Strumbelj and Kononenko 2014,
    doi:10.1007/s10115-013-0679-x (sampled orders).
    """
    import shap  # slow to import, and needed in two functions only

    count = len(players)
    rows, gap = np.empty((cells, count)), np.empty(cells)
    for cell in range(cells):
        # a cell is a row of ones, each of which a coalition keeps or turns to 0
        score, everything = _scored(game, cell), np.ones((1, count))
        given = (score, lambda mask, row: (row * mask)[None])
        if count <= EXACT:
            found = shap.ExactExplainer(*given)(everything, batch_size=2**count, silent=True)
        else:
            each = 2 * count + 1
            found = shap.PermutationExplainer(*given, seed=seed)(
                everything, max_evals=permutations * each, batch_size=each, silent=True
            )
        rows[cell] = found.values[0]
        none, whole = game(cell, np.array([[False], [True]]).repeat(count, axis=1))
        gap[cell] = abs(rows[cell].sum() - (whole - none)) / max(abs(whole - none), 1e-3)
    return pd.DataFrame(rows, columns=list(players)), gap


def network_shapley(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    background: np.ndarray,
    owner: Sequence[str],
    *,
    permutations: int = 3,
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[pd.DataFrame, np.ndarray]:
    """Share the logit of windows among evidence layers, or groups of them.

    Parameters
    ----------
    classifier, windows, index, background, owner
        As for `layer_game`, on any device.
    permutations, seed
        As for `shapley_values`.
    device : device
        Where the network runs.

    Returns
    -------
    DataFrame, array (n, players)
        As of `shapley_values`.
    """
    give_memory_back()
    game = layer_game(
        classifier.to(device), windows.to(device), np.asarray(index), background, owner
    )
    found = shapley_values(
        game, len(index), players_of(owner)[0], permutations=permutations, seed=seed
    )
    classifier.cpu()
    return found


def _scored(game: Game, cell: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: game(cell, rows > 0.5)
