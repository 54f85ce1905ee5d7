"""Outlier fences and standardisation, learned on training cells and applied anywhere."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import xarray as xr

from mpm import artefacts, leaks

NO_OBSERVATION = "no observation"  # every training cell lacks the layer
MISSING_IN = "missing in"  # so does every training cell of the regions named
CONSTANT = "constant"  # one value over all training cells
ABSENT = "absent in training"  # a class, or any layer of zeros and ones, that no cell has
SKEWED = "skewed: log"
FENCES_OFF = "fences off: zero interquartile range"


@dataclass(frozen=True)
class Scaling:
    """How to scale each layer; every field but the last holds one entry a layer.

    Attributes
    ----------
    layers : tuple of str
        Layer names, in the order of the cubes.
    transform : tuple of str
        "log" for skewed layers, scaled as log(1 + value / scale); else empty.
    scale : tuple of float
        Of the transform (units of the layer), 1 where there is none.
    low, high : tuple of float
        Tukey fences (units of the layer), infinite where no fence applies. A constant layer is
        fenced to its constant, so that it stays silent in regions where it varies; so is a class
        that training cells never or always have.
    fill : tuple of float
        What a missing cell stands for in methods that need a number (units of the layer): the
        training mean, or 0, "absent", in a binary layer. Scaled, it is always 0. For a skewed layer
        it is the value whose transform is the mean, not the mean of the values.
    mean, std : tuple of float
        Of the training cells after clipping and transform (units of the layer, or dimensionless
        after the transform); 0 and 1 for binary layers.
    binary : tuple of bool
        Layers of zeros and ones, left as they are.
    notes : tuple of str
        Empty, or what is special, joined by "; ": "constant", "absent in training",
        "no observation", "missing in ...", "skewed: log", "fences off: ...".
    seen : tuple of str
        The cells it was fitted on, a region each, as `leaks.pack` writes them, so that
        `leaks.check` can tell whether they are another split's test cells; empty if not known. Two
        scalings of the same numbers are equal, whatever they have seen.
    """

    layers: tuple[str, ...]
    transform: tuple[str, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    fill: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    binary: tuple[bool, ...]
    notes: tuple[str, ...]
    seen: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def save(self, path: Path) -> None:
        """Write the scaling as JSON; an infinite fence becomes null."""
        fields = {
            name: [None if isinstance(item, float) and math.isinf(item) else item for item in items]
            for name, items in asdict(self).items()
        }
        artefacts.write_json(path, fields)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a scaling written by `save`.

        Raises
        ------
        ValueError
            If the file holds something else, or a scaling of another version; it is named.
        """
        content = artefacts.read_json(path)
        *names, last = cls.__dataclass_fields__
        if not isinstance(content, dict) or set(content) - {last} != set(names):
            raise ValueError(
                f"{path} is not a scaling of this version, which holds {', '.join(names)}; "
                "run the notebook that fitted it again"
            )
        if len({len(content[name]) for name in names}) > 1:
            raise ValueError(f"{path} is damaged: its lists differ in length; refit it")
        content["low"] = [-math.inf if item is None else item for item in content["low"]]
        content["high"] = [math.inf if item is None else item for item in content["high"]]
        return cls(**{name: tuple(items) for name, items in content.items()})


def fit_scaling(
    cubes: Sequence[xr.Dataset], masks: Sequence[np.ndarray], *, k: float = 3.0
) -> Scaling:
    """Learn transforms, fences, means and standard deviations from the training cells.

    All regions are scaled alike: 40 km of crust mean the same on two continents. Layers without
    negative values whose last decile lies more than three times as far from the median as the first
    (distances, thicknesses, shares) are scaled as log(1 + value / median) first, so that a few far
    cells do not flatten the near ones. If the median is 0, that of the positive values is taken.

    Values beyond Q1 - k (Q3 - Q1) and Q3 + k (Q3 - Q1) are clipped to these fences. Geophysics is
    skewed: with Tukey's usual k = 1.5 a strong anomaly, often the very evidence sought, would be
    cut, hence k = 3, his "far out". A layer whose quartiles coincide (most cells hold one value)
    keeps its tail, as fences of zero width would flatten it.

    Parameters
    ----------
    cubes : sequence of Dataset
        `evidence (layer, y, x)`, NaN where missing, with the layer coordinate `kind`; in memory or
        Dask arrays, of which one plane at a time is computed. All cubes hold the same layers.
    masks : sequence of ndarray (y, x)
        One a cube; True marks a training cell. Nothing else is looked at.
    k : float
        Width of the fences in interquartile ranges.

    Returns
    -------
    Scaling

    Raises
    ------
    ValueError
        If the cubes differ in layers, a mask does not fit its cube, no cell is marked, or a binary
        layer holds other values than 0 and 1.

    Source: arXiv:2406.12756 scales this way, without the logarithm; its released code replaces an
    outlier by a smaller value, so that 10 could end below 2. We clip, which keeps the order, and
    look at training cells only, not at the whole raster.
    """
    masks = [np.asarray(mask, dtype=bool) for mask in masks]
    _check_regions(cubes, masks)
    layers = [str(name) for name in cubes[0]["layer"].values]
    kinds = [str(kind) for kind in cubes[0]["kind"].values]
    rows = []
    for position, (name, kind) in enumerate(zip(layers, kinds, strict=True)):
        # one layer at a time: a continent's cube does not fit in memory twice
        parts = [_plane(cube, position)[mask] for cube, mask in zip(cubes, masks, strict=True)]
        seen = [part[np.isfinite(part)] for part in parts]
        row = _fit_layer(name, np.concatenate(seen).astype("float64"), kind == "binary", k)
        silent = [
            str(cube.attrs.get("region", number))
            for number, cube in enumerate(cubes)
            if parts[number].size and not seen[number].size
        ]
        if silent and row["notes"] != NO_OBSERVATION:
            row["notes"] = _join(row["notes"], f"{MISSING_IN} {', '.join(silent)}")
        rows.append(row)
    kept = tuple(leaks.pack(mask) for mask in masks)
    fields = {name: tuple(row[name] for row in rows) for name in rows[0]}
    return Scaling(tuple(layers), **fields, seen=kept)


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _check_regions(cubes: Sequence[xr.Dataset], masks: Sequence[np.ndarray]) -> None:
    if not cubes or len(cubes) != len(masks):
        raise ValueError(f"{len(cubes)} cubes but {len(masks)} masks; give one mask a cube")
    layers = cubes[0]["layer"].values.tolist()
    for number, (cube, mask) in enumerate(zip(cubes, masks, strict=True)):
        _check_layers(cube["layer"].values.tolist(), layers, f"cube {number}", "the first cube")
        if "kind" not in cube.coords:
            raise ValueError(f'cube {number} has no coordinate kind; build it with "kind (layer)"')
        if cube["kind"].values.tolist() != cubes[0]["kind"].values.tolist():
            raise ValueError(f"cube {number} differs from the first cube in the kind of a layer")
        shape = (cube.sizes["y"], cube.sizes["x"])
        if mask.shape != shape:
            raise ValueError(f"mask {number} is {mask.shape}, its cube is {shape} (y, x)")
    if not any(mask.any() for mask in masks):
        raise ValueError(
            "the masks mark no training cell; take three folds or more, or smaller blocks"
        )


def _check_layers(found: list[str], expected: list[str], what: str, reference: str) -> None:
    if found == expected:
        return
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(extra)} in addition"] if extra else []
        raise ValueError(f"{what} {' and '.join(parts)}, compared with {reference}; rebuild it")
    raise ValueError(
        f"{what} orders its layers {', '.join(found)}, {reference} orders them "
        f"{', '.join(expected)}; rebuild it"
    )


def _plane(cube: xr.Dataset, position: int) -> np.ndarray:
    """One layer (y, x); of a cube that lies on disk only this layer is read."""
    return cube["evidence"].isel(layer=position).transpose("y", "x").values


_UNTOUCHED = {"transform": "", "scale": 1.0, "low": -math.inf, "high": math.inf}
_UNTOUCHED |= {"fill": 0.0, "mean": 0.0, "std": 1.0}


def _fit_layer(name: str, values: np.ndarray, binary: bool, k: float) -> dict:
    """Return the fields of one layer, from its observed values (n,)."""
    row = _UNTOUCHED | {"binary": binary, "notes": ""}
    if binary and not np.isin(values, (0.0, 1.0)).all():
        raise ValueError(f"layer {name!r} is binary but holds other values than 0 and 1")
    if values.size == 0:
        return row | {"notes": NO_OBSERVATION}
    # float32 keeps 7 digits: a spread below that is rounding, not geology
    if np.ptp(values) <= 1e-6 * np.abs(values).max():
        middle = float(np.median(values))
        row |= {"low": middle, "high": middle, "notes": CONSTANT}
        if not binary:
            return row | {"fill": middle, "mean": middle}
        return row | {"notes": CONSTANT if middle else ABSENT}
    return row if binary else row | _fit_numbers(values, k)


def _fit_numbers(values: np.ndarray, k: float) -> dict:
    """Return transform, fences, mean, std and note of numbers (n,) that are not all alike."""
    transform = "log" if _skewed(values) else ""
    scale = float(np.median(values) or np.median(values[values > 0])) if transform else 1.0
    values = _forward(values, transform, scale)
    first, third = np.percentile(values, [25, 75])
    low, high = -math.inf, math.inf
    if third > first:
        low, high = float(first - k * (third - first)), float(third + k * (third - first))
    clipped = np.clip(values, low, high)
    mean, std = float(clipped.mean()), float(clipped.std())
    ends = [float(_backward(value, transform, scale)) for value in (low, high, mean)]
    if transform:
        ends[0] = max(
            ends[0], 0.0
        )  # no logarithm of negative values, should another region hold any
    notes = _join(SKEWED if transform else "", "" if third > first else FENCES_OFF)
    row = {"transform": transform, "scale": scale, "mean": mean, "std": std, "notes": notes}
    return row | dict(zip(("low", "high", "fill"), ends, strict=True))


def _skewed(values: np.ndarray) -> bool:
    """Whether values (n,) have no sign and a long upper tail; a few outliers decide nothing."""
    if values.min() < 0:
        return False
    first, middle, last = np.percentile(values, [10, 50, 90])
    if last > first:
        return bool(last - middle > 3 * (middle - first))
    return bool(values.mean() > middle)  # four fifths hold one value: where is the rest?


def _forward(values: np.ndarray, transform: str, scale: float) -> np.ndarray:
    return np.log1p(values / scale) if transform else values


def _backward(value: float, transform: str, scale: float) -> float:
    return scale * np.expm1(value) if transform else value


def apply_scaling(cube: xr.Dataset, scaling: Scaling) -> xr.Dataset:
    """Clip to the fences, transform and standardise: (t(clip(value, low, high)) - mean) / std.

    Missing stays missing (NaN), and so does a layer that no training cell observed: nothing is
    known about its scale. Infinite values count as missing. A class that no training cell has is
    absent (0) everywhere it was observed, as no method can know what it means.

    Parameters
    ----------
    cube : Dataset
        `evidence (layer, y, x)` float32, NaN where missing; any region, unscaled; in memory or a
        Dask array.
    scaling : Scaling
        Fitted on the same layers in the same order.

    Returns
    -------
    Dataset
        As `cube`, with standardised `evidence` (dimensionless, float32) and an attribute `scaled`.

    Raises
    ------
    ValueError
        If the layers differ from those of `scaling`, or `cube` is scaled already.
    """
    _check_unscaled(cube, scaling, "the cube")
    old = cube["evidence"].transpose("layer", "y", "x")
    if old.chunks is not None:
        empty = np.empty((0, 0, 0), "float32")
        evidence = old.data.map_blocks(_scale_block, scaling, dtype="float32", meta=empty)
    else:
        evidence = np.empty(old.shape, dtype="float32")
        for position in range(len(evidence)):
            _scale_plane(_plane(cube, position), scaling, position, out=evidence[position])
    new = xr.DataArray(evidence, dims=("layer", "y", "x"), attrs=old.attrs)
    new.encoding = cube["evidence"].encoding
    scaled = cube.assign(evidence=new)
    scaled.attrs["scaled"] = "clipped to Tukey fences and standardised on training cells"
    return scaled


def _check_unscaled(cube: xr.Dataset, scaling: Scaling, what: str) -> None:
    if "scaled" in cube.attrs:
        raise ValueError(f"{what} is scaled already; apply the scaling to the cube as it was read")
    found = [str(name) for name in cube["layer"].values]
    _check_layers(found, list(scaling.layers), what, "the scaling")


def _scale_block(block: np.ndarray, scaling: Scaling, *, block_info: dict) -> np.ndarray:
    """Scale a chunk of a Dask array (layer, y, x)."""
    (first, _), _, _ = block_info[0]["array-location"]
    scaled = np.empty(block.shape, dtype="float32")
    for number, plane in enumerate(block):
        _scale_plane(plane, scaling, first + number, out=scaled[number])
    return scaled


def _scale_plane(plane: np.ndarray, scaling: Scaling, position: int, *, out: np.ndarray) -> None:
    """Scale one layer (y, x) into `out`, in float64 so that rounding happens once."""
    if scaling.notes[position] == NO_OBSERVATION:
        out[:] = np.nan
        return
    values = np.where(np.isfinite(plane), plane, np.nan).astype("float64")
    np.clip(values, scaling.low[position], scaling.high[position], out=values)
    values = _forward(values, scaling.transform[position], scaling.scale[position])
    out[:] = (values - scaling.mean[position]) / scaling.std[position]


def report(cubes: dict[str, xr.Dataset], scaling: Scaling) -> pd.DataFrame:
    """Tabulate what the scaling does to each layer, over the valid cells of all regions.

    Parameters
    ----------
    cubes : dict of Dataset
        By region, unscaled.
    scaling : Scaling

    Returns
    -------
    DataFrame
        One row a layer: layer, transform, low and high (fences, units of the layer), clipped (% of
        observed cells beyond them), mean, std (after the transform), note, and a column
        "missing in <region>" (% of valid cells) for each region.

    Raises
    ------
    ValueError
        As `apply_scaling`.
    """
    for region, cube in cubes.items():
        _check_unscaled(cube, scaling, f"the cube of {region}")
    valid = {region: cube["valid"].values for region, cube in cubes.items()}
    rows = []
    for position, name in enumerate(scaling.layers):
        parts = {region: _plane(cube, position)[valid[region]] for region, cube in cubes.items()}
        seen = np.concatenate([part[np.isfinite(part)] for part in parts.values()])
        low, high = scaling.low[position], scaling.high[position]
        row = {"layer": name, "transform": scaling.transform[position], "low": low, "high": high}
        row["clipped"] = _percent((seen < low) | (seen > high))
        row |= {"mean": scaling.mean[position], "std": scaling.std[position]}
        row["note"] = scaling.notes[position]
        row |= {f"{MISSING_IN} {key}": _percent(~np.isfinite(part)) for key, part in parts.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _percent(claims: np.ndarray) -> float:
    return 100 * float(claims.mean()) if claims.size else math.nan
