import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from torch import nn

from mpm import shapley
from mpm.windows import Windows

# Trees


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 4))
    labels = features[:, 0] + 0.5 * features[:, 1] + 0.3 * rng.normal(size=300) > 0.5
    features[rng.random(features.shape) < 0.1] = np.nan
    return features, labels


def test_boosting_shap_sums_to_the_raw_score(cells):
    "The sum differs from the log odds by one constant, the same for all cells"
    features, labels = cells
    model = HistGradientBoostingClassifier(max_iter=20).fit(features, labels)
    values = shapley.tree_shap(model, features)
    assert values.shape == features.shape
    rest = model.decision_function(features) - values.sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-4)
    score = model.decision_function(features)
    np.testing.assert_allclose(np.diff(values.sum(axis=1)), np.diff(score), atol=1e-4)
    assert np.abs(values).mean(axis=0).argmax() == 0


def test_forest_shap_sums_to_the_probability(cells):
    "Of the positive class, not the other, although a forest gives both"
    features, labels = np.nan_to_num(cells[0]), cells[1]
    model = RandomForestClassifier(20, max_depth=4, random_state=0).fit(features, labels)
    values = shapley.tree_shap(model, features)
    assert values.shape == features.shape
    rest = model.predict_proba(features)[:, 1] - values.sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-4)


def test_shap_values_of_another_shape_are_refused(cells, monkeypatch):
    "A library that changes its output is noticed, not averaged over"
    import shap

    class Odd:
        def __init__(self, model):
            pass

        def shap_values(self, features):
            return np.zeros((len(features), 7))

    monkeypatch.setattr(shap, "TreeExplainer", Odd)
    with pytest.raises(ValueError, match=r"shape \(300, 7\), features \(300, 4\)"):
        shapley.tree_shap(None, cells[0])


# The network


class Product(nn.Module):
    """Twice the first layer's centre plus the product of the second and third; 1 a missing cell."""

    def forward(self, values, observed):
        a, b, c = values[:, :, 1, 1].T
        return 2 * a + b * c + (~observed).sum(dim=(1, 2, 3))


@pytest.fixture
def windows():
    """Three layers of 1 x 3 cells, windows of 3 x 3 that see all but the padding."""
    canvas = torch.zeros(3, 3, 5)
    canvas[:, 1, 1:4] = torch.tensor([[1.0, 0.0, 5.0], [2.0, 1.0, 0.0], [3.0, 1.0, 1.0]])
    seen = torch.ones(3, 3, 5, dtype=bool)
    place = np.zeros(3, int)
    return Windows(canvas, seen, 3, place, place, np.arange(3), ((1, 3),))


def test_shapley_values_by_hand(windows):
    """A sum is shared as it is, and a product half and half of what it gains

    From (0, 1, 1) to (1, 2, 3): 2 (1 - 0) to the first; 6 - 1 to the others: alone they add
    1 (2 x 1 - 1) and 2 (1 x 3 - 1), after the other 3 (6 - 3) and 4 (6 - 2).
    """
    values, gap = shapley.network_shapley(
        Product(), windows, np.array([0]), np.array([1]), ["a", "b", "c"], seed=0
    )
    assert values.columns.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(values.to_numpy(), [[2, (1 + 3) / 2, (2 + 4) / 2]], atol=1e-6)
    assert gap.max() < 1e-6


def test_backgrounds_are_averaged(windows):
    "Against (0, 1, 1) and (5, 0, 1) the first layer adds 2 and -8"
    values, _ = shapley.network_shapley(
        Product(), windows, np.array([0]), np.array([1, 2]), ["a", "b", "c"], seed=0
    )
    assert values["a"].iloc[0] == pytest.approx((2 - 8) / 2)


def test_planes_of_a_player_move_together(windows):
    "b and c as one layer get the 5 they add together"
    values, _ = shapley.network_shapley(
        Product(), windows, np.array([0]), np.array([1]), ["x", "rock", "rock"], seed=0
    )
    assert values.iloc[0].to_dict() == pytest.approx({"x": 2, "rock": 5})


def test_gaps_come_with_the_layer(windows):
    "An unknown layer brings the background's missing cells, too"
    windows.seen[0, 1, 2] = False  # the centre of cell 1
    game = shapley.layer_game(Product(), windows, np.array([0]), np.array([1]), ["a", "b", "c"])
    known = np.array([[True, True, True], [False, True, True], [False, False, False]])
    own = 8 + 1  # the first window holds that cell at its edge
    assert game(0, known).tolist() == [own, 6 + 1, 1 + 1]


def test_patches_hold_all_layers_of_their_cells(windows):
    "Of nine patches of one cell the middle one holds the centre, row by row"
    game = shapley.patch_game(Product(), windows, np.array([0]), np.array([1]), 1)
    middle = np.arange(9)[None] == 4
    assert game(0, np.concatenate([middle, ~middle])).tolist() == [8, 1]


def test_many_players_are_sampled_and_still_efficient():
    "Ten players that add up get what they add, whatever the orders; the same twice"
    weights = np.arange(10.0)
    score = lambda table: table @ weights + table[:, 0] * table[:, 9]  # noqa: E731
    game = shapley.table_game(score, np.ones((2, 10)), np.zeros((1, 10)), list("abcdefghij"))
    values, gap = shapley.shapley_values(game, 2, list("abcdefghij"), permutations=1, seed=3)
    np.testing.assert_allclose(values.iloc[0, 1:9], weights[1:9])
    assert values.iloc[0, [0, 9]].sum() == pytest.approx(0 + 9 + 1) and gap.max() < 1e-9
    again, _ = shapley.shapley_values(game, 2, list("abcdefghij"), permutations=1, seed=3)
    assert again.equals(values)


def test_chunks_do_not_change_scores(windows, monkeypatch):
    "Coalitions are scored in parts that fit"
    known = np.random.default_rng(0).random((20, 3)) > 0.5
    given = (Product(), windows, np.array([0]), np.array([1, 2]), ["a", "b", "c"])
    whole = shapley.layer_game(*given)(0, known)
    monkeypatch.setattr(shapley, "AT_ONCE", 6)
    np.testing.assert_allclose(shapley.layer_game(*given)(0, known), whole)
