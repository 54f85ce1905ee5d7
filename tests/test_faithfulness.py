import numpy as np
import pandas as pd
import pytest

from mpm import faithfulness

WEIGHTS = np.array([[4.0, 1.0, -1.0], [3.0, 2.0, 1.0]])


def additive(cell, known):
    """The score is the sum of the weights of what is known."""
    return known @ WEIGHTS[cell]


def test_curves_by_hand():
    "Of 4, 1 and -1 the 4 goes first: 4, 0, -1 and 0 of 4 are left; it comes first: 0, 4, 5, 4"
    curves = faithfulness.removal_curves(additive, WEIGHTS, seed=0)
    assert curves["deletion"][0].tolist() == [1, 0, -0.25, 0]
    assert curves["insertion"][0].tolist() == [0, 1, 1.25, 1]
    assert curves["deletion"][1].tolist() == [1, 0.5, pytest.approx(1 / 6), 0]


def test_a_cell_that_scores_as_background_has_no_curve():
    "NaN, which averages leave out, and no division by zero"
    curves = faithfulness.removal_curves(additive, np.array([[1.0, 2.0, 3.0]]) * 0, seed=0)
    assert not np.isnan(curves["deletion"]).any()
    curves = faithfulness.removal_curves(lambda cell, known: 0 * known.sum(1), WEIGHTS, seed=0)
    assert np.isnan(curves["deletion"]).all()


def test_a_good_order_beats_a_random_one_and_a_bad_one_does_not():
    "Areas are positive for the true weights, negative for their opposite"
    rng = np.random.default_rng(0)
    weights = rng.normal(1, 1, (50, 6))
    game = lambda cell, known: known @ weights[cell]  # noqa: E731
    good = faithfulness.areas(faithfulness.removal_curves(game, weights, seed=0))
    bad = faithfulness.areas(faithfulness.removal_curves(game, -weights, seed=0))
    for way in ("deletion", "insertion"):
        low = faithfulness.mean_interval(np.clip(good[way], -1, 1), seed=0)[1]
        high = faithfulness.mean_interval(np.clip(bad[way], -1, 1), seed=0)[2]
        assert low > 0 > high


def test_areas_by_hand():
    "Half a square above random order, over three steps"
    flat = {"deletion": [[1, 0, 0]], "deletion at random": [[1, 0.5, 0]]}
    flat |= {"insertion": [[0, 1, 1]], "insertion at random": [[0, 0.5, 1]]}
    found = faithfulness.areas({name: np.array(values) for name, values in flat.items()})
    assert found["deletion"].tolist() == found["insertion"].tolist() == [0.25]


def test_patches_are_summed_over_layers_row_by_row():
    "Two layers of 4 x 4 cells in patches of 2: eight cells each"
    attribution = np.ones((1, 2, 4, 4))
    attribution[0, 0, 0, 3] = 10  # in the second patch
    assert faithfulness.patch_sums(attribution, 2).tolist() == [[8, 17, 8, 8]]


def test_the_middle_patch_has_its_share_of_the_sizes():
    "3 of 6 in one cell, 1 of 4 in another, none in a third: 0.375 on average of two"
    sums = np.array([[1.0, -3, 2], [1, 1, -2], [0, 0, 0]])
    assert faithfulness.middle_share(sums) == 0.375


def test_rank_correlation_of_rows_by_hand():
    "The same order 1, the reverse -1, one swap of three 0.5, no order NaN"
    one = np.array([[1, 2, 9]] * 4)
    other = np.array([[0, 5, 6], [3, 2, 1], [2, 1, 3], [1, 1, 1]])
    found = faithfulness.row_correlation(one, other)
    np.testing.assert_allclose(found, [1, -1, 0.5, np.nan])


def test_intervals_hold_the_value_and_narrow_with_cells():
    "Of alike cells nothing is uncertain; of four times as many half as much; cells without count"
    assert faithfulness.mean_interval(np.full(5, 2.0), seed=0) == (2, 2, 2)
    values = np.random.default_rng(0).normal(size=400)
    few, many = (faithfulness.mean_interval(part, seed=0) for part in (values[:100], values))
    assert few[1] < few[0] < few[2]
    assert (few[2] - few[1]) / (many[2] - many[1]) == pytest.approx(2, rel=0.25)
    assert faithfulness.mean_interval(np.array([np.nan, 3.0]), seed=0)[0] == 3
    assert np.isnan(faithfulness.mean_interval(np.array([np.nan]), seed=0)).all()


def test_agreement_compares_sizes_of_every_pair():
    "Signs do not count; a fixed measure has no value a cell; two fixed ones are no pair"
    one = pd.DataFrame({"a": [3.0, -3.0], "b": [2.0, 2.0], "c": [1.0, -1.0]})
    two = one[["c", "b", "a"]].set_axis(["a", "b", "c"], axis=1)
    fixed = {"contrast": pd.Series({"c": 1.0, "a": 9.0, "b": 5.0}), "other": pd.Series({"a": 1.0})}
    table = faithfulness.agreement({"one": one, "two": two}, fixed, seed=0)
    pairs = table.set_index(["method", "other"])["value"].to_dict()
    assert pairs["one", "two"] == pytest.approx(-1) and pairs["one", "contrast"] == 1
    assert ("contrast", "other") not in pairs and len(pairs) == 5


def test_causal_layers_are_ranked_against_each_other_role_by_hand():
    "a above everything, b below the proxy and above one of two distractors; signs do not count"
    values = pd.DataFrame(
        {"a": [9.0, 9.0], "b": [2.0, -2.0], "c": [5.0, 5.0], "d": [1.0, 1.0], "e": [3.0, -3.0]}
    )
    roles = dict(a="causal", b="causal", c="proxy", d="distractor", e="distractor")
    assert faithfulness.causal_auc(values, roles, "proxy", seed=0) == (0.5, 0.5, 0.5)
    assert faithfulness.causal_auc(values, roles, "distractor", seed=0) == (0.75, 0.75, 0.75)


def test_chance_is_wide_where_layers_are_few():
    "Of 6 among 16 the deal of roles has a standard deviation of sqrt(17 / 720) = 0.154"
    values = pd.DataFrame(np.arange(1.0, 17)[None], columns=[f"l{k}" for k in range(16)])
    roles = {name: "causal" if k < 6 else "distractor" for k, name in enumerate(values)}
    low, high = faithfulness.chance_auc(values, roles, "distractor", seed=0)
    assert low == pytest.approx(1 - high) and (high - 0.5) / 0.154 == pytest.approx(1.96, rel=0.06)
    # one causal layer and one other: it may be first or second
    few, known = values[["l0", "l15"]], {"l0": "causal", "l15": "proxy"}
    assert faithfulness.chance_auc(few, known, "proxy", seed=0) == pytest.approx((0.025, 0.975))


def test_deals_are_drawn_where_they_are_too_many_to_count(monkeypatch):
    "Which gives nearly the same"
    values = pd.DataFrame(np.arange(1.0, 13)[None], columns=list("abcdefghijkl"))
    roles = {name: "causal" if name in "abcd" else "proxy" for name in values}
    counted = faithfulness.chance_auc(values, roles, "proxy", seed=0)
    monkeypatch.setattr(faithfulness, "EXACT", 490)  # of 495
    drawn = faithfulness.chance_auc(values, roles, "proxy", seed=0)
    assert drawn == pytest.approx(counted, abs=0.08)


def test_verdicts_need_the_whole_interval():
    "On the right side it holds, on the wrong one it fails, across the limit it is unclear"
    rows = [
        ("IG", "other seeds", (0.6, 0.51, 0.7)),
        ("IG", "deletion, layers", (-0.1, -0.2, 0.0)),
        ("IG", "insertion, layers", (0.1, -0.1, 0.2)),
        ("IG", "randomised weights", (0.1, 0.0, 0.2)),
        ("trees", "randomised weights", (0.7, 0.6, 0.8)),
    ]
    table = faithfulness.verdicts(rows)
    assert table["test"].tolist()[:2] == ["deletion, layers", "insertion, layers"]
    assert table["verdict"].tolist() == ["fails", "unclear", "holds", "fails", "holds"]
    assert table["needed"].tolist() == ["> 0", "> 0", "< 0.5", "< 0.5", "> 0.5"]


def test_what_chance_does_as_well_does_not_hold():
    "0.7 is above 0.5, but dealt by chance roles reach 0.8"
    rows = [
        ("IG", "causal above proxies", (0.7, 0.65, 0.75)),
        ("IG", "causal above distractors", (0.9, 0.85, 0.95)),
        ("trees", "causal above proxies", (0.3, 0.2, 0.4)),
    ]
    chance = {(method, test): 0.8 for method, test, _ in rows}
    table = faithfulness.verdicts(rows, chance).set_index(["method", "test"])
    assert table["verdict"].tolist() == ["holds", "unclear", "fails"]
    assert set(table["needed"]) == {"> 0.8"}


def test_models_that_disagree_differ_and_methods_on_one_model_fail():
    low = (0.1, 0.0, 0.2)
    rows = [("Integrated Gradients", f"agreement, {other}", low)
            for other in ("Shapley", "tree SHAP", "contrast")]  # fmt: skip
    rows += [
        ("tree SHAP", "agreement, contrast", low),
        ("tree SHAP", "deletion, layers", (-1, -1, -1)),
    ]
    table = faithfulness.verdicts(rows)
    assert table["verdict"].tolist() == ["fails", "fails", "differs", "differs", "differs"]


def test_an_unknown_test_is_refused():
    with pytest.raises(KeyError, match="beauty"):
        faithfulness.verdicts([("IG", "beauty", (1, 1, 1))])
