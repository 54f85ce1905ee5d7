import time

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from mpm.baselines import WeightsOfEvidence, make_baselines

NAMES = ["weights_of_evidence", "logistic_regression", "random_forest", "gradient_boosting"]


def pattern(deposits_inside: int, inside: int, deposits: int, cells: int):
    """A binary layer (cells, 1) and labels (cells,) with these counts."""
    layer, labels = np.zeros((cells, 1), dtype="float32"), np.zeros(cells, dtype=bool)
    layer[:inside] = 1
    labels[:deposits_inside] = True
    labels[cells - (deposits - deposits_inside) :] = True
    return layer, labels


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


def test_weights_by_hand():
    """12 of 20 deposits on 200 of 1000 cells: 0.6 / (188/980) and 0.4 / (792/980)"""
    evidence, labels = pattern(12, 200, 20, 1000)
    model = WeightsOfEvidence(("granite",)).fit(evidence, labels)
    row = model.table_.iloc[0]
    assert row["layer"] == "granite"
    assert (row["cut"], row["direction"], row["used"]) == (1.0, ">=", True)
    assert (row["n_inside"], row["deposits_inside"]) == (200, 12)
    assert row["w_plus"] == pytest.approx(1.1402, abs=1e-4)
    assert row["w_minus"] == pytest.approx(-0.7033, abs=1e-4)
    assert row["contrast"] == pytest.approx(1.8435, abs=1e-4)
    deviation = np.sqrt(1 / 12 + 1 / 188 + 1 / 8 + 1 / 792)
    assert row["studentised"] == pytest.approx(1.8435 / deviation, abs=1e-3)


def test_one_layer_reproduces_its_frequencies():
    """With one layer there is nothing to be dependent on: posteriors are 12/200, 8/800"""
    evidence, labels = pattern(12, 200, 20, 1000)
    model = WeightsOfEvidence(("granite",)).fit(evidence, labels)
    posterior = model.predict_proba(evidence)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    np.testing.assert_allclose(posterior[[0, 999], 1], [12 / 200, 8 / 800])
    assert posterior[:, 1].sum() == pytest.approx(20)
    assert model.ci_ratio_ == pytest.approx(1)


def test_a_layer_given_twice_fails_conditional_independence():
    evidence, labels = pattern(12, 200, 20, 1000)
    model = WeightsOfEvidence(("a", "b")).fit(np.hstack([evidence] * 2), labels)
    predicted = model.predict_proba(np.hstack([evidence] * 2))[:, 1].sum()
    assert model.ci_ratio_ == pytest.approx(20 / predicted)
    assert model.ci_ratio_ < 0.85


def test_missing_weighs_nothing():
    """A cell without the layer keeps the prior, and unobserved cells leave the weights alone"""
    evidence, labels = pattern(12, 200, 20, 1000)
    model = WeightsOfEvidence(("granite",)).fit(evidence, labels)
    assert model.predict_proba([[np.nan]])[0, 1] == pytest.approx(20 / 1000)
    more = np.vstack([evidence, np.full((500, 1), np.nan)])
    again = WeightsOfEvidence(("granite",)).fit(more, np.append(labels, np.arange(500) < 7))
    assert again.table_["w_plus"][0] == model.table_["w_plus"][0]
    assert again.predict_proba([[np.nan]])[0, 1] == pytest.approx(27 / 1500)


def test_posterior_logit_is_the_sum_of_weights(xor):
    evidence, labels = xor
    evidence[labels, 0] += 1
    model = fitted("weights_of_evidence", evidence, labels)
    weights = model.weights(evidence)
    assert weights.shape == evidence.shape
    expected = expit(model.prior_logit_ + weights.sum(axis=1))
    np.testing.assert_allclose(model.predict_proba(evidence)[:, 1], expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_cut_finds_the_threshold_in_both_directions(rng, sign):
    """Deposits lie where the layer exceeds its 8th decile"""
    values = np.linspace(0, 1, 1001)
    labels = (values > 0.8) & (rng.random(1001) < 0.2)
    labels |= rng.random(1001) < 0.01
    row = WeightsOfEvidence(("a",)).fit(sign * values[:, None], labels).table_.iloc[0]
    assert row["direction"] == (">=" if sign == 1 else "<=")
    assert abs(row["cut"]) == pytest.approx(0.8, abs=2e-3)


def test_uninformative_layers_are_left_out(rng):
    evidence, labels = pattern(4, 200, 20, 1000)
    model = WeightsOfEvidence(("even",)).fit(evidence, labels)
    assert not model.table_["used"][0]
    np.testing.assert_allclose(model.predict_proba(evidence)[:, 1], 0.02)


def test_constant_and_unobserved_layers_are_left_out():
    evidence = np.column_stack([np.full(100, 3.0), np.full(100, np.nan)])
    model = WeightsOfEvidence(("constant", "missing")).fit(evidence, np.arange(100) < 10)
    assert model.table_["cut"].isna().all()
    assert not model.table_["used"].any()
    assert model.ci_ratio_ == pytest.approx(1)


def test_a_layer_of_mostly_zeros_is_cut_above_zero():
    """All deciles are 0, the pattern is the 5 % that are not"""
    evidence, labels = pattern(12, 50, 20, 1000)
    evidence[:50, 0] = np.linspace(1, 2, 50)
    row = WeightsOfEvidence(("sparse",)).fit(evidence, labels).table_.iloc[0]
    assert (row["cut"], row["direction"], row["n_inside"]) == (1.0, ">=", 50)


def test_a_pattern_with_all_deposits_has_finite_weights():
    """A half is added to each count: 20.5 / 21 against 180.5 / 981"""
    evidence, labels = pattern(20, 200, 20, 1000)
    row = WeightsOfEvidence(("all",)).fit(evidence, labels).table_.iloc[0]
    assert row["used"]
    assert row["w_plus"] == pytest.approx(np.log(20.5 / 21 / (180.5 / 981)))
    assert row["w_minus"] == pytest.approx(np.log(0.5 / 21 / (800.5 / 981)))


def test_patterns_need_deposits():
    evidence, labels = pattern(2, 4, 2, 1000)
    assert WeightsOfEvidence(("a",)).fit(evidence, labels).table_["cut"].isna()[0]
    assert WeightsOfEvidence(("a",), min_deposits=2).fit(evidence, labels).table_["used"][0]


def test_weights_of_evidence_are_fast(rng):
    evidence = rng.normal(size=(20_000, 25)).astype("float32")
    labels = rng.random(20_000) < 0.01
    start = time.perf_counter()
    fitted("weights_of_evidence", evidence, labels)
    assert time.perf_counter() - start < 3  # about 0.1 s on a quiet core


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
