from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny
from sklearn.metrics import average_precision_score
from torch import nn

from mpm import fine_tuning, mae
from mpm.classifier import (
    Classifier,
    Fitted,
    classifier_path,
    load_classifier,
    save_classifier,
)
from mpm.fine_tuning import FineTuneSettings, fine_tune
from mpm.folds import Fold
from mpm.pu_selection import choose_negatives, embed
from mpm.windows import Windows, make_windows

TINY = tiny(depth=2)
# what tells the classes apart lies at the centre, which the head sees at once
SETTINGS = FineTuneSettings(
    steps=100, batch=16, rate=1e-2, backbone_rate=2e-3, dropout=0.2, every=20, augment=False,
    view="cls+mean+centre",
)  # fmt: skip
SHORT = replace(SETTINGS, steps=6, every=3)
CPU = torch.device("cpu")


class Toy:
    """One layer of noise, one that is high at 40 of 480 cells; even cells train, odd ones judge."""

    def __init__(self, seed: int = 0, strength: float = 4.0):
        rng = np.random.default_rng(seed)
        evidence = rng.normal(size=(2, 24, 20)).astype("float32")
        labels = np.zeros(480, bool)
        labels[rng.choice(480, 40, replace=False)] = True
        evidence[1] += strength * labels.reshape(24, 20)
        cube = xr.Dataset(
            {
                "evidence": (("layer", "y", "x"), evidence),
                "valid": (("y", "x"), np.ones((24, 20), bool)),
            },
            coords={"layer": ["noise", "signal"]},
        )
        self.windows, self.labels = make_windows([cube], 9), labels
        cells = np.arange(480)
        self.positives = cells[labels & (cells % 2 == 0)]
        self.negatives = cells[~labels & (cells % 2 == 0)]
        self.validation = cells[cells % 2 == 1]

    def tune(self, settings=SETTINGS, *, encoder=None, seed=1, **change):
        parts = {
            name: getattr(self, name) for name in ("positives", "negatives", "validation", "labels")
        }
        encoder = encoder or mae.build(TINY, seed=0).encoder
        classifier, history = fine_tune(
            encoder, self.windows, **(parts | change), settings=settings, seed=seed, device=CPU
        )
        return Fitted(classifier, 0.4, history)


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy(strength=6)


@pytest.fixture(scope="module")
def fitted(toy):
    return toy.tune()


@torch.no_grad()
def likelihood(classifier, toy, index=None) -> np.ndarray:
    index = np.arange(480) if index is None else index
    return classifier(*toy.windows.gather(index)).sigmoid().numpy()


def weights(module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, after) -> set[str]:
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


# What it learns


def test_separable_classes_are_learned(toy, fitted):
    "Validation cells are ranked almost perfectly, and even odds tell them apart"
    assert fitted.history["average_precision"].max() > 0.98
    assert fitted.history["loss"].iloc[-1] < fitted.history["loss"].iloc[0]
    called = likelihood(fitted.classifier, toy, toy.validation) >= 0.5
    truth = toy.labels[toy.validation]
    assert (called & truth).sum() >= 0.9 * truth.sum()
    assert (called & ~truth).sum() <= 0.02 * (~truth).sum()


def test_the_classifier_comes_back_ready_to_predict(fitted):
    "In evaluation mode, on the CPU: two passes agree"
    assert not any(module.training for module in fitted.classifier.modules())
    assert {weight.device.type for weight in fitted.classifier.parameters()} == {"cpu"}


def test_a_frozen_backbone_does_not_change(toy):
    "Only the head learns"
    encoder = mae.build(TINY, seed=0).encoder
    model = toy.tune(replace(SHORT, train="frozen"), encoder=encoder).classifier
    assert not changed(weights(encoder), weights(model.encoder))


def test_the_last_block_and_the_norm_learn_alone(toy):
    "Everything before the last block stays bit by bit, everything in it moves"
    encoder = mae.build(TINY, seed=0).encoder
    model = toy.tune(replace(SHORT, train="last"), encoder=encoder).classifier
    moved = changed(weights(encoder), weights(model.encoder))
    last = {name for name in weights(encoder) if name.startswith(("blocks.1.", "norm."))}
    assert moved == last


def test_the_full_backbone_learns(toy):
    "Every weight moves"
    encoder = mae.build(TINY, seed=0).encoder
    model = toy.tune(SHORT, encoder=encoder).classifier
    assert changed(weights(encoder), weights(model.encoder)) == set(weights(encoder))


@pytest.mark.parametrize("train", ["frozen", "last", "full"])
def test_the_given_encoder_is_copied(toy, train):
    "Neither its weights nor what of it may be trained changes, so folds do not touch each other"
    encoder = mae.build(TINY, seed=0).encoder
    before = weights(encoder)
    model = toy.tune(replace(SHORT, train=train), encoder=encoder).classifier
    assert not changed(before, weights(encoder))
    assert all(weight.requires_grad and weight.grad is None for weight in encoder.parameters())
    assert model.encoder is not encoder


# A frozen backbone


@pytest.mark.parametrize(("augment", "trained_on"), [(False, 240), (True, 20 * 16)])
def test_a_frozen_backbone_runs_once_a_cell(toy, monkeypatch, augment, trained_on):
    """Once for each of 240 training cells, not for each of 20 steps of 16, if nothing is turned

    Validation cells are encoded once for all looks, and once to fit the temperature.
    """
    counts, real = [], mae.Encoder.forward
    monkeypatch.setattr(
        mae.Encoder,
        "forward",
        lambda self, *given, **only: counts.append(len(given[0])) or real(self, *given, **only),
    )
    toy.tune(replace(SETTINGS, train="frozen", augment=augment, steps=20, every=2))
    assert len(toy.positives) + len(toy.negatives) == len(toy.validation) == 240
    assert sum(counts) == trained_on + 2 * 240


def test_features_kept_train_the_same_head(toy):
    "As a backbone that runs at every step at rate 0, which does not change either"
    unclipped = replace(SHORT, clip=1e9, backbone_rate=0.0)
    kept, run = (toy.tune(replace(unclipped, train=train)) for train in ("frozen", "last"))
    assert not changed(weights(kept.classifier.encoder), weights(run.classifier.encoder))
    for name in ("weight", "bias"):
        ours, theirs = (getattr(each.classifier.linear, name) for each in (kept, run))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kept.history, run.history, rtol=1e-4)


# Likely negatives


class WindowMean(nn.Module):
    """A backbone of one feature, the mean of the window, beside a CLS token of 99."""

    config = SimpleNamespace(width=1)

    def forward(self, values, observed):
        mean = values.mean(dim=(1, 2, 3)).view(-1, 1, 1)
        return torch.cat([torch.full_like(mean, 99), mean, mean], dim=1)


@pytest.fixture
def blocks():
    """Five windows side by side, 0 to 4: their centre cells, the cells around, which have deposits

    Window means are 0, 10 / 9, 8, 4.5 and -1; the two deposits are in the first and the last.
    """
    evidence = np.zeros((1, 3, 15), "float32")
    for k, (centre, around) in enumerate([(0, 0), (10, 0), (0, 9), (4.5, 4.5), (-1, -1)]):
        evidence[:, :, 3 * k : 3 * k + 3] = around
        evidence[:, 1, 3 * k + 1] = centre
    cube = xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence),
            "valid": (("y", "x"), np.ones((3, 15), bool)),
        },
        coords={"layer": ["a"]},
    )
    windows = make_windows([cube], 3)
    train = 15 + 1 + 3 * np.arange(5)
    positive = np.isin(np.arange(45), train[[0, 4]])
    return Fold("blocks", 0, None, windows, train, train[:0], train[:0]), positive


@pytest.mark.parametrize(
    ("by", "quantiles", "block"),
    [
        ("cells", (0.9, 1.0), 1),  # sums of distances to 0 and -1: 21, 1 and 10
        ("cells", (0.0, 0.1), 2),
        ("backbone", (0.9, 1.0), 2),  # 29 / 9, 17 and 10
        ("backbone", (0.0, 0.1), 1),
    ],
)
def test_negatives_are_told_by_the_features_asked_for(blocks, by, quantiles, block):
    "A centre cell that is far from the deposits' may have a window that is close, and vice versa"
    fold, positive = blocks
    settings = FineTuneSettings(negatives_by=by, quantiles=quantiles)
    found = choose_negatives(fold, positive, settings, seed=0, encoder=WindowMean())
    assert found.tolist() == [fold.train[block]]


def test_random_negatives_need_no_features(blocks):
    "All unlabeled training cells are drawn from, and no encoder is run"
    fold, positive = blocks
    settings = FineTuneSettings(negatives_by="backbone", negatives="random", per_positive=3)
    found = choose_negatives(fold, positive, settings, seed=0, encoder=nn.Identity())
    assert found.tolist() == fold.train[1:4].tolist()


def test_negatives_by_the_backbone_need_one(blocks):
    with pytest.raises(ValueError, match="needs an encoder"):
        choose_negatives(*blocks, FineTuneSettings(negatives_by="backbone"), seed=0)


def test_features_that_are_no_numbers_are_refused(toy):
    "Not taken for cells like any other"
    encoder = mae.build(TINY, seed=0).encoder
    with torch.no_grad():
        encoder.norm.weight[3] = torch.nan
    with pytest.raises(ValueError, match="features are not finite: .* 02_mae_pretraining"):
        embed(encoder, toy.windows, np.arange(5))


# What it must not see


def test_labels_outside_validation_are_not_read(toy, fitted):
    "Flipping all of them, those of training cells too, changes nothing"
    flipped = ~toy.labels
    flipped[toy.validation] = toy.labels[toy.validation]
    again = toy.tune(labels=flipped)
    assert not changed(weights(fitted.classifier), weights(again.classifier))
    assert again.history.equals(fitted.history)


def test_cells_of_no_part_are_not_seen():
    "Other evidence in a corner, out of reach of all windows given, changes nothing"
    here = Toy()
    far = (here.windows.row < 12) & (here.windows.col < 12)
    parts = {
        name: getattr(here, name)[far[getattr(here, name)]]
        for name in ("positives", "negatives", "validation")
    }
    first = here.tune(SHORT, **parts)
    here.windows.canvas[:, 4 + 17 :, 4 + 17 :] = 100
    again = here.tune(SHORT, **parts)
    assert not changed(weights(first.classifier), weights(again.classifier))


# Seeds


def test_same_seed_same_result(toy, fitted):
    "Bit by bit, whatever the global state is, which is left alone; another seed gives another"
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = toy.tune()
    assert torch.equal(torch.get_rng_state(), state)
    assert not changed(weights(fitted.classifier), weights(again.classifier))
    other = toy.tune(SHORT, seed=2)
    assert changed(weights(toy.tune(SHORT).classifier), weights(other.classifier))


def test_the_head_starts_from_the_seed(toy):
    "Not from the encoder's state or the order of runs"
    heads = [
        fine_tuning._classifier(mae.build(TINY, seed=encoder).encoder, SETTINGS, seed).linear.weight
        for encoder, seed in [(0, 1), (5, 1), (0, 2)]
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positives": np.array([], int)}, "no training positives"),
        ({"negatives": np.array([], int)}, "no negatives"),
        ({"labels": np.zeros(480, bool)}, "no positive validation cells"),
        ({"labels": np.ones(480, bool)}, "no negative validation cells"),
    ],
)
def test_a_missing_class_is_refused(toy, change, message):
    "By name, with what to do about it"
    with pytest.raises(ValueError, match=f"{message}: use larger blocks, fewer folds"):
        toy.tune(SHORT, **change)


def test_one_positive_is_refused(toy):
    "Two are enough"
    with pytest.raises(
        ValueError, match="only one training positive.*: use a larger target radius"
    ):
        toy.tune(SHORT, positives=toy.positives[:1])
    assert len(toy.tune(SHORT, positives=toy.positives[:2]).history) == 2


def test_a_loss_that_is_no_number_stops_the_training():
    "At the first step that saw it, though losses are looked at every third, with both rates"
    here = Toy()
    here.windows.canvas[1] = torch.inf
    with pytest.raises(
        FloatingPointError, match=r"the loss is nan at step 1 .*head 0.01, backbone 0.002\) or look"
    ):
        here.tune(SHORT)


def test_weights_that_are_no_numbers_stop_the_training(toy):
    "Though the loss, taken before the step that ruined them, was one"
    with pytest.raises(FloatingPointError, match="likelihood of validation cells is nan at step 1"):
        toy.tune(replace(SHORT, backbone_rate=1e30, steps=1))


def test_want_of_memory_says_what_was_too_large(toy, monkeypatch):
    "Batch, window and layers, instead of bytes"

    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(Windows, "gather", full)
    with pytest.raises(MemoryError, match="fine-tuning with batch 16 of .* 9 x 9 .* 2 layers: use"):
        toy.tune(SHORT)
    with pytest.raises(MemoryError, match="backbone's features with batch 7 of .* 9 x 9 .* 2 lay"):
        embed(mae.build(TINY, seed=0).encoder, toy.windows, np.arange(5), batch=7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train", "train 'none' is none of frozen, last, full"),
        ("negatives", "negatives 'none' is none of likely, random"),
        ("negatives_by", "negatives_by 'none' is none of cells, backbone"),
    ],
)
def test_an_unknown_choice_is_refused(name, message):
    "Before anything runs, with those there are"
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **{name: "none"})


def test_an_unknown_view_is_refused():
    with pytest.raises(ValueError, match="middle is none of cls, mean, centre"):
        Classifier(mae.build(TINY, seed=0).encoder, view="cls+middle")


# The best step


def test_the_best_step_is_kept(toy):
    "With a rate that ruins it later, the classifier ranks as well as at its best step"
    wild = replace(SETTINGS, steps=60, every=5, rate=0.5, backbone_rate=0.2, patience=100)
    found = toy.tune(wild)
    scores = found.history["average_precision"]
    assert scores.iloc[-1] < scores.max()
    truth = toy.labels[toy.validation]
    kept = average_precision_score(truth, likelihood(found.classifier, toy, toy.validation))
    assert kept == pytest.approx(scores.max(), abs=1e-6)


def test_it_stops_when_it_gets_no_better(toy, monkeypatch):
    "After three looks without a better one, an equal one being none, with the weights of the best"
    scores = iter([0.2, 0.5, 0.5, 0.4, 0.5, 0.9])
    monkeypatch.setattr(fine_tuning, "average_precision_score", lambda *_: next(scores))
    found = toy.tune(replace(SETTINGS, steps=500, every=5, patience=3))
    assert found.history["step"].tolist() == [5, 10, 15, 20, 25]
    assert found.history["average_precision"].tolist() == [0.2, 0.5, 0.5, 0.4, 0.5]
    monkeypatch.setattr(fine_tuning, "average_precision_score", lambda *_: 1.0)
    ten = toy.tune(replace(SETTINGS, steps=10, every=10))
    assert not changed(weights(found.classifier), weights(ten.classifier))


@pytest.mark.parametrize(("steps", "looks"), [(3, [3]), (10, [10]), (25, [10, 20, 25])])
def test_the_last_step_is_looked_at(toy, steps, looks):
    "Also where there are fewer steps than between two looks: no untrained head is returned"
    found = toy.tune(replace(SETTINGS, steps=steps, every=10))
    assert found.history["step"].tolist() == looks
    start = fine_tuning._classifier(mae.build(TINY, seed=0).encoder, SETTINGS, 1)
    assert not torch.equal(found.classifier.linear.weight, start.linear.weight)


# The temperature


def balanced_log_loss(p: np.ndarray, truth: np.ndarray) -> float:
    """Mean of both classes' log losses, n + 1 of n + 2 cells of a class being what they seem."""
    loss = 0.0
    for own, n in [(p[truth], truth.sum()), (1 - p[~truth], (~truth).sum())]:
        loss -= ((n + 1) * np.log(own) + np.log(1 - own)).mean() / (n + 2)
    return loss


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_the_temperature_improves_the_balanced_log_loss(factor):
    "Whether the logits are too small or too large; no other temperature nearby is better"
    here = Toy(strength=1.5)
    model = fine_tuning._classifier(mae.build(TINY, seed=0).encoder, SETTINGS, 1).eval()
    model.load_state_dict(weights(here.tune().classifier) | {"temperature": torch.ones(())})
    with torch.no_grad():
        model.linear.weight *= factor
        model.linear.bias *= factor
    truth = here.labels[here.validation]

    def loss():
        p = likelihood(model, here, here.validation).astype("float64").clip(1e-6, 1 - 1e-6)
        return balanced_log_loss(p, truth)

    before = loss()
    fine_tuning._fit_temperature(model, here.windows, here.validation, here.labels)
    after, found = loss(), model.temperature.item()
    assert after <= before + 1e-6
    for nearby in (0.9, 1.1):
        model.temperature.fill_(found * nearby)
        assert loss() >= after - 1e-6


def test_the_temperature_undoes_a_scale_of_the_logits():
    "Logits twice as large get a temperature twice as high: likelihoods are the same"
    here = Toy(strength=1.5)
    model = here.tune().classifier
    found = []
    for factor in (1, 2):
        with torch.no_grad():
            model.linear.weight *= factor
            model.linear.bias *= factor
        model.temperature.fill_(1)
        fine_tuning._fit_temperature(model, here.windows, here.validation, here.labels)
        found.append(model.temperature.item())
    assert found[1] == pytest.approx(2 * found[0], rel=1e-2)


def test_a_temperature_at_its_limit_is_told(toy, fitted):
    "Scores that are the wrong way round deserve none: the highest, 20; else the history says no"
    assert fitted.history.attrs["limited"] is False
    model = fine_tuning._classifier(mae.build(TINY, seed=0).encoder, SETTINGS, 1)
    model.load_state_dict(weights(fitted.classifier) | {"temperature": torch.ones(())})
    with torch.no_grad():
        model.linear.weight.neg_()
        model.linear.bias.neg_()
    model.eval()
    given = (toy.windows, toy.validation, toy.labels)
    assert fine_tuning._fit_temperature(model, *given)
    assert model.temperature.item() == pytest.approx(20)
    with torch.no_grad():
        model.temperature.fill_(1)
        model.linear.weight.neg_()
        model.linear.bias.neg_()
    assert not fine_tuning._fit_temperature(model, *given)


def test_the_temperature_keeps_the_ranking_of_separated_classes(toy, fitted):
    """Where validation cells are told apart without an error, likelihoods do not pile up at 0 and 1

    The lowest log loss would be that of temperature 0, and float32 would rank nothing any more.
    """
    found = likelihood(fitted.classifier, toy)
    truth = toy.labels[toy.validation]
    assert found[toy.validation][truth].min() > found[toy.validation][~truth].max()
    with torch.no_grad():
        features = fitted.classifier.features(*toy.windows.gather(np.arange(480)))
        raw = fitted.classifier.linear(features)[:, 0].numpy()
    assert (np.diff(found[np.argsort(raw)]) >= 0).all()
    assert len(np.unique(found)) > 0.98 * len(np.unique(raw))
    assert 0.9 < found[toy.labels].mean() < 0.999


# The head


def test_the_view_chooses_tokens():
    "CLS, mean of the patches and the patch at the centre, in the order they are named"
    encoder = mae.build(TINY, seed=0).encoder
    values = torch.randn(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    observed = torch.ones_like(values, dtype=torch.bool)
    with torch.no_grad():
        tokens = encoder(values, observed)
        both = Classifier(encoder, view="centre+cls").features(values, observed)
        mean = Classifier(encoder, view="mean").features(values, observed)
    torch.testing.assert_close(both, torch.cat([tokens[:, 1 + 4], tokens[:, 0]], dim=1))
    torch.testing.assert_close(mean, tokens[:, 1:].mean(dim=1))


@pytest.mark.parametrize("view", ["cls", "centre+cls"])
def test_tokens_that_the_head_does_not_read_cost_nothing_and_change_nothing(view):
    "The last block works out those that are read: features and gradients as of all tokens"
    model = Classifier(mae.build(TINY, seed=0).encoder.double(), view=view).double()
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(3, 2, 9, 9, generator=draw, dtype=torch.float64)
    observed = torch.rand(3, 2, 9, 9, generator=draw) > 0.2
    few = model.features(values, observed)
    tokens = model.encoder(values, observed)
    places = [{"cls": 0, "centre": 1 + 4}[name] for name in view.split("+")]
    every = torch.cat([tokens[:, place] for place in places], dim=1)
    torch.testing.assert_close(few, every)
    weights = list(model.encoder.parameters())
    found, expected = (torch.autograd.grad(made.square().sum(), weights) for made in (few, every))
    torch.testing.assert_close(found, expected)


def test_embedding_is_the_mean_token_of_any_batch(toy):
    "A small batch gives the same features as a large one"
    encoder = mae.build(TINY, seed=0).encoder
    with torch.no_grad():
        tokens = encoder(*toy.windows.gather(np.arange(50)))
    found = [embed(encoder, toy.windows, np.arange(50), batch=b) for b in (7, 50)]
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[1], tokens[:, 1:].mean(dim=1), atol=1e-6)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


# Files


def test_a_classifier_is_read_as_it_was_written(tmp_path, toy, fitted):
    "The same likelihoods, threshold, head and history; the global state is left alone"
    save_classifier(fitted, tmp_path / "model", facts={"fold": 0})
    state = torch.get_rng_state()
    found = load_classifier(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert (likelihood(found.classifier, toy) == likelihood(fitted.classifier, toy)).all()
    assert found.threshold == fitted.threshold == 0.4
    assert found.classifier.dropout.p == 0.2 and found.classifier.view == "cls+mean+centre"
    assert found.classifier.temperature == fitted.classifier.temperature != 1
    np.testing.assert_allclose(found.history, fitted.history, rtol=1e-12)
    assert not found.classifier.training


def test_each_member_of_an_ensemble_has_its_folder():
    "The first lies where a single network does"
    study = SimpleNamespace(processed=Path("p"))
    names = [classifier_path(study, "MVT", "final", 0, member=k).as_posix() for k in (0, 1)]
    assert names == ["p/MVT/classifiers/final_0", "p/MVT/classifiers/final_0_member_1"]


def test_a_missing_classifier_names_the_notebook(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebook 03_fine_tuning"):
        load_classifier(tmp_path / "model")


def test_a_damaged_classifier_is_named(tmp_path, fitted):
    "Cut short or empty"
    save_classifier(fitted, tmp_path / "model", facts={})
    place = tmp_path / "model" / "model.safetensors"
    for content in (place.read_bytes()[:-10], b""):
        place.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
            load_classifier(tmp_path / "model")
