"""Start a study of one's own: a commented study file, a data folder, a copy of the parameters."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

from mpm import artefacts, steps

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SKIPPED = ("study", "target", "device")  # the command line gives them

_STUDY = """\
# Study {name}. Lines that begin with # are comments. Change what follows to your ground, then
#   mpm check {call}      opens every file and says all that is wrong or looks odd
#   mpm run {call}        runs the notebooks, from the data to the maps
# Files lie in {data}. The example names the files that its README lists.
name: {name}
title: My region                # shown in the notebooks
description: What is sought where, and why.
licence: not stated             # of the data; a layer may say its own
citation: ""{folder}

regions:                        # one or more; each is a grid of square cells
  home:
    crs: EPSG:32633             # projected, in metres: UTM zone 33 N here
    resolution: 1000            # side of a cell (m), at most a third of the way between deposits
    bounds: [400000, 5000000, 500000, 5100000]   # west, south, east, north (m), whole cells
    # area: land.gpkg           # polygons that bound the study area; the whole grid without

layers:                         # any CRS and resolution; nothing needs to be resampled before
  - name: gravity               # a raster of numbers
    group: geophysics           # layers of a group are drawn and explained together
    units: mGal
    file: gravity.tif
    why: Steep gradients mark faults that carry brine.   # what a geologist expects of it
    source: ""                  # who made it, with a DOI or address
    # licence: CC BY 4.0
    # valid_range: [-500, 500]  # all other values are missing
  - name: gravity_gradient      # computed from another layer: hgm, slope, worms, highpass, vertical
    group: geophysics
    derive: hgm
    of: gravity
  - name: lithology             # polygons with a class, or a raster of codes: one layer a class
    group: geology
    kind: categorical
    units: "1"
    file: geology.gpkg
    column: rock                # attribute that holds the class
  - name: fault_distance        # distance (m) to the lines, points or polygons of a file
    group: structure
    kind: distance
    units: m
    file: faults.gpkg           # a shapefile does as well

deposits:                       # a table of points
  file: deposits.csv
  x: longitude                  # columns of the coordinates, and their CRS
  y: latitude
  crs: EPSG:4326
  type: type                    # column of the deposit type
  name: name                    # column of the name

targets:                        # what is sought; the first is the default
  MVT:
    types: [MVT]                # values of the type column; leave out to take all deposits
    radius: 1500                # cells as near as this (m) to a deposit count as positive

# backbone:                     # a network pretrained elsewhere, instead of one of your own
#   folder: backbone            # of notebook 02 of another study (processed/.../backbones/final_0)
#   layers:                     # its layers that are called otherwise here; null: you have none
#     gravity: bouguer
#     magnetics: null
"""

_README = """\
# Data of study {name}

Put the files here that {study} names. As written, it expects

| file | what |
|---|---|
| `gravity.tif` | raster of numbers: GeoTIFF, NetCDF or GMT grid, with its CRS |
| `geology.gpkg` | polygons with a column `rock`: GeoPackage, GeoJSON or shapefile |
| `faults.gpkg` | lines |
| `deposits.csv` | a row a deposit: `longitude`, `latitude`, `type`, `name` |

Names, formats and number of layers are yours to change, in the study file. Then

    mpm check {call}
    mpm run {call} --parameters {parameters}
"""

_PARAMETERS = """\
# Parameters of the notebooks with their own values: change them, then
#   mpm run {call} --parameters {parameters}
# Lines may be deleted; what is not here keeps the notebook's value.
"""


@dataclass(frozen=True)
class Created:
    """What `create` wrote.

    Attributes
    ----------
    study, readme, parameters : Path
    call : str
        How commands are to name the study.
    """

    study: Path
    readme: Path
    parameters: Path
    call: str


def create(name: str, where: Path) -> Created:
    """Write a study file, a data folder with a README, and a copy of the parameters.

    Parameters
    ----------
    name : str
        Begins with a letter; letters, digits and underscores.
    where : Path
        Inside the compendium, the study is one of its own (`data/studies/<name>.yaml`, data in
        `data/raw/<name>`); elsewhere, and among its artefacts, all goes to `<where>/<name>`, data
        to `data` in it.

    Returns
    -------
    Created

    Raises
    ------
    ValueError
        If the name has other characters.
    FileExistsError
        If the study file or a non-empty data folder is there already; nothing is written.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a study: begin with a letter, and use letters, digits and "
            "underscores only, e.g. my_region"
        )
    home, where = artefacts.home(), where.resolve()
    outputs = artefacts.processed(name).parent.resolve()  # no part of the compendium
    ours = where.is_relative_to(home) and not where.is_relative_to(outputs)
    study = home / "data" / "studies" / f"{name}.yaml" if ours else where / name / f"{name}.yaml"
    data = home / "data" / "raw" / name if ours else where / name / "data"
    for place in (study, data):
        if place.is_file() or (place.is_dir() and any(place.iterdir())):
            raise FileExistsError(f"{place} is there already; choose another name, or delete it")
    files = {"study": study, "readme": data / "README.md", "parameters": data / "parameters.yaml"}
    base = home if ours else where
    words = {key: path.relative_to(base).as_posix() for key, path in files.items()}
    words |= {"name": name, "data": data.relative_to(base).as_posix()}
    words |= {"call": name if ours else words["study"], "folder": "" if ours else "\nfolder: data"}
    texts = {"readme": _README.format(**words), "study": _STUDY.format(**words)}
    texts["parameters"] = _PARAMETERS.format(**words) + parameters()
    try:
        for key, text in texts.items():
            _write(files[key], text)
    except BaseException:  # half of a study would be in the way of the next try
        for path in files.values():
            path.unlink(missing_ok=True)
        raise
    return Created(**files, call=words["call"])


def parameters() -> str:
    """Return every parameter of the notebooks as YAML, each once, with its comment.

    Those that are options of the command line (study, target, device) are left out.
    """
    lines, seen = [], set(_SKIPPED)
    for path in steps.notebooks():
        own = steps.defaults(path)
        comments = _comments(path)
        fresh = [name for name in own if name not in seen]
        seen |= set(fresh)
        lines += ["", f"# {path.stem}"] if fresh else []
        lines += [f"{name}: {json.dumps(own[name])}{comments.get(name, '')}" for name in fresh]
    return "\n".join(lines) + "\n"


def _comments(notebook: Path) -> dict[str, str]:
    """Return what a notebook says behind each of its parameters, as "  # text"."""
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    lines = tagged[0].source.splitlines() if tagged else []
    pattern = re.compile(r"(\w+) = (?:\"[^\"]*\"|[^#])*(#.*)")
    found = [match for match in map(pattern.fullmatch, lines) if match]
    return {match[1]: f"  {match[2]}" for match in found}


def _write(path: Path, text: str) -> None:
    with artefacts.atomic(path) as fresh:
        fresh.write_text(text, encoding="utf-8")
