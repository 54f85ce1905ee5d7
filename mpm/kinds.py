"""How each kind of evidence layer is put on a grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from mpm import artefacts, derive, gridding, hexagons, places, rasters, resample, vectors
from mpm.layers import Layer
from mpm.places import Part
from mpm.study import Study

MOST_CLASSES = 100
HALF = resample.MIN_OBSERVED
_HEXAGONS = ".parquet"


def read(
    study: Study, layer: Layer, region: str, cells: xr.DataArray, part: Part | None = None
) -> tuple[list[str], list[np.ndarray], str, str]:
    """Put a layer of any kind on a grid.

    Parameters
    ----------
    study, layer, region, cells, part
        As for `align.align_layer`.

    Returns
    -------
    list of str
        Names of the planes: the layer's, or one a class.
    list of array (y, x)
        The planes, NaN where missing.
    str
        Kind of the planes: "continuous" or "binary".
    str
        How they were made.

    Raises
    ------
    OSError, ValueError
        As for `align.align_layer`.
    """
    path = study.file(layer, region)
    if layer.kind == "categorical":
        names, planes, method = _classes(study, layer, path, cells, part)
        return names, planes, "binary", method
    if layer.kind == "continuous":
        plane, kind, method = _continuous(layer, path, cells, part)
        return [layer.name], [plane * layer.scale], kind, method
    if layer.kind == "fraction":
        plane, method = _fraction(study, layer, path, cells, part)
        return [layer.name], [plane], "continuous", method
    if layer.kind == "derived":
        plane, method = _derived(study, layer, region, cells)
    else:
        whole, name = _WHOLE[layer.kind]
        plane, method = whole(layer, path, cells), name(layer)
    if part is not None:
        plane = plane[part]
    return [layer.name], [plane * layer.scale], "continuous", method


def layer_classes(study: Study, layer: Layer) -> list:
    """Return a categorical layer's classes: those the study names, or all in any region, sorted.

    Raises
    ------
    ValueError
        If there are more than 100.
    """
    if layer.classes is not None:
        return list(layer.classes)
    found: set = set()
    for region in study.regions:
        found |= _in_file(layer, study.file(layer, region))
    if len({isinstance(each, str) for each in found}) > 1:
        raise ValueError(
            f"layer {layer.name!r}: column {layer.column!r} holds text and numbers; use one of them"
        )
    if len(found) > MOST_CLASSES:
        raise ValueError(
            f"layer {layer.name!r} has {len(found)} classes; name the ones to keep under `classes`"
        )
    return sorted(found)


def _in_file(layer: Layer, path: Path) -> frozenset:
    return _occurring(layer, path, max(part.stat().st_mtime_ns for part in artefacts.parts(path)))


@lru_cache(maxsize=64)
def _occurring(layer: Layer, path: Path, _modified: int) -> frozenset:
    form = format_of(path)
    if form == "vector":
        return frozenset(vectors.classes(path, layer.column, f"layer {layer.name!r}"))
    if form == "hexagons":
        with _naming(f"layer {layer.name!r}"):
            return frozenset(hexagons.classes(path, _column(layer, path)))
    with _naming(f"layer {layer.name!r}: {path}"):
        return frozenset(rasters.codes(rasters.describe(layer, path)))


def format_of(path: Path) -> str:
    """Return "vector", "hexagons" or "raster", by a file's name."""
    if path.suffix.lower() in vectors.VECTORS:
        return "vector"
    return "hexagons" if path.suffix.lower() == _HEXAGONS else "raster"


def _continuous(
    layer: Layer, path: Path, cells: xr.DataArray, part: Part | None, *, cubic: bool = False
) -> tuple[np.ndarray, str, str]:
    form = format_of(path)
    if form == "vector":
        raise ValueError(f"layer {layer.name!r}: {path} is no raster; name its `kind`")
    if form == "hexagons":
        return _of_hexagons(layer, path, places.cut(cells, part))
    source = rasters.describe(layer, path)
    how = resample.plan(source, cells)
    plane = resample.continuous(source, cells, part, cubic=cubic)
    name = "average of" if how.is_finer else "cubic from" if cubic else "bilinear from"
    return plane, "continuous", f"{name} {how.size}"


def _of_hexagons(layer: Layer, path: Path, cells: xr.DataArray) -> tuple[np.ndarray, str, str]:
    with _naming(f"layer {layer.name!r}"):
        plane = hexagons.on_grid(path, _column(layer, path), cells)
        if plane.dtype == object:
            raise ValueError(f"{path}: {layer.column!r} holds text; use kind: categorical")
        is_binary = pa.types.is_boolean(pq.read_schema(path).field(layer.column).type)
    low, high = layer.valid_range or (-np.inf, np.inf)
    plane = np.where((plane >= low) & (plane <= high) & np.isfinite(plane), plane, np.nan)
    return plane, "binary" if is_binary else "continuous", "H3 cell at the centre"


def _classes(
    study: Study, layer: Layer, path: Path, cells: xr.DataArray, part: Part | None
) -> tuple[list[str], list[np.ndarray], str]:
    classes, form = layer_classes(study, layer), format_of(path)
    if form == "hexagons":
        with _naming(f"layer {layer.name!r}"):
            found = hexagons.on_grid(path, _column(layer, path), places.cut(cells, part))
        shares = [found == name for name in classes] + [np.not_equal(found, None)]
        shares[-1] &= ~np.any(shares[:-1], axis=0)
        method = "H3 cell at the centre"
    elif form == "vector":
        shares = _voting(layer, path, classes, _polygon_shares, cells, part)
        method = "majority of polygons"
    else:
        _check_codes(study, layer, path)
        how = resample.plan(rasters.describe(layer, path), cells)
        shares = _voting(layer, path, classes, _code_shares, cells, part)
        method = f"{'mode' if how.class_points > 1 else 'nearest'} of {how.size}"
    shares = np.stack(shares)
    # as for numbers, half of a cell must be known: the mode of one mapped pixel is no map of it
    mapped, winner = shares.sum(axis=0) >= HALF, shares.argmax(axis=0)
    planes = [np.where(mapped, winner == k, np.nan) for k in range(len(classes))]
    return [f"{layer.name}={name}" for name in classes], planes, f"one-hot by {method}"


def _voting(layer, path, classes, shares_of, cells, part) -> list[np.ndarray]:
    """Return the shares of the named classes, then of those that the study leaves out.

    Those vote too: ground of a class that nobody named is known, and is none of the named ones.
    Where they are too many to be counted one by one, they vote as one.
    """
    others = sorted(_in_file(layer, path) - set(classes), key=str)
    if len(classes) + len(others) <= MOST_CLASSES:
        return shares_of(layer, path, cells, part, classes + others)
    shares = shares_of(layer, path, cells, part, classes)
    total = shares_of(layer, path, cells, part, None)[0]
    return [*shares, np.clip(total - sum(shares), 0, None)]


def _check_codes(study: Study, layer: Layer, path: Path) -> None:
    """Refuse a named code that no region's raster holds: a plane of zeros helps nobody."""
    if not all(isinstance(code, int) for code in layer.classes or ()):
        raise ValueError(f"layer {layer.name!r}: {path} is a raster; its `classes` are numbers")
    there = frozenset().union(
        *(_in_file(layer, study.file(layer, region)) for region in study.regions)
    )
    absent = [code for code in layer.classes or () if code not in there]
    if absent:
        listed = ", ".join(str(code) for code in sorted(there)[:20])
        raise ValueError(
            f"layer {layer.name!r}: no raster of it holds class {absent[0]!r}; they hold {listed}"
        )


def _fraction(
    study: Study, layer: Layer, path: Path, cells: xr.DataArray, part: Part | None
) -> tuple[np.ndarray, str]:
    form = format_of(path)
    if form == "hexagons" or (form == "raster" and layer.classes is None):
        raise ValueError(
            f"layer {layer.name!r}: kind fraction needs polygons, or a raster of codes and the "
            f"`classes` to count; {path} is neither"
        )
    if form == "raster":
        _check_codes(study, layer, path)
        shares_of, how = _code_shares, resample.plan(rasters.describe(layer, path), cells)
        method = f"area share of pixels of {how.size}"
    else:
        if layer.column is not None:
            layer_classes(study, layer)  # which says what is wrong with the column
        shares_of, n = _polygon_shares, vectors.SUPERSAMPLE
        method = f"area share on {n} x {n} subcells"
    total = np.clip(sum(shares_of(layer, path, cells, part, None)), 0, 1)
    if layer.classes is None:  # polygons of one thing: no polygon, no such thing
        return total, method
    share = np.clip(sum(shares_of(layer, path, cells, part, list(layer.classes))), 0, 1)
    # of a map of classes: where it shows nothing, nothing is known
    return np.where(total >= HALF, share / np.maximum(total, HALF), np.nan), method


def _code_shares(
    layer: Layer, path: Path, cells: xr.DataArray, part: Part | None, codes: list | None
) -> list[np.ndarray]:
    """Return the share (y, x) of each code, or of all codes together."""
    source = rasters.describe(layer, path)
    shares, seen = resample.class_shares(source, cells, codes or [0], part)
    return [seen] if codes is None else shares


def _polygon_shares(
    layer: Layer, path: Path, cells: xr.DataArray, part: Part | None, classes: list | None
) -> list[np.ndarray]:
    what = f"layer {layer.name!r}"
    if layer.crs is not None:
        raise ValueError(f"{what}: {path} states its own CRS; leave `crs` out")
    here = places.cut(cells, part)
    if part is not None:
        try:
            vectors.features(path, what, here)
        except ValueError:
            vectors.features(path, what, cells)  # raises unless only this part is empty
            return [np.zeros(here.shape, "float32") for _ in classes or [None]]
    return vectors.shares(layer, path, here, classes)


def _derived(
    study: Study, layer: Layer, region: str, cells: xr.DataArray
) -> tuple[np.ndarray, str]:
    """Compute a layer from its parent, which is read beyond the region's rim."""
    parent, path = study.layer(layer.of), study.file(layer, region)
    step = cells.rio.transform().a
    margin = derive.margin(layer.derive, step, layer.reach)
    padded = places.padded(cells, margin)
    if parent.kind == "continuous":
        # gradients want a surface without creases, which gaps cost more of
        is_smooth = layer.derive != "highpass"
        plane, _, how = _continuous(parent, path, padded, None, cubic=is_smooth)
        plane = plane * parent.scale
    else:
        _, (plane,), _, how = read(study, parent, region, padded)
    with _naming(f"layer {layer.name!r}, {layer.derive} of {parent.name!r} ({path})"):
        result, method = derive.compute(layer.derive, plane, step, layer.reach)
    return result[margin:-margin, margin:-margin], f"{method}; {how}"


def _column(layer: Layer, path: Path) -> str:
    if layer.column is None:
        raise ValueError(f"name the column of {path} under `column`")
    return layer.column


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say whose mistake it is, of functions that do not know the layer."""
    try:
        yield
    except pa.ArrowInvalid as error:  # a damaged file, though a ValueError too
        raise OSError(str(error)) from error
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


_WHOLE = {
    "distance": (vectors.distance, lambda layer: "distance to nearest " + _noun(layer)),
    "density": (vectors.density, lambda layer: f"density within {layer.reach / 1000:g} km"),
    "points": (gridding.grid_points, lambda layer: f"{layer.method} gridding of points"),
}


def _noun(layer: Layer) -> str:
    return "outline" if layer.edges else "feature"
