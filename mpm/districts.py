"""Ground numbered by where deposits lie: bands of latitude, and districts."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import pyproj
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from mpm.dealing import cell_km, groups, whole

EARTH_KM = 6371.0
FEW = 0.25  # of an even share of the deposits: a smaller district is no test of its own
PLACE = ["x", "y", "z"]  # on a sphere, so that regions of different projections share distances


def latitude_bands(
    cubes: Sequence[xr.Dataset], targets: Sequence[str], *, bands: int
) -> list[np.ndarray]:
    """Number cells by bands of latitude with equal numbers of deposits, from south to north.

    Parameters
    ----------
    cubes : sequence of Dataset
        With `valid`, the targets' deposits and a CRS.
    targets : sequence of str
        The deposits of all targets and regions are counted together.
    bands : int

    Returns
    -------
    list of array (y, x)
        int, a region each, -1 where not valid. A cell belongs to the band that its centre lies in;
        touching deposits go where most of their cells lie.

    Raises
    ------
    ValueError
        If there is no deposit, or a cube has no CRS.

    Source: after Lawley et al. 2022, doi 10.1016/j.oregeorev.2021.104635, who take six groups.
    """
    latitude = positive_cells(cubes, targets).groupby("deposit")["latitude"].mean()
    edges = np.quantile(latitude, np.arange(1, bands) / bands)
    numbers = []
    for cube in cubes:
        number = np.full(cube["valid"].shape, -1)
        number[cube["valid"].values] = np.searchsorted(edges, _of_valid(cube)[1], side="right")
        numbers.append(whole(number, groups(cube, targets)))
    return numbers


def district_ground(
    cubes: Sequence[xr.Dataset], targets: Sequence[str], district: np.ndarray
) -> list[np.ndarray]:
    """Number cells by the district whose positive cells are nearest.

    Parameters
    ----------
    cubes, targets
        As for `latitude_bands`.
    district : array (n,) of int
        Of `find_districts`.

    Returns
    -------
    list of array (y, x)
        int, a region each, -1 where not valid. All ground belongs to a district, however far its
        deposits: what is not tested with one would be tested with none.

    Raises
    ------
    ValueError
        As `latitude_bands`.
    """
    cells = positive_cells(cubes, targets)
    tree, own = cKDTree(cells[PLACE]), district[cells["deposit"]]
    numbers = []
    for cube in cubes:
        number = np.full(cube["valid"].shape, -1)
        number[cube["valid"].values] = own[tree.query(_on_sphere(*_of_valid(cube)))[1]]
        numbers.append(number)
    return numbers


def check_apart(cubes: Sequence[xr.Dataset], dead_cells: int) -> None:
    """Raise if regions share ground, or lie so close that windows of one reach into another.

    Parameters
    ----------
    cubes : sequence of Dataset
        With `valid`; without a CRS nothing is checked.
    dead_cells : int
        Half a window and the label radius, in cells.

    Raises
    ------
    ValueError
        If valid cells of two regions lie within the dead zone: a split that holds out ground of one
        region would train on it, or beside it, in the other. The message says what to change.
    """
    if len(cubes) < 2 or any(cube.rio.crs is None for cube in cubes):
        return  # no other region, or nobody knows where they lie
    places = [_on_sphere(*_of_valid(cube)) for cube in cubes]
    for k, own in enumerate(places):
        for other in range(k):
            gap = (dead_cells + 1) * max(cell_km(cubes[k]), cell_km(cubes[other]))
            distance, _ = cKDTree(own).query(places[other], distance_upper_bound=gap)
            if (away := distance.min(initial=np.inf)) < gap:
                names = [cubes[i].attrs.get("region", f"number {i + 1}") for i in (other, k)]
                raise ValueError(
                    f"regions {' and '.join(names)} come within {away:.3g} km of each other, less "
                    f"than the dead zone of {gap:.3g} km, so that held-out ground of one would be "
                    "trained on in the other; make them one region, or move their bounds apart"
                )


def find_districts(
    cubes: Sequence[xr.Dataset], targets: Sequence[str], *, most: int, km: float, dead_km: float
) -> np.ndarray:
    """Number deposits by district: clusters of deposits that lie close to each other.

    Deposits closer than `km` are one district. The smallest district joins its nearest until there
    are at most `most`, all of which hold deposits of each target and at least a quarter of an even
    share of all deposits: scores of a fold with one deposit say nothing.

    Parameters
    ----------
    cubes, targets
        As for `latitude_bands`.
    most : int
        Districts.
    km : float
        0: the dead zone, as deposits closer than that hide each other in training anyway; if that
        makes fewer than three districts, the first of its half, quarter ... that makes three.
    dead_km : float
        Width of the dead zone (km).

    Returns
    -------
    array (n,)
        int, 0 and up; deposits in the order of `positive_cells`.

    Raises
    ------
    ValueError
        As `latitude_bands`.
    """
    deposits = positive_cells(cubes, targets).groupby("deposit").mean()
    apart = cdist(deposits[PLACE], deposits[PLACE])  # between their middles
    smallest = min(cell_km(cube) for cube in cubes)
    widths = [km or max(dead_km, smallest)]
    while not km and widths[-1] / 2 >= smallest:
        widths.append(widths[-1] / 2)
    target, group = (deposits[name].to_numpy().astype(int) for name in ("target", "group"))
    for width in widths:
        district = _merge(_clusters(group, apart, width), target, apart, most)
        if district.max() >= 2:
            break
    return district


def positive_cells(cubes: Sequence[xr.Dataset], targets: Sequence[str]) -> pd.DataFrame:
    """List the cells of all deposits, region by region and target by target.

    Returns
    -------
    DataFrame
        deposit (0 and up over all regions and targets), target (its number), group (deposits that
        touch share it, and never part), latitude (degrees), x, y, z (on a sphere, km).

    Raises
    ------
    ValueError
        If there is none, or a cube has no CRS.
    """
    tables, deposits, touching = [], 0, 0
    for cube in cubes:
        group = groups(cube, targets)
        for t, target in enumerate(targets):
            number = cube[f"{target}_deposit"].values
            rows, cols = np.nonzero(number >= 0)
            found, own = np.unique(number[rows, cols], return_inverse=True)
            degrees = _degrees(cube, cube["x"].values[cols], cube["y"].values[rows])
            table = pd.DataFrame(_on_sphere(*degrees), columns=PLACE)
            labels = {"deposit": deposits + own, "target": t, "latitude": degrees[1]}
            tables.append(table.assign(**labels, group=touching + group[rows, cols]))
            deposits += len(found)
        touching += int(group.max()) + 1
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise ValueError(
            f"there is no deposit of {' or '.join(targets)} to draw bands or districts by; use "
            "split 'blocks'"
        )
    return table


def _clusters(group: np.ndarray, apart: np.ndarray, km: float) -> np.ndarray:
    """Number deposits that are linked by steps shorter than `km`, or touch: (n,)."""
    one, other = np.nonzero((apart < km) | (group[:, None] == group))
    graph = coo_array((np.ones(len(one)), (one, other)), shape=apart.shape)
    return connected_components(graph, directed=False)[1]


def _merge(district: np.ndarray, target: np.ndarray, apart: np.ndarray, most: int) -> np.ndarray:
    """Join small districts with their nearest, as `find_districts` says: (n,)."""
    there = np.unique(target)
    while True:
        numbers, own = np.unique(district, return_inverse=True)
        counts = np.zeros((len(numbers), target.max() + 1))
        np.add.at(counts, (own, target), 1)
        total = counts.sum(axis=1)
        few = (total < FEW * len(district) / most) | (counts[:, there] == 0).any(axis=1)
        chosen = np.flatnonzero(few | (len(numbers) > most))
        if not len(chosen) or len(numbers) == 1:
            return pd.factorize(district)[0]  # numbered in the order of their first deposits
        joins = own == chosen[total[chosen].argmin()]
        nearest = apart[joins][:, ~joins].min(axis=0).argmin()
        district = np.where(joins, district[~joins][nearest], district)


def _of_valid(cube: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude (degrees) of a cube's valid cells, (cells,) each."""
    rows, cols = np.nonzero(cube["valid"].values)
    return _degrees(cube, cube["x"].values[cols], cube["y"].values[rows])


def _degrees(cube: xr.Dataset, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if cube.rio.crs is None:
        raise ValueError(
            f"the cube of {cube.attrs.get('region', 'a region')} has no CRS, so that its latitudes "
            "are unknown; call .rio.write_crs() on it"
        )
    return _to_degrees(cube.rio.crs.to_wkt()).transform(x, y)


@lru_cache(maxsize=32)
def _to_degrees(crs: str) -> pyproj.Transformer:
    """Make a transformer once: that takes longer than to transform a region's cells."""
    return pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def _on_sphere(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Place degrees on a sphere of the Earth's size: (n, 3) in km."""
    east, north = np.radians(longitude), np.radians(latitude)
    level = [np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)]
    return EARTH_KM * np.stack(level, axis=1)
