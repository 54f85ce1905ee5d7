"""What a study may borrow, what is refused and why, and where a borrowed backbone goes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import tiny, toy_study
from lent import KNOWN, UNITS, borrow, cube_of, fit, folder, study_of  # noqa: F401  (a fixture)

from mpm import adapted, fetch, mae, pretraining, transfer, trial_folds
from mpm.folds import make_fold, open_fold
from mpm.layers import Layer
from mpm.pretraining import pretrain_fold
from mpm.splits import SplitSettings
from mpm.study import load
from mpm.training import PretrainSettings

RULES = SplitSettings(folds=5, block_km=20, dead_cells=5, seed=7, regions=2)


def test_one_class_may_be_mapped_apart_from_its_layer(folder):
    "An entry for a class comes before that of its layer"
    names = ["gravity", "lab", "lithology=mudstone", "lithology=granite"]
    layers = {"rock": "lithology", "rock=shale": "lithology=mudstone"}
    used = borrow(folder, names, UNITS, layers).used
    assert used == dict(zip(names, KNOWN, strict=True))


REFUSED = {
    "unknown": ({"gravty": "lab"}, KNOWN, UNITS, "names 'gravty', .* did you mean 'gravity'"),
    "no counterpart": (
        {},
        ["bouguer", *KNOWN[1:]],
        UNITS,
        "backbone's layer 'gravity' is no layer of the study; write `gravity: <layer of yours>`",
    ),
    "mapped to nothing": (
        {"lab": "lba"},
        KNOWN,
        UNITS,
        "'lab' is mapped to 'lba', which is no layer of the study; did you mean 'lab'",
    ),
    "class without counterpart": (
        {"rock": "lithology"},
        ["gravity", "lab", "lithology=shale"],
        UNITS[:3],
        "'rock=granite' is mapped to 'lithology=granite', .*`rock=granite: null`",
    ),
    "two to one": (
        {"lab": "gravity"},
        KNOWN,
        UNITS,
        "layer 'gravity' stands for 'gravity' and for 'lab'; map one of them to null",
    ),
    "units": (
        {},
        KNOWN,
        ["gu", *UNITS[1:]],
        "layer 'gravity' is in 'gu', the backbone learned 'gravity' in 'mGal'; convert",
    ),
    "kinds": (
        {"lab": "rock=basalt"},
        ["gravity", "rock=basalt", *KNOWN[2:]],
        UNITS,
        "layer 'rock=basalt' is binary, the backbone learned 'lab' as continuous; .*lab: null",
    ),
    "too few": (
        {"lab": None, "rock": None},
        ["gravity"],
        UNITS[:1],
        "has 1 of its 3 layers, fewer than 50%; add lab, rock, or leave `backbone` out",
    ),
}


@pytest.mark.parametrize(("layers", "names", "units", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(folder, layers, names, units, message):
    "Naming the study file, the backbone, the layer and what to do"
    with pytest.raises(ValueError, match=message) as caught:
        borrow(folder, names, units, layers)
    assert str(caught.value).startswith(f"my.yaml: backbone {folder} does not suit")


def test_a_derived_layer_is_put_right_at_its_parent(folder):
    "It takes neither `scale` nor `kind` itself"
    study = study_of(folder, {"gravity": "gradient", "rock=shale": "steps", "rock=granite": None})
    study.layers = [
        Layer(name=name, group="g", derive="hgm", of="height") for name in ("gradient", "steps")
    ]
    with pytest.raises(ValueError, match="does not suit") as caught:
        transfer.borrow(study, cube_of(["gradient", "lab", "steps"], ["m/km", "km", "1"]))
    units, kinds = str(caught.value).splitlines()[1:]
    assert "'gravity' in 'mGal'; it is derived from 'height': convert that by `scale`" in units
    assert "'rock=shale' as binary; derive it in another way, or map rock=shale: null" in kinds


@pytest.mark.parametrize(("cell", "fits"), [(500, True), (2000, True), (499, False), (2001, False)])
def test_cells_may_be_twice_as_large_or_half(folder, cell, fits):
    "Beyond that a window shows ground of another scale"
    if fits:
        assert borrow(folder, KNOWN, UNITS, cell=cell).ignored == []
        return
    with pytest.raises(ValueError, match=f"region 'home' has cells of {cell} m, .* of 1000 m"):
        borrow(folder, KNOWN, UNITS, cell=cell)


def test_all_problems_are_told_at_once(folder):
    "Units, cells and a layer without counterpart: a line each"
    with pytest.raises(ValueError) as caught:
        borrow(folder, ["gravity", *KNOWN[2:]], ["gu", "1", "1"], cell=9000)
    assert len(str(caught.value).splitlines()) == 4


def spoil(folder, how):
    facts = json.loads((folder / "model.json").read_text())
    if how == "gone":
        (folder / "scaling.json").unlink()
    elif how == "weights":
        (folder / "model.safetensors").write_bytes(b"nonsense")
    elif how == "of another":
        mae.save(mae.build(tiny(), 0), folder.parent / "b", layers="ab", scaling=fit(["a", "b"]),
                 facts=facts["facts"])  # fmt: skip
        (folder.parent / "b" / "scaling.json").replace(folder / "scaling.json")
    else:
        del facts["facts"]["resolution"]
        (folder / "model.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("gone", FileNotFoundError, "my.yaml: backbone .*elsewhere lacks scaling.json; name the"),
        ("weights", ValueError, "elsewhere/model.safetensors is damaged"),
        ("of another", ValueError, "elsewhere holds files of different backbones"),
        ("old", ValueError, "model.json is damaged or of another version .*'resolution'.*02"),
    ],
)
def test_a_damaged_folder_is_refused(folder, how, error, message):
    "A file that is gone, cut off, from another backbone, or of a version that told too little"
    spoil(folder, how)
    with pytest.raises(error, match=message):
        borrow(folder, KNOWN, UNITS)


def test_a_check_says_what_is_used_missing_ignored_and_far_off(folder):
    "Three lines, and one for a region whose values lie beyond the backbone's fences"
    names, units = ["bouguer", "dust", "rock=shale"], ["mGal", "g", "1"]
    layers = {"gravity": "bouguer", "lab": None, "rock=granite": None}
    cubes = {"home": cube_of(names, units), "far": cube_of(names, units, level=50.0)}
    told = transfer.lines(study_of(folder, layers), cubes)
    assert told[0].endswith("uses gravity (here bouguer), rock=shale")
    assert told[1] == "missing everywhere for the backbone: lab, rock=granite"
    assert told[2] == "ignored by the backbone, seen by other methods: dust"
    assert len(told) == 4 and "region 'far'" in told[3] and "bouguer (100%)" in told[3]
    assert transfer.lines(SimpleNamespace(backbone=None), cubes) == []


@pytest.fixture
def borrowing(tmp_path, monkeypatch, folder):
    "A study of two regions without lab, and with dust, that names the backbone"
    names, units = ["dust", "gravity", "rock=shale", "rock=granite"], ["g", "mGal", "1", "1"]
    cubes = {
        "north": cube_of(names, units, level=2.0),
        "south": cube_of(names, units, seed=2, level=2.0),
    }
    study = toy_study(tmp_path / "processed", monkeypatch, cubes)
    vars(study).update(vars(study_of(folder, {"lab": None})) | {"target": study.target})
    study.regions = dict.fromkeys(cubes, SimpleNamespace(resolution=1000.0))
    return study, cubes


def taken(study, cubes, steps=0):
    config, settings = pretraining.recipe(study, cubes, preset="demo", steps=steps)
    settings = PretrainSettings(steps=settings.steps, batch=4, reports=1)
    return pretrain_fold(study, cubes, RULES, "blocks", 1, config, settings, seed=3, preset="demo")


def test_a_study_takes_the_backbone_without_pretraining(borrowing):
    "It lies where notebook 03 looks, with its weights, its scaling and what became of its layers"
    study, cubes = borrowing
    fold, history = taken(study, cubes)
    told = pretraining.line(fold, history, 0)
    assert "blocks 1: not pretrained here, taken as it is, held-out loss" in told
    opened, model = open_fold(study, cubes, "blocks", 1, RULES)
    expected = adapted.network(transfer.borrow(study, cubes["north"]))
    weights = expected.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.config.ignored == (0,)
    assert torch.equal(opened.windows.canvas, fold.windows.canvas)
    facts = mae.load(mae.backbone_path(study, "blocks", 1))[2]["backbone"]
    assert facts["missing"] == ["lab"] and facts["ignored"] == ["dust"]
    assert len(facts["sha256"]) == 64


def test_it_learns_on_when_steps_are_asked_for(borrowing):
    "From the borrowed weights: after one small step they are close to them, not to new ones"
    study, cubes = borrowing
    _, history = taken(study, cubes, steps=1)
    assert history["step"].tolist() == [1] and np.isfinite(history["loss"]).all()
    _, model = open_fold(study, cubes, "blocks", 1, RULES)
    start = adapted.network(transfer.borrow(study, cubes["north"]))
    pairs = [
        (a.detach(), b.detach())
        for a, b in zip(model.parameters(), start.parameters(), strict=True)
    ]
    assert not all(torch.equal(a, b) for a, b in pairs)
    assert all((a - b).abs().max() < 0.01 for a, b in pairs)


def test_another_preset_than_the_backbones_is_refused(borrowing, monkeypatch):
    "Its windows are 9 cells wide"
    study, cubes = borrowing
    monkeypatch.setitem(mae.PRESETS, "demo", {"window": 15})
    with pytest.raises(ValueError, match="takes windows of 9 cells, preset 'demo' has 15; take"):
        pretraining.recipe(study, cubes, preset="demo")


def test_other_methods_keep_the_scaling_of_their_own_ground(borrowing):
    "Methods on the backbone see gravity 2 units above its mean, all others see mean 0"
    study, cubes = borrowing
    taken(study, cubes)
    bench = trial_folds.Bench(study, "MVT", RULES, "demo", 3)
    names = ["logistic_regression", "mae_features_logistic"]
    (_, table), (_, features) = trial_folds.tasks(bench, "blocks", 1, names)
    train = table.fold.train
    assert (features.fold.train == train).all()
    means = [np.nanmean(task.fold.windows.centres(train)[:, 1]) for task in (table, features)]
    assert means[0] == pytest.approx(0, abs=0.01) and means[1] == pytest.approx(2, abs=0.2)
    assert table.backbone is None and features.backbone.config.ignored == (0,)


STUDY = """
name: mine
folder: data
regions: {home: {crs: "EPSG:32633", resolution: 1000, bounds: [500000, 5000000, 506000, 5006000]}}
layers: [{name: gravity, group: g, units: mGal, file: gravity.tif}]
deposits: {file: deposits.csv}
targets: {all: {}}
backbone: {folder: ../elsewhere, layers: {lab: null, rock: null}}
"""


def test_a_study_file_names_the_folder_below_its_data(tmp_path, folder):
    "And its files are inputs like all others, so that a changed one is seen"
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY)
    study = load(str(path))
    assert study.backbone_folder == folder
    assert study.backbone.layers == {"lab": None, "rock": None}
    (tmp_path / "data").mkdir()
    for name in ("gravity.tif", "deposits.csv"):
        (tmp_path / "data" / name).write_text("")
    assert {each.name for each in fetch.input_files(study)} > set(transfer.FILES)
    path.write_text(STUDY.replace("../elsewhere", "../nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere \(backbone\)"):
        fetch.input_files(load(str(path)))
    path.write_text(STUDY.replace("lab: null", "lab: 3").replace("folder: ../", "foldr: ../"))
    with pytest.raises(ValueError, match="backbone > layers > lab: must be text") as caught:
        load(str(path))
    assert "backbone > foldr: no such key; did you mean `folder`?" in str(caught.value)


def test_the_cells_of_a_backbone_are_among_its_facts():
    "In metres, by region, of cubes whose x is in metres"
    cube = cube_of(["gravity"], ["mGal"])
    assert pretraining.facts({"home": cube})["resolution"] == {"home": 1000.0}


def test_a_fold_made_by_the_scaling_remembers_its_training_cells(borrowing):
    "The saved scaling is refused by another fold, whose test cells the study's own layers saw"
    study, cubes = borrowing
    taken(study, cubes)
    _, scaling, _ = mae.load(mae.backbone_path(study, "blocks", 1))
    with pytest.raises(ValueError, match="leak: the scaling was fitted on"):
        make_fold(cubes, "blocks", 0, RULES, 9, targets=["MVT"], scaling=scaling)
