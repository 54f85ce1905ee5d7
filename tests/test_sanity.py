from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny

from mpm import artefacts, mae, sanity
from mpm.classifier import Classifier, Fitted, classifier_path, save_classifier
from mpm.windows import Windows


@pytest.fixture
def classifier():
    return Classifier(mae.build(tiny(), seed=0).encoder).eval()


def test_weights_are_shuffled_from_the_top(classifier):
    "Stage by stage more tensors are in another order, none has other values; ours stays"
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    parts = {"head": "linear.", "last norm": "encoder.norm", "block 1": "encoder.blocks.0",
             "patches": "encoder.values"}  # fmt: skip
    with torch.no_grad():
        classifier.encoder.cls.normal_()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    changed = set()
    for stage, model in sanity.randomised(classifier, seed=0):
        changed.add(parts.pop(stage))
        for name, value in model.state_dict().items():
            same = torch.equal(value, before[name])
            assert torch.equal(value.flatten().sort()[0], before[name].flatten().sort()[0])
            if name.endswith("weight") and name.startswith(tuple(parts.values())):
                assert same, f"{name} moved too early"
            if name in ("encoder.cls", "encoder.position"):
                assert same == (stage != "patches"), f"{name} at {stage}"
            if name in ("linear.weight", "encoder.values.weight") and name.startswith(
                tuple(changed)
            ):
                assert not same
    assert not parts
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_an_explanation_of_the_evidence_alone_does_not_notice():
    "One that never looks at the network stays 1 at every stage; one of its weights does not"
    model = Classifier(mae.build(tiny(), seed=0).encoder).eval()
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 9)))
    table = sanity.randomisation(model, values, lambda other: values, seed=0)
    assert table["stage"].tolist() == ["none", "head", "last norm", "block 1", "patches"]
    assert (table.drop(columns="stage") == 1).all(axis=None)

    def weights(other):
        return pd.DataFrame(np.tile(other.linear.weight.detach().numpy(), (3, 1)))

    table = sanity.randomisation(model, weights(model), weights, seed=0)
    assert (table["value"].iloc[1:] < 0.5).all()


def test_an_explanation_of_turned_signs_names_the_same_layers():
    "Its contributions are the opposite, and would pass; their sizes tell"
    model = Classifier(mae.build(tiny(), seed=0).encoder).eval()
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 9)))
    table = sanity.randomisation(model, values, lambda other: -values, seed=0).iloc[1:]
    assert (table[["value", "low", "high"]] == -1).all(axis=None)
    assert (table[["size", "size_low", "size_high"]] == 1).all(axis=None)


def test_stability_knows_the_luck_of_networks():
    "Alike in one network, turned around in another: the mean is 0 and the interval holds both"
    one = pd.DataFrame(np.tile([1.0, 2.0, 3.0], (30, 1)), columns=list("abc"))
    value, low, high = sanity.stability(one, [one, -one], seed=0)
    assert (value, low, high) == (0, -1, 1)
    assert sanity.likeness(one, one, seed=0)[1:] == (1, 1), "cells alone do not know"
    assert sanity.stability(one, [one[["c", "b", "a"]]] * 3, seed=0) == (1, 1, 1)


def test_noise_moves_observed_numbers_only():
    "Not gaps, nor zeros and ones; by the scale asked for"
    seen = torch.ones(2, 50, 50, dtype=bool)
    seen[0, 0] = False
    place = np.zeros(1, int)
    windows = Windows(torch.zeros(2, 50, 50), seen, 3, place, place, place, ((48, 48),))
    moved = sanity.noisy(windows, [False, True], scale=0.1, seed=0).canvas
    assert (moved[1] == 0).all() and (moved[0, 0] == 0).all()
    assert float(moved[0, 1:].std()) == pytest.approx(0.1, rel=0.05)
    assert (windows.canvas == 0).all()


def test_likeness_compares_layers_by_name():
    one = pd.DataFrame({"a": [1.0, 1.0], "b": [2.0, 2.0], "c": [3.0, 3.0]})
    assert sanity.likeness(one, one[["c", "a", "b"]], seed=0) == (1, 1, 1)
    assert sanity.likeness(one, -one, seed=0)[0] == -1


def test_kept_members_are_not_trained_again(tmp_path, classifier, monkeypatch):
    "The first is read from its folder; the second, no member of the map, trained with its own seed"
    study, trained = SimpleNamespace(processed=tmp_path), []
    kept = Fitted(classifier, 0.5, pd.DataFrame({"step": [1]}))
    save_classifier(kept, classifier_path(study, "MVT", "final", 0, member=1), facts={})
    left = classifier_path(study, "MVT", "final", 0, member=2)  # by a run that drew another map
    save_classifier(replace(kept, threshold=0.4), left, facts={"of": "an earlier run"})
    drew = artefacts.sha256(
        classifier_path(study, "MVT", "final", 0, member=1) / "model.safetensors"
    )
    (left / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(sanity, "read_facts", lambda *of: {"model": ["first", drew]})
    monkeypatch.setattr(sanity, "choose_negatives", lambda *given, **options: options["seed"])

    def fine_tune(encoder, windows, known, negatives, *rest, seed, device):
        trained.append((known.tolist(), negatives, seed))
        return "fresh", None

    monkeypatch.setattr(sanity, "fine_tune", fine_tune)
    fold = SimpleNamespace(windows=None, train=np.array([0, 2]), validation=None)
    positive = np.array([False, True, True])
    found = list(sanity.other_seeds(study, "MVT", fold, None, positive, preset="demo", count=2,
                                    seed=7, device="cpu"))  # fmt: skip
    assert torch.equal(found[0].linear.weight, classifier.linear.weight)
    assert found[1] == "fresh" and trained == [([2], 9, 9)]
