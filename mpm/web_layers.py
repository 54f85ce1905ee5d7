"""What the web map carries of each region: layers in 8 bits, leading layers, longitudes."""

from dataclasses import asdict, dataclass

import numpy as np
import pyproj
import xarray as xr
from affine import Affine

from mpm import map_styles, targets
from mpm.plots import readable, readable_units

CUT = (0.001, 0.999)  # quantiles beyond which values share the first or last code
SHOWN = (0.02, 0.98)  # quantiles at the ends of an evidence layer's colours
NODES = 64  # intervals along a side between which longitude and latitude run in straight lines
LINES = 6  # meridians or parallels that a map should have, about


@dataclass(frozen=True)
class Coded:
    """One layer in 8 bits: 0 is missing, code c stands for low + (c - 1) * step.

    Attributes
    ----------
    codes : array (y, x) of uint8
        From the south up, as Bokeh draws them.
    low, step : float
        In `units`.
    cut_low, cut_high : bool
        Whether the first or the last code also stands for values beyond.
    """

    codes: np.ndarray
    low: float
    step: float
    cut_low: bool
    cut_high: bool

    def facts(self) -> dict:
        """Return all but the codes."""
        return {key: value for key, value in asdict(self).items() if key != "codes"}

    def values(self) -> np.ndarray:
        """Return what the codes stand for (y, x), NaN where missing."""
        return np.where(self.codes > 0, self.low + (self.codes - 1.0) * self.step, np.nan)


def coarse(grid: xr.Dataset, cells: int) -> xr.Dataset:
    """Average a dataset so that no side has more cells than a number; NaN stays out of the mean.

    The grid keeps its north-west corner; cells at its other edges may reach beyond it.
    """
    factor = -(-max(grid.sizes["y"], grid.sizes["x"]) // cells)
    if factor <= 1:
        return grid
    numbers = grid[[name for name in grid.data_vars if grid[name].dtype.kind == "f"]]
    means = numbers.coarsen(y=factor, x=factor, boundary="pad").mean()
    fine = grid.rio.transform()
    transform = Affine(fine.a * factor, 0, fine.c, 0, fine.e * factor, fine.f)
    return means.rio.write_crs(grid.rio.crs).rio.write_transform(transform)


def coded(plane: np.ndarray, *, binary: bool = False) -> Coded:
    """Put a layer into 8 bits.

    Parameters
    ----------
    plane : array (y, x)
        From the north down, NaN where missing.
    binary : bool
        Whether it holds shares of a yes, 0 to 1.
    """
    seen = plane[np.isfinite(plane)]
    low, high, least, most = 0.0, 1.0, 0.0, 1.0
    if seen.size and not binary:
        low, high = (float(value) for value in np.quantile(seen, CUT))
        least, most = float(seen.min()), float(seen.max())
    step = (high - low) / 254 or 1.0
    with np.errstate(invalid="ignore"):
        codes = 1 + np.clip(np.round((plane - low) / step), 0, 254)
    codes = np.nan_to_num(codes).astype("uint8")[::-1]
    return Coded(codes, low, step, bool(least < low - step / 2), bool(most > high + step / 2))


def packed(codes: np.ndarray) -> np.ndarray:
    """Return differences of codes (y, x) along rows, then columns; they wrap, and pack better."""
    nothing = codes.dtype.type(0)
    return np.diff(np.diff(codes, axis=1, prepend=nothing), axis=0, prepend=nothing)


def evidence(cube: xr.Dataset) -> dict[str, tuple[Coded, dict]]:
    """Put all evidence into 8 bits, in the units that a reader would have.

    Parameters
    ----------
    cube : Dataset
        `evidence (layer, y, x)`.

    Returns
    -------
    dict
        By "evidence_<k>": the layer, and its facts for the page: name, title (with units), units,
        binary, of (the layer whose class it is, else empty), group, palette, from and to (ends of
        the colours).
    """
    found = {}
    for k, plane in enumerate(cube["evidence"]):
        name, binary = str(plane["layer"].item()), str(plane["kind"].item()) == "binary"
        divisor, units = readable_units(str(plane["units"].item()), plane.values)
        layer = coded(plane.values / divisor, binary=binary)
        units = "yes or no" if binary else units
        seen = plane.values[np.isfinite(plane.values)] / divisor
        low, high = np.quantile(seen, SHOWN) if seen.size and not binary else (0.0, 1.0)
        found[f"evidence_{k}"] = (
            layer,
            layer.facts()
            | {
                "name": readable(name),
                "title": f"{readable(name)} ({units})",
                "units": "1" if units in ("share", "no units") else units,
                "binary": binary,
                "of": name.split("=")[0] if "=" in name else "",
                "group": str(plane["group"].item()),
                "palette": "cividis",
                "from": float(low),
                "to": float(max(high, low + layer.step)),
            },
        )
    return found


def maps(result: xr.Dataset, ranges: dict[str, tuple[float, float]]) -> dict:
    """Put the maps (y, x) of a region into 8 bits, as `evidence` does; `ranges` of the colours."""
    found = {}
    for name, (low, high) in ranges.items():
        layer = coded(result[name].values)
        cmap, units = map_styles.LOOKS[name]
        title = name if units == name else f"{readable(name)} ({units})"
        found[name] = (
            layer,
            layer.facts()
            | {
                "name": readable(name),
                "title": f"{title} (1)" if units == name else title,
                "units": "1",
                "binary": False,
                "palette": cmap,
                "from": low,
                "to": high,
            },
        )
    return found


def leading(
    result: xr.Dataset, cube: xr.Dataset, count: int
) -> tuple[dict[str, np.ndarray], list[str], float]:
    """Find the layers that move each cell's score most, either way.

    Parameters
    ----------
    result : Dataset
        With `attribution (layer, y, x)`, or without.
    cube : Dataset
    count : int
        How many.

    Returns
    -------
    planes : dict of array (y, x) of uint8, from the south up
        "leading_<k>": number of the layer, 1 and up, 0 where none is known; "contribution_<k>":
        128 + 127 * contribution / largest.
    names : list of str
        Of the layers.
    largest : float
        Largest size of a contribution.
    """
    shape = result["likelihood"].shape
    planes = {f"leading_{k}": np.zeros(shape, "uint8") for k in range(count)}
    planes |= {f"contribution_{k}": np.full(shape, 128, "uint8") for k in range(count)}
    spoken = targets.by_origin(result, cube)
    if spoken is None:
        return planes, [], 1.0
    values = spoken.values
    explained = np.isfinite(values).all(axis=0)
    own = values[:, explained]
    largest = float(np.abs(own).max(initial=0)) or 1.0
    order = np.argsort(-np.abs(own), axis=0, kind="stable")[:count]
    for k, number in enumerate(order):
        parts = np.take_along_axis(own, number[None], axis=0)[0]
        planes[f"leading_{k}"][explained] = number + 1
        planes[f"contribution_{k}"][explained] = 128 + np.round(127 * parts / largest)
    names = [readable(name) for name in spoken["layer"].values]
    return {name: plane[::-1] for name, plane in planes.items()}, names, largest


def nodes(grid: xr.Dataset) -> dict:
    """Return longitude and latitude at nodes over a grid, from the south-west corner.

    Returns
    -------
    dict
        longitude (degrees, without jumps at the date line) and latitude, row by row, None where the
        projection has no such place; step (km) east and north; rows, columns.
    """
    west, south, east, north = grid.rio.bounds()
    x, y = np.linspace(west, east, NODES + 1), np.linspace(south, north, NODES + 1)
    there = pyproj.Transformer.from_crs(grid.rio.crs, "EPSG:4326", always_xy=True)
    longitude, latitude = there.transform(*np.meshgrid(x, y))
    middle = longitude[NODES // 2, NODES // 2]
    with np.errstate(invalid="ignore"):
        longitude = middle + (longitude - middle + 180) % 360 - 180
    return {
        "longitude": _listed(longitude),
        "latitude": _listed(latitude),
        "step": [(east - west) / NODES / 1e3, (north - south) / NODES / 1e3],
        "rows": NODES + 1,
        "columns": NODES + 1,
    }


def _listed(values: np.ndarray) -> list[float | None]:
    """Rounded, for JSON; None where the projection has no such place."""
    return [round(value, 4) if np.isfinite(value) else None for value in values.ravel().tolist()]


def graticule(grid: xr.Dataset) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return meridians and parallels over a grid: name, x and y (n,) in km, NaN outside it."""
    found = nodes(grid)
    west, south, east, north = grid.rio.bounds()
    from_degrees = pyproj.Transformer.from_crs("EPSG:4326", grid.rio.crs, always_xy=True)
    lines = []
    longitude, latitude = (
        np.array([value for value in found[name] if value is not None])
        for name in ("longitude", "latitude")
    )
    for values, other, signs in ((longitude, latitude, "EW"), (latitude, longitude, "NS")):
        step = min((1, 2, 5, 10, 15, 30), key=lambda each: abs(np.ptp(values) / each - LINES))
        along = np.linspace(other.min(), other.max(), 400)
        for degree in np.arange(np.ceil(values.min() / step) * step, values.max(), step):
            place = (np.full(400, degree), along) if signs == "EW" else (along, [degree] * 400)
            x, y = (np.asarray(axis) for axis in from_degrees.transform(*place))
            inside = (x > west) & (x < east) & (y > south) & (y < north)
            if inside.any():
                turned = (degree + 180) % 360 - 180 if signs == "EW" else degree
                side = "" if turned in (0, -180) else f" {signs[int(turned < 0)]}"
                name = f"{abs(turned):g}°{side}"
                x, y = (np.where(inside, axis / 1e3, np.nan) for axis in (x, y))
                lines.append((name, x, y))
    return lines
