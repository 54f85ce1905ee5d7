"""A study's final network and its map, opened to explain single cells of it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyproj
import torch
import xarray as xr

from mpm import datacube, deposits, devices, explain, explained_cells, mapping
from mpm.classifier import Classifier, drawing_paths, load_classifier
from mpm.encoder import Encoder
from mpm.folds import Fold, labels, open_fold, read_settings
from mpm.labels import read_deposits
from mpm.study import Study


@dataclass(frozen=True)
class Setting:
    """A study's final network and all that its cells are explained by.

    Attributes
    ----------
    study : Study
    target : str
    cubes : dict of Dataset
        By region, unscaled.
    fold : Fold
        The final one; its windows are scaled.
    classifier : Classifier
    encoder : Encoder
        Pretrained, before it saw a deposit.
    maps : dict of Dataset
        By region: likelihood, uncertainty.
    deposits : dict of DataFrame
        Known deposits of the target by region.
    likelihood, uncertainty : array (n,)
        Of all centres.
    positive, deposit : array (n,)
        Of `folds.labels`.
    typical : array (n,) of int
        Cells of usual background, of `explained_cells.typical_cells`.
    device : device
    others : tuple of Classifier
        The other members of the ensemble that drew the map; empty if one network did.
    """

    study: Study
    target: str
    cubes: dict[str, xr.Dataset]
    fold: Fold
    classifier: Classifier
    encoder: Encoder
    maps: dict[str, xr.Dataset]
    deposits: dict[str, pd.DataFrame]
    likelihood: np.ndarray
    uncertainty: np.ndarray
    positive: np.ndarray
    deposit: np.ndarray
    typical: np.ndarray
    device: torch.device
    others: tuple[Classifier, ...] = ()

    @property
    def members(self) -> list[Classifier]:
        """All networks that drew the map, the first of them first."""
        return [self.classifier, *self.others]

    @property
    def layers(self) -> list[str]:
        """Names of the planes."""
        return next(iter(self.cubes.values()))["layer"].values.tolist()

    @property
    def origin(self) -> list[str]:
        """Evidence layer of each plane."""
        return next(iter(self.cubes.values()))["origin"].values.tolist()

    def region(self, centre: int) -> str:
        """Return the name of a centre's region."""
        return list(self.cubes)[self.fold.windows.region[centre]]

    def place(self, centre: int) -> tuple[float, float]:
        """Return a centre's x and y (m, the region's CRS)."""
        cube, windows = self.cubes[self.region(centre)], self.fold.windows
        return float(cube["x"][windows.col[centre]]), float(cube["y"][windows.row[centre]])

    def baselines(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the typical cells' windows, values and gaps, (cells, layers, size, size) each."""
        return self.fold.windows.gather(self.typical)


def open_setting(
    study: Study, target: str, *, seed: int | None = None, device: str = "auto"
) -> Setting:
    """Read what notebooks 01 to 03 have made.

    Parameters
    ----------
    study : Study
    target : str
    seed : int, optional
        Decides which background cells are looked at for typical ones; by default the seed of the
        map, so that a page is the same whoever asks for it.
    device : str
        As for `devices.device_of`.

    Raises
    ------
    FileNotFoundError
        If one of them has not run; it is named.
    KeyError
        If the study has no such target.
    """
    study.target(target)
    cubes = datacube.read_cubes(study)
    settings, _ = read_settings(study)
    maps, facts = mapping.read_maps(study, target), mapping.read_facts(study, target)
    classifier, *others = (
        load_classifier(folder).classifier for folder in drawing_paths(study, target, facts)
    )
    fold, backbone = open_fold(study, cubes, "final", 0, settings)
    positive, deposit = labels(cubes, fold.windows, target)
    values = {
        name: fold.windows.take([maps[region][name].values for region in cubes])
        for name in ("likelihood", "uncertainty")
    }
    background = fold.train[~positive[fold.train]]
    typical = explained_cells.typical_cells(
        classifier,
        fold.windows,
        background,
        count=explained_cells.BASELINES,
        seed=facts["seed"] if seed is None else seed,
    )
    place, known = devices.device_of(device), read_deposits(study, target)
    return Setting(
        study, target, cubes, fold, classifier, backbone.encoder, maps, known,
        positive=positive, deposit=deposit, typical=typical, device=place,
        others=tuple(others), **values,
    )  # fmt: skip


def find(setting: Setting, longitude: float, latitude: float) -> int:
    """Return the centre of the cell that holds a place.

    Parameters
    ----------
    setting : Setting
    longitude, latitude : float
        Degrees, WGS 84.

    Raises
    ------
    ValueError
        If the place lies outside every region (the message gives their bounds), or on a cell
        without a prediction: not valid, or with too little evidence around.
    """
    windows, bounds, bare = setting.fold.windows, [], None
    for number, (region, cube) in enumerate(setting.cubes.items()):
        there = pyproj.Transformer.from_crs("EPSG:4326", cube.rio.crs, always_xy=True)
        x, y = there.transform(longitude, latitude)
        for cell in deposits.locate(pd.DataFrame({"x": [x], "y": [y]}), cube["valid"]).itertuples():
            here = (windows.region == number) & (windows.row == cell.row)
            found = np.flatnonzero(here & (windows.col == cell.col))
            if len(found):
                return int(found[0])
            bare = region
        west, south, east, north = cube.rio.bounds()
        box = there.transform_bounds(west, south, east, north, direction="INVERSE")
        bounds.append(f"{region} {box[0]:.1f} to {box[2]:.1f} E, {box[1]:.1f} to {box[3]:.1f} N")
    if bare:
        raise ValueError(
            f"{longitude:g}, {latitude:g} lies in {bare}, but on ground without a prediction "
            "(water, outside the study area or too little evidence); take a place that the "
            "likelihood map colours"
        )
    raise ValueError(
        f"longitude {longitude:g}, latitude {latitude:g} lies outside every region of study "
        f"{setting.study.name!r}: {'; '.join(bounds)} (west is negative)"
    )


def top_share(setting: Setting, centre: int) -> float:
    """Return the share of the region's predicted cells that score as high as a cell or higher."""
    windows = setting.fold.windows
    own = setting.likelihood[windows.region == windows.region[centre]]
    return float((own[~np.isnan(own)] >= setting.likelihood[centre]).mean())


def contributions(
    setting: Setting, centres: np.ndarray
) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Explain centres by Integrated Gradients against typical background.

    Where several networks drew the map, their reasons are averaged as their likelihoods are: the
    sums are those of the networks' mean logit.

    Returns
    -------
    attribution : array (n, planes, size, size)
    summed : DataFrame (n, evidence layers)
        In logits.
    gap : array (n,)
        How far the sums miss the difference of the scores, as a share of it: the largest of all
        networks.
    """
    parts, gaps, baselines = [], [], setting.baselines()
    for member in setting.members:
        attribution, gap = explain.integrated_gradients(
            member, setting.fold.windows, np.asarray(centres),
            baselines=baselines, device=setting.device, label="explaining cells",
        )  # fmt: skip
        parts.append(attribution / len(setting.members))
        gaps.append(gap)
    found = np.sum(parts, axis=0)
    summed = explain.by_evidence(explain.by_layer(found)[0], setting.origin)
    return found, summed, np.max(gaps, axis=0)


def deposit_number(setting: Setting, centre: int) -> int:
    """Return the number, in its region, of the deposit whose cell a centre is; -1 if it is none."""
    if not setting.positive[centre]:
        return -1
    number = setting.cubes[setting.region(centre)][f"{setting.target}_deposit"].values
    windows = setting.fold.windows
    return int(number[windows.row[centre], windows.col[centre]])


def deposit_name(setting: Setting, centre: int) -> str:
    """Return the name of the deposit whose positive cell a centre is; "" if it is none."""
    known = setting.deposits[setting.region(centre)]
    own = known[known["deposit"] == deposit_number(setting, centre)]
    return str(own["name"].iloc[0]) if len(own) else ""
