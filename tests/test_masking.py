import numpy as np
import pytest
import torch
import xarray as xr

from mpm import masking


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# What is hidden


def test_patches_are_hidden_in_all_layers():
    "Six of nine patches with ratio 2/3, the same ones in both layers"
    mask = masking.draw(20, 9, seeded(), ratio=2 / 3)
    hidden = mask.hidden(9, 2)
    assert (hidden.sum(dim=1) == 6).all()
    assert torch.equal(hidden[..., 0], hidden[..., 1])


def test_hidden_patches_are_listed_as_nonzero_would():
    "In ascending order; none where whole patches are not hidden"
    mask = masking.draw(50, 30, seeded(), ratio=0.7)
    expected = mask.hidden(30, 1)[..., 0].nonzero()[:, 1].view(50, -1)
    assert torch.equal(mask.hidden_patches(30), expected)
    assert expected.shape == (50, 21)
    apart = masking.draw(3, 9, seeded(), task="layers", units=(0, 1))
    assert apart.hidden_patches(9).shape == (3, 0)


def test_layers_are_hidden_in_all_patches():
    "Two units of four, at random; every patch is encoded"
    mask = masking.draw(200, 9, seeded(), task="layers", layer_ratio=0.5, units=(0, 1, 2, 3))
    hidden = mask.hidden(9, 4)
    assert torch.equal(mask.visible[0], torch.arange(9))
    assert (hidden.sum(dim=2) == 2).all()
    assert (hidden == hidden[:, :1]).all()
    share = hidden[:, 0].float().mean(dim=0)
    assert ((share - 0.5).abs() < 0.12).all(), "not all layers are hidden equally often"


def test_planes_of_a_unit_are_hidden_together():
    "Planes 0 and 2 are classes of one map: knowing one would give away the other"
    for task in ("layers", "both", "apart"):
        hidden = masking.draw(50, 9, seeded(), task=task, units=(0, 1, 0, 2)).hidden(9, 4)
        assert torch.equal(hidden[..., 0], hidden[..., 2])
        assert not torch.equal(hidden[..., 0], hidden[..., 1])


def test_both_hides_layers_in_the_patches_that_are_left():
    "Three visible patches of nine; in them one unit of two is hidden, elsewhere all"
    mask = masking.draw(50, 9, seeded(), task="both", ratio=2 / 3, units=(0, 1))
    assert mask.visible.shape == (50, 3)
    counts = mask.hidden(9, 2).sum(dim=2)
    assert (counts.gather(1, mask.visible) == 1).all()
    assert (counts.sum(dim=1) == 3 * 1 + 6 * 2).all()


def test_apart_hides_other_patches_in_each_layer():
    "Two thirds of the patches of each layer, drawn apart"
    hidden = masking.draw(50, 9, seeded(), task="apart", ratio=2 / 3, units=(0, 1)).hidden(9, 2)
    assert (hidden.sum(dim=1) == 6).all()
    assert not torch.equal(hidden[..., 0], hidden[..., 1])


def test_at_least_one_layer_is_hidden_and_one_is_not():
    "Ratios that round to none or all of three layers still hide one, or leave one"
    for ratio, count in ((0.01, 1), (0.99, 2)):
        mask = masking.draw(5, 4, seeded(), task="layers", layer_ratio=ratio, units=(0, 1, 2))
        assert (mask.hidden(4, 3).sum(dim=2) == count).all()


@pytest.mark.parametrize("task", masking.TASKS)
def test_the_seed_decides_the_mask(task):
    "Same seed same mask, other seed another; a part of the windows has its own masks"

    def drawn(seed):
        return masking.draw(8, 9, seeded(seed), task=task, units=(0, 1, 2)).hidden(9, 3)

    assert torch.equal(drawn(3), drawn(3))
    alone = masking.draw(8, 9, 3, task=task, units=(0, 1, 2))
    assert torch.equal(alone.hidden(9, 3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    mask = masking.draw(8, 9, seeded(3), task=task, units=(0, 1, 2))
    index = torch.tensor([5, 1])
    assert torch.equal(mask.part(index).hidden(9, 3), drawn(3)[index])


def test_units_are_layers_or_groups():
    "Classes of one map share a number; so do layers of a group"
    layers = ["gravity", "rock=granite", "magnetics", "rock=basalt"]
    groups = ["fields", "geology", "fields", "geology"]
    cube = xr.Dataset(coords={"layer": layers, "group": ("layer", groups)})
    by_layer = masking.units(cube)
    assert by_layer[1] == by_layer[3] and len(set(by_layer)) == 3
    assert masking.units(cube, "group") == (0, 1, 0, 1)


# What is to be told


def test_plain_targets_are_the_values():
    values = torch.randn(2, 3, 6, 6, generator=seeded())
    assert masking.target(values, torch.ones_like(values, dtype=torch.bool), "values", 3) is values


def test_normalised_targets_lose_the_level_and_scale_of_their_patch():
    "A patch of 10, 10, 30, 30: mean 20, standard deviation 10, so -1 and 1"
    values = torch.zeros(1, 1, 4, 4)
    values[..., :2, 0], values[..., :2, 1] = 10.0, 30.0
    made = masking.target(values, torch.ones_like(values, dtype=torch.bool), "normalised", 2)
    assert torch.allclose(made[0, 0, :2, :2], torch.tensor([-1.0, 1.0]).expand(2, 2), atol=1e-3)
    assert (made[0, 0, 2:] == 0).all(), "flat ground has nothing to tell"


def test_high_pass_targets_lose_a_plane():
    "A slope is what interpolation fills: inside the window nothing of it is left, a peak is"
    slope = torch.arange(15.0).expand(1, 1, 15, 15).clone()
    observed = torch.ones_like(slope, dtype=torch.bool)
    flat = masking.target(slope, observed, "high_pass", 1)
    assert flat[..., 4:-4, 4:-4].abs().max() < 1e-5
    slope[..., 7, 7] += 50
    made = masking.target(slope, observed, "high_pass", 1)
    assert made.abs().flatten().argmax() == 7 * 15 + 7
    # by hand: 50 less its share of the 25 cells around, in standard deviations of the layer
    around = torch.nn.functional.avg_pool2d(slope, 5, 1)[..., 5, 5]
    left = made[..., 7, 7] / made[..., 7, 9] * 1.0
    peak = slope[..., 7, 7] - around
    beside = 9 - torch.nn.functional.avg_pool2d(slope, 5, 1)[..., 5, 7]
    assert torch.allclose(left, peak / beside, rtol=1e-4)


@pytest.mark.parametrize("wanted", ["normalised", "high_pass"])
def test_targets_ignore_missing_cells(wanted):
    "What a missing cell holds changes nothing, and it has nothing to tell"
    values = torch.randn(2, 3, 6, 6, generator=seeded())
    observed = torch.rand(values.shape, generator=seeded(1)) < 0.8
    made = masking.target(values * observed, observed, wanted, 3)
    assert (made[~observed] == 0).all()
    other = masking.target(values, observed, wanted, 3)
    assert torch.allclose(made, other)
    assert np.isclose(made[observed].std().item(), 1, atol=0.5)
