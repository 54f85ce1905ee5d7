"""The files of the tutorial: a region as somebody might bring it, made by a seed.

A basin margin strikes north-west. Along its hinge lie faults and a belt of carbonate, and zinc-lead
deposits sit where faults cut the carbonate. Nothing of it is real but the place in a
projection. Files come as such files do: three rasters of three projections and resolutions, one
with a gap, faults as a shapefile, deposits as a table with a row too far away and a repeated one.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import rasterio
from affine import Affine
from rasterio.warp import transform_bounds
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from shapely.geometry import LineString, Point

from mpm import align, artefacts, doctor
from mpm.study import load

CRS = "EPSG:32633"
BOUNDS = (400_000, 4_950_000, 600_000, 5_150_000)  # west, south, east, north (m) of the region
MARGIN = 40_000  # files reach so far beyond it (m)
STEP = 1000  # of the grid on which the ground is made (m)
ROCKS = {1: "sandstone", 2: "carbonate", 3: "shale", 4: "granite"}
DEPOSITS, VEINS = 40, 8  # known ones of two types: MVT, and veins about the granite
SPACING = 4000  # m, the least between two deposits


def write(folder: Path, *, seed: int) -> None:
    """Write `gravity.tif`, `magnetics.tif`, `rocks.tif`, `faults.shp` and `deposits.csv`.

    Parameters
    ----------
    folder : Path
        It need not exist; files of these names are replaced.
    seed : int
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    faults = _faults(rng)
    ground = _ground(rng, faults)
    far: dict[str, Any] = {"nodata": -99999.0, "gap": True}
    _raster(folder / "gravity.tif", ground["gravity"], "EPSG:4326", 0.03, "float32")
    _raster(folder / "magnetics.tif", ground["magnetics"], "EPSG:3035", 1000, "float32", **far)
    _raster(folder / "rocks.tif", ground["rock"], "EPSG:32632", 700, "uint8", order=0, nodata=0)
    lines = gpd.GeoDataFrame({"name": [f"F{k + 1}" for k in range(len(faults))]}, geometry=faults)
    lines.set_crs(CRS).to_crs("EPSG:4258").to_file(folder / "faults.shp")
    _table(rng, ground).to_csv(folder / "deposits.csv", index=False)


def spoil(folder: Path) -> None:
    """Write copies of the files with a fault that is met often.

    `magnetics_bare.tif` does not say its CRS. `gravity_9999.tif` has -9999 where nothing was
    measured and does not say that this means nothing. `workings.shp` holds old workings, which are
    where deposits were found.
    """
    with rasterio.open(folder / "magnetics.tif") as source:
        values, profile = source.read(), source.profile
    with rasterio.open(folder / "magnetics_bare.tif", "w", **profile | {"crs": None}) as target:
        target.write(values)
    with rasterio.open(folder / "gravity.tif") as source:
        values, profile = source.read(), source.profile
    values[:, :, : values.shape[2] // 4] = -9999
    with rasterio.open(folder / "gravity_9999.tif", "w", **profile) as target:
        target.write(values)
    known = pd.read_csv(folder / "deposits.csv")
    places = gpd.points_from_xy(known["longitude"], known["latitude"], crs="EPSG:4326")
    gpd.GeoDataFrame({"name": known["name"]}, geometry=places).to_file(folder / "workings.shp")


def fresh_folder(name: str) -> Path:
    """Empty the tutorial's folder below `data/processed` and return it; it need not exist.

    Raises
    ------
    FileExistsError
        If there is something in it that is not the tutorial's.
    """
    folder = artefacts.processed(name)
    if folder.exists() and any(folder.iterdir()) and not (folder / f"{name}.yaml").exists():
        raise FileExistsError(
            f"{folder} holds results of a study that is not the tutorial's; give the tutorial "
            "another name, by its parameter `study`"
        )
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def mistake(path: Path, old: str, new: str, *, usual: Sequence[str] = ()) -> str:
    """Return what `mpm check` says of a study file in which some words are exchanged.

    Parameters
    ----------
    path : Path
        Of the study file; the changed copy lies beside it.
    old, new : str
    usual : sequence of str
        Notes on the file as it is, which are left out.

    Returns
    -------
    str
        The message, or a line a note; the study's folder is written as "...".

    Raises
    ------
    ValueError
        If `old` is not in the file once, or nothing new is said.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{path} says {old!r} {text.count(old)} times; exchange what it says once")
    changed = path.with_name("mistake.yaml")
    artefacts.write_text(changed, text.replace(old, new))
    try:
        project = load(str(changed))
        lines = align.remarks(project, align.check(project)) + doctor.notes(project)
        said = "\n".join(f"note: {line}" for line in lines if line not in usual)
    except (ValueError, OSError) as error:
        said = f"error: {error}"
    if not said:
        raise ValueError(f"nothing is said of {new!r} in {changed}; exchange something else")
    return said.replace(str(path.parent), "...")


# How the ground is made


def _axes() -> tuple[np.ndarray, np.ndarray]:
    """Return x (columns) and y (rows, north first) of the ground's points (m)."""
    west, south, east, north = BOUNDS
    x = np.arange(west - MARGIN, east + MARGIN, STEP) + STEP / 2
    return x, np.arange(north + MARGIN, south - MARGIN, -STEP) - STEP / 2


def _basinward(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the way (m) from the hinge into the basin, which lies in the north-east."""
    west, south, east, north = BOUNDS
    return ((x - (west + east) / 2) + (y - (south + north) / 2)) / 2**0.5


def _faults(rng: np.random.Generator) -> list[LineString]:
    """Draw faults along the hinge, and a few across it."""
    west, south, east, north = BOUNDS
    middle = np.array([(west + east) / 2, (south + north) / 2])
    along, across = np.array([-1, 1]) / 2**0.5, np.array([1, 1]) / 2**0.5
    faults = []
    for k in range(16):
        runs, steps = (along, across) if k < 11 else (across, along)
        offset = rng.uniform(-95e3, 95e3) * runs + rng.normal(0, 28e3 if k < 11 else 60e3) * steps
        reach = np.linspace(-1, 1, 9) * rng.uniform(15e3, 40e3)
        bend = np.cumsum(rng.normal(0, 1200, 9))
        faults.append(LineString(middle + offset + reach[:, None] * runs + bend[:, None] * steps))
    return faults


def _ground(rng: np.random.Generator, faults: list[LineString]) -> dict[str, np.ndarray]:
    """Make the ground: planes (y, x) by name."""
    x, y = np.meshgrid(*_axes())
    way = _basinward(x, y) + 12e3 * _noise(rng, x.shape, 18)
    depth = 2.5 + 2 * np.tanh(way / 30e3) + 0.25 * _noise(rng, x.shape, 8)  # of basement, km
    granite = _noise(rng, x.shape, 14) - way / 60e3
    rock = np.select([granite > 2.2, way < -28e3, way < 12e3], [4, 1, 2], 3)
    from_fault = STEP * distance_transform_edt(~_burnt(faults, x.shape))
    gravity = 35 - 16 * depth - 10 * (rock == 4) + 1.5 * _noise(rng, x.shape, 3)
    magnetics = 90 * gaussian_filter(1.0 * (rock == 4), 4) + 25 * _noise(rng, x.shape, 6)
    likely = np.exp(-from_fault / 3e3) * (0.03 + (rock == 2)) * np.exp(-((depth - 2.3) ** 2))
    vein = np.exp(-from_fault / 5e3) * (rock == 4)
    names = ("gravity", "magnetics", "rock", "likely", "vein")
    return dict(zip(names, (gravity, magnetics, rock, likely, vein), strict=True))


def _noise(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> np.ndarray:
    """Draw a smooth field of mean 0 and spread 1 that changes over so many cells."""
    field = gaussian_filter(rng.normal(size=shape), cells, mode="wrap")
    return (field - field.mean()) / field.std()


def _burnt(faults: list[LineString], shape: tuple[int, int]) -> np.ndarray:
    """Return the cells (y, x) that a fault runs through."""
    x, y = _axes()
    cells = np.zeros(shape, bool)
    for fault in faults:
        points = np.array(
            [fault.interpolate(d).coords[0] for d in np.arange(0, fault.length, STEP / 2)]
        )
        col = ((points[:, 0] - x[0]) / STEP).round().astype(int)
        row = ((y[0] - points[:, 1]) / STEP).round().astype(int)
        there = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
        cells[row[there], col[there]] = True
    return cells


def _sites(rng: np.random.Generator, chance: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Draw places (m) inside the region, likelier ones more often, none close to another."""
    x, y = np.meshgrid(*_axes())
    west, south, east, north = BOUNDS
    inside = (x > west + STEP) & (x < east - STEP) & (y > south + STEP) & (y < north - STEP)
    weight = np.where(inside, chance, 0).ravel()
    drawn = rng.choice(x.size, 20 * count, replace=False, p=weight / weight.sum())
    sites: list[tuple[float, float]] = []
    for k in drawn:
        place = (x.flat[k], y.flat[k])
        if all(Point(place).distance(Point(other)) >= SPACING for other in sites):
            sites.append(place)
        if len(sites) == count:
            break
    return sites


def _table(rng: np.random.Generator, ground: dict[str, np.ndarray]) -> pd.DataFrame:
    """Draw the known deposits; the last two rows are a repetition and one far away."""
    sites = _sites(rng, ground["likely"], DEPOSITS)
    veins = _sites(rng, ground["vein"], VEINS)
    there = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    longitude, latitude = there.transform(*np.transpose([*sites, *veins, sites[0], (9e5, 54e5)]))
    count = len(sites) + len(veins)
    names = [f"D{k + 1}" for k in range(count)] + ["D1 (north shaft)", "Faraway"]
    types = ["MVT"] * len(sites) + ["vein"] * len(veins) + ["MVT", "MVT"]
    rows = {"name": names, "type": types}
    return pd.DataFrame(rows | {"longitude": longitude.round(5), "latitude": latitude.round(5)})


def _raster(
    path: Path,
    plane: np.ndarray,
    crs: str,
    step: float,
    dtype: str,
    *,
    order: int = 1,
    nodata: float | None = None,
    gap: bool = False,
) -> None:
    """Write a plane of the ground in another projection and resolution.

    With a gap, a block in the south-east was never surveyed.
    """
    x, y = _axes()
    extent = (x[0], y[-1], x[-1], y[0])
    west, south, east, north = transform_bounds(CRS, crs, *extent)
    lon, lat = np.meshgrid(
        np.arange(west, east, step) + step / 2, np.arange(north, south, -step) - step / 2
    )
    back = pyproj.Transformer.from_crs(crs, CRS, always_xy=True)
    px, py = back.transform(lon, lat)
    places = [(y[0] - py) / STEP, (px - x[0]) / STEP]
    hole = np.nan if nodata is None else nodata
    values = map_coordinates(plane.astype("float64"), places, order=order, cval=np.nan)
    values = np.where(np.isnan(values), hole, values)
    if gap:
        unflown = (px > BOUNDS[2] - 45e3) & (py < BOUNDS[1] + 55e3)
        values = np.where(unflown, hole, values)
    transform = Affine(step, 0, west, 0, -step, north)
    profile = {"driver": "GTiff", "count": 1, "crs": crs, "transform": transform, "nodata": hole}
    size = {"height": values.shape[0], "width": values.shape[1], "dtype": dtype}
    with rasterio.open(path, "w", **profile, **size) as target:
        target.write(values.astype(dtype), 1)
