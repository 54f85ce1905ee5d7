"""The demo study's raw files: two synthetic continents whose true prospectivity is known.

Module `demo_world` draws the continents and their deposits. What a user would have lies in the
folder itself, the truth in `truth/`, which only the evaluation reads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import rasterio
import rioxarray
import xarray as xr
from rasterio.features import shapes
from rasterio.transform import Affine, from_origin
from rasterio.warp import Resampling, reproject, transform_bounds
from shapely.geometry import shape

from mpm import artefacts
from mpm.demo_world import (
    AGES,
    ROCKS,
    Frame,
    draw_deposits,
    draw_world,
    is_rock,
    land_cells,
    smooth,
    true_probability,
)
from mpm.study import Region

REGIONS = {
    "north": Region(
        crs="ESRI:102008", resolution=5000, bounds=(-200_000, -300_000, 760_000, 660_000)
    ),
    "south": Region(
        crs="EPSG:3577", resolution=5000, bounds=(-400_000, -2_800_000, 560_000, -1_840_000)
    ),
}
TARGETS = ("MVT", "CD")

# A layer's role for MVT and for CD: it shows an ingredient of the mineral system (causal), it goes
# along with one, in the north more than in the south (proxy), or it has nothing to do with any
# (distractor).
ROLES = {
    "gravity": ("causal", "proxy"),
    "magnetics": ("proxy", "proxy"),
    "lab": ("distractor", "causal"),
    "moho": ("distractor", "proxy"),
    "heat_flow": ("distractor", "distractor"),
    "potassium": ("proxy", "proxy"),
    "lithology": ("causal", "proxy"),
    "age": ("causal", "distractor"),
    "black_shale": ("proxy", "causal"),
    "sediment_thickness": ("causal", "causal"),
    "black_shale_distance": ("proxy", "causal"),
    "fault_distance": ("causal", "causal"),
    "terrane_distance": ("causal", "proxy"),
    "topography": ("proxy", "proxy"),
    "cover_thickness": ("distractor", "distractor"),
    "rainfall": ("distractor", "distractor"),
}

_NODATA = -32768  # code of the collar of the integer rasters


def write(folder: Path, *, seed: int = 7) -> None:
    """Write the demo's raw files, and the truth apart from them.

    The same seed gives the same bytes. A folder of that name is replaced as a whole.

    Parameters
    ----------
    folder : Path
        Receives `north/`, `south/`, `deposits.csv` and `truth/`.
    seed : int
        Seeds every random field and draw.
    """
    with artefacts.atomic(Path(folder)) as fresh, _fixed_date():
        (fresh / "truth").mkdir(parents=True)
        everything = []
        for name, region in REGIONS.items():
            (fresh / name).mkdir()
            frame = Frame(name, region, seed)
            world = draw_world(frame)
            _write_rasters(fresh / name, frame, world)
            _write_vectors(fresh / name, frame, world)
            truth = true_probability(frame, world)
            bands = np.stack([truth[target] for target in TARGETS]).astype("float32")
            to = frame.grid_transform
            _geotiff(fresh / "truth" / f"{name}.tif", bands, region.crs, to, np.nan, TARGETS)
            everything.append(draw_deposits(frame, world, truth))
        _write_deposits(fresh, pd.concat(everything, ignore_index=True))
        roles = {layer: dict(zip(TARGETS, role, strict=True)) for layer, role in ROLES.items()}
        artefacts.write_json(fresh / "truth" / "layers.json", roles)


def read_truth(folder: Path, region: str) -> xr.Dataset:
    """Read the true probability that a cell holds a deposit.

    Parameters
    ----------
    folder : Path
        What `write` wrote.
    region : str
        "north" or "south".

    Returns
    -------
    Dataset
        One variable (y, x) a target, float32, dimensionless, on the region's grid; NaN in the sea.

    Raises
    ------
    FileNotFoundError
        If the folder holds no truth.
    """
    path = _require_truth(Path(folder) / "truth" / f"{region}.tif")
    source = rioxarray.open_rasterio(path, masked=True, cache=False)
    assert isinstance(source, xr.DataArray)  # of a GeoTIFF
    with source:
        bands = source.load()
    truth = {}
    for number, name in enumerate(bands.attrs["long_name"]):
        truth[name] = bands.isel(band=number, drop=True)
        truth[name].attrs = {"units": "1", "long_name": f"true probability of {name}"}
    return xr.Dataset(truth)


def read_true_deposits(folder: Path) -> pd.DataFrame:
    """Read all deposits, the undiscovered ones too.

    Columns are region, id, type, longitude and latitude (degrees), size (Mt of metal) and
    discovered (bool).

    Raises
    ------
    FileNotFoundError
        If the folder holds no truth.
    """
    return pd.read_csv(_require_truth(Path(folder) / "truth" / "deposits.csv"))


def read_roles(folder: Path) -> dict[str, dict[str, str]]:
    """Read each layer's role a target: "causal", "proxy" or "distractor".

    Raises
    ------
    FileNotFoundError
        If the folder holds no truth.
    """
    return artefacts.read_json(_require_truth(Path(folder) / "truth" / "layers.json"))


def _require_truth(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; write the demo first (mpm fetch demo)")
    return path


def _write_rasters(folder: Path, frame: Frame, world: dict) -> None:
    """Write the rasters, in several CRS, resolutions and data types."""
    lon_lat, own = "EPSG:4326", frame.region.crs
    geometry = {
        "gravity": (own, 2500),
        "magnetics": (lon_lat, 0.05),
        "lab": (lon_lat, 0.25),
        "moho": (lon_lat, 0.25),
        "heat_flow": (lon_lat, 0.1),
        "potassium": (own, 2500),
        "sediment_thickness": (own, 10_000),
        "topography": (lon_lat, 0.05),
        "cover_thickness": (own, 10_000),
        "rainfall": (own, 10_000),
    }
    fields = _geophysics(frame, world) | _ground(frame, world)
    for name, (crs, cell) in geometry.items():
        integer = name in ("potassium", "topography")
        _raster(folder / f"{name}.tif", frame, fields[name], crs, cell, integer=integer)


def _geophysics(frame: Frame, world: dict) -> dict[str, np.ndarray]:
    """What looks into the crust (y, x), on land and sea: geology mixed with things unrelated."""
    noise, north = frame.noise, frame.name == "north"
    granite = _granite(world)
    # steps along block edges, where the crustal faults are
    gravity = 14 * np.tanh(world["block"] / 0.12) - 5 * world["sediment"] - 12 * granite
    gravity += 22 * noise("gravity", 80) + 1.5 * noise("gravity detail", 5)
    grain = np.exp(0.6 * noise("texture", 50)) * noise("magnetic grain", 6)
    magnetics = 60 * noise("magnetic regional", 70) + 40 * grain + 60 * granite
    magnetics -= 90 * north * world["rift"]
    return {
        "gravity": gravity,
        "magnetics": np.where(_gap(frame), np.nan, magnetics),
        "lab": world["lab"],
        "moho": 38 + 5 * noise("moho", 90) + 0.08 * north * (world["lab"] - 150),
        "heat_flow": 60 + 9 * noise("heat flow", 35),
    }


def _ground(frame: Frame, world: dict) -> dict[str, np.ndarray]:
    """What is measured on the ground (y, x): NaN in the sea."""
    noise, north = frame.noise, frame.name == "north"
    belt = np.exp(-(((world["foreland"] - 220) / 70) ** 2))
    orogen = 1 / (1 + np.exp(world["foreland"] / 60))
    potassium = 1.6 + 1.2 * _granite(world) + 0.3 * noise("potassium", 12) + 0.5 * north * belt
    fields = {
        "potassium": 100 * potassium,
        "sediment_thickness": world["sediment"],
        "topography": 300 + 80 * noise("relief", 15) + (900 if north else 150) * orogen,
        "cover_thickness": world["cover"],
        "rainfall": 700 * np.exp(0.4 * noise("rainfall", 90)),
    }
    return {name: np.where(world["land"], field, np.nan) for name, field in fields.items()}


def _granite(world: dict) -> np.ndarray:
    return smooth(is_rock(world, "granite"), 4)


def _gap(frame: Frame) -> np.ndarray:
    """A block (y, x) that the magnetic survey never flew, 150 by 100 km."""
    row, col = (np.array([0.3, 0.55]) * frame.side).astype(int)
    gap = np.zeros((frame.side, frame.side), dtype=bool)
    gap[row : row + 40, col : col + 60] = True
    return gap


def _raster(
    path: Path, frame: Frame, values: np.ndarray, crs: str, cell: float, *, integer: bool = False
) -> None:
    """Write a field (y, x) as GeoTIFF in `crs` with square cells of `cell` (its units)."""
    west, south, east, north = transform_bounds(frame.region.crs, crs, *frame.region.bounds)
    shape_ = round((north - south) / cell + 2), round((east - west) / cell + 2)
    to = from_origin(west - cell / 2, north + cell / 2, cell, cell)
    out = np.full(shape_, np.nan, dtype="float32")
    source = {"src_transform": frame.transform, "src_crs": frame.region.crs, "src_nodata": np.nan}
    target = {"dst_transform": to, "dst_crs": crs, "dst_nodata": np.nan}
    field = values.astype("float32")
    reproject(field, out, **source, **target, resampling=Resampling.bilinear)
    if integer:
        out = np.where(np.isnan(out), _NODATA, np.round(out)).astype("int16")
    nodata = _NODATA if integer else np.nan
    _geotiff(path, out[np.newaxis], crs, to, nodata)


def _geotiff(
    path: Path, bands: np.ndarray, crs: str, transform: Affine, nodata: float, names: tuple = ()
) -> None:
    """Write (band, y, x) as GeoTIFF, with band names if given."""
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "dtype": bands.dtype, "count": count, "nodata": nodata}
    profile |= {"height": height, "width": width, "crs": crs, "transform": transform}
    with rasterio.open(path, "w", compress="deflate", **profile) as file:
        file.write(bands)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)


def _write_vectors(folder: Path, frame: Frame, world: dict) -> None:
    """Write polygons and lines."""
    land = land_cells(frame, world)
    _vector(folder / "land.gpkg", frame, _polygons(land, frame.grid_transform)[0])
    for name, classes in [("lithology", ROCKS), ("age", AGES)]:
        codes = np.where(world["land"], world[name], 0)
        polygons, labels = _polygons(codes, frame.transform)
        _vector(folder / f"{name}.gpkg", frame, polygons, {name: [classes[c - 1] for c in labels]})
    black, _ = _polygons(world["black_shale"] & world["land"], frame.transform)
    _vector(folder / "black_shale.geojson", frame, black)
    _vector(folder / "faults.geojson", frame, world["faults"])
    _vector(folder / "terrane_boundary.geojson", frame, world["boundary"])


def _polygons(codes: np.ndarray, transform: Affine) -> tuple[list, list[int]]:
    """Outline patches of equal code (y, x), 0 left out; return polygons and their codes."""
    codes = codes.astype("uint8")
    found = list(shapes(codes, codes > 0, 4, transform))
    return [shape(outline) for outline, _ in found], [int(code) for _, code in found]


def _vector(path: Path, frame: Frame, geometries: list, columns: dict | None = None) -> None:
    """Write features: GeoPackage in the region's CRS, GeoJSON in longitude and latitude."""
    features = gpd.GeoDataFrame(columns or {}, geometry=geometries, crs=frame.region.crs)
    features.insert(0, "number", range(1, len(features) + 1))
    if path.suffix == ".geojson":
        features.to_crs("EPSG:4326").to_file(path, driver="GeoJSON", COORDINATE_PRECISION=5)
    else:
        features.to_file(path, driver="GPKG")


@contextmanager
def _fixed_date() -> Iterator[None]:
    """Keep the clock out of GeoPackages, which store when they were written."""
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00Z"})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _write_deposits(folder: Path, deposits: pd.DataFrame) -> None:
    """Write the truth, and the catalogue of what is known."""
    deposits.to_csv(folder / "truth" / "deposits.csv", index=False)
    known = deposits[deposits["discovered"]].drop(columns=["discovered", "region"])
    status = np.select(
        [known["size"] > 1.5, known["size"] > 0.6], ["mine", "past producer"], "prospect"
    )
    known.insert(4, "status", status)
    known.rename(columns={"id": "name"}).to_csv(folder / "deposits.csv", index=False)
