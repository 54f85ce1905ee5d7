import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

from mpm.weights_of_evidence import WeightsOfEvidence


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
    model = WeightsOfEvidence(("a", "b", "c", "d")).fit(evidence, labels)
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


def classes(counts: dict[str, tuple[int, int]], missing: int = 0):
    """Planes (cells, classes) and labels of classes with (cells, deposit cells) each."""
    code = np.repeat(np.arange(len(counts)), [cells for cells, _ in counts.values()])
    planes = (code[:, None] == np.arange(len(counts))).astype("float32")
    labels = np.concatenate([np.arange(cells) < hits for cells, hits in counts.values()])
    gaps = np.full((missing, len(counts)), np.nan, "float32")
    names = tuple(f"rock={name}" for name in counts)
    return names, np.vstack([planes, gaps]), np.append(labels, np.zeros(missing, bool))


ROCKS = {"shale": (200, 12), "granite": (500, 3), "basalt": (100, 2), "gneiss": (200, 3)}


def test_the_errors_of_weights_by_hand():
    """s2(W+) = 1/12 + 1/188 and s2(W-) = 1/8 + 1/792"""
    evidence, labels = pattern(12, 200, 20, 1000)
    row = WeightsOfEvidence(("granite",)).fit(evidence, labels).table_.iloc[0]
    assert row["s_plus"] == pytest.approx(np.sqrt(1 / 12 + 1 / 188))
    assert row["s_minus"] == pytest.approx(np.sqrt(1 / 8 + 1 / 792))
    assert row["contrast"] / row["studentised"] == pytest.approx(
        np.hypot(row["s_plus"], row["s_minus"])
    )


def test_the_prior_is_the_share_of_deposit_cells():
    """20 of 1000 cells: odds of 20 to 980"""
    evidence, labels = pattern(12, 200, 20, 1000)
    model = WeightsOfEvidence(("granite",)).fit(evidence, labels)
    assert model.prior_logit_ == pytest.approx(np.log(20 / 980))


def test_the_omnibus_test_by_hand():
    """Two equal layers: two conditions, 200 cells inside both and 800 outside"""
    evidence, labels = pattern(12, 200, 20, 1000)
    model = WeightsOfEvidence(("a", "b")).fit(np.hstack([evidence] * 2), labels)
    ratio_in, ratio_out = (12 / 20) / (188 / 980), (8 / 20) / (792 / 980)
    odds = 20 / 980 * np.array([ratio_in, ratio_out]) ** 2
    posterior = odds / (1 + odds)
    predicted = (posterior * [200, 800]).sum()
    variance = 1 / 20 + 2 * np.array([1 / 12 + 1 / 188, 1 / 8 + 1 / 792])
    spread = np.sqrt((([200, 800] * posterior) ** 2 * variance).sum())
    assert model.ci_ratio_ == pytest.approx(20 / predicted)
    assert model.ci_statistic_ == pytest.approx((predicted - 20) / spread)
    assert model.ci_p_ == pytest.approx(1 - norm.cdf((predicted - 20) / spread))


def test_layers_given_many_times_are_found_dependent():
    """One layer passes the test, with a probability of one half; three copies of it do not"""
    evidence, labels = pattern(300, 2000, 500, 10_000)
    once = WeightsOfEvidence(("a",)).fit(evidence, labels)
    assert (once.ci_statistic_, once.ci_p_) == pytest.approx((0, 0.5), abs=1e-9)
    often = WeightsOfEvidence(("a", "b", "c")).fit(np.hstack([evidence] * 3), labels)
    assert often.ci_statistic_ == pytest.approx(5.6, abs=0.1) and often.ci_p_ < 1e-6


def test_fewer_bins_leave_fewer_cuts():
    """Deposits above the 9th decile: quintiles can only cut at the 8th"""
    values = np.arange(1000.0)
    labels = values >= 900
    cuts = {
        bins: WeightsOfEvidence(("a",), bins=bins).fit(values[:, None], labels).table_["cut"][0]
        for bins in (10, 5)
    }
    assert cuts == pytest.approx({10: 900, 5: 800})


def test_each_class_is_weighed_against_all_others():
    """Shale holds 12 of 20 deposits on 200 of 1000 cells, as the pattern by hand above"""
    names, planes, labels = classes(ROCKS)
    table = WeightsOfEvidence(names).fit(planes, labels).table_.set_index("layer")
    shale = table.loc["rock=shale"]
    assert (shale["n_inside"], shale["deposits_inside"], shale["used"]) == (200, 12, True)
    assert shale["contrast"] == pytest.approx(1.8435, abs=1e-4)
    granite = table.loc["rock=granite"]
    assert granite["w_plus"] == pytest.approx(np.log((3 / 20) / (497 / 980)))
    assert granite["studentised"] < -1.96 and granite["used"]


def test_classes_that_say_little_are_pooled():
    """Basalt and gneiss: 5 of 20 deposits on 300 of 1000 cells; posteriors are frequencies"""
    names, planes, labels = classes(ROCKS)
    model = WeightsOfEvidence(names).fit(planes, labels)
    table = model.table_.set_index("layer")
    assert not table.loc[["rock=basalt", "rock=gneiss"], "used"].any()
    rest = table.loc["rock=all others"]
    assert (rest["n_inside"], rest["deposits_inside"], rest["used"]) == (300, 5, True)
    posterior = model.predict_proba(np.eye(4))[:, 1]
    np.testing.assert_allclose(posterior, [12 / 200, 3 / 500, 5 / 300, 5 / 300])
    assert model.ci_ratio_ == pytest.approx(1)
    assert model.weights(planes).shape == (1000, 1)


def test_a_class_without_deposits_speaks_against_them():
    """None of 20 deposits on half of the cells, by halves: 0.5 / 21 against 500.5 / 981"""
    names, planes, labels = classes({"shale": (500, 20), "granite": (500, 0)})
    row = WeightsOfEvidence(names).fit(planes, labels).table_.set_index("layer").loc["rock=granite"]
    assert row["used"] and row["deposits_inside"] == 0
    assert row["w_plus"] == pytest.approx(np.log((0.5 / 21) / (500.5 / 981)))


def test_a_cell_without_a_class_or_with_another_one():
    """A missing class weighs nothing, a class that no plane stands for weighs as the pool"""
    names, planes, labels = classes(ROCKS, missing=50)
    model = WeightsOfEvidence(names).fit(planes, labels)
    missing, other, part = model.weights(
        np.array([[np.nan] * 4, [0] * 4, [1, np.nan, np.nan, np.nan]])
    )[:, 0]
    assert missing == 0
    assert other == pytest.approx(np.log((5 / 20) / (295 / 980)))
    assert part == pytest.approx(np.log((12 / 20) / (188 / 980)))


def test_classes_that_all_say_little_weigh_nothing():
    """Equal shares of deposits: no class is used, and none is left to pool"""
    names, planes, labels = classes({"shale": (100, 5), "granite": (100, 5)})
    model = WeightsOfEvidence(names).fit(planes, labels)
    assert list(model.table_["layer"]) == ["rock=shale", "rock=granite"]
    assert not model.weights(planes).any()


def test_classes_and_numbers_add_up():
    """One weight a layer: the classes' and the cut's"""
    names, planes, labels = classes(ROCKS)
    number = np.where(labels, 2.0, np.arange(1000) % 3)[:, None]
    model = WeightsOfEvidence((*names, "grade")).fit(np.hstack([planes, number]), labels)
    alone = WeightsOfEvidence(names).fit(planes, labels)
    np.testing.assert_allclose(
        model.weights(np.hstack([planes, number]))[:, 0], alone.weights(planes)[:, 0]
    )
    assert isinstance(model.table_, pd.DataFrame) and len(model.table_) == 6
