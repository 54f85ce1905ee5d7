import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import masked_mean_square, tiny

from mpm import encoder, mae, masking
from mpm.scaling import Scaling

TINY = tiny()
NAMES = ["gravity", "magnetics"]
SCALING = Scaling(
    ("gravity", "magnetics"),
    low=(-math.inf, -3.0),
    high=(math.inf, 3.0),
    fill=(0.1, 0.2),
    mean=(0.1, 0.2),
    std=(1.0, 2.0),
    binary=(False, False),
    notes=("", ""),
    transform=("", "log"),
    scale=(1.0, 5.0),
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(n: int = 4, config: mae.MAEConfig = TINY, seed: int = 0):
    """Random values (n, layers, window, window), all observed, and a mask."""
    shape = (n, config.layers, config.window, config.window)
    values = torch.randn(shape, generator=seeded(seed))
    mask = mae.draw_mask(n, config, seeded(seed))
    return values, torch.ones(shape, dtype=torch.bool), mask


@torch.no_grad()
def encoded(model, *inputs):
    return model.encoder(*inputs)


def saved(folder, model=None, **facts):
    model = model or mae.build(TINY, seed=3)
    mae.save(model, folder, layers=NAMES, scaling=SCALING, facts=facts)
    return model


# Patches


@pytest.mark.parametrize("layers", [1, 3, 8])
@pytest.mark.parametrize("size", [1, 3])
def test_unpatchify_undoes_patchify(layers, size):
    "Cutting a window into patches and joining them is the identity, for any number of layers"
    windows = torch.randn(2, layers, 9, 9, generator=seeded())
    tokens = encoder.patchify(windows, size)
    assert tokens.shape == (2, (9 // size) ** 2, layers * size**2)
    assert torch.equal(encoder.unpatchify(tokens, size), windows)


def test_a_token_holds_the_cells_of_its_patch():
    "Token k is patch k in reading order: layer by layer, row by row"
    windows = torch.arange(2 * 81.0).reshape(1, 2, 9, 9)
    tokens = encoder.patchify(windows, 3)
    for k in range(9):
        top, left = 3 * (k // 3), 3 * (k % 3)
        expected = windows[0, :, top : top + 3, left : left + 3].flatten()
        assert torch.equal(tokens[0, k], expected)
    assert tokens[0, 5].tolist()[:4] == [33, 34, 35, 42]  # rows 3 and 4, columns 6 to 8


def test_a_window_that_is_no_multiple_of_the_patch_is_refused():
    "Nothing is cut off silently"
    with pytest.raises(ValueError, match="window 9x9 is not a multiple of patch size 2"):
        encoder.patchify(torch.zeros(1, 1, 9, 9), 2)


# Masks


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 30), (0.5, 60), (0.99, 1), (0.9999, 1)])
def test_masking_keeps_the_right_share(ratio, kept):
    "Each window keeps the same number of different patches, one at least"
    mask = masking.random_masking(50, 121, ratio, seeded())
    assert mask.shape == (50, kept)
    assert all(len(set(row)) == kept for row in mask.tolist())
    assert mask.min() >= 0 and mask.max() < 121


def test_masking_prefers_no_patch():
    "Over 4000 windows each of 9 patches is kept as often as chance has it (5 standard errors)"
    mask = masking.random_masking(4000, 9, 0.75, seeded())
    share = np.bincount(mask.flatten(), minlength=9) / 4000
    np.testing.assert_allclose(share, 2 / 9, atol=5 * np.sqrt(2 / 9 * 7 / 9 / 4000))


def test_masking_depends_on_the_generator_alone():
    "Same seed same masks, other seed others, and the global state is left alone"
    before = torch.get_rng_state()
    first, again = (masking.random_masking(8, 25, 0.75, seeded(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, masking.random_masking(8, 25, 0.75, seeded(6)))
    assert torch.equal(torch.get_rng_state(), before)


def test_masked_cells_are_those_of_hidden_patches():
    "Patches 0 and 5 are visible: their cells are not masked, all others are"
    hidden = mae.masked_cells(
        masking.Mask(torch.tensor([[5, 0]]), torch.zeros(1, 2, 0, dtype=torch.bool)), TINY
    )
    expected = torch.ones(9, 9, dtype=torch.bool)
    expected[:3, :3] = False
    expected[3:6, 6:] = False
    assert hidden.dtype == torch.bool
    assert torch.equal(hidden, expected[None, None])


# Loss


def test_loss_by_hand():
    "Errors 1 and 3 in the two cells that are hidden and observed: (1 + 9) / 2"
    values = torch.zeros(1, 1, 2, 2)
    made = torch.tensor([[[[1.0, 3.0], [100.0, 100.0]]]])
    observed = torch.tensor([[[[True, True], [True, False]]]])
    hidden = torch.tensor([[[[True, True], [False, True]]]])
    assert masked_mean_square(made, values, observed, hidden).item() == 5


def test_loss_ignores_visible_and_missing_cells():
    "Other values there change nothing, other values in a hidden observed cell do"
    values, observed, mask = batch(seed=1)
    observed = torch.rand(observed.shape, generator=seeded(2)) < 0.7
    hidden = mae.masked_cells(mask, TINY).expand_as(observed)
    made = torch.randn(values.shape, generator=seeded(3))
    loss = masked_mean_square(made, values, observed, hidden)
    ignored = ~(observed & hidden)
    assert 0 < ignored.float().mean() < 1
    noise = torch.randn(values.shape, generator=seeded(4))
    other = masked_mean_square(made + noise * ignored, values - noise * ignored, observed, hidden)
    assert other == loss
    counted = masked_mean_square(made + noise * ~ignored, values, observed, hidden)
    assert counted != loss
    expected = ((made - values)[~ignored] ** 2).mean()
    torch.testing.assert_close(loss, expected)


def test_loss_of_a_window_without_observed_cells_is_zero():
    "Not NaN: a batch of windows in a gap teaches nothing"
    nothing = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    assert (
        masked_mean_square(torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), nothing, ~nothing) == 0
    )


@pytest.mark.parametrize("task", masking.TASKS)
@pytest.mark.parametrize("inputs", ["values", "contrasts", "both"])
def test_the_training_loss_is_that_of_the_reconstruction(task, inputs):
    "Filling no more than is scored gives the loss, and gradient, of filling all"
    config = replace(TINY, task=task, inputs=inputs, units=(0, 1))
    model = mae.build(config, seed=0)
    values, observed, mask = batch(config=config, seed=1)
    observed = torch.rand(observed.shape, generator=seeded(2)) < 0.7
    values = values * observed
    hidden = mae.masked_cells(mask, config)
    losses = [
        masked_mean_square(model(values, observed, mask), values, observed, hidden),
        model.loss(values, observed, mask),
    ]
    torch.testing.assert_close(*losses)
    gradients = [torch.autograd.grad(loss, model.encoder.values.weight)[0] for loss in losses]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
    nothing = torch.zeros_like(observed)
    assert model.loss(values * 0, nothing, mask) == 0


def test_the_loss_of_the_released_code_is_over_all_cells():
    "Visible cells and gaps (as zeros) count too"
    config = replace(TINY, loss_on="all")
    model = mae.build(config, seed=0)
    values, observed, mask = batch(seed=1)
    observed = torch.rand(observed.shape, generator=seeded(2)) < 0.7
    values = values * observed
    expected = (model(values, observed, mask) - values).square().mean()
    torch.testing.assert_close(model.loss(values, observed, mask), expected)
    assert not torch.isclose(mae.build(TINY, seed=0).loss(values, observed, mask), expected)


def test_the_loss_is_that_of_the_wanted_target():
    "Normalised patches are compared with the network's output as they are"
    config = replace(TINY, wanted="normalised")
    model = mae.build(config, seed=0)
    values, observed, mask = batch(seed=1)
    wanted = masking.target(values, observed, "normalised", TINY.patch)
    hidden = mae.masked_cells(mask, config)
    expected = masked_mean_square(model(values, observed, mask), wanted, observed, hidden)
    torch.testing.assert_close(model.loss(values, observed, mask), expected)


# Network


@pytest.mark.parametrize("task", masking.TASKS)
def test_the_encoder_does_not_see_what_is_hidden(task):
    "Other values there change nothing, other values in what is visible do; hidden is as missing"
    config = replace(TINY, task=task, units=(0, 1))
    model = mae.build(config, seed=0)
    torch.nn.init.normal_(model.encoder.missing.weight, generator=seeded(9))
    values, observed, mask = batch(config=config)
    hidden = mae.masked_cells(mask, config)
    noise = torch.randn(values.shape, generator=seeded(7))
    base = encoded(model, values, observed, mask)
    assert torch.equal(encoded(model, values + noise * hidden, observed & ~hidden, mask), base)
    assert not torch.allclose(encoded(model, values + noise * ~hidden, observed, mask), base)


@pytest.mark.parametrize("inputs", ["values", "contrasts", "both"])
def test_contrasts_do_not_know_the_level(inputs):
    "A constant added to a layer changes nothing where the window's mean is taken off"
    config = replace(TINY, inputs=inputs)
    model = mae.build(config, seed=0)
    values, observed, mask = batch(config=config)
    higher = values + torch.tensor([3.0, -2.0])[:, None, None]
    pairs = [
        [encoded(model, item, observed, mask) for item in (values, higher)],
        [
            model(item, observed, mask) - item.mean(dim=(2, 3), keepdim=True)
            for item in (values, higher)
        ],
    ]
    for one, other in pairs:
        assert torch.allclose(one, other, atol=1e-4) == (inputs == "contrasts")


def test_a_task_that_hides_layers_needs_to_know_which_belong_together():
    with pytest.raises(ValueError, match="needs a unit for each of the 2 layers"):
        replace(TINY, task="layers")
    with pytest.raises(ValueError, match="task 'lines' is none of patches, layers"):
        replace(TINY, task="lines")


@torch.no_grad()
def test_the_decoder_puts_what_was_seen_in_its_place():
    "Without attention each patch is made of its own code, or of the mask token, and its position"
    model = mae.build(replace(TINY, decoder_depth=0), seed=0)
    values, observed, mask = batch()
    codes = model.shrink(model.encoder(values, observed, mask))
    made = encoder.patchify(model(values, observed, mask), 3)
    for n in range(len(values)):
        for place in range(TINY.tokens):
            listed = (mask.visible[n] == place).nonzero().flatten()
            code = codes[n, 1 + listed.item()] if len(listed) else model.mask_token[0, 0]
            expected = model.fill(model.norm(code + model.position[0, 1 + place]))
            torch.testing.assert_close(made[n, place], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_order_of_visible_patches_does_not_matter():
    "They are listed at random; with other patches visible the reconstruction is another"
    model = mae.build(TINY, seed=0)
    values, observed, mask = batch()
    straight = model(values, observed, mask)
    reverse = model(values, observed, mask._replace(visible=mask.visible.flip(1)))
    assert straight.shape == values.shape
    torch.testing.assert_close(straight, reverse, rtol=1e-4, atol=1e-5)
    shifted = mask._replace(visible=(mask.visible + 1) % TINY.tokens)
    other = model(values, observed, shifted)
    assert not torch.allclose(straight, other, atol=1e-3)


def test_a_patch_is_seen_where_it_lies():
    "The same patch at another place gives another code: positions are not lost"
    model = mae.build(TINY, seed=0)
    values, observed = torch.ones(1, 2, 9, 9), torch.ones(1, 2, 9, 9, dtype=torch.bool)
    codes = encoded(model, values, observed)[0, 1:]
    assert torch.pdist(codes).min() > 0


def test_two_evaluation_passes_agree():
    "Nothing in the backbone is random"
    model = mae.build(TINY, seed=0)
    values, observed, mask = batch()
    for mode in (True, False):
        model.train(mode)
        first, again = (encoded(model, values, observed, mask) for _ in range(2))
        assert torch.equal(first, again)


def test_paper_size_is_the_published_one_but_for_the_missing_shares():
    """5,259,134 weights are published for 14 layers

    Ours adds the embedding of missing shares, one vector of the encoder's width a layer. All else
    has the same size, attention without query, key and value biases included.
    """
    config = mae.preset("paper", 14)
    with torch.device("meta"):
        model = mae.MaskedAutoencoder(config)
    count = sum(weight.numel() for weight in model.parameters())
    assert (config.tokens, config.width, config.depth, config.decoder_width) == (121, 256, 6, 128)
    assert model.encoder.missing.weight.numel() == 14 * 256 == 3584
    assert count - 3584 == 5_259_134


def test_missing_shares_are_seen_only_once_they_are_learned():
    "The weight starts at zero, so an untrained encoder takes missing cells for the mean"
    model = mae.build(TINY, seed=0)
    values, observed, _ = batch()
    gaps = observed.clone()
    gaps[:, 1, :3, :3] = False
    values = values * gaps
    base = encoded(model, values, observed)
    assert torch.equal(encoded(model, values, gaps), base)
    with torch.no_grad():
        model.encoder.missing.weight[:, 0] = 1
    assert torch.equal(encoded(model, values, gaps), base)  # it is layer 1 that is missing
    with torch.no_grad():
        model.encoder.missing.weight[:, 1] = torch.randn(16, generator=seeded(1))
    assert not torch.allclose(encoded(model, values, gaps), base)


def test_missing_shares_are_learned():
    "The gradient reaches the embedding although it starts at zero"
    model = mae.build(TINY, seed=0)
    values, observed, mask = batch()
    observed = torch.rand(observed.shape, generator=seeded(2)) < 0.5
    hidden = mae.masked_cells(mask, TINY)
    values = values * observed
    masked_mean_square(model(values, observed, mask), values, observed, hidden).backward()
    assert model.encoder.missing.weight.grad.abs().sum() > 0


def test_a_patch_misses_its_share_of_cells():
    "Two of nine cells of layer 0 in patch 4: its token moves by 2/9 of that layer's vector"
    config = replace(TINY, depth=0)
    model = mae.build(config, seed=0)
    model.encoder.norm = torch.nn.Identity()
    vector = torch.randn(16, generator=seeded(1))
    with torch.no_grad():
        model.encoder.missing.weight[:, 0] = vector
    values, observed = torch.zeros(1, 2, 9, 9), torch.ones(1, 2, 9, 9, dtype=torch.bool)
    gaps = observed.clone()
    gaps[0, 0, 4, 4:6] = False
    moved = encoded(model, values, gaps) - encoded(model, values, observed)
    expected = torch.zeros(1, 10, 16)
    expected[0, 1 + 4] = 2 / 9 * vector
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)


# Settings


def test_impossible_settings_are_refused():
    "A window needs a centre and whole patches, a mask hides something and leaves something"
    with pytest.raises(ValueError, match="window 32 must be odd and a multiple of patch 3"):
        mae.MAEConfig(window=32)
    with pytest.raises(ValueError, match="window 33 must be odd and a multiple of patch 5"):
        mae.MAEConfig(window=33, patch=5)
    for ratio in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            mae.MAEConfig(mask_ratio=ratio)


def test_presets_are_known_by_name():
    "They differ in size but not in masking; a misspelt one is refused with the names there are"
    demo, paper = mae.preset("demo", 5), mae.preset("paper", 5)
    assert demo.layers == paper.layers == 5
    assert demo.width < paper.width and demo.mask_ratio == paper.mask_ratio == 0.75
    with pytest.raises(ValueError, match="no preset is called 'papr'; there are paper, demo"):
        mae.preset("papr", 5)


# Seeds and files


def test_weights_depend_on_the_seed_alone():
    "Whatever the global state is, and it is left as it was"
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = mae.build(TINY, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    again, other = (mae.build(TINY, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.values.weight"], other["encoder.values.weight"])


def test_a_backbone_is_read_as_it_was_written(tmp_path):
    "Weights and outputs bit by bit, settings, scaling and facts; the global state is left alone"
    model = saved(tmp_path / "backbone", study="demo", seed=3)
    before = torch.get_rng_state()
    found, scaling, facts = mae.load(tmp_path / "backbone", layers=NAMES)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.config == TINY
    assert scaling == SCALING
    assert facts == {"study": "demo", "seed": 3}
    assert not found.training
    weights = model.state_dict()
    assert set(found.state_dict()) == set(weights)
    assert all(torch.equal(value, weights[name]) for name, value in found.state_dict().items())
    with torch.no_grad():
        assert torch.equal(found(*batch()), model(*batch()))


def test_writing_twice_gives_the_same_bytes(tmp_path):
    "No date and no random order in the files"
    for name in ("one", "two"):
        saved(tmp_path / name, mae.build(TINY, seed=3))
    for file in ("model.safetensors", "model.json", "scaling.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_saving_replaces_the_old_backbone(tmp_path):
    "Nothing of the old folder stays"
    saved(tmp_path / "backbone")
    (tmp_path / "backbone" / "old.txt").write_text("old")
    saved(tmp_path / "backbone", mae.build(TINY, seed=4))
    assert {path.name for path in (tmp_path / "backbone").iterdir()} == {
        "model.safetensors",
        "model.json",
        "scaling.json",
    }


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["gravity"], r'"lacking": \["magnetics"\], "extra": \[\]'),
        (["gravity", "magnetics", "faults"], r'"lacking": \[\], "extra": \["faults"\]'),
        (["gravity", "radar"], r'"lacking": \["magnetics"\], "extra": \["radar"\]'),
        (["magnetics", "gravity"], "another order"),
    ],
)
def test_other_layers_are_refused_by_name(tmp_path, layers, message):
    "A backbone reads layers by position, so it takes none but its own, in their order"
    saved(tmp_path / "backbone")
    with pytest.raises(ValueError, match=message):
        mae.load(tmp_path / "backbone", layers=layers)


def test_other_units_are_refused_layer_by_layer(tmp_path):
    "The same numbers in another unit are other ground; a backbone that kept no units takes any"
    saved(tmp_path / "backbone", units={"gravity": "mGal", "magnetics": "nT"})
    saved(tmp_path / "plain")
    for folder, units in [("backbone", ["mGal", "nT"]), ("plain", ["m", "m"])]:
        assert mae.load(tmp_path / folder, layers=NAMES, units=units)[0].config == TINY
    message = "trained on other units.*: magnetics in 'T', not 'nT'; convert the layers"
    with pytest.raises(ValueError, match=message):
        mae.load(tmp_path / "backbone", layers=NAMES, units=["mGal", "T"])


def test_a_missing_backbone_names_the_notebook(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebook 02_mae_pretraining"):
        mae.load(tmp_path / "backbone")


def test_damaged_weights_are_named(tmp_path):
    "Cut short, not weights at all, of another model, or gone"
    folder = tmp_path / "backbone"
    saved(folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    saved(tmp_path / "wide", mae.build(mae.MAEConfig(layers=2, window=9, depth=1), seed=3))
    for content in (whole[:-40], b"not weights", (tmp_path / "wide" / weights.name).read_bytes()):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged or does not fit"):
            mae.load(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or does not fit"):
        mae.load(folder)
