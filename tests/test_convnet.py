import pytest
import torch

from mpm import convnet
from mpm.convnet import ConvConfig


def windows(size: int, count: int = 3):
    """Two layers with gaps, 0 where missing."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(count, 2, size, size, generator=generator)
    observed = torch.rand(values.shape, generator=generator) < 0.8
    return values.where(observed, 0.0), observed


@pytest.mark.parametrize(("size", "places"), [(9, 4), (15, 4), (33, 25)])
def test_small_windows_keep_places(size, places):
    """Three halvings, rounding up: 9 to 2 x 2 places, 33 to 5 x 5, and their mean before them"""
    config = ConvConfig(layers=2, window=size, stage=4)
    assert (config.tokens, config.width) == (places, 32)
    with torch.no_grad():
        tokens = convnet.build(config, seed=1).eval()(*windows(size))
    assert tokens.shape == (3, 1 + places, 32)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(dim=1))


def test_every_cell_of_a_window_counts():
    """The stem throws nothing away: a change in any cell changes the mean token"""
    net = convnet.build(ConvConfig(layers=2, window=9, stage=4), seed=1).eval()
    for block in net.modules():  # residual branches start at zero
        if hasattr(block, "bn2"):
            torch.nn.init.ones_(block.bn2.weight)
    values, observed = windows(9, count=1)
    many = values.repeat(81, 1, 1, 1)
    many[torch.arange(81), 0, torch.arange(81) // 9, torch.arange(81) % 9] += 1.0
    with torch.no_grad():
        before = net(values, observed)[:, 0]
        after = net(many, observed.expand(81, -1, -1, -1))[:, 0]
    assert ((after - before).abs().max(dim=1).values > 1e-6).all()


def test_missing_is_not_average():
    """Zeros that were observed and zeros that were not give other tokens"""
    net = convnet.build(ConvConfig(layers=2, window=9, stage=4), seed=1).eval()
    values = torch.zeros(1, 2, 9, 9)
    with torch.no_grad():
        seen = net(values, torch.ones_like(values, dtype=torch.bool))
        missing = net(values, torch.zeros_like(values, dtype=torch.bool))
    assert not torch.allclose(seen, missing)


def test_the_published_size():
    """ResNet-18 without its head has 11,176,512 weights with 3 channels under a 7 x 7 stem"""
    net = convnet.build(convnet.preset("paper", 14, 33), seed=1)
    stem = 3 * 3 * 28 * 64 - 7 * 7 * 3 * 64
    assert sum(weight.numel() for weight in net.parameters()) == 11_176_512 + stem


def test_weights_depend_on_the_seed_alone():
    config, state = ConvConfig(layers=2, window=9, stage=4), torch.get_rng_state()
    first, again, other = (convnet.build(config, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.net.conv1.weight, again.net.conv1.weight)
    assert not torch.equal(first.net.conv1.weight, other.net.conv1.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="no preset is called 'huge'; there are paper, demo"):
        convnet.preset("huge", 2, 9)
