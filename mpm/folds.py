"""What one fold of a split gives a method: scaled windows, and which centres are whose."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr

from mpm import artefacts, mae
from mpm.scaling import Scaling, apply_scaling, fit_scaling
from mpm.splits import SplitSettings, check, deals_cells, make_split
from mpm.study import Study
from mpm.windows import Windows, make_windows

REGION_STEP = 1_000_000  # deposits of different regions never share a number


@dataclass(frozen=True)
class Fold:
    """What one fold of a split gives a method: scaled windows, and which centres are whose.

    Attributes
    ----------
    split, number
        Name of the split and number of the fold.
    scaling : Scaling
        Fitted on the training cells.
    windows : Windows
        All centres of all regions.
    train, validation, test : array (n,) of int
        Numbers of centres.
    """

    split: str
    number: int
    scaling: Scaling
    windows: Windows
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def make_fold(
    cubes: Mapping[str, xr.Dataset],
    split: str,
    number: int,
    settings: SplitSettings,
    window: int,
    *,
    targets: Sequence[str],
    scaling: Scaling | None = None,
) -> Fold:
    """Split the cells, check for leaks, and scale by the training cells.

    Parameters
    ----------
    cubes : dict of Dataset
        By region, with labels.
    split, number, settings, targets
        As for `splits.make_split`.
    window : int
        Cells along one side.
    scaling : Scaling, optional
        A backbone's own, fitted on the same training cells; fitted here by default.

    Returns
    -------
    Fold

    Raises
    ------
    ValueError
        As `splits.make_split` and `splits.check`.
    """
    regions = list(cubes.values())
    parts = make_split(regions, split, number, settings, targets=targets)
    scaling = scaling or fit_scaling(regions, parts.train)
    if deals_cells(split, settings):  # deposits are parted and windows overlap, for contrast
        check(parts, scaling=scaling)
    else:
        known = {name: [cube[f"{name}_deposit"].values for cube in regions] for name in targets}
        check(parts, settings.dead_cells, window=window, deposits=known, scaling=scaling)
    windows = make_windows([apply_scaling(cube, scaling) for cube in regions], window)
    index = [
        np.flatnonzero(windows.take(part)) for part in (parts.train, parts.validation, parts.test)
    ]
    return Fold(split, number, scaling, windows, *index)


def labels(
    cubes: Mapping[str, xr.Dataset], windows: Windows, target: str
) -> tuple[np.ndarray, np.ndarray]:
    """Read a target's labels at all centres.

    Returns
    -------
    positive : array (n,) of bool
    deposit : array (n,) of int
        Number of the deposit, different in every region; -1 where there is none.
    """
    positive = windows.take([cube[target].values for cube in cubes.values()])
    number = windows.take([cube[f"{target}_deposit"].values for cube in cubes.values()])
    return positive, np.where(positive, number + REGION_STEP * windows.region, -1)


def open_fold(
    study: Study, cubes: dict[str, xr.Dataset], split: str, number: int, settings: SplitSettings
) -> tuple[Fold, mae.MaskedAutoencoder]:
    """Return a fold, scaled as its backbone was, and the backbone that knows its training cells.

    Parameters
    ----------
    study : Study
    cubes : dict of Dataset
        By region, with labels.
    split, number
        The split, and the number of its fold.
    settings : SplitSettings
    """
    first = next(iter(cubes.values()))
    seen = {"layers": first["layer"].values.tolist(), "units": first["units"].values.tolist()}
    model, scaling, _ = mae.load(mae.backbone_path(study, split, number), **seen)
    window, targets = model.config.window, list(study.targets)
    fold = make_fold(cubes, split, number, settings, window, targets=targets, scaling=scaling)
    return fold, model


def write_settings(study: Study, settings: SplitSettings, *, preset: str) -> None:
    """Keep how cells are divided, for the notebooks after the second."""
    content = {"preset": preset, "split": asdict(settings)}
    artefacts.write_json(study.processed / "splits.json", content)


def read_settings(study: Study) -> tuple[SplitSettings, str]:
    """Return how cells are divided, and the preset of the backbones.

    Raises
    ------
    FileNotFoundError
        If notebook 02 has not run.
    ValueError
        If the file is damaged or of another version.
    """
    place = artefacts.require(study.processed / "splits.json", "02_mae_pretraining")
    content = artefacts.read_facts(place, "split", "preset")
    try:
        return SplitSettings(**content["split"]), content["preset"]
    except TypeError as error:
        raise ValueError(
            f"{place} is damaged or of another version of mpm ({error}); run notebook "
            "02_mae_pretraining again"
        ) from error
