import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from mpm import baselines
from mpm.baselines import PUBagging, make, make_baselines

NAMES = list(baselines.CANDIDATES)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


@pytest.fixture
def xor(rng):
    """Positive where two layers differ in sign; two more say nothing; a tenth is missing."""
    evidence = rng.normal(size=(1500, 4)).astype("float32")
    labels = (evidence[:, 0] > 0) != (evidence[:, 1] > 0)
    labels &= rng.random(1500) < 0.4
    evidence[rng.random(evidence.shape) < 0.1] = np.nan
    return evidence, labels


def fitted(name: str, evidence, labels, seed: int = 3):
    layers = [f"layer_{column}" for column in range(evidence.shape[1])]
    return make_baselines(seed, layers)[name].fit(evidence, labels)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_probabilities(xor, name):
    first, again = fitted(name, *xor), fitted(name, *xor)
    np.testing.assert_array_equal(first.predict_proba(xor[0]), again.predict_proba(xor[0]))
    np.testing.assert_array_equal(first.predict_proba(xor[0]), first.predict_proba(xor[0]))
    np.testing.assert_array_equal(first.classes_, [False, True])


@pytest.mark.parametrize("name", NAMES)
def test_cells_without_observations_get_a_probability(xor, name):
    """Also when training had none missing, and when a whole layer was missing"""
    nothing = np.full((2, 4), np.nan)
    complete = np.nan_to_num(xor[0])
    unobserved = xor[0].copy()
    unobserved[:, 2] = np.nan
    for evidence in (xor[0], complete, unobserved):
        probability = fitted(name, evidence, xor[1]).predict_proba(nothing)
        assert probability.shape == (2, 2)
        assert ((probability >= 0) & (probability <= 1)).all()
        np.testing.assert_allclose(probability.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("name", "learns"),
    [("logistic_regression", False), ("random_forest", True), ("gradient_boosting", True)],
)
def test_trees_learn_an_interaction_and_a_plane_does_not(xor, name, learns):
    evidence, labels = xor
    model = fitted(name, evidence[:1000], labels[:1000])
    score = roc_auc_score(labels[1000:], model.predict_proba(evidence[1000:])[:, 1])
    assert score > 0.65 if learns else score < 0.6


@pytest.mark.parametrize("name", NAMES)
def test_wrong_input_is_refused(xor, name):
    evidence, labels = xor
    model = make_baselines(1, ["a", "b", "c", "d"])[name]
    with pytest.raises(ValueError, match=r"must be \(cells, 4\).*a, b, c, d"):
        model.fit(evidence[:, :3], labels)
    with pytest.raises(ValueError, match="no positive"):
        model.fit(evidence, np.zeros(1500, dtype=bool))
    with pytest.raises(ValueError, match="no negative"):
        model.fit(evidence, np.ones(1500, dtype=bool))
    with pytest.raises(ValueError, match="one label a cell"):
        model.fit(evidence, labels[:-1])
    model.fit(evidence, labels)
    with pytest.raises(ValueError, match=r"must be \(cells, 4\)"):
        model.predict_proba(evidence[:, :3])


@pytest.mark.parametrize("name", NAMES)
def test_baselines_can_be_cloned(name):
    model = make_baselines(5, ["a", "b"])[name]
    assert str(clone(model).get_params()) == str(model.get_params())


@pytest.mark.parametrize("name", NAMES)
def test_there_are_four_candidates_of_each_method(xor, name):
    """All differ, and so do the first and the last one's probabilities"""
    evidence, labels = xor[0].copy(), xor[1]
    evidence[labels, 0] += 0.3
    grid = baselines.CANDIDATES[name]
    assert len(grid) == len({str(settings) for settings in grid}) == 4
    made = [make(name, 1, ["a", "b", "c", "d"], **settings) for settings in grid]
    guesses = {m.fit(evidence, labels).predict_proba(evidence).tobytes() for m in made[::3]}
    assert len(guesses) == 2


def test_bins_are_those_that_boosting_would_find(xor):
    "Gaps, few different values and none at all included; cells between training values, too"
    evidence, labels = xor[0].copy(), xor[1]
    evidence[:, 2] = np.round(evidence[:, 2])
    evidence[:, 3] = 1.5
    model = fitted("gradient_boosting", evidence[:1000], labels[:1000])
    alone = clone(model[-1]).fit(evidence[:1000], labels[:1000])
    own, found = alone._bin_mapper.bin_thresholds_, model[1].edges_
    assert [len(edges) for edges in found] == [31, 31, len(np.unique(evidence[:1000, 2])) - 2, 0]
    for one, other in zip(found, own, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(model.predict_proba(evidence), alone.predict_proba(evidence))
    assert (model[:-1].transform(evidence)[np.isfinite(evidence)] % 1 == 0).all()


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'oracle' is none of weights_of_evidence"):
        make("oracle", 1, ["a"])


def test_the_best_candidate_on_validation_cells_is_chosen(rng):
    """The first column is the training labels and nothing afterwards; of equals the first wins"""
    labels, truth = rng.random((2, 200)) < 0.1
    train, judged = np.column_stack([labels, rng.random(200)]), np.column_stack([~truth, truth])
    for order in ([0, 1], [1, 0], [0, 1, 1]):
        candidates = [_Reads(column) for column in order]
        assert baselines.choose(candidates, train, labels, judged, truth) == order.index(1)


class _Reads:
    """Scores by one column."""

    def __init__(self, column: int):
        self.column = column

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return np.column_stack([1.0 - X[:, self.column], X[:, self.column]])


def test_bagging_recovers_planted_positives(rng):
    """Half of the deposits are hidden among the unlabeled cells, and rank above these"""
    evidence = rng.normal(size=(2000, 3))
    true = evidence[:, 0] > 1.3
    known = true & (rng.random(2000) < 0.5)
    model = PUBagging(seed=1, min_samples_leaf=5).fit(evidence, known)
    hidden = ~known
    assert roc_auc_score(true[hidden], model.predict_proba(evidence[hidden])[:, 1]) > 0.95


def test_each_bag_holds_all_positives_and_as_many_others(rng):
    """10 positives and 3 times as many others: 40 cells in the root of every tree"""
    evidence, labels = rng.normal(size=(500, 2)), np.arange(500) < 10
    model = PUBagging(seed=1, trees=5, per_positive=3).fit(evidence, labels)
    assert [tree.tree_.n_node_samples[0] for tree in model.trees_] == [40] * 5
    votes = [tree.predict_proba(evidence)[:, 1] for tree in model.trees_]
    np.testing.assert_allclose(model.predict_proba(evidence)[:, 1], np.mean(votes, axis=0))
    assert len({tree.tree_.threshold[0] for tree in model.trees_}) > 1
