import numpy as np
import pytest
import torch
import xarray as xr
from rasterio.transform import from_origin

from mpm import scenes
from mpm.reconstruction import Filled
from mpm.scaling import fit_scaling
from mpm.windows import make_windows

SIDE = 9
Y, X = np.mgrid[:SIDE, :SIDE] - 4.0
CHEQUERED = np.kron(np.indices((3, 3)).sum(axis=0) % 2, np.ones((3, 3))).astype(bool)


def filled(*planes, hidden=CHEQUERED, gaps=()):
    "Windows of one layer, filled by the network with the truth plus 2, else with 0"
    values = torch.as_tensor(np.array(planes), dtype=torch.float32)[:, None]
    observed = torch.ones(values.shape, dtype=torch.bool)
    for n in gaps:
        observed[n, 0, 0, 0] = False
    masks = torch.as_tensor(np.array(hidden)).expand(len(planes), 1, SIDE, SIDE)
    fills = {"MAE": values + 2, "bilinear": torch.zeros_like(values)}
    return Filled(values, observed, masks, fills)


def test_the_line_is_a_straight_valley_in_visible_and_hidden_cells():
    "Not a plain, a slope or a ridge, nor one that crosses another, nor one that lies hidden"
    valley, crossing = np.abs(X), np.minimum(np.abs(X), np.abs(Y))
    column = np.zeros((SIDE, SIDE), bool)
    column[:, 3:6] = True
    assert scenes.scene(filled(0 * X, 3 * X, -valley, crossing, valley), "line").window == 4
    diagonal = np.abs(X - Y - 1)
    assert scenes.scene(filled(crossing, diagonal, 0 * X), "line").window == 1
    # the valley's floor is hidden as a whole: nothing visible tells of it
    assert scenes.scene(filled(valley, np.abs(Y), hidden=column), "line").window == 1


def test_the_edge_is_sharp_and_straight_and_runs_through_both():
    "A step beats the same rise spread over the window, and a patchwork that is steep all ways"
    step, ramp = np.where(X + Y > 0, 2.0, 0.0), (X + Y) / 8
    patchwork = 2.0 * ((X > 0) ^ (Y > 0))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(SIDE, SIDE))
    assert scenes.scene(filled(ramp, patchwork, noise, step), "edge").window == 3
    west = np.broadcast_to(X < -1, (SIDE, SIDE))
    hidden_step, visible_step = np.where(X > -3, 3.0, 0), np.where(X > 2, 3.0, 0)
    both = np.where(Y > 0, 1.5, 0)
    assert scenes.scene(filled(hidden_step, visible_step, both, hidden=west), "edge").window == 2


def test_the_high_reaches_from_a_visible_cell_into_a_hidden_one():
    "Not the higher ones that lie in the hidden or in the visible part as a whole"
    west = np.broadcast_to(X < 0, (SIDE, SIDE))
    hill = 5 * np.exp(-((X + 0.5) ** 2 + Y**2) / 4)
    hidden_hill, visible_hill = (9 * np.exp(-((X + s * 4) ** 2 + Y**2)) for s in (1, -1))
    planes = (hidden_hill, visible_hill, hill, -9 * hill)
    assert scenes.scene(filled(*planes, hidden=west), "high").window == 2


@pytest.mark.parametrize("sign", [1, -1])
def test_the_body_rises_or_falls_beyond_all_that_is_visible(sign):
    "Not a visible body, nor a larger hidden one that is visible elsewhere, nor a single cell"
    hidden = np.zeros((SIDE, SIDE), bool)
    hidden[3:6, 3:6] = True
    body = np.where(hidden, 4.0, 1)
    visible = np.where(np.roll(hidden, 3, axis=1), 9.0, 1)
    cell = np.where((X == 0) & (Y == 0), 9.0, 1)
    planes = np.array([np.ones((SIDE, SIDE)), visible, 3 * (body + visible), cell, body])
    assert scenes.scene(filled(*(sign * planes), hidden=hidden), "body").window == 4


@pytest.mark.parametrize("look", ["line", "edge", "high", "body"])
def test_the_fills_have_no_say_in_the_choice(look):
    rng = np.random.default_rng(1)
    made = filled(*rng.normal(size=(6, SIDE, SIDE)))
    fills = {name: -fill for name, fill in made.fills.items()}
    other = Filled(made.values, made.observed, made.hidden, fills)
    assert scenes.scene(made, look).window == scenes.scene(other, look).window


def test_a_window_without_gaps_is_preferred():
    "The sharpest edge has a missing cell; where all have one, it is shown with its gap"
    steep, flat = np.where(X > 0, 5.0, 0), np.where(X > 0, 1.0, 0)
    assert scenes.scene(filled(steep, flat, gaps=[0]), "edge").window == 1
    shown = scenes.scene(filled(steep, flat, gaps=[0, 1]), "edge")
    assert shown.window == 0
    for plane in (shown.truth, shown.masked, *shown.fills.values()):
        assert np.isnan(plane[0, 0])


def test_a_scene_shows_truth_mask_and_fills():
    "Visible cells stay as they are; errors are those of the hidden cells"
    made = filled(np.where(X > 0, 1.0, -1))
    shown = scenes.scene(made, "edge")
    np.testing.assert_array_equal(shown.truth, made.values[0, 0])
    np.testing.assert_array_equal(np.isnan(shown.masked), CHEQUERED)
    np.testing.assert_array_equal(shown.fills["MAE"] - shown.truth, 2 * CHEQUERED)
    np.testing.assert_array_equal(shown.fills["bilinear"][CHEQUERED], 0)
    np.testing.assert_array_equal(shown.fills["bilinear"][~CHEQUERED], shown.truth[~CHEQUERED])
    assert shown.errors == pytest.approx({"MAE": 2, "bilinear": 1})


def test_only_the_named_layers_are_looked_at():
    "The layer of the scene is counted among all of them"
    values = torch.zeros(2, 3, SIDE, SIDE)
    values[0, 0], values[1, 2] = torch.as_tensor(9 * X), torch.as_tensor(1.0 * X)
    observed = torch.ones_like(values, dtype=torch.bool)
    hidden = torch.as_tensor(CHEQUERED).expand(2, 1, SIDE, SIDE)
    made = Filled(values, observed, hidden, {"MAE": values, "bilinear": values})
    shown = scenes.scene(made, "edge", [1, 2])
    assert (shown.window, shown.layer) == (1, 2)
    shown = scenes.scene(made, "edge")
    assert (shown.window, shown.layer) == (0, 0)


def region(rows=20, cols=30):
    "Two layers on 2 km cells, the first its row times ten plus 3 and the second noise"
    noise = np.random.default_rng(0).normal(size=(rows, cols))
    evidence = np.stack([np.repeat(np.arange(rows)[:, None], cols, 1) * 10.0 + 3, noise])
    valid = np.ones((rows, cols), bool)
    valid[0, 0] = False
    made = xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence.astype("float32")),
            "valid": (("y", "x"), valid),
        },
        coords={
            "layer": ["rows", "noise"],
            "kind": ("layer", ["continuous"] * 2),
            "x": 1000 + 2000.0 * np.arange(cols),
            "y": 39_000 - 2000.0 * np.arange(rows),
        },
    )
    return made.rio.write_crs(32633).rio.write_transform(from_origin(0, 40_000, 2000, 2000))


def test_surroundings_are_standardised_and_know_where_they_lie():
    "Four cells to each side, fewer at the edge; cells that are not valid are left out"
    cube = region()
    scaling = fit_scaling([cube], [cube["valid"].values])
    plane = scenes.surroundings(cube, scaling, "rows", 10, 12, reach=4)
    assert plane.shape == (9, 9) and plane["layer"].item() == "rows"
    known = cube["evidence"][0].values[cube["valid"].values]
    wanted = ((np.arange(6, 15) * 10 + 3) - known.mean()) / known.std()
    np.testing.assert_allclose(plane[:, 0], wanted, rtol=1e-4)
    assert (plane.attrs["x"], plane.attrs["y"]) == (25_000, 19_000)
    assert plane.rio.bounds() == (16_000, 10_000, 34_000, 28_000)
    corner = scenes.surroundings(cube, scaling, "rows", 0, 1, reach=4)
    assert corner.shape == (5, 6) and np.isnan(corner[0, 0]) and not np.isnan(corner[0, 1])


def test_the_example_varies_most_and_has_no_gap():
    "Noise grows to the east, where one cell is missing; only the named layers count"
    cube = region()
    cube["evidence"][1] *= cube["x"] / 1e4
    cube["evidence"][1, 10, 29] = np.nan
    windows = make_windows([cube], 5)
    index = np.flatnonzero((windows.row == 10) & (windows.col > 1) & (windows.col < 28))
    spread = {n: windows.gather([n])[0][0, 1].std().item() for n in index}
    chosen = scenes.varied(windows, index, [1])
    whole = [n for n in index if windows.col[n] < 27]
    assert chosen == max(whole, key=spread.get)
    assert scenes.varied(windows, index[-1:], [1]) == index[-1]
