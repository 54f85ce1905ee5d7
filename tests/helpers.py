"""What several test files need."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import psutil
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.transform import from_origin
from shapely.geometry import Point, box

from mpm import rasters
from mpm.layers import Layer
from mpm.prediction import Prediction

WEST, NORTH, STEP = 500_000, 5_006_000, 1000  # corner (m, UTM zone 33 N) and cells of toy regions


def write_tif(path, values, *, step=STEP, west=WEST, north=NORTH, **profile):
    "A raster of one band, or (band, y, x), north up by default"
    values = np.asarray(values)
    bands = values if values.ndim == 3 else values[None]
    profile = {"crs": "EPSG:32633", "transform": Affine(step, 0, west, 0, -step, north)} | profile
    size = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=bands.dtype, **size, **profile) as target:
        target.write(bands)
    return path


def write_shapes(path, shapes, crs="EPSG:32633", **columns):
    gpd.GeoDataFrame(columns or {"id": range(len(shapes))}, geometry=shapes, crs=crs).to_file(path)
    return path


def described(path, **content):
    "Where the pixels of a layer's raster lie"
    named = {"name": "thing", "group": "g", "units": "1", "file": path.name}
    return rasters.describe(Layer(**named | content), path)


def refused(path, *parts, **content):
    "Every message names the layer, the file and the rest of `parts`"
    with pytest.raises(ValueError) as caught:
        described(path, **content)
    for part in ("'thing'", str(path), *parts):
        assert part in str(caught.value)


def at(left, top, right, bottom):
    "A rectangle in cells from the north-west corner"
    return box(WEST + left * STEP, NORTH - bottom * STEP, WEST + right * STEP, NORTH - top * STEP)


def spot(row, col):
    "The centre of a cell"
    return Point(WEST + (col + 0.5) * STEP, NORTH - (row + 0.5) * STEP)


def tiny(**changes):
    "The smallest masked autoencoder that still has every part: windows of 9 x 9 cells, two layers"
    from mpm import mae  # takes seconds, which tests of maps need not wait for

    size = {"layers": 2, "window": 9, "width": 16, "depth": 1, "heads": 2}
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    return mae.MAEConfig(**size | decoder | changes)


FORKS = """
import os, signal, sys

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:  # a writer for each line
    pid = os.fork()
    number = 0
    while pid == 0:
        number += 1
        write(number)
        if number == 1:
            print(os.getpid(), flush=True)
"""


@contextmanager
def writers(script, *arguments):
    """Yield what starts a process that calls a script's `write(number)` over and over.

    It is a context, too; at its end the process is killed, wherever it is.
    """
    command = [sys.executable, "-c", script + FORKS, *arguments]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as forks:

        @contextmanager
        def writer():
            print(file=forks.stdin, flush=True)
            pid = int(forks.stdout.readline())
            yield
            os.kill(pid, signal.SIGKILL)
            while psutil.pid_exists(pid):
                time.sleep(0.001)

        yield writer
        forks.stdin.close()


def toy_cube(seed: int) -> xr.Dataset:
    "60 x 60 cells of 1 km, and a deposit in every tenth row and column"
    rng = np.random.default_rng(seed)
    number = np.full((60, 60), -1, "int32")
    number[5::10, 5::10] = np.arange(36).reshape(6, 6)
    return xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), rng.normal(size=(2, 60, 60)).astype("float32")),
            "valid": (("y", "x"), np.ones((60, 60), bool)),
            "MVT": (("y", "x"), number >= 0),
            "MVT_deposit": (("y", "x"), number),
        },
        coords={
            "layer": ["magnetics", "gravity"],
            "kind": ("layer", ["continuous"] * 2),
            "units": ("layer", ["nT", "mGal"]),
            "checksum": ("layer", [f"{seed}a", f"{seed}b"]),
            "y": -1000.0 * np.arange(60),
            "x": 1000.0 * np.arange(60),
        },
        attrs={"region": f"region {seed}"},
    )


def toy_study(tmp_path, monkeypatch, cubes) -> SimpleNamespace:
    "As far as training looks at a study, with a small network and cubes that were built"
    from mpm import datacube, mae  # as in `tiny`

    monkeypatch.setenv("MPM_THREADS", "1")
    monkeypatch.setattr(datacube, "read_cubes", lambda _: cubes)
    size = {name: value for name, value in asdict(tiny()).items() if name != "layers"}
    monkeypatch.setitem(mae.PRESETS, "demo", size)
    return SimpleNamespace(
        name="toy",
        processed=tmp_path,
        regions=dict.fromkeys(cubes),
        targets={"MVT": None},
        target=lambda _: SimpleNamespace(radius=500.0),
        backbone=None,
    )


def written_study(tmp_path, monkeypatch) -> SimpleNamespace:
    "One region whose cube is written, for other processes to read, and windows of 9 cells"
    from mpm import datacube, mae  # as in `tiny`

    size = {name: value for name, value in asdict(tiny()).items() if name != "layers"}
    monkeypatch.setitem(mae.PRESETS, "demo", size)
    study = SimpleNamespace(
        name="toy", processed=tmp_path, regions={"one": None}, targets={"MVT": None}, backbone=None
    )
    planes = {"origin": ("layer", ["magnetics", "gravity"]), "group": ("layer", ["a", "b"])}
    datacube.write(toy_cube(1).assign_coords(planes), datacube.path(study, "one"))
    return study


def chromium(profile, flags, otherwise):
    """Open a window of Chromium without a screen; the test skips where there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip(f"no chromium and chromedriver: {otherwise}")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in [*flags.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def masked_mean_square(made, values, observed, hidden):
    "The loss by its definition: the mean over cells that are hidden and observed"
    counts = (observed & hidden).to(values.dtype)
    return ((made - values) ** 2 * counts).sum() / counts.sum().clamp(min=1)


def bars(fig) -> list:
    """Colour bars of a figure, in the order drawn."""
    return [ax._colorbar for ax in fig.axes if hasattr(ax, "_colorbar")]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def lines(ax) -> dict:
    """Label to x and y of the lines drawn."""
    return {line.get_label(): line.get_data() for line in ax.lines}


def simulate_fold(cells=2000, deposits=10, size=5, shift=1.5, seed=0, digits=None):
    """Cells with deposits of `size` cells, p from a noisy score; few digits make ties."""
    rng = np.random.default_rng(seed)
    deposit = np.full(cells, -1)
    deposit[: deposits * size] = np.repeat(np.arange(deposits) + 40, size)
    y = deposit >= 0
    hardness = rng.normal(size=deposits).repeat(size)
    logit = rng.normal(size=cells) - 3 + shift * y
    logit[y] += hardness
    p = 1 / (1 + np.exp(-logit))
    return y, p if digits is None else p.round(digits), deposit


def predict_fold(threshold=0.1, **options) -> Prediction:
    "Of `simulate_fold`"
    return Prediction(*simulate_fold(**options), threshold)


def predictions(cells, *, split="blocks", method="mae", threshold=0.5) -> pd.DataFrame:
    "Rows of (fold, region, row, col, deposit or -1, likelihood)"
    rows = pd.DataFrame(cells, columns=["fold", "region", "row", "col", "deposit", "likelihood"])
    rows = rows.assign(split=split, method=method, positive=rows["deposit"] >= 0)
    rows["likelihood"] = rows["likelihood"].astype("float32")
    rows["uncertainty"] = rows["likelihood"] / 10
    columns = ["split", "fold", "method", "region", "row", "col", "positive", "deposit"]
    columns += ["likelihood", "uncertainty", "threshold"]  # of `mapping.PREDICTION_COLUMNS`
    return rows.assign(threshold=np.float32(threshold))[columns]


def toy_setting():
    """A setting of 20 x 20 cells of 1 km in UTM zone 33, and a tiny network that was not trained.

    Layers: the depth of the LAB rises by 1 km a column, the distance to faults by 1 km a row (m),
    rock is shale in the western half and else granite; the sea lies in the first column. Three
    deposits: A at row 5, column 5, its two cells side by side, B beside it, C far off.
    """
    import torch  # as in `tiny`

    from mpm import mae
    from mpm.cell_setting import Setting
    from mpm.classifier import Classifier
    from mpm.folds import Fold, labels
    from mpm.windows import make_windows

    row, col = np.indices((20, 20)).astype("float32")
    shale = (col < 10).astype("float32")
    evidence = np.stack([col, 1000 * row, shale, 1 - shale])
    number = np.full((20, 20), -1, "int32")
    number[5, 5:7], number[5, 8], number[16, 16] = 0, 1, 2
    coords = {
        "layer": ["lab_depth", "faults", "rock=shale", "rock=granite"],
        "origin": ("layer", ["lab_depth", "faults", "rock", "rock"]),
        "group": ("layer", ["deep", "surface", "surface", "surface"]),
        "units": ("layer", ["km", "m", "1", "1"]),
        "y": NORTH - STEP * (np.arange(20) + 0.5),
        "x": WEST + STEP * (np.arange(20) + 0.5),
    }
    planes = {"valid": col > 0, "MVT": number >= 0, "MVT_deposit": number}
    cube = xr.Dataset({name: (("y", "x"), plane) for name, plane in planes.items()}, coords=coords)
    cube["evidence"] = (("layer", "y", "x"), evidence)
    cube = cube.rio.write_crs(32633)
    scaled = cube.assign(evidence=(cube["evidence"] - cube["evidence"].mean(("y", "x"))) / 5)
    scaled["evidence"][1] /= 1000
    windows = make_windows([scaled], 9)
    likelihood = (0.05 * cube["evidence"][0] + 0.0005 * cube["evidence"][1] / 1000).where(
        cube["valid"]
    )
    known = {"deposit": [0, 1, 2], "name": list("ABC"), "type": "MVT", "row": [5, 5, 16]}
    known = pd.DataFrame(known | {"col": [5, 8, 16]})
    known["x"], known["y"] = cube["x"].values[known["col"]], cube["y"].values[known["row"]]
    torch.manual_seed(0)
    encoder = mae.build(tiny(layers=4), seed=0).encoder
    positive, deposit = labels({"west": cube}, windows, "MVT")
    everything, none = np.arange(len(windows)), np.array([], int)
    kinds = {"lab_depth": "continuous", "faults": "distance", "rock": "categorical"}
    study = SimpleNamespace(
        name="toy", title="Toy", layer=lambda name: SimpleNamespace(kind=kinds[name])
    )
    maps = {"west": xr.Dataset({"likelihood": likelihood, "uncertainty": 0.1 * likelihood})}
    score = windows.take([likelihood.values])
    fold = Fold("final", 0, None, windows, everything, none, none)
    return Setting(
        study, "MVT", {"west": cube}, fold, Classifier(encoder).eval(), encoder, maps,
        {"west": known}, likelihood=score, uncertainty=0.1 * score, positive=positive,
        deposit=deposit, typical=np.array([30, 200]), device=torch.device("cpu"),
    )  # fmt: skip


def centre_of(setting, row, col) -> int:
    "The number of a cell's centre"
    windows = setting.fold.windows
    return int(np.flatnonzero((windows.row == row) & (windows.col == col))[0])


def coast_cube():
    "1 km cells: a bay, an island, a layer that the east lacks, and a gap of single cells"
    rng = np.random.default_rng(0)
    valid = np.ones((30, 37), bool)
    valid[10:20, :6] = False
    valid[:12, 28:] = False
    valid[2, 33] = True  # too few valid cells around it
    evidence = rng.normal(5, 3, (2, 30, 37)).astype("float32")
    evidence[0, :, 22:] = np.nan
    evidence[1, 5::7, 5::7] = np.nan
    evidence[:, ~valid] = np.nan
    made = xr.Dataset(
        {"evidence": (("layer", "y", "x"), evidence), "valid": (("y", "x"), valid)},
        coords={
            "layer": ["gravity", "magnetics"],
            "kind": ("layer", ["continuous"] * 2),
            "y": 899_500 - 1000.0 * np.arange(30),
            "x": 500_500 + 1000.0 * np.arange(37),
        },
        attrs={"region": "toy"},
    )
    return made.rio.write_crs(32633).rio.write_transform(from_origin(5e5, 9e5, 1000, 1000))


def coast_scaling(cube):
    "Fitted on the west of `coast_cube`"
    from mpm.scaling import fit_scaling

    return fit_scaling([cube], [cube["valid"].values & (np.arange(37) < 20)])


def steep_classifier():
    "Untrained, with a head of some effect, so that likelihoods spread from 0 to 1"
    import torch  # as in `tiny`

    from mpm import mae
    from mpm.classifier import Classifier

    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Classifier(mae.build(tiny(), seed=0).encoder, dropout=0.4)
    with torch.no_grad():
        model.linear.weight *= 4
    return model.eval()
