import ast
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny, toy_cube, toy_study

from mpm import mae, pretraining, training
from mpm.folds import make_fold, read_settings
from mpm.pretraining import pretrain_fold, pretrain_study, split_settings
from mpm.splits import SplitSettings
from mpm.training import PretrainSettings, pretrain

RULES = SplitSettings(folds=5, block_km=20, dead_cells=5, seed=7, regions=2)
SETTINGS = PretrainSettings(steps=6, batch=4, reports=2)
LAYERS = ["magnetics", "gravity"]


@pytest.fixture
def cubes() -> dict[str, xr.Dataset]:
    return {"north": toy_cube(1), "south": toy_cube(2)}


@pytest.fixture
def study(tmp_path, monkeypatch, cubes) -> SimpleNamespace:
    monkeypatch.setitem(training.PRETRAIN_PRESETS, "demo", SETTINGS)
    return toy_study(tmp_path, monkeypatch, cubes)


def same_weights(one, other) -> bool:
    weights = other.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


def run(study, cubes, **options):
    options = {"seed": 3, "preset": "demo"} | options
    return pretrain_fold(study, cubes, RULES, "blocks", 1, tiny(), SETTINGS, **options)


def test_a_backbone_is_that_of_the_fold_and_knows_its_data(study, cubes):
    "Weights of `pretrain` on the fold's training windows; where notebook 03 looks; facts of all"
    fold, history = run(study, cubes)
    expected = make_fold(cubes, "blocks", 1, RULES, 9, targets=["MVT"])
    held_out = np.concatenate([expected.validation, expected.test])
    data = (expected.windows, expected.train, held_out)
    trained, told = pretrain(tiny(), *data, SETTINGS, seed=3)
    model, scaling, facts = mae.load(study.processed / "backbones" / "blocks_1", layers=LAYERS)
    assert same_weights(model, trained) and history.equals(told)
    assert scaling == expected.scaling == fold.scaling
    versions = facts.pop("versions")
    assert versions["torch"] == torch.__version__.partition("+")[0] and len(versions) == 5
    assert facts == {
        "study": "toy",
        "split": "blocks",
        "fold": 1,
        "seed": 3,
        "preset": "demo",
        "resolution": {"north": 1000.0, "south": 1000.0},
        "units": {"magnetics": "nT", "gravity": "mGal"},
        "checksums": {
            "north": {"magnetics": "1a", "gravity": "1b"},
            "south": {"magnetics": "2a", "gravity": "2b"},
        },
    }


def test_an_interrupted_backbone_goes_on_from_beside_its_folder(study, cubes, monkeypatch):
    "And ends as it would have; nothing is left beside it"
    run(study, cubes)
    whole, *_ = mae.load(mae.backbone_path(study, "blocks", 1))
    make, steps = training._step, []

    def stopped(progress, *others):
        steps.append(progress.step)
        if progress.step == 4:
            raise KeyboardInterrupt
        make(progress, *others)

    monkeypatch.setattr(training, "_step", stopped)
    monkeypatch.setattr(
        pretraining, "pretrain", lambda *given, **own: pretrain(*given, **own, minutes=0)
    )
    place = study.processed / "backbones" / "blocks_1.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(study, cubes)
    assert place.exists() and steps == [0, 1, 2, 3, 4]
    monkeypatch.setattr(
        training, "_step", lambda *given: (steps.append(given[0].step), make(*given))
    )
    run(study, cubes)
    assert steps[5:] == [4, 5]
    assert same_weights(mae.load(mae.backbone_path(study, "blocks", 1))[0], whole)
    assert [path.name for path in place.parent.iterdir()] == ["blocks_1"]


def test_a_training_that_could_not_be_saved_is_not_lost(study, cubes, monkeypatch):
    "The checkpoint of its last step stays, and the next call makes no step more"
    monkeypatch.setattr(
        pretraining, "pretrain", lambda *given, **own: pretrain(*given, **own, minutes=0)
    )
    whole = mae.save
    monkeypatch.setattr(mae, "save", lambda *given, **own: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        run(study, cubes)
    monkeypatch.setattr(mae, "save", whole)
    monkeypatch.setattr(training, "_step", lambda *given: pytest.fail("trained again"))
    run(study, cubes)
    place = mae.backbone_path(study, "blocks", 1)
    assert [path.name for path in place.parent.iterdir()] == ["blocks_1"]


def test_the_dead_zone_covers_half_a_window_and_a_label(study, cubes):
    "9 cells: 4 to each side, and 0.5 km are one cell more; 2 x 3600 km2 in 25 blocks of 17 km"
    found = split_settings(study, cubes, 9, seed=7)
    assert found == SplitSettings(folds=5, block_km=20, dead_cells=5, seed=7, regions=2)
    assert split_settings(study, cubes, 9, seed=7, block_km=33.0).block_km == 33


def test_a_region_without_deposits_is_not_trained_on_alone(study, cubes):
    "Nor is one held out that no deposit of a target lies in"
    assert split_settings(study, cubes, 9, seed=7, region_folds=1).regions == 1
    bare = cubes | {"south": cubes["south"].assign(MVT=cubes["south"]["MVT"] & False)}
    assert split_settings(study, bare, 9, seed=7).regions == 0


def test_all_backbones_of_a_study_are_made(study, capsys):
    "Five blocks, one random, two regions, one final, as splits.json says; a line each"
    pretrain_study(study, steps=2)
    made = sorted(path.name for path in (study.processed / "backbones").iterdir())
    assert made == [
        *(f"blocks_{fold}" for fold in range(5)),
        "final_0",
        "random_0",
        "region_0",
        "region_1",
    ]
    assert read_settings(study) == (RULES, "demo")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "demo backbones: 1 x cpu" and len(lines) == 10
    assert lines[1].startswith("blocks 0: ") and "training windows, held-out loss" in lines[1]


def test_one_fold_or_one_split_can_be_made(study):
    "Of the study that they belong to, with other steps and another seed"
    pretrain_study(study, split="blocks", fold=2, seed=5, steps=1)
    pretrain_study(study, split="final", seed=5, steps=1)
    made = sorted(path.name for path in (study.processed / "backbones").iterdir())
    assert made == ["blocks_2", "final_0"]
    assert mae.load(study.processed / "backbones" / "blocks_2")[2]["seed"] == 5
    assert read_settings(study) == (replace(RULES, seed=5), "demo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "bands"}, r"no fold None of a split 'bands'; there are blocks 0, .* final 0"),
        ({"split": "blocks", "fold": 5}, r"no fold 5 of a split 'blocks'; there are blocks 0, "),
        ({"fold": 1}, "fold 1 of which split"),
        ({"preset": "huge"}, "no preset is called 'huge'"),
        ({"devices": 0}, "0 devices on 1 nodes"),
    ],
)
def test_what_there_is_not_is_refused(study, options, message):
    "Before anything is written"
    with pytest.raises(ValueError, match=message):
        pretrain_study(study, **options)
    assert not list(study.processed.iterdir())


def test_backbones_of_two_divisions_are_not_mixed(study):
    "A fold with another seed would have been trained on the others' test cells; all anew is fine"
    pretrain_study(study, split="final", steps=1)
    with pytest.raises(ValueError, match="backbones of toy were made with .*seed=7.* seed=8"):
        pretrain_study(study, split="blocks", fold=0, seed=8, steps=1)
    assert read_settings(study)[0].seed == 7
    pretrain_study(study, seed=8, steps=1)
    assert read_settings(study)[0].seed == 8


def test_the_command_and_the_notebook_have_the_same_defaults():
    "So that both make the same backbones"
    place = Path(__file__).parents[1] / "notebooks" / "02_mae_pretraining.ipynb"
    cells = json.loads(place.read_text(encoding="utf-8"))["cells"]
    cell = next(each for each in cells if "parameters" in each["metadata"].get("tags", []))
    tree = ast.parse("".join(cell["source"]))
    there = {line.targets[0].id: ast.literal_eval(line.value) for line in tree.body}
    own = pretrain_study.__kwdefaults__ | split_settings.__kwdefaults__
    assert {"preset", "seed", "steps", "folds", "random_folds"} <= there.keys() & own.keys()
    assert all(own[name] == value for name, value in there.items() if name in own)
