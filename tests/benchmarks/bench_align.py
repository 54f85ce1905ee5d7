"""Align a stack of rasters larger than memory: 32 layers of 4000 x 4200 cells, 2.15 GB.

Run by hand, on a quiet machine: `python tests/benchmarks/bench_align.py`. Two workers of one thread
align tiles and write them to Zarr, each of which may use so much memory beyond what its imports
take; a worker that uses more is killed. Some tiles are compared with those aligned in memory.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import rasterio
import xarray as xr
from affine import Affine
from distributed import Client, LocalCluster

from mpm import datacube
from mpm.study import Study

ROWS, COLUMNS, CELL_M = 4000, 4200, 500
FILES, BANDS = 4, 8  # a layer a band
CHUNKS = 1000  # cells along a tile
LIMIT_MB = 400  # a worker may use, beyond its imports
WORKERS = 2
SAMPLE = 2  # layers aligned in memory
WEST, NORTH = -1_000_000, 1_500_000
MB = 2**20


def main() -> None:
    """Print times, the workers' peak memory beside the limit, and whether the tiles are equal."""
    os.environ["MPM_RUN"] = "1"  # no progress bars
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder))
        place = Path(folder) / "here.zarr"
        base = imports()
        size = 4 * ROWS * COLUMNS * FILES * BANDS
        print(f"cube of {size / MB:.0f} MB, {WORKERS} workers, {CHUNKS} x {CHUNKS} cells a tile")
        print(f"limit {LIMIT_MB} MB a worker beyond {base / MB:.0f} MB for its imports", flush=True)
        seconds, peaks, lost = align_on_cluster(study, place, folder, base + LIMIT_MB * MB)
        print(f"aligned and written in {seconds:.0f} s, {size / MB / seconds:.0f} MB/s")
        used = [f"{(peak - base) / MB:.0f}" for peak in peaks]
        met = "met" if not lost and max(peaks) <= base + LIMIT_MB * MB else "MISSED"
        print(f"peak {', '.join(used)} MB beyond imports, {lost} workers lost: limit {met}")
        compare(study, place)


def make_study(folder: Path) -> Study:
    """Waves and noise on pixels of 2 km: longitude and latitude in one file, metres in the others.

    Returns
    -------
    Study
        A layer a band; the region is in Albers' North American projection.
    """
    layers = [
        {"name": f"layer_{file}_{band}", "group": "g", "units": "nT", "file": f"{file}.tif"}
        | {"band": band}
        for file in range(FILES)
        for band in range(1, BANDS + 1)
    ]
    bounds = (WEST, NORTH - ROWS * CELL_M, WEST + COLUMNS * CELL_M, NORTH)
    study = Study(
        name="big",
        regions={"here": {"crs": "ESRI:102008", "resolution": CELL_M, "bounds": bounds}},
        layers=layers,
        deposits={"file": "deposits.csv"},
        targets={"MVT": {}},
        path=folder / "big.yaml",
    )
    study.raw.mkdir()
    for file in range(FILES):
        west, north, pixel, crs = (-112, 57, 0.02, 4326) if file == 0 else (WEST, NORTH, 2000, None)
        width, height = (1700, 1250) if file == 0 else (1050, 1000)
        profile = {"driver": "GTiff", "count": BANDS, "dtype": "float32", "interleave": "band"}
        profile |= {"height": height, "width": width, "tiled": True, "nodata": np.nan}
        profile |= {"crs": crs or "ESRI:102008"}
        profile |= {"transform": Affine(pixel, 0, west, 0, -pixel, north)}
        rng = np.random.default_rng(file)
        rows, columns = np.ogrid[:height, :width]
        with rasterio.open(study.raw / f"{file}.tif", "w", **profile) as target:
            for band in range(1, BANDS + 1):
                values = np.sin(rows / (30 * band)) * np.cos(columns / (50 * band))
                values = values + 0.1 * rng.normal(size=(height, width))
                values[200:300, 200:300] = np.nan
                target.write(values.astype("float32"), band)
    return study


def imports() -> int:
    """Return the memory (bytes) of a process that has only imported what a worker needs."""
    script = "import distributed, psutil; from mpm import datacube; "
    script += "print(psutil.Process().memory_info().rss)"
    return int(subprocess.run([sys.executable, "-c", script], stdout=-1, check=True).stdout)


def align_on_cluster(
    study: Study, place: Path, scratch: str, limit: int
) -> tuple[float, list[int], int]:
    """Return seconds, the peak memory (bytes) of each worker, and how many were killed."""
    setup = {"n_workers": WORKERS, "threads_per_worker": 1, "memory_limit": limit}
    setup |= {"dashboard_address": ":0", "local_directory": scratch, "silence_logs": "ERROR"}
    with LocalCluster(**setup) as cluster, Client(cluster) as client:
        workers = list(client.run(os.getpid).values())
        peaks, done = dict.fromkeys(workers, 0), threading.Event()
        watcher = threading.Thread(target=watch, args=[peaks, done])
        watcher.start()
        start = time.perf_counter()
        datacube.write(datacube.build(study, "here", chunks=CHUNKS), place)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        lost = set(workers) - set(client.run(os.getpid).values())
    return seconds, list(peaks.values()), len(lost)


def watch(peaks: dict[int, int], done: threading.Event) -> None:
    """Keep the largest memory of each process until it is done."""
    while not done.wait(0.05):
        for pid, peak in peaks.items():
            if psutil.pid_exists(pid):
                peaks[pid] = max(peak, psutil.Process(pid).memory_info().rss)


def compare(study: Study, place: Path) -> None:
    """Align some layers in memory, and compare a row and a column of tiles."""
    chosen = study.layers[:: len(study.layers) // SAMPLE][:SAMPLE]
    start = time.perf_counter()
    sample = datacube.build(study.model_copy(update={"layers": chosen}), "here")
    seconds = time.perf_counter() - start
    whole = seconds / SAMPLE * len(study.layers)
    print(f"{SAMPLE} layers in memory, one thread: {seconds:.1f} s; all would take {whole:.0f} s")
    written = datacube.read(place, chunks=CHUNKS)["evidence"]
    for part in ({"y": slice(2 * CHUNKS, 3 * CHUNKS)}, {"x": slice(CHUNKS, 2 * CHUNKS)}):
        found = written.sel(layer=sample["layer"]).isel(part).compute()
        xr.testing.assert_allclose(found, sample["evidence"].isel(part), rtol=1e-6)
    print("tiles are equal to those aligned in memory")


if __name__ == "__main__":
    main()
