"""Methods on the values of single cells: what a deep network has to beat.

All of them `fit(X, y)` and `predict_proba(X)`: `X (n, layers)` holds standardised evidence, NaN
where missing, `y (n,)` is True in deposit cells.
"""

from collections.abc import Sequence
from typing import Self

import joblib
import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits


def make_baselines(seed: int, layers: Sequence[str]) -> dict[str, BaseEstimator]:
    """Return the baselines by name, not yet fitted.

    Each gives probabilities for any row, also one without a single observation. Positives are rare,
    so logistic regression and trees weight both classes alike: they rank cells, and their
    probabilities must be calibrated before they are read as such.

    Parameters
    ----------
    seed : int
        Of the random forest and of gradient boosting; the other two draw nothing.
    layers : sequence of str
        Names of the columns of `X`.

    Returns
    -------
    dict of estimator
        `weights_of_evidence`, `logistic_regression`, `random_forest`, `gradient_boosting`.
    """
    layers = tuple(layers)
    return {
        "weights_of_evidence": WeightsOfEvidence(layers),
        "logistic_regression": make_pipeline(
            CheckLayers(layers),
            _imputer(),
            LogisticRegression(class_weight="balanced", max_iter=2000),
        ),
        "random_forest": make_pipeline(
            CheckLayers(layers),
            _imputer(),
            _Forest(
                n_estimators=300,
                min_samples_leaf=5,  # cells; smaller leaves memorise single deposits
                class_weight="balanced_subsample",
                random_state=seed,
            ),
        ),
        "gradient_boosting": make_pipeline(CheckLayers(layers), _boosting(seed)),
    }


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


def _boosting(seed: int) -> _Boosting:
    """Takes NaN as it is: each split learns on which side missing cells belong."""
    return _Boosting(
        learning_rate=0.05,
        max_iter=200,
        max_leaf_nodes=15,
        min_samples_leaf=10,
        l2_regularization=1.0,
        class_weight="balanced",
        # stopping early would hold out random cells, neighbours of those trained on
        early_stopping=False,
        random_state=seed,
    )


class _Forest(RandomForestClassifier):
    """A random forest that grows trees on two threads and adds up their votes on one.

    Threads would add the votes in any order, and the last digit would differ between runs.
    """

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        with joblib.parallel_config(backend="threading", n_jobs=2):
            return super().fit(X, y)


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
        evidence = _checked(X, self.layers)
        _checked_labels(y, len(evidence))
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
        evidence = _checked(X, self.layers)
        return np.where(self.unobserved_, 0.0, evidence) if self.unobserved_.any() else evidence

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return the layer names (layers,)."""
        return np.asarray(self.layers, dtype=object)


def _checked(evidence: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    evidence = np.asarray(evidence)
    if evidence.ndim != 2 or evidence.shape[1] != len(layers):
        raise ValueError(
            f"X is {evidence.shape} but must be (cells, {len(layers)}), one column for each of: "
            f"{', '.join(layers)}"
        )
    return evidence


def _checked_labels(labels: np.ndarray, cells: int) -> np.ndarray:
    labels = np.asarray(labels).astype(bool)
    if labels.shape != (cells,):
        raise ValueError(f"y is {labels.shape} but X has {cells} cells; give one label a cell")
    if not labels.any():
        raise ValueError("y holds no positive cell; check the target and the training mask")
    if labels.all():
        raise ValueError("y holds no negative cell; check the target and the training mask")
    return labels


class WeightsOfEvidence(ClassifierMixin, BaseEstimator):
    """Weights of evidence, the field's own method.

    Each layer is cut into a binary pattern B, whose weights are, D being deposit cells,

        W+ = ln P(B|D) / P(B|~D)        s2(W+) = 1/N(B,D) + 1/N(B,~D)
        W- = ln P(~B|D) / P(~B|~D)      s2(W-) = 1/N(~B,D) + 1/N(~B,~D)

    with contrast C = W+ - W-. Of all cuts (deciles of the training values; 1 in a binary layer) in
    both directions, >= and <=, the one of the largest studentised contrast C / s(C), s2(C) =
    s2(W+) + s2(W-), is kept. The logit of the posterior is the prior's plus the weights of all
    layers; a missing value weighs 0. Where one of the four counts is zero, a half is added to each,
    so that a pattern that holds every deposit keeps finite weights.

    Parameters
    ----------
    layers : tuple of str
        Names of the columns of `X`.
    min_studentised : float
        Layers whose best C / s(C) lies below are left out. 1.96 is customary; as the cut is the
        best of up to 18 and deposit cells cluster, it is no test at the 5 % level.
    min_deposits : int
        Deposit cells that a pattern must hold, else its cut is not considered.

    Attributes
    ----------
    table_ : DataFrame
        One row a layer: layer, cut, direction (">=" or "<="), n_inside, deposits_inside (cells),
        w_plus, w_minus, contrast, studentised (dimensionless), used.
    prior_logit_ : float
        Of the share of deposit cells in training.
    ci_ratio_ : float
        Deposit cells observed in training over those predicted, N(D) / sum of posteriors. Well
        below 1 (customarily 0.85) the layers are not conditionally independent given deposits, and
        posteriors are too high.

    Source: Agterberg, Bonham-Carter & Wright 1990; Bonham-Carter 1994, chapter 9. The ratio:
    Agterberg & Cheng 2002, Natural Resources Research 11.
    """

    def __init__(
        self, layers: tuple[str, ...], *, min_studentised: float = 1.96, min_deposits: int = 3
    ):
        self.layers = layers
        self.min_studentised = min_studentised
        self.min_deposits = min_deposits

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Cut each layer and weigh it.

        Parameters
        ----------
        X : ndarray (n, layers)
            Evidence, NaN where missing.
        y : ndarray (n,)
            True in deposit cells.

        Raises
        ------
        ValueError
            If the columns are not the layers, the lengths differ, or a class has no cell.
        """
        evidence = _checked(X, self.layers)
        labels = _checked_labels(y, len(evidence))
        rows = [
            {"layer": name} | _best_cut(evidence[:, column], labels, self.min_deposits)
            for column, name in enumerate(self.layers)
        ]
        self.table_ = pd.DataFrame(rows)
        self.table_["used"] = self.table_["studentised"] >= self.min_studentised
        self.classes_ = np.array([False, True])
        self.n_features_in_ = len(self.layers)
        self.prior_logit_ = float(logit(labels.mean()))
        self.ci_ratio_ = float(labels.sum() / self.predict_proba(evidence)[:, 1].sum())
        return self

    def weights(self, X: np.ndarray) -> np.ndarray:
        """Return the weight of each layer in each cell, in logits (n, layers).

        Raises
        ------
        ValueError
            If the columns are not the layers.
        """
        evidence = _checked(X, self.layers)
        return np.column_stack(
            [_look_up(evidence[:, i], row) for i, row in enumerate(self.table_.itertuples())]
        )

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the posterior of no deposit and deposit, (n, 2).

        Raises
        ------
        ValueError
            If the columns are not the layers.
        """
        evidence = _checked(X, self.layers)
        total = np.full(len(evidence), self.prior_logit_)
        for column, row in enumerate(self.table_.itertuples()):
            total += _look_up(evidence[:, column], row)  # a layer at a time, to spare memory
        posterior = expit(total)
        return np.column_stack([1 - posterior, posterior])

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return cells with a posterior of one half or more (n,)."""
        return self.predict_proba(X)[:, 1] >= 0.5


def _look_up(values: np.ndarray, row: tuple) -> np.ndarray:
    """Weights (n,) of one layer's values (n,) by its row of the table."""
    if not row.used:
        return np.zeros(len(values))
    inside = values >= row.cut if row.direction == ">=" else values <= row.cut
    return np.where(np.isnan(values), 0.0, np.where(inside, row.w_plus, row.w_minus))


def _best_cut(values: np.ndarray, labels: np.ndarray, min_deposits: int) -> dict:
    """The cut of one layer (n,) with the largest studentised contrast; NaN if there is none."""
    observed = ~np.isnan(values)
    steps, first = np.unique(values[observed], return_inverse=True)
    cells = np.bincount(first, minlength=len(steps))
    deposits = np.bincount(first[labels[observed]], minlength=len(steps))
    if len(steps) < 2:
        return _row()
    # A split between two successive values makes two patterns, >= above it and <= below it. Both
    # neighbours of a decile are split, or a layer with over 90 % zeros would have no cut.
    deciles = np.quantile(values[observed], np.linspace(0.1, 0.9, 9))
    splits = np.unique(np.concatenate([np.searchsorted(steps, deciles, s) for s in _SIDES]))
    splits = splits[(splits > 0) & (splits < len(steps))]
    below, deposits_below = np.cumsum(cells)[splits - 1], np.cumsum(deposits)[splits - 1]
    inside = np.concatenate([cells.sum() - below, below])
    deposits_inside = np.concatenate([deposits.sum() - deposits_below, deposits_below])
    cuts = np.concatenate([steps[splits], steps[splits - 1]])
    plus, minus, deviation = _weigh(inside, deposits_inside, cells.sum(), deposits.sum())
    studentised = np.where(deposits_inside >= min_deposits, (plus - minus) / deviation, -np.inf)
    best = int(np.argmax(studentised))
    if not np.isfinite(studentised[best]):
        return _row()
    return _row(
        float(cuts[best]),
        ">=" if best < len(splits) else "<=",
        int(inside[best]),
        int(deposits_inside[best]),
        float(plus[best]),
        float(minus[best]),
        float(plus[best] - minus[best]),
        float(studentised[best]),
    )


_SIDES = ("left", "right")
_COLUMNS = {
    "cut": np.nan,
    "direction": "",
    "n_inside": 0,
    "deposits_inside": 0,
    "w_plus": np.nan,
    "w_minus": np.nan,
    "contrast": np.nan,
    "studentised": np.nan,
}


def _row(*items: float | str) -> dict:
    """Items under the column names of the table, or what a layer without a cut holds."""
    return dict(zip(_COLUMNS, items, strict=True)) if items else dict(_COLUMNS)


def _weigh(
    inside: np.ndarray, deposits_inside: np.ndarray, cells: int, deposits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W+, W- and s(C) of patterns (k,) from their cells and deposit cells."""
    counts = np.array(
        [
            deposits_inside,
            inside - deposits_inside,
            deposits - deposits_inside,
            cells - inside - (deposits - deposits_inside),
        ],
        dtype="float64",
    )
    counts += 0.5 * (counts == 0).any(axis=0)
    hit, false_alarm, miss, rejection = counts
    plus = np.log(hit / (hit + miss)) - np.log(false_alarm / (false_alarm + rejection))
    minus = np.log(miss / (hit + miss)) - np.log(rejection / (false_alarm + rejection))
    return plus, minus, np.sqrt((1 / counts).sum(axis=0))
