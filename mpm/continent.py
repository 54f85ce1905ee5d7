"""Maps of a study whose cubes are larger than memory: likelihood, uncertainty and reasons."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mpm import artefacts, datacube, explain, fetch, mae, map_files, map_styles
from mpm.classifier import Classifier, drawing_paths, load_classifier
from mpm.devices import device_of
from mpm.explained_cells import BASELINES, EVERY, SHARE
from mpm.scaling import Scaling
from mpm.study import Study
from mpm.tiled_attribution import attribute_tiled, choose, typical_windows
from mpm.tiled_maps import predict_tiled


def draw(
    study: Study,
    target: str,
    *,
    network: Study | None = None,
    tile: int = 1024,
    samples: int = 100,
    share: float = SHARE,
    every: int = EVERY,
    seed: int = 7,
    device: str = "auto",
) -> list[Path]:
    """Map every region of a study with a final network, its own or another study's.

    Only notebook 01 need have run on the study, so that a network trained on a region that fits
    into memory maps a continent, or ground that it never saw. The scaling is the network's own. All
    networks draw that drew its own map. Each cell's reasons take hundreds of times longer than its
    likelihood, so the most likely cells are explained, and a coarse grid that shows the rest.

    Parameters
    ----------
    study : Study
    target : str
        One of the targets of the network's study.
    network : Study, optional
        Where notebooks 02 and 03 have run; the study itself by default.
    tile : int
        Cells along a side of what is read at a time, at least.
    samples, seed
        As for `mapping.predict_ensemble`.
    share : float
        Of each region's predicted cells, the most likely ones that are explained: 1 is all of them,
        0 none.
    every : int
        Rows and columns between the cells of a grid that is explained beside them; 0 for none.
    device : str
        As for `devices.device_of`.

    Returns
    -------
    list of Path
        Of GeoTIFFs, with style and JSON beside each, in `tiled_maps` of the study's target; of the
        contributions one an evidence layer. `attribution_<region>.zarr` holds them all.

    Raises
    ------
    FileNotFoundError
        If a notebook has not run; it is named.
    KeyError
        If the network's study has no such target.
    ValueError
        If the study's layers or their units are not those of the network.
    """
    members, facts = _networks(study, target, network or study)
    facts |= {"seed": seed, "samples": samples}
    own = mae.backbone_path(network or study, "final", 0)
    given: dict[str, Any] = {"device": str(device_of(device))}
    out = study.processed / target / "tiled_maps"
    cubes, drawn = {}, {}
    for region in study.regions:
        cube = datacube.read(datacube.path(study, region), chunks=tile)
        planes = {name: cube[name].values.tolist() for name in ("layer", "units")}
        _, scaling, _ = mae.load(own, layers=planes["layer"], units=planes["units"])
        made = predict_tiled(members, cube, scaling, samples=samples, seed=seed, **given)
        datacube.write(made, out / f"prediction_{region}.zarr")
        cubes[region], drawn[region] = cube, datacube.read(out / f"prediction_{region}.zarr")
    written = [
        _write(maps[name], out / f"{name}_{region}.tif", facts, map_styles.limits(name, drawn))
        for region, maps in drawn.items()
        for name in map_styles.LOOKS
        if name in maps
    ]
    if not share and not every:
        return written
    facts |= {"explained": {"share": share, "grid": every, "compared_with": BASELINES}}
    reasons = _explain(members, cubes, drawn, scaling, out, share=share, every=every, **given)
    return written + _write_reasons(cubes, reasons, out, facts)


def _networks(study: Study, target: str, network: Study) -> tuple[list[Classifier], dict]:
    """Load all networks behind a study's map, and say what draws the map."""
    network.target(target)
    folders = drawing_paths(network, target, map_files.read_facts(network, target))
    facts: dict[str, Any] = {"study": study.name, "target": target, "network": network.name}
    facts |= {"split": "final", "ensemble": len(folders)}
    facts |= {"inputs": fetch.input_checksums(study)}
    facts |= {"model": [artefacts.sha256(folder / "model.safetensors") for folder in folders]}
    return [load_classifier(folder).classifier for folder in folders], facts


def _explain(
    members: list[Classifier],
    cubes: Mapping[str, xr.Dataset],
    drawn: Mapping[str, xr.Dataset],
    scaling: Scaling,
    out: Path,
    *,
    share: float,
    every: int,
    device: str,
) -> dict[str, xr.Dataset]:
    """Explain chosen cells of all regions and store that tile by tile; return it, lazy."""
    likelihood = {region: maps["likelihood"] for region, maps in drawn.items()}
    window, found = members[0].encoder.config.window, {}
    usual = typical_windows(cubes, likelihood, scaling, window, count=BASELINES)
    for region, cube in cubes.items():
        chosen = choose(likelihood[region], share=share, every=every)
        made = attribute_tiled(members, cube, scaling, chosen, usual, device=device)
        place = out / f"attribution_{region}.zarr"
        datacube.write(made, place)
        found[region] = datacube.read(place, chunks=1)  # lazy
    return found


def _write_reasons(
    cubes: Mapping[str, xr.Dataset], reasons: Mapping[str, xr.Dataset], out: Path, facts: dict
) -> list[Path]:
    """Write contributions, an evidence layer at a time: one plane is in memory, not all."""
    gaps = np.concatenate([made["gap"].values.ravel() for made in reasons.values()])
    gaps = gaps[np.isfinite(gaps)]
    explained = {"cells": len(gaps), "cells that miss the score by 1 % or more":
                 int((gaps >= explain.TOLERANCE).sum())}  # fmt: skip
    facts |= {"explained": facts["explained"] | explained}
    cube, written = next(iter(cubes.values())), []
    origin = cube["origin" if "origin" in cube.coords else "layer"].values
    for name in dict.fromkeys(origin.tolist()):
        planes = {
            region: made["attribution"][np.flatnonzero(origin == name)]
            .sum("layer", min_count=1)
            .compute()
            .rename("attribution")
            for region, made in reasons.items()
        }
        limits = map_styles.limits("attribution", {r: p.to_dataset() for r, p in planes.items()})
        for region, plane in planes.items():
            place = out / f"attribution_{name}_{region}.tif"
            band = plane.expand_dims(layer=[name])
            written.append(_write(band, place, facts, limits))
    return written


def _write(plane: xr.DataArray, place: Path, facts: dict, limits: tuple[float, float]) -> Path:
    map_files.write_map(plane, place, {"calibration": map_files.NOT_CHECKED} | facts, limits)
    return place
