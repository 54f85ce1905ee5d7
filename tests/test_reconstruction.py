import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers import masked_mean_square, tiny

from mpm import mae, masking, reconstruction
from mpm.reconstruction import Filled
from mpm.windows import make_windows

SMALL = tiny(decoder_width=16, mask_ratio=0.5)
ZEROS = np.zeros(2)
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
    mask = masking.Mask(visible, torch.zeros(1, visible.shape[1], 0, dtype=torch.bool))
    monkeypatch.setattr(masking, "draw", lambda *_, **__: mask)
    return reconstruction.fill(Off(SMALL), *whole_window(RAMP, -RAMP), means=ZEROS, seed=0)


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
    np.testing.assert_array_equal(filled.fills["layer mean"], 0)
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
    filled = reconstruction.fill(Off(config), *whole_window(slope, slope.T), means=ZEROS, seed=1)
    table = reconstruction.errors(filled, ["a", "b"])["error"]
    assert (table["bilinear"] < 0.5 * table["window mean"]).all()
    assert (table["window mean"] < table["layer mean"]).all()


def test_missing_cells_do_not_pull_the_fills_to_zero():
    "A layer that is 2 wherever it is observed is filled with 2; one never observed with 0"
    level = np.full((9, 9), 2.0)
    level[np.random.default_rng(3).random((9, 9)) < 0.3] = np.nan
    filled = reconstruction.fill(
        Off(SMALL), *whole_window(level, np.full((9, 9), np.nan)), means=ZEROS, seed=0
    )
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
    before = reconstruction.fill(model, *whole_window(*planes), means=ZEROS, seed=4)
    painted = np.where(before.hidden[0].numpy(), paint, planes)
    after = reconstruction.fill(model, *whole_window(*painted), means=ZEROS, seed=4)
    assert not torch.equal(before.values, after.values)
    assert set(before.fills) == {"MAE", "layer mean", "window mean", "bilinear"}
    for name in before.fills:
        torch.testing.assert_close(after.fills[name], before.fills[name], rtol=0, atol=0)


def test_fills_do_read_the_visible_cells():
    "One visible cell's value moves three fills, or the test above would prove nothing"
    model = mae.build(SMALL, seed=1).eval()
    planes = np.random.default_rng(2).normal(size=(2, 9, 9))
    before = reconstruction.fill(model, *whole_window(*planes), means=ZEROS, seed=4)
    row, col = np.argwhere(~before.hidden[0, 0].numpy())[0]
    planes[:, row, col] += 9
    after = reconstruction.fill(model, *whole_window(*planes), means=ZEROS, seed=4)
    same = {name for name, made in before.fills.items() if torch.equal(made, after.fills[name])}
    assert same == {"layer mean"}


def test_the_seed_decides_what_is_hidden():
    windows, index = whole_window(RAMP, -RAMP)
    first, again, other = (
        reconstruction.fill(Off(SMALL), windows, index, means=ZEROS, seed=seed).hidden
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    # half of nine patches, rounded to even: four stay
    assert first.sum() == 5 * 9


def test_the_layer_mean_is_that_of_the_training_cells():
    "Of 0 to 8 in 9 x 9 cells 4, of a layer of which only the east is observed 7, else 0"
    east = np.where(RAMP > 5, RAMP, np.nan)
    windows, index = whole_window(RAMP, east, np.full((9, 9), np.nan))
    means = reconstruction.layer_means(windows, np.arange(81))
    np.testing.assert_allclose(means, [4, 7, 0])
    assert reconstruction.layer_means(windows, np.flatnonzero(windows.col < 2))[0] == 0.5
    # of 81 centres every eighth: those of columns 0, 8, 7, 6 ... 0, 8
    few = reconstruction.layer_means(windows, np.arange(81), most=10)[0]
    assert few == pytest.approx(np.tile(np.arange(9), 9)[::8].mean())
    config = tiny(layers=3, mask_ratio=0.5)
    filled = reconstruction.fill(Off(config), windows, index, means=means, seed=0)
    np.testing.assert_allclose(filled.fills["layer mean"][0, :, 3, 3], [4, 7, 0])


# ---- errors


def by_hand(values, made, *, observed=None, hidden=None) -> Filled:
    "Windows (N, layers, H, W), all hidden and observed unless said otherwise"
    values, made = (torch.as_tensor(np.asarray(x, "float32")) for x in (values, made))
    everywhere = torch.ones(values.shape, dtype=torch.bool)
    observed = everywhere if observed is None else torch.as_tensor(np.array(observed))
    hidden = everywhere[:, :1] if hidden is None else torch.as_tensor(np.array(hidden))
    return Filled(values, observed, hidden, {"MAE": made, "layer mean": torch.zeros_like(values)})


def test_cells_are_scored_if_hidden_and_observed():
    observed = np.array([[[[True, True], [False, False]]] * 2])
    hidden = np.array([[[[True, False], [True, False]]]])
    filled = by_hand(np.ones((1, 2, 2, 2)), np.ones((1, 2, 2, 2)), observed=observed, hidden=hidden)
    assert filled.scored.tolist() == [[[[True, False], [False, False]]] * 2]


def test_errors_are_of_scored_cells_layer_by_layer():
    "First layer: off by 1, -1 and 2 where scored, and by 100 where not; second: by 3 everywhere"
    truth = np.array([[[[0, 1], [2, 4]], [[1, 1], [1, 3]]]])
    made = truth + np.array([[[[100, 1], [-1, 2]], [[3, 3], [3, 3]]]])
    observed = np.array([[[[False, True], [True, True]], [[True, True], [True, True]]]])
    table = reconstruction.errors(by_hand(truth, made, observed=observed), ["gravity", "uranium"])
    assert table.index.tolist() == ["gravity", "uranium"] and table.index.name == "layer"
    np.testing.assert_allclose(table["error", "MAE"], [2**0.5, 3], rtol=1e-6)
    np.testing.assert_allclose(table["error", "layer mean"], [7**0.5, 3**0.5], rtol=1e-6)
    # the range is 4 - 1 and 3 - 1: what is not scored does not widen it
    np.testing.assert_array_equal(table["range"], [3, 2])
    np.testing.assert_allclose(table["PSNR", "MAE"], 20 * np.log10([3 / 2**0.5, 2 / 3]), rtol=1e-6)
    plain = 20 * np.log10([3 / 7**0.5, 2 / 3**0.5])
    np.testing.assert_allclose(table["PSNR", "layer mean"], plain, rtol=1e-6)
    assert list(table["SSIM"]) == ["MAE", "layer mean"]


def test_a_tenth_of_the_range_is_twenty_decibels():
    truth = np.linspace(0, 10, 16).reshape(1, 1, 4, 4)
    table = reconstruction.errors(by_hand(truth, truth + 1), ["a"])
    assert table["PSNR", "MAE"].item() == pytest.approx(20, rel=1e-5)


def test_errors_pool_the_cells_of_all_windows():
    "Off by 1 in one scored cell of a window and by 3 in three of another: sqrt(28 / 4)"
    truth = np.zeros((2, 1, 2, 2))
    made = truth + np.array([1, 3])[:, None, None, None]
    observed = np.array([[[[True, False], [False, False]]], [[[True, True], [True, False]]]])
    filled = by_hand(truth, made, observed=observed)
    assert reconstruction.errors(filled, ["a"])["error", "MAE"].item() == pytest.approx(7**0.5)
    assert reconstruction.losses(filled) == pytest.approx({"MAE": 7, "layer mean": 0})


def test_the_loss_is_the_one_that_training_reports():
    "Over all layers together, layers with more scored cells counting more"
    rng = np.random.default_rng(0)
    values, made = rng.normal(size=(2, 3, 2, 9, 9))
    observed = rng.random(values.shape) > 0.4
    filled = by_hand(values, made, observed=observed)
    parts = (filled.fills["MAE"], filled.values, filled.observed, filled.hidden)
    wanted = masked_mean_square(*parts).item()
    assert reconstruction.losses(filled)["MAE"] == pytest.approx(wanted, rel=1e-6)


def test_a_network_wrong_by_a_half_has_that_error():
    filled = reconstruction.fill(Off(SMALL), *whole_window(RAMP, -RAMP), means=ZEROS, seed=0)
    table = reconstruction.errors(filled, ["a", "b"])
    np.testing.assert_allclose(table["error", "MAE"], 0.5, rtol=1e-5)


def test_a_layer_without_range_has_no_psnr_and_no_ssim():
    "Ratios to a range of 0 say nothing"
    filled = by_hand(np.ones((1, 1, 4, 4)), np.zeros((1, 1, 4, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = reconstruction.errors(filled, ["flat"])
    assert np.isnan(table["PSNR", "MAE"].item()) and np.isnan(table["SSIM", "MAE"].item())
    assert table["error", "MAE"].item() == 1 and table["range"].item() == 0


def test_a_layer_that_is_nowhere_scored_has_no_error():
    "NaN, not a perfect zero"
    values = np.arange(162.0).reshape(1, 2, 9, 9)
    observed = np.ones(values.shape, bool)
    observed[:, 1] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = reconstruction.errors(by_hand(values, values + 1, observed=observed), ["a", "b"])
    assert table["error", "MAE"]["a"] == 1 and table.loc["b"].isna().all()
    assert reconstruction.verdicts(table).index.tolist() == ["a"]


# ---- structural similarity


def similarity(truth, made, scored) -> float:
    "Equation 13, square by square"
    span = np.ptp(truth[scored])
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    found, weights = [], []
    for n, row, col in np.ndindex(len(truth), truth.shape[1] - 6, truth.shape[2] - 6):
        square = (n, slice(row, row + 7), slice(col, col + 7))
        x, y = truth[square][scored[square]], made[square][scored[square]]
        if x.size:
            shared = ((x - x.mean()) * (y - y.mean())).mean()
            above = (2 * x.mean() * y.mean() + c1) * (2 * shared + c2)
            below = (x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var() + y.var() + c2)
            found.append(above / below)
            weights.append(x.size)
    return np.average(found, weights=weights)


@pytest.mark.parametrize("share", [1.0, 0.6, 0.02])
def test_ssim_is_equation_13_on_scored_cells(share):
    "Squares of 7 x 7 cells inside the window, each counting by its scored cells"
    rng = np.random.default_rng(7)
    truth, made = rng.normal(3, 1, (2, 3, 11, 9)).cumsum(axis=2)
    scored = rng.random(truth.shape) < share
    parts = (torch.as_tensor(part) for part in (truth, made, scored))
    found = reconstruction.structural_similarity(*parts, np.ptp(truth[scored]))
    assert found == pytest.approx(similarity(truth, made, scored), rel=1e-9)
    values = (np.where(scored, part, 0)[:, None] for part in (truth, made))
    table = reconstruction.errors(by_hand(*values, observed=scored[:, None]), ["a"])
    assert table["SSIM", "MAE"].item() == pytest.approx(found, rel=1e-4)


def test_ssim_of_all_cells_is_what_others_compute():
    "The value that scikit-image 0.26 gives for these images, window 7, population covariance"
    y, x = np.mgrid[:12, :15]
    truth, made = np.sin(x / 3) + np.cos(y / 4), np.sin(x / 3 + 0.3) + np.cos(y / 4) / 2
    parts = [torch.as_tensor(part)[None] for part in (truth, made)]
    scored = torch.ones_like(parts[0], dtype=torch.bool)
    found = reconstruction.structural_similarity(*parts, scored, float(np.ptp(truth)))
    assert found == pytest.approx(0.5860484486892845, rel=1e-9)


def test_small_windows_are_one_square():
    truth, made = np.random.default_rng(7).normal(2, 1, (2, 1, 5, 5))
    parts = [torch.as_tensor(part) for part in (truth, made)]
    scored = torch.ones(1, 5, 5, dtype=torch.bool)
    found = reconstruction.structural_similarity(*parts, scored, 4.0)
    c1, c2 = 0.04**2, 0.12**2
    shared = ((truth - truth.mean()) * (made - made.mean())).mean()
    above = (2 * truth.mean() * made.mean() + c1) * (2 * shared + c2)
    below = (truth.mean() ** 2 + made.mean() ** 2 + c1) * (truth.var() + made.var() + c2)
    assert found == pytest.approx(above / below)


def test_a_perfect_fill_has_ssim_one_and_noise_lowers_it():
    "More noise, less similarity; no error has an infinite PSNR"
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(3, 2, 15, 15)).cumsum(axis=3)
    noise = rng.normal(size=truth.shape)
    tables = [
        reconstruction.errors(by_hand(truth, truth + level * noise), ["a", "b"])
        for level in (0, 0.3, 3)
    ]
    np.testing.assert_allclose(tables[0]["SSIM", "MAE"], 1, rtol=1e-9)
    assert np.isposinf(tables[0]["PSNR", "MAE"]).all()
    perfect, little, much = (table["SSIM", "MAE"] for table in tables)
    assert (little < 0.99 * perfect).all() and (much < 0.7 * little).all()


@pytest.mark.parametrize("part", ["visible", "missing"])
def test_cells_that_are_not_scored_change_nothing(part):
    "Neither what was visible nor what is missing, in truth or fill, however wrong"
    rng = np.random.default_rng(8)
    truth, made = rng.normal(size=(2, 2, 1, 9, 9))
    scored = rng.random(truth.shape) < 0.7
    layout = {"hidden" if part == "visible" else "observed": scored}
    before = reconstruction.errors(by_hand(truth, made, **layout), ["a"])
    painted = [np.where(scored, each, colour) for each, colour in [(truth, 0), (made, 50)]]
    after = reconstruction.errors(by_hand(*painted, **layout), ["a"])
    pd.testing.assert_frame_equal(before, after)


# ---- verdicts


def test_verdicts_hold_the_network_against_the_best_plain_fill():
    "Half as large an error in one layer, twice as large in the other; the greatest gain first"
    table = pd.DataFrame({"MAE": [0.4, 0.1], "layer mean": [0.9, 0.8], "bilinear": [0.2, 0.2]})
    table.index = pd.Index(["smooth", "rough"], name="layer")
    table.loc["rough", "bilinear"] = 0.9
    found = reconstruction.verdicts(pd.concat({"error": table}, axis=1))
    assert found.index.tolist() == ["rough", "smooth"]
    assert found["best plain fill"].tolist() == ["layer mean", "bilinear"]
    np.testing.assert_allclose(found["ratio"], [0.125, 2])
    assert found["worse"].tolist() == [False, True]
    assert found["plain"].tolist() == [0.8, 0.2] and found["MAE"].tolist() == [0.1, 0.4]


def test_verdicts_know_how_far_windows_agree():
    """Of two windows the network is better in one and worse in the other: cannot be told.

    Where it is half as wrong in both, every draw says so. Errors are 1 and 3 against 2 and 2: drawn
    twice the first, 0.5; twice the second, 1.5.
    """
    values = torch.zeros(2, 2, 2, 2)
    own, plain = torch.ones(2, 2, 2, 2), torch.full((2, 2, 2, 2), 2.0)
    own[1, 1] = 3.0
    everywhere = torch.ones(2, 2, 2, 2, dtype=torch.bool)
    fills = {"MAE": own, "layer mean": plain}
    filled = reconstruction.Filled(values, everywhere, everywhere[:, :1], fills)
    table = reconstruction.errors(filled, ["sure", "mixed"])
    found = reconstruction.verdicts(table, filled)
    assert found.index.tolist() == ["sure", "mixed"]
    np.testing.assert_allclose(found[["low", "high"]], [[0.5, 0.5], [0.5, 1.5]])
    assert found["verdict"].tolist() == ["better", "cannot be told"]


def test_a_draw_is_not_worse_and_an_exact_fill_is_infinitely_better():
    table = pd.DataFrame({"MAE": [0.0, 0.1], "bilinear": [0.0, 0.0]}, index=["same", "class"])
    found = reconstruction.verdicts(pd.concat({"error": table}, axis=1))
    assert found["ratio"].tolist() == [1, np.inf] and found["worse"].tolist() == [False, True]
    table = pd.DataFrame({"MAE": [0.2], "bilinear": [0.2]}, index=["a"])
    assert not reconstruction.verdicts(pd.concat({"error": table}, axis=1))["worse"].any()
