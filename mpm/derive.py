"""Layers computed from other layers: gradients, the ridges of gradients, regional means taken off.

All work on a plane (y, x) in its units, rows from north to south, cells of `step` metres. A cell
whose neighbours are missing is missing: nothing is filled in. Distances are those of the map.
"""

from collections.abc import Callable

import numpy as np
from scipy.fft import fft2, fftfreq, ifft2
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

SMOOTH = ("hgm", "slope", "worms", "vertical")  # those of a surface without creases
QUANTILE = 0.75  # of the gradient; weaker ridges are not counted
_SEEN_FROM = 50  # cells: how far outside the region ridges are looked for
_TAPER = 40  # cells around the region that the vertical derivative fades out in


def margin(name: str, step: float, reach: float | None = None) -> int:
    """Return how many cells beyond the region's rim a derived layer needs of its parent.

    Parameters
    ----------
    name : {"hgm", "slope", "worms", "highpass", "vertical"}
    step : float
        Cell size (m).
    reach : float, optional
        For "highpass", m.
    """
    cells = {"hgm": 1, "slope": 1, "worms": _SEEN_FROM + 2, "vertical": _TAPER}
    return cells[name] if reach is None else int(reach / step) + 1


def method(name: str, reach: float | None = None) -> str:
    """Say how a layer is derived; `name` and `reach` as for `margin`."""
    return _METHODS[name][1].format(km=(reach or 0) / 1000)


def compute(name: str, values: np.ndarray, step: float, reach: float | None = None) -> np.ndarray:
    """Compute a derived layer.

    Parameters
    ----------
    name, step, reach
        As for `margin`.
    values : array (y, x)
        The parent, NaN where missing, with the margin around it.

    Returns
    -------
    array (y, x)
        With the margin.

    Raises
    ------
    ValueError
        If the parent has no ridges, or gaps where none may be.
    """
    return _METHODS[name][0](np.asarray(values, "float64"), step, reach)


def gradient(values: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the slopes to the east and to the north, by central differences.

    Parameters
    ----------
    values : array (y, x)
    step : float
        Cell size, in the unit of length that the slopes are wanted in.

    Returns
    -------
    east, north : array (y, x)
        NaN where the cell or one of its four neighbours is missing, and along the rim.
    """
    east, north = np.full((2, *values.shape), np.nan)
    inner = values[1:-1, 1:-1]
    east[1:-1, 1:-1] = (values[1:-1, 2:] - values[1:-1, :-2]) / (2 * step)
    north[1:-1, 1:-1] = (values[:-2, 1:-1] - values[2:, 1:-1]) / (2 * step)
    missing = np.isnan(values)
    missing[1:-1, 1:-1] |= np.isnan(inner + east[1:-1, 1:-1] + north[1:-1, 1:-1])
    return np.where(missing, np.nan, east), np.where(missing, np.nan, north)


def ridges(values: np.ndarray, quantile: float = QUANTILE) -> np.ndarray:
    """Find where the horizontal gradient is largest across itself, finer than a cell.

    Of four lines through a cell (two along the grid, two diagonals) the one nearest to the
    gradient's direction is taken. If the cell's magnitude exceeds that of both neighbours on it,
    a parabola through the three places the ridge between them.

    Parameters
    ----------
    values : array (y, x)
    quantile : float
        Of the magnitude; weaker ridges are left out.

    Returns
    -------
    array (ridge, 2)
        Row and column, 0 at the first cell's centre.

    Source: Blakely and Simpson 1986, doi:10.1190/1.1442197, who test all four lines.
    """
    east, north = gradient(values, 1.0)
    magnitude = np.hypot(east, north)
    if not np.isfinite(magnitude).any():
        return np.zeros((0, 2))
    floor = np.nanquantile(magnitude, quantile)
    rows, columns = np.nonzero(magnitude[1:-1, 1:-1] > floor)
    rows, columns = rows + 1, columns + 1
    octant = np.round(np.arctan2(north[rows, columns], east[rows, columns]) / (np.pi / 4))
    down, right = np.array([[0, 1], [-1, 1], [-1, 0], [-1, -1]])[octant.astype(int) % 4].T
    here = magnitude[rows, columns]
    before, after = magnitude[rows - down, columns - right], magnitude[rows + down, columns + right]
    top = (here > before) & (here >= after)  # of two equal cells one; NaN is never a neighbour
    bend = (before - 2 * here + after)[top]
    shift = 0.5 * (before - after)[top] / bend
    return np.stack([rows[top] + shift * down[top], columns[top] + shift * right[top]], axis=1)


def _hgm(values: np.ndarray, step: float, _reach: float | None) -> np.ndarray:
    return np.hypot(*gradient(values, step / 1000))


def _slope(values: np.ndarray, step: float, _reach: float | None) -> np.ndarray:
    return np.hypot(*gradient(values, step))


def _worms(values: np.ndarray, step: float, _reach: float | None) -> np.ndarray:
    """Distance (m) from each cell's centre to the nearest ridge of the horizontal gradient."""
    found = ridges(values)
    if not len(found):
        raise ValueError("its horizontal gradient has no ridge")
    centres = np.indices(values.shape).reshape(2, -1).T
    away = cKDTree(found).query(centres)[0].reshape(values.shape) * step
    return np.where(np.isnan(gradient(values, step)[0]), np.nan, away)


def _highpass(values: np.ndarray, step: float, reach: float) -> np.ndarray:
    """Take off the mean within a circle, of which half must be observed."""
    side = np.arange(-int(reach / step), int(reach / step) + 1) * step
    circle = (np.hypot(side[:, None], side) <= reach).astype("float64")
    seen = np.isfinite(values)
    level = values[seen].mean() if seen.any() else 0.0  # keeps rounding small
    total = fftconvolve(np.where(seen, values - level, 0), circle, mode="same")
    count = np.round(fftconvolve(seen.astype("float64"), circle, mode="same"))
    mean = level + total / np.maximum(count, 1)
    return np.where(seen & (count >= circle.sum() / 2), values - mean, np.nan)


def _vertical(values: np.ndarray, step: float, _reach: float | None) -> np.ndarray:
    """Rate of change per km downwards of a potential field: |k| times its spectrum.

    The spectrum knows no gaps, so there may be none. Over the margin the field fades to a plane.

    Source: Blakely 1995, Potential Theory in Gravity and Magnetic Applications, section 12.2.
    """
    if np.isnan(values).any():
        raise ValueError("the vertical derivative needs a parent without gaps in and around it")
    rows, columns = np.indices(values.shape).reshape(2, -1)
    plane = np.stack([rows, columns, np.ones_like(rows)], axis=1).astype("float64")
    trend = plane @ np.linalg.lstsq(plane, values.ravel(), rcond=None)[0]
    fades = [_fade(size) for size in values.shape]
    rest = (values - trend.reshape(values.shape)) * np.outer(*fades)
    waves = [2 * np.pi * fftfreq(size, step / 1000) for size in values.shape]
    wavenumber = np.hypot(waves[0][:, None], waves[1])
    return ifft2(wavenumber * fft2(rest)).real


def _fade(size: int) -> np.ndarray:
    """From 0 at both ends to 1 inside the margin, along half a cosine."""
    away = np.minimum(np.arange(size), np.arange(size)[::-1])
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(away / _TAPER, 0, 1))


_METHODS: dict[str, tuple[Callable, str]] = {
    "hgm": (_hgm, "horizontal gradient, central differences"),
    "slope": (_slope, "slope, central differences"),
    "worms": (
        _worms,
        f"distance to ridges of the upper {1 - QUANTILE:.0%} of the horizontal gradient",
    ),
    "highpass": (_highpass, "less its mean within {km:g} km"),
    "vertical": (_vertical, "vertical derivative, by Fourier transform"),
}
