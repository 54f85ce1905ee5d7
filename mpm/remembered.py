"""How ground was divided is remembered: the same cells are divided many times in one run."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr

F = TypeVar("F", bound=Callable)
MOST = 32  # results that a function remembers, each at most a number a cell


def remembered(function: F) -> F:
    """Make a function of (cubes, ..., targets) give back what it found on the same ground before.

    What it returns is copied, so that whoever changes it changes no other's. Errors are not
    remembered.

    Parameters
    ----------
    function : callable
        Its first argument is a sequence of Dataset (y, x), its last the targets (sequence of str),
        those between can be hashed; it reads no more of the cubes than `ground` does.
    """
    known: OrderedDict[tuple, Any] = OrderedDict()

    @wraps(function)
    def recall(cubes: Sequence[xr.Dataset], *rest: Any) -> Any:
        *middle, targets = rest
        key = (ground(cubes, targets), *middle)
        if key not in known:
            known[key] = function(cubes, *rest)
        known.move_to_end(key)
        while len(known) > MOST:
            known.popitem(last=False)
        return deepcopy(known[key])

    return cast(F, recall)


def ground(cubes: Sequence[xr.Dataset], targets: Sequence[str]) -> str:
    """Return a fingerprint of valid cells, labels, coordinates and CRS of all regions.

    Parameters
    ----------
    cubes : sequence of Dataset
        With `valid` and the targets' positive cells and deposits.
    targets : sequence of str
    """
    total = hashlib.sha256(repr(tuple(targets)).encode())
    labels = [name for target in targets for name in (target, f"{target}_deposit")]
    for cube in cubes:
        total.update(repr(cube.rio.crs).encode())
        for name in ("x", "y", "valid", *labels):
            values = np.ascontiguousarray(cube[name].values)
            total.update(f"{name} {values.shape} {values.dtype}".encode())
            total.update(values.tobytes())
    return total.hexdigest()
