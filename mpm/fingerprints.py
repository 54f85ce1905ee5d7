"""What a kept result was made of: fingerprints of data and code, and facts kept with a table."""

import ast
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from pyarrow import ArrowInvalid
from pyarrow.parquet import read_schema

from mpm.checkpoints import digest

COORDINATES = ("layer", "kind", "units", "origin", "group", "y", "x")  # that methods may read


def data_hash(cubes: Mapping[str, xr.Dataset], target: str) -> str:
    """Return a fingerprint of all evidence and of a target's labels."""
    names = ("evidence", "valid", target, f"{target}_deposit")
    arrays = digest(*(cube[name].values for cube in cubes.values() for name in names))
    facts = [
        cube[key].values.tolist()
        for cube in cubes.values()
        for key in COORDINATES
        if key in cube.coords
    ]
    return hashlib.sha256(json.dumps([arrays, facts]).encode()).hexdigest()[:16]


def code_hash(*modules: str) -> str:
    """Return a hash of some modules of mpm and of all modules of mpm that they import, in turn."""
    folder, left, known = Path(__file__).parent, list(modules), {}
    while left:
        name = left.pop()
        path = folder / f"{name}.py"
        if name in known or not path.exists():
            continue
        source = path.read_bytes()
        known[name] = hashlib.sha256(source).hexdigest()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module == "mpm":
                left += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (name := node.module or "").startswith(
                "mpm."
            ):
                left.append(name.removeprefix("mpm."))
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def facts(path: Path) -> dict:
    """Return what is kept in the attributes of a table; nothing if there is none to be read."""
    try:
        return json.loads((read_schema(path).metadata or {}).get(b"PANDAS_ATTRS", b"{}"))
    except (FileNotFoundError, ArrowInvalid):
        return {}


def plain(known: Mapping) -> dict:
    """Return facts as JSON gives them back."""
    return json.loads(json.dumps(known, default=lambda value: np.asarray(value).tolist()))
