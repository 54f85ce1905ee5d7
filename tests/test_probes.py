from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tiny, toy_cube

from mpm import fine_tuning, mae, probes
from mpm.folds import make_fold
from mpm.splits import SplitSettings


@pytest.fixture(scope="module")
def fold():
    rules = SplitSettings(folds=4, block_km=20, dead_cells=5, seed=7)
    return make_fold({"north": toy_cube(1)}, "blocks", 0, rules, 9, targets=["MVT"])


def test_a_probe_may_see_the_cell_alone(fold):
    "The layers at the centre of the window"
    index = fold.train[:5]
    seen = probes.features(None, fold.windows, index, sees="cell")
    values, _ = fold.windows.gather(index)
    np.testing.assert_array_equal(seen, values[:, :, 4, 4].numpy())


def test_a_probe_may_see_statistics_of_the_window(fold):
    "Cell, mean and standard deviation of each layer, over observed cells: here by hand"
    index = fold.train[:5]
    seen = probes.features(None, fold.windows, index, sees="statistics")
    values, observed = fold.windows.gather(index)
    for n in range(5):
        for layer in range(2):
            here = values[n, layer][observed[n, layer]].numpy()
            expected = [values[n, layer, 4, 4], here.mean(), here.std()]
            np.testing.assert_allclose(seen[n, layer::2], expected, rtol=1e-4, atol=1e-5)


def test_a_probe_of_a_network_sees_its_tokens(fold):
    "CLS, mean and centre of all patches"
    encoder = mae.build(tiny(), 1).encoder
    index = fold.train[:3]
    seen = probes.features(encoder, fold.windows, index)
    with torch.no_grad():
        tokens = encoder(*fold.windows.gather(index))
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1), tokens[:, 5]], dim=1)
    np.testing.assert_allclose(seen, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", ["probe", "full", "last", "frozen"])
def test_heads_find_what_there_is_to_find(fold, head):
    "Cells of high gravity are positive: all heads rank them first, on cells they did not see"
    positive = fold.windows.centres()[:, 1] > 1.0
    parts = [fold.train, fold.validation, fold.test]
    encoder = mae.build(tiny(), 1).encoder
    before = [weight.clone() for weight in encoder.parameters()]
    settings = probes.tuning(head, probes.PRESET, "demo")
    guess = probes.score_cells(
        fold, encoder, settings, sees="cell", aligned=False, seed=3, parts=parts, positive=positive
    )
    truth = positive[fold.test]
    ranks = guess[truth][:, None] > guess[~truth]
    assert ranks.mean() > (0.95 if head in ("probe", "full") else 0.6)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))


def test_aligned_features_have_the_same_mean_and_spread_in_all_regions():
    "Region 1 lies 10 higher and spreads three times as far"
    rng = np.random.default_rng(0)
    regions = [np.repeat([0, 1], 50), np.repeat([0, 1], 80)]
    seen = [rng.normal(size=(len(r), 2)) * (1 + 2 * r[:, None]) + 10 * r[:, None] for r in regions]
    made = np.concatenate(probes._align(seen, regions))
    region = np.concatenate(regions)
    for number in (0, 1):
        assert made[region == number].mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
        assert made[region == number].std(axis=0) == pytest.approx([1, 1], abs=1e-4)


def test_choices_change_what_they_say_of_the_preset_and_no_more():
    "A probe is not fine-tuned; features that stay what they are see no turned windows"
    preset = fine_tuning.FINE_TUNE_PRESETS["demo"]
    assert probes.tuning("probe", probes.PRESET, "demo") is None
    assert probes.tuning("full", probes.PRESET, "demo") == preset
    assert not probes.tuning("frozen", probes.PRESET, "demo").augment
    top = probes.tuning("full", "negatives from the top quarter", "demo")
    assert (top.quantiles, replace(top, quantiles=preset.quantiles)) == ((0.75, 1.0), preset)
    published = fine_tuning.FINE_TUNE_PRESETS["paper"]
    assert (published.view, published.quantiles) == ("cls", (0.75, 1.0))
    assert probes.tuning("full", "as published", "paper") == published
    for choice in probes.CHOICES:
        probes.tuning("last", choice, "paper")
    with pytest.raises(ValueError, match="no choice is called 'x'; there are as the preset, as p"):
        probes.tuning("full", "x", "demo")
