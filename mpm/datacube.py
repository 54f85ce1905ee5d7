"""The cube: all evidence layers of one region on one grid, with what is known of each."""

from pathlib import Path

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from rasterio.enums import Resampling
from tqdm.auto import tqdm

from mpm import align, artefacts
from mpm.study import Study

MIN_OBSERVED = 0.5  # share of evidence layers that a valid cell must have


def build(study: Study, region: str) -> xr.Dataset:
    """Align every evidence layer of a region into one cube.

    Parameters
    ----------
    study : Study
    region : str
        Name of the region.

    Returns
    -------
    Dataset
        `evidence (layer, y, x)` float32, NaN where missing and outside the study area;
        `valid (y, x)` bool, cells inside it with at least half of the layers; along `layer` the
        coordinates group, units, kind, origin, method and source.

    Raises
    ------
    FileNotFoundError, ValueError
        As `align.align_layer`; ValueError too if no cell is valid.
    """
    cells = align.grid(study.regions[region])
    inside = align.area_mask(study, region, cells)
    bars = tqdm(study.layers, desc=region, unit="layer", leave=False, disable=artefacts.quiet())
    planes = [align.align_layer(study, layer, region, cells) for layer in bars]
    # coordinates are copied from one grid, so "exact" holds and nothing drifts apart
    evidence = xr.concat(planes, "layer", join="exact").where(inside)
    # the planes of a layer of classes are one layer: many classes outvote nobody
    _, first = np.unique(evidence["origin"].values, return_index=True)
    observed = np.isfinite(evidence.isel(layer=first)).mean("layer")
    valid = (observed >= MIN_OBSERVED) & inside
    if not valid.any():
        raise ValueError(f"region {region!r}: no cell has half of the layers; see `mpm check`")
    cube = xr.Dataset({"evidence": evidence.astype("float32"), "valid": valid})
    cube.attrs = {"study": study.name, "region": region}
    cube = cube.rio.write_crs(cells.rio.crs).rio.write_transform(cells.rio.transform())
    return cube


def path(study: Study, region: str) -> Path:
    """Return where a region's cube lies."""
    return study.processed / f"{region}.zarr"


def write(cube: xr.Dataset, place: Path) -> None:
    """Write a dataset on a grid as Zarr, so that a reader sees the old one or the new one."""
    cube = cube.copy()
    for name in cube.variables:
        cube[name].encoding = {}
        if cube[name].dtype.kind in "OT" or cube[name].dtype.name == "str":
            cube[name] = cube[name].astype(str).astype("U")
    with artefacts.atomic(place) as fresh:
        cube.to_zarr(fresh, zarr_format=2, consolidated=True)


def read(place: Path, *, notebook: str = "01_data_preparation") -> xr.Dataset:
    """Read a dataset written by `write` into memory.

    Parameters
    ----------
    place : Path
    notebook : str
        The notebook that writes it, for the message when it is missing.

    Raises
    ------
    FileNotFoundError
        If it is missing; says which notebook to run.
    ValueError
        If it is damaged; says to run that notebook again.
    """
    artefacts.require(place, notebook)
    try:
        with xr.open_zarr(place, consolidated=True, decode_coords="all") as cube:
            return cube.load()
    except (KeyError, ValueError, OSError, RuntimeError) as error:  # Runtime: a broken chunk
        raise ValueError(f"{place} is damaged ({error}); run notebook {notebook} again") from error


def read_cubes(study: Study) -> dict[str, xr.Dataset]:
    """Read the cubes of all regions, by name."""
    return {region: read(path(study, region)) for region in study.regions}


def coverage(cubes: dict[str, xr.Dataset]) -> pd.DataFrame:
    """Tabulate what each layer holds inside the study area.

    Returns
    -------
    DataFrame
        One row a layer and region: layer, group, region, units, method, missing (% of valid cells),
        min, median, max.
    """
    rows = []
    for region, cube in cubes.items():
        for plane in cube["evidence"]:
            values = plane.values[cube["valid"].values]
            low, middle, high = np.nanquantile(values, [0, 0.5, 1]) if values.size else [np.nan] * 3
            facts = {key: str(plane[key].item()) for key in ("layer", "group", "units", "method")}
            missing = round(100 * np.isnan(values).mean(), 1)
            rows.append(
                facts
                | {"region": region, "missing": missing, "min": low, "median": middle, "max": high}
            )
    return pd.DataFrame(rows)


def write_geotiff(layers: xr.DataArray, place: Path, *, names: list[str]) -> None:
    """Write planes as a Cloud-Optimized GeoTIFF with overviews and named bands.

    Parameters
    ----------
    layers : DataArray (band, y, x)
        Values in memory (GDAL writes empty overviews from lazy arrays), NaN where missing.
    place : Path
    names : list of str
        One a band.
    """
    layers = layers.astype("float32").assign_attrs(long_name=tuple(names))
    with artefacts.atomic(place) as fresh:
        layers.rio.write_nodata(np.nan).rio.to_raster(
            fresh, driver="COG", compress="DEFLATE", overview_resampling=Resampling.average.name
        )
