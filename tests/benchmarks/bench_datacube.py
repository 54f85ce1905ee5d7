"""The data cube of Lawley et al. 2022 at full size, on made-up rows, against stated limits.

Run by hand, on a quiet machine: `python tests/benchmarks/bench_datacube.py [PART ...]` with the
parts csv, neighbours and rasters, all by default. Needs 4 GB of disk under the temporary folder.
Every measured step runs in a process of its own, so that its peak memory is its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mpm import hexagons, lawley2022, lawley_sample, lawley_table
from mpm.lawley_facts import features, schema

ROWS = 500_000
PUBLISHED = 5_164_970
COPIES = 10  # of the rows, with cells of their own: the table that is rasterised
LAYERS = 77
EXTRA = "Magnetic_RTP,Magnetic_1VD,HeatFlow,Gravity_GOCE_Differential,Seismic_Moho_GEMMA"


def main(parts: list[str]) -> None:
    """Print a table of seconds, peak memory and how they stand to the limits."""
    print(f"{'':<56}{'value':>9}  {'limit':<14}{'of limit':>9}")
    with tempfile.TemporaryDirectory(prefix="datacube") as name:
        folder = Path(name)
        if "csv" in parts or "rasters" in parts:
            bench_csv(folder)
        if "neighbours" in parts:
            bench_neighbours()
        if "rasters" in parts:
            bench_rasters(folder)


def bench_csv(folder: Path) -> None:
    """Convert half of the rows and all of them: speed, and memory that does not grow."""
    peaks = {}
    for rows in (ROWS // 2, ROWS):
        path = folder / f"{rows}.csv"
        took, megabytes = child("sample", str(path), str(rows)), path.stat().st_size / 1e6
        report(f"write {rows} rows of CSV, {megabytes:.0f} MB (s)", took["seconds"], 60)
        found = child("csv", str(path), str(path.with_suffix(".parquet")))
        speed, peaks[rows] = megabytes / found["seconds"], found["peak"]
        report("  CSV to Parquet (MB/s)", speed, 60, least=True)
        report("  its peak memory (GB)", found["peak"], 1.5)
    report("peak with twice the rows (ratio)", peaks[ROWS] / peaks[ROWS // 2], 1.15)


def bench_neighbours() -> None:
    """List the neighbours of as many cells as were published, and look up their rows."""
    found = child("neighbours")
    report(f"neighbours of {PUBLISHED} cells (s)", found["seconds"], 15)
    report("  with their rows in the table (s)", found["looked up"], 15)
    report("  its peak memory (GB)", found["peak"], 12)


def bench_rasters(folder: Path) -> None:
    """Rasterise 5 M cells at 0.02 degrees; Australia comes on top of what the limit is for."""
    table = folder / "datacube.parquet"
    enlarge(folder / f"{ROWS}.parquet", table)
    found = child("rasters", str(table), str(folder))
    report(f"{found['layers']} layers from {found['cells']} cells, 0.02 degrees (s)",
           found["seconds"], 300)  # fmt: skip
    report("  its peak memory (GB)", found["peak"], 12)
    assert found["layers"] == LAYERS, found["layers"]


def enlarge(table: Path, out: Path) -> None:
    """Repeat a table with other cells, so that it has millions of rows, each of its own cell."""
    rows, cells = pq.read_table(table), sample_cells(ROWS * COPIES)
    with pq.ParquetWriter(out, schema()) as writer:
        for copy in range(COPIES):
            own = pa.array(cells[copy * ROWS : (copy + 1) * ROWS])
            writer.write_table(rows.set_column(0, schema().field(0), own))


def sample_cells(count: int) -> np.ndarray:
    """Return cells on both continents, in the published proportion."""
    first = round(count * lawley_sample.SHARE)
    centres = lawley_sample.CENTRES.values()
    counts = (first, count - first)
    parts = [lawley_sample.patch(*place) for place in zip(centres, counts, strict=True)]
    return np.concatenate(parts)


def work(step: str, words: list[str]) -> dict:
    """Do one step in this process and time it."""
    start, told = time.perf_counter(), {}
    if step == "sample":
        lawley_sample.write_sample(Path(words[0]), int(words[1]))
    elif step == "csv":
        lawley_table.write_parquet(Path(words[0]), Path(words[1]))
    elif step == "neighbours":
        cells = sample_cells(PUBLISHED)
        start = time.perf_counter()
        touching = hexagons.neighbours(cells)
        told["seconds"] = time.perf_counter() - start
        hexagons.find(touching, cells)
        told["looked up"] = time.perf_counter() - start
    elif step == "rasters":
        table, out = Path(words[0]), Path(words[1])
        known = lawley2022.find_deposits(table)
        names = features("preferred") + features(EXTRA)
        place, _ = lawley2022.write_cubes(table, known, out, degrees=0.02, names=names)
        told["seconds"] = time.perf_counter() - start
        told["layers"] = json.loads((place / "evidence" / ".zarray").read_text())["shape"][0]
        told["cells"] = pq.read_metadata(table).num_rows
    seconds = time.perf_counter() - start
    # of this program alone (Linux, in kB); the peak that getrusage tells starts at the parent's
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1e6
    return {"seconds": seconds, "peak": peak} | told


def child(step: str, *words: str) -> dict:
    """Do one step in a process of its own."""
    quiet = os.environ | {"MPM_RUN": "1"}
    command = [sys.executable, __file__, "--step", step, *words]
    done = subprocess.run(command, env=quiet, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def report(name: str, value: float, limit: float, *, least: bool = False) -> None:
    """Print one row: a value, its limit and their ratio."""
    bound, met = ("at least", value >= limit) if least else ("at most", value <= limit)
    judged = "met" if met else "MISSED"
    print(f"{name:<56}{value:>9.2f}  {bound + f' {limit:g}':<14}{value / limit:>9.2f} {judged}",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps(work(sys.argv[2], sys.argv[3:])))
    else:
        main(sys.argv[1:] or ["csv", "neighbours", "rasters"])
