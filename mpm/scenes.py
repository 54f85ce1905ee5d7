"""Windows worth looking at, where masking cuts off what a geologist would continue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import rioxarray  # noqa: F401  (adds the .rio accessor)
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from mpm.reconstruction import Filled
from mpm.scaling import Scaling, apply_scaling
from mpm.windows import Windows


@dataclass(frozen=True)
class Scene:
    """One layer of one window that shows what masking asks for: arrays (H, W), NaN where missing.

    Attributes
    ----------
    window, layer : int
        Places among those of `Filled`.
    truth, masked : array
        All that was there, and what the network saw.
    fills : dict of array
        "MAE" and "bilinear", with the truth in visible cells.
    errors : dict of float
        Root mean squared error of each on the hidden cells (standard deviations).
    """

    window: int
    layer: int
    truth: np.ndarray
    masked: np.ndarray
    fills: dict[str, np.ndarray]
    errors: dict[str, float]


def scene(
    filled: Filled,
    look: Literal["line", "edge", "high", "body"],
    among: Sequence[int] | None = None,
) -> Scene:
    """Choose a window worth looking at, by what was there and never by how the network filled it.

    Parameters
    ----------
    filled : Filled
    look : {"line", "edge", "high", "body"}
        "line": the deepest straight valley in visible and in hidden cells, as a fault is in the
        distance to it. "edge": the sharpest straight edge that runs through both. "high": the
        strongest high that reaches from a visible cell into a hidden one. "body": hidden cells
        that rise or fall farthest beyond all visible ones.
    among : sequence of int, optional
        Layers to look in; all by default.

    Returns
    -------
    Scene
        Of a window without missing cells in that layer, if there is any.
    """
    layers = np.arange(filled.values.shape[1]) if among is None else np.asarray(among)
    truth = filled.values[:, layers]
    mark = {"line": _lines, "edge": _edges, "high": _highs, "body": _bodies}[look]
    marks = mark(truth, filled.hidden)
    whole = filled.observed[:, layers].all(dim=3).all(dim=2)
    marks = marks.where(whole | ~whole.any(), -torch.inf)
    n, position = divmod(int(marks.argmax()), len(layers))
    return _scene(filled, n, int(layers[position]))


def _scene(filled: Filled, n: int, k: int) -> Scene:
    gap = ~filled.observed[n, k].numpy()
    truth, hidden = filled.values[n, k].numpy(), filled.hidden[n, 0].numpy()
    made = {name: filled.fills[name][n, k].numpy() for name in ("MAE", "bilinear")}
    off = {name: np.square(each - truth)[hidden & ~gap] for name, each in made.items()}
    return Scene(
        window=n,
        layer=k,
        truth=np.where(gap, np.nan, truth),
        masked=np.where(gap | hidden, np.nan, truth),
        fills={
            name: np.where(gap, np.nan, np.where(hidden, each, truth))
            for name, each in made.items()
        },
        errors={
            name: float(each.mean() ** 0.5) if each.size else np.nan for name, each in off.items()
        },
    )


def _lines(truth: Tensor, hidden: Tensor) -> Tensor:
    """Mark windows by the depth of valleys, if these run in one direction: (N, C)."""
    depths = []
    for axis in (2, 3):
        size = truth.shape[axis] - 4
        before, own, after = (truth.narrow(axis, start, size) for start in (0, 2, 4))
        depth = (torch.minimum(before, after) - own).clamp(min=0)  # below cells two off
        depths.append(pad(depth, (0, 0, 2, 2) if axis == 2 else (2, 2)))
    straight, oblique = (part.sum(dim=(2, 3)) for part in _slopes(truth))
    down, right = (part.square().sum(dim=(2, 3)) for part in torch.gradient(truth, dim=(2, 3)))
    aligned = torch.hypot(straight, oblique) / (down + right).clamp(min=1e-9)  # 0: tangle, 1: line
    return _in_both(torch.maximum(*depths), hidden) * aligned


def _edges(truth: Tensor, hidden: Tensor) -> Tensor:
    """Mark windows by how steep they are across their main direction, and flat along it: (N, C)."""
    straight, oblique = _slopes(truth)
    # twice the angle of the steepest direction, that of the whole window
    angle = torch.atan2(*(part.sum(dim=(2, 3), keepdim=True) for part in (oblique, straight)))
    return _in_both(straight * angle.cos() + oblique * angle.sin(), hidden)


def _slopes(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared slopes that add up where directions agree: at 0 and 90, and at 45 degrees."""
    down, across = torch.gradient(truth, dim=(2, 3))
    return across**2 - down**2, 2 * across * down


def _highs(truth: Tensor, hidden: Tensor) -> Tensor:
    """Mark windows by the height that a visible cell and a hidden neighbour reach: (N, C)."""
    height = _smooth(truth) - truth.flatten(2).median(dim=2).values[:, :, None, None]
    marks = []
    for axis in (2, 3):
        size = truth.shape[axis] - 1
        low = torch.minimum(height.narrow(axis, 0, size), height.narrow(axis, 1, size))
        parts = hidden.narrow(axis, 0, size) ^ hidden.narrow(axis, 1, size)
        marks.append(low.where(parts, -torch.inf).amax(dim=(2, 3)))
    return torch.maximum(*marks)


def _bodies(truth: Tensor, hidden: Tensor) -> Tensor:
    """Mark windows by how far hidden cells rise or fall beyond all visible ones: (N, C)."""
    ends = [(sign * truth).masked_fill(hidden, -torch.inf).amax(dim=(2, 3)) for sign in (1, -1)]
    level = _smooth(truth)  # no single cells
    tops = [(sign * level).masked_fill(~hidden, -torch.inf).amax(dim=(2, 3)) for sign in (1, -1)]
    return torch.maximum(*(top - end for top, end in zip(tops, ends, strict=True)))


def _in_both(marks: Tensor, hidden: Tensor) -> Tensor:
    """Return the lower of the means over hidden and over visible cells: (N, C)."""
    parts = [(marks * part).sum(dim=(2, 3)) / part.sum(dim=(2, 3)) for part in (hidden, ~hidden)]
    return torch.minimum(*parts)


def _smooth(image: Tensor) -> Tensor:
    return avg_pool2d(image, 3, 1, 1, count_include_pad=False)


def varied(windows: Windows, index: np.ndarray, among: Sequence[int]) -> int:
    """Return which of some centres has the window that varies most, without gaps if any is.

    Parameters
    ----------
    windows : Windows
    index : array (n,) of int
        Numbers of centres.
    among : sequence of int
        Layers that count, by their mean standard deviation within the window.
    """
    values, observed = windows.gather(index)
    spread = values[:, among].std(dim=(2, 3)).mean(dim=1)
    whole = observed[:, among].flatten(1).all(dim=1)
    return int(index[spread.where(whole | ~whole.any(), -torch.inf).argmax()])


def surroundings(
    cube: xr.Dataset, scaling: Scaling, layer: str, row: int, col: int, *, reach: int
) -> xr.DataArray:
    """Return a standardised layer (y, x) about a cell, at most `reach` cells to each side.

    Its attributes `x` and `y` are the cell's own coordinates (m).

    Parameters
    ----------
    cube : Dataset
    scaling : Scaling
    layer : str
    row, col : int
        The cell.
    reach : int
    """
    near = {
        "y": slice(max(row - reach, 0), row + reach + 1),
        "x": slice(max(col - reach, 0), col + reach + 1),
    }
    part = apply_scaling(cube.isel(near), scaling)
    plane = part["evidence"].sel(layer=layer).where(part["valid"])
    plane = plane.rio.write_transform(plane.rio.transform(recalc=True)).compute()
    return plane.assign_attrs(x=float(cube["x"][col]), y=float(cube["y"][row]))
