"""Maps of a cube larger than memory: Dask predicts it tile by tile, on one machine or many."""

import threading
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr

from mpm import artefacts, datacube, fetch, mae, map_files, map_styles
from mpm.classifier import Classifier, classifier_path, load_classifier
from mpm.devices import device_of
from mpm.mapping import predict
from mpm.scaling import Scaling, apply_scaling
from mpm.study import Study
from mpm.windows import make_windows, window_centres

# a process predicts one tile at a time: torch has the cores, and memory holds one tile's windows
_TURN = threading.Lock()
MAPS = ("likelihood", "uncertainty")


def draw(
    study: Study,
    target: str,
    *,
    network: Study | None = None,
    tile: int = 1024,
    samples: int = 100,
    seed: int = 7,
    device: str = "auto",
) -> list[Path]:
    """Map every region of a study with a final network, its own or another study's.

    Only notebook 01 need have run on the study, so that a network trained on a region that fits
    into memory maps a continent, or ground that it never saw. The scaling is the network's own.

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
        As for `mapping.predict`.
    device : str
        As for `devices.device_of`.

    Returns
    -------
    list of Path
        Of GeoTIFFs, with style and JSON beside each, in `tiled_maps` of the study's target.

    Raises
    ------
    FileNotFoundError
        If a notebook has not run; it is named.
    KeyError
        If the network's study has no such target.
    ValueError
        If the study's layers or their units are not those of the network.
    """
    network = network or study
    network.target(target)
    own = mae.backbone_path(network, "final", 0)
    folder = classifier_path(network, target, "final", 0)
    classifier = load_classifier(folder).classifier
    facts: dict[str, object] = {"study": study.name, "target": target, "network": network.name}
    facts |= {"split": "final", "seed": seed, "samples": samples}
    facts |= {"inputs": fetch.input_checksums(study)}
    facts |= {"model": [artefacts.sha256(folder / "model.safetensors")]}
    place, drawn = str(device_of(device)), {}
    out = study.processed / target / "tiled_maps"
    for region in study.regions:
        cube = datacube.read(datacube.path(study, region), chunks=tile)
        planes = {name: cube[name].values.tolist() for name in ("layer", "units")}
        _, scaling, _ = mae.load(own, layers=planes["layer"], units=planes["units"])
        made = predict_tiled(classifier, cube, scaling, samples=samples, seed=seed, device=place)
        datacube.write(made, out / f"prediction_{region}.zarr")
        drawn[region] = datacube.read(out / f"prediction_{region}.zarr")
    return [
        _write(maps[name], out / f"{name}_{region}.tif", facts, map_styles.limits(name, drawn))
        for region, maps in drawn.items()
        for name in MAPS
    ]


def _write(plane: xr.DataArray, place: Path, facts: dict, limits: tuple[float, float]) -> Path:
    map_files.write_map(plane, place, {"calibration": map_files.NOT_CHECKED} | facts, limits)
    return place


def predict_tiled(
    classifier: Classifier,
    cube: xr.Dataset,
    scaling: Scaling,
    *,
    samples: int = 100,
    seed: int = 0,
    batch: int = 0,
    min_valid: float = 0.25,
    device: str = "cpu",
) -> xr.Dataset:
    """Promise the map of a lazy cube; `datacube.write` computes and stores it tile by tile.

    Every tile is read with half a window of its neighbours around it, so that windows at its edges
    are those of the whole map. Only as many tiles as there are Dask threads are in memory.

    Parameters
    ----------
    classifier : Classifier
    cube : Dataset
        Of `datacube.read(path, chunks=...)`: `evidence (layer, y, x)` unscaled, `valid (y, x)`.
    scaling : Scaling
        The classifier's own.
    samples, seed, batch
        As for `mapping.predict`. All tiles share their dropout masks, as all cells of a map do.
    min_valid : float
        As for `windows.make_windows`.
    device : str
        Of every worker, e.g. "cpu" or "cuda".

    Returns
    -------
    Dataset
        `likelihood` and `uncertainty (y, x)` float32, Dask arrays, NaN where nothing is predicted;
        the numbers of `mapping.predict` on the whole region, to rounding.

    Raises
    ------
    ValueError
        If the cube is in memory, smaller than half a window, or of other layers than the scaling.
    """
    if cube["evidence"].chunks is None:
        raise ValueError("the cube is in memory; read it with chunks, or use mapping.predict")
    window = classifier.encoder.config.window
    if min(cube["valid"].shape) < window // 2:
        raise ValueError(
            f"a map of {cube['valid'].shape} cells is narrower than half a window of {window}; "
            "load it and use mapping.predict"
        )
    evidence = apply_scaling(cube, scaling)["evidence"].data.rechunk({0: -1})
    # the layers come last and whole, as one more: what is valid
    valid = cube["valid"].data.rechunk(evidence.chunks[1:])
    both = da.concatenate([evidence, valid[None].astype("float32")]).rechunk({0: -1})
    halo = {0: 0, 1: window // 2, 2: window // 2}
    tiles = da.overlap.overlap(both, halo, boundary={0: "none", 1: np.nan, 2: np.nan})
    inner = da.overlap.trim_internal(tiles, halo, boundary={0: "none", 1: np.nan, 2: np.nan})
    # sent to each worker once
    model = dask.delayed(classifier, traverse=False)
    options = {"samples": samples, "seed": seed, "batch": batch, "device": device}
    planes = tiles.map_blocks(
        _predict_tile, model=model, min_valid=min_valid, options=options, dtype="float32",
        chunks=((len(MAPS),), *inner.chunks[1:]), meta=np.empty((0, 0, 0), "float32"),
    )  # fmt: skip
    coords = {axis: cube[axis] for axis in "yx"}
    drawn = {name: (("y", "x"), planes[k]) for k, name in enumerate(MAPS)}
    result = xr.Dataset(drawn, coords, cube.attrs)
    return result.rio.write_crs(cube.rio.crs).rio.write_transform(cube.rio.transform())


def _predict_tile(
    tile: np.ndarray, *, model: Classifier, min_valid: float, options: dict
) -> np.ndarray:
    """Predict the inner cells of a tile (layer and valid, y, x) with its halo: (2, y, x)."""
    window = model.encoder.config.window
    half = window // 2
    valid = tile[-1] == 1  # NaN beyond the map is not
    rows, cols = window_centres(valid, window, min_valid=min_valid)
    inside = np.zeros(valid.shape, bool)
    inside[half:-half, half:-half] = True
    found = np.full((len(MAPS), *valid.shape), np.nan, "float32")
    if inside[rows, cols].any():
        planes = {"evidence": (("layer", "y", "x"), tile[:-1]), "valid": (("y", "x"), valid)}
        cube = xr.Dataset(planes, {"layer": np.arange(len(tile) - 1)})
        windows = make_windows([cube], window, min_valid=min_valid)
        index = np.flatnonzero(inside[windows.row, windows.col])
        with _TURN:
            found[:, windows.row[index], windows.col[index]] = predict(
                model, windows, index, label="tile", **options
            )
    return found[:, half:-half, half:-half]
