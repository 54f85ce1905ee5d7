"""Methods on tables of cells: what a deep network has to beat.

All of them `fit(X, y)` and `predict_proba(X)`: `X (n, layers)` holds standardised evidence, NaN
where missing, `y (n,)` is True in deposit cells.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from mpm.weights_of_evidence import WeightsOfEvidence, checked, checked_labels

BINS = 32  # of boosting; no worse than 255 on the demo's folds, and four times as fast
# What may be chosen of each method: four candidates, of which validation cells pick one.
CANDIDATES: dict[str, tuple[dict, ...]] = {
    "weights_of_evidence": tuple(
        {"bins": bins, "min_studentised": least} for bins in (10, 5) for least in (1.96, 4.0)
    ),
    # wide steps: the best lies inside for single cells as for hundreds of features
    "logistic_regression": tuple({"C": strength} for strength in (10.0, 0.3, 0.01, 0.0003)),
    "random_forest": tuple(
        {"min_samples_leaf": leaf, "max_features": share}
        for leaf in (5, 20)
        for share in ("sqrt", 0.3)
    ),
    "gradient_boosting": tuple(
        {"learning_rate": rate, "max_leaf_nodes": leaves}
        for rate in (0.1, 0.03)
        for leaves in (15, 5)
    ),
    "pu_bagging": tuple(
        {"per_positive": count, "min_samples_leaf": leaf} for count in (1, 5) for leaf in (1, 5)
    ),
}


def make(method: str, seed: int, layers: Sequence[str], **settings: Any) -> BaseEstimator:
    """Return an estimator that is not yet fitted.

    It gives probabilities for any row, also one without a single observation. Positives are rare,
    so logistic regression and trees weight both classes alike: they rank cells, and their
    probabilities must be calibrated before they are read as such.

    Parameters
    ----------
    method : str
        One of `CANDIDATES`.
    seed : int
        Of trees; the other methods draw nothing.
    layers : sequence of str
        Names of the columns of `X`.
    **settings
        As of `CANDIDATES`; by default those of the first candidate.

    Raises
    ------
    ValueError
        If the method is unknown.
    """
    if method not in CANDIDATES:
        raise ValueError(f"{method!r} is none of {', '.join(CANDIDATES)}")
    layers, settings = tuple(layers), CANDIDATES[method][0] | settings
    if method == "weights_of_evidence":
        return WeightsOfEvidence(layers, **settings)
    if method == "gradient_boosting":
        return make_pipeline(CheckLayers(layers), QuantileBins(), _boosting(seed, **settings))
    if method == "logistic_regression":
        model = LogisticRegression(class_weight="balanced", max_iter=2000, **settings)
        return make_pipeline(CheckLayers(layers), _imputer(), model)
    if method == "pu_bagging":
        return make_pipeline(CheckLayers(layers), _imputer(), PUBagging(seed=seed, **settings))
    forest = RandomForestClassifier(
        n_estimators=100,
        max_samples=0.1,  # of the cells a tree: no worse than all, and ten times as fast
        class_weight="balanced_subsample",
        random_state=seed,
        **settings,
    )
    return make_pipeline(CheckLayers(layers), _imputer(), forest)


def make_baselines(seed: int, layers: Sequence[str]) -> dict[str, BaseEstimator]:
    """Return every method of `CANDIDATES` by name, with its default settings, not yet fitted."""
    return {method: make(method, seed, layers) for method in CANDIDATES}


def choose(
    candidates: Sequence[BaseEstimator],
    X: np.ndarray,
    y: np.ndarray,
    judged: np.ndarray,
    truth: np.ndarray,
) -> int:
    """Fit candidates and return the number of the one that ranks other cells best.

    Parameters
    ----------
    candidates : sequence of estimator
        They are left fitted.
    X : array (n, layers)
    y : array (n,)
        Training cells.
    judged : array (m, layers)
    truth : array (m,)
        Validation cells. The first of the candidates with the highest average precision wins.
    """
    scores = [
        average_precision_score(truth, model.fit(X, y).predict_proba(judged)[:, 1])
        for model in candidates
    ]
    return int(np.argmax(scores))


def _imputer() -> SimpleImputer:
    """Zero is the training mean of a standardised layer; the indicator says it was missing."""
    return SimpleImputer(
        strategy="constant", fill_value=0.0, add_indicator=True, keep_empty_features=True
    )


class _Boosting(HistGradientBoostingClassifier):
    """Gradient boosting that keeps to one thread on small tables; the result is the same.

    On a busy machine the threads of 20 000 small steps wait for each other: 20 s instead of 0.2 s.
    """

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        with threadpool_limits(1 if np.size(X) < _SMALL else None, user_api="openmp"):
            return super().fit(X, y)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        with threadpool_limits(1 if np.size(X) < _SMALL else None, user_api="openmp"):
            return super().predict_proba(X)


_SMALL = 10_000_000  # values in a table


def _boosting(seed: int, **settings: float) -> _Boosting:
    """Takes NaN as it is: each split learns on which side missing cells belong."""
    return _Boosting(
        max_iter=100,
        max_bins=BINS,
        min_samples_leaf=10,
        l2_regularization=1.0,
        class_weight="balanced",
        # stopping early would hold out random cells, neighbours of those trained on
        early_stopping=False,
        random_state=seed,
        **settings,
    )


class QuantileBins(TransformerMixin, BaseEstimator):
    """Replace values by the number of their bin, NaN staying NaN; both classes weigh alike.

    Boosting finds all but the same bins; where cells have weights it sorts a column once a bin,
    which takes most of a fit.

    Parameters
    ----------
    bins : int
        Of equal weight; a column of fewer different values has a bin for each.

    Attributes
    ----------
    edges_ : list of ndarray
        Highest value of every bin but the last, a column each.
    """

    def __init__(self, bins: int = BINS):
        self.bins = bins

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Find the bins of evidence (n, layers) with labels (n,)."""
        weights = compute_sample_weight("balanced", y)
        self.edges_ = [self._edges(np.asarray(column, float), weights) for column in X.T]
        return self

    def _edges(self, column: np.ndarray, weights: np.ndarray) -> np.ndarray:
        seen = ~np.isnan(column)
        values = np.unique(column[seen])
        if len(values) <= self.bins:
            return (values[1:] + values[:-1]) / 2
        shares = np.linspace(0, 1, self.bins + 1)[1:-1]
        given = {"weights": weights[seen], "method": "inverted_cdf"}
        return np.unique(np.quantile(column[seen], shares, **given))

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the numbers of bins (n, layers)."""
        found = np.full(X.shape, np.nan)
        for number, (column, edges) in enumerate(zip(X.T, self.edges_, strict=True)):
            seen = ~np.isnan(column)
            found[seen, number] = np.searchsorted(edges, column[seen])
        return found


class PUBagging(ClassifierMixin, BaseEstimator):
    """Bagged trees that tell positives from small random samples of the unlabeled cells.

    Among few unlabeled cells few are undiscovered deposits, and other ones in every sample: trees
    disagree about these and agree about unpromising ground. The mean of their votes is the score.

    Parameters
    ----------
    seed : int
    trees : int
    per_positive : int
        Unlabeled cells, drawn with replacement, a positive cell.
    min_samples_leaf : int
        Cells.

    Source: Mordelet & Vert 2014, Pattern Recognition Letters 37, 201-209, algorithm 1 (inductive).
    """

    def __init__(
        self, *, seed: int, trees: int = 100, per_positive: int = 1, min_samples_leaf: int = 1
    ):
        self.seed = seed
        self.trees = trees
        self.per_positive = per_positive
        self.min_samples_leaf = min_samples_leaf

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Grow the trees on evidence (n, layers) without gaps and labels (n,)."""
        rng = np.random.default_rng(self.seed)
        known, unlabeled = np.flatnonzero(y), np.flatnonzero(~np.asarray(y, bool))
        self.trees_ = []
        for _ in range(self.trees):
            index = np.concatenate([known, rng.choice(unlabeled, self.per_positive * len(known))])
            tree = DecisionTreeClassifier(
                max_features="sqrt",
                class_weight="balanced",
                min_samples_leaf=self.min_samples_leaf,
                random_state=int(rng.integers(2**31)),
            )
            self.trees_.append(tree.fit(X[index], np.arange(len(index)) < len(known)))
        self.classes_ = np.array([False, True])
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the mean vote of the trees, (n, 2)."""
        return np.mean([tree.predict_proba(X) for tree in self.trees_], axis=0)


class CheckLayers(TransformerMixin, BaseEstimator):
    """Pass evidence through, or say what is wrong with it.

    Layers that no training cell observed become 0 everywhere: nothing was learnt about them.

    Parameters
    ----------
    layers : tuple of str
        Names of the columns.

    Attributes
    ----------
    unobserved_ : ndarray (layers,)
        True where training held no value.
    """

    def __init__(self, layers: tuple[str, ...]):
        self.layers = layers

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Check evidence (n, layers) and labels (n,).

        Raises
        ------
        ValueError
            If the columns are not the layers, the lengths differ, or a class has no cell.
        """
        evidence = checked(X, self.layers)
        checked_labels(y, len(evidence))
        self.unobserved_ = np.isnan(evidence).all(axis=0)
        self.n_features_in_ = len(self.layers)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the evidence (n, layers), 0 in layers unobserved in training.

        Raises
        ------
        ValueError
            If the columns are not the layers.
        """
        evidence = checked(X, self.layers)
        return np.where(self.unobserved_, 0.0, evidence) if self.unobserved_.any() else evidence
