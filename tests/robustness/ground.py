"""A small sound study with results of all kinds, which bad inputs are to leave as they are."""

import os

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from helpers import NORTH, STEP, WEST, at, write_shapes, write_tif
from shapely.geometry import LineString

SIZE = 40  # cells of 1 km along a side
STUDY = """\
name: toy
folder: data
licence: CC0-1.0
regions:
  west: {crs: "EPSG:32633", resolution: 1000, bounds: [500000, 4966000, 540000, 5006000]}
layers:
  - {name: gravity, group: geophysics, units: mGal, file: gravity.tif}
  - {name: depth, group: geophysics, units: km, file: depth.nc}
  - {name: rock, group: geology, kind: categorical, units: "1", file: geology.gpkg, column: rock}
  - {name: fault_distance, group: geology, kind: distance, units: m, file: faults.shp}
  - {name: heat, group: heat, kind: points, units: mW/m2, file: heat.csv, column: flow,
     reach: 30000}
deposits: {file: deposits.csv, type: type, name: name}
targets:
  MVT: {types: [MVT], radius: 1500}
"""
SITES = [(row, col) for row in (4, 14, 24, 34) for col in (4, 14, 24, 34)]


def place(row, col):
    "Longitude and latitude of a cell's centre"
    there = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    return there.transform(WEST + (col + 0.5) * STEP, NORTH - (row + 0.5) * STEP)


def write_inputs(home):
    "The study file and its data: raster, NetCDF, polygons, lines, stations and deposits"
    data = home / "data"
    data.mkdir(parents=True)
    (home / "toy.yaml").write_text(STUDY)
    rng = np.random.default_rng(7)
    write_tif(data / "gravity.tif", rng.normal(size=(SIZE, SIZE)).astype("float32"))
    write_depth(data / "depth.nc", rng.normal(40, 5, (SIZE, SIZE)))
    west, east = at(0, 0, 20, SIZE), at(20, 0, SIZE, SIZE)
    write_shapes(data / "geology.gpkg", [west, east], rock=["shale", "granite"])
    lines = [LineString([(WEST + x, NORTH), (WEST + x, NORTH - 40_000)]) for x in (9000, 31_000)]
    write_shapes(data / "faults.shp", lines)
    write_points(data / "heat.csv", SITES[::2], flow=[50 + k for k in range(8)])
    names = {"type": ["MVT"] * len(SITES), "name": [f"mine {k}" for k in range(len(SITES))]}
    write_points(data / "deposits.csv", SITES, **names)


def write_depth(path, values, **attributes):
    "A NetCDF file in metres, with its CRS"
    x, y = WEST + STEP * (np.arange(SIZE) + 0.5), NORTH - STEP * (np.arange(SIZE) + 0.5)
    grid = xr.Dataset({"depth": (("y", "x"), values.astype("float32"))}, {"x": x, "y": y})
    grid["depth"].attrs = {"grid_mapping": "crs"} | attributes
    grid["crs"] = ((), 0, pyproj.CRS(32633).to_cf())
    grid.to_netcdf(path, engine="h5netcdf")


def write_points(path, cells, **columns):
    "A table of longitude, latitude and more"
    table = pd.DataFrame([place(*cell) for cell in cells], columns=["longitude", "latitude"])
    table.round(6).assign(**columns).to_csv(path, index=False)


def write_results(home, monkeypatch):
    "Cube, labels, backbone, classifier, maps, scores and figures, as notebooks 01 to 05 leave them"
    import torch

    from mpm import artefacts, datacube, labels, map_files, pretraining, score_store
    from mpm.classifier import Classifier, Fitted, classifier_path, save_classifier
    from mpm.mae import backbone_path, load
    from mpm.study import load as load_study

    study = load_study(str(home / "toy.yaml"))
    cube, known = labels.add_labels(datacube.build(study, "west"), study)
    datacube.write(cube, datacube.path(study, "west"))
    artefacts.write_table(known, labels.deposits_path(study, "west"))
    pretraining.pretrain_study(study, split="final", steps=2, device="cpu")
    torch.manual_seed(0)
    model = Classifier(load(backbone_path(study, "final", 0))[0].encoder)
    fitted = Fitted(model, 0.5, pd.DataFrame({"step": [1], "loss": [0.7]}))
    save_classifier(fitted, classifier_path(study, "MVT", "final", 0), facts={})
    plane = cube["valid"].astype("float32")
    maps = xr.Dataset({"likelihood": plane / 2, "uncertainty": plane / 10})
    maps = {"west": maps.rio.write_crs(cube.rio.crs)}
    map_files.write_prediction(study, "MVT", maps, {"seed": 7})
    keys = {"study": "toy", "target": "MVT", "split": "blocks", "seed": 7, "method": "mae"}
    scores = {"fold": ["0"], "metric": ["auc"], "value": [0.7], "low": [0.6], "high": [0.8]}
    score_store.append_scores(study.processed / "scores.parquet", pd.DataFrame(scores), keys)
    study.figures.mkdir(parents=True)
    (study.figures / "01_map.png").write_bytes(b"a figure")


def use(home, monkeypatch):
    "Have artefacts and figures lie in a home, and networks be tiny"
    from dataclasses import asdict

    from helpers import tiny

    from mpm import mae

    monkeypatch.setenv("MPM_PROCESSED", str(home / "processed"))
    monkeypatch.setenv("MPM_FIGURES", str(home / "figures"))
    monkeypatch.setenv("MPM_THREADS", "1")
    size = {name: value for name, value in asdict(tiny()).items() if name != "layers"}
    monkeypatch.setitem(mae.PRESETS, "demo", size)
    monkeypatch.chdir(home)
    assert os.environ["MPM_RUN"] == "1"
