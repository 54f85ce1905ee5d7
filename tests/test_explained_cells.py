import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from mpm import explained_cells
from mpm.windows import Windows, make_windows


@pytest.fixture(scope="module")
def windows():
    """Three layers of noise on 20 x 20 cells, the third with a gap."""
    evidence = np.random.default_rng(0).normal(size=(3, 20, 20)).astype("float32")
    evidence[2, 5:12, 4:9] = np.nan
    planes = {"evidence": (("layer", "y", "x"), evidence)}
    planes["valid"] = (("y", "x"), np.ones((20, 20), bool))
    return make_windows([xr.Dataset(planes, coords={"layer": list("abc")})], 9)


# Which are explained


def two_regions() -> Windows:
    """Five cells of one region and four of another."""
    region, place = np.repeat([0, 1], [5, 4]), np.zeros(9, int)
    shapes = ((1, 5), (1, 4))
    return Windows(
        torch.zeros(1, 1, 1), torch.zeros(1, 1, 1, dtype=bool), 1, region, place, place, shapes
    )


def test_the_most_likely_cells_of_each_region_are_chosen():
    "Two fifths of one and half of the other, equals of the last too, cells without a score never"
    likelihood = np.array([0.1, 0.9, 0.5, 0.5, np.nan, 0.2, 0.1, 0.15, 0.05])
    found = explained_cells.likely(two_regions(), likelihood, 0.5)
    assert found.tolist() == [1, 2, 3, 5, 7]
    assert explained_cells.likely(two_regions(), likelihood, 1).tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert explained_cells.likely(two_regions(), likelihood, 0).tolist() == []
    assert explained_cells.lowest(likelihood.reshape(3, 3), 0.25) == 0.5


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ValueError, match="share 10 must lie between 0"):
        explained_cells.lowest(np.zeros(3), 10)


def test_the_grid_holds_the_middle_of_every_block():
    "Of 7 x 7 cells in blocks of 3 four are on it; every cell of blocks of 1, none of 0"
    row, col = np.indices((7, 7))
    found = np.argwhere(explained_cells.on_grid(row, col, 3))
    assert found.tolist() == [[1, 1], [1, 4], [4, 1], [4, 4]]
    assert explained_cells.on_grid(row, col, 1).all()
    assert not explained_cells.on_grid(row, col, 0).any()


# What a cell is compared with


def test_typical_cells_score_like_the_median(windows):
    "Of cells that score 0 to 99 those nearest to the median, of the background only"

    class Score(nn.Module):
        def forward(self, values, observed):
            return values[:, 0, 4, 4]

    score = windows.gather(np.arange(400))[0][:, 0, 4, 4].numpy()
    among = np.arange(0, 400, 2)
    found = explained_cells.typical_cells(Score(), windows, among, count=3, seed=0)
    middle = np.sort(score[among])[99]  # of an even number torch takes the lower
    expected = among[np.argsort(np.abs(score[among] - middle))[:3]]
    assert found.tolist() == expected.tolist()


def test_a_mean_window_leaves_gaps_out(windows):
    "Cells that one of two windows lacks hold the other's value; without any, 0"
    index = np.array([0, 21])  # the first reaches over the north-western corner
    values, observed = windows.gather(index)
    mean = explained_cells.mean_window(windows, index)
    expected = (values.sum(dim=0) / observed.sum(dim=0).clamp(min=1)).numpy()
    np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-5)
    assert (observed.sum(dim=0) == 1).any() and (mean[observed.sum(dim=0) == 0] == 0).all()
