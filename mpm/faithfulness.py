"""Do explanations hold? Tests that a method can fail, each with an interval over cells."""

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from mpm.shapley import Game

# Test, in the order of the table: what its value must be to hold, and what it says.
LIMITS = {
    "deletion": (">", 0.0),
    "insertion": (">", 0.0),
    "agreement": (">", 0.5),
    "randomised weights": ("<", 0.5),
    "small noise": (">", 0.9),
    "other seeds": (">", 0.5),
    "causal above distractors": (">", 0.5),
    "causal above proxies": (">", 0.5),
}
MEANING = {
    "deletion": "score lost sooner than in random order, as an area",
    "insertion": "score won sooner than in random order, as an area",
    "agreement": "rank correlation of importance with another method",
    "randomised weights": "rank correlation with the explanation of a network of shuffled weights,"
    " of contributions or of their sizes",
    "small noise": "rank correlation with the explanation of slightly changed evidence",
    "other seeds": "rank correlation with the explanation of networks trained from other seeds",
    "causal above distractors": "chance that a causal layer ranks above an irrelevant one (AUC)",
    "causal above proxies": "chance that a causal layer ranks above one that goes along with a"
    " cause (AUC)",
}
OTHER_MODELS = ("tree SHAP", "contrast")  # that disagree with a network speaks against neither
EXACT = 20_000  # ways to deal roles up to which all are counted
DRAWS = 1000  # bootstrap samples of cells


def interval(
    statistic: Callable[[np.ndarray], float], cells: int, *, seed: int, draws: int = DRAWS
) -> tuple[float, float, float]:
    """Return a statistic of cells and its 95 % interval when cells are drawn again.

    Parameters
    ----------
    statistic : function
        Numbers of cells (n,), some of them several times -> value.
    cells : int
    seed : int
    draws : int

    Returns
    -------
    value, low, high : float
        Neighbouring cells are alike, so the true interval is wider.
    """
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(cells, size=cells)) for _ in range(draws)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(statistic(np.arange(cells))), float(low), float(high)


def mean_interval(values: np.ndarray, *, seed: int) -> tuple[float, float, float]:
    """Return the mean of cells' values (n,), NaN left out, and its 95 % interval."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan, np.nan
    return interval(lambda drawn: known[drawn].mean(), len(known), seed=seed)


def removal_curves(
    game: Game, values: np.ndarray, *, seed: int, draws: int = 1
) -> dict[str, np.ndarray]:
    """Take players away, or bring them in, in the order of their contributions.

    Parameters
    ----------
    game : Game
    values : array (n, players)
        Signed contributions; what speaks most for a deposit goes, or comes, first.
    seed : int
        Decides the random orders, `draws` of them a cell, that the curves are compared with.
    draws : int

    Returns
    -------
    dict of array (n, players + 1)
        "deletion", "insertion", "deletion at random", "insertion at random": scores as a share of
        the way from none of the players known (0) to all of them (1); NaN for a cell that scores
        as the background does.

    Source: Petsiuk et al. 2018, arXiv:1806.07421, section 3.3, with background in place of grey.
    """
    rng = np.random.default_rng(seed)
    count = values.shape[1]
    names = ("deletion", "insertion", "deletion at random", "insertion at random")
    curves = {name: np.empty((len(values), count + 1)) for name in names}
    for cell, own in enumerate(values):
        orders = [np.argsort(-own, kind="stable")] + [rng.permutation(count) for _ in range(draws)]
        known = np.concatenate([_steps(order) for order in orders])  # of insertion
        scores = game(cell, np.concatenate([known, ~known])).reshape(2, 1 + draws, count + 1)
        none, whole = scores[0, 0, [0, -1]]
        scores = (scores - none) / (whole - none if whole != none else np.nan)
        for k, way in enumerate(("insertion", "deletion")):
            curves[way][cell] = scores[k, 0]
            curves[f"{way} at random"][cell] = scores[k, 1:].mean(axis=0)
    return curves


def _steps(order: np.ndarray) -> np.ndarray:
    """Who is known after 0, 1 ... all players came in an order: (players + 1, players) bool."""
    rank = np.argsort(order)
    return rank < np.arange(len(order) + 1)[:, None]


def patch_sums(attribution: np.ndarray, patch: int) -> np.ndarray:
    """Sum attributions over all layers of square patches, row by row.

    (n, layers, size, size) -> (n, patches).
    """
    n, _, size, _ = attribution.shape
    tiles = attribution.sum(axis=1).reshape(n, size // patch, patch, size // patch, patch)
    return tiles.sum(axis=(2, 4)).reshape(n, -1)


def middle_share(sums: np.ndarray) -> float:
    """Return which share of the size of patches' contributions (n, patches) the middle one holds.

    The mean over cells, those without any contribution left out.
    """
    size = np.abs(sums)
    whole = size.sum(axis=1)
    known = whole > 0
    return float((size[known, size.shape[1] // 2] / whole[known]).mean())


def areas(curves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return how far curves run on the right side of random order: way to areas (n,).

    0 is no better than random order; the larger the better.
    """
    gained = {
        "deletion": curves["deletion at random"] - curves["deletion"],
        "insertion": curves["insertion"] - curves["insertion at random"],
    }
    return {
        way: np.trapezoid(part, dx=1 / (part.shape[1] - 1), axis=1) for way, part in gained.items()
    }


def row_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return each cell's rank correlation over layers: (n, layers) twice -> (n,).

    NaN for a cell whose contributions are all alike.
    """
    ranks = [rankdata(values, axis=1) for values in (one, other)]
    first, second = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    size = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return (first * second).sum(axis=1) / size


def agreement(
    values: Mapping[str, pd.DataFrame], fixed: Mapping[str, pd.Series], *, seed: int
) -> pd.DataFrame:
    """Correlate the importance that methods give to layers, pair by pair.

    Parameters
    ----------
    values : mapping
        Method to contributions (n, layers) of the same cells.
    fixed : mapping
        Method to one value a layer, e.g. the contrast of weights of evidence; its size counts.
    seed : int

    Returns
    -------
    DataFrame
        method, other, value (Spearman over layers), low, high (95 % over cells).
    """
    layers = next(iter(values.values())).columns
    sizes = {name: table[layers].abs().to_numpy() for name, table in values.items()}
    constant = {name: one.abs().reindex(layers).fillna(0).to_numpy() for name, one in fixed.items()}
    names = [*sizes, *constant]
    cells = len(next(iter(sizes.values())))
    rows = []
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            if one in constant and other in constant:
                continue

            def correlation(drawn: np.ndarray, pair: tuple = (one, other)) -> float:
                both = [
                    constant[name] if name in constant else sizes[name][drawn].mean(axis=0)
                    for name in pair
                ]
                return float(row_correlation(both[0][None], both[1][None])[0])

            rows.append((one, other, *interval(correlation, cells, seed=seed)))
    return pd.DataFrame(rows, columns=["method", "other", "value", "low", "high"])


def causal_auc(
    values: pd.DataFrame, roles: Mapping[str, str], against: str, *, seed: int
) -> tuple[float, float, float]:
    """Return the chance that a causal layer is given more importance than one of another role.

    Parameters
    ----------
    values : DataFrame (n, layers)
        Contributions; what counts is their mean size.
    roles : mapping
        Layer to "causal", "proxy" or "distractor".
    against : str
        "proxy" or "distractor": proxies go along with a cause, and may well outweigh it.
    seed : int

    Returns
    -------
    value, low, high : float
        And its 95 % interval over cells; `chance_auc` says what no knowledge gives.
    """
    size, causal = _of_roles(values, roles, against)
    return interval(lambda drawn: _auc(size[drawn].mean(axis=0), causal), len(size), seed=seed)


def chance_auc(
    values: pd.DataFrame, roles: Mapping[str, str], against: str, *, seed: int
) -> tuple[float, float]:
    """Return the middle 95 % of `causal_auc` when the roles are dealt to the layers by chance.

    Few layers take few orders: of 5 causal layers among 16 chance reaches 0.8. All ways to deal
    are counted up to `EXACT` of them, else as many are drawn.

    Parameters
    ----------
    values, roles, against, seed
        As for `causal_auc`.
    """
    size, causal = _of_roles(values, roles, against)
    mean, count = size.mean(axis=0), len(causal)
    if math.comb(count, causal.sum()) <= EXACT:
        dealt = itertools.combinations(range(count), int(causal.sum()))
        deals = (np.isin(np.arange(count), own) for own in dealt)
    else:
        rng = np.random.default_rng(seed)
        deals = (rng.permutation(causal) for _ in range(EXACT))
    low, high = np.quantile([_auc(mean, deal) for deal in deals], [0.025, 0.975])
    return float(low), float(high)


def _of_roles(
    values: pd.DataFrame, roles: Mapping[str, str], against: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (n, layers) of causal layers and those of another role, and which are causal."""
    names = [name for name in values.columns if roles[name] in ("causal", against)]
    return values[names].abs().to_numpy(), np.array([roles[name] == "causal" for name in names])


def _auc(size: np.ndarray, causal: np.ndarray) -> float:
    """Mann and Whitney's share of pairs in which the causal layer is larger."""
    rank, pairs = rankdata(size)[causal], causal.sum() * (~causal).sum()
    return float((rank.sum() - len(rank) * (len(rank) + 1) / 2) / pairs) if pairs else np.nan


def verdicts(
    rows: list[tuple[str, str, tuple[float, float, float]]],
    chance: Mapping[tuple[str, str], float] | None = None,
) -> pd.DataFrame:
    """Say which methods pass which tests, in the order of `LIMITS`.

    Parameters
    ----------
    rows : list of (method, test, (value, low, high))
        Tests of `LIMITS`; a text behind a comma is kept, e.g. "deletion, patches".
    chance : mapping, optional
        (method, test) to what chance alone reaches, where that is more than the limit.

    Returns
    -------
    DataFrame
        method, test, value, low, high, needed (e.g. "> 0.5") and verdict: "holds" where the whole
        interval is on the right side of the limit and of chance, "fails" where all of it is on the
        wrong side of the limit, else "unclear". In place of "fails" stands "differs" where two
        models are compared (`OTHER_MODELS`): both explanations may be right.

    Raises
    ------
    KeyError
        If a test is unknown.
    """
    table = []
    for method, test, (value, low, high) in rows:
        kind, _, other = test.partition(", ")
        side, limit = LIMITS[kind]
        least = max(limit, (chance or {}).get((method, test), limit))
        right, wrong = (low > least, high <= limit) if side == ">" else (high < limit, low >= limit)
        verdict = "holds" if right else "fails" if wrong else "unclear"
        if verdict == "fails" and kind == "agreement" and {method, other} & set(OTHER_MODELS):
            verdict = "differs"
        table.append((method, test, value, low, high, f"{side} {least:.2g}", verdict))
    columns = ["method", "test", "value", "low", "high", "needed", "verdict"]
    order = list(LIMITS)
    table.sort(key=lambda row: order.index(row[1].partition(",")[0]))
    return pd.DataFrame(table, columns=columns)
