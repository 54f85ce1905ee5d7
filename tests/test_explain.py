from dataclasses import replace

import numpy as np
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import torch
import xarray as xr
from torch import nn

from mpm import explain, mae
from mpm.classifier import Classifier
from mpm.fine_tuning import FineTuneSettings, fine_tune
from mpm.windows import make_windows

TINY = mae.MAEConfig(layers=3, window=9, width=16, depth=1, heads=2)
SETTINGS = FineTuneSettings(
    steps=60, batch=16, rate=1e-2, backbone_rate=2e-3, dropout=0.2, every=20, augment=False
)


@pytest.fixture(scope="module")
def windows():
    """Three layers on 20 x 20 cells: noise, one that is high at positive cells, one with gaps."""
    rng = np.random.default_rng(0)
    evidence = rng.normal(size=(3, 20, 20)).astype("float32")
    evidence[1] += 5 * (np.arange(400) % 10 == 0).reshape(20, 20)
    evidence[2, 5:12, 4:9] = np.nan
    valid = np.ones((20, 20), bool)
    cube = xr.Dataset(
        {"evidence": (("layer", "y", "x"), evidence), "valid": (("y", "x"), valid)},
        coords={"layer": ["noise", "signal", "gaps"]},
    )
    return make_windows([cube], 9)


@pytest.fixture(scope="module")
def classifier(windows):
    cells = np.arange(400)
    labels, train = cells % 10 == 0, cells % 20 < 10
    classifier, _ = fine_tune(
        mae.build(TINY, seed=0).encoder,
        windows,
        cells[labels & train],
        cells[~labels & train],
        cells[~train],
        labels,
        SETTINGS,
        seed=1,
        device=torch.device("cpu"),
    )
    return classifier


class Linear(nn.Module):
    """Logit = sum of weight x value: what its explanation must be is known exactly."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(0)))

    def forward(self, values, observed):
        return (self.weight * values).sum(dim=(1, 2, 3))


CELLS = np.array([0, 21, 150, 187, 399])


# Integrated gradients


def test_attributions_sum_to_the_change_of_the_logit(classifier, windows):
    "Completeness within 1 % at 64 points, checked against the logits, not against itself"
    attribution, gap = explain.integrated_gradients(classifier, windows, CELLS, steps=64)
    values, observed = windows.gather(CELLS)
    with torch.no_grad():
        change = classifier(values, observed) - classifier(torch.zeros_like(values), observed)
    assert change.abs().min() > 0.05  # there is something to explain
    np.testing.assert_allclose(attribution.sum(axis=(1, 2, 3)), change.numpy(), rtol=0.01)
    assert gap.shape == (5,) and gap.max() < 0.01
    expected = np.abs(attribution.sum(axis=(1, 2, 3)) / change.numpy() - 1)
    np.testing.assert_allclose(gap, expected, atol=1e-4)


def test_points_are_doubled_until_the_sums_fit(classifier, windows):
    "Two points do not do; with more allowed every cell is below 1 %, and those that fit stay"
    few, bad = explain.integrated_gradients(classifier, windows, CELLS, steps=2, most_steps=2)
    found, gap = explain.integrated_gradients(classifier, windows, CELLS, steps=2)
    assert bad.max() > explain.TOLERANCE > gap.max()
    fit = bad < explain.TOLERANCE
    np.testing.assert_array_equal(few[fit], found[fit])
    assert not np.array_equal(few[~fit], found[~fit])


def test_cells_that_never_fit_are_reported(windows):
    "A score that jumps has no gradient: the gap is the whole of it"

    class Step(Linear):
        def forward(self, values, observed):
            return (values[:, 1, 4, 4] > 0.01).float() + 0 * values.sum(dim=(1, 2, 3))

    above = windows.gather(CELLS)[0][:, 1, 4, 4].numpy() > 0.01
    assert above.any()
    _, gap = explain.integrated_gradients(Step(), windows, CELLS, most_steps=32)
    np.testing.assert_allclose(gap[above], 1)


def test_contributions_are_the_mean_over_baselines(classifier, windows):
    "And gaps do not cancel between the paths"
    starts = windows.gather(np.array([5, 9]))[0]
    each = [
        explain.integrated_gradients(classifier, windows, CELLS, baselines=start[None], steps=64)
        for start in starts
    ]
    both, _ = explain.integrated_gradients(classifier, windows, CELLS, baselines=starts, steps=64)
    np.testing.assert_allclose(both, (each[0][0] + each[1][0]) / 2, atol=1e-5)


def test_layer_contributions_are_those_of_the_windows(classifier, windows):
    "The same sums without keeping the windows"
    whole, gap = explain.integrated_gradients(classifier, windows, CELLS, batch=2)
    signed, absolute, same = explain.layer_contributions(classifier, windows, CELLS, batch=2)
    for found, expected in zip((signed, absolute), explain.by_layer(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gap, same)
    table, again = explain.evidence_contributions(classifier, windows, CELLS, ["a", "b", "a"])
    assert again.max() < explain.TOLERANCE
    np.testing.assert_allclose(table["a"], signed[:, 0] + signed[:, 2], atol=1e-5)


@pytest.mark.parametrize("baseline", [None, torch.linspace(-1, 1, 243).reshape(1, 3, 9, 9)])
def test_a_linear_model_is_explained_exactly(windows, baseline):
    "Weight x (value - baseline) in every observed cell, 0 in every missing one"
    model = Linear()
    attribution, gap = explain.integrated_gradients(
        model, windows, CELLS, baselines=baseline, steps=3
    )
    values, observed = windows.gather(CELLS)
    start = torch.zeros(3, 9, 9) if baseline is None else baseline[0]
    expected = (model.weight.detach() * (values - start)).where(observed, 0)
    np.testing.assert_allclose(attribution, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert gap.max() < 1e-3


@pytest.mark.parametrize("baseline", [None, torch.ones(1, 3, 9, 9)])
def test_missing_cells_explain_nothing(classifier, windows, baseline):
    "Neither gaps in a layer nor cells beyond the edge of the map, whatever the baseline"
    attribution, _ = explain.integrated_gradients(classifier, windows, CELLS, baselines=baseline)
    _, observed = windows.gather(CELLS)
    assert (attribution[~observed.numpy()] == 0).all()
    assert (~observed).any() and (attribution[observed.numpy()] != 0).mean() > 0.9


def test_the_layer_that_decides_gets_the_contribution(classifier, windows):
    "At positive cells the layer with the signal outweighs noise and gaps"
    positive = np.arange(0, 400, 10)
    attribution, _ = explain.integrated_gradients(classifier, windows, positive)
    signed, _ = explain.by_layer(attribution)
    assert signed[:, 1].mean() > 3 * np.abs(signed[:, [0, 2]]).mean()


def test_batches_do_not_change_the_attributions(classifier, windows):
    "Windows are explained one by one, whatever is beside them, in the order asked for"
    one, many = (
        explain.integrated_gradients(classifier, windows, CELLS, batch=batch) for batch in (1, 4)
    )
    np.testing.assert_allclose(one[0], many[0], atol=1e-5)
    reverse, _ = explain.integrated_gradients(classifier, windows, CELLS[::-1].copy())
    np.testing.assert_allclose(reverse[::-1], many[0], atol=1e-5)


def test_the_explained_classifier_is_left_as_it_was(classifier, windows):
    "On the CPU, in evaluation mode, without gradients in its weights"
    classifier.zero_grad()
    explain.integrated_gradients(classifier.train(), windows, CELLS[:2])
    assert not any(module.training for module in classifier.modules())
    assert all(weight.grad is None for weight in classifier.parameters())
    assert {weight.device.type for weight in classifier.parameters()} == {"cpu"}


def test_signed_and_absolute_sums_by_hand():
    "Parts of one window that cancel are lost in the signed sum only"
    attribution = np.zeros((2, 2, 2, 2))
    attribution[0, 0] = [[1, -1], [2, -2]]
    attribution[1, 1] = [[1, 2], [3, -4]]
    signed, absolute = explain.by_layer(attribution)
    np.testing.assert_array_equal(signed, [[0, 0], [0, 2]])
    np.testing.assert_array_equal(absolute, [[6, 0], [0, 10]])


def test_values_at_centres_are_in_their_own_units(windows):
    "Those of the unscaled cube, cell by cell"
    plane = np.arange(400.0).reshape(20, 20)
    cube = xr.Dataset({"evidence": (("layer", "y", "x"), plane[None])}, coords={"layer": ["lab"]})
    found = explain.centre_values({"west": cube}, windows, np.array([21, 3]))
    assert found["lab"].tolist() == [21, 3]


# Where a cell lies


def test_distance_is_measured_within_a_region(windows):
    "In kilometres to the nearest positive cell, by hand; without one it is infinite"
    grid = xr.Dataset(coords={"x": 500.0 * np.arange(20), "y": 500.0 * np.arange(20)[::-1]})
    positive = np.zeros(400, bool)
    positive[[0, 399]] = True  # two corners
    distance = explain.distance_to_positives(windows, positive, {"west": grid})
    assert distance[[0, 399]].tolist() == [0, 0]
    assert distance[3 * 20 + 4] == pytest.approx(0.5 * 5)
    assert distance[16 * 20 + 16] == pytest.approx(0.5 * np.hypot(3, 3))
    none = explain.distance_to_positives(windows, np.zeros(400, bool), {"west": grid})
    assert np.isinf(none).all()


@pytest.mark.parametrize(
    ("crs", "where"), [(32633, "15.00° E, 45.10° N"), (32719, "69.00° W, 44.93° S")]
)
def test_a_cell_is_described_by_longitude_and_latitude(windows, crs, where):
    "Row 1, column 2 of a grid whose cell (1, 2) lies on the central meridian"
    north = {32633: 4_994_120.0, 32719: 5_025_000.0}[crs]
    x = 500_000 + 1000.0 * (np.arange(20) - 2)
    grid = xr.Dataset(coords={"x": x, "y": north - 1000.0 * (np.arange(20) - 1)})
    found = explain.describe_cell(windows, 22, {"west": grid.rio.write_crs(crs)}, 0.876)
    assert found == f"west, {where}: likelihood 0.88"


# Importance


def test_one_hot_planes_are_summed_before_their_size_is_taken():
    "Planes of one layer that cancel in a cell count as nothing there; largest first"
    values = np.array([[1.0, 2.0, -2.0], [1.0, 2.0, 2.0]])
    found = explain.importance(explain.by_evidence(values, ["gravity", "rock", "rock"]))
    assert found.to_dict() == {"rock": 2.0, "gravity": 1.0}
    assert found.index.tolist() == ["rock", "gravity"]


def test_planes_of_a_layer_need_not_stand_together():
    "Belonging is by name, not by place"
    values = np.array([[1.0, 5.0, 3.0], [1.0, 5.0, -3.0]])
    summed = explain.by_evidence(values, ["a", "b", "a"])
    assert summed.columns.tolist() == ["a", "b"]
    found = explain.importance(summed)
    assert found.to_dict() == {"b": 5.0, "a": 3.0}  # |1 + 3| and |1 - 3|


# Gaps of what a cell is compared with


@pytest.mark.parametrize("inputs", ["values", "contrasts", "both"])
def test_a_baseline_keeps_its_gaps(windows, inputs):
    "Sums are the score less that of the baseline as the network sees it, gaps and all"
    torch.manual_seed(0)
    model = Classifier(mae.build(replace(TINY, inputs=inputs), seed=0).encoder).eval()
    with torch.no_grad():  # untrained it is zero, and no gap would count
        model.encoder.missing.weight.normal_()
    typical = np.array([8 * 20 + 6, 5])  # one in the gap of the third layer, one at the edge
    starts = windows.gather(typical)
    assert not starts[1].all()
    found, gap = explain.integrated_gradients(model, windows, CELLS, baselines=starts, steps=64)
    with torch.no_grad():
        change = model(*windows.gather(CELLS)) - model(*starts).mean()
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), change.numpy(), rtol=0.011)
    assert gap.max() < explain.TOLERANCE
    # with the gaps of the cell the same values are another ground
    masked, _ = explain.integrated_gradients(model, windows, CELLS, baselines=starts[0], steps=64)
    assert np.abs(masked.sum(axis=(1, 2, 3)) / change.numpy() - 1).max() > 0.05


def test_a_layer_that_only_the_cell_lacks_is_explained_by_its_gap(windows):
    "The network of this test knows nothing but how much of the third layer is missing"
    model = Classifier(mae.build(TINY, seed=0).encoder).eval()
    with torch.no_grad():
        model.encoder.values.weight.zero_()
        model.encoder.missing.weight.zero_()
        model.encoder.missing.weight[:, 2] = torch.linspace(-1, 1, 16)
    cell, whole = np.array([8 * 20 + 6]), np.array([8 * 20 + 15])
    found, _ = explain.integrated_gradients(model, windows, cell, baselines=windows.gather(whole))
    with torch.no_grad():
        change = float(model(*windows.gather(cell)) - model(*windows.gather(whole)))
    assert abs(change) > 1e-3
    assert found[0, 2].sum() == pytest.approx(change, rel=0.011)
    assert (found[0, :2] == 0).all()
    lacking = ~windows.gather(cell)[1][0, 2].numpy()
    assert (found[0, 2][lacking] != 0).all() and (found[0, 2][~lacking] == 0).all()
