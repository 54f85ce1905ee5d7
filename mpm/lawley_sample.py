"""A made-up table with the columns, quirks and classes of the Lawley et al. 2022 data cube."""

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from h3.api import basic_int as h3

from mpm import artefacts, hexagons
from mpm.lawley_facts import TEXT, column_type, columns, facts, merged

# the first printed cell of the published table, and one amid Australia
CENTRES = {"North America": 0x8712E579BFFFFFF, "Oceania": 0x87B8A300AFFFFFF}
SHARE = 0.7  # of the rows that lie in North America, as in the published table
CLASSES: dict[str, list[str] | dict[str, list[str]]] = {
    "Continent": {"North America": ["North America"], "Oceania": ["Oceania"]},
    "Country": {"North America": ["Canada", "United States"], "Oceania": ["Australia"]},
    # "é" once in latin-1 and once, as two letters that stand for its bytes, in UTF-8
    "Province": {
        "North America": ["Alberta", "Québec", "QuÃ©bec"],
        "Oceania": ["Queensland", "Victoria"],
    },
    "Terrane": ["Côte-Nord", "Superior", "Wopmay", "Yilgarn, eastern part"],
    "Geology_Eon": ["Archean", "Proterozoic", "Phanerozoic"],
    "Geology_Era": ["Neoproterozoic", "Paleozoic", "Mesozoic", "Cenozoic"],
    "Crust1": ["island arc", "continental arc", "orogen, thick upper crust, fast middle crust"],
}
ROWS = 50_000  # written at a time
MISSING = 0.01  # share of values missing in columns of which the true number is not known
LABELLED = 1 / 40_000  # clusters of about 15 labelled cells, a row and deposit type


def write_sample(path: Path, rows: int, *, seed: int = 0) -> None:
    """Write a CSV like `2021_Table04_Datacube.csv`: 97 columns, real H3 cells, made-up values.

    Kept of the published file: the byte order mark before a quoted header, text in latin-1 and
    here and there in UTF-8, commas in quoted classes, "Present", "Absent" and empty values,
    numbers with as many digits as float32 has in decimal, shares of missing values, and a few
    clusters of deposits. Cells fill a patch of either continent without gaps.

    Parameters
    ----------
    path : Path
        Written atomically; about 1.6 kB a row.
    rows : int
        7 of 10 in North America.
    seed : int
        Of all values.
    """
    rng = np.random.default_rng(seed)
    first = round(rows * SHARE)
    counts = {"North America": first, "Oceania": rows - first}
    with artefacts.atomic(path) as fresh, fresh.open("wb") as file:
        header = ",".join(f'"{name}"' for name in columns())
        file.write(b"\xef\xbb\xbf" + header.encode() + b"\n")
        for continent, count in counts.items():
            cells = patch(CENTRES[continent], count)
            labels = _labels(cells, rng)
            for start in range(0, count, ROWS):
                part = slice(start, start + ROWS)
                known = {name: marks[part] for name, marks in labels.items()}
                table = _table(cells[part], continent, known, rng)
                text = pa.BufferOutputStream()
                pa.csv.write_csv(table, text, pa.csv.WriteOptions(include_header=False))
                file.write(text.getvalue().to_pybytes().decode().encode("latin-1"))


def patch(centre: int, count: int) -> np.ndarray:
    """Return cells (count,) around a cell, without gaps as far as whole ancestors go: uint64."""
    resolution = h3.get_resolution(centre)
    ancestor, rings = h3.cell_to_parent(centre, 3), 0
    coarse: list[int] = []
    offspring = 7 ** (resolution - 3)
    while len(coarse) * offspring < count:
        around = h3.grid_disk(ancestor, rings)
        # a pentagon has fewer descendants, numbered otherwise
        coarse += [cell for cell in sorted(set(around) - set(coarse)) if not h3.is_pentagon(cell)]
        rings += 1
    shifts = [np.uint64(3 * (15 - level)) for level in range(4, resolution + 1)]
    digits = np.array(list(product(range(7), repeat=len(shifts))), "uint64")
    below = np.bitwise_or.reduce([digits[:, k] << shift for k, shift in enumerate(shifts)])
    blank = np.bitwise_or.reduce([np.uint64(7) << shift for shift in shifts])
    level = np.uint64(resolution - 3) << np.uint64(52)  # to add to the ancestors' resolution
    ancestors = (np.array(coarse, "uint64") & ~blank) + level
    return (ancestors[:, None] | below).reshape(-1)[:count]


def _labels(cells: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mark clusters of cells as deposits or occurrences of each type: bool (n,) a column."""
    marks = {}
    for deposit, occurrence in facts()["labels"]["table"].values():
        marks[deposit], marks[occurrence] = np.zeros((2, len(cells)), bool)
        for centre in rng.choice(cells, max(2, round(len(cells) * LABELLED))):
            disk = np.array(h3.grid_disk(int(centre), 3), "uint64")
            rows = hexagons.find(disk[rng.random(len(disk)) < 0.4], cells)
            rows = rows[rows >= 0]
            is_deposit = rng.random(len(rows)) < 0.1
            marks[deposit][rows[is_deposit]] = True
            marks[occurrence][rows[~is_deposit]] = True
    return marks


def _table(cells: np.ndarray, continent: str, labels: dict, rng: np.random.Generator) -> pa.Table:
    points = np.array([h3.cell_to_latlng(cell) for cell in cells.tolist()])
    made = {
        hexagons.KEY: np.array([f"{cell:x}" for cell in cells.tolist()]),
        "H3_Resolution": np.full(len(cells), h3.get_resolution(int(cells[0]))),
        "H3_Geometry": np.array([_outline(cell) for cell in cells.tolist()]),
        "Longitude_EPSG4326": points[:, 1].round(6),
        "Latitude_EPSG4326": points[:, 0].round(6),
    }
    made |= {name: np.where(marks, "Present", "Absent") for name, marks in labels.items()}
    arrays = {}
    for name in columns():
        if name in made:
            arrays[name] = pa.array(made[name])
            continue
        known = columns()[name].get("missing")
        share = MISSING if known is None else known / facts()["cube"]["rows"]
        missing = rng.random(len(cells)) < share
        arrays[name] = pa.array(_values(name, cells, points, continent, rng), mask=missing)
    return pa.table(arrays)


def _outline(cell: int) -> str:
    corners = h3.cell_to_boundary(cell)
    ring = ", ".join(f"{longitude:.7g} {latitude:.7g}" for latitude, longitude in corners)
    return f"POLYGON (({ring}, {corners[0][1]:.7g} {corners[0][0]:.7g}))"


def _values(
    name: str, cells: np.ndarray, points: np.ndarray, continent: str, rng: np.random.Generator
) -> np.ndarray:
    salt = np.uint64(list(columns()).index(name))
    if column_type(name) == pa.float32():
        waves = np.sin(points @ [0.3 + salt / 97, 0.2] + salt)
        noise = rng.normal(scale=0.1, size=len(cells))
        return (100 * (waves + noise)).astype("float32").astype(float)
    # one class a group of 49 cells, drawn by a hash
    mixed = ((cells >> np.uint64(30)) * np.uint64(2654435761) + salt * np.uint64(97)) >> np.uint64(
        9
    )
    if column_type(name) != TEXT:
        return np.where(mixed % np.uint64(5) == 0, "Present", "Absent")
    found = _classes(name, continent)
    return np.array(found)[(mixed % np.uint64(len(found))).astype(int)]


def _classes(name: str, continent: str) -> list[str]:
    if f"{name}_Merged" in merged():
        return list(merged()[f"{name}_Merged"][1])
    found = next(classes for start, classes in CLASSES.items() if name.startswith(start))
    return found if isinstance(found, list) else found[continent]
