"""A backbone of four planes, put on planes of other names, orders and numbers."""

from dataclasses import replace

import torch
from helpers import tiny
from lent import KNOWN, UNITS, borrow, fit, folder  # noqa: F401  (folder is a fixture)

from mpm import adapted, mae


def windows(n, layers=4):
    "Windows of 9 x 9 cells with some gaps"
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(n, layers, 9, 9, generator=generator) > 0.2
    values = torch.randn(n, layers, 9, 9, generator=generator)
    return values.where(observed, 0.0), observed


def test_names_alone_change_no_bit(folder):
    "Four planes renamed, two of them as the classes of one layer: features are those of before"
    names = ["bouguer", "asthenosphere", "lithology=shale", "lithology=granite"]
    layers = {"gravity": "bouguer", "lab": "asthenosphere", "rock": "lithology"}
    borrowed = borrow(folder, names, UNITS, layers)
    given = windows(5)
    old, new = borrowed.model, adapted.network(borrowed)
    assert torch.equal(new.encoder(*given), old.encoder(*given))
    assert all(torch.equal(a, b) for a, b in zip(new.parameters(), old.parameters(), strict=True))
    assert borrowed.missing == borrowed.ignored == []
    assert adapted.scaling_of(borrowed, fit(names)).mean == borrowed.scaling.mean


def test_a_layer_mapped_to_null_is_one_that_is_missing_everywhere(folder):
    "The lab is not there: as if no cell of it was observed; planes in another order"
    names = ["rock=granite", "gravity", "rock=shale"]
    borrowed = borrow(folder, names, ["1", "mGal", "1"], {"lab": None})
    values, observed = windows(5)
    gone = torch.tensor([True, False, True, True]).view(4, 1, 1)
    expected = borrowed.model.encoder((values * gone), observed & gone)
    places = [3, 0, 2]
    found = adapted.network(borrowed).encoder(values[:, places], observed[:, places])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, borrowed.model.encoder(values, observed), atol=1e-3)
    assert borrowed.missing == ["lab"]


def test_layers_that_the_backbone_never_saw_are_ignored(folder):
    "Whatever their values: features, loss and gradients are those without them"
    names = ["gravity", "dust", "lab", "rock=shale", "rock=granite"]
    borrowed = borrow(folder, names, ["mGal", "g", "km", "1", "1"])
    assert borrowed.ignored == ["dust"]
    model, (values, observed) = adapted.network(borrowed), windows(5, 5)
    without = [0, 2, 3, 4]
    features = model.encoder(values, observed)
    expected = borrowed.model.encoder(values[:, without], observed[:, without])
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    dusty = values.clone()
    dusty[:, 1] = 100.0
    assert torch.equal(model.encoder(dusty, observed), features)
    mask = mae.draw_mask(5, model.config, torch.Generator().manual_seed(1))
    loss = model.loss(dusty.requires_grad_(), observed, mask)
    own = borrowed.model.loss(values[:, without], observed[:, without], mask)
    torch.testing.assert_close(loss, own)
    loss.backward()
    assert (dusty.grad[:, 1] == 0).all() and (dusty.grad[:, 0] != 0).any()
    assert (model.encoder.values.weight.grad[:, 9:18] == 0).all()


def test_a_borrowed_backbone_can_be_lent_on(folder, tmp_path):
    "What it ignored is no layer of it: it need not be mapped, and adds what it always added"
    names = ["gravity", "dust", "rock=shale", "rock=granite"]
    first = borrow(folder, names, ["mGal", "g", "1", "1"], {"lab": None})
    model = adapted.network(first)
    with torch.no_grad():
        model.encoder.missing.weight.normal_()  # as after more training
    facts = {"units": dict.fromkeys(names, "1"), "resolution": {"here": 1000.0}}
    scaling = adapted.scaling_of(first, fit(names))
    mae.save(model, tmp_path / "lent", layers=names, scaling=scaling, facts=facts)
    second = borrow(tmp_path / "lent", ["rock=granite", "gravity"], ["1", "1"],
                    {"rock=shale": None})  # fmt: skip
    assert second.missing == ["rock=shale"] and second.ignored == []
    values, observed = windows(3)
    gone = torch.tensor([True, True, False, True]).view(4, 1, 1)
    expected = model.encoder(values * gone, observed & gone)
    found = adapted.network(second).encoder(values[:, [3, 0]], observed[:, [3, 0]])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_filled_in_goes_to_the_layer_of_the_new_name(folder):
    "The decoder's planes move as the encoder's do; an ignored one is filled with zeros"
    borrowed = borrow(folder, ["dust", *KNOWN[::-1]], ["g", *UNITS[::-1]])
    values, observed = windows(3)
    more = torch.cat([values[:, :1], values.flip(1)], dim=1)
    seen = torch.cat([observed[:, :1], observed.flip(1)], dim=1)
    model = adapted.network(borrowed)
    mask = mae.draw_mask(3, model.config, torch.Generator().manual_seed(1))
    found, expected = model(more, seen, mask), borrowed.model(values, observed, mask)
    torch.testing.assert_close(found[:, 1:].flip(1), expected, rtol=1e-5, atol=1e-6)
    assert (found[:, 0] == 0).all()


def test_planes_that_are_hidden_together_stay_so(tmp_path, folder):
    "Units of a backbone that learned by hidden layers; what it never saw has one of its own"
    config = tiny(layers=4, task="layers", units=(0, 1, 2, 2))
    own = borrow(folder, ["rock=shale", "dust", "lab", "gravity"], ["1", "g", "km", "mGal"],
                 {"rock=granite": None})  # fmt: skip
    hiding = replace(own, model=mae.build(config, 0))
    assert adapted.config_of(hiding).units == (2, 3, 1, 0)
    assert adapted.config_of(own).ignored == (1,)


def test_known_layers_are_scaled_as_the_backbone_learned_them(folder):
    "And only the others by the study's training cells, which the scaling remembers"
    names = ["dust", "bouguer", "rock=shale"]
    layers = {"gravity": "bouguer", "lab": None, "rock=granite": None}
    borrowed = borrow(folder, names, ["g", "mGal", "1"], layers)
    own = fit(names)
    made = adapted.scaling_of(borrowed, own)
    assert made.layers == tuple(names) and made.seen == own.seen
    assert made.mean == (own.mean[0], borrowed.scaling.mean[0], 0.0)
    assert made.high[:2] == (own.high[0], borrowed.scaling.high[0])
    assert own.mean[1] != borrowed.scaling.mean[0]
