"""Whether deposits suffice for the splits that a study is scored by, and how sure scores can be."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from mpm.dealing import occupied
from mpm.splits import SplitSettings, auto_block_km, fold_table

SUPPOSED = 0.8  # AUC whose interval is stated
FEW = 5  # deposits below which a score says little


def notes(
    cubes: Mapping[str, xr.Dataset], targets: Sequence[str], settings: SplitSettings
) -> list[str]:
    """Say how many deposits each fold tests, under blocks and by region, and how sure that makes.

    Parameters
    ----------
    cubes : mapping
        Region to a cube with labels of the targets.
    targets : sequence of str
        All of the study: blocks are dealt so that all of them are even.
    settings : SplitSettings
        Folds, side of a block (km; 0: as notebook 02 chooses it) and seed.

    Returns
    -------
    list of str
        A line a remark. Intervals are those of independent deposits, and so the narrowest that
        there can be.
    """
    if not settings.block_km:
        side = auto_block_km(list(cubes.values()), settings.folds)
        settings = SplitSettings(folds=settings.folds, block_km=side, seed=settings.seed)
    found = []
    for target in targets:
        number = sum(deposits(cubes, target).values())
        if number < settings.folds:
            found.append(
                f"{target}: {number} deposits on valid cells are too few for {settings.folds} "
                "folds, each of which needs one; take fewer folds or a wider target"
            )
            continue
        found += [_blocks(cubes, targets, target, settings), *_regions(cubes, target)]
        found.append(_balance(cubes, target))
    return found + _refusal(cubes, targets, settings)


def deposits(cubes: Mapping[str, xr.Dataset], target: str) -> dict[str, int]:
    """Count a target's deposits on valid cells, by region."""
    return {
        region: len(np.unique(number[(number >= 0) & cube["valid"].values]))
        for region, cube in cubes.items()
        for number in [cube[f"{target}_deposit"].values]
    }


def half_width(positives: float, negatives: float) -> float:
    """Return how far the 95 % interval of an AUC of `SUPPOSED` reaches to either side, at best."""
    return 1.96 * auc_error(SUPPOSED, positives, negatives)


def auc_error(auc: float, positives: float, negatives: float) -> float:
    """Return the standard error of an AUC of so many independent positives and negatives.

    Source: Hanley and McNeil 1982, Radiology 143, 29-36, equation 1, with their Q1 and Q2 of the
    exponential model.
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc)
    spread += (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return float((spread / (positives * negatives)) ** 0.5)


# One line each


def _blocks(
    cubes: Mapping[str, xr.Dataset], targets: Sequence[str], target: str, settings: SplitSettings
) -> str:
    """Say what the folds of the block split test of one target."""
    grids, folds, side = list(cubes.values()), settings.folds, settings.block_km
    held, blocks = occupied(grids, targets, target, side_km=side)
    number = sum(deposits(cubes, target).values())
    start = f"{target}, blocks: {number} deposits in {held} of {blocks} blocks of {side:g} km"
    if held < folds:
        return (
            f"{start}, too few for {folds} folds, each of which needs one; take fewer folds "
            "or smaller blocks"
        )
    try:
        tested = fold_table(grids, "blocks", settings, targets)[target]
    except ValueError:  # `_refusal` says which target makes that impossible
        try:
            tested = fold_table(grids, "blocks", settings, [target])[target]
        except ValueError:
            return start
    free = _unlabeled(cubes, target)
    least = half_width(max(1, tested.min()), free / folds)
    return (
        f"{start}; each of {folds} folds tests {tested.min()} to {tested.max()}, so that an AUC of "
        f"{SUPPOSED:g} is known to +-{least:.2f} in the poorest fold and to "
        f"+-{half_width(number, free):.2f} over all at best"
    )


def _regions(cubes: Mapping[str, xr.Dataset], target: str) -> list[str]:
    """Say what each region offers to a test by regions, if there are several."""
    if len(cubes) < 2:
        return []
    counts = deposits(cubes, target)
    if empty := [region for region, number in counts.items() if not number]:
        return [
            f"{target}, region split: no deposit in {', '.join(empty)}, so there is nothing to "
            "find or to learn from there, and the split is left out"
        ]
    texts = []
    for region, number in counts.items():
        width = half_width(number, _unlabeled({region: cubes[region]}, target))
        few = ", which says little" if number < FEW else ""
        texts.append(f"{number} in {region} (+-{width:.2f}{few})")
    return [
        f"{target}, region split: {'; '.join(texts)}; in brackets how well an AUC of "
        f"{SUPPOSED:g} is known there at best"
    ]


def _balance(cubes: Mapping[str, xr.Dataset], target: str) -> str:
    valid = sum(int(cube["valid"].sum()) for cube in cubes.values())
    positive = valid - _unlabeled(cubes, target)
    return (
        f"{target}: 1 cell in {max(1, round(valid / max(positive, 1))):,} is positive; accuracy "
        "says nothing here, read average precision and capture"
    )


def _refusal(
    cubes: Mapping[str, xr.Dataset], targets: Sequence[str], settings: SplitSettings
) -> list[str]:
    """Say why the block split of all targets together would be refused, if it would be."""
    try:
        fold_table(list(cubes.values()), "blocks", settings, targets)
    except ValueError as error:
        return [f"notebook 02 would stop: {error}"]
    return []


def _unlabeled(cubes: Mapping[str, xr.Dataset], target: str) -> int:
    return sum(int((cube["valid"] & ~cube[target]).sum()) for cube in cubes.values())
