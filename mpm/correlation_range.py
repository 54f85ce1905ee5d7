"""How far apart cells must lie to differ: the correlation range of layers, to judge blocks by."""

import math

import numpy as np
import pandas as pd
import xarray as xr
from scipy.sparse import csr_array
from scipy.spatial.distance import pdist
from scipy.stats import rankdata

FALLEN = 1 / math.e  # a correlation below this is taken as gone, as in an exponential model
FEWEST = 50  # pairs of cells at one distance, below which nothing is said about it


def of_layers(
    cubes: dict[str, xr.Dataset], *, cells: int = 2000, lags: int = 16, seed: int = 0
) -> pd.DataFrame:
    """Measure at which distance the values of each continuous layer cease to be alike.

    The correlation of a layer with itself at a distance is that of its values' ranks (a few
    extremes decide nothing) over all pairs of sampled cells about as far apart, their mean being
    that of the region; classes of distance widen by a constant factor, up to half of the extent.

    Parameters
    ----------
    cubes : dict of Dataset
        By region, unscaled or scaled; layers of zeros and ones are left out.
    cells : int
        Valid cells sampled in each region.
    lags : int
        Classes of distance.
    seed : int
        Of the sample.

    Returns
    -------
    DataFrame
        A row a region and layer: region, layer, range_km (where the correlation, joined by lines
        from 1 at distance 0, first falls below 1/e; infinite if it does not within half of the
        extent, NaN for a constant layer), lags and correlations (arrays: mean distance of a class
        in km, and the correlation there; classes of fewer than 50 pairs are left out).
    """
    rows = []
    for region, cube in cubes.items():
        places, values = _sample(cube, cells, seed)
        layers = cube["layer"].values[cube["kind"].values == "continuous"]
        at, correlations = _correlograms(places, values, lags)
        for name, found in zip(layers, correlations.T, strict=True):
            there = np.isfinite(found)
            curve = {"lags": at[there], "correlations": found[there]}
            row = {"region": region, "layer": str(name), "range_km": _range(**curve)}
            rows.append(row | curve)
    return pd.DataFrame(rows)


def finding(ranges: pd.DataFrame, block_km: float) -> str:
    """Say in a sentence or two whether blocks of a side (km) are as large as layers' ranges.

    Parameters
    ----------
    ranges : DataFrame
        Of `of_layers`.
    block_km : float
    """
    longest = ranges.dropna(subset="range_km").groupby("layer", sort=False)["range_km"].max()
    if longest.empty:
        return "no continuous layer varies, so none says how large a block should be"
    beyond = longest[longest > block_km]
    middle = longest.median()
    said = f"{middle:.0f} km" if np.isfinite(middle) else "more than half of the region's extent"
    text = (
        f"half of the {len(longest)} continuous layers lose their correlation (below 1/e) within "
        f"{said}; blocks are {block_km:g} km wide"
    )
    if beyond.empty:
        return f"{text}, wider than the range of every layer."
    names = beyond.sort_values(ascending=False, kind="stable").index[:3]
    text += f", and {len(beyond)} layers stay correlated beyond that, first of all "
    text += ", ".join(f"{name} ({_length(beyond[name])})" for name in names) + "."
    if len(beyond) > len(longest) / 2:
        text += (
            " Test cells still resemble the nearest training cells in most layers: scores under "
            "these blocks tell of ground near the known, and new regions may score lower."
        )
    return text


def _length(km: float) -> str:
    return f"{km:.0f} km" if np.isfinite(km) else "no end found"


def _sample(cube: xr.Dataset, cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw valid cells: their places (n, 2) in km, and continuous evidence (n, layers)."""
    rows, cols = np.nonzero(cube["valid"].values)
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(len(rows), min(cells, len(rows)), replace=False))
    rows, cols = rows[drawn], cols[drawn]
    places = np.stack([cube["x"].values[cols], cube["y"].values[rows]], axis=1) / 1000
    kept = np.flatnonzero(cube["kind"].values == "continuous")
    # a plane at a time: a continent's cube on disk need not fit in memory
    planes = [cube["evidence"].isel(layer=k).transpose("y", "x").values[rows, cols] for k in kept]
    return places, np.array(planes, "float64").reshape(len(kept), len(rows)).T


def _correlograms(
    places: np.ndarray, values: np.ndarray, lags: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean distances (lags,) and correlations (lags, layers), NaN where pairs are few."""
    ranks = rankdata(values, axis=0, nan_policy="omit")
    spread = np.nanstd(ranks, axis=0)
    scores = (ranks - np.nanmean(ranks, axis=0)) / np.where(spread > 0, spread, np.nan)
    seen = np.isfinite(scores).astype("float64")
    scores = np.where(seen > 0, scores, 0.0)
    apart = pdist(places)
    first, second = np.triu_indices(len(places), 1)
    edges = np.geomspace(apart.min(), np.ptp(places, axis=0).max() / 2, lags + 1)
    number = np.searchsorted(edges, apart, side="right") - 1
    at, found = np.full(lags, np.nan), np.full((lags, values.shape[1]), np.nan)
    for lag in range(lags):
        of = np.flatnonzero(number == lag)
        if len(of) < FEWEST:
            continue
        pairs = csr_array((np.ones(len(of)), (first[of], second[of])), shape=(len(places),) * 2)
        # sums over pairs, for all layers at once
        counts = (seen * (pairs @ seen)).sum(axis=0)
        products = (scores * (pairs @ scores)).sum(axis=0)
        # of both cells of each pair, so that no correlation exceeds 1
        squares = (scores**2 * (pairs @ seen) + seen * (pairs @ scores**2)).sum(axis=0) / 2
        at[lag] = apart[of].mean()
        enough = (counts >= FEWEST) & (squares > 0)
        found[lag] = np.divide(products, squares, where=enough, out=found[lag])
    return at, found


def _range(lags: np.ndarray, correlations: np.ndarray) -> float:
    """Return the distance (km) at which a correlation, 1 at distance 0, first falls below 1/e."""
    if not len(lags):
        return np.nan
    below = np.flatnonzero(correlations < FALLEN)
    if not len(below):
        return np.inf
    distances, values = np.append(0.0, lags), np.append(1.0, correlations)
    k = below[0]  # the last above is at k, the first below at k + 1
    share = (values[k] - FALLEN) / (values[k] - values[k + 1])
    return float(distances[k] + share * (distances[k + 1] - distances[k]))
