"""Outlier fences and standardisation, learned on training cells and applied anywhere."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import xarray as xr

from mpm import artefacts

NO_OBSERVATION = "no observation"  # every training cell lacks the layer
CONSTANT = "constant"  # one value over all training cells
FENCES_OFF = "fences off: zero interquartile range"


@dataclass(frozen=True)
class Scaling:
    """How to scale each layer; every field holds one entry a layer.

    Attributes
    ----------
    layers : tuple of str
        Layer names, in the order of the cubes.
    low, high : tuple of float
        Tukey fences (units of the layer), infinite where no fence applies. A constant layer is
        fenced to its constant, so that it stays silent in regions where it varies.
    fill : tuple of float
        What a missing cell stands for in methods that need a number (units of the layer): the
        training mean, or 0, "absent", in a binary layer. Scaled, it is always 0.
    mean, std : tuple of float
        Of the training cells after clipping (units of the layer); 0 and 1 for binary layers.
    binary : tuple of bool
        Layers of zeros and ones, left as they are.
    notes : tuple of str
        Empty, or what is special: "constant", "no observation", "fences off: ...".
    """

    layers: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    fill: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    binary: tuple[bool, ...]
    notes: tuple[str, ...]

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
            If the file holds something else; the message names it.
        """
        content = artefacts.read_json(path)
        names = list(cls.__dataclass_fields__)
        if not isinstance(content, dict) or set(content) != set(names):
            raise ValueError(f"{path} is not a scaling: it must hold {', '.join(names)}; refit it")
        if len({len(content[name]) for name in names}) > 1:
            raise ValueError(f"{path} is damaged: its lists differ in length; refit it")
        content["low"] = [-math.inf if item is None else item for item in content["low"]]
        content["high"] = [math.inf if item is None else item for item in content["high"]]
        return cls(**{name: tuple(content[name]) for name in names})


def fit_scaling(
    cubes: Sequence[xr.Dataset], masks: Sequence[np.ndarray], *, k: float = 3.0
) -> Scaling:
    """Learn fences, means and standard deviations from the training cells of all regions.

    Values beyond Q1 - k (Q3 - Q1) and Q3 + k (Q3 - Q1) are clipped to these fences. Geophysics is
    skewed: with Tukey's usual k = 1.5 a strong anomaly, often the very evidence sought, would be
    cut, hence k = 3, his "far out". A layer whose quartiles coincide (most cells hold one value)
    keeps its tail, as fences of zero width would flatten it.

    Parameters
    ----------
    cubes : sequence of Dataset
        `evidence (layer, y, x)`, NaN where missing, with the layer coordinate `kind`. All cubes
        hold the same layers.
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

    Source: arXiv:2406.12756 scales this way; its released code replaces an outlier by a smaller
    value, so that 10 could end below 2. We clip, which keeps the order, and look at training cells
    only, not at the whole raster.
    """
    masks = [np.asarray(mask, dtype=bool) for mask in masks]
    _check_regions(cubes, masks)
    layers = [str(name) for name in cubes[0]["layer"].values]
    kinds = [str(kind) for kind in cubes[0]["kind"].values]
    rows = []
    for position, (name, kind) in enumerate(zip(layers, kinds, strict=True)):
        # one layer at a time: a continent's cube does not fit in memory twice
        values = np.concatenate(
            [_plane(cube, position)[mask] for cube, mask in zip(cubes, masks, strict=True)]
        ).astype("float64")
        rows.append(_fit_layer(name, values[np.isfinite(values)], kind == "binary", k))
    names = ("low", "high", "fill", "mean", "std", "binary", "notes")
    return Scaling(tuple(layers), **dict(zip(names, zip(*rows, strict=True), strict=True)))


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
        raise ValueError("the masks mark no training cell; check the split")


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


def _fit_layer(name: str, values: np.ndarray, binary: bool, k: float) -> tuple:
    """Low, high, fill, mean, std, binary, note of one layer from its observed values (n,)."""
    if binary and not np.isin(values, (0.0, 1.0)).all():
        raise ValueError(f"layer {name!r} is binary but holds other values than 0 and 1")
    if values.size == 0:
        return -math.inf, math.inf, 0.0, 0.0, 1.0, binary, NO_OBSERVATION
    # float32 keeps 7 digits: a spread below that is rounding, not geology
    constant = np.ptp(values) <= 1e-6 * np.abs(values).max()
    if binary:
        return -math.inf, math.inf, 0.0, 0.0, 1.0, True, CONSTANT if constant else ""
    if constant:
        middle = float(np.median(values))
        return middle, middle, middle, middle, 1.0, False, CONSTANT
    first, third = np.percentile(values, [25, 75])
    low, high, note = -math.inf, math.inf, FENCES_OFF
    if third > first:
        low, high = float(first - k * (third - first)), float(third + k * (third - first))
        note = ""
    clipped = np.clip(values, low, high)
    mean, std = float(clipped.mean()), float(clipped.std())
    return low, high, mean, mean, std, False, note


def apply_scaling(cube: xr.Dataset, scaling: Scaling) -> xr.Dataset:
    """Clip to the fences and standardise: (clip(value, low, high) - mean) / std.

    Missing stays missing (NaN), and so does a layer that no training cell observed: nothing is
    known about its scale. Infinite values count as missing.

    Parameters
    ----------
    cube : Dataset
        `evidence (layer, y, x)` float32, NaN where missing; any region, unscaled.
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
    if "scaled" in cube.attrs:
        raise ValueError("the cube is scaled already; apply the scaling to the cube as it was read")
    found = [str(name) for name in cube["layer"].values]
    _check_layers(found, list(scaling.layers), "the cube", "the scaling")
    shape = tuple(cube.sizes[name] for name in ("layer", "y", "x"))
    evidence = np.empty(shape, dtype="float32")
    for position in range(len(found)):
        _scale_plane(_plane(cube, position), scaling, position, out=evidence[position])
    old = cube["evidence"]
    new = xr.DataArray(evidence, dims=("layer", "y", "x"), attrs=old.attrs)
    new.encoding = old.encoding
    scaled = cube.assign(evidence=new)
    scaled.attrs["scaled"] = "clipped to Tukey fences and standardised on training cells"
    return scaled


def _scale_plane(plane: np.ndarray, scaling: Scaling, position: int, *, out: np.ndarray) -> None:
    """Scale one layer (y, x) into `out`, in float64 so that rounding happens once."""
    if scaling.notes[position] == NO_OBSERVATION:
        out[:] = np.nan
        return
    values = np.where(np.isfinite(plane), plane, np.nan).astype("float64")
    np.clip(values, scaling.low[position], scaling.high[position], out=values)
    out[:] = (values - scaling.mean[position]) / scaling.std[position]
