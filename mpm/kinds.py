"""How each kind of evidence layer is put on a grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import xarray as xr

from mpm import artefacts, derive, gridding, hexagons, places, rasters, resample, vectors
from mpm.layers import Layer
from mpm.places import Part
from mpm.study import Study
from mpm.vector_files import VECTORS, nearest, reading
from mpm.vector_files import classes as classes_of_features

MOST_CLASSES = 100
HALF = resample.MIN_OBSERVED
_COUNTED = ("categorical", "fraction")  # kinds that count the pixels or polygons of each class
_WHOLE = {
    "distance": (vectors.distance, "distance to nearest {noun}"),
    "density": (vectors.density, "density within {km:g} km"),
    "points": (gridding.grid_points, "{method} gridding of points"),
}


def describe(
    study: Study, layer: Layer, region: str, cells: xr.DataArray
) -> tuple[list[str], str, str]:
    """Say what `read` makes of a layer, without its values.

    Parameters
    ----------
    study : Study
    layer : Layer
    region : str
    cells : DataArray (y, x)
        The region's grid.

    Returns
    -------
    list of str
        Names of the planes: the layer's, or one a class.
    str
        Kind of the planes: "continuous" or "binary".
    str
        How they are made.

    Raises
    ------
    OSError, ValueError
        As for `align.coordinates`.
    """
    _check(study, layer, region)
    path = study.file(layer, region)
    method = _method(study, layer, path, cells)
    if layer.kind == "categorical":
        names = [f"{layer.name}={name}" for name in layer_classes(study, layer)]
        return names, "binary", method
    kind = "continuous"
    if layer.kind == "continuous" and format_of(path) == "hexagons":
        with _naming(f"layer {layer.name!r}"):
            column = hexagons.check_column(path, _column(layer, path))
        kind = "binary" if pa.types.is_boolean(column.type) else kind
    return [layer.name], kind, method


def read(
    study: Study, layer: Layer, region: str, cells: xr.DataArray, part: Part | None = None
) -> list[np.ndarray]:
    """Put a layer of any kind on a grid.

    Parameters
    ----------
    study, layer, region, cells, part
        As for `align.align_layer`.

    Returns
    -------
    list of array (y, x)
        The planes that `describe` names, NaN where missing.

    Raises
    ------
    OSError, ValueError
        As for `align.align_layer`.
    """
    _check(study, layer, region)
    path = study.file(layer, region)
    if layer.kind == "categorical":
        return _classes(study, layer, path, cells, part)
    if layer.kind == "fraction":
        return [_fraction(layer, path, cells, part)]
    if layer.kind == "continuous":
        return [_continuous(layer, path, cells, part) * layer.scale]
    if layer.kind == "derived":
        plane = _derived(study, layer, region, cells)
    else:
        plane = _WHOLE[layer.kind][0](layer, path, cells) * layer.scale
    return [plane if part is None else plane[part]]


def layer_classes(study: Study, layer: Layer) -> list:
    """Return a categorical layer's classes: those the study names, or all in any region, sorted.

    Raises
    ------
    ValueError
        If there are more than 100, or none.
    """
    if layer.classes is not None:
        return list(layer.classes)
    found = _anywhere(study, layer)
    if not found:
        paths = dict.fromkeys(str(study.file(layer, region)) for region in study.regions)
        raise ValueError(f"layer {layer.name!r}: {', '.join(paths)} holds no class")
    if len({isinstance(each, str) for each in found}) > 1:
        raise ValueError(
            f"layer {layer.name!r}: column {layer.column!r} holds text and numbers; use one of them"
        )
    if len(found) > MOST_CLASSES:
        raise ValueError(
            f"layer {layer.name!r} has {len(found)} classes; name the ones to keep under `classes`"
        )
    return sorted(found)


def _anywhere(study: Study, layer: Layer) -> set:
    """Return the classes that occur in any region's file."""
    found: set = set()
    for region in study.regions:
        path = study.file(layer, region)
        with reading(path, f"layer {layer.name!r}", study.remedy):
            found |= _in_file(layer, path)
    return found


def _in_file(layer: Layer, path: Path) -> frozenset:
    return _occurring(layer, path, max(part.stat().st_mtime_ns for part in artefacts.parts(path)))


@lru_cache(maxsize=64)
def _occurring(layer: Layer, path: Path, _modified: int) -> frozenset:
    form = "vector" if layer.kind in _WHOLE else format_of(path)
    if form == "vector":
        return frozenset(classes_of_features(path, layer.column, f"layer {layer.name!r}"))
    if form == "hexagons":
        with _naming(f"layer {layer.name!r}"):
            return frozenset(hexagons.classes(path, _column(layer, path)))
    with _naming(f"layer {layer.name!r}: {path}"):
        return frozenset(rasters.codes(rasters.describe(layer, path)))


def format_of(path: Path) -> str:
    """Return "vector", "hexagons" or "raster", by a file's name."""
    if path.suffix.lower() in VECTORS:
        return "vector"
    return "hexagons" if path.suffix.lower() == ".parquet" else "raster"


def _check(study: Study, layer: Layer, region: str) -> None:
    """Refuse a file, or classes, that no layer of the kind can be made of."""
    while layer.of is not None:
        layer = study.layer(layer.of)
    path = study.file(layer, region)
    form, what = format_of(path), f"layer {layer.name!r}"
    if form == "vector" and layer.kind == "continuous":
        raise ValueError(f"{what}: {path} is no raster; name its `kind`")
    if form == "vector" and layer.kind in _COUNTED and layer.crs is not None:
        raise ValueError(f"{what}: {path} states its own CRS; leave `crs` out")
    is_other = form == "hexagons" or (form == "raster" and layer.classes is None)
    if layer.kind == "fraction" and is_other:
        raise ValueError(
            f"{what}: kind fraction needs polygons, or a raster of codes and the `classes` to "
            f"count; {path} is neither"
        )
    if form == "raster" and layer.kind in _COUNTED:
        if not all(isinstance(code, int) for code in layer.classes or ()):
            raise ValueError(f"{what}: {path} is a raster; its `classes` are numbers")
    _check_classes(study, layer, path)


def _check_classes(study: Study, layer: Layer, path: Path) -> None:
    """Refuse a named class that no region's file holds: a plane of zeros helps nobody."""
    if layer.classes is None:
        if layer.column is not None and layer.kind == "fraction":
            _in_file(layer, path)  # which says what is wrong with the column
        return
    if not layer.classes:
        raise ValueError(f"layer {layer.name!r}: `classes` is empty; name some, or leave it out")
    there = _in_file(layer, path)
    if there.issuperset(layer.classes):
        return
    there |= _anywhere(study, layer)
    for name in layer.classes:
        if name not in there:
            known = sorted(there, key=str)
            listed = ", ".join(map(str, known[:20])) + ", ..." * (len(known) > 20)
            raise ValueError(
                f"layer {layer.name!r}: neither {path} nor another region's file has "
                f"{layer.column or 'class'} {name!r}{nearest(name, known)}; there are {listed}"
            )


def _method(
    study: Study, layer: Layer, path: Path, cells: xr.DataArray, *, cubic: bool = False
) -> str:
    """Say how a layer's planes are made of its file."""
    form = format_of(path)
    if layer.kind == "derived":
        assert layer.derive and layer.of  # `layers.Layer` asks for both
        how = _method(
            study, study.layer(layer.of), path, cells, cubic=layer.derive in derive.SMOOTH
        )
        return f"{derive.method(layer.derive, layer.reach)}; {how}"
    if layer.kind in _WHOLE:
        noun, km = "outline" if layer.edges else "feature", (layer.reach or 0) / 1000
        return _WHOLE[layer.kind][1].format(noun=noun, km=km, method=layer.method)
    if form == "hexagons":
        return "one-hot by " * (layer.kind == "categorical") + "H3 cell at the centre"
    if form == "vector":
        share = f"area share on {vectors.SUPERSAMPLE} x {vectors.SUPERSAMPLE} subcells"
        return share if layer.kind == "fraction" else "one-hot by majority of polygons"
    plan = resample.plan(rasters.describe(layer, path), cells)
    if layer.kind == "fraction":
        return f"area share of pixels of {plan.size}"
    if layer.kind == "categorical":
        return f"one-hot by {'mode' if plan.class_points > 1 else 'nearest'} of {plan.size}"
    name = "average of" if plan.is_finer else "cubic from" if cubic else "bilinear from"
    return f"{name} {plan.size}"


def _continuous(
    layer: Layer, path: Path, cells: xr.DataArray, part: Part | None, *, cubic: bool = False
) -> np.ndarray:
    if format_of(path) == "raster":
        return resample.continuous(rasters.describe(layer, path), cells, part, cubic=cubic)
    with _naming(f"layer {layer.name!r}"):
        plane = hexagons.on_grid(path, _column(layer, path), places.cut(cells, part))
    low, high = layer.valid_range or (-np.inf, np.inf)
    return np.where((plane >= low) & (plane <= high) & np.isfinite(plane), plane, np.nan)


def _classes(
    study: Study, layer: Layer, path: Path, cells: xr.DataArray, part: Part | None
) -> list[np.ndarray]:
    classes = layer_classes(study, layer)
    shares = np.stack(_voting(layer, path, classes, cells, part))
    # as for numbers, half of a cell must be known: the mode of one mapped pixel is no map of it
    mapped, winner = shares.sum(axis=0) >= HALF, shares.argmax(axis=0)
    return [np.where(mapped, winner == k, np.nan) for k in range(len(classes))]


def _voting(
    layer: Layer, path: Path, classes: list, cells: xr.DataArray, part: Part | None
) -> list[np.ndarray]:
    """Return the shares of the named classes, then of those that the study leaves out.

    Those vote too: ground of a class that nobody named is known, and is none of the named ones.
    Where they are too many to be counted one by one, they vote as one.
    """
    others = sorted(_in_file(layer, path) - set(classes), key=str)
    if len(classes) + len(others) <= MOST_CLASSES:
        return _shares(layer, path, classes + others, cells, part)[0]
    shares, total = _shares(layer, path, classes, cells, part)
    return [*shares, np.clip(total - sum(shares), 0, None)]


def _fraction(layer: Layer, path: Path, cells: xr.DataArray, part: Part | None) -> np.ndarray:
    classes = None if layer.classes is None else list(layer.classes)
    shares, total = _shares(layer, path, classes, cells, part)
    total = np.clip(total, 0, 1)
    if classes is None:  # polygons of one thing: no polygon, no such thing
        return total
    # of a map of classes: where it shows nothing, nothing is known
    share = np.clip(sum(shares), 0, 1)
    return np.where(total >= HALF, share / np.maximum(total, HALF), np.nan)


def _shares(
    layer: Layer, path: Path, classes: list | None, cells: xr.DataArray, part: Part | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the share (y, x) that each class has of a cell, and that anything known has."""
    form = format_of(path)
    if form == "vector":
        return vectors.shares(layer, path, cells, classes, part)
    assert classes is not None  # only polygons may do without
    if form == "raster":
        return resample.class_shares(rasters.describe(layer, path), cells, classes, part)
    with _naming(f"layer {layer.name!r}"):
        here = places.cut(cells, part)
        codes, there = hexagons.classes_on_grid(path, _column(layer, path), here)
    number = {name: k for k, name in enumerate(there)}
    return [codes == number.get(name, len(there)) for name in classes], codes >= 0


def _derived(study: Study, layer: Layer, region: str, cells: xr.DataArray) -> np.ndarray:
    """Compute a layer from its parent, which is read beyond the region's rim."""
    assert layer.derive and layer.of  # `layers.Layer` asks for both
    parent, path = study.layer(layer.of), study.file(layer, region)
    step = cells.rio.transform().a
    margin = derive.margin(layer.derive, step, layer.reach)
    padded = places.padded(cells, margin)
    if parent.kind == "continuous":
        plane = (
            _continuous(parent, path, padded, None, cubic=layer.derive in derive.SMOOTH)
            * parent.scale
        )
    else:
        (plane,) = read(study, parent, region, padded)
    with _naming(f"layer {layer.name!r}, {layer.derive} of {parent.name!r} ({path})"):
        result = derive.compute(layer.derive, plane, step, layer.reach)
    return result[margin:-margin, margin:-margin]


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
