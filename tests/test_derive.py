import numpy as np
import pytest

from mpm import derive

STEP = 2000.0  # m


def plane(east, north, shape=(9, 11)):
    "Rises by so much a km to the east and to the north"
    rows, columns = np.indices(shape)
    return east * columns * STEP / 1000 - north * rows * STEP / 1000 + 100


@pytest.mark.parametrize(("name", "expected"), [("hgm", 5.0), ("slope", 0.005)])
def test_the_slope_of_a_plane_is_its_slope(name, expected):
    "3 a km to the east and 4 to the north are 5 a km; in m per m a thousandth"
    found = derive.compute(name, plane(3, 4), STEP)
    np.testing.assert_allclose(found[1:-1, 1:-1], expected)
    assert "central differences" in derive.method(name)


def test_the_gradient_points_uphill():
    "To the east and to the north, though rows run south"
    east, north = derive.gradient(plane(3, 4), 2.0)
    np.testing.assert_allclose(east[1:-1, 1:-1], 3)
    np.testing.assert_allclose(north[1:-1, 1:-1], 4)


def test_a_cell_whose_neighbour_is_missing_is_missing():
    "One gap takes a cross of five; the rim has no neighbours"
    values = plane(3, 4)
    values[4, 5] = np.nan
    found = derive.compute("hgm", values, STEP)
    missing = np.ones(values.shape, bool)
    missing[1:-1, 1:-1] = False
    missing[[4, 3, 5, 4, 4], [5, 5, 5, 4, 6]] = True
    np.testing.assert_array_equal(np.isnan(found), missing)


def contact(angle, offset, size=41):
    "A smooth step across a line through the middle, turned by `angle`, moved by `offset` cells"
    rows, columns = np.indices((size, size)) - size // 2
    away = columns * np.cos(angle) - rows * np.sin(angle) - offset
    return np.tanh(away / 4), away


@pytest.mark.parametrize("angle", np.radians([0, 20, 45, 70, 90, 135, 200, 315]))
@pytest.mark.parametrize("offset", [0, 0.3, 0.5])
def test_ridges_follow_the_steepest_line_finer_than_a_cell(angle, offset):
    "All ridges found lie on the contact, to a tenth of a cell, and they miss no row or column"
    values, _ = contact(angle, offset)
    found = derive.ridges(values, 0.5) - 20
    away = found[:, 1] * np.cos(angle) - found[:, 0] * np.sin(angle) - offset
    assert np.abs(away).max() < 0.1
    along = found[:, 1] * np.sin(angle) + found[:, 0] * np.cos(angle)
    assert np.diff(np.sort(along)).max() < 1.5 and len(found) >= 37


def test_weak_ridges_are_left_out():
    "Two contacts, one a tenth as high: above the upper quarter of gradients only one is left"
    strong, away = contact(0, -10)
    weak, _ = contact(0, 10)
    both = strong + 0.1 * weak
    columns = derive.ridges(both, 0.0)[:, 1] - 20
    assert {round(column) for column in columns} == {-10, 10}
    assert {round(column) for column in derive.ridges(both)[:, 1] - 20} == {-10}


def test_worms_are_the_distance_to_the_ridge_in_metres():
    "From every cell to a contact at 0.3 cells, straight across"
    values, away = contact(0, 0.3)
    found = derive.compute("worms", values, STEP)
    np.testing.assert_allclose(found[3:-3, 1:-1], np.abs(away[3:-3, 1:-1]) * STEP, atol=0.1 * STEP)
    assert np.isnan(found[:, 0]).all() and "upper 25%" in derive.method("worms")


def test_worms_need_a_ridge():
    "A level plane has none, nor has one that is missing"
    for values in (np.full((9, 9), 3.0), np.full((9, 9), np.nan)):
        with pytest.raises(ValueError, match="has no ridge"):
            derive.compute("worms", values, STEP)


def test_a_high_pass_takes_the_mean_of_a_circle_off():
    "Within 2 km, a cell and its four neighbours: a spike of 5 leaves 4, and -1 around it"
    values = np.full((9, 11), 7.0)
    values[4, 5] += 5
    found = derive.compute("highpass", values, STEP, 2000)
    expected = np.zeros((9, 11))
    expected[4, 5] = 4
    expected[[3, 5, 4, 4], [5, 5, 4, 6]] = -1
    np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-9)
    assert derive.method("highpass", 2000) == "less its mean within 2 km"


def test_a_high_pass_knows_gaps():
    "The mean is of what is observed; where less than half of the circle is, nothing is known"
    values = np.full((9, 11), 7.0)
    values[:, :4] = np.nan
    values[4, 4] = 11
    found = derive.compute("highpass", values, STEP, 2000)
    np.testing.assert_allclose(found[4, 4], 11 - (11 + 3 * 7) / 4)
    assert np.isnan(found[:, :4]).all()
    lonely = np.full((9, 11), np.nan)
    lonely[4, 5] = lonely[4, 4] = 1
    assert np.isnan(derive.compute("highpass", lonely, STEP, 2000)).all()


def test_the_vertical_derivative_of_a_buried_mass():
    "Its attraction z / (r2 + z2)^1.5 grows downwards by (2 z2 - r2) / (r2 + z2)^2.5"
    rows, columns = np.indices((161, 181)) * STEP / 1000
    depth, square = 10, (rows - 160) ** 2 + (columns - 180) ** 2
    values = depth / (square + depth**2) ** 1.5
    truth = (2 * depth**2 - square) / (square + depth**2) ** 2.5
    found = derive.compute("vertical", values, STEP)
    margin = derive.margin("vertical", STEP)
    inner = (slice(margin, -margin),) * 2
    np.testing.assert_allclose(found[inner], truth[inner], atol=0.02 * truth.max())


def test_the_vertical_derivative_refuses_gaps():
    values = plane(3, 4, (100, 100))
    np.testing.assert_allclose(derive.compute("vertical", values, STEP), 0, atol=1e-9)
    values[50, 50] = np.nan
    with pytest.raises(ValueError, match="needs a parent without gaps"):
        derive.compute("vertical", values, STEP)


@pytest.mark.parametrize(
    ("name", "reach"),
    [("hgm", None), ("slope", None), ("highpass", 5000), ("worms", None), ("vertical", None)],
)
def test_the_margin_is_what_a_cell_at_the_rim_needs(name, reach):
    "Inside the margin nothing is missing"
    margin = derive.margin(name, STEP, reach)
    rows, columns = np.indices((6 + 2 * margin, 5 + 2 * margin))
    values = np.sin(rows / 3) + np.cos(columns / 4)
    found = derive.compute(name, values, STEP, reach)
    assert np.isfinite(found[margin:-margin, margin:-margin]).all()
