"""A backbone of four planes, taken over for a study that names, orders and has others."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import tiny, toy_cube, toy_study

from mpm import fetch, mae, pretraining, transfer, trials
from mpm.folds import make_fold, open_fold
from mpm.pretraining import pretrain_fold
from mpm.scaling import fit_scaling
from mpm.splits import SplitSettings
from mpm.study import Backbone, load
from mpm.training import PretrainSettings

torch.set_num_threads(1)

KNOWN = ["gravity", "lab", "rock=shale", "rock=granite"]
UNITS = ["mGal", "km", "1", "1"]
RULES = SplitSettings(folds=5, block_km=20, dead_cells=5, seed=7, regions=2)


def cube_of(layers, units, *, seed=1, level=0.0):
    "60 x 60 cells of 1 km; planes named `layer=class` are zeros and ones"
    cube = toy_cube(seed).drop_vars(["layer", "kind", "units", "checksum", "evidence"])
    rng = np.random.default_rng(seed)
    binary = ["=" in name for name in layers]
    planes = [
        rng.integers(0, 2, (60, 60)) if b else rng.normal(size=(60, 60)) + level for b in binary
    ]
    cube["evidence"] = (("layer", "y", "x"), np.stack(planes).astype("float32"))
    kinds = ["binary" if b else "continuous" for b in binary]
    named = {"kind": kinds, "units": list(units), "checksum": [f"{seed}{k}" for k in layers]}
    return cube.assign_coords(layer=list(layers), **{k: ("layer", v) for k, v in named.items()})


@pytest.fixture
def folder(tmp_path):
    "The backbone, as notebook 02 of another study would save it; its weights are random"
    model = mae.build(tiny(layers=4), seed=1)
    with torch.no_grad():
        model.encoder.missing.weight.normal_()
    cube = cube_of(KNOWN, UNITS, seed=9)
    scaling = fit_scaling([cube], [cube["valid"].values])
    facts = {"units": dict(zip(KNOWN, UNITS, strict=True)), "resolution": {"there": 1000.0}}
    mae.save(model, tmp_path / "elsewhere", layers=KNOWN, scaling=scaling, facts=facts)
    return tmp_path / "elsewhere"


def study_of(folder, layers=None, cell=1000.0):
    "As far as a borrowed backbone looks at a study"
    return SimpleNamespace(
        path="my.yaml",
        backbone=Backbone(folder=str(folder), layers=layers or {}),
        backbone_folder=folder,
        regions={"home": SimpleNamespace(resolution=cell)},
    )


def borrow(folder, names, units, layers=None, cell=1000.0):
    return transfer.borrow(study_of(folder, layers, cell), cube_of(names, units))


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
    old, new = borrowed.model, transfer.adapt(borrowed)
    assert torch.equal(new.encoder(*given), old.encoder(*given))
    assert all(torch.equal(a, b) for a, b in zip(new.parameters(), old.parameters(), strict=True))
    assert borrowed.missing == borrowed.ignored == []
    assert transfer.scaling_of(borrowed, fit(names)).mean == borrowed.scaling.mean


def fit(names):
    cube = cube_of(names, ["1"] * len(names), seed=4)
    return fit_scaling([cube], [cube["valid"].values])


def test_a_layer_mapped_to_null_is_one_that_is_missing_everywhere(folder):
    "The lab is not there: as if no cell of it was observed; planes in another order"
    names = ["rock=granite", "gravity", "rock=shale"]
    borrowed = borrow(folder, names, ["1", "mGal", "1"], {"lab": None})
    values, observed = windows(5)
    gone = torch.tensor([True, False, True, True]).view(4, 1, 1)
    expected = borrowed.model.encoder((values * gone), observed & gone)
    places = [3, 0, 2]
    found = transfer.adapt(borrowed).encoder(values[:, places], observed[:, places])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, borrowed.model.encoder(values, observed), atol=1e-3)
    assert borrowed.missing == ["lab"]


def test_layers_that_the_backbone_never_saw_are_ignored(folder):
    "Whatever their values: features, loss and gradients are those without them"
    names = ["gravity", "dust", "lab", "rock=shale", "rock=granite"]
    borrowed = borrow(folder, names, ["mGal", "g", "km", "1", "1"])
    assert borrowed.ignored == ["dust"]
    model, (values, observed) = transfer.adapt(borrowed), windows(5, 5)
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


def test_what_is_filled_in_goes_to_the_layer_of_the_new_name(folder):
    "The decoder's planes move as the encoder's do; an ignored one is filled with zeros"
    borrowed = borrow(folder, ["dust", *KNOWN[::-1]], ["g", *UNITS[::-1]])
    values, observed = windows(3)
    more = torch.cat([values[:, :1], values.flip(1)], dim=1)
    seen = torch.cat([observed[:, :1], observed.flip(1)], dim=1)
    model = transfer.adapt(borrowed)
    mask = mae.draw_mask(3, model.config, torch.Generator().manual_seed(1))
    found, expected = model(more, seen, mask), borrowed.model(values, observed, mask)
    torch.testing.assert_close(found[:, 1:].flip(1), expected, rtol=1e-5, atol=1e-6)
    assert (found[:, 0] == 0).all()


def test_planes_that_are_hidden_together_stay_so(tmp_path, folder):
    "Units of a backbone that learned by hidden layers; what it never saw has one of its own"
    config = tiny(layers=4, task="layers", units=(0, 1, 2, 2))
    own = borrow(folder, ["rock=shale", "dust", "lab", "gravity"], ["1", "g", "km", "mGal"],
                 {"rock=granite": None})  # fmt: skip
    hiding = transfer.replace(own, model=mae.build(config, 0))
    assert transfer.config_of(hiding).units == (2, 3, 1, 0)
    assert transfer.config_of(own).ignored == (1,)


def test_known_layers_are_scaled_as_the_backbone_learned_them(folder):
    "And only the others by the study's training cells, which the scaling remembers"
    names = ["dust", "bouguer", "rock=shale"]
    layers = {"gravity": "bouguer", "lab": None, "rock=granite": None}
    borrowed = borrow(folder, names, ["g", "mGal", "1"], layers)
    own = fit(names)
    made = transfer.scaling_of(borrowed, own)
    assert made.layers == tuple(names) and made.seen == own.seen
    assert made.mean == (own.mean[0], borrowed.scaling.mean[0], 0.0)
    assert made.high[:2] == (own.high[0], borrowed.scaling.high[0])
    assert own.mean[1] != borrowed.scaling.mean[0]


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
    expected = transfer.adapt(transfer.borrow(study, cubes["north"]))
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
    start = transfer.adapt(transfer.borrow(study, cubes["north"]))
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
    bench = trials.Bench(study, "MVT", RULES, "demo", 3)
    names = ["logistic_regression", "mae_features_logistic"]
    (_, table), (_, features) = trials.tasks(bench, "blocks", 1, names)
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
