"""What several test files need."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import geopandas as gpd
import numpy as np
import psutil
import pytest
import rasterio
from affine import Affine
from shapely.geometry import Point, box

from mpm import rasters
from mpm.layers import Layer

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
