"""The pipeline as a picture."""

import matplotlib.pyplot as plt
import pytest
from toy_notebooks import home  # noqa: F401  (a fixture)

from mpm import overview_plots
from mpm.study import load


def test_the_picture_tells_the_study(home):
    "Groups of layers with their number, grids, and how near to a deposit cells are positive"
    fig = overview_plots.pipeline(load("tiny"), "MVT")
    text = " ".join(" ".join(each.get_text() for each in fig.axes[0].texts).split())
    for part in ("1 geophysics", "6 x 6 cells of 0.1 km", "target MVT; their cells are positive"):
        assert part in text
    plt.close(fig)


def test_many_groups_and_regions_are_cut(home):
    "Nine groups and four regions are listed, the rest counted"
    setup = load("tiny")
    layers = [
        setup.layers[0].model_copy(update={"name": f"n{k}", "group": f"g{k}"}) for k in range(11)
    ]
    regions = {f"r{k}": setup.regions["west"] for k in range(6)}
    many = setup.model_copy(update={"layers": tuple(layers), "regions": regions})
    fig = overview_plots.pipeline(many, "MVT")
    text = "\n".join(each.get_text() for each in fig.axes[0].texts)
    assert "1 g8\nand 2 more" in text and "and 2 more\n\ndeposits become" in text
    plt.close(fig)


def test_an_unknown_target_is_refused(home):
    "The message lists those there are"
    with pytest.raises(KeyError, match="it has MVT, CD"):
        overview_plots.pipeline(load("tiny"), "VMS")
