import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny

from mpm import mae, reconstruction
from mpm.reconstruction import Filled
from mpm.windows import make_windows

SMALL = tiny(decoder_width=16, mask_ratio=0.5)
RAMP = np.broadcast_to(np.arange(9.0), (9, 9))  # each cell holds its column


class Off:
    "A network that is wrong by the same amount everywhere"

    def __init__(self, config, by=0.5):
        self.config, self.by = config, by

    def __call__(self, values, observed, visible):
        return values + self.by


def whole_window(*planes):
    "Windows of a region that is one window, and the number of its centre"
    evidence = np.stack(planes).astype("float32")
    cube = xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence),
            "valid": (("y", "x"), np.ones(evidence.shape[1:], bool)),
        },
        coords={"layer": [f"layer_{k}" for k in range(len(planes))]},
    )
    windows = make_windows([cube], evidence.shape[1])
    middle = evidence.shape[1] // 2
    return windows, np.flatnonzero((windows.row == middle) & (windows.col == middle))


def fill_ramp(monkeypatch, hidden):
    "Hide patches (of 3 x 3, row by row) of the ramp, and fill them"
    visible = torch.tensor([[k for k in range(9) if k not in hidden]])
    monkeypatch.setattr(mae, "random_masking", lambda *_: visible)
    return reconstruction.fill(Off(SMALL), *whole_window(RAMP, -RAMP), seed=0)


# ---- fills


def test_a_hidden_middle_is_interpolated(monkeypatch):
    "Means of the patches are 1, 4 and 7, so that columns 3 to 5 get 3, 4 and 5, their values"
    filled = fill_ramp(monkeypatch, [4])
    expected = np.zeros((9, 9), bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(filled.hidden[0, 0], expected)
    row = filled.fills["bilinear"][0, :, 4]
    np.testing.assert_allclose(row[0], [1, 1, 2, 3, 4, 5, 6, 7, 7], rtol=1e-6)
    np.testing.assert_allclose(row[1], -row[0], rtol=1e-6)
    np.testing.assert_allclose(filled.fills["window mean"][0, 0], 4, rtol=1e-6)
    assert not filled.fills["layer mean"].any()
    np.testing.assert_array_equal(filled.fills["MAE"], filled.values + 0.5)


@pytest.mark.parametrize(
    ("hidden", "beside", "mean"), [([0, 3, 6], 4, 5.5), ([0, 1, 3, 4, 6, 7], 7, 7)]
)
def test_a_hidden_edge_takes_what_is_nearest(monkeypatch, hidden, beside, mean):
    "Without patches of mean 1, and of 1 and 4, the west gets the mean of the next ones"
    filled = fill_ramp(monkeypatch, hidden)
    np.testing.assert_allclose(filled.fills["bilinear"][0, 0, :, :3], beside, rtol=1e-6)
    np.testing.assert_allclose(filled.fills["window mean"][0, 0], mean, rtol=1e-6)


def test_interpolation_is_much_better_than_the_mean_on_a_ramp():
    "Its error on hidden cells of a slope is less than half that of the window's mean"
    size = 27
    slope = np.add.outer(np.arange(size), 2.0 * np.arange(size)) / size
    config = mae.MAEConfig(layers=2, window=size, mask_ratio=0.75)
    filled = reconstruction.fill(Off(config), *whole_window(slope, slope.T), seed=1)
    table = reconstruction.errors(filled, ["a", "b"])
    assert (table["bilinear"] < 0.5 * table["window mean"]).all()
    assert (table["window mean"] < table["layer mean"]).all()


def test_missing_cells_do_not_pull_the_fills_to_zero():
    "A layer that is 2 wherever it is observed is filled with 2; one never observed with 0"
    level = np.full((9, 9), 2.0)
    level[np.random.default_rng(3).random((9, 9)) < 0.3] = np.nan
    filled = reconstruction.fill(Off(SMALL), *whole_window(level, np.full((9, 9), np.nan)), seed=0)
    for name in ("bilinear", "window mean"):
        np.testing.assert_allclose(filled.fills[name][0, 0], 2, rtol=1e-6)
        assert not filled.fills[name][0, 1].any()
    observed = torch.as_tensor(~np.isnan(level))
    np.testing.assert_array_equal(filled.scored[0, 0], filled.hidden[0, 0] & observed)
    assert not filled.scored[0, 1].any()


@pytest.mark.parametrize("paint", [99.0, np.nan])
def test_no_fill_reads_a_hidden_cell(paint):
    "Hidden cells may hold anything, or be missing: all four fills stay the same"
    model = mae.build(SMALL, seed=1).eval()
    planes = np.random.default_rng(2).normal(size=(2, 9, 9))
    before = reconstruction.fill(model, *whole_window(*planes), seed=4)
    painted = np.where(before.hidden[0].numpy(), paint, planes)
    after = reconstruction.fill(model, *whole_window(*painted), seed=4)
    assert not torch.equal(before.values, after.values)
    assert set(before.fills) == {"MAE", "layer mean", "window mean", "bilinear"}
    for name in before.fills:
        torch.testing.assert_close(after.fills[name], before.fills[name], rtol=0, atol=0)


def test_fills_do_read_the_visible_cells():
    "One visible cell's value moves three fills, or the test above would prove nothing"
    model = mae.build(SMALL, seed=1).eval()
    planes = np.random.default_rng(2).normal(size=(2, 9, 9))
    before = reconstruction.fill(model, *whole_window(*planes), seed=4)
    row, col = np.argwhere(~before.hidden[0, 0].numpy())[0]
    planes[:, row, col] += 9
    after = reconstruction.fill(model, *whole_window(*planes), seed=4)
    same = {name for name, made in before.fills.items() if torch.equal(made, after.fills[name])}
    assert same == {"layer mean"}


def test_the_seed_decides_what_is_hidden():
    windows, index = whole_window(RAMP, -RAMP)
    first, again, other = (
        reconstruction.fill(Off(SMALL), windows, index, seed=seed).hidden for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    # half of nine patches, rounded to even: four stay
    assert first.sum() == 5 * 9


# ---- errors


def by_hand(values, made, *, scored=None, hidden=None) -> Filled:
    "Windows (N, layers, H, W), all hidden and scored unless said otherwise"
    values, made = (torch.as_tensor(np.asarray(x, "float32")) for x in (values, made))
    everywhere = torch.ones(values.shape, dtype=torch.bool)
    scored = everywhere if scored is None else torch.as_tensor(np.array(scored))
    hidden = everywhere[:, :1] if hidden is None else torch.as_tensor(np.array(hidden))
    return Filled(values, scored, hidden, {"MAE": made, "layer mean": torch.zeros_like(values)})


def test_errors_are_of_scored_cells_layer_by_layer():
    "First layer: off by 1, -1 and 2 where scored, and by 100 where not; second: by 3 everywhere"
    truth = np.array([[[[0, 1], [2, 4]], [[1, 1], [1, 3]]]])
    made = truth + np.array([[[[100, 1], [-1, 2]], [[3, 3], [3, 3]]]])
    scored = np.array([[[[False, True], [True, True]], [[True, True], [True, True]]]])
    table = reconstruction.errors(by_hand(truth, made, scored=scored), ["gravity", "uranium"])
    assert table.index.tolist() == ["gravity", "uranium"] and table.index.name == "layer"
    np.testing.assert_allclose(table["MAE"], [2**0.5, 3], rtol=1e-6)
    np.testing.assert_allclose(table["layer mean"], [7**0.5, 3**0.5], rtol=1e-6)
    # the range is 4 - 1 and 3 - 1: what is not scored does not widen it
    np.testing.assert_allclose(table["PSNR"], 20 * np.log10([3 / 2**0.5, 2 / 3]), rtol=1e-5)


def test_errors_pool_the_cells_of_all_windows():
    "Off by 1 in one scored cell of a window and by 3 in three of another: sqrt(28 / 4)"
    truth = np.zeros((2, 1, 2, 2))
    made = truth + np.array([1, 3])[:, None, None, None]
    scored = np.array([[[[True, False], [False, False]]], [[[True, True], [True, False]]]])
    table = reconstruction.errors(by_hand(truth, made, scored=scored), ["a"])
    assert table["MAE"].item() == pytest.approx(7**0.5)


def test_a_network_wrong_by_a_half_has_that_error():
    filled = reconstruction.fill(Off(SMALL), *whole_window(RAMP, -RAMP), seed=0)
    np.testing.assert_allclose(reconstruction.errors(filled, ["a", "b"])["MAE"], 0.5, rtol=1e-5)


def test_a_layer_without_range_has_no_psnr():
    "The ratio to a range of 0 says nothing"
    filled = by_hand(np.ones((1, 1, 4, 4)), np.zeros((1, 1, 4, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = reconstruction.errors(filled, ["flat"])
    assert np.isnan(table["PSNR"].item()) and table["MAE"].item() == 1


def test_a_perfect_fill_has_ssim_one_and_noise_lowers_it():
    "More noise, less similarity; no error has an infinite PSNR"
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(3, 2, 15, 15)).cumsum(axis=3)
    noise = rng.normal(size=truth.shape)
    tables = [
        reconstruction.errors(by_hand(truth, truth + level * noise), ["a", "b"])
        for level in (0, 0.3, 3)
    ]
    np.testing.assert_allclose(tables[0]["SSIM"], 1, rtol=1e-6)
    assert np.isposinf(tables[0]["PSNR"]).all()
    perfect, little, much = (table["SSIM"] for table in tables)
    assert (little < 0.99 * perfect).all() and (much < 0.7 * little).all()


def test_ssim_is_equation_13():
    "In 4 x 4 cells every 7 x 7 neighbourhood is the whole window, so there is one value"
    rng = np.random.default_rng(7)
    x, y = rng.normal(2, 1, (2, 4, 4))
    found = reconstruction.errors(by_hand(x[None, None], y[None, None]), ["a"])["SSIM"].item()
    c1, c2 = ((factor * (x.max() - x.min())) ** 2 for factor in (0.01, 0.03))
    shared = ((x - x.mean()) * (y - y.mean())).mean()
    above = (2 * x.mean() * y.mean() + c1) * (2 * shared + c2)
    below = (x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var() + y.var() + c2)
    assert found == pytest.approx(above / below, rel=1e-4)


def test_ssim_does_not_judge_visible_cells():
    "What the network says about cells that it saw changes nothing"
    truth = np.random.default_rng(8).normal(size=(1, 1, 9, 9))
    hidden = np.zeros((1, 1, 9, 9), bool)
    hidden[..., 3:6, 3:6] = True
    made = np.where(hidden, truth, 50)
    table = reconstruction.errors(by_hand(truth, made, scored=hidden, hidden=hidden), ["a"])
    assert table["SSIM"].item() == pytest.approx(1) and table["MAE"].item() == 0


# ---- panels


@pytest.fixture
def candidates():
    "Three windows of a layer: flat, wildest but with a gap under the mask, and moderate"
    truth = np.zeros((3, 1, 2, 2))
    truth[1, 0], truth[2, 0] = [[9, -9], [9, -9]], [[1, 2], [3, 5]]
    hidden = np.zeros((3, 1, 2, 2), bool)
    hidden[:, :, 1] = True
    scored = hidden.copy()
    scored[1, 0, 1, 0] = False
    return by_hand(truth, truth + 0.5, scored=scored, hidden=hidden)


def test_the_most_varying_complete_window_is_shown(candidates):
    "Visible cells stay as they are, hidden ones show the network's fill"
    shown = reconstruction.panels(candidates, ["total_field"], ["continuous"], rows=5)
    assert list(shown) == ["total field"]
    panel = shown["total field"]
    assert panel["input"].tolist() == [[1, 2], [3, 5]]
    np.testing.assert_array_equal(panel["masked"], [[1, 2], [np.nan, np.nan]])
    assert panel["reconstructed"].tolist() == [[1, 2], [3.5, 5.5]]
    assert panel["error"].tolist() == [[0, 0], [0.5, 0.5]]


def test_without_its_gap_the_wildest_window_is_shown(candidates):
    candidates.scored[1, 0, 1, 0] = True
    shown = reconstruction.panels(candidates, ["a"], ["continuous"], rows=1)
    assert shown["a"]["input"].tolist() == [[9, -9], [9, -9]]


def test_layers_shown_are_spread_over_the_continuous_ones():
    "Three of five; the binary layer between them is passed over"
    values = np.random.default_rng(9).normal(size=(2, 6, 3, 3))
    kinds = ["continuous", "binary"] + ["continuous"] * 4
    filled = by_hand(values, values)
    assert list(reconstruction.panels(filled, list("abcdef"), kinds, rows=3)) == ["a", "d", "f"]
    everything = reconstruction.panels(filled, list("abcdef"), kinds, rows=9)
    assert list(everything) == ["a", "c", "d", "e", "f"]


def test_a_perfect_fill_is_similar_whatever_is_missing():
    "Missing cells are not compared: SSIM 1 for a fill that meets every scored cell"
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 2, 9, 9, generator=generator)
    observed = torch.rand(values.shape, generator=generator) > 0.3
    hidden = torch.zeros(4, 1, 9, 9, dtype=torch.bool)
    hidden[..., :6] = True
    made = {"MAE": torch.where(observed, values, 7.0)}
    filled = reconstruction.Filled(values * observed, observed & hidden, hidden, made)
    table = reconstruction.errors(filled, ["a", "b"])
    np.testing.assert_allclose(table["SSIM"], 1, rtol=1e-5)
    np.testing.assert_allclose(table["MAE"], 0, atol=1e-6)


def test_a_layer_that_is_nowhere_scored_has_no_error():
    "NaN, not a perfect zero"
    values = torch.ones(1, 2, 9, 9)
    scored = torch.ones_like(values, dtype=torch.bool)
    scored[:, 1] = False
    hidden = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    filled = reconstruction.Filled(values, scored, hidden, {"MAE": values + 1})
    table = reconstruction.errors(filled, ["seen", "unseen"])
    assert table.loc["seen", "MAE"] == 1
    assert table.loc["unseen", ["MAE", "SSIM"]].isna().all()
