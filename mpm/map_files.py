"""Maps as files: Zarr for the notebooks, GeoTIFFs with styles and what they mean for a GIS."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from mpm import __version__, artefacts, datacube, map_styles
from mpm.geography import crs_code
from mpm.study import Study

NOT_CHECKED = "not checked"
UNITS = dict.fromkeys(("likelihood", "uncertainty", "ensemble_spread"), "1 (0 to 1)")
UNITS["attribution"] = "logit"
MEANING = {
    "likelihood": "a rank: the higher, the more the ground is like that of known deposits to the"
    " network; computed as a probability at even odds of deposit and background, 0 to 1",
    "uncertainty": "standard deviation of the likelihood over dropout samples of the head",
    "ensemble_spread": "standard deviation of the likelihood over networks trained from several"
    " seeds, of which the likelihood is the mean",
    "attribution": "signed contribution of a layer to the logit, one band a layer: above zero it"
    " speaks for a deposit; empty where a cell was not explained",
}
NOT_MEANING = {
    "likelihood": "not the chance of finding a deposit: nobody knows how many are undiscovered,"
    " and training saw deposits and background at even odds",
    "uncertainty": "not the error of the map: it does not know of missing deposits, of evidence"
    " that nobody measured, or of what another training would have said",
    "ensemble_spread": "not the error of the map: networks that learnt the same mistake agree",
    "attribution": "not a cause: a layer that goes along with a cause can take its credit",
}


def prediction_path(study: Study, target: str, region: str) -> Path:
    """Return where a region's prediction lies."""
    return study.processed / target / f"prediction_{region}.zarr"


def maps_folder(study: Study, target: str) -> Path:
    """Return where a target's GeoTIFFs, targets and web map lie."""
    return study.processed / target / "maps"


def write_prediction(
    study: Study, target: str, maps: Mapping[str, xr.Dataset], facts: Mapping
) -> None:
    """Write each region's maps as Zarr, and for a GIS each map as `<map>_<region>.tif`.

    Beside each GeoTIFF lie a style of the same name for QGIS (`.qml`) and a JSON with the facts,
    the bands, and what the numbers mean and do not mean. Files of kinds of maps that are not among
    them are removed.

    Parameters
    ----------
    study : Study
    target : str
    maps : dict of Dataset
        Of `mapping.prediction_maps`.
    facts : dict
        Study, model, split, seed and input checksums. "calibration" says how and on what
        calibration was checked; without it the likelihood is called a rank, with it a calibrated
        probability.
    """
    folder = maps_folder(study, target)
    facts = {"calibration": NOT_CHECKED, **facts, "mpm": __version__}
    written = [name for name in MEANING if name in next(iter(maps.values()))]
    facts |= {"meaning": {name: meaning(name, facts["calibration"])[0] for name in written}}
    looks = {name: map_styles.limits(name, maps) for name in written}
    for region, result in maps.items():
        datacube.write(result, prediction_path(study, target, region))
        for name in written:
            write_map(result[name], folder / f"{name}_{region}.tif", facts, looks[name])
    for name in set(MEANING) - set(written):  # of an earlier run, so of other networks
        for region in maps:
            for suffix in (".tif", ".qml", ".json"):
                (folder / f"{name}_{region}{suffix}").unlink(missing_ok=True)
    artefacts.write_json(folder / "maps.json", facts)


def write_map(
    plane: xr.DataArray, place: Path, facts: Mapping, limits: tuple[float, float]
) -> None:
    """Write one map of a region as GeoTIFF, with its style and its JSON beside it.

    Parameters
    ----------
    plane : DataArray (y, x) or (layer, y, x)
        Called as in `MEANING`.
    place : Path
        Ends in `.tif`.
    facts : dict
        Of `write_prediction`, with "calibration".
    limits : (float, float)
        Ends of the colour range.
    """
    name = str(plane.name)
    bands = plane if "layer" in plane.dims else plane.expand_dims(layer=[name])
    names = [str(layer) for layer in bands["layer"].values]
    # texts along the layers have no place in a GeoTIFF
    bands = bands.drop_vars([key for key in bands.coords if "layer" in bands[key].dims])
    datacube.write_geotiff(bands, place, names=names)
    artefacts.write_text(place.with_suffix(".qml"), map_styles.raster_style(name, *limits))
    means, not_means = meaning(name, facts["calibration"])
    content = {"map": name, "file": place.name, "sha256": artefacts.sha256(place)}
    content |= {"means": means, "does not mean": not_means, "units": UNITS[name]}
    content |= {"bands": names, "range": _range(plane), "missing": "NaN"} | _geometry(plane)
    rest = {key: value for key, value in facts.items() if key != "meaning"}
    artefacts.write_json(place.with_suffix(".json"), content | rest)


def meaning(name: str, calibration: str) -> tuple[str, str]:
    """Return what a map's numbers mean, and what they do not.

    Parameters
    ----------
    name : str
        One of `MEANING`.
    calibration : str
        How calibration was checked, or "not checked".
    """
    if name != "likelihood" or calibration == NOT_CHECKED:
        return MEANING[name], NOT_MEANING[name]
    return (
        f"calibrated probability of a known deposit in the cell, 0 to 1; checked: {calibration}",
        "not the chance of a discovery: it counts deposits as they are known, and holds for"
        " ground like that of the check",
    )


def _range(plane: xr.DataArray) -> list[float] | None:
    """Smallest and largest value; none where all are missing."""
    seen = plane.values[np.isfinite(plane.values)]
    return [float(f"{value:.6g}") for value in (seen.min(), seen.max())] if seen.size else None


def _geometry(plane: xr.DataArray) -> dict:
    """CRS, cell size, bounds (m) and size of a map's grid."""
    return {
        "crs": crs_code(plane.rio.crs) or plane.rio.crs.to_wkt(),
        "cell_m": abs(plane.rio.resolution()[0]),
        "bounds_m": list(plane.rio.bounds()),
        "rows": plane.sizes["y"],
        "columns": plane.sizes["x"],
    }


def read_maps(study: Study, target: str) -> dict[str, xr.Dataset]:
    """Read the regions' predictions written by notebook 03."""
    return {
        region: datacube.read(prediction_path(study, target, region), notebook="03_fine_tuning")
        for region in study.regions
    }


def read_facts(study: Study, target: str) -> dict:
    """Read what is known of the maps: model, split, seed, input checksums, calibration."""
    place = artefacts.require(maps_folder(study, target) / "maps.json", "03_fine_tuning")
    return artefacts.read_json(place)
