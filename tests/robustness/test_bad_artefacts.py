"""Results of earlier notebooks that are damaged, through the commands that read them."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
from bad_inputs import Bad, cut, edit, judge, nothing
from helpers import tiny
from safetensors.numpy import load_file, save_file

DONE = "processed/toy"
BACKBONE, HEAD = f"{DONE}/backbones/final_0", f"{DONE}/MVT/classifiers/final_0"
CUBE = f"{DONE}/west.zarr"
EXPLAIN = "explain toy.yaml --at 15.3 44.9 --device cpu"
TRAIN = "pretrain toy.yaml --steps 1 --device cpu --split final"


def remove(name):
    def spoil(home):
        place = home / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return spoil


def weights(folder, change):
    "Change the weights of a model"

    def spoil(home):
        place = home / folder / "model.safetensors"
        content = load_file(place)
        save_file(change(content), place)

    return spoil


def not_a_number(content):
    name = sorted(content)[0]
    return content | {name: np.full_like(content[name], np.nan)}


def sizes(folder, **changes):
    "Change the JSON beside the weights of a model; None drops a key"

    def spoil(home):
        place = home / folder / "model.json"
        content = json.loads(place.read_text()) | changes
        kept = {key: value for key, value in content.items() if value is not None}
        place.write_text(json.dumps(kept))

    return spoil


def other(name, content=b"no"):
    return lambda home: (home / name).write_bytes(content)


def config(**changes):
    from dataclasses import asdict

    return asdict(tiny(layers=6)) | changes


Model = partial(Bad, "model", command=EXPLAIN)
AGAIN = "make it again"
MODELS = [
    Model("no classifier", remove(HEAD), ["model.json is missing", "run notebook 03_fine_tuning"]),
    Model("no backbone", remove(BACKBONE), ["is missing", "run notebook 02_mae_pretraining"]),
    Model(
        "classifier cut short",
        cut(f"{HEAD}/model.safetensors", 0.5),
        ["classifiers/final_0/model.safetensors is damaged", AGAIN],
    ),
    Model(
        "classifier without weights",
        remove(f"{HEAD}/model.safetensors"),
        ["classifiers/final_0/model.safetensors is damaged", AGAIN],
    ),
    Model(
        "a pickle for weights",
        other(f"{HEAD}/model.safetensors", b"\x80\x04\x95cos\nsystem"),
        ["model.safetensors is damaged", AGAIN],
    ),
    Model("classifier: NaN weights", weights(HEAD, not_a_number), ["holds NaN", AGAIN]),
    Model(
        "classifier: other sizes",
        sizes(HEAD, config=config(width=32)),
        ["does not fit the model.json", AGAIN],
    ),
    Model(
        "classifier: of another version",
        sizes(HEAD, config=config(rotary=True)),
        ["classifiers/final_0/model.json is damaged or of another version", "rotary", AGAIN],
    ),
    Model(
        "classifier: without threshold",
        sizes(HEAD, threshold=None),
        ["model.json lacks threshold", AGAIN],
    ),
    Model("classifier: no JSON", other(f"{HEAD}/model.json", b"{"), ["model.json is not valid"]),
    Model("classifier: no text", other(f"{HEAD}/model.json", b"\xff\xfe"), ["not valid JSON"]),
    Model(
        "backbone cut short",
        cut(f"{BACKBONE}/model.safetensors", 0.9),
        ["backbones/final_0/model.safetensors is damaged", AGAIN],
    ),
    Model("backbone: NaN weights", weights(BACKBONE, not_a_number), ["holds NaN", AGAIN]),
    Model(
        "backbone: of other layers",
        edit(f"{BACKBONE}/model.json", '"gravity"', '"magnetics"'),
        ["trained on other layers", "magnetics"],
    ),
    Model(
        "backbone: of other units",
        edit(f"{BACKBONE}/model.json", '"mGal"', '"m/s2"'),
        ["gravity in 'mGal', not 'm/s2'", "convert"],
    ),
    Model(
        "backbone: an even window",
        sizes(BACKBONE, config=config(window=10)),
        ["model.json is damaged", "window 10"],
    ),
    Model("backbone: an empty object", other(f"{BACKBONE}/model.json", b"{}"), ["lacks config"]),
    Model(
        "scaling of another version",
        other(f"{BACKBONE}/scaling.json", b'{"layers": []}'),
        ["scaling.json is not a scaling", "again"],
    ),
    Model(
        "scaling: lists cut short",
        edit(f"{BACKBONE}/scaling.json", '"gravity",', ""),
        ["scaling.json is damaged", "refit"],
    ),
    Model("division of cells: no JSON", cut(f"{DONE}/splits.json", 0.5), ["splits.json", "valid"]),
    Model(
        "division of another version",
        edit(f"{DONE}/splits.json", '"folds"', '"parts"'),
        ["splits.json is damaged or of another version", "run notebook 02"],
    ),
    Model(
        "map: a chunk gone",
        lambda home: next(
            (home / DONE / "MVT/prediction_west.zarr").glob("likelihood/0*")
        ).unlink(),
        ["prediction_west.zarr is damaged", "likelihood are gone"],
    ),
    Model(
        "known deposits cut short",
        cut(f"{DONE}/deposits_west.parquet", 0.7),
        ["deposits_west.parquet is damaged", "run notebook 01"],
    ),
    Model(
        "a place outside",
        nothing,
        ["outside every region", "west is negative"],
        command="explain toy.yaml --at 93 45",
    ),
    Model(
        "a page that is no PNG",
        nothing,
        ["--out page.pdf is no PNG"],
        command=f"{EXPLAIN} --out page.pdf",
    ),
    Model(
        "a target that is none",
        nothing,
        ["no target 'Ni'", "MVT"],
        command=f"{EXPLAIN} --target Ni",
    ),
]
Cube = partial(Bad, "cube", command=TRAIN)
HURT = ["west.zarr is damaged", "run notebook 01_data_preparation again"]
CUBES = [
    Cube("missing", remove(CUBE), ["west.zarr is missing", "run notebook 01_data_preparation"]),
    Cube("a chunk gone", remove(f"{CUBE}/evidence/1.0.0"), [*HURT, "1 of 6 chunks of evidence"]),
    Cube("a chunk cut short", cut(f"{CUBE}/evidence/0.0.0", 0.5), HURT),
    Cube("evidence gone", remove(f"{CUBE}/evidence"), HURT),
    Cube("its summary gone", remove(f"{CUBE}/.zmetadata"), HURT),
    Cube("its summary cut short", cut(f"{CUBE}/.zmetadata", 0.5), HURT),
    Cube("a file", lambda home: [remove(CUBE)(home), other(CUBE)(home)], HURT),
]
Training = partial(Bad, "training", command=TRAIN)
OPTIONS = [
    Training(
        "an unknown preset", nothing, ["'dmo'", "demo"], command="pretrain toy.yaml --preset dmo"
    ),
    Training(
        "an unknown split",
        nothing,
        ["no fold", "'block'", "there are blocks 0"],
        command="pretrain toy.yaml --split block",
    ),
    Training("an unknown device", nothing, ["'gpu'"], command=f"{TRAIN} --device gpu"),
    Training(
        "another seed beside earlier backbones",
        nothing,
        ["the backbones of toy were made with", "pretrain all of them anew"],
        command=f"{TRAIN} --seed 8",
    ),
    Training(
        "steps below nothing", nothing, ["steps"], command=TRAIN.replace("--steps 1", "--steps -3")
    ),
]


@pytest.mark.parametrize("bad", MODELS + CUBES + OPTIONS, ids=str)
def test_a_bad_artefact_is_named_and_harms_nothing(bad, home, capsys, record_property):
    "The file is named with what to make again, and earlier results stay"
    judge(bad, home, capsys, record_property)
