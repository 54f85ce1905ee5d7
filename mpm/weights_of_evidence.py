"""Weights of evidence: what each layer says of deposits, counted on patterns of cells."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.base import BaseEstimator, ClassifierMixin

REST = "all others"  # classes that are not told apart


class WeightsOfEvidence(ClassifierMixin, BaseEstimator):
    """Weights of evidence, the field's own method.

    Evidence becomes patterns B of cells, whose weights are, D being deposit cells,

        W+ = ln P(B|D) / P(B|~D)        s2(W+) = 1/N(B,D) + 1/N(B,~D)
        W- = ln P(~B|D) / P(~B|~D)      s2(W-) = 1/N(~B,D) + 1/N(~B,~D)

    with contrast C = W+ - W-, and s2(C) = s2(W+) + s2(W-). The logit of the posterior is the
    prior's plus one weight of each layer; a missing value weighs 0. Where one of the four counts is
    zero, a half is added to each, so that a pattern that holds every deposit keeps finite weights.

    A layer of numbers is cut in two. Of all cuts (quantiles of the training values; 1 in a binary
    layer) in both directions, >= and <=, the one of the largest studentised contrast C / s(C) is
    kept; cells inside weigh W+, those outside W-.

    Planes called "layer=class" are the classes of one layer. Each class is a pattern against all
    others. A class whose studentised contrast is large, positive or negative, weighs its own W+;
    all others are pooled into one pattern, which weighs its W+.

    Parameters
    ----------
    layers : tuple of str
        Names of the columns of `X`.
    bins : int
        Groups of equally many training cells between which layers of numbers may be cut.
    min_studentised : float
        Layers whose best C / s(C) lies below are left out, and classes between it and its negative
        pooled. 1.96 is customary; as the cut is the best of up to 18 and deposit cells cluster, it
        is no test at the 5 % level.
    min_deposits : int
        Deposit cells that a pattern must hold to speak for deposits, else it is not considered.

    Attributes
    ----------
    table_ : DataFrame
        One row a pattern: layer (or "layer=class"), cut, direction (">=" or "<="; "is" for classes
        and what is left of them), n_inside, deposits_inside (cells), w_plus, w_minus, s_plus,
        s_minus (their standard errors), contrast, studentised (dimensionless), used.
    prior_logit_ : float
        Of the share of deposit cells in training.
    ci_ratio_ : float
        Deposit cells observed in training over those predicted, N(D) / T, T being the sum of
        posteriors. Well below 1 (customarily 0.85) the layers are not conditionally independent
        given deposits, and posteriors are too high.
    ci_statistic_ : float
        (T - N(D)) / s(T), about standard normal if they are independent. s2(T) sums (n s(P))2 over
        the distinct combinations of patterns, n being their cells and s2(P) = P2 (1/N(D) + the sum
        of s2(W) of the layers) the variance of their posterior P.
    ci_p_ : float
        Probability of a statistic as large as this if they are independent (one-sided).

    Source: Agterberg, Bonham-Carter & Wright 1990; Bonham-Carter 1994, chapter 9. Ratio and test:
    Agterberg & Cheng 2002, Natural Resources Research 11, 249-255.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        *,
        bins: int = 10,
        min_studentised: float = 1.96,
        min_deposits: int = 3,
    ):
        self.layers = layers
        self.bins = bins
        self.min_studentised = min_studentised
        self.min_deposits = min_deposits

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Find the patterns of each layer and weigh them.

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
        evidence = checked(X, self.layers)
        labels = checked_labels(y, len(evidence))
        self._columns, self._rows, tables = _layers(self.layers), [], []
        for columns in self._columns:
            make = self._classes if "=" in self.layers[columns[0]] else self._cut
            tables.append(make(evidence[:, columns], labels, columns))
            self._rows.append(list(tables[-1].itertuples()))
        self.table_ = pd.concat(tables, ignore_index=True)
        self.classes_ = np.array([False, True])
        self.n_features_in_ = len(self.layers)
        self.prior_logit_ = float(logit(labels.mean()))
        self._test_independence(evidence, int(labels.sum()))
        return self

    def _cut(self, values: np.ndarray, labels: np.ndarray, columns: list[int]) -> pd.DataFrame:
        """Make the row of a layer of numbers (n, 1)."""
        row = _best_cut(values[:, 0], labels, self.bins, self.min_deposits)
        row["used"] = row["studentised"] >= self.min_studentised
        return pd.DataFrame([{"layer": self.layers[columns[0]]} | row])

    def _classes(self, values: np.ndarray, labels: np.ndarray, columns: list[int]) -> pd.DataFrame:
        """Make the rows of the classes (n, classes) of a layer, and of what is left of them."""
        code = _class_codes(values)
        labels, code = labels[code > -2], code[code > -2]
        row = _patterns([code == k for k in range(len(columns))], labels)
        names = [self.layers[column] for column in columns]
        table = pd.DataFrame({"layer": names, "cut": 1.0, "direction": "is"} | row)
        speaks = (table["deposits_inside"] >= self.min_deposits) | (table["contrast"] < 0)
        table["used"] = speaks & (table["studentised"].abs() >= self.min_studentised)
        kept = np.flatnonzero(table["used"])
        left = ~np.isin(code, kept)
        if len(kept) and left.any():
            name = names[0].split("=", 1)[0] + "=" + REST
            rest = {"layer": [name], "cut": np.nan, "direction": "is"} | _patterns([left], labels)
            table = pd.concat([table, pd.DataFrame(rest | {"used": True})], ignore_index=True)
        return table

    def _test_independence(self, evidence: np.ndarray, deposits: int) -> None:
        total: float | np.ndarray = self.prior_logit_
        variance: float | np.ndarray = 1 / deposits
        condition = 0
        for weight, error, pattern in self._weigh(evidence):
            total, variance = total + weight, variance + error**2
            condition = pd.factorize(4096 * condition + pattern)[0]
        posterior = expit(total)
        spread = np.bincount(condition, posterior * np.sqrt(variance))  # n s(P) of each condition
        predicted = posterior.sum()
        self.ci_ratio_ = float(deposits / predicted)
        self.ci_statistic_ = float((predicted - deposits) / np.sqrt((spread**2).sum()))
        self.ci_p_ = float(norm.sf(self.ci_statistic_))

    def _weigh(self, evidence: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the weight, its standard error and the pattern's number (n,), layer by layer."""
        for columns, rows in zip(self._columns, self._rows, strict=True):
            values = evidence[:, columns]  # a layer at a time, to spare memory
            yield (
                _look_up_class(values, rows)
                if rows[0].direction == "is"
                else _look_up(values[:, 0], rows[0])
            )

    def weights(self, X: np.ndarray) -> np.ndarray:
        """Return the weight of each layer in each cell, in logits (n, layers; classes are one).

        Raises
        ------
        ValueError
            If the columns are not the layers.
        """
        return np.column_stack([weight for weight, *_ in self._weigh(checked(X, self.layers))])

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the posterior of no deposit and deposit, (n, 2).

        Raises
        ------
        ValueError
            If the columns are not the layers.
        """
        evidence = checked(X, self.layers)
        total = np.full(len(evidence), self.prior_logit_)
        for weight, *_ in self._weigh(evidence):
            total += weight
        posterior = expit(total)
        return np.column_stack([1 - posterior, posterior])

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return cells with a posterior of one half or more (n,)."""
        return self.predict_proba(X)[:, 1] >= 0.5


def checked(evidence: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    """Return evidence (cells, layers).

    Raises
    ------
    ValueError
        If the columns are not the layers.
    """
    evidence = np.asarray(evidence)
    if evidence.ndim != 2 or evidence.shape[1] != len(layers):
        raise ValueError(
            f"X is {evidence.shape} but must be (cells, {len(layers)}), one column for each of: "
            f"{', '.join(layers)}"
        )
    return evidence


def checked_labels(labels: np.ndarray, cells: int) -> np.ndarray:
    """Return labels (cells,) as bool.

    Raises
    ------
    ValueError
        If there are more or fewer, or a class has no cell.
    """
    labels = np.asarray(labels).astype(bool)
    if labels.shape != (cells,):
        raise ValueError(f"y is {labels.shape} but X has {cells} cells; give one label a cell")
    if not labels.any():
        raise ValueError("y holds no positive cell; check the target and the training mask")
    if labels.all():
        raise ValueError("y holds no negative cell; check the target and the training mask")
    return labels


def _layers(names: Sequence[str]) -> list[list[int]]:
    """Numbers of the columns of each layer: planes "layer=class" belong together."""
    found: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        layer = name.split("=", 1)[0] + "=" if "=" in name else name
        found.setdefault(layer, []).append(column)
    return list(found.values())


def _class_codes(values: np.ndarray) -> np.ndarray:
    """Class (n,) of planes (n, classes): -1 where it is none of them, -2 where it is missing."""
    code = np.where(np.isnan(values).any(axis=1), -2, -1)
    inside = values > 0.5
    return np.where(inside.any(axis=1), inside.argmax(axis=1), code)


def _look_up(values: np.ndarray, row: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight, standard error and number of the pattern (n,) of numbers by their row."""
    if not row.used:
        return np.zeros(len(values)), np.zeros(len(values)), np.zeros(len(values), int)
    inside = values >= row.cut if row.direction == ">=" else values <= row.cut
    pattern = np.where(np.isnan(values), 2, np.where(inside, 0, 1))
    weights, errors = [row.w_plus, row.w_minus, 0.0], [row.s_plus, row.s_minus, 0.0]
    return np.take(weights, pattern), np.take(errors, pattern), pattern


def _look_up_class(values: np.ndarray, rows: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight, standard error and number of the pattern (n,) of class planes by their rows."""
    classes, rest = rows[: values.shape[1]], rows[values.shape[1] :]
    left = (rest[0].w_plus, rest[0].s_plus) if rest else (0.0, 0.0)
    known = [(row.w_plus, row.s_plus) if row.used else left for row in classes]
    weights, errors = np.transpose([*known, (0.0, 0.0), left])  # -2 is missing, -1 another class
    told = [k if row.used else -1 for k, row in enumerate(classes)]
    code = _class_codes(values)
    return weights[code], errors[code], np.array([*told, -2, -1])[code] + 2


def _best_cut(values: np.ndarray, labels: np.ndarray, bins: int, min_deposits: int) -> dict:
    """The cut of one layer (n,) with the largest studentised contrast; NaN if there is none."""
    observed = ~np.isnan(values)
    steps, first = np.unique(values[observed], return_inverse=True)
    cells = np.bincount(first, minlength=len(steps))
    deposits = np.bincount(first[labels[observed]], minlength=len(steps))
    if len(steps) < 2:
        return dict(_NONE)
    # A split between two successive values makes two patterns, >= above it and <= below it. Both
    # neighbours of a quantile are split, or a layer with over 90 % zeros would have no cut.
    quantiles = np.quantile(values[observed], np.arange(1, bins) / bins)
    splits = np.unique([np.searchsorted(steps, quantiles, side) for side in ("left", "right")])
    splits = splits[(splits > 0) & (splits < len(steps))]
    below, deposits_below = np.cumsum(cells)[splits - 1], np.cumsum(deposits)[splits - 1]
    inside = np.concatenate([cells.sum() - below, below])
    deposits_inside = np.concatenate([deposits.sum() - deposits_below, deposits_below])
    found = _weights(inside, deposits_inside, cells.sum(), deposits.sum())
    enough = deposits_inside >= min_deposits
    if not enough.any():
        return dict(_NONE)
    best = int(np.argmax(np.where(enough, found["studentised"], -np.inf)))
    cut = np.concatenate([steps[splits], steps[splits - 1]])[best]
    place = {"cut": float(cut), "direction": ">=" if best < len(splits) else "<="}
    return place | {name: items[best].item() for name, items in found.items()}


def _patterns(insides: list[np.ndarray], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Weights of patterns, each cells (n,) that are inside, by their names in the table."""
    inside = np.array([pattern.sum() for pattern in insides])
    deposits = np.array([(pattern & labels).sum() for pattern in insides])
    return _weights(inside, deposits, len(labels), int(labels.sum()))


def _weights(
    inside: np.ndarray, deposits_inside: np.ndarray, cells: int, deposits: int
) -> dict[str, np.ndarray]:
    """Weights of patterns (k,) from their cells and deposit cells, by their names in the table."""
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
    contrast, deviation = plus - minus, np.sqrt((1 / counts).sum(axis=0))
    values = [plus, minus, np.sqrt(1 / hit + 1 / false_alarm), np.sqrt(1 / miss + 1 / rejection)]
    return dict(
        zip(_COUNTED, [inside, deposits_inside, *values, contrast, contrast / deviation],
            strict=True)
    )  # fmt: skip


_COUNTED: tuple[str, ...] = (
    "n_inside",
    "deposits_inside",
    "w_plus",
    "w_minus",
    "s_plus",
    "s_minus",
)
_COUNTED += ("contrast", "studentised")
_NONE = {"cut": np.nan, "direction": ""} | dict.fromkeys(_COUNTED[:2], 0)  # of a layer without cut
_NONE |= dict.fromkeys(_COUNTED[2:], np.nan)
