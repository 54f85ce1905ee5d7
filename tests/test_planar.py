import numpy as np
import pytest

from mpm import places, planar

CELLS = places.grid("EPSG:32633", (0, 40), 10, (4, 5))  # centres at 5, 15, ... and 35, 25, ...


def test_distance_to_a_piece_is_to_its_middle_or_its_end():
    "A piece from (0, 0) to (10, 0), and a point at (100, 0)"
    start = np.array([[0.0, 0], [10, 0], [100, 0]])
    along = np.array([[10.0, 0], [0, 0], [0, 0]])
    points = np.array([[5.0, 3], [-3, 4], [13, -4], [97, 4]])
    np.testing.assert_allclose(planar.to_nearest(points, start, along, 0), [3, 5, 5, 5])


def test_piece_that_passes_close_by_beats_many_nearer_vertices():
    "One long piece 1 m off, its ends 50 m away, behind 20 vertices 10 m off"
    angle = np.linspace(0, 6, 20)
    crowd = 10 * np.column_stack([np.cos(angle), np.sin(angle)])
    start = np.vstack([crowd, [[-50, 1], [50, 1]]])
    along = np.zeros_like(start)
    along[20] = [100, 0]
    assert planar.to_nearest(np.zeros((1, 2)), start, along, 0) == pytest.approx([1])


def test_distance_to_nothing_is_infinite():
    nothing = np.empty((0, 2))
    assert np.isinf(planar.to_nearest(np.zeros((3, 2)), nothing, nothing, 1)).all()


def test_sum_within_a_circle_agrees_with_all_distances():
    "Random points in and around the grid, circles from below a cell to wider than the grid"
    rng = np.random.default_rng(0)
    points, weights = rng.uniform(-60, 100, (300, 2)), rng.uniform(0, 5, 300)
    x, y = np.meshgrid(CELLS["x"], CELLS["y"])
    away = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    for reach in (3, 10, 27, 90):
        expected = ((away <= reach) * weights).sum(axis=-1)
        found = planar.sum_within(points, weights, CELLS, reach)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_sum_is_nothing_where_there_is_nothing():
    "What running sums take off leaves no crumbs"
    points = np.array([[5.0, 35.0]] * 3)
    found = planar.sum_within(points, np.array([0.1, 0.2, 0.3]), CELLS, 4)
    assert (found > 0).sum() == 1 and found[0, 0] == pytest.approx(0.6)
    assert not planar.sum_within(np.empty((0, 2)), np.empty(0), CELLS, 4).any()


def test_padded_grid_has_a_rim_wider_than_the_reach():
    "25 m are 3 cells, and one more"
    around = planar.padded(CELLS, 25)
    assert around.shape == (4 + 8, 5 + 8)
    assert around.rio.bounds() == (-40, -40, 90, 80)


@pytest.mark.parametrize(("n", "reach"), [(1, 25), (3, 25), (5, 12)])
def test_mean_within_a_circle_counts_subcells(n, reach):
    "A random mask, against all subcells whose centre lies in the circle"
    around = planar.padded(CELLS, reach)
    fine = np.random.default_rng(0).integers(0, 2, [n * size for size in around.shape], "uint8")
    west, _, _, north = around.rio.bounds()
    step = 10 / n
    x = west + step * (np.arange(fine.shape[1]) + 0.5)
    y = north - step * (np.arange(fine.shape[0]) + 0.5)
    found = planar.mean_within(fine, n, CELLS, reach)
    for row, col in [(0, 0), (3, 4), (1, 2)]:
        away = np.hypot(x - float(CELLS["x"][col]), (y - float(CELLS["y"][row]))[:, None])
        assert found[row, col] == pytest.approx(fine[away <= reach].mean(), abs=1e-6)


def test_even_number_of_subcells_is_refused():
    with pytest.raises(ValueError, match="4 subcells a cell have none at its centre"):
        planar.mean_within(np.zeros((4, 4)), 4, CELLS, 10)
