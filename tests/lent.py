"""A backbone of four planes, as another study would lend it, and a study that borrows it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import tiny, toy_cube

from mpm import mae, transfer
from mpm.scaling import fit_scaling
from mpm.study import Backbone

KNOWN = ["gravity", "lab", "rock=shale", "rock=granite"]
UNITS = ["mGal", "km", "1", "1"]


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
        layers=(),
        regions={"home": SimpleNamespace(resolution=cell)},
    )


def borrow(folder, names, units, layers=None, cell=1000.0):
    return transfer.borrow(study_of(folder, layers, cell), cube_of(names, units))


def fit(names):
    cube = cube_of(names, ["1"] * len(names), seed=4)
    return fit_scaling([cube], [cube["valid"].values])
